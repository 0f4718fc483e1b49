//! A modern server's questions, and the cells that wait for the answers. Never: waits for the time limit of a human.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::ahead::{children, launcher};
use super::world::{Book, Client, Setup, session, text};

/// The next line after a call that repeats an earlier one with answers.
async fn repeat(client: &mut Client, id: u64, tool: &str, arguments: Value, state: &Value) -> Value {
    start_repeat(client, id, tool, arguments, state).await;
    client.read().await
}

async fn start_repeat(client: &mut Client, id: u64, tool: &str, arguments: Value, state: &Value) {
    let mut more = json!({"inputResponses": {"name": {"action": "accept"}}});
    if !state.is_null() {
        more["requestState"] = state.clone();
    }
    client.start_call_with(id, tool, arguments, more).await;
}

/// Calls a tool that asks, and gives its state.
async fn question(client: &mut Client, id: u64, tool: &str, arguments: Value) -> Value {
    client.start_call(id, tool, arguments).await;
    state_of(id, &client.read().await)
}

fn state_of(id: u64, answer: &Value) -> Value {
    assert_eq!((&answer["id"], &answer["result"]["resultType"]), (&json!(id), &json!("input_required")));
    answer["result"]["requestState"].clone()
}

fn is_strange_to_a_fresh_process(answer: &Value) {
    assert_eq!(answer["error"]["message"], "the state is of another process", "{answer}");
}

/// The records of the only call of a tool that was kept.
fn kept<'a>(book: &'a Book, tool: &str) -> (Vec<&'a Value>, &'a Value) {
    let of_tool = |record: &&Value| record["call"]["target"] == tool;
    let first = book.started.iter().find(of_tool).unwrap();
    let same = |record: &&Value| record["call"]["id"] == first["call"]["id"];
    let mut ends = book.finished.iter().filter(same);
    let end = ends.next().unwrap();
    assert_eq!(ends.next(), None, "one end for the whole chain");
    (book.started.iter().filter(same).collect(), end)
}

#[test]
fn all_requests_of_a_chain_meet_the_process_that_asked_and_no_other() {
    let book = session(&Setup { jobs: 1, ..Setup::default() }, |mut client| async move {
        let arguments = json!({"questions": 2});
        let first = question(&mut client, 1, "ask", arguments.clone()).await;
        // A kept cell holds no slot.
        assert_eq!(text(&client.call(2, "noise").await), "ok");
        let answer = repeat(&mut client, 3, "ask", arguments.clone(), &first).await;
        let second = state_of(3, &answer);
        assert_ne!(first, second);
        let answer = repeat(&mut client, 4, "ask", arguments.clone(), &second).await;
        assert_eq!((&answer["id"], text(&answer)), (&json!(4), "thank you"));
        // The chain is over.
        is_strange_to_a_fresh_process(&repeat(&mut client, 5, "ask", arguments, &second).await);
        client
    });
    let (started, end) = kept(&book, "ask");
    let states: Vec<bool> =
        started.iter().map(|record| record["parameters"]["value"].get("requestState").is_some()).collect();
    assert_eq!(states, [false, true, true], "each request is recorded");
    assert_eq!((&end["status"], &end["violations"]), (&json!({"kind": "completed"}), &json!([])));
    assert_eq!(book.finished.len(), 3);
}

#[test]
fn a_state_that_is_unknown_or_of_another_call_goes_to_a_fresh_process() {
    let book = session(&Setup::default(), |mut client| async move {
        let state = question(&mut client, 1, "ask", json!({"questions": 1})).await;
        for (tool, arguments, state) in [
            ("ask", json!({"questions": 1}), &json!("made up")),
            ("ask", json!({"questions": 2}), &state),
            ("ask-too", json!({"questions": 1}), &state),
        ] {
            is_strange_to_a_fresh_process(&repeat(&mut client, 2, tool, arguments, state).await);
        }
        let answer = repeat(&mut client, 3, "ask", json!({"questions": 1}), &state).await;
        assert_eq!(text(&answer), "thank you");
        client
    });
    assert_eq!(book.started.len(), 5);
    assert_eq!(book.finished.len(), 4);
}

#[test]
fn a_chain_without_a_state_is_found_by_its_arguments() {
    session(&Setup::default(), |mut client| async move {
        for (id, arguments) in [(1, json!({"x": 1})), (2, json!({"x": 2}))] {
            assert_eq!(question(&mut client, id, "ask-without-state", arguments).await, Value::Null);
        }
        let count = async |client: &mut Client, id, arguments| {
            let answer = repeat(client, id, "ask-without-state", arguments, &Value::Null).await;
            text(&answer).to_owned()
        };
        assert_eq!(count(&mut client, 3, json!({"x": 2})).await, "request 2");
        assert_eq!(count(&mut client, 4, json!({"x": 2})).await, "request 1", "its process is gone");
        assert_eq!(count(&mut client, 5, json!({"x": 1})).await, "request 2");
        client
    });
}

#[test]
fn a_server_that_dies_while_it_waits_is_recorded_and_missed() {
    let book = session(&Setup::default(), |mut client| async move {
        let state = question(&mut client, 1, "ask-and-die", json!({})).await;
        // The end of the cell is in the log as soon as it is seen.
        let over = |line: &str| line.contains("\"event\":\"finished\"") && line.contains("ask-and-die");
        while !client.log().lines().any(over) {
            assert_eq!(text(&client.call(2, "noise").await), "ok");
        }
        is_strange_to_a_fresh_process(&repeat(&mut client, 3, "ask-and-die", json!({}), &state).await);
        client
    });
    let (_, end) = kept(&book, "ask-and-die");
    assert_eq!(end["status"]["kind"], "died");
    assert_eq!(end["stderr"], json!(["last words"]));
}

#[test]
fn what_a_kept_cell_says_reaches_nobody() {
    let book = session(&Setup::default(), |mut client| async move {
        let state = question(&mut client, 1, "ask-and-talk", json!({})).await;
        assert_eq!(text(&repeat(&mut client, 2, "ask-and-talk", json!({}), &state).await), "thank you");
        client
    });
    let misdeeds = book.misdeeds("ask-and-talk");
    assert_eq!(misdeeds, ["answer a request that was not made", "send a notification that is not allowed"]);
}

#[test]
fn the_oldest_of_too_many_makes_room() {
    let book = session(&Setup::default(), |mut client| async move {
        let mut states = Vec::new();
        for id in 0..17 {
            states.push(question(&mut client, id, "ask", json!({"of": id})).await);
        }
        is_strange_to_a_fresh_process(&repeat(&mut client, 20, "ask", json!({"of": 0}), &states[0]).await);
        for id in [1, 16] {
            let answer = repeat(&mut client, 21, "ask", json!({"of": id}), &states[id]).await;
            assert_eq!(text(&answer), "thank you");
        }
        client
    });
    let (_, end) = kept(&book, "ask");
    assert_eq!(end["status"]["kind"], "cancelled");
    assert_eq!(end["violations"][0]["rule"], "at most 16 calls wait for answers");
    assert_eq!(book.finished.len(), 18);
    let rules = book.finished.iter().flat_map(|record| record["violations"].as_array().unwrap());
    assert_eq!(rules.filter(|violation| violation["rule"] == end["violations"][0]["rule"]).count(), 1);
}

#[test]
fn a_client_that_goes_away_takes_the_kept_cells_with_it() {
    let book = session(&Setup::default(), |mut client| async move {
        question(&mut client, 1, "ask", json!({})).await;
        question(&mut client, 2, "ask-and-stay", json!({})).await;
        // This one's question comes when nobody can answer any more.
        client.start_call(3, "ask-slowly", json!({})).await;
        client.hang_up();
        let took = client.exit().await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        client
    });
    assert_eq!((book.started.len(), book.finished.len()), (3, 3));
    for record in &book.finished {
        assert_eq!((&record["status"], &record["violations"]), (&json!({"kind": "cancelled"}), &json!([])));
    }
}

#[test]
fn later_requests_have_the_limits_of_the_call_and_can_be_cancelled() {
    // So long that a slow machine comes to the second leg before it is over.
    let setup = Setup { time: "8s", ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        let state = question(&mut client, 1, "ask-then-hang", json!({})).await;
        let answer = repeat(&mut client, 2, "ask-then-hang", json!({}), &state).await;
        assert!(text(&answer).contains("the time limit of 8s"), "{answer}");
        let state = question(&mut client, 3, "ask-then-hang", json!({"x": 1})).await;
        start_repeat(&mut client, 4, "ask-then-hang", json!({"x": 1}), &state).await;
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4}});
        client.send(&cancel.to_string()).await;
        assert_eq!(text(&client.call(5, "noise").await), "ok");
        client
    });
    let (_, end) = kept(&book, "ask-then-hang");
    assert_eq!(end["status"], json!({"kind": "limit", "limit": "time"}));
    assert_eq!(book.status_of("ask-then-hang"), "cancelled");
}

#[test]
fn a_repetition_without_its_record_is_not_run_and_can_be_sent_again() {
    session(&Setup::default(), |mut client| async move {
        let state = question(&mut client, 1, "ask", json!({})).await;
        let log = client.audit();
        log.lock().unwrap();
        let answer = repeat(&mut client, 2, "ask", json!({}), &state).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(2), &json!(-32603)));
        drop(log);
        assert_eq!(text(&repeat(&mut client, 3, "ask", json!({}), &state).await), "thank you");
        client
    });
}

#[test]
fn a_kept_cell_is_stopped_until_the_client_answers() {
    session(&Setup::default(), |mut client| async move {
        let state = question(&mut client, 1, "ask", json!({})).await;
        let inits = children(launcher(&client));
        let servers: Vec<u32> = inits.into_iter().flat_map(children).collect();
        let [server] = servers.as_slice() else { panic!("{servers:?}") };
        let stopped = || {
            let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        // As long as the session may take.
        while !stopped() {
            tokio::task::yield_now().await;
        }
        assert_eq!(text(&repeat(&mut client, 2, "ask", json!({}), &state).await), "thank you");
        client
    });
}
