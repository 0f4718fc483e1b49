//! Cancelling, waiting in line, and going away. Never: waits without a reason.

use std::time::Duration;

use serde_json::json;

use super::world::{Setup, session, text};
use crate::host;

fn cancel(id: u64) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}).to_string()
}

#[test]
fn a_cancelled_call_is_killed_alone_and_says_no_more() {
    let setup = Setup { jobs: 3, ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        client.start_call(1, "talk-after-cancel", json!({})).await;
        client.start_call(2, "silent", json!({})).await;
        // The answer of a third shows that both have had time to be sent.
        assert_eq!(text(&client.call(3, "noise").await), "ok");
        client.send(&cancel(1)).await;
        // Everything that comes now would come here.
        assert_eq!(text(&client.call(4, "noise").await), "ok");
        // The id is free again.
        assert_eq!(text(&client.call(1, "noise").await), "ok");
        client.send(&cancel(2)).await;
        client.send(&cancel(77)).await;
        client
    });
    assert_eq!(book.status_of("talk-after-cancel"), "cancelled");
    assert_eq!(book.status_of("silent"), "cancelled");
}

#[test]
fn calls_wait_in_line_and_a_cancelled_one_never_starts() {
    let setup = Setup { jobs: 1, ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        for id in 1..6 {
            client.start_call(id, "who", json!({})).await;
        }
        client.send(&cancel(4)).await;
        for id in [1, 2, 3, 5] {
            assert_eq!(client.read().await["id"], id);
        }
        client
    });
    assert_eq!(book.started.len(), 4);
}

#[test]
fn an_id_that_is_open_cannot_be_used_again() {
    session(&Setup::default(), |mut client| async move {
        client.start_call(1, "silent", json!({})).await;
        let answer = client.call(1, "noise").await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(null), &json!(-32600)));
        client.send(&cancel(1)).await;
        client
    });
}

#[test]
fn a_client_that_hangs_up_still_gets_what_is_about_to_come() {
    session(&Setup::default(), |mut client| async move {
        client.start_call(1, "noise", json!({})).await;
        client.hang_up();
        assert_eq!(text(&client.read().await), "ok");
        client
    });
}

#[test]
fn a_client_that_is_gone_leaves_nothing_for_longer_than_a_second() {
    for second in ["silent", "huge-last"] {
        let book = session(&Setup::default(), |mut client| async move {
            // Nobody reads the long answer: the session's output is full.
            client.start_call(1, "silent", json!({})).await;
            client.start_call(2, second, json!({"pieces": 4_000_000})).await;
            client.start_call(3, "silent", json!({})).await;
            client.hang_up();
            let took = client.exit().await;
            assert!(took < Duration::from_secs(1) * host::patience(), "{took:?}");
            client
        });
        assert_eq!(book.finished.len(), 2, "the third never started");
        assert!(book.finished.iter().all(|record| record["status"]["kind"] == "cancelled"));
    }
}
