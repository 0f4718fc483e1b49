//! Every limit through the binary: what it stops, how the violation names it, and the exit code.
//!
//! Neighbours: `layers` has cgroups and resource limits alone. Never: asserts how long something took.

use toolcell::host::Cgroup;
use toolcell::outcome::{Evidence, Layer, Limit, Violation};

use super::probe;
use super::scene::{Executed, Scene, floor, has_cgroup, needs_cgroup};

/// The violation of one limit, with the fields that do not depend on how far the payload came.
#[track_caller]
fn hit(
    run: &Executed,
    limit: Limit,
    layer: Layer,
    operation: &str,
    errno: Option<&str>,
    value: u64,
) -> Violation {
    let violation = run.violation(limit).unwrap_or_else(|| panic!("{}\n{}", run.report, run.stderr()));
    assert_eq!((violation.layer, violation.operation.as_str()), (layer, operation));
    assert_eq!((violation.errno.as_deref(), violation.value), (errno, Some(value)));
    assert_eq!(violation.rule, format!("`{}.{}` of profile `default`", limit.section(), limit.name()));
    let allow = violation.allow.as_deref().unwrap();
    assert!(allow.contains(&format!("{} = ", limit.name())), "{allow}");
    violation
}

fn status(run: &Executed) -> &str {
    run.report["status"]["kind"].as_str().unwrap()
}

#[test]
fn memory() {
    if needs_cgroup() {
        return;
    }
    let scene = Scene::new();
    let operation = ["allocate,100000000".to_owned()];
    let run = scene.exec(&["--memory", "32MiB"], &operation);
    assert_eq!((run.code(), status(&run)), (125, "limit"), "{}", run.stderr());
    let violation = hit(&run, Limit::Memory, Layer::Cgroup, "allocate", Some("SIGKILL"), 32 << 20);
    assert_eq!(violation.evidence, Evidence::Kernel);
    assert!(violation.peak.unwrap() > 24 << 20);
    assert!(
        run.stderr().contains("stopped by `limits.memory` of profile `default` (32MiB"),
        "{}",
        run.stderr()
    );

    // On cgroup v2, who only started what took it all goes with it (`memory.oom.group`).
    let together = matches!(crate::facts().cgroup, Ok(Cgroup::V2(_)));
    let script = format!("{} allocate,100000000; echo survived", probe::program().display());
    let mut command = scene.command("exec");
    command.args(floor()).args(["--memory", "32MiB", "--", "/bin/sh", "-c", &script]);
    let output = command.output().unwrap();
    let wanted = if together { (125, "") } else { (0, "survived\n") };
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code().unwrap(), &*said), wanted, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("`limits.memory` of profile"), "{output:?}");

    let run = scene.exec(&["--memory", "256MiB"], &operation);
    assert_eq!((run.code(), status(&run)), (0, "completed"));
    assert!(run.violation(Limit::Memory).is_none());
    assert!(run.report["usage"]["memory_peak"].as_u64().unwrap() >= 100_000_000);
}

#[test]
fn scratch_counts_as_memory() {
    if needs_cgroup() {
        return;
    }
    let scene = Scene::new();
    let run =
        scene.exec(&["--memory", "32MiB", "--scratch", "256MiB"], &["fill,/tmp/file,100000000".to_owned()]);
    assert_eq!(run.code(), 125, "{}", run.stderr());
    hit(&run, Limit::Memory, Layer::Cgroup, "allocate", Some("SIGKILL"), 32 << 20);
}

#[test]
fn cpu() {
    if needs_cgroup() {
        return;
    }
    let scene = Scene::new();
    let run = scene.exec(&["--cpu", "0.1"], &["spin,100".to_owned()]);
    assert_eq!((run.code(), status(&run)), (0, "completed"), "{}", run.stderr());
    let violation = hit(&run, Limit::Cpu, Layer::Cgroup, "compute", None, 100);
    assert!(violation.count > 0);
    assert!(run.report["usage"]["throttled_us"].as_u64().unwrap() > 0);
    assert!(run.report["usage"]["cpu_us"].as_u64().unwrap() >= 100_000);
}

#[test]
fn tasks() {
    if needs_cgroup() {
        return;
    }
    let scene = Scene::new();
    let run = scene.exec(&["--tasks", "8"], &["forks,100".to_owned()]);
    assert_eq!((run.stdout().as_str(), run.code()), ("forks,100 6\n", 0));
    let violation = hit(&run, Limit::Tasks, Layer::Cgroup, "fork", Some("EAGAIN"), 8);
    assert_eq!(violation.count, 1);

    let run = scene.exec(&["--tasks", "200"], &["forks,100".to_owned()]);
    assert_eq!(run.stdout(), "forks,100 100\n");
    assert!(run.violation(Limit::Tasks).is_none());
}

#[test]
fn time() {
    let scene = Scene::new();
    let limit = 200 * crate::host::patience();
    let run = scene.exec(&["--timeout", &format!("{limit}ms")], &["stay".to_owned()]);
    assert_eq!((run.stdout().as_str(), run.code(), status(&run)), ("ready\n", 124, "limit"));
    let violation = hit(&run, Limit::Time, Layer::Deadline, "run", Some("SIGKILL"), u64::from(limit) * 1000);
    assert_eq!(violation.evidence, Evidence::Supervisor);
}

#[test]
fn output() {
    let scene = Scene::new();
    let profile = |amount: &str| scene.profile(&format!("limits.output = \"{amount}\"\n"));
    let small = profile("64KiB");
    let run = scene.exec(&["--profile", &small], &["flood,1000000".to_owned()]);
    assert_eq!((run.code(), status(&run)), (125, "limit"), "{}", run.stderr());
    let violation = run.violation(Limit::Output).unwrap();
    assert_eq!((violation.layer, violation.value), (Layer::Output, Some(64 << 10)));
    assert_eq!((violation.operation.as_str(), violation.evidence), ("write", Evidence::Supervisor));
    assert!(run.output.stdout.len() <= (64 << 10) + 1, "{}", run.output.stdout.len());

    let run = scene.exec(&["--profile", &profile("2MiB")], &["flood,1000000".to_owned()]);
    assert_eq!((run.code(), run.output.stdout.len()), (0, 1_000_000 + "flood,1000000 ok\n".len()));
}

#[test]
fn open_files() {
    let scene = Scene::new();
    let profile = scene.profile("limits.open-files = 16\n");
    let run = scene.exec(&["--profile", &profile], &["files,100".to_owned()]);
    assert_eq!((run.stdout().as_str(), run.code()), ("files,100 13 EMFILE\n", 0), "{}", run.stderr());
}

#[test]
fn file_size() {
    let scene = Scene::new();
    let (directory, path) = (scene.directory("data"), scene.path("data/file"));
    let profile = scene.profile("limits.file-size = \"64KiB\"\n");
    let options = ["--profile", &profile, "--write", &directory];
    let run = scene.exec(&options, &[format!("fill,{path},100000")]);
    assert_eq!((run.code(), status(&run)), (128 + libc::SIGXFSZ, "failed"), "{}", run.stderr());
    let violation = run.violation(Limit::FileSize).unwrap();
    assert_eq!((violation.layer, violation.value), (Layer::Rlimit, Some(64 << 10)));
    assert_eq!(violation.errno.as_deref(), Some("EFBIG"));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64 << 10);
}

#[test]
fn scratch() {
    let scene = Scene::new();
    let run = scene.exec(&["--scratch", "1MiB"], &["fill,/tmp/file,2000000".to_owned()]);
    assert_eq!(run.stdout(), "fill,/tmp/file,2000000 ENOSPC\n");
    let violation = hit(&run, Limit::Scratch, Layer::Root, "write", Some("ENOSPC"), 1 << 20);
    assert_eq!(violation.peak, Some(1 << 20));
    let run = scene.exec(&["--scratch", "4MiB"], &["fill,/tmp/file,2000000".to_owned()]);
    assert!(run.violation(Limit::Scratch).is_none());
    assert!(run.report["usage"]["scratch_used"].as_u64().unwrap() >= 2_000_000);
}

#[test]
fn the_commands_own_end_is_passed_on() {
    let scene = Scene::new();
    assert_eq!(scene.exec(&[], &["exit,7".to_owned()]).code(), 7);
    let run = scene.exec(&[], &["raise,9".to_owned()]);
    assert_eq!((run.code(), status(&run)), (137, "failed"), "SIGKILL without a limit is no limit");
    let missing = scene.command("exec").args(["--", "/nonexistent"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    let unreadable = scene.command("exec").args(["--", &scene.file("script", 0o644)]).output().unwrap();
    assert_eq!(unreadable.status.code(), Some(126));
}

#[test]
fn the_receipt_names_what_was_verified() {
    let scene = Scene::new();
    let run = scene.exec(&[], &["ids".to_owned()]);
    let receipt = &run.report["receipt"];
    assert_eq!(receipt["floor"], floor()[1]);
    let mut layers =
        vec!["capabilities", "descriptors", "identity", "landlock", "namespaces", "root", "seccomp"];
    if has_cgroup() {
        layers.insert(1, "cgroup");
    }
    let found: Vec<&String> = receipt["layers"].as_object().unwrap().keys().collect();
    assert_eq!(found, layers, "{receipt}");
}
