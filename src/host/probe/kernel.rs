//! One probe a part: the system calls that a launch makes for it, in the same order, as the same user.
//!
//! Neighbours: `host::probe` picks; `probe::child` gives each a process. Never: leaves anything behind.

use std::ffi::CString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Failed, Part, child};
use crate::launch::idmap;
use crate::plan::seccomp;
use crate::plan::step::Attempts;
use crate::policy::{Observe, Syscalls};
use crate::sys::mount::{self, Beneath, attr};
use crate::sys::netlink::Routes;
use crate::sys::{Errno, capability, descriptor, filter, identity, landlock, network, process, tree};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    /// Cells of root make their namespaces without a user namespace, and enter one of the payload's at the end.
    pub(super) root: bool,
    /// The payload's user and group id.
    pub(super) payload: (u32, u32),
}

/// Detail, or the call that failed.
type Found = Result<String, Failed>;

/// An address of a host elsewhere on the own loopback, and a socket that listens at a port for the privileged.
fn doors() -> Found {
    network::loopback_up().map_err(failed("ioctl", "SIOCSIFFLAGS lo"))?;
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let added = Routes::open().and_then(|routes| routes.add_to_loopback(address));
    added.map_err(failed("RTM_NEWADDR", "lo"))?;
    let listening = TcpListener::bind((address, 443)).map_err(Errno::from);
    listening.map(|_socket| "addresses and ports of its own".to_owned()).map_err(failed("bind", "port 443"))
}

fn failed(call: &str, object: &str) -> impl FnOnce(Errno) -> Failed {
    move |errno| Failed::new(call, object, errno)
}

pub(super) fn probe(caller: Caller, part: Part) -> Found {
    match part {
        Part::UserNamespace => user_namespace(caller),
        Part::MountNamespace => namespaced(caller, libc::CLONE_NEWNS, "CLONE_NEWNS", mounts),
        Part::IdmappedMounts => forked(|| idmapped(caller)),
        Part::Overlay => namespaced(caller, libc::CLONE_NEWNS, "CLONE_NEWNS", || {
            overlay(caller, caller.root)?;
            Ok(if caller.root { "over an idmapped mount of /" } else { "with attributes of the user's" }
                .to_owned())
        }),
        Part::OverlayRemovals => namespaced(caller, libc::CLONE_NEWNS, "CLONE_NEWNS", || removals(caller)),
        Part::PidNamespace => {
            namespaced(caller, libc::CLONE_NEWPID | libc::CLONE_NEWNS, "CLONE_NEWPID", proc)
        }
        Part::NetNamespace => namespaced(caller, libc::CLONE_NEWNET, "CLONE_NEWNET", || {
            network::loopback_up().map_err(failed("ioctl", "SIOCSIFFLAGS lo"))?;
            Ok("lo is up".to_owned())
        }),
        Part::Doors => namespaced(caller, libc::CLONE_NEWNET, "CLONE_NEWNET", doors),
        Part::OtherNamespaces => other_namespaces(caller),
        Part::Capabilities => namespaced(caller, 0, "", || {
            capability::drop_all().map_err(failed("capset", ""))?;
            Ok("all sets empty, securebits locked".to_owned())
        }),
        Part::Landlock => landlocked(),
        Part::Seccomp => filtered(),
        Part::Openat2 => forked(|| {
            let (cwd, flags) = (descriptor::working_directory(), libc::O_PATH | libc::O_DIRECTORY);
            mount::open_without_links(cwd, c"/", flags, 0, Beneath::Plain).map_err(failed("openat2", "/"))?;
            Ok(String::new())
        }),
        Part::CloseRange => forked(|| {
            descriptor::close_from(libc::c_int::MAX).map_err(failed("close_range", ""))?;
            Ok(String::new())
        }),
        Part::Pidfd => forked(|| {
            let own = process::pidfd_open(process::pid().cast_signed()).map_err(failed("pidfd_open", ""))?;
            process::pidfd_send_signal(own.as_fd(), 0).map_err(failed("pidfd_send_signal", ""))?;
            Ok(String::new())
        }),
        // `host::cgroups` has looked already; a launch tries it.
        Part::Cgroup => Ok(String::new()),
    }
}

fn forked(work: impl FnOnce() -> Found) -> Found {
    child::fork(work).map_err(failed("fork", ""))?
}

/// In new namespaces, which the caller may make itself as root, and through a user namespace otherwise.
fn namespaced(caller: Caller, namespaces: libc::c_int, name: &str, work: impl FnOnce() -> Found) -> Found {
    if caller.root && namespaces == 0 {
        return forked(work);
    }
    let (flags, object) = match (caller.root, name) {
        (true, _) => (namespaces, name.to_owned()),
        (false, "") => (libc::CLONE_NEWUSER, "CLONE_NEWUSER".to_owned()),
        (false, _) => (namespaces | libc::CLONE_NEWUSER, format!("CLONE_NEWUSER | {name}")),
    };
    let inside = || {
        if !caller.root {
            map_ids(caller.payload)?;
        }
        work()
    };
    child::clone(flags, inside).map_err(failed("clone3", &object))?
}

fn write(path: &str, content: &str) -> Result<(), Failed> {
    fs::write(path, content).map_err(|error| Failed::new("write", path, Errno::from(error)))
}

fn map_ids((uid, gid): (u32, u32)) -> Result<(), Failed> {
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("1000 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("1000 {gid} 1"))
}

fn user_namespace(caller: Caller) -> Found {
    let inside = || {
        map_ids(caller.payload)?;
        write("/proc/sys/user/max_user_namespaces", "0")?;
        Ok(String::new())
    };
    if !caller.root {
        return child::clone(libc::CLONE_NEWUSER, inside).map_err(failed("clone3", "CLONE_NEWUSER"))?;
    }
    forked(|| {
        let (uid, gid) = caller.payload;
        identity::become_user(uid, gid).map_err(failed("setresuid", &uid.to_string()))?;
        // The files in /proc/self belong to root while the process is not dumpable.
        process::prctl(libc::PR_SET_DUMPABLE, 1).map_err(failed("prctl", "PR_SET_DUMPABLE"))?;
        process::unshare(libc::CLONE_NEWUSER).map_err(failed("unshare", "CLONE_NEWUSER"))?;
        inside()
    })
}

fn mounts() -> Found {
    mount::make_slave().map_err(failed("mount", "MS_REC | MS_SLAVE"))?;
    let root = mount::new_filesystem_by_call(c"tmpfs", &[(c"mode", c"0755")], attr::NOSUID | attr::NODEV)
        .map_err(|(call, errno)| Failed::new(call, "tmpfs", errno))?;
    let open = |path| {
        mount::open_without_links(descriptor::working_directory(), path, libc::O_PATH, 0, Beneath::Plain)
    };
    let old = open(c"/").map_err(failed("openat2", "/"))?;
    mount::attach(root.as_fd(), old.as_fd()).map_err(failed("move_mount", "tmpfs"))?;
    let device = open(c"/dev/null").map_err(failed("openat2", "/dev/null"))?;
    let tree = mount::clone_tree(device.as_fd()).map_err(failed("open_tree", "/dev/null"))?;
    mount::set_attributes(tree.as_fd(), attr::RDONLY | attr::NOSUID | attr::NOEXEC, true, None)
        .map_err(failed("mount_setattr", "/dev/null"))?;
    mount::pivot_into(root.as_fd()).map_err(failed("pivot_root", "tmpfs"))?;
    Ok("tmpfs, read-only binds, pivot_root".to_owned())
}

/// The file systems of `/` and of temporary files stand for those of the data that will be granted: tmpfs learned it
/// last.
fn idmapped(caller: Caller) -> Found {
    let namespace = idmap::namespace((0, 0), caller.payload).map_err(failed("clone3", "CLONE_NEWUSER"))?;
    let map = |path: &Path| {
        let cwd = descriptor::working_directory();
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL));
        let name = name.map_err(failed("openat2", ""))?;
        let shown = path.to_string_lossy();
        let place = mount::open_without_links(cwd, &name, libc::O_PATH, 0, Beneath::Plain);
        let tree = mount::clone_tree(place.map_err(failed("openat2", &shown))?.as_fd());
        let tree = tree.map_err(failed("open_tree", &shown))?;
        mount::set_attributes(tree.as_fd(), 0, false, Some(namespace.as_fd()))
            .map_err(failed("mount_setattr", &format!("MOUNT_ATTR_IDMAP on {shown}")))
    };
    map(Path::new("/"))?;
    let temporary = std::env::temp_dir();
    Ok(match map(&temporary) {
        Err(refused) if refused.errno == Errno(libc::EINVAL) => {
            format!("on the file system of /, but not on that of {}", temporary.display())
        }
        _ => "on the file system of /".to_owned(),
    })
}

/// Over a directory in memory, in which there is `host/within`, or over `/`, whose file system stands for that of the data that will be
/// granted.
fn overlay(caller: Caller, over_host: bool) -> Result<OwnedFd, Failed> {
    mount::make_slave().map_err(failed("mount", "MS_REC | MS_SLAVE"))?;
    let memory = mount::new_filesystem_by_call(c"tmpfs", &[(c"mode", c"0755")], attr::NOSUID | attr::NODEV)
        .map_err(|(call, errno)| Failed::new(call, "tmpfs", errno))?;
    let open = |from: BorrowedFd<'_>, path| {
        let found =
            mount::open_without_links(from, path, libc::O_PATH | libc::O_DIRECTORY, 0, Beneath::Plain);
        found.map_err(failed("openat2", &path.to_string_lossy()))
    };
    let top = open(descriptor::working_directory(), c"/")?;
    let lower = match over_host {
        false => None,
        true => {
            let map = idmap::namespace((0, 0), caller.payload).map_err(failed("clone3", "CLONE_NEWUSER"))?;
            let tree = mount::clone_mount(top.as_fd()).map_err(failed("open_tree", "/"))?;
            mount::set_attributes(tree.as_fd(), attr::RDONLY, false, Some(map.as_fd()))
                .map_err(failed("mount_setattr", "MOUNT_ATTR_IDMAP on /"))?;
            Some(tree)
        }
    };
    mount::attach(memory.as_fd(), top.as_fd()).map_err(failed("move_mount", "tmpfs"))?;
    for name in [c"lower", c"upper", c"work", c"lower/host", c"lower/host/within"] {
        mount::make_directory(memory.as_fd(), name, 0o700)
            .map_err(failed("mkdirat", &name.to_string_lossy()))?;
    }
    if let Some(tree) = lower {
        let place = open(memory.as_fd(), c"lower")?;
        mount::attach(tree.as_fd(), place.as_fd()).map_err(failed("move_mount", "/"))?;
    }
    let [lower, upper, work] = [c"lower", c"upper", c"work"].map(|name| open(memory.as_fd(), name));
    let (lower, upper, work) = (lower?, upper?, work?);
    crate::launch::overlay::overlay(lower.as_fd(), upper.as_fd(), work.as_fd(), !caller.root, attr::NOSUID)
        .map_err(failed("fsopen", "overlay"))
}

/// What was removed of a directory is noted in it, which then is not empty, and takes another note to be gone.
fn removals(caller: Caller) -> Found {
    let overlay = overlay(caller, false)?;
    for name in [c"host/within", c"host"] {
        tree::remove(overlay.as_fd(), name, true)
            .map_err(failed("unlinkat", &format!("AT_REMOVEDIR {} in an overlay", name.to_string_lossy())))?;
    }
    Ok(String::new())
}

fn proc() -> Found {
    mount::make_slave().map_err(failed("mount", "MS_REC | MS_SLAVE"))?;
    let options = [(c"subset", c"pid"), (c"hidepid", c"invisible")];
    mount::new_filesystem_by_call(c"proc", &options, attr::NOSUID | attr::NODEV | attr::NOEXEC)
        .map_err(|(call, errno)| Failed::new(call, "proc", errno))?;
    Ok("a /proc of its own, subset=pid".to_owned())
}

fn other_namespaces(caller: Caller) -> Found {
    let all = [
        (libc::CLONE_NEWIPC, "CLONE_NEWIPC"),
        (libc::CLONE_NEWUTS, "CLONE_NEWUTS"),
        (libc::CLONE_NEWTIME, "CLONE_NEWTIME"),
        (libc::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"),
    ];
    for (flag, name) in all {
        namespaced(caller, flag, name, || {
            if flag == libc::CLONE_NEWUTS {
                process::sethostname("cell").map_err(failed("sethostname", ""))?;
            }
            Ok(String::new())
        })?;
    }
    Ok("ipc, uts, time, cgroup".to_owned())
}

/// Restricted with no rule at all, the root directory must not open any more.
fn landlocked() -> Found {
    let abi = landlock::version().map_err(failed("landlock_create_ruleset", "version"))?;
    forked(|| {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("prctl", "PR_SET_NO_NEW_PRIVS"))?;
        let ruleset = landlock::create_ruleset(abi).map_err(failed("landlock_create_ruleset", ""))?;
        landlock::restrict_self(ruleset.as_fd()).map_err(failed("landlock_restrict_self", ""))?;
        match fs::read_dir(Path::new("/")) {
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(format!("ABI {abi}")),
            Err(error) => Err(Failed::new("openat", "/", Errno::from(error))),
            Ok(_) => Err(Failed::new("landlock_restrict_self", "had no effect", Errno(libc::EPROTO))),
        }
    })
}

fn filtered() -> Found {
    let program = seccomp::compile(&Syscalls::default(), false).map_err(|_unknown| Errno(libc::EINVAL));
    let program = program.map_err(failed("seccomp", "the default filter"))?;
    let observing = filter::assemble(&seccomp::observing(&program, Observe::Calls, Attempts::Untold));
    let program = filter::assemble(&program);
    let no_privileges =
        || process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("prctl", "PR_SET_NO_NEW_PRIVS"));
    // A cell does without the listener where there can be none, and its receipt says so.
    let told = forked(|| {
        no_privileges()?;
        let made = filter::install_observing(&observing).map(drop);
        made.map_err(failed("seccomp", "SECCOMP_FILTER_FLAG_NEW_LISTENER"))?;
        Ok(String::new())
    });
    forked(|| {
        no_privileges()?;
        filter::install(&program).map_err(failed("seccomp", "SECCOMP_SET_MODE_FILTER"))?;
        let refusals = match &told {
            Ok(_) => "refusals are told".to_owned(),
            Err(none) => format!("refusals are not told: {} {}: {}", none.call, none.object, none.errno),
        };
        match process::unshare(0) {
            Err(Errno(libc::EPERM)) => Ok(format!("filter of {} instructions, {refusals}", program.len())),
            _ => Err(Failed::new("seccomp", "had no effect", Errno(libc::EPROTO))),
        }
    })
}
