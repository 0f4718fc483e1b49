//! What supervisor, launcher and init say to each other: any bytes are refused or mean one thing, which survives being
//! written and read again, and can be laid out and explained.
//!
//! The first byte of an input says who would read it. Never: starts a process.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toolcell::launch::launcher::{Answer, Request};
use toolcell::launch::spawn::Prepared;
use toolcell::launch::{LaunchError, Report};
use toolcell::plan::step::Step;
use toolcell::plan::{Plan, explain, written};
use toolcell::policy::Policy;

fn read<T: Serialize + DeserializeOwned>(text: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(text).ok()?;
    let written = serde_json::to_vec(&value).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
    Some(value)
}

/// Reads a message as its receiver would.
pub fn check(data: &[u8]) {
    let _refused = !is_message(data);
}

/// Does its receiver take it for one?
pub fn is_message(data: &[u8]) -> bool {
    let [who, text @ ..] = data else { return false };
    match who % 4 {
        0 => read::<Request>(text).is_some(),
        1 => read(text).is_some_and(|answer| {
            if let Answer::Refused { error, .. } = answer {
                shown(&error);
            }
            true
        }),
        2 => read(text).is_some_and(|report| {
            if let Report::Failed(error) = report {
                shown(&error);
            }
            true
        }),
        _ => Plan::read(text).is_ok_and(|plan| {
            let written = written(plan.floor, &plan.steps).unwrap();
            assert_eq!(Plan::read(&written).unwrap(), plan);
            laid_out(plan);
            true
        }),
    }
}

fn shown(error: &LaunchError) {
    assert!(!error.to_string().is_empty() && !error.errno.to_string().is_empty());
    assert!(error.hint().is_none_or(|hint| !hint.is_empty()));
}

/// Every step is a line, whatever its texts hold; and the launcher can lay the plan out, or says what is wrong with it.
fn laid_out(plan: Plan) {
    let text = explain::text(&Policy::nothing("any"), &plan);
    assert_eq!(text.lines().count(), plan.steps.len() + 1, "{text:?}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    // An owner on disk is given a namespace, which takes a process.
    if plan.steps.iter().all(|step| !matches!(step, Step::Bind { owner: Some(_), .. }))
        && let Err(error) = Prepared::new(plan)
    {
        shown(&error);
    }
}
