//! A plan in words: each step on a line, in the order in which the launcher runs it, from the same value.
//!
//! Neighbours: `commands::profile` prints it. Never: leaves a step out.

use std::fmt::Write as _;
use std::path::Path;

use super::step::{Access, Attempts, LandlockRule, Ports, Step};
use super::{Plan, lost};
use crate::policy::{Observe, Policy};
use crate::text::escape;

/// The whole plan as text.
#[must_use]
pub fn text(policy: &Policy, plan: &Plan) -> String {
    let mut text = String::new();
    let reached = plan.floor.name();
    let _infallible =
        writeln!(text, "profile {}: {} steps, floor `{reached}`", policy.name, plan.steps.len());
    for (index, step) in plan.steps.iter().enumerate() {
        let words = escape(&words(step)).into_owned();
        let _infallible = writeln!(text, "{:>3}  {:<22} {}", index + 1, step.name(), words.trim_end());
    }
    if policy.network.mode.is_host() {
        let given_up = lost::given_up();
        let _infallible = writeln!(text, "\n{}; lost with that:", given_up.cause);
        for lost in given_up.lost {
            let _infallible = writeln!(text, "  {}; here: {}", lost.promise, lost.instead);
        }
    }
    text
}

const fn access(access: Access) -> &'static str {
    match (access.write, access.execute) {
        (false, false) if access.names => "names",
        (false, false) => "read",
        (true, false) => "read, write",
        (false, true) => "read, execute",
        (true, true) => "read, write, execute",
    }
}

fn rule(rule: &LandlockRule) -> String {
    format!("{} ({})", rule.path.display(), access(rule.access))
}

fn list<T>(items: &[T], word: impl Fn(&T) -> String) -> String {
    items.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn place(path: &Path, mode: u32) -> String {
    format!("{} mode {mode:04o}", path.display())
}

fn words(step: &Step) -> String {
    match step {
        Step::CreateCgroup { directories, unified } => {
            let version = if *unified { "v2" } else { "v1" };
            let each = list(directories, |d| {
                let settings = list(&d.settings, |s| format!("{}={}", s.file, s.value));
                format!("{} [{settings}]", d.parent.display())
            });
            format!("{version}: {each}")
        }
        Step::ReserveName { path, .. } => {
            format!("{} (does not exist, and must not come to)", path.display())
        }
        Step::ListenOutside { port, at } => format!("at {at}, for port {port} of the cell"),
        Step::MakePrivateDirectory { parent, .. } => {
            format!("in {}: what `/tmp` stands for, and a canary", parent.display())
        }
        Step::Clone { namespaces } if namespaces.is_empty() => "no namespace".to_owned(),
        Step::Clone { namespaces } => list(namespaces, |n| format!("{n:?}").to_lowercase()),
        Step::MapIds { inside, outside_uid, outside_gid } => {
            format!("{inside} inside is user {outside_uid}, group {outside_gid} outside")
        }
        Step::MakeDirectory { path, mode } | Step::MakeFile { path, mode, .. } => place(path, *mode),
        Step::RewriteFile { path, .. } => format!("{}, for the doors", path.display()),
        Step::MakeSocket { path } => format!("{}, to which there is a door", path.display()),
        Step::MakeSymlink { path, target } => format!("{} -> {}", path.display(), target.display()),
        Step::Bind { source, target, access: allowed, owner, .. } => {
            let from = if source == target { String::new() } else { format!(" from {}", source.display()) };
            let mapped = owner
                .map_or_else(String::new, |(uid, gid)| format!(", files of {uid}:{gid} are the payload's"));
            format!("{}{from} ({}{mapped})", target.display(), access(*allowed))
        }
        Step::MountChanges { size, inodes } => {
            format!("{size} bytes, {inodes} inodes, for what is written to overlays")
        }
        Step::MountOverlay { source, target, access: allowed, owner, .. } => {
            let from = if source == target { String::new() } else { format!(" from {}", source.display()) };
            let mapped = owner
                .map_or_else(String::new, |(uid, gid)| format!(", files of {uid}:{gid} are the payload's"));
            format!("{}{from} ({}{mapped}; the host's stays as it is)", target.display(), access(*allowed))
        }
        Step::DetachChanges { review: true } => "handed over, to be reviewed after the call".to_owned(),
        Step::DetachChanges { review: false } => "gone with the cell".to_owned(),
        Step::OpenPlaces { paths } => {
            format!("{}, for what the call's arguments name", list(paths, |path| path.display().to_string()))
        }
        Step::Hide { path, emptied } => {
            format!("{}{}", path.display(), if *emptied { ", as one in which nothing is" } else { "" })
        }
        Step::MountScratch { path, size, inodes, execute } => {
            let execute = if *execute { ", execute" } else { "" };
            format!("{} ({size} bytes, {inodes} inodes{execute})", path.display())
        }
        Step::OpenDoors { doors } => doors.words(),
        Step::SetHostname { name } => name.clone(),
        Step::SetRlimit { resource, value } => {
            format!("{} = {value}", format!("{resource:?}").to_uppercase())
        }
        Step::SetIds { uid, gid } => format!("user {uid}, group {gid}, no supplementary groups"),
        Step::UnshareUser { inside } => format!("{inside} inside"),
        Step::Landlock { abi, rules, logged, ports } => {
            let told = |what: &str, ports: &[u16]| match ports.is_empty() {
                true => String::new(),
                false => format!(", {what} {}", list(ports, ToString::to_string)),
            };
            let network = match ports {
                Some(Ports { connect, listen }) => {
                    format!("{}{}", told("ports", connect), told("listens at", listen))
                }
                None => ", nothing of the network".to_owned(),
            };
            let logged = if *logged { ", refusals logged" } else { "" };
            format!("abi {abi}{logged}{network}: {}", list(rules, rule))
        }
        Step::Seccomp { program, observe, attempts } => {
            let told = match observe {
                None => "",
                Some(Observe::Calls) => ", refusals told to the supervisor",
                Some(Observe::Files) => ", refusals and every open told to the supervisor",
            };
            let attempts = match attempts {
                Attempts::Untold => "",
                Attempts::Programs => ", every program too",
                Attempts::All => ", every connection, port and program too",
            };
            format!("{} instructions{told}{attempts}", program.len())
        }
        Step::Verify { layers } => list(layers, |layer| layer.name().to_owned()),
        Step::Exec { program, argv, env, cwd } => {
            let names = list(env, |(name, _)| name.clone());
            format!("{} {:?} in {}, environment: {names}", program.display(), argv, cwd.display())
        }
        Step::JoinCgroup { namespace: false } => "without a cgroup namespace".to_owned(),
        Step::JoinCgroup { namespace: true } => "and a cgroup namespace with it as root".to_owned(),
        Step::IsolateMounts => "no mount from here on reaches the host".to_owned(),
        Step::MountRoot => "an empty tmpfs".to_owned(),
        Step::MountProc => "/proc, process directories only, others' hidden".to_owned(),
        Step::PivotRoot => "the old root is gone, the new one read-only".to_owned(),
        Step::LoopbackUp => "the cell's own lo".to_owned(),
        Step::NewSession => "no terminal, an empty session keyring".to_owned(),
        Step::CloseDescriptors => "all but stdin, stdout, stderr".to_owned(),
        Step::ForbidUserNamespaces => "max_user_namespaces = 0 below this one".to_owned(),
        Step::DropCapabilities { bounding: false } => "held sets empty, not dumpable".to_owned(),
        Step::DropCapabilities { bounding: true } => {
            "all five sets empty, securebits locked, not dumpable".to_owned()
        }
        Step::HoldProcesses => "init ends what is left, and cannot be signalled by the payload".to_owned(),
        Step::NoNewPrivileges => "for good".to_owned(),
    }
}
