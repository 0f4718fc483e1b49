//! The steps that every plan with namespaces begins with, whatever its policy.
//!
//! Neighbours: `plan::build` puts the rest behind them; `launch::early` runs them while it does. Never: depends on more
//! than who the user is and whose the network.

use std::path::PathBuf;

use super::Plan;
use super::build::INSIDE;
use super::step::{Access, CANARY, EMPTY_DIRECTORY, EMPTY_FILE, Kind, Namespace, OWN, Step};
use crate::policy::Floor;
pub use crate::policy::mode::Mode;
use crate::policy::mode::NAMES;

/// The nodes of the cell's `/dev`.
pub(super) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Files of `/etc` that say nothing of the host; where one of the host's is granted, it is mounted on it.
const MADE: [(&str, &str); 6] = [
    (
        "/etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\ncell:x:1000:1000:cell:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    ),
    ("/etc/group", "root:x:0:\ncell:x:1000:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/hostname", "cell\n"),
    ("/etc/resolv.conf", ""),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// The clone and what every cell of this user begins with, whatever else its policy says: an init can be at work on it while the
/// rest of the plan is still being made. One that is made without knowing the policy has a network of its own.
#[must_use]
pub fn prelude(root: bool, payload: (u32, u32), mode: Mode) -> Plan {
    let namespaces = namespaces(root).into_iter().filter(|kind| !(mode.is_host() && *kind == Namespace::Net));
    let mut steps = vec![Step::Clone { namespaces: namespaces.collect() }];
    if !root {
        let (outside_uid, outside_gid) = payload;
        steps.push(Step::MapIds { inside: INSIDE, outside_uid, outside_gid });
        steps.push(Step::ForbidUserNamespaces);
    }
    steps.push(Step::IsolateMounts);
    if !mode.is_host() {
        steps.push(Step::LoopbackUp);
    }
    steps.extend([Step::SetHostname { name: "cell".to_owned() }, Step::NewSession, Step::MountRoot]);
    let directories =
        [(OWN, 0o711), (EMPTY_DIRECTORY, 0), ("/dev", 0o755), ("/etc", 0o755), ("/proc", 0o755)];
    steps.extend(directories.map(|(path, mode)| Step::MakeDirectory { path: PathBuf::from(path), mode }));
    file(&mut steps, EMPTY_FILE, "", 0);
    file(&mut steps, CANARY, "", 0o444);
    for name in DEVICES {
        let path = PathBuf::from("/dev").join(name);
        file(&mut steps, &path.to_string_lossy(), "", 0);
        steps.push(Step::Bind {
            source: path.clone(),
            target: path,
            kind: Kind::File,
            access: Access::default(),
            devices: true,
            owner: None,
        });
    }
    for (path, content) in MADE.into_iter().filter(|(path, _)| !(mode.is_host() && NAMES.contains(path))) {
        file(&mut steps, path, content, 0o444);
    }
    steps.push(Step::MountProc);
    Plan { floor: Floor::Full, steps }
}

/// Those that the clone makes. Started by root, the user namespace comes last and owns none of the others; else it must come first.
#[must_use]
pub fn namespaces(root: bool) -> Vec<Namespace> {
    let mut list = vec![
        Namespace::Mount,
        Namespace::Pid,
        Namespace::Net,
        Namespace::Ipc,
        Namespace::Uts,
        Namespace::Time,
    ];
    if !root {
        list.insert(0, Namespace::User);
    }
    list
}

pub(super) fn file(steps: &mut Vec<Step>, path: &str, content: &str, mode: u32) {
    steps.push(Step::MakeFile { path: PathBuf::from(path), content: content.to_owned(), mode });
}
