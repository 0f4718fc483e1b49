//! Lock files that are written, read again, and edited. Never: opens a file.

use proptest::prelude::*;

use super::*;

fn tool(text: &str) -> Item {
    let definition = Definition::read(Kind::Tool, text.as_bytes(), 0..text.len()).unwrap();
    Item { definition, accepted: BTreeSet::new() }
}

fn pinned(name: &str, version: &str, integrity: &str) -> Pinned {
    let [name, version, integrity] = [name, version, integrity].map(str::to_owned);
    Pinned { name, version, integrity }
}

fn file() -> LockFile {
    let mut tools = vec![
        tool(r#"{"name":"a","description":"One\n\"two\" \\ \"\"\" \u0000\u001b[31m\u202e\u{e0041}","inputSchema":{"type":"object","x":"\"\"\"","n":1.5},"a b":[1]}"#.replace("\\u{e0041}", "\u{e0041}").as_str()),
        tool(r#"{"name":"b.c","inputSchema":{"maximum":18446744073709551615}}"#),
        tool(r#"{"name":"b.c","description":"\nends in quotes\""}"#),
    ];
    tools[0].accepted.insert("control".to_owned());
    let server = Server {
        command: vec!["/bin/server".to_owned(), "--root".to_owned(), "a \"b\"\n".to_owned()],
        state: vec!["session".to_owned(), "a \"b\": call".to_owned()],
        package: Some(Package {
            name: "npm:a".to_owned(),
            version: "1.0".to_owned(),
            scripts: vec!["b\u{202e}".to_owned()],
            packages: vec![pinned("a", "1.0", "sha512-x"), pinned("a/node_modules/b", "2 \"\n", "")],
        }),
        program: vec![Part {
            path: "/srv/node_modules/zod".to_owned(),
            version: Some("4.1.0".to_owned()),
            files: 7,
            hash: "sha256:00".to_owned(),
        }],
        profiles: [("default".to_owned(), Profile { text: "floor = \"full\"\n[limits]\n".to_owned() })]
            .into(),
        items: [
            (
                Kind::Instructions,
                vec![Item { definition: Definition::of_instructions("Be kind."), accepted: BTreeSet::new() }],
            ),
            (Kind::Tool, tools),
        ]
        .into(),
    };
    LockFile { servers: [("git".to_owned(), server.clone()), ("a.b".to_owned(), server)].into() }
}

#[test]
fn what_is_written_is_read_again() {
    let text = file().to_toml();
    assert_eq!(parse(&text), Ok(file()), "{text}");
    assert!(!text.chars().any(|c| c != '\n' && crate::text::is_dangerous(c)), "{text}");
    assert_eq!(parse(&LockFile::default().to_toml()), Ok(LockFile::default()));
    // Nor does a server's name hide something.
    let named =
        LockFile { servers: [("a\u{202e}b\u{e0041}".to_owned(), file().servers["git"].clone())].into() };
    let text = named.to_toml();
    assert_eq!(parse(&text), Ok(named), "{text}");
    assert!(!text.chars().any(|c| c != '\n' && crate::text::is_dangerous(c)), "{text}");
}

#[test]
fn it_looks_like_this() {
    let mut file = file();
    file.servers.remove("a.b");
    insta::assert_snapshot!(file.to_toml());
}

#[test]
fn what_was_edited_is_refused() {
    let text = file().to_toml();
    for (from, to, why) in [
        ("version = 1", "version = 2", "version"),
        ("version = 1", "", "no `version`"),
        ("Be kind.", "Be cruel.", "hash of `instructions`"),
        ("\"default\"", "\"default\"\nmore = 1", "`more`"),
        ("text = \"\"\"\nfloor", "text = \"\"\"\n\nfloor", "hash of profile `default`"),
        ("1.5", "2.5", "hash of `a`"),
        ("\nname = \"a\"", "\nname = \"A\"", "hash of `A`"),
        ("sha512-x", "sha512-y", "hash of `servers.a.b.package`"),
        ("\nscripts = ", "\nscript = ", "`script`"),
        ("files = 7", "files = -7", "negative"),
        ("files = 7", "files = \"7\"", "no number"),
        ("[servers.git]", "[server.git]", "`server`"),
        ("command = [", "command = 7\nx = [", "`x`"),
        ("[[servers.git.tools]]", "[[servers.git.tool]]", "`tool`"),
    ] {
        assert!(text.contains(from), "{from}");
        let told = parse(&text.replace(from, to)).unwrap_err().to_string();
        assert!(told.contains(why), "{to}: {told}");
    }
}

proptest! {
    #[test]
    fn any_definition_is_read_again(name in any::<String>(), text in any::<String>(), json in "[\\PC\"\\\\\n]{0,20}") {
        let value = serde_json::json!({"name": name, "description": text, "inputSchema": {"x": json}}).to_string();
        let item = tool(&value);
        let server = Server { command: vec![text], items: [(Kind::Tool, vec![item])].into(), ..Server::default() };
        let file = LockFile { servers: [(name, server)].into() };
        let text = file.to_toml();
        prop_assert_eq!(parse(&text), Ok(file), "{}", text);
    }
}
