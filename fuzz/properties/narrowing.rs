//! What narrows a call: a pointer into its arguments, its client's roots, and the policy that its client sends along. The first line of
//! an input is a pointer, the rest is JSON: the arguments, and what a client says.
//!
//! Never: looks at the file system.

use std::path::Path;

use serde_json::Value;
use toolcell::policy::bounds::{Bounds, Level};
use toolcell::policy::pointer::Pointer;

/// Reads both.
pub fn check(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (first, rest) = data.split_at(split);
    let Ok(value) = serde_json::from_slice::<Value>(rest.strip_prefix(b"\n").unwrap_or_default()) else {
        return;
    };
    let text = String::from_utf8_lossy(first);
    if let Ok(pointer) = Pointer::parse(&text) {
        assert_eq!(pointer.to_string(), text);
        found(&pointer, &text, &value);
    }
    if let Ok(roots) = Bounds::of_roots(&value) {
        assert_eq!(roots.otherwise == Level::Write, root_is_named(&value));
        consistent(&roots);
    }
    for bounds in Bounds::of_codex(&value).into_iter().flatten() {
        consistent(&bounds);
    }
}

/// Without a star, what the standard's pointer finds; with one, what all those find in which it is a number.
fn found(pointer: &Pointer, text: &str, value: &Value) {
    let found = pointer.find(value);
    let mut expected = vec![String::new()];
    for step in text.split('/').skip(1) {
        let next = |at: String| match value.pointer(&at) {
            Some(Value::Array(items)) if step == "*" => {
                (0..items.len()).map(|number| format!("{at}/{number}")).collect()
            }
            _ => vec![format!("{at}/{step}")],
        };
        expected = expected.into_iter().flat_map(next).collect();
    }
    let expected: Vec<&Value> = expected.iter().filter_map(|at| value.pointer(at)).collect();
    assert_eq!(found, expected);
}

/// A root of a client that is `/`.
fn root_is_named(value: &Value) -> bool {
    let roots = value["roots"].as_array().into_iter().flatten();
    roots.filter_map(|root| root["uri"].as_str()).any(|uri| {
        let path = uri.strip_prefix("file://").map(|rest| rest.strip_prefix("localhost").unwrap_or(rest));
        path.is_some_and(|path| {
            let decoded = toolcell::arguments::percent::decoded(path).unwrap_or_default();
            decoded.starts_with('/') && decoded.bytes().all(|byte| byte == b'/')
        })
    })
}

/// Each rule decides about its own path and, where no other does, about what lies in it.
fn consistent(bounds: &Bounds) {
    for (path, level) in bounds.rules() {
        assert!(path.is_absolute() && path.parent().is_some());
        assert_eq!(bounds.level(path), *level);
        assert_eq!(bounds.level(&path.join("\u{1}")), *level);
    }
    assert_eq!(bounds.level(Path::new("/\u{1}")), bounds.otherwise);
}
