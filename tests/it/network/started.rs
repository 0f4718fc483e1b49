//! What is looked at before a door at which TLS ends is opened: whom it trusts, how much it is told, who is given it. Never: asks what
//! passes there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use super::super::session::world::{Scratch, Setup, command, session_in, text};
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
    }
}
