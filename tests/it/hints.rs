//! What a person is told to do about a step of a launch that failed: for each step, and for each errno that makes a difference.
//!
//! Neighbours: `docs/launch.md` has the errors of each step in tables; `cell::failures` forces them. Never: looks at this host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use toolcell::launch::LaunchError;
use toolcell::sys::Errno;

/// The hint where nothing is known of the host.
fn told(step: &str, object: &str, errno: i32) -> Option<String> {
    LaunchError { step: step.to_owned(), object: object.to_owned(), errno: Errno(errno) }.hint()
}

/// Steps by the document, each with its rows: errnos, and whether there is a hint.
fn documented() -> BTreeMap<String, Vec<(Vec<i32>, bool)>> {
    let document = fs::read_to_string(crate::project().join("docs/launch.md")).unwrap();
    let mut steps: BTreeMap<String, Vec<(Vec<i32>, bool)>> = BTreeMap::new();
    let mut step = None;
    for line in document.lines() {
        if line.starts_with('#') {
            step = line.strip_prefix("### `").and_then(|name| name.strip_suffix('`')).map(str::to_owned);
            steps.extend(step.clone().map(|name| (name, Vec::new())));
        }
        let (Some(step), true) = (&step, line.starts_with("| `E")) else { continue };
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let errnos = cells[0].split(", ").map(|name| number(name.trim_matches('`'))).collect();
        steps.get_mut(step).unwrap().push((errnos, *cells.last().unwrap() != "–"));
    }
    steps
}

/// The number of an errno by its name, as the library has it.
fn number(name: &str) -> i32 {
    (1..200).find(|errno| Errno(*errno).name() == name).unwrap_or_else(|| panic!("{name} is no errno"))
}

#[test]
fn the_document_says_of_each_error_whether_there_is_a_hint() {
    let mut rows = 0;
    for (step, documented) in documented() {
        for (errnos, has_hint) in documented {
            rows += 1;
            for errno in errnos {
                let hint = told(&step, "", errno);
                assert_eq!(hint.is_some(), has_hint, "{step}: {}: {hint:?}", Errno(errno));
            }
        }
    }
    assert!(rows > 50, "only {rows} rows");
}

/// What every step may meet, and every hint of which is the same.
const OF_ANY: [i32; 5] = [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::ENOSYS, libc::EPERM];

#[test]
fn every_step_that_can_fail_says_what_to_do_when_it_is_refused_or_lacks_something() {
    for step in documented().keys().filter(|step| *step != "verify") {
        for errno in OF_ANY {
            assert!(told(step, "", errno).is_some(), "{step}: {}", Errno(errno));
        }
        // A value that a step gives to the kernel itself is not a person's to change.
        assert_eq!(told(step, "", libc::EBADF), None, "{step}");
    }
}

/// Step, object, errno, and words that only this hint has.
const OWN: &[(&str, &str, i32, &str)] = &[
    ("create-cgroup", "/c/x", libc::EACCES, "systemd-run --user --scope -p Delegate=yes"),
    ("create-cgroup", "/c/x", libc::EBUSY, "holds processes of its own"),
    ("create-cgroup", "/c/x", libc::EAGAIN, "cgroup.max.descendants"),
    ("create-cgroup", "/c/x", libc::ENOSPC, "ids for cgroups of memory"),
    ("create-cgroup", "/c/x", libc::ENOENT, "a session or scope that lasts"),
    ("create-cgroup", "/c/cpu.x/memory.max", libc::EINVAL, "`[limits]`"),
    ("create-cgroup", "/c/x/cpu.cfs_quota_us", libc::EINVAL, "`limits.cpu`"),
    ("join-cgroup", "x", libc::ESRCH, "cgrulesengd"),
    ("join-cgroup", "x", libc::ENOSPC, "user.max_cgroup_namespaces"),
    ("reserve-name", "/d/.git", libc::EACCES, "optional = true"),
    ("reserve-name", "/d/.git", libc::ENOENT, "none any more"),
    ("reserve-name", "/d/.git", libc::ENOSPC, "df -i"),
    ("listen-outside", "/r/s", libc::EADDRINUSE, "Leave `at` out"),
    ("listen-outside", "/r/s", libc::EPERM, "/run/user/UID"),
    ("listen-outside", "127.0.0.1:80", libc::EACCES, "below 1024"),
    ("listen-outside", "/r/s", libc::ENOENT, "make the directory for the socket"),
    ("listen-outside", "[::1]:80", libc::EADDRNOTAVAIL, "write `127.0.0.1`"),
    ("make-private-directory", "/tmp/x", libc::EACCES, "XDG_RUNTIME_DIR name a directory"),
    ("make-private-directory", "/tmp/x", libc::ENOSPC, "on another file system"),
    ("clone", "new namespaces", libc::EPERM, "kernel.unprivileged_userns_clone"),
    ("clone", "new namespaces", libc::ENOSPC, "user.max_user_namespaces=15000"),
    ("clone", "new namespaces", libc::EAGAIN, "--jobs"),
    ("clone", "new namespaces", libc::EINVAL, "CONFIG_TIME_NS"),
    ("clone", "launcher", libc::EPIPE, "start toolcell again"),
    ("clone", "the pipes of the cell", libc::EMFILE, "ulimit -n"),
    ("map-ids", "1000", libc::EACCES, "`userns,`"),
    ("isolate-mounts", "/", libc::EPERM, "its owner may not mount"),
    ("loopback-up", "lo", libc::EAFNOSUPPORT, "CONFIG_INET"),
    ("new-session", "session", libc::EDQUOT, "kernel.keys.maxkeys"),
    ("mount-root", "/", libc::ENOSPC, "fs.mount-max"),
    ("mount-root", "/", libc::ENODEV, "CONFIG_TMPFS"),
    ("make-directory", "/a", libc::ENOSPC, "some 8000 names"),
    ("make-directory", "/a", libc::EEXIST, "two things of the cell"),
    ("bind", "/d", libc::ENOENT, "vanished since the plan"),
    ("bind", "/d", libc::ELOOP, "changing the tree under toolcell"),
    ("bind", "/d", libc::EINVAL, "idmapped mounts"),
    ("bind", "/d", libc::EACCES, "root_squash"),
    ("bind", "/d", libc::ENOSYS, "mount_setattr"),
    ("forbid-user-namespaces", "/proc/sys/user/max_user_namespaces", libc::EROFS, "/proc/sys is read-only"),
    ("mount-proc", "/proc", libc::EPERM, "partly masked"),
    ("mount-overlay", "/d", libc::EBUSY, "mounted within this directory"),
    ("mount-overlay", "/d", libc::ENODEV, "makes no overlay"),
    ("hide", "/d/a", libc::ENOENT, "comes and goes"),
    ("hide", "/d/a", libc::ELOOP, "what the profile denies, or a directory on the way"),
    ("hide", "/d/a", libc::EPROTO, "while the cell waited"),
    ("pivot-root", "/", libc::EINVAL, "initramfs"),
    ("open-doors", "port 80", libc::EPIPE, "keeps the doors was ended"),
    ("open-doors", "port 80", libc::EPERM, "takes no address or port"),
    ("open-doors", "fd00::1", libc::EADDRNOTAVAIL, "by its name"),
    ("set-ids", "1", libc::EINVAL, "no number for the payload"),
    ("set-ids", "1", libc::EPERM, "SETUID and SETGID"),
    ("drop-capabilities", "sets", libc::EPERM, "SETPCAP"),
    ("landlock", "ruleset", libc::EOPNOTSUPP, "`lsm=` list"),
    ("landlock", "restrict", libc::E2BIG, "16 Landlock domains"),
    ("landlock", "/d", libc::ENOENT, "is not any more"),
    ("landlock", "/d", libc::EACCES, "nobody in particular"),
    ("seccomp", "filter", libc::EINVAL, "CONFIG_SECCOMP_FILTER"),
    ("seccomp", "filter", libc::ENOMEM, "Seccomp_filters"),
    ("verify", "landlock: TCP bind", libc::EPERM, "start toolcell outside of it"),
    ("verify", "init", libc::ECHILD, "init was killed"),
    ("verify", "listener", libc::EBUSY, "take `allow-unix` out of `[network]`"),
    ("exec", "/bin/x", libc::ENOENT, "the interpreter or loader it names"),
    ("exec", "/bin/x", libc::EPERM, "names both `execve`"),
    ("exec", "/bin/x", libc::EACCES, "`execute = "),
    ("exec", "/bin/x", libc::EAGAIN, "`limits.tasks`"),
    ("exec", "/bin/x", libc::ENOEXEC, "#!/bin/sh"),
    ("exec", "/bin/x", libc::E2BIG, "environment.pass"),
    ("exec", "/bin/x", libc::ETXTBSY, "open for writing"),
    ("exec", "working directory /d", libc::ENOENT, "one that is granted"),
    ("exec", "working directory /d", libc::EACCES, "start toolcell in another one"),
    ("secrets", "/tmp/a", libc::EEXIST, "a file of its own in `into` of `[secrets.NAME]`"),
    ("secrets", "/tmp/a", libc::ENOSPC, "a larger `scratch`"),
    ("secrets", "/tmp/a", libc::EROFS, "in the tool's scratch directory;"),
    ("review", "launcher", libc::ESTALE, "the host changed meanwhile"),
    ("apply", "/d/a", libc::EACCES, "whoever owns the directory"),
    ("apply", "/d/a", libc::ENOSPC, "has no room: make some"),
];

/// Steps that have nothing of their own to say: what refuses them refuses any, or is another's whose hint they share.
const SHARED: &[&str] = &[
    "set-hostname",
    "make-file",
    "make-symlink",
    "make-socket",
    "rewrite-file",
    "mount-scratch",
    "mount-changes",
    "detach-changes",
    "open-places",
    "close-descriptors",
    "set-rlimit",
    "unshare-user",
    "no-new-privileges",
    "hold-processes",
];

#[test]
fn each_error_has_the_hint_that_fits_and_no_other_has_it() {
    let mut hints = BTreeSet::new();
    for (step, object, errno, words) in OWN {
        let hint = told(step, object, *errno).unwrap_or_else(|| panic!("{step}: {}", Errno(*errno)));
        assert!(hint.contains(words), "{step}: {}: {hint}", Errno(*errno));
        // One sentence or a few, not an essay; and an object is the error's to name.
        assert!(hint.len() < 400 && !hint.ends_with('.') && !hint.contains("  "), "{hint}");
        // `clone` and `map-ids` are refused by the same.
        assert!(hints.insert(hint.clone()) || *step == "map-ids", "{step}: {}: {hint}", Errno(*errno));
    }
    let mut looked_at: BTreeSet<&str> = OWN.iter().map(|(step, ..)| *step).collect();
    for step in SHARED {
        assert!(looked_at.insert(step), "`{step}` has a hint of its own");
    }
    let documented = documented();
    for step in documented.keys() {
        assert!(looked_at.contains(step.as_str()), "`{step}` has no hint that is looked at");
    }
    assert!(SHARED.iter().all(|step| documented.contains_key(*step)), "no step of the document");
}
