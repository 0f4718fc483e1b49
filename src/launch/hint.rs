//! What to do about a step of a launch that failed, as far as the step, its object and the errno tell.
//!
//! Neighbours: `docs/launch.md` has the same in tables; `host::probe` says more where it knows the host to be the cause. Never: says of
//! a step what is another's; guesses where it is a defect of toolcell.

use libc::{
    E2BIG, EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, EBUSY, ECHILD, ECONNRESET, EDQUOT,
    EEXIST, EINVAL, EISDIR, ELOOP, EMFILE, EMSGSIZE, ENFILE, ENODEV, ENOENT, ENOEXEC, ENOMEM, ENOSPC, ENOSYS,
    ENOTDIR, EOPNOTSUPP, EPERM, EPIPE, EPROTO, EROFS, ESRCH, ESTALE, ETOOMANYREFS, ETXTBSY, EUSERS,
};

/// How `exec` calls the working directory when it cannot go there.
pub(super) const WORKING_DIRECTORY: &str = "working directory ";

/// The hint, if there is one.
pub(super) fn hint(step: &str, object: &str, errno: i32) -> Option<&'static str> {
    match step {
        // The step succeeded, and what it made is not there: a defect of toolcell or of the kernel.
        "verify" => verify(errno),
        // Init and the supervisor are one program, and their messages nobody else's.
        "secrets" => secrets(errno),
        "review" | "apply" => review(step, errno),
        _ => in_the_launcher(step, object, errno)
            .or_else(|| mounts(step, errno))
            .or_else(|| others(step, object, errno))
            .or_else(|| of_any(errno)),
    }
}

fn verify(errno: i32) -> Option<&'static str> {
    Some(match errno {
        EBUSY => {
            "a listener of somebody else's filter stands above toolcell, as in some containers, and then no socket can be handed to a \
             cell: start toolcell outside of it, or take `allow-unix` out of `[network]`"
        }
        EPERM => {
            "something around toolcell, such as a container's filter, refuses calls by which a cell's layers are looked at: start toolcell \
             outside of it"
        }
        ECHILD => {
            "init was killed: by the kernel for want of memory (then `limits.memory` of the profile, or this host's own, is too small for \
             a cell), by a filter around toolcell that kills, or by somebody; the first two stand in `sudo dmesg | tail`"
        }
        _ => return None,
    })
}

fn secrets(errno: i32) -> Option<&'static str> {
    Some(match errno {
        EEXIST | ENOTDIR | EISDIR => {
            "something of the cell or of another secret has that place already: give the secret a file of its own in \
             `into` of `[secrets.NAME]`"
        }
        ENOSPC => {
            "the tool's scratch directory has no room for the file of the secret: give its profile a larger `scratch`"
        }
        EPROTO | EMSGSIZE | EPIPE => return None,
        _ => {
            "the file of a secret must be one that can be made in the tool's scratch directory; see `into` in \
             `[secrets.NAME]`"
        }
    })
}

fn review(step: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        (_, ESTALE) => {
            "the host changed meanwhile what the call was to change; look at it, and make the call again"
        }
        ("apply", EACCES | EPERM | EROFS) => {
            "whoever owns the directory that was granted may not change this; grant a narrower one"
        }
        ("apply", ENOSPC | EDQUOT) => {
            "the file system of the directory that was granted has no room: make some, and make the call again"
        }
        (_, EPIPE) => {
            "the process that starts cells is gone, and no other takes its place: start toolcell again"
        }
        _ => return None,
    })
}

fn in_the_launcher(step: &str, object: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        ("reserve-name", EACCES | EPERM | EROFS) => {
            "the name must not come to exist, by a `deny` of the profile or because the host would run it, and toolcell may \
             not make a place for it: make its directory writable, grant a narrower one, mark the `deny` as `optional = true`, \
             or leave the name to the tool: `write = [{ path = \"…\", optional = true }]` in `[filesystem]`"
        }
        ("reserve-name", ENOENT | ENOTDIR) => {
            "what is above the name was a directory when the plan was made, and is none any more; look at the grant of the \
             profile that it lies in"
        }
        ("reserve-name", ENOSPC | EDQUOT) => {
            "the file system has no room for an empty directory, which keeps the name from being made: free some space or inodes \
             (`df`, `df -i`), or this user's quota"
        }
        ("listen-outside", EADDRINUSE) => {
            "somebody listens there already, or what is there is no socket: one cell at a time can have a place. Leave `at` out of \
             `listen`, so that each gets a port of its own; or let all calls share one cell by `state = \"session\"`"
        }
        ("listen-outside", EPERM) => {
            "give the path of a socket in a directory that is this user's, and in which no other user can write, such as \
             `/run/user/UID`"
        }
        ("listen-outside", EACCES) => {
            "this user may not listen there: ports below 1024 are root's, and the directory of a socket must be one to write to"
        }
        ("listen-outside", ENOENT | ENOTDIR) => "make the directory for the socket first",
        ("listen-outside", EADDRNOTAVAIL | EAFNOSUPPORT) => {
            "this host has no such address on its loopback: write `127.0.0.1`"
        }
        ("make-private-directory", EACCES | EPERM | EROFS | ENOENT | ENOTDIR) => {
            "without namespaces a cell has a directory on the host, and this one cannot be made: let XDG_RUNTIME_DIR name a \
             directory of this user's that can be written to; without it, and for root, it is /tmp"
        }
        ("make-private-directory", ENOSPC | EDQUOT) => {
            "the cell's scratch directory lies on the host without namespaces, and there is no room: free some, or let \
             XDG_RUNTIME_DIR name a directory on another file system"
        }
        ("clone", EPIPE) => {
            "the process that starts cells is gone, and no other takes its place: start toolcell again"
        }
        ("clone", EAGAIN) => {
            "this user, or a cgroup above, has as many processes as it may: see `ulimit -u` and `pids.max`, or let fewer calls \
             run at once (`--jobs`)"
        }
        ("clone", EINVAL) => {
            "this kernel lacks one of the namespaces of a cell: Linux 5.6 and newer have all, if they are built with CONFIG_NAMESPACES \
             and CONFIG_TIME_NS; `toolcell doctor` names it"
        }
        ("create-cgroup" | "join-cgroup", EACCES | EPERM | EROFS) => {
            "this user may not make cgroups here; start toolcell in a delegated scope: \
             `systemd-run --user --scope -p Delegate=yes -- toolcell …`, or accept fewer limits with `--floor no-cgroup`, or with \
             `floor = \"no-cgroup\"` in the profile"
        }
        ("create-cgroup", EBUSY) => {
            "the cgroup holds processes of its own, so it cannot have children with limits; start toolcell in a scope \
             of its own: `systemd-run --user --scope -p Delegate=yes -- toolcell …`"
        }
        ("create-cgroup", EAGAIN) => {
            "this cgroup, or one above, may have no more below it: see `cgroup.max.descendants` and `cgroup.max.depth` there"
        }
        ("create-cgroup", ENOSPC) => {
            "the kernel has no more ids for cgroups of memory (65535 of them): those of cgroups that are gone are free when their \
             cached pages are (as root: `sysctl -w vm.drop_caches=1`)"
        }
        ("create-cgroup", ENOENT | ENODEV) => {
            "the cgroup that toolcell was started in is gone, or lacks a controller that it had: start toolcell again, in a session \
             or scope that lasts"
        }
        ("create-cgroup", EINVAL)
            if object.rsplit('/').next().is_some_and(|file| file.starts_with("cpu.")) =>
        {
            "the kernel takes no such share of the processors: see `limits.cpu` of the profile, of which it takes a hundredth and more"
        }
        ("create-cgroup", EINVAL) => "the kernel does not take this value: see `[limits]` of the profile",
        ("join-cgroup", ESRCH) => {
            "something moved init out of the cgroup that was made for it: a service that sorts processes into cgroups, such as \
             cgrulesengd, must leave toolcell's alone"
        }
        ("join-cgroup", ENOSPC | EUSERS) => {
            "as many cgroup namespaces as are allowed exist already (as root: `sysctl -w user.max_cgroup_namespaces=15000`)"
        }
        _ => return None,
    })
}

fn mounts(step: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        ("mount-overlay", EBUSY) => {
            "something is mounted within this directory, and an overlay would show what lies beneath it: grant the directories \
             beside it one by one, or set `writes = \"direct\"` in `[filesystem]`"
        }
        ("mount-overlay", EINVAL | ENODEV | EOPNOTSUPP | EPERM) => {
            "this kernel makes no overlay here for this user: that takes Linux 5.11, for cells of root 5.19, and a file system \
             that can be the lower layer of one; see `toolcell doctor`, or set `writes = \"direct\"` in `[filesystem]`"
        }
        ("bind" | "mount-overlay", ENOENT | ENOTDIR) => {
            "the path vanished since the plan was made, or became something else; check the grants of the profile"
        }
        ("bind" | "mount-overlay", ELOOP) => {
            "a directory on the way became a symbolic link since the plan was made; somebody is changing the tree \
             under toolcell. Look at it before you start again"
        }
        ("bind", EINVAL) => {
            "the file system of this path cannot map file owners (idmapped mounts): ext4, xfs and btrfs can, tmpfs since \
             Linux 6.3, NFS and 9p cannot. Keep the data on one that can, or start toolcell as an ordinary user who \
             may use the path"
        }
        ("bind" | "mount-overlay", EACCES) => {
            "the user who started toolcell may not get to this path; root may not where it is another user's FUSE (without `allow_root`) or \
             NFS (`root_squash`). Start toolcell as the user whose files they are"
        }
        ("bind", ENOSYS) => "this needs Linux 5.12 or newer (mount_setattr)",
        ("forbid-user-namespaces", EROFS) => {
            "/proc/sys is read-only (as containers have it), so the cell cannot be kept from namespaces of its own; run toolcell \
             outside the container, or give the container a /proc/sys that can be written to"
        }
        ("mount-proc", EPERM) => {
            "the host's /proc is partly masked (as containers do), so the kernel refuses a fresh one; run toolcell \
             outside the container, or give the container an unmasked /proc"
        }
        ("hide", ENOENT | ENOTDIR) => {
            "what the profile denies went away since the plan was made: make the call again; if it comes and goes, mark the `deny` \
             as `optional = true`"
        }
        ("hide", ELOOP) => {
            "what the profile denies, or a directory on the way, became a symbolic link since the plan was made; somebody is \
             changing the tree. Look at it before you start again"
        }
        ("hide", EPROTO) => {
            "the host put something else in the place of what the profile denies, while the cell waited for its call: make the call \
             again"
        }
        ("make-directory" | "make-file" | "make-symlink" | "make-socket", EEXIST) => {
            "two things of the cell have this place: a grant of the profile names what every cell has there, or what a door does; \
             `toolcell profile explain PROFILE -- COMMAND` shows both"
        }
        ("make-directory" | "make-file" | "rewrite-file" | "make-symlink" | "make-socket", ENOSPC) => {
            "the private root has room for some 8000 names, and the grants of the profile need more: grant the directories above them"
        }
        ("pivot-root", EINVAL) => {
            "the kernel changes no root here: this process still has the first root of the boot (an initramfs), or its mounts are \
             shared in a way that its container fixed; start toolcell from a system that was switched to a root of its own"
        }
        (
            "isolate-mounts" | "mount-root" | "mount-scratch" | "mount-proc" | "mount-changes"
            | "mount-overlay" | "bind" | "hide",
            ENOSPC,
        ) => {
            "a mount namespace may have no more mounts: grant fewer paths, or the directories above them (as root: \
             `sysctl -w fs.mount-max=100000`)"
        }
        ("mount-root" | "mount-scratch" | "mount-changes" | "mount-proc", ENODEV) => {
            "this kernel is built without tmpfs (CONFIG_TMPFS) or proc (CONFIG_PROC_FS); boot one of a distribution"
        }
        ("isolate-mounts" | "mount-root" | "mount-scratch" | "pivot-root", EACCES | EPERM) => {
            "the namespace could be made, and its owner may not mount in it: in a container, its seccomp or AppArmor profile refuses \
             that; on Ubuntu 23.10 and newer give toolcell's own path an AppArmor profile with `userns,`. `toolcell doctor` names it"
        }
        _ => return None,
    })
}

fn others(step: &str, object: &str, errno: i32) -> Option<&'static str> {
    Some(match (step, errno) {
        ("clone" | "unshare-user", ENOSPC | EUSERS) => {
            "this host allows no more namespaces of a kind: `sysctl user.max_user_namespaces`, and its neighbours \
             `user.max_…_namespaces`, must be above 0 (as root: `sysctl -w user.max_user_namespaces=15000`)"
        }
        ("clone" | "unshare-user" | "map-ids", EPERM | EACCES) => {
            "this host keeps unprivileged processes from making namespaces. In a container: its seccomp or AppArmor \
             profile refuses them. On Ubuntu 23.10 and newer: give toolcell's own path an AppArmor profile with \
             `userns,`. On Debian with `kernel.unprivileged_userns_clone`: set it to 1. `toolcell doctor` names it"
        }
        ("loopback-up", EAFNOSUPPORT | ENODEV) => {
            "this kernel is built without IPv4 (CONFIG_INET), which a cell's own loopback needs; boot one of a distribution"
        }
        ("new-session", EDQUOT) => {
            "this user has as many keyrings as are allowed: see `/proc/key-users`, and raise it (as root: \
             `sysctl -w kernel.keys.maxkeys=2000`)"
        }
        ("set-ids", EINVAL) => {
            "root here is root of a user namespace, as in a container without privileges, and that has no number for the payload's \
             own user: start toolcell as an ordinary user of the container, or outside of it"
        }
        ("set-ids", EPERM) => {
            "root here may not become somebody else: give the container the capabilities SETUID and SETGID, or start toolcell as an \
             ordinary user"
        }
        ("drop-capabilities", EPERM) => {
            "root here may not lock what it gives up: give the container the capability SETPCAP, or start toolcell as an ordinary user"
        }
        ("landlock" | "hold-processes", ENOSYS | EOPNOTSUPP) => {
            "Landlock must be built in and named in the kernel's `lsm=` list; see `toolcell doctor`"
        }
        ("landlock", E2BIG) => {
            "16 Landlock domains stand above this one already, and the kernel takes no more: start toolcell from a process that is not \
             confined so often"
        }
        ("landlock", ENOENT | ENOTDIR) => {
            "the path was there when the plan was made, and is not any more; check the grants of the profile"
        }
        ("landlock", EACCES) => {
            "the payload's user may not get to this path. Without namespaces that is nobody in particular if root started toolcell: \
             start it as the user whose files they are, or let everybody enter the directories above"
        }
        ("seccomp", ENOMEM) => {
            "the filters that stand above toolcell leave no room for its own: start it from a process with fewer \
             (`grep Seccomp_filters /proc/self/status`)"
        }
        ("seccomp" | "no-new-privileges", EINVAL | ENOSYS | EPERM | EACCES) => {
            "the kernel must have CONFIG_SECCOMP_FILTER, and nothing around toolcell, such as a container, may refuse \
             seccomp(2); see `toolcell doctor`"
        }
        ("open-doors", EPIPE | ECONNRESET) => {
            "the process that keeps the doors was ended, and no other takes its place: start toolcell again"
        }
        ("open-doors", EPERM | EACCES) => {
            "the cell's own network namespace takes no address or port from its init: in a container, its seccomp or AppArmor \
             profile refuses that; see `toolcell doctor`"
        }
        ("open-doors", EADDRNOTAVAIL | EAFNOSUPPORT | EOPNOTSUPP) => {
            "this kernel lets no address of that family be put on a loopback; allow the host by its name"
        }
        ("exec", ENOENT | ENOTDIR) if object.starts_with(WORKING_DIRECTORY) => {
            "the directory in which toolcell was started is not visible in the cell: grant it in `[filesystem]`, or start toolcell in \
             one that is granted"
        }
        ("exec", EACCES) if object.starts_with(WORKING_DIRECTORY) => {
            "the payload's user may not enter the directory in which toolcell was started: start toolcell in another one, or as the \
             user whose it is"
        }
        ("exec", ENOENT | ENOTDIR) => {
            "the program, or the interpreter or loader it names, is not visible in the cell; `toolcell profile explain \
             PROFILE -- COMMAND` shows what is"
        }
        ("exec", EACCES) => {
            "the program is not executable where it lies; `execute = [\"…\"]` in `[filesystem]` grants that, \
             `read` and `write` do not"
        }
        ("exec", EPERM) => {
            "the payload is started behind its own filter, and that refuses it: `deny` of the profile's `[syscalls]` names both `execve` \
             and `execveat`; take one of them out"
        }
        ("exec", EAGAIN) => {
            "the cell, or without a cgroup its user, has as many processes as it may: see `limits.tasks` of the profile and `ulimit -u`"
        }
        ("exec", ENOEXEC) => {
            "the file is no program for this machine: a script needs a first line such as `#!/bin/sh`, and a program must be built for \
             this processor"
        }
        ("exec", E2BIG) => {
            "arguments and environment are longer than the kernel takes: pass fewer variables (`environment.pass` of the profile), or shorter arguments"
        }
        ("exec", ETXTBSY) => "somebody has the program open for writing: start it again when it is written",
        _ => return None,
    })
}

/// What any step may meet.
const fn of_any(errno: i32) -> Option<&'static str> {
    Some(match errno {
        ENOMEM => {
            "the kernel has no memory for it: this host has none left, or the cgroup that toolcell is in; a cell's own limit is \
             `limits.memory` of its profile"
        }
        EMFILE | ETOOMANYREFS => {
            "toolcell may have no more open files: raise `ulimit -n`, or let fewer calls run at once (`--jobs`)"
        }
        ENFILE => "this host may have no more open files (as root: `sysctl -w fs.file-max=1000000`)",
        ENOSYS => {
            "this kernel is older than Linux 5.12, or something around toolcell, such as a container's seccomp filter, hides a call of \
             this step; `toolcell doctor` says which"
        }
        EPERM | EACCES => {
            "Linux alone hardly refuses this step: it is something around toolcell that does, such as a container's seccomp filter, or \
             a security module, whose word may stand in `sudo dmesg | tail`; see `toolcell doctor`"
        }
        _ => return None,
    })
}
