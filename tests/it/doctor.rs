//! The doctor's verdict is what a command in a cell meets, as the same user.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use toolcell::host::cgroups;

/// As the user of the test, or as one without privileges.
fn toolcell(arguments: &[&str], uid: Option<u32>) -> Output {
    let mut command = Command::new(crate::binary());
    command.args(arguments).current_dir("/").env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
    if let Some(uid) = uid {
        // The standard library gives up supplementary groups when root sets a user.
        command.uid(uid).gid(uid);
    }
    command.output().unwrap()
}

#[expect(clippy::indexing_slicing, reason = "indexing JSON gives null for what is missing")]
fn agree(uid: Option<u32>) -> Value {
    let doctor = toolcell(&["doctor", "--json"], uid);
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let command = toolcell(&["exec", "--", "true"], uid);
    let reached = doctor.status.code() == Some(0);
    let said = format!("{report:#}\n{}", String::from_utf8_lossy(&command.stderr));
    assert!(reached || doctor.status.code() == Some(121), "{said}");
    assert_eq!(report["default_floor_reached"], reached, "{said}");
    assert_eq!(command.status.success(), reached, "{said}");
    if !reached {
        let findings = report["findings"].as_array().unwrap();
        assert!(!findings.is_empty(), "{said}");
        let told = String::from_utf8_lossy(&command.stderr).replace("\n    ", "\n");
        let names = |finding: &Value| finding["fix"].as_str().is_some_and(|fix| told.contains(fix));
        assert!(findings.iter().any(names), "the refusal names nothing that the doctor found\n{said}");
    }
    report
}

#[test]
fn the_verdict_is_what_exec_meets() {
    let report = agree(None);
    assert_eq!(report["schema"], 1);
    if report["caller"]["uid"] == 0 {
        let ordinary = agree(Some(65_534));
        assert_eq!(ordinary["user"]["floor"], report["user"]["floor"]);
        assert_eq!(ordinary["user"]["host_network"], report["user"]["host_network"]);
        assert_eq!(ordinary["root"]["probed"], false);
    }
}

/// What it says of Landlock's records is what stands in one.
#[test]
fn whether_denials_are_told_is_what_a_record_says() {
    let _quiet = crate::cell::denials::quiet();
    let report = agree(None);
    let column = &report[if report["caller"]["uid"] == 0 { "root" } else { "user" }];
    let told = &column["denials"];
    assert_eq!(told["read"], crate::cell::denials::expected(), "{told}");
    assert_eq!(told["why"].is_string(), told["read"] == false, "{told}");
    let text = toolcell(&["doctor"], None).stdout;
    let said = if told["read"] == true { "refuses stands in records" } else { "does not stand in records" };
    assert!(String::from_utf8(text).unwrap().contains(said));
    // On the lowest rung it is never all.
    let Some(floor) = column["floor"].as_str().filter(|floor| *floor != "landlock") else { return };
    let place = std::env::temp_dir().join(format!("toolcell-doctor-{}", std::process::id()));
    let path = place.to_str().unwrap();
    let run = toolcell(&["exec", "--floor", floor, "--report", path, "--", "true"], None);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let record: Value = serde_json::from_slice(&std::fs::read(&place).unwrap()).unwrap();
    std::fs::remove_file(&place).unwrap();
    assert_eq!(record["receipt"]["reasons"]["landlock"], told["why"], "{record:#}");
    let wanted = if told["read"] == true { "complete" } else { "blind" };
    assert_eq!(record["receipt"]["coverage"]["landlock"], wanted, "{record:#}");
}

#[test]
fn the_table_has_a_row_for_each_layer_and_fits() {
    let output = toolcell(&["doctor"], None);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.stderr.is_empty());
    let table: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(table.len(), 18);
    assert!(table.iter().all(|line| line.chars().count() <= 100), "{text}");
}

/// As in containers: what lies over parts of /proc is named, by the doctor and by who is refused.
#[test]
fn what_lies_over_proc_and_over_the_cgroup_tree_is_named() {
    if crate::cell::needs_root("something is mounted for it") {
        return;
    }
    let read_only = |place: &str| format!("mount --bind {place} {place} && mount -o remount,bind,ro {place}");
    let told = |prepare: &str, uid: &str, layer: &str| {
        let script = format!(
            "{prepare} && exec setpriv --reuid {uid} --regid {uid} --clear-groups \"$0\" doctor --json"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(crate::binary()).env("HOME", "/nonexistent");
        let output = command.output().unwrap();
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let findings = report["findings"].as_array().unwrap();
        let column = Value::from(if uid == "0" { "root" } else { "user" });
        let mut of_layer = findings.iter().filter(|finding| finding["layer"] == layer);
        let found = of_layer.find(|finding| finding["for"].as_array().unwrap().contains(&column));
        found.unwrap_or_else(|| panic!("{layer} is not missing: {report:#}"))["cause"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let cause = told(&read_only("/proc/sys"), "65534", "user-namespace");
    assert!(cause.starts_with("/proc/sys is read-only here"), "{cause}");
    let cause = told("mount -t tmpfs -o ro tmpfs /proc/fs", "65534", "pid-namespace");
    assert!(cause.starts_with("parts of /proc are covered here"), "{cause}");
    let trees =
        crate::facts().cgroup.iter().flat_map(cgroups::parents).map(|tree| tree.display().to_string());
    let trees: Vec<String> = trees.map(|tree| read_only(&tree)).collect();
    let cause = told(&trees.join(" && "), "0", "cgroup");
    assert!(cause.contains("read-only"), "{cause}");
}

/// `doctor --fix` as root of a user namespace that allows none below it, with an `/etc/sysctl.d` of its own; then what the limit
/// is and what is in that directory.
fn mended(options: &[&str], answer: &str) -> Option<(String, String)> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command
    };
    if !unshare().arg("true").output().unwrap().status.success() {
        assert!(crate::host::expected().is_none_or(|floor| !floor.starts_with("full")), "no user namespace");
        return None;
    }
    let script = "mount -t tmpfs tmpfs /etc/sysctl.d && echo 0 > /proc/sys/user/max_user_namespaces && \
         \"$0\" doctor --fix \"$@\"; echo; echo ended; cat /proc/sys/user/max_user_namespaces /etc/sysctl.d/*";
    let mut child = unshare()
        .args(["sh", "-c", script])
        .arg(crate::binary())
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let (told, left) = output.split_once("\nended\n").unwrap();
    Some((told.to_owned(), left.to_owned()))
}

#[test]
fn nothing_is_mended_without_a_yes() {
    let asked = "fix: sysctl\n  `user.max_user_namespaces` is 0\n  write /etc/sysctl.d/";
    for (options, answer) in
        [(&[][..], "yes\n"), (&["--apply"], "y\n"), (&["--apply"], "yes please\n"), (&["--apply"], "")]
    {
        let Some((told, left)) = mended(options, answer) else { return };
        assert!(told.contains(asked), "{told}");
        assert_eq!(left, "0\n", "{options:?} {answer:?}: {told}");
    }
    let done = "15000\nuser.max_user_namespaces = 15000\n";
    for (options, answer) in [(&["--apply"][..], "yes\n"), (&["--apply", "--yes"], "")] {
        let (told, left) = mended(options, answer).unwrap();
        assert_eq!(left, done, "{options:?} {answer:?}: {told}");
    }
}
