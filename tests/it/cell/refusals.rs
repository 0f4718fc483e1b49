//! What the filter refuses is refused as without a listener, and stands in the record with what it was about.
//!
//! Neighbours: `differential` has the filter's verdicts. Never: takes an empty record for a proof.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use toolcell::outcome::{Layer, Violation};
use toolcell::plan::step::Step;
use toolcell::policy::Observe;

use super::scene::{Executed, Scene, compare, deaf, floor, operations};
use super::{probe, runner};
use crate::{binary, table};

fn refusals(run: &Executed) -> Vec<Violation> {
    let all: Vec<Violation> = serde_json::from_value(run.report["violations"].clone()).unwrap();
    all.into_iter().filter(|violation| violation.layer == Layer::Seccomp).collect()
}

fn coverage(report: &Value) -> &str {
    report["receipt"]["coverage"]["seccomp"].as_str().unwrap()
}

/// Operation, object, errno, count.
pub(super) type Seen<'v> = (&'v str, &'v str, &'v str, u64);

pub(super) fn seen(violation: &Violation) -> Seen<'_> {
    let errno = violation.errno.as_deref().unwrap_or_default();
    (&violation.operation, &violation.object, errno, violation.count)
}

fn attempts(scene: &Scene) -> [(String, &'static str); 16] {
    table![
        "syscall", libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 1 => "ESOCKTNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 262 => "EPROTONOSUPPORT";
        "syscall", libc::SYS_socketpair, libc::AF_UNIX, libc::SOCK_DGRAM, 0, 0 => "ESOCKTNOSUPPORT";
        "syscall", libc::SYS_sendto, "0xffffffff", 0, 0, "0x20000000" => "EOPNOTSUPP";
        "syscall", libc::SYS_ptrace, libc::PTRACE_ATTACH, 1, 0, 0 => "EPERM";
        "syscall", libc::SYS_unshare, "0x10000000" => "EPERM";
        "syscall", libc::SYS_bpf, 5, 0, 0 => "EPERM";
        "syscall", libc::SYS_io_uring_setup, 1, 0 => "EPERM";
        "syscall", libc::SYS_process_vm_readv, 1, 0, 0, 0, 0 => "EPERM";
        "syscall", libc::SYS_keyctl, 0, 0 => "EPERM";
        "syscall", libc::SYS_setns, 3, 0 => "EPERM";
        "mount", "/tmp" => "EPERM";
        "chroot", "/proc" => "EPERM";
        "chmod", scene.path("file"), "04755" => "EPERM";
    ]
}

#[test]
fn what_is_refused_is_refused_as_without_a_listener_and_recorded() {
    let scene = Scene::new();
    let table = attempts(&scene);
    let mut plan = scene.plan("", &operations(&table));
    for wanted in [Some(Observe::Calls), None] {
        for step in &mut plan.steps {
            if let Step::Seccomp { observe, .. } = step {
                *observe = wanted;
            }
        }
        let outcome = scene.run(&plan);
        assert!(outcome.failed.is_none(), "{outcome:?}");
        compare(&outcome.stdout, &table, if wanted.is_some() { "with a listener" } else { "without" });
    }

    let run = scene.exec(&[], &operations(&table));
    run.answers(&table);
    let found = refusals(&run);
    let file = scene.path("file");
    let expected = [
        ("socket", "AF_UNIX", "EAFNOSUPPORT", 1),
        ("socket", "AF_NETLINK", "EAFNOSUPPORT", 1),
        ("socket", "AF_INET type 3 protocol 1", "ESOCKTNOSUPPORT", 1),
        ("socket", "AF_INET type 1 protocol 262", "EPROTONOSUPPORT", 1),
        ("socketpair", "AF_UNIX type 2 protocol 0", "ESOCKTNOSUPPORT", 1),
        ("sendto", "MSG_FASTOPEN", "EOPNOTSUPP", 1),
        ("ptrace", "PTRACE_ATTACH of process 1", "EPERM", 1),
        ("unshare", "flags 0x10000000", "EPERM", 1),
        ("bpf", "command 0x5", "EPERM", 1),
        ("io_uring_setup", "", "EPERM", 1),
        ("process_vm_readv", "process 1", "EPERM", 1),
        ("keyctl", "command 0x0", "EPERM", 1),
        ("setns", "type 0x0", "EPERM", 1),
        ("mount", "none → /tmp", "EPERM", 1),
        ("chroot", "/proc", "EPERM", 1),
        ("chmod", file.as_str(), "EPERM", 1),
    ];
    assert_eq!(found.iter().map(seen).collect::<Vec<_>>(), expected);
    assert_eq!(coverage(&run.report), "complete");
    assert_eq!(run.report["receipt"]["coverage"]["landlock"], "blind");
    assert!(found.iter().all(|violation| violation.first_us.is_some() && violation.rule.contains(": ")));
    let allow = |operation: &str| {
        found.iter().find(|violation| violation.operation == operation).unwrap().allow.as_deref()
    };
    assert_eq!((allow("mount"), allow("ptrace")), (None, Some("[syscalls]\nallow = [\"ptrace\"]")));
}

#[test]
fn what_a_profile_denies_is_recorded_by_its_rule_and_what_it_allows_is_not() {
    let scene = Scene::new();
    let profile = scene.profile("syscalls.deny = [\"getcwd\"]\nsyscalls.allow = [\"ptrace\"]\n");
    let table = table![
        "syscall", libc::SYS_getcwd, 0, 0 => "EPERM";
        "syscall", libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0 => "ok";
        "syscall", libc::SYS_clone3, 0, 0 => "ENOSYS";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0 => "ok";
    ];
    let run = scene.exec(&["--profile", &profile], &operations(&table));
    run.answers(&table);
    let found = refusals(&run);
    assert_eq!(found.iter().map(seen).collect::<Vec<_>>(), [("getcwd", "", "EPERM", 1)]);
    assert!(found[0].rule.starts_with("`syscalls.deny` of profile "), "{}", found[0].rule);
    // By either call init starts a program; that it may not by one is nobody's attempt, and by none is said to be the profile's.
    for (deny, code) in [("\"execveat\"", 0), ("\"execve\"", 0), ("\"execve\", \"execveat\"", 126)] {
        let profile = scene.profile(&format!("syscalls.deny = [{deny}]\n"));
        let run = scene.exec(&["--profile", &profile], &operations(&table!["hostname" => "cell";]));
        assert_eq!(run.code(), code, "{deny}: {}", run.stderr());
        let refused = run.stderr().contains("`deny` of the profile's `[syscalls]` names both");
        assert_eq!((refused, refusals(&run).is_empty()), (code != 0, code == 0), "{deny}: {}", run.stderr());
    }
}

#[test]
fn nobody_listens_where_landlock_holds_no_ports() {
    let scene = Scene::new();
    let held = crate::facts().landlock_abi >= 4;
    let table = table!["syscall", libc::SYS_listen, -1, 0 => if held { "EBADF" } else { "EPERM" };];
    let run = scene.exec(&[], &operations(&table));
    run.answers(&table);
    let found = refusals(&run);
    let seen: Vec<_> = found.iter().map(|one| (one.operation.as_str(), one.allow.as_deref())).collect();
    assert_eq!(seen, if held { vec![] } else { vec![("listen", None)] });
    let profile = scene.profile("network.listen = [8080]\n");
    let mut command = scene.command("exec");
    let output =
        command.args(["--profile", &profile, "--floor", floor()[1], "--", "/bin/true"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(if held { 0 } else { 121 }), "{said}");
    let told =
        ["holds no ports, and a program could listen at others than 8080", "hint: Linux 6.7 and newer"];
    assert!(told.iter().all(|words| said.contains(words) != held), "{said}");
}

#[test]
fn a_connection_by_sending_alone_is_refused_and_recorded_with_where_it_led() {
    let scene = Scene::new();
    let report = scene.path("report.json");
    let ways = ["sendto", "sendmsg", "sendmmsg", "tcp"];
    let tool =
        |way: &str| if way == "tcp" { "call_home_tcp".to_owned() } else { format!("call_home_by_{way}") };
    let calls = ways.map(|way| {
        json!({"jsonrpc": "2.0", "id": way, "method": "tools/call",
            "params": {"name": tool(way), "arguments": {"address": "192.0.2.7:443"}}})
    });
    let lines: Vec<u8> = calls.iter().flat_map(|call| format!("{call}\n").into_bytes()).collect();
    fs::write(scene.path("calls"), lines).unwrap();
    let mut command = scene.command("exec");
    let profile = scene.profile("syscalls.deny = [\"connect\"]\n");
    command.args(floor()).args(["--profile", &profile, "--report", &report, "--"]).arg(binary());
    let calls = File::open(scene.path("calls")).unwrap();
    let output = command.arg("hostile-server").stdin(calls).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let found =
        refusals(&Executed { report: serde_json::from_slice(&fs::read(&report).unwrap()).unwrap(), output });
    let expected = ways.map(|way| match way {
        "tcp" => ("connect", "192.0.2.7:443", "EPERM", 1),
        way => (way, "MSG_FASTOPEN to 192.0.2.7:443", "EOPNOTSUPP", 1),
    });
    assert_eq!(found.iter().map(seen).collect::<Vec<_>>(), expected);
}

#[test]
fn a_program_that_the_host_has_and_the_cell_lacks_is_recorded() {
    let scene = Scene::new();
    let work = scene.path("work");
    let (lacking, denied) = (scene.executable("lacking"), scene.executable("work/denied"));
    let own = scene.executable("work/own");
    let profile =
        scene.profile(&format!("filesystem.execute = [\"{work}\"]\nfilesystem.deny = [\"{denied}\"]\n"));
    let table = table![
        "exec", lacking => "ENOENT";
        "exec", lacking => "ENOENT";
        "exec", denied => "EACCES";
        "exec", own => "ok";
        "exec", scene.path("absent") => "ENOENT";
    ];
    let run = scene.exec(&["--profile", &profile], &operations(&table));
    run.answers(&table);
    let found: Vec<Violation> = serde_json::from_value(run.report["violations"].clone()).unwrap();
    let line = format!("[filesystem]\nexecute = [\"{lacking}\"]");
    let told: Vec<_> = found.iter().map(|one| (one.layer, seen(one), one.allow.as_deref())).collect();
    let expected = [
        (Layer::Root, ("execve", lacking.as_str(), "ENOENT", 2), Some(line.as_str())),
        (Layer::Root, ("execve", &denied, "EACCES", 1), None),
    ];
    assert_eq!(told, expected);
    assert_eq!(run.report["receipt"]["coverage"]["root"], "sampled");
}

#[test]
fn a_flood_is_counted_to_the_last_and_the_record_stays_small() {
    let scene = Scene::new();
    let flood: Vec<String> = (100..150).map(|family| format!("repeat,1,41,{family},1,0")).collect();
    let many = format!("repeat,3000,{},0,1,0", libc::SYS_ptrace);
    let run = scene.exec(&[], &[vec![many.clone()], flood].concat());
    assert!(run.stdout().starts_with(&format!("{many} EPERM\n")), "{}", run.stderr());
    let found = refusals(&run);
    assert_eq!(seen(&found[0]), ("ptrace", "PTRACE_TRACEME of process 1", "EPERM", 3000));
    assert!(found[0].first_us < found[0].last_us);
    assert_eq!(found.len(), 33);
    assert_eq!(seen(&found[32]), ("other refused calls", "", "", 50 - 31));
    assert_eq!(coverage(&run.report), "sampled");
}

#[test]
fn who_is_killed_while_a_call_waits_holds_nobody_up() {
    let scene = Scene::new();
    let last = format!("syscall,{},1", libc::SYS_setns);
    let run = scene.exec(&[], &["storm,40".to_owned(), last.clone()]);
    assert_eq!(run.stdout(), format!("storm,40 ok\n{last} EPERM\n"), "{}", run.stderr());
    let found = refusals(&run);
    let mounts: u64 = found
        .iter()
        .filter(|violation| violation.operation == "mount")
        .map(|violation| violation.count)
        .sum();
    assert!(mounts >= 40, "{found:?}");
    assert!(found.iter().any(|violation| violation.operation == "setns"));
}

#[test]
fn a_host_with_a_listener_of_its_own_gets_the_same_filter_and_a_blind_record() {
    let scene = Scene::new();
    let report = scene.path("report.json");
    let bin = binary();
    let command = format!(
        "under,{},exec,--floor={},--report={report},--,{}",
        bin.to_str().unwrap(),
        floor()[1],
        probe::program().display()
    );
    let output =
        std::process::Command::new(probe::program()).arg(&command).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let record: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(coverage(&record), "blind");
    assert_eq!(record["receipt"]["layers"]["seccomp"], "filter");
    assert_eq!(record["receipt"]["coverage"]["network"], "blind");
}

#[test]
fn what_nobody_answers_the_kernel_refuses() {
    let scene = Scene::new();
    let table = attempts(&scene).map(|(operation, _)| (operation, "ENOSYS"));
    let mut plan = scene.plan("", &operations(&table));
    // Verifying Landlock takes a connection, which waits for an answer too.
    deaf(&mut plan);
    let outcome = runner::run_unheard(Path::new(&scene.path("")), &plan);
    assert!(outcome.failed.is_none(), "{outcome:?}");
    compare(&outcome.stdout, &table, "without anybody who answers");
}

#[test]
fn landlock_is_asked_by_init_whatever_a_profile_denies_and_that_is_nobodys_attempt() {
    let scene = Scene::new();
    // It takes a socket.
    let profile = scene.profile("syscalls.deny = [\"socket\"]\n");
    let table = table!["tcp", "127.0.0.1", 1 => "EPERM";];
    let run = scene.exec(&["--profile", &profile], &operations(&table));
    run.answers(&table);
    let found = refusals(&run);
    assert_eq!(
        found.iter().map(seen).collect::<Vec<_>>(),
        [("socket", "AF_INET type 1 protocol 0", "EPERM", 1)]
    );
    let landlock = |run: &Executed| run.report["receipt"]["layers"]["landlock"].as_str().unwrap().to_owned();
    assert_eq!(landlock(&run), landlock(&scene.exec(&[], &[])));
    let refused = if crate::facts().landlock_abi >= 4 {
        " refused: files, TCP connect, TCP bind"
    } else {
        " refused: files"
    };
    assert!(landlock(&run).split_once(';').unwrap().1.starts_with(refused), "{}", landlock(&run));
}

#[test]
fn a_cell_that_may_not_say_what_it_is_runs_nothing() {
    let scene = Scene::new();
    let profile = scene.profile("syscalls.deny = [\"sendmsg\"]\n");
    let run =
        scene.exec(&["--profile", &profile], &operations(&table!["syscall", libc::SYS_getpid => "ok";]));
    assert_eq!((run.stdout(), run.code()), (String::new(), 122), "{}", run.stderr());
}
