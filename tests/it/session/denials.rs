//! What Landlock refuses to a server of `run`, whose supervisor hears of all cells. Neighbours: `cell::denials` has the same
//! for `exec`, and says when it is expected. Never: waits for time where there is an event.

use serde_json::{Value, json};
use toolcell::plan::step::CANARY;

use super::ahead::ready;
use super::world::{Setup, session, text};
use crate::cell::denials::{expected, quiet};

fn denials(record: &Value) -> Vec<(&str, &str, u64)> {
    let all = record["violations"].as_array().unwrap().iter();
    all.filter(|violation| violation["layer"] == "landlock")
        .map(|v| {
            (v["operation"].as_str().unwrap(), v["object"].as_str().unwrap(), v["count"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn denials_are_recorded_whenever_the_cell_was_built() {
    let _quiet = quiet();
    let book = session(&Setup::default(), |mut client| async move {
        for calls in 1..3 {
            client.start_call(calls as u64, "read", json!({"path": CANARY})).await;
            assert_eq!(text(&client.read().await), "EACCES");
            ready(&client, calls).await;
        }
        client
    });
    for record in &book.finished {
        let receipt = &record["receipt"];
        let (coverage, why) = (&receipt["coverage"]["landlock"], &receipt["reasons"]["landlock"]);
        if expected() {
            assert_eq!(
                (denials(record), coverage),
                (vec![("fs.read_file", CANARY, 1)], &json!("complete")),
                "{record}"
            );
            assert!(why.is_null(), "{record}");
        } else {
            assert!(denials(record).is_empty() && coverage == "blind" && why.is_string(), "{record}");
        }
    }
    let built: Vec<_> = book.finished.iter().map(|record| &record["receipt"]["cell"]).collect();
    assert_eq!(built, ["on-demand", "ahead"]);
}

#[test]
fn calls_at_once_have_each_its_own() {
    let _quiet = quiet();
    let setup = Setup { jobs: 3, ..Setup::default() };
    let book = session(&setup, |mut client| async move {
        for id in 1..4 {
            let path = if id == 2 { "/etc/nothing" } else { CANARY };
            client.start_call(id, "read", json!({"path": path})).await;
        }
        let mut answers = Vec::new();
        for _ in 1..4 {
            answers.push(text(&client.read().await).to_owned());
        }
        answers.sort();
        assert_eq!(answers, ["EACCES", "EACCES", "ENOENT"]);
        client
    });
    for record in &book.finished {
        let asked = book.started.iter().find(|started| started["call"] == record["call"]).unwrap();
        let canary = asked["parameters"]["value"]["arguments"]["path"] == CANARY;
        let wanted = if expected() && canary { vec![("fs.read_file", CANARY, 1)] } else { vec![] };
        assert_eq!(denials(record), wanted, "{record}");
    }
}

/// A domain of a payload's own is not its cell's, and denies what it denies in its own name.
#[test]
fn what_a_server_denies_itself_is_not_its_cells() {
    let _quiet = quiet();
    let book = session(&Setup::default(), |mut client| async move {
        client.start_call(1, "read-confined", json!({"path": CANARY})).await;
        assert_eq!(text(&client.read().await), "0 EACCES");
        client
    });
    let [record] = book.finished.as_slice() else { panic!("{:?}", book.finished) };
    assert!(denials(record).is_empty(), "{record}");
    let coverage = if expected() { "complete" } else { "blind" };
    assert_eq!(record["receipt"]["coverage"]["landlock"], coverage, "{record}");
}
