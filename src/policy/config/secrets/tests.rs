//! The sections as people write them, right and wrong.

use super::super::super::Source;
use super::super::{Config, parse};
use super::*;
use crate::policy::mistakes::Mistakes;
use crate::policy::source::{DAY, TIMEOUT};

fn read(text: &str) -> Result<Config, Mistakes> {
    let text = format!("[servers.git]\ncommand = [\"git\"]\n{text}");
    let source = Source { name: "c".to_owned(), path: Some("/etc/cells/config.toml".into()), text };
    parse(&source, &BTreeSet::new())
}

#[test]
fn what_is_written_is_what_holds() {
    let text = r#"
[secrets.one]
from = { env = "ONE" }
to = ["git/push", "git/pull"]
into = { env = "GIT_TOKEN" }
format = "ghp_[A-Za-z0-9]{36}"
max-age = "90d"
warn-age = "60d"
rotated = 2026-01-02
[secrets.two]
from = { file = "/run/keys/two", shared = true }
to = ["git/push"]
into = { file = "/tmp/two" }
max-age = "1d"
[secrets.three]
from = { command = ["pass", "show", "three"], timeout = "2s" }
to = ["git/push"]
into = { env = "THREE" }
rotated = "2026-01-02T10:00:00Z"
[secrets.four]
from = { credential = "four" }
to = ["git/push"]
into = { env = "FOUR" }
[secrets.five]
from = { age = "/etc/five.age", identity = "/root/key" }
to = ["git/push"]
into = { env = "FIVE" }
"#;
    let secrets = read(text).unwrap_or_else(|mistakes| panic!("{mistakes}")).secrets;
    let one = &secrets["one"];
    assert_eq!(one.from, From::Env("ONE".to_owned()));
    assert_eq!(one.to, [("git".to_owned(), "push".to_owned()), ("git".to_owned(), "pull".to_owned())]);
    assert_eq!((one.max_age.unwrap().as_secs(), one.warn_age.unwrap().as_secs()), (90 * DAY, 60 * DAY));
    assert_eq!(one.rotated, Some(1_767_312_000));
    assert_eq!(secrets["two"].from, From::File { path: "/run/keys/two".into(), shared: true });
    assert_eq!(secrets["two"].into, Place::File("/tmp/two".to_owned()));
    assert_eq!(secrets["three"].rotated, Some(1_767_348_000));
    assert!(
        matches!(&secrets["three"].from, From::Command { argv, timeout } if argv.len() == 3 && timeout.as_secs() == 2)
    );
    assert_eq!(secrets["four"].from, From::Credential("four".to_owned()));
    assert!(matches!(&secrets["five"].from, From::Age { timeout, .. } if *timeout == TIMEOUT));
    assert!(read("").unwrap().secrets.is_empty());
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = r#"env = ["ONE"]
[secrets."no name"]
[secrets.nothing]
[secrets.one]
from = { env = "ONE", shared = true }
to = ["git/push", "git/push", "gitt/push", "push", "git/*"]
into = { env = "A" }
max-age = "90d"
warn-age = "91d"
[secrets.two]
from = { file = "relative", env = "TWO" }
to = []
into = { file = "/etc/passwd" }
rotated = "yesterday"
[secrets.three]
from = { age = "/a.age" }
to = ["git/push"]
into = { env = "A-B" }
format = "(["
[secrets.four]
from = { value = "not-shown-here" }
to = ["git/push"]
into = { env = "A", file = "/tmp/a" }
maxage = "1d"
[secrets.five]
from = { command = "pass show five" }
to = ["git/push"]
into = { env = "A" }
[secrets.six]
from = { credential = "../six" }
to = ["git/push"]
into = { file = "/tmp" }
max-age = "1us"
[secrets.seven]
from = { env = "ONE" }
to = ["git/push"]
into = { env = "A" }
"#;
    insta::assert_snapshot!(read(text).unwrap_err());
}

#[test]
fn a_file_of_a_tool_is_no_directory_of_another() {
    let two = |one: &str, other: &str, to: &str| {
        read(&format!(
            "[secrets.one]\nfrom = {{ env = \"ONE\" }}\nto = [\"git/push\"]\ninto = {{ file = \"{one}\" }}\n\
             [secrets.two]\nfrom = {{ env = \"TWO\" }}\nto = [\"{to}\"]\ninto = {{ file = \"{other}\" }}\n"
        ))
    };
    for (one, other) in [("/tmp/a", "/tmp/a/b"), ("/tmp/a/b/c", "/tmp/a")] {
        let told = two(one, other, "git/push").unwrap_err().to_string();
        let wanted =
            format!("`{other}` and `{one}`, where two secrets of `git/push` are, cannot both be files");
        assert!(told.contains(&wanted) && told.contains("hint: give each a file"), "{told}");
        assert!(two(one, other, "git/pull").is_ok());
    }
    assert!(two("/tmp/a", "/tmp/ab", "git/push").is_ok() && two("/tmp/a/b", "/tmp/a/c", "git/push").is_ok());
    assert!(two("/tmp/a", "/tmp/a", "git/push").unwrap_err().to_string().contains("already"));
}
