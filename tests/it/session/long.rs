//! Answers that are too long to hold. Never: measures.

use serde_json::{Value, json};

use super::world::{Client, Setup, session, text};

/// Long enough to be streamed in several pieces.
const PIECES: u64 = 400_000;

async fn start(client: &mut Client, tool: &str) {
    client.start_call(3, tool, json!({"pieces": PIECES})).await;
}

#[test]
fn they_pass_byte_for_byte_wherever_the_id_stands() {
    let book = session(&Setup::default(), |mut client| async move {
        let body = "é\\n".repeat(PIECES as usize);
        start(&mut client, "huge-last").await;
        let expected = format!(
            "{{\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"{body}\"}}],\"isError\":false}},\"jsonrpc\":\"2.0\",\"id\":3}}\n"
        );
        assert!(client.raw().await.unwrap() == expected);
        start(&mut client, "huge-first").await;
        let expected = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"{body}\"}}],\"isError\":false}}}}\n"
        );
        assert!(client.raw().await.unwrap() == expected);
        client
    });
    assert_eq!(book.status_of("huge-last"), "completed");
    assert_eq!(book.end_of("huge-first")["violations"], json!([]));
}

/// The line that was begun must be JSON and nobody's answer; then comes the call's own error.
async fn broken(client: &mut Client, tool: &str, told: &str) {
    start(client, tool).await;
    let begun: Value = client.read().await;
    assert_eq!(begun["id"], "dev.toolcell/void", "{tool}");
    let answer = client.read().await;
    assert_eq!(answer["id"], 3, "{tool}");
    assert_eq!(answer["result"]["isError"], true);
    assert!(text(&answer).contains(told), "{tool}: {}", text(&answer));
}

#[test]
fn one_that_turns_out_wrong_is_nobodys_answer() {
    let book = session(&Setup::default(), |mut client| async move {
        broken(&mut client, "huge-wrong-last", "an id that was not asked with").await;
        broken(&mut client, "huge-broken-last", "invalid JSON").await;
        broken(&mut client, "huge-broken-first", "invalid JSON").await;
        broken(&mut client, "huge-torn-last", "exited with status 1").await;
        broken(&mut client, "huge-torn-first", "exited with status 1").await;
        broken(&mut client, "huge-stuck-first", "too slowly").await;
        // The session goes on.
        assert_eq!(text(&client.call(4, "noise").await), "ok");
        client
    });
    assert_eq!(book.misdeeds("huge-wrong-last"), ["break off an answer"]);
}

#[test]
fn a_limit_in_the_middle_is_told_after_the_line_is_closed() {
    let setup = Setup { output: "1MiB", ..Setup::default() };
    session(&setup, |mut client| async move {
        broken(&mut client, "huge-last", "the output limit of 1MiB").await;
        broken(&mut client, "huge-first", "the output limit of 1MiB").await;
        client
    });
}

#[test]
fn one_with_a_wrong_id_at_its_start_is_never_begun() {
    let setup = Setup { time: "1s", ..Setup::default() };
    session(&setup, |mut client| async move {
        start(&mut client, "huge-wrong-first").await;
        let answer = client.read().await;
        assert!(text(&answer).contains("answered requests that were not made"), "{answer}");
        client
    });
}
