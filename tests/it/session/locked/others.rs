//! What is locked beside tools and files as they are at the start: resources, the state, and the program while a session runs. Never: looks inside.

use std::fs;

use serde_json::{Value, json};

use super::super::world::text;
use super::{POISON, WHO, World, refusals};

#[test]
fn a_resource_with_other_words_is_neither_listed_nor_read_and_a_new_one_is_not_listed() {
    let note = |about: &str, size: u8| {
        format!(
            r#"{{"uri":"note:///a","name":"a","description":"{about}","size":{size},"annotations":{{"lastModified":"{size}"}}}}"#
        )
    };
    let world = World::locked(&[WHO, &note("A note.", 1)]);
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    let uris = |answer: &Value| {
        let all = answer["result"]["resources"].as_array().unwrap_or_else(|| panic!("{answer}"));
        all.iter().map(|one| one["uri"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // Its data may change.
    world.list(&[WHO, &note("A note.", 2)]);
    world.session(|mut client| async {
        let answer = client.request(1, "resources/list", json!({"_meta": meta})).await;
        assert_eq!(uris(&answer), ["note:///a"]);
        client
    });
    world.list(&[WHO, &note(POISON, 2), &note("A note.", 2).replace("///a", "///b")]);
    let book = world.session(|mut client| async {
        let answer = client.request(1, "resources/list", json!({"_meta": meta})).await;
        assert_eq!(uris(&answer), Vec::<String>::new());
        for (id, uri, told) in [
            (
                2,
                "note:///a",
                "the resource `note:///a` of server `fixture` is not as it was locked: `description` changed",
            ),
            (3, "note:///b", "server says: resources/read"),
            (4, "note:///of-a-template", "server says: resources/read"),
        ] {
            let answer = client.request(id, "resources/read", json!({"uri": uri, "_meta": meta})).await;
            assert!(answer["error"]["message"].as_str().unwrap().contains(told), "{answer}");
        }
        client
    });
    assert_eq!(refusals(&book).len(), 1);
}

#[test]
fn a_program_that_changes_while_its_session_runs_is_not_called_any_more() {
    let world = World::locked(&[WHO]);
    let server = world.server.clone();
    let before = fs::read(&server).unwrap();
    let book = world.session(|mut client| async {
        assert_eq!(text(&client.call(1, "who").await).len(), 16);
        let temporary = server.with_file_name("temporary");
        fs::write(&temporary, "").unwrap();
        fs::remove_file(&temporary).unwrap();
        assert_eq!(text(&client.call(2, "who").await).len(), 16);
        fs::write(&server, [before.as_slice(), b"#"].concat()).unwrap();
        let refused = client.call(3, "who").await;
        assert!(
            text(&refused).contains("the program of server `fixture` was changed while its session ran"),
            "{refused}"
        );
        fs::write(&server, &before).unwrap();
        assert_eq!(client.call(4, "who").await["result"]["isError"], true);
        client
    });
    assert_eq!(refusals(&book).len(), 2);
    assert!(world.said().contains(&format!("changed: {}", server.display())), "{}", world.said());
    // The next session compares the program itself.
    world.session(|mut client| async {
        assert_eq!(text(&client.call(1, "who").await).len(), 16);
        client
    });
}

#[test]
fn another_state_than_the_one_that_was_locked_is_refused() {
    let mut world = World::locked(&[WHO]);
    let before = world.setup.config.clone();
    for (state, diff) in [
        ("state = \"session\"\n", "+ session"),
        ("state = \"session\"\n[servers.fixture.tools.who]\nstate = \"call\"\n", "+ who: call"),
    ] {
        world.setup.config = format!("{before}{state}");
        world.session(|mut client| async {
            let refused = client.call(1, "who").await;
            assert!(
                text(&refused).contains("the `state` of server `fixture` is not as it was locked"),
                "{refused}"
            );
            client
        });
        assert!(world.said().contains(diff), "{}", world.said());
        assert_eq!(world.lock(&["--review", "--yes"]).0, 0);
        world.session(|mut client| async {
            assert_eq!(text(&client.call(1, "who").await).len(), 16);
            client
        });
    }
}
