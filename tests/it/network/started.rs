//! What is looked at before a door at which TLS ends is opened: whom it trusts, how much it is told, who is given it. Never: asks what
//! passes there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use super::super::session::spares::{built, stopped};
use super::super::session::world::{Scratch, Setup, command, session, session_in, text};
use super::ended::{OPEN, put_in, secret};
use super::upstream::{SECRET, Upstream, certificate};
use super::world::World;

/// A tool that is tried has the doors of the profile that is named for that, whatever its own has.
#[test]
fn a_tool_that_is_tried_has_the_doors_of_then() {
    let (world, scratch) = (World::new(), Scratch::outside_of_scratch());
    let upstream = Upstream::new();
    let doors = upstream.network(&format!("{OPEN}{}", put_in(&secret(&world))));
    fs::copy(world.profile(&doors), scratch.0.join("trial.toml")).unwrap();
    let setup = Setup {
        server: Some(crate::project().join("tests/it/session/kept.py")),
        filesystem: "[network]\nallow = [\"localhost:1\"]\n".to_owned(),
        config: "[quarantine]\nviolations = 1\nrefuse = \"1s\"\nprofile = \"trial\"\n".to_owned(),
        ..Setup::default()
    };
    let astray = json!({"host": "10.1.2.3", "port": 80});
    let says = "GET /v1/echo HTTP/1.1\r\nHost: tools.example\r\nConnection: close\r\n\r\n";
    let reach = json!({"host": "tools.example", "port": 80, "says": says});
    session_in(&scratch, &setup, |mut client| async move {
        let mut id = 0;
        for (arguments, kept_out) in [(astray, true), (reach, false)] {
            loop {
                id += 1;
                client.start_call(id, "reach", arguments.clone()).await;
                let answer = client.read().await;
                if (answer["result"]["isError"] == true) == kept_out {
                    let said = if kept_out {
                        "is kept out"
                    } else {
                        "authorization: Bearer [redacted:tools.example:"
                    };
                    assert!(text(&answer).contains(said), "{answer}");
                    break;
                }
            }
        }
        client
    });
    assert!(upstream.asked()[0].contains(SECRET));
}

/// Files of certificates are as safe from others, and from every tool of the session, as what policies are read from.
#[test]
fn whom_a_door_trusts_nobody_else_can_change() {
    let world = World::new();
    let upstream = Upstream::new();
    let trusted = world.0.0.join("trusted");
    fs::create_dir(&trusted).unwrap();
    let file = trusted.join("ca.pem");
    let named =
        |network: &str| network.replace(&format!("{:?}", certificate("authority.pem")), &format!("{file:?}"));
    let network = named(&upstream.network(OPEN));
    let refused = |why: &str| {
        let done = world.exec(&network, &[], &["/bin/echo", "ran"]);
        assert!(done.stdout.is_empty() && done.stderr.contains(why), "{why}: {done:#?}");
    };
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    refused("not a regular file");
    fs::remove_file(&file).unwrap();
    fs::copy(certificate("authority.pem"), &file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
    refused("can be changed by others");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // Another profile than the one that has the door.
    let scratch = Scratch::outside_of_scratch();
    fs::copy(world.profile(&network), scratch.0.join("doors.toml")).unwrap();
    for (write, code) in [(format!("write = [{trusted:?}]"), 120), (String::new(), 0)] {
        let setup = Setup {
            filesystem: write,
            config: "[servers.fixture.tools.say]\nprofile = \"doors\"\n".to_owned(),
            ..Setup::default()
        };
        let (exit, _, said) = command(&setup, &scratch, "run", &[]);
        assert_eq!(exit, code, "{said}");
        assert_eq!(said.contains("would let a tool change"), code != 0, "{said}");
    }
    // Those that the host trusts are no less so.
    let own = network.replace(&format!("roots = {file:?}\n"), "");
    let bundle = fs::canonicalize("/etc/ssl/certs/ca-certificates.crt");
    if let Ok(bundle) = bundle {
        let above = bundle.parent().unwrap().to_str().unwrap();
        let changed = world.exec(&own, &["--write", above], &["/bin/echo", "ran"]);
        assert!(
            changed.stdout.is_empty() && changed.stderr.contains("by which doors prove who answers"),
            "{changed:#?}"
        );
    }
}

/// What `profile check` says of the profile that was tried last, if it refuses it.
fn checked(world: &World) -> String {
    let mut check = Command::new(crate::binary());
    let output = check.args(["profile", "check"]).arg(world.0.0.join("test.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(120), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn more_doors_than_a_cell_can_have_are_a_mistake_in_the_profile() {
    let world = World::new();
    let with = |count: usize| {
        let allow: Vec<String> = (0..count).map(|nth| format!("\"h{nth}.example:443\"")).collect();
        world.exec(&format!("allow = [{}]", allow.join(", ")), &[], &["/bin/echo", "ran"])
    };
    let more = with(129);
    let told = "the policy has 129 destinations, and a cell can have 128";
    assert!(more.stdout.is_empty() && more.stderr.contains(told), "{more:#?}");
    assert!(checked(&world).contains(told));
    let most = with(128);
    assert_eq!((most.stdout.as_str(), most.code), ("ran\n", 0), "{most:#?}");
}

#[test]
fn more_rules_than_can_be_told_of_a_cell_are_refused_with_what_to_do() {
    let world = World::new();
    let upstream = Upstream::new();
    let with = |count: usize| {
        let paths: Vec<String> =
            (0..count).map(|nth| format!("\"/v1/a-path-of-some-length/{nth}\"")).collect();
        let network = upstream.network(&format!("methods = [\"GET\"]\npaths = [{}]\n", paths.join(", ")));
        world.exec(&network, &[], &["/bin/echo", "ran"])
    };
    let many = with(500);
    assert_eq!((many.stdout.as_str(), many.code), ("ran\n", 0), "{many:#?}");
    for count in [1000, 10_000] {
        let more = with(count);
        assert!(more.stdout.is_empty() && more.stderr.contains("hint: write fewer `paths`"), "{more:#?}");
        assert!(checked(&world).contains("hint: write fewer `paths`"));
    }
}

/// Under `run` the secret is read for each call, its use is in the record, and a call whose secret is gone is refused.
#[test]
fn each_call_has_the_secret_of_then() {
    let world = World::new();
    let upstream = Upstream::new();
    let file = secret(&world);
    for ahead in [false, true] {
        let options = if ahead { vec!["--spares".to_owned(), "1".to_owned()] } else { vec![] };
        fs::write(&file, SECRET).unwrap();
        upstream.asked.lock().unwrap().clear();
        let setup = Setup {
            server: Some(crate::project().join("tests/it/session/kept.py")),
            filesystem: format!("[network]\n{}", upstream.network(&format!("{OPEN}{}", put_in(&file)))),
            options,
            ..Setup::default()
        };
        let says = "GET /v1/echo HTTP/1.1\r\nHost: tools.example\r\nConnection: close\r\n\r\n";
        let reach = json!({"host": "tools.example", "port": 80, "says": says});
        let kept = file.clone();
        let book = session(&setup, |mut client| async move {
            // Who asks what there is to be called is about to call it.
            client.request(9, "tools/list", json!({})).await;
            for (id, value) in [(1, SECRET), (2, "another-secret-of-the-door")] {
                fs::write(&kept, value).unwrap();
                if ahead && id == 2 {
                    stopped(&client).await;
                }
                client.start_call(id, "reach", reach.clone()).await;
                let said = text(&client.read().await).to_owned();
                assert!(said.contains("authorization: Bearer [redacted:tools.example:"), "{said}");
            }
            fs::remove_file(&kept).unwrap();
            client.start_call(3, "reach", reach).await;
            let refused = client.read().await;
            let message = refused["error"]["message"].as_str().unwrap();
            assert!(message.contains("has nothing to put into `Authorization`: cannot read"), "{message}");
            client
        });
        let asked = upstream.asked();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[0].contains(SECRET) && asked[1].contains("another-secret-of-the-door"), "{asked:?}");
        let calls = book.finished.iter().filter(|record| record["call"]["target"] == "reach");
        let uses: Vec<_> = calls.flat_map(|record| record["secrets"].as_array().unwrap()).collect();
        assert!(
            uses.iter().all(|used| used["name"] == upstream.door() && used["into"] == "header Authorization"),
            "{uses:?}"
        );
        assert_eq!(uses.len(), 3, "{uses:?}");
        assert_eq!(built(&book, "tools/call").pop().unwrap() == "spare", ahead, "{book:#?}");
        let records =
            serde_json::to_string(&book.finished).unwrap() + &serde_json::to_string(&book.started).unwrap();
        assert!(!records.contains(SECRET) && !records.contains("another-secret"));
        fs::write(&file, SECRET).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A cell that serves many calls keeps the secret of its start.
#[test]
fn the_cell_of_a_session_has_the_secret_of_its_start() {
    let world = World::new();
    let upstream = Upstream::new();
    let file = secret(&world);
    let setup = Setup {
        server: Some(crate::project().join("tests/it/session/kept.py")),
        filesystem: format!("[network]\n{}", upstream.network(&format!("{OPEN}{}", put_in(&file)))),
        config: "state = \"session\"\n".to_owned(),
        ..Setup::default()
    };
    let says = "GET /v1/echo HTTP/1.1\r\nHost: tools.example\r\nConnection: close\r\n\r\n";
    session(&setup, |mut client| async move {
        for id in 1..3 {
            let reach = json!({"host": "tools.example", "port": 80, "says": says});
            client.start_call(id, "reach", reach).await;
            let said = text(&client.read().await).to_owned();
            assert!(said.contains("authorization: Bearer [redacted:tools.example:"), "{said}");
            fs::write(&file, "another-secret-of-the-door").unwrap();
        }
        client
    });
    let asked = upstream.asked();
    assert!(asked.len() == 2 && asked.iter().all(|one| one.contains(SECRET)), "{asked:?}");
}
