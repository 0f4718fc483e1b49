//! A record is one line whatever is in it, and parses back to what it was; it is bounded, and hides what it must.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::super::to_line;
use super::*;
use crate::outcome::{Built, Coverage, Layer, Limit};
use crate::policy::Floor;
use crate::text::is_dangerous;

fn call(method: &str, target: &str) -> Call {
    Call {
        id: "20261122T140509.000000-77-1".to_owned(),
        server: "git".to_owned(),
        method: method.to_owned(),
        target: Some(target.to_owned()),
        profile: "default".to_owned(),
        who: "client/1 uid 1000".to_owned(),
        identity: None,
        trace: None,
    }
}

fn ended() -> Ended {
    Ended {
        now: UNIX_EPOCH,
        duration: Duration::from_millis(3),
        status: Status::Completed,
        usage: Usage::default(),
        violations: Vec::new(),
        receipt: None,
        stderr: Vec::new(),
        secrets: vec![],
        changes: None,
        traffic: None,
    }
}

fn violation(object: &str, evidence: Evidence) -> Violation {
    Violation {
        layer: Layer::Root,
        limit: None,
        operation: "open".to_owned(),
        object: object.to_owned(),
        errno: Some("ENOENT".to_owned()),
        count: 1,
        value: None,
        peak: None,
        rule: "`filesystem.read` of profile `default`".to_owned(),
        allow: Some(format!("read = [\"{object}\"]")),
        evidence,
        first_us: None,
        last_us: None,
    }
}

#[test]
fn every_text_and_every_list_is_bounded() {
    let long = "é".repeat(100_000);
    let mut ended = ended();
    ended.status = Status::Failed { detail: long.clone() };
    ended.violations = vec![violation(&long, Evidence::Reported); 1_000];
    ended.stderr = [long.as_bytes(), b"\n"].concat().repeat(50);
    let layers = (0..100).map(|number| (format!("{number}{long}"), long.clone())).collect();
    ended.receipt = Some(Receipt {
        floor: Floor::Full,
        cell: Built::Ahead,
        layers,
        coverage: BTreeMap::new(),
        reasons: BTreeMap::new(),
    });
    let finished = Finished::new(&call(&long, &long), &[], ended);

    assert_eq!((finished.violations.len(), finished.violations_left_out), (64, 936));
    assert_eq!(finished.stderr.len(), 20);
    assert!(finished.stderr.iter().all(|line| line.ends_with("é…[cut: 200000 bytes]")));
    assert!(to_line(&finished).unwrap().len() < 512 * 1024);
}

#[test]
fn stderr_keeps_its_last_lines_and_every_byte() {
    let mut ended = ended();
    ended.stderr = b"first\n\xff\\ \x1b[31mred\n\nlast".to_vec();
    assert_eq!(
        Finished::new(&call("exec", "ls"), &[], ended).stderr,
        ["first", "\\xff\\\\ \x1b[31mred", "", "last"]
    );
}

#[test]
fn a_redacted_value_does_not_come_back_in_the_payloads_words() {
    let redact = ["/arguments/token".to_owned()];
    let mut ended = ended();
    ended.status = Status::Failed { detail: "bad token hunter2".to_owned() };
    ended.stderr = b"hunter2\n".to_vec();
    ended.violations = vec![violation("hunter2", Evidence::Reported), violation("cell", Evidence::Kernel)];
    // A file can be called so, and then the kernel says it.
    ended
        .violations
        .push(Violation { layer: Layer::Landlock, ..violation("/tmp/hunter2", Evidence::Kernel) });
    // An argument can have said where to.
    let layers = [("network", "doors: hunter2:443"), ("root", "private")];
    ended.receipt = Some(Receipt {
        floor: Floor::Full,
        cell: Built::OnDemand,
        layers: layers.map(|(layer, seen)| (layer.to_owned(), seen.to_owned())).into(),
        coverage: BTreeMap::new(),
        reasons: BTreeMap::new(),
    });
    let finished = Finished::new(&call("tools/call", "login"), &redact, ended);
    let line = String::from_utf8(to_line(&finished).unwrap()).unwrap();
    assert!(!line.contains("hunter2") && line.contains("\"root\":\"private\""));
    assert!(line.contains("\"cell\"") && line.contains("\"login\""));
}

#[test]
fn a_target_is_hidden_with_the_parameter_it_is_a_copy_of() {
    let target = |method: &str, pointer: &str| {
        let started = Started::new(&call(method, "it"), None, &[pointer.to_owned()], UNIX_EPOCH);
        started.call.target.unwrap()
    };
    assert_eq!(target("resources/read", "/uri"), REDACTED);
    assert_eq!(target("resources/read", ""), REDACTED);
    assert_eq!(target("completion/complete", "/ref/name"), REDACTED);
    assert_eq!(target("tools/call", "/name"), REDACTED);
    assert_eq!(target("tools/call", ""), "it");
    assert_eq!(target("tools/call", "/arguments/uri"), "it");
}

#[test]
fn a_refusal_says_nothing_of_a_target_that_is_hidden() {
    let line = |pointer: &str| {
        let mut ended = ended();
        ended.status = Status::Refused { detail: "the tool `hunter2` is kept out".to_owned() };
        let rule = "no role allows `hunter2`".to_owned();
        ended.violations = vec![Violation::of_toolcell(Layer::Access, "call", rule)];
        let finished = Finished::new(&call("tools/call", "hunter2"), &[pointer.to_owned()], ended);
        String::from_utf8(to_line(&finished).unwrap()).unwrap()
    };
    assert!(!line("/name").contains("hunter2") && line("/name").contains("no role allows `[redacted]`"));
    assert_eq!(line("/arguments/token").matches("hunter2").count(), 3);
}

#[test]
fn a_granted_path_is_hidden_with_the_parameter_it_stems_from() {
    let granted = |by: Option<&str>| Granted {
        access: "read".to_owned(),
        path: "/srv/hunter2".to_owned(),
        by: by.map(str::to_owned),
    };
    let shown = |by: Option<&str>, pointer: &str| {
        let redact = [pointer.to_owned()];
        let started = Started::new(&call("tools/call", "it"), None, &redact, UNIX_EPOCH);
        let line = to_line(&started.with_granted(&[granted(by)], &redact)).unwrap();
        String::from_utf8(line).unwrap().contains("hunter2")
    };
    let paths = Some("/arguments/paths/*");
    for pointer in
        ["", "/arguments", "/arguments/paths", "/arguments/paths/3", "/arguments/paths/0/x", "no pointer"]
    {
        assert!(!shown(paths, pointer), "{pointer}");
    }
    assert!(shown(paths, "/arguments/path") && shown(paths, "/_meta"));
    assert!(!shown(None, "/_meta/codex~1sandbox-state-meta") && shown(None, "/arguments/paths"));
    let many = vec![granted(None); 100];
    let started = Started::new(&call("tools/call", "it"), None, &[], UNIX_EPOCH).with_granted(&many, &[]);
    assert_eq!((started.granted.len(), started.granted_left_out), (64, 36));
}

/// Texts that are often enough of the dangerous kind.
fn text() -> impl Strategy<Value = String> {
    let dangerous = proptest::sample::select(vec![
        '\n',
        '\r',
        '\0',
        '\x1b',
        '\x7f',
        '\u{85}',
        '\u{9b}',
        '\u{2028}',
        '\u{2029}',
        '\u{202e}',
        '\u{2066}',
        '\u{feff}',
        '\u{e0041}',
        '"',
        '\\',
        '/',
    ]);
    proptest::collection::vec(prop_oneof![dangerous, any::<char>()], 0..20)
        .prop_map(|characters| characters.into_iter().collect())
}

fn one_safe_line(line: &[u8]) -> Result<&str, TestCaseError> {
    let text = std::str::from_utf8(line).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let body = text.strip_suffix('\n').ok_or_else(|| TestCaseError::fail("no newline at the end"))?;
    prop_assert!(!body.chars().any(is_dangerous), "{body:?}");
    Ok(body)
}

proptest! {
    #[test]
    fn any_text_in_any_field_of_finished_is_one_line_that_parses_back(
        texts in proptest::collection::vec(text(), 14), lines in proptest::collection::vec(text(), 0..3),
        kind in 0..6, numbers in proptest::array::uniform4(any::<u64>()),
    ) {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().unwrap_or_default();
        let finished = Finished {
            schema: next(),
            event: next(),
            time: next(),
            call: Call {
                id: next(), server: next(), method: next(), target: Some(next()), profile: next(), who: next(),
                identity: Some(next()),
                trace: None,
            },
            status: match kind {
                0 => Status::Completed,
                1 => Status::Failed { detail: next() },
                2 => Status::Limit { limit: Limit::Memory },
                3 => Status::Cancelled,
                4 => Status::Refused { detail: next() },
                _ => Status::Died { detail: next() },
            },
            duration_us: numbers[0],
            usage: Usage { cpu_us: Some(numbers[1]), bytes_in: numbers[2], ..Usage::default() },
            violations: vec![Violation {
                operation: next(), errno: Some(next()), rule: next(), ..violation(&next(), Evidence::Reported)
            }],
            violations_left_out: numbers[3],
            receipt: Some(Receipt {
                floor: Floor::Full,
                cell: Built::OnDemand,
                layers: BTreeMap::from([(next(), next())]),
                coverage: BTreeMap::from([(next(), Coverage::Blind)]),
                reasons: BTreeMap::from([(next(), next())]),
            }),
            stderr: lines,
            secrets: vec![],
            changes: None,
            traffic: None,
        };
        let line = to_line(&finished).unwrap();
        let parsed: Finished = serde_json::from_str(one_safe_line(&line)?).unwrap();
        prop_assert_eq!(parsed, finished);
    }

    #[test]
    fn any_text_in_any_parameter_is_one_line_that_parses_back(key in text(), value in text(), target in text()) {
        let parameters = serde_json::json!({ key: [value] });
        let raw = RawValue::from_string(serde_json::to_string_pretty(&parameters).unwrap()).unwrap();
        let started = Started::new(&call("tools/call", &target), Some(&raw), &[], UNIX_EPOCH);
        let line = to_line(&started).unwrap();
        let parsed: Started = serde_json::from_str(one_safe_line(&line)?).unwrap();
        prop_assert_eq!(&parsed.call, &started.call);
        let back: serde_json::Value = serde_json::from_str(parsed.parameters.unwrap().value.get()).unwrap();
        prop_assert_eq!(back, parameters);
    }
}
