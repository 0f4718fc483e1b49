//! Nothing is left: after a launch, after two hundred, after SIGKILL to whoever could have cleaned up.
//!
//! Neighbours: `runner` counts what a process holds. Never: waits for time where there is an event.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use toolcell::host::{Cgroup, cgroups};
use toolcell::sys::descriptor::{self, Interest};
use toolcell::sys::process;

use super::scene::{Scene, floor, needs_root, note};
use super::{probe, runner};

/// Process ids whose command line holds a text.
pub(super) fn holding(text: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(text)
    })
    .collect()
}

/// Waits until processes are gone, each by a descriptor of its own.
#[track_caller]
pub(super) fn wait_for_end(pids: &[i32]) {
    for pid in pids {
        let Ok(pidfd) = process::pidfd_open(*pid) else { continue };
        let mut gone =
            [Interest { fd: Some(std::os::fd::AsFd::as_fd(&pidfd)), events: libc::POLLIN, ready: 0 }];
        let ended = descriptor::poll(&mut gone, Some(std::time::Duration::from_secs(20))).unwrap();
        assert!(ended, "process {pid} is left");
    }
}

/// `toolcell exec` of a probe that leaves processes of all kinds, after it said that they are there.
struct Staying {
    child: Child,
    /// An argument that only its processes have.
    mark: String,
}

impl Staying {
    fn start(scene: &Scene, options: &[&str]) -> Self {
        let mark = scene.path("mark");
        let mut command = scene.command("exec");
        command.args(floor()).args(options).arg("--").arg(probe::program()).args(["stay", &mark]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let staying = Self { child, mark };
        // The supervisor and its copy, init; and the payload, its child, its daemon.
        assert_eq!(staying.processes().len(), 5);
        staying
    }

    fn processes(&self) -> Vec<i32> {
        holding(&self.mark)
    }

    fn init(&self) -> i32 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        own_cgroups(self.child.id())
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _gone = self.child.kill().is_err();
        let _reaped = self.child.wait().is_err();
        wait_for_end(&self.processes());
    }
}

/// Directories of the cells that a process made.
fn own_cgroups(pid: u32) -> Vec<PathBuf> {
    let parents = crate::facts().cgroup.iter().flat_map(cgroups::parents);
    let entries = parents.flat_map(|parent| fs::read_dir(parent).unwrap().flatten());
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&format!("toolcell-{pid}-")))
        })
        .collect()
}

/// The profile of a cell that keeps a name on the host from being made.
fn denying(scene: &Scene) -> (String, PathBuf) {
    let data = scene.directory("data");
    let hidden = scene.path("data/a/hidden");
    let profile =
        scene.profile(&format!("filesystem.write = [\"{data}\"]\nfilesystem.deny = [\"{hidden}\"]\n"));
    (profile, scene.path("data/a").into())
}

#[test]
fn exec_gains_no_privileges() {
    let scene = Scene::new();
    let staying = Staying::start(&scene, &[]);
    let of_process = |file: &str| format!("/proc/{}/{file}", staying.child.id());
    let status = fs::read_to_string(of_process("status")).unwrap();
    assert!(status.contains("\nNoNewPrivs:\t1\n") && status.contains("\nSeccomp:\t2\n"), "{status}");
    // One more than exec was started with, and another for the cell's own.
    let filters = |of: &str| -> u32 {
        let status = fs::read_to_string(format!("/proc/{of}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.unwrap().trim().parse().unwrap()
    };
    let own = filters(&staying.child.id().to_string());
    assert_eq!((own, filters(&staying.init().to_string())), (filters("self") + 1, filters("self") + 2));
    // The files of a process that is not dumpable belong to root.
    assert_eq!(fs::metadata(of_process("environ")).unwrap().uid(), 0);
}

#[test]
fn two_hundred_launches_leave_nothing() {
    let scene = Scene::new();
    let (_, name) = denying(&scene);
    let data = scene.path("data");
    let plan = scene.plan(
        &format!("filesystem.write = [\"{data}\"]\nfilesystem.deny = [\"{data}/a/hidden\"]\n"),
        &["exit,0".to_owned()],
    );
    let outcome = runner::run_times(Path::new(&scene.path("")), &plan, 200);
    assert!(outcome.failed.is_none() && outcome.receipt.is_some(), "{outcome:?}");
    let [first, last] = outcome.census.try_into().unwrap();
    assert_eq!(first, last);
    assert!(!name.exists());
}

#[test]
fn a_supervisor_that_is_killed_takes_the_cell_along() {
    let scene = Scene::new();
    let (profile, name) = denying(&scene);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mut staying = Staying::start(&scene, &["--profile", &profile]);
    let everyone: Vec<i32> = staying.processes().into_iter().chain([staying.init()]).collect();
    assert!(name.exists());
    staying.child.kill().unwrap();
    staying.child.wait().unwrap();
    wait_for_end(&everyone);
    assert!(staying.processes().is_empty());
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), mounts);

    // The next start removes the cgroups, and the next cell that denies the same name gives it back.
    let next = scene.exec(&["--profile", &profile], &["ids".to_owned()]);
    assert_eq!(next.stdout(), "ids 1000:1000\n", "{}", next.stderr());
    assert!(staying.cgroups().is_empty());
    assert!(!name.exists());
}

/// The children of a process, looked at once.
pub(super) fn children(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The moments are counted in looks at the launch, of which a whole one takes some hundred: each time it gets further.
#[test]
fn a_supervisor_killed_at_any_moment_of_a_launch_takes_the_cell_along() {
    let scene = Scene::new();
    let (profile, name) = denying(&scene);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mark = scene.path("mark");
    let mut building = 0;
    for looks in 0..60 {
        let mut command = scene.command("exec");
        command.args(floor()).args(["--profile", &profile, "--"]).arg(probe::program());
        command.args(["stay", &mark]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while children(child.id()).is_empty() && child.try_wait().unwrap().is_none() {}
        for _ in 0..looks * 4 {
            children(child.id());
        }
        building += usize::from(holding(&mark).len() <= 2);
        child.kill().unwrap();
        child.wait().unwrap();
        // The helper of an early init may still be at its clone; until it ends it is one of these, and then its child is.
        while !holding(&mark).is_empty() {
            wait_for_end(&holding(&mark));
        }
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), mounts, "{looks}");
    }
    // The supervisor and its copy, init, have the argument too.
    assert!(building > 10, "only {building} were killed before their payload ran");
    let next = scene.exec(&["--profile", &profile], &["ids".to_owned()]);
    assert_eq!(next.stdout(), "ids 1000:1000\n", "{}", next.stderr());
    assert!(!name.exists());
}

#[test]
fn an_init_that_is_killed_ends_the_cell() {
    let scene = Scene::new();
    let (profile, name) = denying(&scene);
    let mut staying = Staying::start(&scene, &["--profile", &profile]);
    let everyone = staying.processes();
    process::kill(staying.init()).unwrap();
    let status = staying.child.wait().unwrap();
    assert_eq!(status.code(), Some(128 + libc::SIGKILL));
    wait_for_end(&everyone);
    assert!(staying.processes().is_empty());
    assert!(staying.cgroups().is_empty());
    assert!(!name.exists());
}

/// The letter for the state of a process in `/proc/PID/stat`.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn what_stops_itself_or_waits_uninterruptibly_ends_with_its_time() {
    let scene = Scene::new();
    let mark = scene.path("mark");
    for (operation, wanted) in [("stopped", 'T'), ("vforked", 'D')] {
        let mut command = scene.command("exec");
        command.args(floor()).args(["--timeout", "2s", "--"]).arg(probe::program()).args([operation, &mark]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        while !holding(&mark).iter().any(|pid| state(*pid) == Some(wanted)) {
            assert!(child.try_wait().unwrap().is_none(), "`{operation}` was never in state {wanted}");
        }
        assert_eq!(child.wait().unwrap().code(), Some(124), "{operation}");
        assert!(holding(&mark).is_empty(), "{operation}");
        assert!(own_cgroups(child.id()).is_empty(), "{operation}");
    }
    assert_eq!(scene.exec(&[], &["exit,0".to_owned()]).code(), 0);
}

#[test]
fn an_init_that_is_stopped_ends_with_its_time_and_with_its_supervisor() {
    let scene = Scene::new();
    for options in [["--timeout", "2s"], ["--timeout", "60s"]] {
        let mut staying = Staying::start(&scene, &options);
        let everyone: Vec<i32> = staying.processes().into_iter().chain([staying.init()]).collect();
        let init = process::pidfd_open(staying.init()).unwrap();
        process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&init), libc::SIGSTOP).unwrap();
        if options[1] == "60s" {
            staying.child.kill().unwrap();
        }
        staying.child.wait().unwrap();
        wait_for_end(&everyone);
        assert!(staying.processes().is_empty());
    }
    assert_eq!(scene.exec(&[], &["exit,0".to_owned()]).code(), 0);
}

/// cgroup v2 freezes what is in a directory as one, and takes SIGKILL all the same.
#[test]
fn a_frozen_cell_ends_with_its_time_and_with_its_supervisor() {
    let Ok(Cgroup::V2(_)) = &crate::facts().cgroup else {
        return note("there is no cgroup v2 to freeze a cell with");
    };
    let scene = Scene::new();
    for options in [["--timeout", "2s"], ["--timeout", "60s"]] {
        let mut staying = Staying::start(&scene, &options);
        let everyone: Vec<i32> = staying.processes().into_iter().chain([staying.init()]).collect();
        let [cgroup] = staying.cgroups().try_into().unwrap();
        fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
        while !fs::read_to_string(cgroup.join("cgroup.events")).unwrap().contains("frozen 1") {
            std::thread::yield_now();
        }
        if options[1] == "60s" {
            staying.child.kill().unwrap();
        }
        staying.child.wait().unwrap();
        wait_for_end(&everyone);
        assert!(staying.processes().is_empty());
        // Of a supervisor that was killed, the next start removes it.
        assert_eq!(scene.exec(&[], &["exit,0".to_owned()]).code(), 0);
        assert!(!cgroup.exists(), "{}", cgroup.display());
    }
}

#[test]
fn a_full_disk_under_the_log_stops_the_call_before_it_runs() {
    if needs_root("a file system of a given size takes a mount") {
        return;
    }
    let scene = Scene::new();
    let (disk, binary) = (scene.directory("disk"), crate::binary());
    let script = "mount -t tmpfs -o size=64k none \"$1\" && shift || exit 99
        cat /dev/zero > \"$AUDIT.full\" 2>/dev/null
        \"$@\" && exit 98
        echo \"status $?\"
        rm \"$AUDIT.full\" && \"$@\" && cat \"$AUDIT\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &disk]).arg(binary).arg("exec").args(floor());
    let audit = format!("{disk}/log");
    let output = command
        .args(["--audit", &audit, "--", "echo", "ran"])
        .current_dir(scene.path(""))
        .env("AUDIT", &audit)
        .env("XDG_STATE_HOME", scene.path("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let [status, ran, started, finished, _checkpoint] = said.lines().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((status, ran), ("status 123", "ran"), "{told}");
    assert!(told.contains("No space left") && told.contains("hint: make room"), "{told}");
    let event = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].clone();
    assert_eq!((event(started), event(finished)), ("started".into(), "finished".into()));
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let scene = Scene::new();
    let mark = scene.path("mark");
    let script = format!("sleep 1000 {mark} & setsid sleep 1000 {mark} & exit 3");
    let output = scene.command("exec").args(floor()).args(["--", "sh", "-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(holding(&mark).is_empty());
}
