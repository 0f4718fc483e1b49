//! `toolcell selftest`: what it says of this host, and that nothing escapes where nothing is expected to.
//!
//! Neighbours: `demo` has the proof that each attack can escape; `host` says what is expected of a host. Never: takes
//! an attack for stopped that was not made in each kind of cell.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use crate::{cell, host};

/// The class of attacks that a review is to stop.
const REVIEW: &str = "Changes under review";
/// Those of it that only the review stops.
const BY_REVIEW: [&str; 7] = [
    "leave traps deeper down",
    "leave a link",
    "leave a named pipe",
    "leave a deceiving name",
    "make a trap under review",
    "write what nobody agrees to",
    "ask for what nobody may allow",
];

/// What its calls may do to each other.
const NOT_IN_A_SESSION: [&str; 2] = ["daemonise and stay", "forge another call's answer"];

/// In `/tmp`, as for most users: what is granted there lies in the cell's own scratch directory.
fn selftest(arguments: &[&str]) -> Output {
    let mut command = Command::new(crate::binary());
    command.arg("selftest").args(arguments).env_remove("TMPDIR").output().unwrap()
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What the host is expected to reach, or else reaches.
fn floor() -> String {
    match host::expected() {
        Some(expected) => expected.split(':').next().unwrap().to_owned(),
        None => cell::floor().to_owned(),
    }
}

#[test]
fn no_attack_escapes_on_this_host() {
    let floor = floor();
    if floor == "none" {
        let refused = selftest(&[]);
        assert_eq!(refused.status.code(), Some(121), "{refused:?}");
        return;
    }
    let output = selftest(&["--json", "--floor", &floor]);
    let document = document(&output);
    assert_eq!(document["floor"], *floor, "{document:#}");
    let attacks = document["attacks"].as_array().unwrap();
    let named = |verdict: &str| -> Vec<&str> {
        let rows = attacks.iter().filter(|row| row["verdict"] == verdict);
        rows.map(|row| row["attempt"].as_str().unwrap()).collect()
    };
    // What a container refuses by itself is not told as toolcell's doing.
    let unclear = named("UNCLEAR");
    if host::is_container() {
        let escaped_bare = escaped_without_a_cell();
        assert!(unclear.iter().all(|name| !escaped_bare.contains(*name)), "{unclear:?}: {document:#}");
    } else {
        assert_eq!(unclear, [""; 0], "{document:#}");
    }
    let escaped: BTreeSet<String> = named("ESCAPED").into_iter().map(str::to_owned).collect();
    let known = escapes(&floor, cell::has_cgroup());
    assert!(as_expected(&escaped, &known), "{escaped:?}, not {known:?}: {document:#}");
    // What no wall in the cell refuses is refused by the review, and where there is none it is not tried.
    let reviewed = attacks.iter().filter(|row| row["class"] == REVIEW && row["verdict"] == "BLOCKED");
    let by_review: BTreeSet<&str> = reviewed
        .filter(|row| row["stopped_by"]["layer"] == "review" && row["stopped_by"]["known"] == "record")
        .map(|row| row["attempt"].as_str().unwrap())
        .collect();
    if floor == "landlock" {
        assert_eq!(document["not_tried"], REVIEW, "{document:#}");
    } else {
        assert_eq!(by_review, BY_REVIEW.into(), "{document:#}");
    }
    let none = document["no_cells"].as_array().unwrap().iter().map(|none| none["cell"].as_str().unwrap());
    let expected: &[&str] =
        if floor == "landlock" { &["spare", "put-in", "put-in-spare", "doors", "session"] } else { &[] };
    assert_eq!(none.collect::<Vec<_>>(), expected, "{document:#}");
    let held = escaped.is_empty() && unclear.is_empty();
    assert_eq!(output.status.code(), Some(i32::from(!held)), "{document:#}");
    for row in attacks {
        let cells: Vec<&str> =
            row["calls"].as_array().unwrap().iter().map(|call| call["cell"].as_str().unwrap()).collect();
        // Without a private root no cell is built ahead, nor where a place is kept for a name that is not there, nor under
        // review; nor are there doors.
        let ways: &[&str] = if floor == "landlock" || row["class"] == REVIEW {
            &["on-demand"]
        } else if row["attempt"].as_str().unwrap().contains("absent") {
            &["on-demand", "doors"]
        } else if NOT_IN_A_SESSION.contains(&row["attempt"].as_str().unwrap()) {
            &["on-demand", "ahead", "spare", "put-in", "put-in-spare", "doors"]
        } else {
            &["on-demand", "ahead", "spare", "put-in", "put-in-spare", "doors", "session"]
        };
        assert!(ways.iter().all(|way| cells.contains(way)), "{row:#}");
    }
}

/// The attacks that were to succeed did, and no other. An emulated machine is so slow that a limit of time can come first.
pub(crate) fn as_expected(escaped: &BTreeSet<String>, expected: &BTreeSet<String>) -> bool {
    escaped == expected || host::patience() > 1 && escaped.is_subset(expected)
}

/// The attacks that succeed where there is no cell.
fn escaped_without_a_cell() -> BTreeSet<String> {
    let bare = Command::new(crate::binary()).args(["demo", "--without-cell", "--json"]).output().unwrap();
    let bare = document(&bare);
    let rows = bare["attacks"].as_array().unwrap().iter().filter(|row| row["verdict"] == "ESCAPED");
    rows.map(|row| row["attempt"].as_str().unwrap().to_owned()).collect()
}

/// What the document says of a floor: the attacks that succeed there.
pub(crate) fn escapes(floor: &str, has_cgroup: bool) -> BTreeSet<String> {
    let security = std::fs::read_to_string(crate::project().join("SECURITY.md")).unwrap();
    let rows = table(&security, "| attack | floor | because |");
    let there = |place: &str| match place.split_once(" without a cgroup") {
        Some((rung, _)) => rung == floor && !has_cgroup,
        None => place == floor,
    };
    rows.into_iter().filter(|row| there(row[2])).map(|row| row[1].to_owned()).collect()
}

#[test]
fn a_profile_decides_what_is_stopped() {
    let floor = floor();
    if floor == "none" || floor == "landlock" {
        return;
    }
    let directory = std::env::temp_dir().join(format!("toolcell-selftest-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let file = directory.join("open.toml");
    std::fs::write(
        &file,
        "description = \"shows what it should not\"\nextends = \"default\"\nenvironment.pass = [\"DEMO_API_KEY\"]\n",
    )
    .unwrap();
    let output = Command::new(crate::binary())
        .args(["selftest", "--profile", "./open.toml", "--floor", &floor])
        .current_dir(&directory)
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains('\u{1b}'), "a pipe is painted: {text}");
    let escaped = text.lines().filter_map(|line| line.strip_prefix(" ESCAPED ")?.split("  ").next());
    let mut expected = escapes(&floor, cell::has_cgroup());
    expected.insert("read keys in its environment".to_owned());
    let escaped: BTreeSet<String> = escaped.map(str::to_owned).collect();
    assert!(escaped.contains("read keys in its environment"), "{text}");
    assert!(as_expected(&escaped, &expected), "{escaped:?}, not {expected:?}: {text}");
}

#[test]
fn a_profile_that_is_none_ends_as_it_does_for_run() {
    let output = selftest(&["--profile", "no-such-profile"]);
    assert_eq!(output.status.code(), Some(120), "{output:?}");
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("no profile `no-such-profile`") && words.contains("hint: "), "{words}");
}

/// The rows of a table of a document, behind this head: their cells.
pub(crate) fn table<'d>(document: &'d str, head: &str) -> Vec<Vec<&'d str>> {
    let table = document.split(head).nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_class_has_its_attacks_and_every_attack_its_class() {
    let document = std::fs::read_to_string(crate::project().join("docs/attacks.md")).unwrap();
    let rows = table(&document, "| class | what | attacks | tests |");
    let listed: BTreeSet<&str> =
        rows.iter().flat_map(|row| row[3].split("; ")).filter(|name| !name.is_empty()).collect();
    let bare = Command::new(crate::binary()).args(["demo", "--without-cell", "--json"]).output().unwrap();
    let bare: Value = serde_json::from_slice(&bare.stdout).unwrap();
    let made: BTreeSet<&str> =
        bare["attacks"].as_array().unwrap().iter().map(|row| row["attempt"].as_str().unwrap()).collect();
    assert_eq!(listed, made);
    for row in rows {
        let tests: Vec<&str> = row[4].split('`').skip(1).step_by(2).collect();
        assert!(!(row[3].is_empty() && tests.is_empty()), "nothing holds {row:?}");
        for test in tests {
            let (module, name) = test.rsplit_once("::").unwrap();
            let path = format!("tests/it/{}", module.replace("::", "/"));
            let source = ["", "/mod"].iter().find_map(|end| {
                std::fs::read_to_string(crate::project().join(format!("{path}{end}.rs"))).ok()
            });
            assert!(source.unwrap().contains(&format!("fn {name}()")), "no test `{test}`");
        }
    }
}
