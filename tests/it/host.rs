//! What is expected of this host, and whether the doctor and a command find just that.
//!
//! `TOOLCELL_EXPECT_HOST` is the name of the strongest floor that the user of the tests reaches, or `none`. What keeps the
//! next one from being reached may follow, as `:LAYER:CALL:ERRNO:LAUNCH`: the layer that is missing, the call that fails
//! when it is tried alone, its errno, and that of the launch, which may ask for more at once and be refused earlier.
//! Then a test that is skipped for another reason fails. `TOOLCELL_EXPECT_LANDLOCK` is the ABI of Landlock, if there is one,
//! `TOOLCELL_EXPECT_CGROUP` a part of what the doctor says about where cells have their limits.
//! Neighbours: `integration/vm/lanes.py` says what each of its hosts is. Never: looks at the version of the kernel.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolcell::plan::seccomp;
use toolcell::policy::Syscalls;
use toolcell::policy::syscalls::SyscallName;
use toolcell::sys::{filter, identity, process};

/// What is expected, if anything.
pub(crate) fn expected() -> Option<String> {
    std::env::var("TOOLCELL_EXPECT_HOST").ok()
}

/// How many times longer than usual things may take, where the whole machine is emulated.
pub(crate) fn patience() -> u32 {
    std::env::var("TOOLCELL_TEST_PATIENCE").map_or(1, |times| times.parse().unwrap())
}

/// Is a violation that there would not be if the machine were not emulated: its calls come to their share of the processors?
pub(crate) fn is_of_its_slowness(violation: &Value) -> bool {
    patience() > 1 && violation["limit"] == "cpu"
}

fn toolcell(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(crate::binary()).args(arguments).current_dir("/").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

pub(crate) fn doctor() -> Value {
    let (_, report, _) = toolcell(&["doctor", "--json"]);
    serde_json::from_str(&report).unwrap()
}

/// The scope lives as long as a process in it, which systemd learns from the kernel and tells nobody of ours.
#[test]
fn a_scope_asked_of_systemd_is_the_callers_own_and_ends_with_it() {
    let Ok(expected) = std::env::var("TOOLCELL_EXPECT_CGROUP") else { return };
    let scope = || {
        let report = doctor();
        let told = report["user"]["layers"]["cgroup"]["detail"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(&expected), "{report:#}");
        PathBuf::from(format!("/{}", told.split_once('/').unwrap().1))
    };
    let (first, second) = (scope(), scope());
    assert_ne!(first, second);
    let (began, bound) = (Instant::now(), Duration::from_secs(10) * patience());
    while first.exists() || second.exists() {
        assert!(began.elapsed() < bound, "{} or {} is left", first.display(), second.display());
        std::thread::yield_now();
    }
}

/// A user to whom nothing is delegated, and whose bus knows nobody: nothing runs but below the floor that is accepted.
#[test]
fn a_bus_that_gives_no_scope_is_told_and_costs_the_floor() {
    // Root asks nobody for a scope.
    if expected().as_deref() != Some("no-cgroup") || identity::effective().0 == 0 {
        return;
    }
    let directory = std::env::temp_dir().join(format!("toolcell-bus-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let bus = UnixListener::bind(directory.join("bus")).unwrap();
    let refusing = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut caller, _) = bus.accept().unwrap();
            caller.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
            // Until the caller goes away, whose own words would be lost otherwise.
            caller.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let exec = |options: &[&str]| {
        let mut command = Command::new(crate::binary());
        command.env("XDG_RUNTIME_DIR", &directory).arg("exec").args(options).args(["--", "echo", "ran"]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), said)
    };
    let (code, stdout, stderr) = exec(&[]);
    assert_eq!((code, stdout.as_str()), (Some(121), ""), "{stderr}");
    for word in ["asked for a scope, and gave none", "EACCES", "hint: "] {
        assert!(stderr.contains(word), "{stderr}");
    }
    let (code, stdout, stderr) = exec(&["--floor", "no-cgroup"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "ran\n"), "{stderr}");
    refusing.join().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_host_is_what_is_expected() {
    let Some(expected) = expected() else { return };
    let report = doctor();
    let who = if report["caller"]["uid"] == 0 { "root" } else { "user" };
    let (floor, missing) = expected.split_once(':').unwrap_or((&expected, ""));
    let (code, stdout, stderr) = toolcell(&["exec", "--", "echo", "ran"]);
    let told = format!("{report:#}\n{stdout}{stderr}");
    // Part by part it comes to the same.
    let (ending, lost, _) = toolcell(&["profile", "explain", "default", "--lost", "--json"]);
    let lost: Value = serde_json::from_str(&lost).unwrap();
    assert_eq!(lost["reaches"].as_str().unwrap_or("none"), floor, "{lost:#}{told}");
    assert_eq!(
        (ending == Some(0), lost["missing"] == json!([])),
        (floor == "full", floor == "full"),
        "{lost:#}"
    );
    if let Ok(abi) = std::env::var("TOOLCELL_EXPECT_LANDLOCK") {
        assert_eq!(report[who]["layers"]["landlock"]["detail"], format!("ABI {abi}"), "{told}");
    }
    assert_eq!(report[who]["floor"].as_str().unwrap_or("none"), floor, "{told}");
    let ran = |code, stdout: &str| code == Some(0) && stdout == "ran\n";
    if floor == "full" {
        assert!(ran(code, &stdout), "{told}");
        return;
    }
    // Below its floor nothing runs, and what to do about it is said.
    assert!(code != Some(0) && stdout.is_empty() && stderr.contains("hint: "), "{told}");
    if floor != "none" {
        let (code, stdout, stderr) = toolcell(&["exec", "--floor", floor, "--", "echo", "ran"]);
        assert!(ran(code, &stdout), "{stderr}{told}");
    }
    let parts: Vec<&str> = missing.split(':').collect();
    let [layer, call, errno, at_launch] = parts[..] else { return };
    let failed = &report[who]["layers"][layer]["failed"];
    assert_eq!((failed["call"].as_str(), failed["errno"].as_str()), (Some(call), Some(errno)), "{told}");
    // With a cgroup floor a user is refused before that; without one it is the launch that fails.
    let (code, stdout, stderr) = toolcell(&["exec", "--floor", "no-cgroup", "--", "echo", "ran"]);
    assert!(code != Some(0) && stdout.is_empty(), "{told}");
    assert!(stderr.contains(at_launch) && stderr.contains("hint: "), "{stderr}{told}");
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["layer"] == layer).unwrap();
    assert!(finding["cause"] != "" && finding["fix"] != "", "{told}");
}

/// What Docker's default profile refuses to a container without capabilities, of what a cell needs or attacks.
/// `clone` with namespaces and `clone3` are refused by the compiler's own rules for them: EPERM and ENOSYS.
const REFUSED_BY_DOCKER: &[&str] = &[
    "bpf",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "quotactl",
    "reboot",
    "setdomainname",
    "sethostname",
    "setns",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// Says to what runs in such a container that it does.
const CONTAINER: &str = "TOOLCELL_TEST_CONTAINER";

/// Does something outside of toolcell refuse calls here?
pub(crate) fn is_container() -> bool {
    std::env::var_os(CONTAINER).is_some()
}

/// Not a test of its own: becomes the program that a lane names, under a filter like Docker's.
#[test]
fn as_in_a_container_of_docker() {
    let Some(command) = std::env::var_os("TOOLCELL_TEST_IN_DOCKER") else { return };
    let names = |refused: bool| {
        // What no profile can allow cannot be named among what is allowed; Docker refuses that too, but for the clocks.
        let can = move |name: &str| refused || seccomp::named(name) == SyscallName::Known;
        let chosen = move |name: &&str| REFUSED_BY_DOCKER.contains(name) == refused && can(name);
        seccomp::names().filter(chosen).filter(|name| !name.starts_with("clone")).map(str::to_owned).collect()
    };
    let program = seccomp::compile(&Syscalls { allow: names(false), deny: names(true) }, false).unwrap();
    process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).unwrap();
    filter::install(&filter::assemble(&program)).unwrap();
    let ended = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env_remove("TOOLCELL_TEST_IN_DOCKER")
        .env(CONTAINER, "1")
        .status();
    assert!(ended.unwrap().success());
}
