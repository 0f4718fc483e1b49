//! Files that change while the session runs that has read them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::world::{Scratch, Setup, session_in, text};

#[test]
fn a_file_that_has_changed_is_told_once_and_the_session_goes_on_with_what_it_read() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.0.join(name);
    let told = |name: &str| {
        let line = format!("`{}` has changed on disk", at(name).display());
        fs::read_to_string(at("stderr")).unwrap().matches(&line).count()
    };
    let files = ["servers.toml", "test.toml", "toolcell.lock"];
    let book = session_in(&scratch, &Setup::default(), |mut client| async move {
        client.call(1, "who").await;
        assert_eq!(files.map(told), [0; 3]);
        for name in files {
            let mut file = OpenOptions::new().append(true).create(true).open(at(name)).unwrap();
            file.write_all(b"no TOML").unwrap();
        }
        for id in 2..4 {
            assert_eq!(text(&client.call(id, "who").await).len(), 16);
            assert_eq!(files.map(told), [1; 3]);
        }
        client
    });
    assert_eq!(book.finished.len(), 3);
}
