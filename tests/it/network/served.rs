//! Doors of servers under `toolcell run`: cells built ahead, spares, a cell for the session. Never: looks inside.

use std::fs;

use serde_json::{Value, json};

use super::super::session::world::{Scratch, Setup, session, session_in, text};
use super::world::{counting, host};

/// A server whose tool `reach` connects.
fn setup(network: &str) -> Setup {
    Setup {
        server: Some(crate::project().join("tests/it/session/kept.py")),
        filesystem: format!("[network]\n{network}"),
        ..Setup::default()
    }
}

fn traffic(record: &Value) -> Vec<(&str, u64, u64)> {
    let all = record["traffic"]["connections"].as_array().unwrap_or_else(|| panic!("{record:#}")).iter();
    all.map(|one| (one["to"].as_str().unwrap(), one["up"].as_u64().unwrap(), one["down"].as_u64().unwrap()))
        .collect()
}

#[test]
fn each_call_has_its_doors_and_their_record_and_its_client_hears_of_refusals() {
    let port = host(counting);
    for options in [vec![], vec!["--spares".to_owned(), "1".to_owned()]] {
        let network =
            format!("allow = [\"a.internal:{port}\"]\nhosts = {{ \"a.internal\" = \"127.0.0.1\" }}");
        let setup = Setup { options, ..setup(&network) };
        let book = session(&setup, |mut client| async move {
            for id in 1..4 {
                client.start_call(id, "reach", json!({"host": "a.internal", "port": port})).await;
                assert_eq!(text(&client.read().await), "5 bytes");
            }
            client.start_call(4, "reach", json!({"host": "b.internal", "port": port})).await;
            let refused = client.read().await;
            assert_eq!(text(&refused), "no such name");
            let told = &refused["result"]["_meta"]["dev.toolcell/violations"];
            let told = told.as_array().unwrap().iter().find(|one| one["layer"] == "network").unwrap();
            assert_eq!(
                (&told["operation"], &told["object"], &told["allow"]),
                (&json!("resolve"), &json!("b.internal"), &json!("[network]\nallow = [\"b.internal:443\"]"))
            );
            client
        });
        let door = format!("a.internal:{port}");
        let calls: Vec<&Value> =
            book.finished.iter().filter(|record| record["call"]["target"] == "reach").collect();
        // The record of a call may come after that of the next, when its cell took longer to end.
        let is_refused = |record: &&Value| {
            let violations = record["violations"].as_array().unwrap();
            violations.iter().any(|one| one["operation"] == "resolve")
        };
        let (refused, led): (Vec<&Value>, Vec<&Value>) = calls.into_iter().partition(is_refused);
        assert_eq!((led.len(), refused.len()), (3, 1));
        for record in led {
            assert_eq!(traffic(record), [(door.as_str(), 5, 7)]);
            let receipt = &record["receipt"];
            assert_eq!(receipt["layers"]["network"], json!(format!("doors: {door} at 127.64.0.1")));
            assert_eq!(
                (&receipt["coverage"]["network"], &receipt["reasons"]["network"]),
                (&json!("sampled"), &Value::Null)
            );
        }
        assert!(traffic(refused[0]).is_empty());
    }
}

#[test]
fn the_calls_of_a_session_have_each_their_own_traffic() {
    let port = host(counting);
    let setup = Setup {
        config: "state = \"session\"\n".to_owned(),
        ..setup(&format!("allow = [\"localhost:{port}\"]"))
    };
    let book = session(&setup, |mut client| async move {
        for id in 1..3 {
            client.start_call(id, "reach", json!({"host": "localhost", "port": port})).await;
            assert_eq!(text(&client.read().await), "5 bytes");
        }
        client
    });
    let door = format!("localhost:{port}");
    let calls: Vec<_> = book.finished.iter().filter(|record| record["call"]["target"] == "reach").collect();
    let all: usize = calls.iter().map(|record| traffic(record).len()).sum();
    assert!(
        all <= 2 && calls.iter().flat_map(|record| traffic(record)).all(|one| one == (door.as_str(), 5, 7)),
        "{calls:#?}"
    );
}

#[test]
fn a_call_reaches_the_host_that_its_argument_names_and_no_other() {
    let port = host(counting);
    let network = format!(
        "allow = [\"*.internal:{port}\", \"c.other:{port}\"]\nhosts = {{ \"a.internal\" = \"127.0.0.1\", \"b.internal\" = \"127.0.0.1\", \"c.other\" = \"127.0.0.1\" }}"
    );
    let grants = format!(
        "[servers.fixture.tools.reach]\ngrants = [{{ argument = \"/urls/*\", access = \"connect\", within = [\"*.internal:{port}\", \"d.other:{port}\"] }}]\n"
    );
    let setup = Setup { config: grants, ..setup(&network) };
    let book = session(&setup, |mut client| async move {
        for (id, reached, named, said) in [
            (1, "a.internal", vec![format!("http://a.internal:{port}/x")], "5 bytes"),
            (2, "b.internal", vec![format!("http://a.internal:{port}/x")], "no such name"),
            (3, "b.internal", vec!["a.internal".to_owned(), format!("b.internal:{port}")], "5 bytes"),
            (4, "c.other", vec![], "no such name"),
        ] {
            client.start_call(id, "reach", json!({"host": reached, "port": port, "urls": named})).await;
            assert_eq!(text(&client.read().await), said, "{reached} {named:?}");
        }
        for (id, named, told) in [
            (
                5,
                format!("http://c.other:{port}/"),
                format!(
                    "hint: to allow it, name it in the tool's `grants`: within = [\"*.internal:{port}\", \"d.other:{port}\", \"c.other:{port}\"]"
                ),
            ),
            (
                6,
                format!("http://d.other:{port}/"),
                format!("hint: to allow it: [network] allow = [\"d.other:{port}\"]"),
            ),
            (7, format!("http://a.internal:{port}@c.other/"), "without a user's name".to_owned()),
        ] {
            client
                .start_call(id, "reach", json!({"host": "a.internal", "port": port, "urls": [named]}))
                .await;
            let answer = client.read().await;
            assert_eq!(answer["result"]["isError"], true, "{answer}");
            assert!(text(&answer).contains(&told), "{answer}");
        }
        client
    });
    let doors = |record: &Value| record["receipt"]["layers"]["network"].as_str().map(str::to_owned);
    let both = format!("doors: a.internal:{port} at 127.64.0.1, b.internal:{port} at 127.64.0.2");
    let mut found: Vec<Option<String>> =
        book.finished.iter().filter(|record| record["call"]["target"] == "reach").map(doors).collect();
    found.sort();
    let a = format!("doors: a.internal:{port} at 127.64.0.1");
    assert_eq!(found, [None, None, None, None, Some(a.clone()), Some(a), Some(both)]);
    let other = book.finished.iter().flat_map(|record| record["violations"].as_array().into_iter().flatten());
    let other: Vec<&Value> = other.filter(|violation| violation["operation"] == "resolve").collect();
    assert!(!other.is_empty(), "{:#?}", book.finished);
    for violation in other {
        assert_eq!(violation["allow"], Value::Null, "{violation}");
        assert!(violation["rule"].as_str().unwrap().starts_with("`grants` of the tool"), "{violation}");
    }
    let granted = book.started.iter().find(|record| !record["granted"][0].is_null()).unwrap();
    assert_eq!(
        granted["granted"][0],
        json!({"access": "connect", "path": format!("a.internal:{port}"), "by": "/arguments/urls/*"})
    );
    let refused = book.finished.iter().find(|record| {
        record["violations"][0]["allow"] == format!("[network]\nallow = [\"d.other:{port}\"]")
    });
    assert_eq!(
        refused.unwrap_or_else(|| panic!("{:#?}", book.finished))["violations"][0]["layer"],
        "arguments"
    );
    assert_eq!(refused.unwrap()["status"]["kind"], "refused");
}

/// The profile of a tool is the tool's own: what one may reach says nothing of another, at the same time and of the same server.
#[test]
fn of_two_tools_of_a_server_one_has_a_door_and_the_other_none() {
    let port = host(counting);
    for spares in ["0", "1"] {
        let scratch = Scratch::outside_of_scratch();
        let network =
            format!("allow = [\"a.internal:{port}\"]\nhosts = {{ \"a.internal\" = \"127.0.0.1\" }}");
        fs::write(scratch.0.join("doors.toml"), format!("extends = \"default\"\n[network]\n{network}\n"))
            .unwrap();
        let setup = Setup {
            server: Some(crate::project().join("tests/it/session/kept.py")),
            config: "[servers.fixture.tools.reach]\nprofile = \"doors\"\n".to_owned(),
            options: vec!["--spares".to_owned(), spares.to_owned()],
            ..Setup::default()
        };
        let book = session_in(&scratch, &setup, |mut client| async move {
            for round in 0..2 {
                let there = json!({"host": "a.internal", "port": port});
                let here = json!({"host": "127.64.0.1", "port": port});
                let outside = json!({"host": "127.0.0.1", "port": port});
                let calls = [("reach", &there), ("peek", &there), ("peek", &here), ("peek", &outside)];
                for (id, (tool, arguments)) in (4 * round..).zip(calls) {
                    client.start_call(id, tool, arguments.clone()).await;
                }
                let mut answers = Vec::new();
                for _ in calls {
                    let answer = client.read().await;
                    answers.push((answer["id"].as_u64().unwrap() % 4, text(&answer).to_owned()));
                }
                answers.sort();
                let said: Vec<&str> = answers.iter().map(|(_, said)| said.as_str()).collect();
                assert_eq!(said, ["5 bytes", "no such name", "ECONNREFUSED", "ECONNREFUSED"]);
            }
            client
        });
        let of = |tool: &'static str| {
            book.finished.iter().filter(move |record| record["call"]["target"] == tool).collect::<Vec<_>>()
        };
        assert_eq!((of("reach").len(), of("peek").len()), (2, 6), "{book:#?}");
        let door = format!("a.internal:{port}");
        for record in of("reach") {
            assert_eq!(traffic(record), [(door.as_str(), 5, 7)]);
            let connection = &record["traffic"]["connections"][0];
            assert_eq!(connection["closed_by"], "cell");
            assert!(connection["duration_us"].as_u64().unwrap() > 0, "{connection}");
            assert_eq!(record["receipt"]["layers"]["network"], json!(format!("doors: {door} at 127.64.0.1")));
            assert_eq!(refusals(record), Vec::<String>::new());
        }
        let mut refused = Vec::new();
        for record in of("peek") {
            assert_eq!(
                (&record["traffic"], &record["receipt"]["layers"]["network"]),
                (&Value::Null, &Value::Null)
            );
            refused.extend(refusals(record));
        }
        for address in ["127.64.0.1", "127.0.0.1"] {
            let object = format!("connect {address}:{port}");
            assert_eq!(refused.iter().filter(|one| **one == object).count(), 2, "{refused:?}");
        }
    }
}

/// Operation and object of what was refused in the network.
fn refusals(record: &Value) -> Vec<String> {
    let all = record["violations"].as_array().unwrap().iter().filter(|one| one["layer"] == "network");
    all.map(|one| format!("{} {}", one["operation"].as_str().unwrap(), one["object"].as_str().unwrap()))
        .collect()
}
