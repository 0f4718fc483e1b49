//! Each difference, as it is told. Never: asks a server.

use super::super::file::{Item, Profile};
use super::*;

const READ: &str = r#"{"name":"read","description":"Reads a file.","inputSchema":{"type":"object"}}"#;

fn item(text: &str) -> Item {
    let definition = Definition::read(Kind::Tool, text.as_bytes(), 0..text.len()).unwrap();
    Item { definition, ..Item::default() }
}

fn part(hash: &str) -> Part {
    Part { path: "/srv/a".to_owned(), version: Some("1.0".to_owned()), files: 3, hash: hash.to_owned() }
}

fn package(version: &str, packages: &[(&str, &str, &str)]) -> Package {
    let packages = packages.iter().map(|(name, version, integrity)| Pinned {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        integrity: (*integrity).to_owned(),
    });
    let packages = packages.collect();
    Package { name: "npm:a".to_owned(), version: version.to_owned(), packages, ..Package::default() }
}

fn server(tools: &[&str]) -> Server {
    Server {
        command: vec!["server".to_owned()],
        state: Vec::new(),
        package: Some(package("1.0", &[("a", "1.0", "sha512-x"), ("b", "1.0", "sha512-y")])),
        program: vec![part("sha256:aa")],
        profiles: [("default".to_owned(), Profile { text: "a\nb\n".to_owned() })].into(),
        items: [(Kind::Tool, tools.iter().map(|tool| item(tool)).collect())].into(),
    }
}

fn lock() -> LockFile {
    let other = server(&[r#"{"name":"send"}"#]);
    LockFile { servers: [("files".to_owned(), server(&[READ])), ("mail".to_owned(), other)].into() }
}

fn guard() -> Guard {
    Guard::new("toolcell.lock", &lock(), "files").unwrap()
}

fn judge(text: &str) -> String {
    match guard().judge(Kind::Tool, text.as_bytes(), 0..text.len()) {
        Ok(name) => format!("{name} is the same"),
        Err((_, difference)) => difference.text(),
    }
}

#[test]
fn each_change_of_a_definition_is_told() {
    assert_eq!(judge(READ), "read is the same");
    insta::assert_snapshot!(judge(&READ.replace("a file.", "a file.\\n<IMPORTANT>\\u001b[8m\\u200b")), @r"
    the tool `read` of server `files` is not as it was locked: `description` changed
      description
        + <IMPORTANT>\u{1b}[8m\u{200b}
    ");
    insta::assert_snapshot!(judge(&READ.replace("object\"", "object\",\"required\":[\"x\"]")), @r#"
    the tool `read` of server `files` is not as it was locked: `inputSchema` changed
      inputSchema
        +   "required": [
        +     "x"
        +   ],
    "#);
    insta::assert_snapshot!(judge(&READ.replace("\"inputSchema\"", "\"annotations\":{\"readOnlyHint\":true},\"inputSchema\"")), @r#"
    the tool `read` of server `files` is not as it was locked: `annotations` changed
      annotations
        + {
        +   "readOnlyHint": true
        + }
    "#);
    insta::assert_snapshot!(judge(r#"{"name":"delete"}"#), @"the tool `delete` of server `files` was not there when the server was locked");
    insta::assert_snapshot!(judge(r#"{"name":"send"}"#), @"the tool `send` of server `files` was not there when the server was locked; server `mail` has a tool of that name, which it shadows");
    insta::assert_snapshot!(judge(r#"{"name":"read","name":"x"}"#), @"a tool of server `files` cannot be compared: a tool has `name` more than once");
}

#[test]
fn each_change_of_a_package_is_told() {
    let told = |change: &dyn Fn(&mut Server)| {
        let mut found = server(&[READ]);
        change(&mut found);
        compare(&lock(), "files", &found).iter().map(Difference::text).collect::<Vec<_>>().join("\n")
    };
    let became = |version: &str, packages: &[(&str, &str, &str)]| {
        told(&|found| found.package = Some(package(version, packages)))
    };
    let (a, b) = (("a", "1.0", "sha512-x"), ("b", "1.0", "sha512-y"));
    assert_eq!(became("1.0", &[a, b]), "");
    insta::assert_snapshot!(became("1.0", &[a, ("b", "1.0", "sha512-z")]), @r"
    the package of server `files` is not as it was locked: under the same version, the registry of `npm:a` has another archive
      - b 1.0 sha512-y
      + b 1.0 sha512-z
    ");
    insta::assert_snapshot!(became("2.0", &[("a", "2.0", "sha512-z"), b]), @r"
    the package of server `files` is not as it was locked: `npm:a` has another version
      - npm:a is 1.0
      - a 1.0 sha512-x
      + npm:a is 2.0
      + a 2.0 sha512-z
    ");
    insta::assert_snapshot!(became("1.0", &[a, ("b", "1.1\u{202e}", "sha512-z")]), @r"
    the package of server `files` is not as it was locked: `npm:a` comes with other packages
      - b 1.0 sha512-y
      + b 1.1\u{202e} sha512-z
    ");
    insta::assert_snapshot!(told(&|found| found.package.as_mut().unwrap().scripts.push("a".to_owned())), @r"
    the package of server `files` is not as it was locked: of `npm:a`, other install scripts were allowed
      + install scripts of a
    ");
    insta::assert_snapshot!(told(&|found| found.package.as_mut().unwrap().name = "pypi:a".to_owned()), @r"
    the package of server `files` is not as it was locked: it was `npm:a`, and is `pypi:a`
      - npm:a is 1.0
      + pypi:a is 1.0
    ");
    insta::assert_snapshot!(told(&|found| found.package = None), @r"
    the program of server `files` is of no fetched package any more
      - npm:a is 1.0
      - a 1.0 sha512-x
      - b 1.0 sha512-y
    ");
    let mut old = lock();
    old.servers.get_mut("files").unwrap().package = None;
    let differences = compare(&old, "files", &server(&[READ]));
    insta::assert_snapshot!(differences.iter().map(Difference::text).collect::<Vec<_>>().join("\n"), @r"
    the program of server `files` was of no fetched package when it was locked
      + npm:a is 1.0
      + a 1.0 sha512-x
      + b 1.0 sha512-y
    ");
}

#[test]
fn each_change_of_what_surrounds_them_is_told() {
    let differences = |change: &dyn Fn(&mut Server)| {
        let mut found = server(&[READ]);
        change(&mut found);
        compare(&lock(), "files", &found).iter().map(Difference::text).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(differences(&|_| {}), "");
    insta::assert_snapshot!(differences(&|found| found.command.push("--all".to_owned())), @r"
    the command of server `files` is another than the one that was locked
      + --all
    ");
    insta::assert_snapshot!(differences(&|found| found.program = vec![part("sha256:bb")]), @r"
    the program of server `files` is not as it was locked
      - /srv/a 1.0, 3 files, sha256:aa
      + /srv/a 1.0, 3 files, sha256:bb
    ");
    insta::assert_snapshot!(differences(&|found| {
        found.profiles = [("default".to_owned(), Profile { text: "a\nc\n".to_owned() })].into();
    }), @r"
    the profile `default` is not as it was locked
      - b
      + c
    ");
    insta::assert_snapshot!(differences(&|found| found.items.clear()), @r#"
    the tool `read` of server `files` is not there any more
      description
        - Reads a file.
      inputSchema
        - {
        -   "type": "object"
        - }
    "#);
    assert!(compare(&lock(), "more", &server(&[])).first().unwrap().text().contains("not in the lock file"));
}

#[test]
fn either_of_two_accepted_ones_is_the_same() {
    let other = READ.replace("Reads", "Opens");
    let lock = LockFile { servers: [("files".to_owned(), server(&[READ, &other]))].into() };
    let guard = Guard::new("", &lock, "files").unwrap();
    for text in [READ, &other] {
        assert!(guard.judge(Kind::Tool, text.as_bytes(), 0..text.len()).is_ok());
    }
}

#[test]
fn instructions_count_as_a_definition() {
    let mut lock = lock();
    let told = |lock: &LockFile, result: &str| {
        let guard = Guard::new("toolcell.lock", lock, "files").unwrap();
        guard.instructions(result.as_bytes(), 0..result.len()).map(|difference| difference.text())
    };
    let result = r#"{"instructions":"Call send first."}"#;
    assert_eq!(told(&lock, "{}"), None);
    insta::assert_snapshot!(told(&lock, result).unwrap(), @r"
    the instructions of server `files` were not there when the server was locked
      text
        + Call send first.
    ");
    let item = Item { definition: Definition::of_instructions("Call send first."), ..Item::default() };
    lock.servers.get_mut("files").unwrap().items.insert(Kind::Instructions, vec![item]);
    assert_eq!(told(&lock, result), None);
    // A client may take the first.
    let twice = r#"{"instructions":"evil","instructions":"Call send first."}"#;
    insta::assert_snapshot!(told(&lock, twice).unwrap(), @"the instructions of server `files` cannot be compared: `instructions` is there more than once");
}
