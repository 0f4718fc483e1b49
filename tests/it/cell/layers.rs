//! Every layer alone: a plan without the steps of the others still stops what the layer is there for, and without
//! this layer, too, the same probe escapes.
//!
//! Neighbours: `failures` has what `verify` says of a missing layer. Never: leaves a step of another layer in that
//! could have been what stopped a probe.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

use toolcell::plan::Plan;
use toolcell::plan::step::{Namespace, Step};
use toolcell::sys::landlock;
use toolcell::sys::process::Exit;

use super::scene::{Scene, bare, compare, deaf, is_root, needs_cgroup, needs_root, note, operations, skip};
use crate::table;

/// What every plan needs to run at all.
fn frame(step: &Step) -> bool {
    matches!(step, Step::NewSession | Step::CloseDescriptors | Step::Exec { .. })
}

/// A plan of the frame and the steps that `keep` names, in their order, in these namespaces.
fn only(mut plan: Plan, namespaces: &[Namespace], keep: impl Fn(&Step) -> bool) -> Plan {
    plan.steps.retain(|step| frame(step) || keep(step) || matches!(step, Step::Clone { .. }));
    for step in &mut plan.steps {
        match step {
            Step::Clone { namespaces: list } => *list = namespaces.to_vec(),
            // Where the probe works in a private root does not exist without one.
            Step::Exec { cwd, .. } => *cwd = "/".into(),
            _ => {}
        }
    }
    plan
}

fn is_filter(step: &Step) -> bool {
    matches!(step, Step::NoNewPrivileges | Step::Seccomp { .. })
}

fn is_landlock(step: &Step) -> bool {
    matches!(step, Step::NoNewPrivileges | Step::Landlock { .. })
}

pub(super) fn is_mount(step: &Step) -> bool {
    matches!(
        step,
        Step::IsolateMounts
            | Step::MountRoot
            | Step::MakeDirectory { .. }
            | Step::MakeFile { .. }
            | Step::MakeSymlink { .. }
            | Step::Bind { .. }
            | Step::Hide { .. }
            | Step::MountScratch { .. }
            | Step::PivotRoot
    )
}

/// A user must make a user namespace before any other; root need not.
fn with_user(namespaces: &[Namespace]) -> Vec<Namespace> {
    let user: &[Namespace] = if is_root() { &[] } else { &[Namespace::User] };
    [user, namespaces].concat()
}

fn is_user(step: &Step) -> bool {
    matches!(step, Step::MapIds { .. })
}

/// The probe's answers bare, and in a cell of these steps only.
#[track_caller]
fn pair(scene: &Scene, plan: &Plan, without: &[(String, &str)], within: &[(String, &str)]) {
    assert_eq!(operations(without), operations(within));
    compare(&bare(&operations(without)), without, "bare");
    let outcome = scene.run(plan);
    assert!(outcome.failed.is_none(), "{outcome:?}");
    compare(&outcome.stdout, within, "in the cell");
}

#[test]
fn the_private_root_alone_hides_the_host() {
    let scene = Scene::new();
    let (granted, other) = (scene.file("data/file", 0o644), scene.file("database/file", 0o644));
    let without = table![
        "read", granted => "ok";
        "write", granted => "ok";
        "read", other => "ok";
        "read", "/etc/hosts" => "ok";
        "stat", "/sys" => "ok";
        "stat", "/dev/ptmx" => "ok";
    ];
    let within = table![
        "read", granted => "ok";
        "write", granted => "EROFS";
        "read", other => "ENOENT";
        "read", "/etc/hosts" => "ok";
        "stat", "/sys" => "ENOENT";
        "stat", "/dev/ptmx" => "ENOENT";
    ];
    let plan = scene.plan(&format!("filesystem.read = [\"{}\"]", scene.path("data")), &operations(&within));
    let plan = only(plan, &with_user(&[Namespace::Mount]), |step| is_mount(step) || is_user(step));
    pair(&scene, &without_idmaps(plan), &without, &within);
}

/// Without `SetIds` the payload is still root, to whom the files need no mapping.
fn without_idmaps(mut plan: Plan) -> Plan {
    for step in &mut plan.steps {
        if let Step::Bind { owner, .. } = step {
            *owner = None;
        }
    }
    plan
}

#[test]
fn landlock_alone_refuses_what_was_not_granted() {
    let scene = Scene::new();
    let (granted, other) = (scene.file("data/file", 0o644), scene.file("database/file", 0o644));
    let program = scene.executable("data/program");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = format!("toolcell-it-{}", std::process::id());
    let _abstract_listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let outside = Bystander::start();
    let pid = outside.0.id();
    let without = table![
        "read", granted => "ok";
        "write", granted => "ok";
        "read", other => "ok";
        "write", other => "ok";
        "create", scene.path("new") => "ok";
        "unlink", scene.path("new") => "ok";
        "list", scene.path("data") => "file program";
        "list", scene.path("database") => "file";
        "exec", program => "ok";
        "tcp", "127.0.0.1", port => "ok";
        "abstract", name => "ok";
        "kill", pid => "ok";
    ];
    // What an older ABI does not have is another layer's alone.
    let since = |abi, answer: &'static str| if landlock::abi() < abi { "ok" } else { answer };
    let within = table![
        "read", granted => "ok";
        "write", granted => "EACCES";
        "read", other => "EACCES";
        "write", other => "EACCES";
        "create", scene.path("new") => "EACCES";
        "unlink", scene.path("new") => "ENOENT";
        "list", scene.path("data") => "file program";
        "list", scene.path("database") => "EACCES";
        "exec", program => "EACCES";
        "tcp", "127.0.0.1", port => since(4, "EACCES");
        "abstract", name => since(6, "EPERM");
        "kill", pid => since(6, "EPERM");
    ];
    let plan = scene.plan(&format!("filesystem.read = [\"{}\"]", scene.path("data")), &operations(&within));
    let mut plan = only(plan, &[], is_landlock);
    for step in &mut plan.steps {
        if let Step::Landlock { rules, .. } = step {
            // What the host lacks, or has as a link, can have no rule outside of a private root.
            rules.retain(|rule| rule.path.canonicalize().is_ok_and(|real| real == rule.path));
        }
    }
    pair(&scene, &plan, &without, &within);
}

/// A process of the same user outside of the cell, ended with the test.
struct Bystander(Child);

impl Bystander {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // Its standard input ends with this, and it with that.
        drop(self.0.stdin.take());
        let _reaped = self.0.wait().is_err();
    }
}

#[test]
fn the_filter_alone_refuses_calls() {
    let scene = Scene::new();
    let pid = libc::SYS_getpid;
    let within = table![
        "syscall", pid => "ok";
        "syscall", libc::SYS_mount => "EPERM";
        "syscall", libc::SYS_unshare, libc::CLONE_FILES => "EPERM";
        "syscall", libc::SYS_ptrace, libc::PTRACE_TRACEME => "EPERM";
        // KEYCTL_GET_KEYRING_ID of the session keyring, made if there is none
        "syscall", libc::SYS_keyctl, 0, "-3", 1 => "EPERM";
        "syscall", libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0 => "EAFNOSUPPORT";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0 => "ok";
        "syscall", libc::SYS_ioctl, 0, libc::TIOCSTI => "EPERM";
        "syscall", libc::SYS_ioctl, 0, "0x100005412" => "EPERM";
        "syscall", libc::SYS_clone3 => "ENOSYS";
        "syscall", libc::SYS_io_uring_setup, 1 => "EPERM";
        "syscall", "100000" => "ENOSYS";
        "syscall", "0x40000027" => "signal 31";
        "int80" => "signal 31";
    ];
    let without = table![
        "syscall", pid => "ok";
        "syscall", libc::SYS_mount => "EFAULT";
        "syscall", libc::SYS_unshare, libc::CLONE_FILES => "ok";
        "syscall", libc::SYS_ptrace, libc::PTRACE_TRACEME => "ok";
        "syscall", libc::SYS_keyctl, 0, "-3", 1 => "ok";
        "syscall", libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0 => "ok";
        "syscall", libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0 => "ok";
        "syscall", libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0 => "ok";
        "syscall", libc::SYS_ioctl, 0, libc::TIOCSTI => "ENOTTY";
        "syscall", libc::SYS_ioctl, 0, "0x100005412" => "ENOTTY";
        "syscall", libc::SYS_clone3 => "EINVAL";
        "syscall", libc::SYS_io_uring_setup, 1 => "EFAULT";
        "syscall", "100000" => "ENOSYS";
        "syscall", "0x40000027" => "ENOSYS";
        "int80" => "ok";
    ];
    let plan = only(scene.plan("", &operations(&within)), &[], is_filter);
    let bare_lines = bare(&operations(&without));
    for ((line, (operation, answer)), (_, stopped)) in bare_lines.lines().zip(&without).zip(&within) {
        let found = line.strip_prefix(operation.as_str()).unwrap().trim();
        // A kernel may be built without a call; it then says so itself, and the pair proves nothing here.
        if found != *answer {
            assert!(matches!(found, "ENOSYS" | "EPERM" | "signal 11"), "{line}, not {answer}");
            skip(&format!("`{operation}` fails bare with {found}, in a cell with {stopped}"));
        }
    }
    compare(&scene.run(&plan).stdout, &within, "");
}

#[test]
fn the_launchers_filter_alone_refuses_what_no_profile_can_allow() {
    let scene = Scene::new();
    // Each bare answer is the kernel's to arguments that it takes from nobody: nothing happens, whoever asks.
    let calls = [
        (libc::SYS_bpf, "100", "EINVAL"),
        (libc::SYS_perf_event_open, "0", "EFAULT"),
        (libc::SYS_userfaultfd, "0xff", "EINVAL"),
        (libc::SYS_io_uring_setup, "1", "EFAULT"),
        (libc::SYS_io_uring_enter, "0xffffffff", "EBADF"),
        (libc::SYS_quotactl_fd, "0xffffffff", "EBADF"),
        (libc::SYS_finit_module, "0xffffffff", "EBADF"),
        (libc::SYS_adjtimex, "0", "EFAULT"),
        (libc::SYS_clock_adjtime, "0", "EFAULT"),
        (libc::SYS_iopl, "4", "EINVAL"),
        (libc::SYS_reboot, "0", "EINVAL"),
    ];
    let within: Vec<_> =
        calls.map(|(call, argument, _)| (format!("syscall,{call},{argument}"), "ENOSYS")).into();
    for (line, (call, _, answer)) in bare(&operations(&within)).lines().zip(calls) {
        if line.ends_with(answer) {
            continue;
        }
        // A kernel may be built without some of them, and an ordinary user has no right to some: such a call proves
        // nothing here. These two are in every kernel, and look at their argument before they look at who asks.
        assert!(line.ends_with("ENOSYS") || line.ends_with("EPERM"), "{line}, not {answer}");
        match [libc::SYS_adjtimex, libc::SYS_clock_adjtime].contains(&call) {
            true => skip(&format!("bare: {line}")),
            false => note(&format!("proves nothing here: bare {line}")),
        }
    }
    let others = table![
        "syscall", libc::SYS_getpid => "ok";
        "syscall", libc::SYS_keyctl, 0, "-3", 1 => "ok";
        "syscall", "100000" => "ENOSYS";
        "syscall", "0x40000027" => "signal 31";
        "int80" => "signal 31";
    ];
    let all = [within, others.into()].concat();
    compare(&scene.run(&only(scene.plan("", &operations(&all)), &[], |_| false)).stdout, &all, "");
}

#[test]
fn dropped_capabilities_alone_leave_root_without_power() {
    if needs_root("an ordinary user has no capabilities to drop") {
        return;
    }
    let scene = Scene::new();
    let private = scene.file("private", 0o600);
    std::os::unix::fs::chown(&private, Some(4321), Some(4321)).unwrap();
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let hostname = hostname.trim();
    let device = scene.path("device");
    let within = table![
        "read", private => "EACCES";
        "mknod", device => "EPERM";
        "unlink", device => "ENOENT";
        "sethostname", hostname => "EPERM";
        "chroot", "/" => "EPERM";
        "syscall", libc::SYS_setgroups, 0, 0 => "EPERM";
        "syscall", libc::SYS_unshare, libc::CLONE_NEWNS => "EPERM";
    ];
    let without = table![
        "read", private => "ok";
        "mknod", device => "ok";
        "unlink", device => "ok";
        "sethostname", hostname => "ok";
        "chroot", "/" => "ok";
        "syscall", libc::SYS_setgroups, 0, 0 => "ok";
        "syscall", libc::SYS_unshare, libc::CLONE_NEWNS => "ok";
    ];
    let plan =
        only(scene.plan("", &operations(&within)), &[], |step| matches!(step, Step::DropCapabilities { .. }));
    pair(&scene, &plan, &without, &within);
}

#[test]
fn the_network_namespace_alone_reaches_nothing() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = format!("toolcell-it-net-{}", std::process::id());
    let _abstract_listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let without = table!["tcp", "127.0.0.1", port => "ok"; "abstract", name => "ok";];
    let within = table!["tcp", "127.0.0.1", port => "ECONNREFUSED"; "abstract", name => "ECONNREFUSED";];
    let steps = |step: &Step| is_user(step) || matches!(step, Step::LoopbackUp);
    let plan = only(scene.plan("", &operations(&within)), &with_user(&[Namespace::Net]), steps);
    pair(&scene, &plan, &without, &within);
    // There is no route to anywhere else.
    let away = table!["tcp", "192.0.2.1", "9" => "ENETUNREACH";];
    let plan = only(scene.plan("", &operations(&away)), &with_user(&[Namespace::Net]), steps);
    compare(&scene.run(&plan).stdout, &away, "");
}

#[test]
fn the_pid_namespace_alone_hides_processes() {
    let scene = Scene::new();
    let outside = Bystander::start();
    let pid = outside.0.id();
    let without = table!["kill", pid => "ok";];
    let within = table!["kill", pid => "ESRCH";];
    let plan = only(scene.plan("", &operations(&within)), &with_user(&[Namespace::Pid]), is_user);
    pair(&scene, &plan, &without, &within);
}

#[test]
fn the_ipc_and_uts_namespaces_alone_are_the_cells_own() {
    let scene = Scene::new();
    let key = std::process::id();
    let segment = Segment::new(key);
    let without = table!["syscall", libc::SYS_shmget, key, 0, 0 => "ok";];
    let within = table!["syscall", libc::SYS_shmget, key, 0, 0 => "ENOENT";];
    let plan = only(scene.plan("", &operations(&within)), &with_user(&[Namespace::Ipc]), is_user);
    pair(&scene, &plan, &without, &within);
    drop(segment);

    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let within = table!["hostname" => "cell";];
    let plan = only(scene.plan("", &operations(&within)), &with_user(&[Namespace::Uts]), |step| {
        is_user(step) || matches!(step, Step::SetHostname { .. })
    });
    compare(&scene.run(&plan).stdout, &within, "");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

/// A System V shared memory segment on the host.
struct Segment(u32);

impl Segment {
    fn new(key: u32) -> Self {
        let made = Command::new("python3")
            .args([
                "-c",
                "import ctypes,sys; sys.exit(ctypes.CDLL(None).shmget(int(sys.argv[1]), 4096, 0o1600) < 0)",
            ])
            .arg(key.to_string())
            .status()
            .unwrap();
        assert!(made.success());
        Self(key)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let gone = Command::new("ipcrm").args(["-M", &self.0.to_string()]).status();
        assert!(gone.is_ok_and(|status| status.success()));
    }
}

#[test]
fn the_user_namespace_alone_makes_root_a_stranger() {
    let scene = Scene::new();
    if needs_root("only root has power to lose") {
        return;
    }
    let private = scene.file("private", 0o600);
    let without = table!["read", private => "ok"; "ids" => "0:0";];
    let within = table!["read", private => "EACCES"; "ids" => "1000:1000";];
    let plan = only(scene.plan("", &operations(&within)), &[], |step| {
        matches!(step, Step::SetIds { .. } | Step::UnshareUser { .. })
    });
    pair(&scene, &plan, &without, &within);

    // And none can be made within, which would give capabilities over new namespaces.
    let flag = libc::CLONE_NEWUSER.to_string();
    let unshare = table!["syscall", libc::SYS_unshare, flag => "ENOSPC";];
    let plan = only(scene.plan("", &operations(&unshare)), &[], |step| {
        matches!(step, Step::SetIds { .. } | Step::UnshareUser { .. } | Step::ForbidUserNamespaces)
    });
    let without = table!["syscall", libc::SYS_unshare, flag => "ok";];
    pair(&scene, &plan, &without, &unshare);
}

#[test]
fn the_cgroup_alone_limits() {
    if needs_cgroup() {
        return;
    }
    let scene = Scene::new();
    let steps =
        |step: &Step| matches!(step, Step::CreateCgroup { .. } | Step::JoinCgroup { .. }) || is_user(step);
    let limited = |limits: &str, operation: &str| {
        // A pid namespace, so that what is left of the cell ends with it.
        let plan = scene.plan(limits, &[operation.to_owned()]);
        scene.run(&only(plan, &with_user(&[Namespace::Pid]), steps))
    };
    let memory = limited("limits.memory = \"32MiB\"", "allocate,100000000");
    assert_eq!(memory.exit, Some(Exit::Signal(libc::SIGKILL)));
    assert_eq!(limited("limits.memory = \"256MiB\"", "allocate,100000000").stdout, "allocate,100000000 ok\n");

    // Init and the payload are two of the eight.
    assert_eq!(limited("limits.tasks = 8", "forks,100").stdout, "forks,100 6\n");
    assert_eq!(limited("limits.tasks = 200", "forks,100").stdout, "forks,100 100\n");
    assert_eq!(bare(&["forks,100".to_owned()]), "forks,100 100\n");
}

#[test]
fn resource_limits_alone_hold() {
    let scene = Scene::new();
    let steps = |step: &Step| matches!(step, Step::SetRlimit { .. });
    let path = scene.path("file");
    let limited = |limits: &str, operation: String| {
        let plan = scene.plan(limits, std::slice::from_ref(&operation));
        scene.run(&only(plan, &[], steps))
    };
    // Standard input, output and error are three of them.
    let files = "files,100".to_owned();
    assert_eq!(limited("limits.open-files = 16", files.clone()).stdout, "files,100 13 EMFILE\n");
    assert_eq!(limited("limits.open-files = 200", files.clone()).stdout, "files,100 100\n");
    assert_eq!(bare(&[files]), "files,100 100\n");

    let fill = format!("fill,{path},100000");
    let outcome = limited("limits.file-size = \"64KiB\"", fill.clone());
    assert_eq!(outcome.exit, Some(Exit::Signal(libc::SIGXFSZ)));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 65536);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(limited("limits.file-size = \"1MiB\"", fill.clone()).stdout, format!("{fill} ok\n"));
}

/// The filter's listener refuses what is no door before these are asked, and nothing rests on it.
#[test]
fn behind_the_listener_landlock_and_the_network_namespace_each_hold_a_cell_to_its_doors() {
    let scene = Scene::new();
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [door, other] = listeners.each_ref().map(|one| one.local_addr().unwrap().port().to_string());
    let world = "192.0.2.1";
    let tried = operations(&table![
        "tcp", "127.0.0.1", door => "";
        "tcp", "127.0.0.1", other => "";
        "tcp", world, door => "";
    ]);
    let answers = |second: &'static str| {
        table![
            "tcp", "127.0.0.1", door => "ok";
            "tcp", "127.0.0.1", other => second;
            "tcp", world, door => "ENETUNREACH";
        ]
    };
    let mut plan = scene.plan(&format!("network.allow = [\"localhost:{door}\"]"), &tried);
    deaf(&mut plan);
    let walled = answers(if crate::facts().landlock_abi < 4 { "ECONNREFUSED" } else { "EACCES" });
    compare(&scene.run(&plan).stdout, &walled, "behind Landlock");
    plan.steps.retain(|step| !matches!(step, Step::Landlock { .. } | Step::Verify { .. }));
    compare(&scene.run(&plan).stdout, &answers("ECONNREFUSED"), "behind the network namespace alone");
}
