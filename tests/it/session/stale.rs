//! Files that change while the session runs that has read them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use serde_json::json;

use super::access;
use super::world::{Scratch, Setup, session_in, text};

/// How often it was told that a file has changed.
fn told(scratch: &Scratch, name: &str) -> usize {
    let line = format!("`{}` has changed on disk", scratch.0.join(name).display());
    fs::read_to_string(scratch.0.join("stderr")).unwrap().matches(&line).count()
}

fn append(scratch: &Scratch, name: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(scratch.0.join(name)).unwrap();
    file.write_all(b"no TOML").unwrap();
}

#[test]
fn a_file_that_has_changed_is_told_once_and_the_session_goes_on_with_what_it_read() {
    let scratch = Scratch::new();
    for (name, parent) in [("parent", "default"), ("child", "parent"), ("tried", "default")] {
        let profile = format!("extends = \"{parent}\"\n");
        fs::write(scratch.0.join(name).with_extension("toml"), profile).unwrap();
    }
    let config = "[servers.fixture.tools.state]\nprofile = \"child\"\n\
                  [quarantine]\nviolations = 1000\nprofile = \"tried\"\n";
    let setup = Setup { config: config.to_owned(), ..Setup::default() };
    let files = ["servers.toml", "test.toml", "toolcell.lock", "child.toml", "parent.toml", "tried.toml"];
    let book = session_in(&scratch, &setup, async |mut client| {
        client.call(1, "who").await;
        assert_eq!(files.map(|name| told(&scratch, name)), [0; 6]);
        files.iter().for_each(|name| append(&scratch, name));
        for id in 2..4 {
            assert_eq!(text(&client.call(id, "who").await).len(), 16);
            assert_eq!(files.map(|name| told(&scratch, name)), [1; 6]);
        }
        client
    });
    assert_eq!(book.finished.len(), 3);
}

#[test]
fn who_is_turned_away_has_no_file_looked_at() {
    let scratch = Scratch::new();
    session_in(&scratch, &access::setup(), async |mut client| {
        access::call(&mut client, 1, access::READER, "who").await;
        append(&scratch, "test.toml");
        let refused = client.call(2, "who").await;
        assert_eq!((&refused["error"]["code"], told(&scratch, "test.toml")), (&json!(401), 0));
        access::call(&mut client, 3, access::READER, "who").await;
        assert_eq!(told(&scratch, "test.toml"), 1);
        client
    });
}
