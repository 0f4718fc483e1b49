//! What a server keeps from call to call: seen by its next cell, by nobody else, and only so much of it. Never: looks inside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session, text};

/// `fixture` keeps so much, in a state directory of the test's own.
fn setup(scratch: &Scratch, quota: &str) -> Setup {
    Setup {
        env: vec![("XDG_STATE_HOME", scratch.0.join("state").to_str().unwrap().to_owned())],
        config: format!("persist = \"{quota}\"\n"),
        ..Setup::default()
    }
}

fn directory(scratch: &Scratch) -> PathBuf {
    scratch.0.join("state/toolcell/persist/fixture")
}

async fn call(client: &mut Client, tool: &str, arguments: Value) -> Value {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    client.request(1, "tools/call", json!({"name": tool, "arguments": arguments, "_meta": meta})).await
}

#[test]
fn the_next_cell_and_the_next_session_have_what_a_call_kept() {
    let scratch = Scratch::outside_of_scratch();
    for before in ["", "more"] {
        session(&setup(&scratch, "1MiB"), |mut client| async move {
            let kept = json!({"path": "/persist/notes"});
            assert_eq!(text(&call(&mut client, "append", kept.clone()).await), "ok");
            assert_eq!(text(&call(&mut client, "read", kept).await), format!("{before}more"));
            let environment = call(&mut client, "environment", json!({})).await;
            assert!(text(&environment).contains("TOOLCELL_PERSIST"), "{environment}");
            assert_eq!(text(&call(&mut client, "append", json!({"path": "/persist/../x"})).await), "EROFS");
            client
        });
    }
    assert_eq!(fs::metadata(directory(&scratch)).unwrap().permissions().mode() & 0o7777, 0o700);
    // A server that keeps nothing sees nothing of it, whatever it is granted.
    let state = scratch.0.join("state");
    let own = directory(&scratch).join("notes");
    let other =
        Setup { config: String::new(), filesystem: format!("read = [{state:?}]"), ..setup(&scratch, "1MiB") };
    session(&other, |mut client| async move {
        assert_eq!(text(&call(&mut client, "read", json!({"path": "/persist/notes"})).await), "ENOENT");
        let hidden = call(&mut client, "read", json!({"path": own})).await;
        assert!(["EACCES", "ENOENT"].contains(&text(&hidden)), "{hidden}");
        client
    });
}

#[test]
fn over_its_bound_nothing_of_the_server_is_run() {
    let scratch = Scratch::outside_of_scratch();
    // One after the other: the next call begins when the last one's cell is gone, and was measured.
    let one = Setup { jobs: 1, ..setup(&scratch, "64KiB") };
    let book: Book = session(&one, |mut client| async move {
        let append = json!({"do": [["append", "/persist/notes"]], "fill": ["/persist/big", 131_072]});
        // It is found out behind the call that did it, which is not stopped.
        assert_eq!(text(&call(&mut client, "leave", append).await), "left");
        let refused = call(&mut client, "who", json!({})).await;
        assert_eq!(refused["result"]["isError"], true);
        assert!(text(&refused).contains("and may keep 64KiB"), "{refused}");
        assert!(text(&refused).contains("[servers.fixture]\npersist = \"256KiB\""), "{refused}");
        client
    });
    let refused = &book.finished[1];
    assert_eq!(refused["status"]["kind"], "refused");
    assert_eq!(refused["violations"][0]["operation"], "persist");
    // Whoever makes room has it run again.
    fs::remove_file(directory(&scratch).join("big")).unwrap();
    session(&setup(&scratch, "64KiB"), |mut client| async move {
        assert_eq!(text(&call(&mut client, "read", json!({"path": "/persist/notes"})).await), "more");
        client
    });
}

#[test]
fn nothing_that_is_kept_can_be_executed() {
    let scratch = Scratch::outside_of_scratch();
    session(&setup(&scratch, "1MiB"), |mut client| async move {
        let started = call(&mut client, "start", json!({"path": "/persist/program"})).await;
        assert_eq!(text(&started), "EACCES");
        client
    });
}
