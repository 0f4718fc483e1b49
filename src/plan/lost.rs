//! Which promises of a policy a host cannot keep, by the part that it lacks. Pure.
//!
//! Neighbours: takes what `host::probe` found; `commands::profile` words it. Never: looks at the host; lets a loss pass
//! that SECURITY.md tells of.

use serde::Serialize;

use crate::host::probe::{Failed, Part, State};
use crate::outcome::Limit;
use crate::plan::rung::SCOPED;
use crate::plan::seccomp;
use crate::policy::mode::HOST;
use crate::policy::{Floor, Policy, limits};

/// One promise that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// What a host with every part keeps.
    pub promise: &'static str,
    /// The line of the profile that it rests on, if it has one.
    pub rule: Option<String>,
    /// What holds here in its place.
    pub instead: String,
}

/// A part that the host lacks, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub layer: &'static str,
    /// The call that failed, if one did.
    pub failed: Option<Failed>,
    /// Why it is missing.
    pub cause: String,
    /// What to type.
    pub fix: String,
    /// Empty when another part that is missing has lost the same.
    pub lost: Vec<Lost>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Losses {
    /// The strongest rung that the host gives this policy.
    pub reaches: Option<Floor>,
    /// In the order of the parts.
    pub missing: Vec<Missing>,
}

/// Without them there is no private root.
const NAMESPACES: [Part; 5] = [
    Part::UserNamespace,
    Part::MountNamespace,
    Part::PidNamespace,
    Part::NetNamespace,
    Part::OtherNamespaces,
];

/// What this policy loses on a host with these parts and this ABI of Landlock. `refused` is why there is no plan for it on the rung
/// without namespaces, where that was asked.
#[must_use]
pub fn losses(policy: &Policy, parts: &[(Part, State)], landlock_abi: u32, refused: Option<&str>) -> Losses {
    // What a policy has no use for, it does not lose.
    let needed = |part: &Part| match part {
        Part::Overlay | Part::OverlayRemovals => policy.filesystem.writes.overlays(),
        Part::Doors => policy.network.is_open(),
        _ => true,
    };
    let lacks = |part: &Part| {
        needed(part) && parts.iter().any(|(p, s)| p == part && matches!(s, State::Missing { .. }))
    };
    let bare = NAMESPACES.iter().any(lacks);
    let never = [
        Part::Capabilities,
        Part::Overlay,
        Part::Doors,
        Part::Landlock,
        Part::Seccomp,
        Part::Openat2,
        Part::CloseRange,
        Part::Pidfd,
    ];
    let ports = landlock_abi > 0 && !seccomp::holds_ports(landlock_abi) && !policy.network.listen.is_empty();
    let host = policy.network.mode.is_host();
    let scope = host && landlock_abi > 0 && landlock_abi < SCOPED;
    let reaches = if ports || never.iter().any(lacks) || (bare && refused.is_some()) {
        None
    } else if bare {
        Some(Floor::Landlock)
    } else if lacks(&Part::Cgroup) {
        Some(Floor::NoCgroup)
    } else {
        Some(Floor::Full)
    };
    let reaches =
        reaches.and_then(|rung| if host { in_host_network(rung, landlock_abi) } else { Some(rung) });
    let mut told = false;
    let missing = parts.iter().filter_map(|(part, state)| {
        let State::Missing { failed, cause, fix } = state else { return None };
        if !needed(part) {
            return None;
        }
        let lost = match part {
            Part::Cgroup => together(policy, bare),
            Part::IdmappedMounts => vec![lost(
                "root's cells use what is granted as its owner could",
                None,
                "a grant that is not for everybody, or is to be written, fails at the step `bind`",
            )],
            Part::Overlay => vec![lost(
                "what a tool writes can be taken back",
                Some(format!("filesystem.writes = \"{}\"", policy.filesystem.writes.name())),
                "no cell starts: the step `mount-overlay` fails",
            )],
            Part::OverlayRemovals => vec![lost(
                "a tool removes directories of the host's with what is in them",
                Some(format!("filesystem.writes = \"{}\"", policy.filesystem.writes.name())),
                "rmdir(2), and mkdir(2) where one was removed, fail with EIO",
            )],
            part if NAMESPACES.contains(part) && std::mem::replace(&mut told, true) => vec![],
            part if NAMESPACES.contains(part) => no_root(policy, refused),
            _ => vec![lost("calls are run", None, "no cell starts on this host")],
        };
        let (failed, cause, fix) = (failed.clone(), cause.clone(), fix.clone());
        Some(Missing { layer: part.name(), failed, cause, fix, lost })
    });
    let ports = ports.then(|| Missing {
        layer: Part::Landlock.name(),
        failed: None,
        cause: format!(
            "ABI {landlock_abi} holds no ports, and a program could listen at others than those of `listen`"
        ),
        fix: "run Linux 6.7 or newer, or take `listen` out of `[network]`".to_owned(),
        lost: vec![lost("calls are run", None, "every call is refused")],
    });
    let scope = scope.then(|| Missing {
        layer: Part::Landlock.name(),
        failed: None,
        cause: format!(
            "ABI {landlock_abi} holds no abstract sockets, and in the host's network a tool could reach those"
        ),
        fix: format!("run Linux 6.12 or newer, or take `{HOST}` out of `[network]`"),
        lost: vec![lost("calls are run", None, "every call is refused")],
    });
    let given_up = host.then(given_up);
    Losses { reaches, missing: missing.chain(ports).chain(scope).chain(given_up).collect() }
}

/// The rung of cells in the host's network, where others reach this one.
#[must_use]
pub fn in_host_network(reached: Floor, landlock_abi: u32) -> Option<Floor> {
    (landlock_abi >= SCOPED).then_some(reached.with_host_network())
}

/// What goes with a network of the cell's own, by the profile's own choice.
#[must_use]
pub fn given_up() -> Missing {
    let rule = Some(format!("network.{HOST}"));
    Missing {
        layer: "network",
        failed: None,
        cause: format!("the profile has `{HOST}`: its cells are in the host's network"),
        fix: format!("take `{HOST}` out of `[network]`, and name in `allow` what is to be reached"),
        lost: vec![
            lost(
                "a tool reaches nothing but what `allow` names",
                rule,
                "all that the user reaches, in the open network and private ones, and a cloud's metadata service",
            ),
            lost(
                "what listens on the host's loopback is out of reach",
                None,
                "it is reached, ports of other cells too; only what has a path or a name (unix sockets) is not",
            ),
            lost(
                "a program of a cell is reached by nobody but through `listen`",
                None,
                "it listens at every free port that is for users, for other hosts too, and where another program means to",
            ),
            lost(
                "how the host's network looks is hidden",
                None,
                "/proc/self/net tells addresses, routes and every socket with its owner; netlink is refused",
            ),
            lost("the record has each connection and each attempt", None, "it has none"),
        ],
    }
}

fn lost(promise: &'static str, rule: Option<String>, instead: &str) -> Lost {
    Lost { promise, rule, instead: instead.to_owned() }
}

fn limit(policy: &Policy, limit: Limit) -> Option<String> {
    Some(format!("{}.{}", limit.section(), limits::to_toml(limit, policy.limit(limit))))
}

fn together(policy: &Policy, bare: bool) -> Vec<Lost> {
    let tasks =
        if bare { "the user's own limit" } else { "a limit of the cell's user namespace (RLIMIT_NPROC)" };
    vec![
        lost(
            "the memory of a call's processes is bounded together",
            limit(policy, Limit::Memory),
            "each process by itself (RLIMIT_DATA)",
        ),
        lost("CPU time is bounded", limit(policy, Limit::Cpu), "nothing but the time limit of the call"),
        lost(
            "the number of processes is bounded by the cell's own count",
            limit(policy, Limit::Tasks),
            tasks,
        ),
        lost("the record tells peaks of memory and tasks", None, "they are not in the record"),
    ]
}

fn no_root(policy: &Policy, refused: Option<&str>) -> Vec<Lost> {
    let mut found = Vec::new();
    if let Some(why) = refused {
        found.push(lost("calls are run", None, &format!("every call is refused: {why}")));
    }
    found.push(lost(
        "what is not granted cannot be found to exist",
        None,
        "names, sizes, owners and times of every path that the user can reach are visible; contents are not",
    ));
    found.push(lost("the host's name is hidden", None, "it is visible"));
    if policy.filesystem.scratch > 0 {
        found.push(lost(
            "the private /tmp has a size",
            limit(policy, Limit::Scratch),
            "each file by itself (RLIMIT_FSIZE)",
        ));
    }
    found.push(lost(
        "nothing outlives a call, whoever is killed",
        None,
        "kept, but if launcher and init are killed together and processes have daemonised",
    ));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::add::Additions;
    use crate::policy::files::Library;
    use crate::policy::mode::Mode;
    use crate::policy::syscalls::SyscallName;
    use crate::policy::{Writes, profile};

    fn policy() -> Policy {
        let world = profile::World { home: None, workspace: std::path::Path::new("/w") };
        Library::new(0, None, None)
            .load("default", world, &|_| SyscallName::Known, &Additions::default())
            .unwrap()
    }

    fn host(lacking: &[Part]) -> Vec<(Part, State)> {
        let there = || State::There { detail: String::new() };
        let missing = || State::Missing { failed: None, cause: "why".to_owned(), fix: "what".to_owned() };
        Part::ALL.into_iter().map(|p| (p, if lacking.contains(&p) { missing() } else { there() })).collect()
    }

    fn of(lacking: &[Part], refused: Option<&str>) -> (Option<Floor>, Vec<(&'static str, usize)>) {
        of_policy(&policy(), lacking, refused)
    }

    fn of_policy(
        policy: &Policy,
        lacking: &[Part],
        refused: Option<&str>,
    ) -> (Option<Floor>, Vec<(&'static str, usize)>) {
        let found = losses(policy, &host(lacking), 7, refused);
        (found.reaches, found.missing.iter().map(|missing| (missing.layer, missing.lost.len())).collect())
    }

    #[test]
    fn each_part_takes_its_promises_along() {
        assert_eq!(of(&[], None), (Some(Floor::Full), vec![]));
        assert_eq!(of(&[Part::Cgroup], None), (Some(Floor::NoCgroup), vec![("cgroup", 4)]));
        let both = [Part::UserNamespace, Part::NetNamespace, Part::Cgroup];
        let told = vec![("user-namespace", 4), ("net-namespace", 0), ("cgroup", 4)];
        assert_eq!(of(&both, None), (Some(Floor::Landlock), told));
        assert_eq!(of(&[Part::MountNamespace], Some("a denied name")), (None, vec![("mount-namespace", 5)]));
        assert_eq!(of(&[Part::Overlay], None), (Some(Floor::Full), vec![]));
        let mut reviewed = policy();
        reviewed.filesystem.writes = Writes::Review;
        assert_eq!(of_policy(&reviewed, &[Part::Overlay], None), (None, vec![("overlay", 1)]));
        let removals = (Some(Floor::Full), vec![("overlay-removals", 1)]);
        assert_eq!(of_policy(&reviewed, &[Part::OverlayRemovals], None), removals);
        assert_eq!(of_policy(&reviewed, &[Part::Cgroup], None), of(&[Part::Cgroup], None));
        assert_eq!(of(&[Part::Landlock], None), (None, vec![("landlock", 1)]));
        assert_eq!(of(&[Part::Doors], None), (Some(Floor::Full), vec![]));
        let mut heard = policy();
        heard.network.listen = vec!["8080".parse().unwrap()];
        assert_eq!(of_policy(&heard, &[Part::Doors], None), (None, vec![("doors", 1)]));
        let old = |abi| losses(&heard, &host(&[]), abi, None);
        assert_eq!((old(4).reaches, old(4).missing.len()), (Some(Floor::Full), 0));
        assert_eq!((old(3).reaches, old(3).missing.len()), (None, 1));
        assert_eq!(losses(&policy(), &host(&[]), 3, None).reaches, Some(Floor::Full));
    }

    #[test]
    fn the_hosts_network_is_lost_by_the_profiles_own_choice() {
        let mut outside = policy();
        outside.network.mode = Mode::Host;
        let network = ("network", 5);
        assert_eq!(of_policy(&outside, &[], None), (Some(Floor::HostNetwork), vec![network]));
        let less = (Some(Floor::HostNetworkNoCgroup), vec![("cgroup", 4), network]);
        assert_eq!(of_policy(&outside, &[Part::Cgroup], None), less);
        let bare = of_policy(&outside, &[Part::UserNamespace], None);
        assert_eq!(bare.0, Some(Floor::HostNetworkLandlock));
        let old = losses(&outside, &host(&[]), 5, None);
        assert_eq!((old.reaches, old.missing.len()), (None, 2));
        let rule = given_up().lost[0].rule.clone();
        assert_eq!(rule.as_deref(), Some("network.mode = \"host\""));
    }

    #[test]
    fn a_loss_names_the_line_of_the_profile() {
        let found = losses(&policy(), &host(&[Part::Cgroup]), 7, None);
        let rules: Vec<_> =
            found.missing.iter().flat_map(|m| &m.lost).filter_map(|l| l.rule.clone()).collect();
        assert!(rules.iter().any(|rule| rule.contains("memory = \"512MiB\"")), "{rules:?}");
    }
}
