//! Puts the steps of a cell in order.
//!
//! Neighbours: takes a policy and what `host` saw, gives the [`Plan`] that `launch` runs. Never: looks anything up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::doors::Doors;
use super::limited::{create_cgroup, rlimits};
use super::prelude::{DEVICES, file, prelude};
use super::rung::{SCOPED, reached};
use super::step::{Access, Attempts, EMPTIED, Kind, LandlockRule, PERSIST, Ports, Resource, SCRATCH, Step};
use super::{Plan, Refusal, overlays, seccomp};
use crate::host::Facts;
use crate::host::probe::Failed;
use crate::host::view::{Seen, View};
use crate::outcome::Layer;
use crate::policy::network::{Allowed, Host};
use crate::policy::path::is_within;
use crate::policy::{Floor, Observe, Policy};

/// User and group id of the payload inside its user namespace.
pub const INSIDE: u32 = 1000;

/// What one plan is made from.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What is allowed.
    pub policy: &'a Policy,
    /// What the host has.
    pub facts: &'a Facts,
    /// What the policy's paths are on the host.
    pub view: &'a View,
    /// What the program needs.
    pub runtime: &'a [Seen],
    /// Paths in the runtime's trees that the payload has no use for, such as package managers.
    pub hidden: &'a [Seen],
    /// Symbolic links in the root: path and target.
    pub links: &'a [(PathBuf, PathBuf)],
    /// The program in the cell.
    pub program: &'a Path,
    /// Its arguments, the name first.
    pub argv: &'a [String],
    /// Directories for `PATH`.
    pub path: &'a [PathBuf],
    /// Variables that tell the program where its own parts are.
    pub runtime_environment: &'a BTreeMap<String, String>,
    /// The supervisor's environment, to pass from.
    pub environment: &'a BTreeMap<String, String>,
    /// Working directory in the cell.
    pub cwd: &'a Path,
    /// The directory on the host that this server keeps from call to call, if it has one.
    pub persist: Option<&'a Seen>,
    /// This host has IPv6; asked only of a policy that lets something out.
    pub six: bool,
}

/// Makes the plan.
///
/// # Errors
/// What the policy asks for and this host, or the kernel at all, cannot give.
pub fn build(request: &Request<'_>) -> Result<Plan, Refusal> {
    let policy = request.policy;
    let rung = reached(request.facts, policy)?;
    let (floor, mode) = (rung.with_own_network(), policy.network.mode);
    if request.facts.landlock_abi == 0 {
        return Err(Refusal::NoLandlock);
    }
    let tree = Tree::new(request)?;
    if let (Floor::Landlock, Some(failed)) = (floor, &request.facts.no_namespaces) {
        return without_root(request, &tree, failed);
    }
    let doors = doors(request)?;
    let sockets = !policy.network.unix.is_empty();
    let unheld = seccomp::unheld(request.facts.landlock_abi);
    let program =
        seccomp::compile(&seccomp::denying(&policy.syscalls, unheld), sockets).map_err(Refusal::Syscall)?;
    let root = request.facts.uid == 0;
    let mut steps = Vec::new();
    let cgroup = request.facts.cgroup.as_ref().ok().filter(|_| floor == Floor::Full);
    steps.extend(create_cgroup(cgroup, &policy.limits, true));
    steps.extend(tree.reserved.iter().cloned());
    let outside = policy.network.listen.iter();
    steps.extend(outside.map(|listen| Step::ListenOutside { port: listen.port, at: listen.at.clone() }));
    let (uid, gid) = request.facts.payload;
    steps.extend(prelude(root, (uid, gid), mode).steps);
    let files = doors.iter().flat_map(Doors::files);
    steps.extend(files.map(|(path, content)| Step::RewriteFile { path: PathBuf::from(path), content }));
    tree.steps(request, &mut steps);
    steps.extend(create_cgroup(cgroup, &policy.limits, false));
    if cgroup.is_some() {
        steps.push(Step::JoinCgroup { namespace: true });
    }
    if let Some(doors) = &doors {
        steps.push(Step::OpenDoors { doors: Box::new(doors.clone()) });
    }
    steps.push(Step::CloseDescriptors);
    // After it, because the child of a launcher with many cells may hold more descriptors than the payload may.
    rlimits(&policy.limits, floor, &mut steps);
    if root {
        steps.push(Step::SetIds { uid, gid });
        steps.push(Step::UnshareUser { inside: INSIDE });
        steps.push(Step::ForbidUserNamespaces);
    }
    steps.push(Step::DropCapabilities { bounding: true });
    steps.push(Step::NoNewPrivileges);
    let connect = doors.as_ref().map_or_else(Vec::new, |doors| doors.ports.clone());
    let mut listen: Vec<u16> = policy.network.listen.iter().map(|listen| listen.port).collect();
    listen.sort_unstable();
    listen.dedup();
    let ports = (!mode.is_host()).then_some(Ports { connect, listen });
    steps.push(landlock(request.facts, tree.landlock(policy), ports));
    // Of what may be reached nothing is refused.
    let attempts = if mode.is_host() { Attempts::Programs } else { Attempts::All };
    steps.push(Step::Seccomp { program, observe: Some(policy.observe), attempts });
    let mut layers =
        vec![Layer::Namespaces, Layer::Root, Layer::Landlock, Layer::Seccomp, Layer::Capabilities];
    if floor == Floor::Full {
        layers.push(Layer::Cgroup);
    }
    if doors.is_some() || mode.is_host() {
        layers.push(Layer::Network);
    }
    steps.push(Step::Verify { layers });
    steps.push(exec(request));
    Ok(Plan { floor: rung, steps })
}

fn exec(request: &Request<'_>) -> Step {
    Step::Exec {
        program: request.program.to_owned(),
        argv: request.argv.to_vec(),
        env: environment(request),
        cwd: request.cwd.to_owned(),
    }
}

fn landlock(facts: &Facts, rules: Vec<LandlockRule>, ports: Option<Ports>) -> Step {
    Step::Landlock { abi: facts.landlock_abi, rules, logged: facts.denials.is_ok(), ports }
}

/// The doors of the policy, if this host can have them.
fn doors(request: &Request<'_>) -> Result<Option<Doors>, Refusal> {
    let network = &request.policy.network;
    let doors = Doors::fitting(network, request.six)?;
    let abi = request.facts.landlock_abi;
    if let Some(listen) = network.listen.first().filter(|_| !seccomp::holds_ports(abi)) {
        return Err(Refusal::OldPorts { port: listen.port, abi });
    }
    let six = |allowed: &&Allowed| matches!(allowed.destination.host, Host::Address(IpAddr::V6(_)));
    match network.doors().find(six).filter(|_| !request.six) {
        Some(allowed) => Err(Refusal::NoIpv6 { destination: allowed.destination.to_string() }),
        None => Ok(doors),
    }
}

/// The plan of the lowest rung: no namespace and no private root. Landlock is the only wall around files, so what it
/// cannot see must be refused by the filter, and what it cannot express by us.
fn without_root(request: &Request<'_>, tree: &Tree, failed: &Failed) -> Result<Plan, Refusal> {
    let (policy, facts) = (request.policy, request.facts);
    if facts.landlock_abi < SCOPED {
        return Err(Refusal::OldLandlock { abi: facts.landlock_abi });
    }
    let sockets = policy.network.unix.iter().map(|socket| socket.path.clone());
    let destinations = policy.network.doors().map(|allowed| allowed.destination.to_string());
    if let Some(destination) = destinations.chain(sockets).next() {
        return Err(Refusal::NoDoors { destination, failed: failed.clone() });
    }
    if let Some(listen) = policy.network.listen.first() {
        return Err(Refusal::NoListen { port: listen.port, failed: failed.clone() });
    }
    let view = request.view;
    let vacant = view.vacant.iter().map(|(stand_in, _)| stand_in);
    let unprotected: Vec<_> = view.protected.iter().chain(vacant).map(|seen| seen.target.clone()).collect();
    if let Some((path, _)) = tree.mounts.iter().find(|(_, mounted)| mounted.overlay) {
        return Err(Refusal::NoOverlay { path: path.clone(), failed: failed.clone() });
    }
    if request.persist.is_some() {
        return Err(Refusal::NoPersist { failed: failed.clone() });
    }
    if !unprotected.is_empty() {
        return Err(Refusal::Unprotected { names: unprotected, failed: failed.clone() });
    }
    if let Some((path, what)) = tree.narrowed(request) {
        return Err(Refusal::NeedsRoot { path, what, failed: failed.clone() });
    }
    let host = policy.network.mode.is_host();
    let outside = if host { &[] } else { seccomp::PAST_LANDLOCK_OUTSIDE };
    let syscalls =
        seccomp::denying(&policy.syscalls, &[seccomp::PAST_LANDLOCK, outside].concat()).into_owned();
    let program = seccomp::compile(&syscalls, false).map_err(Refusal::Syscall)?;
    let root = facts.uid == 0;
    let mut steps = Vec::new();
    let cgroup = facts.cgroup.as_ref().ok();
    steps.extend(create_cgroup(cgroup, &policy.limits, true));
    steps.push(Step::MakePrivateDirectory {
        parent: facts.temporary.clone(),
        owner: root.then_some(facts.payload),
    });
    steps.push(Step::Clone { namespaces: vec![] });
    steps.push(Step::NewSession);
    let mut layers = vec![Layer::Landlock, Layer::Seccomp, Layer::Capabilities];
    steps.extend(create_cgroup(cgroup, &policy.limits, false));
    if cgroup.is_some() {
        steps.push(Step::JoinCgroup { namespace: false });
        layers.push(Layer::Cgroup);
    }
    if host {
        layers.push(Layer::Network);
    }
    steps.push(Step::CloseDescriptors);
    let limited = if cgroup.is_some() { Floor::Full } else { Floor::Landlock };
    rlimits(&policy.limits, limited, &mut steps);
    if root {
        let (uid, gid) = facts.payload;
        // The number counts what the user runs anywhere; only the payload of root is a user of its own.
        steps.push(Step::SetRlimit { resource: Resource::Nproc, value: policy.limits.tasks.into() });
        steps.push(Step::SetIds { uid, gid });
    }
    steps.push(Step::DropCapabilities { bounding: false });
    steps.push(Step::NoNewPrivileges);
    steps.push(Step::HoldProcesses);
    steps.push(landlock(facts, tree.landlock_on_host(policy), (!host).then(Ports::default)));
    // What a file is called there says nothing about what is granted: a rule is on where a path leads.
    steps.push(Step::Seccomp { program, observe: Some(Observe::Calls), attempts: Attempts::Untold });
    steps.push(Step::Verify { layers });
    steps.push(exec(request));
    let floor = if host { Floor::HostNetworkLandlock } else { Floor::Landlock };
    Ok(Plan { floor, steps })
}

/// `PATH` from the runtime, then what the profile passes, then what it sets.
fn environment(request: &Request<'_>) -> Vec<(String, String)> {
    let rules = &request.policy.environment;
    let mut env = BTreeMap::new();
    let path: Vec<_> = request.path.iter().map(|p| p.to_string_lossy()).collect();
    env.insert("PATH".to_owned(), path.join(":"));
    env.extend(request.runtime_environment.clone());
    for name in &rules.pass {
        if let Some(value) = request.environment.get(name) {
            env.insert(name.clone(), value.clone());
        }
    }
    env.extend(rules.set.clone());
    if request.persist.is_some() {
        env.insert("TOOLCELL_PERSIST".to_owned(), PERSIST.to_owned());
    }
    env.into_iter().collect()
}

/// One path of the cell that is mounted from the host.
#[derive(Debug, Clone)]
struct Mounted {
    source: PathBuf,
    kind: Kind,
    access: Access,
    owner: Option<(u32, u32)>,
    /// A tree that the program needs: everybody may read and execute what is in it.
    program: bool,
    /// What is written to it stays in the cell.
    overlay: bool,
}

/// All that is visible, by path in the cell, parents before children.
#[derive(Debug)]
struct Tree {
    mounts: BTreeMap<PathBuf, Mounted>,
    /// Whether it looks as if there were nothing in it.
    hidden: BTreeMap<PathBuf, bool>,
    /// The steps that hold names on the host which do not exist yet.
    reserved: Vec<Step>,
}

impl Tree {
    fn new(request: &Request<'_>) -> Result<Self, Refusal> {
        let root = request.facts.uid == 0;
        let view = request.view;
        let overlays = request.policy.filesystem.writes.overlays();
        // An overlay needs no place for a name on the host: whether it came to exist is looked at before it does there.
        let vacant = || view.vacant.iter().filter(|_| !overlays);
        let mut mounts: BTreeMap<PathBuf, Mounted> = BTreeMap::new();
        let all = request.runtime.iter().chain(&view.granted).chain(&view.protected);
        let all = all.chain(vacant().map(|(stand_in, _)| stand_in));
        for seen in all {
            let target = through_links(seen, request.links);
            let owner = (root && !seen.public).then_some(seen.owner);
            let overlay = overlays && seen.access.write;
            if overlay && seen.kind == Kind::File {
                return Err(Refusal::FileDirect { path: seen.target.clone() });
            }
            mounts
                .entry(target)
                .and_modify(|mounted| {
                    mounted.access.write |= seen.access.write;
                    mounted.access.execute |= seen.access.execute;
                    mounted.access.names &= seen.access.names;
                    mounted.owner = mounted.owner.or(owner);
                    mounted.overlay |= overlay;
                })
                .or_insert_with(|| Mounted {
                    source: seen.source.clone(),
                    kind: seen.kind,
                    access: seen.access,
                    owner,
                    program: !seen.data,
                    overlay,
                });
        }
        if let Some(kept) = request.persist {
            let owner = root.then_some(kept.owner);
            let (source, kind, access) = (kept.source.clone(), Kind::Directory, kept.access);
            let kept = Mounted { source, kind, access, owner, program: false, overlay: false };
            mounts.insert(PathBuf::from(PERSIST), kept);
        }
        let reserve = |(stand_in, content): &(Seen, Option<&str>)| Step::ReserveName {
            path: stand_in.source.clone(),
            content: content.map(str::to_owned),
        };
        let reserved = vacant().map(reserve).collect();
        let mut tree = Self { mounts, hidden: BTreeMap::new(), reserved };
        tree.drop_redundant();
        tree.hide(request)?;
        tree.pin();
        Ok(tree)
    }

    /// The mount above a path, if any.
    fn above(&self, path: &Path) -> Option<(&PathBuf, &Mounted)> {
        // Of all that the path lies beneath, the last in the order of the map is the nearest.
        self.mounts.iter().rev().find(|(top, _)| top.as_os_str() != path && is_within(path, top))
    }

    /// A path inside a tree that shows it with the same access needs no mount of its own. A writable one keeps it: a
    /// directory that is a mount cannot be renamed away.
    fn drop_redundant(&mut self) {
        let redundant: Vec<PathBuf> = self
            .mounts
            .iter()
            .filter(|(path, mounted)| {
                self.above(path).is_some_and(|(top, above)| {
                    let same_place =
                        path.strip_prefix(top).is_ok_and(|rest| above.source.join(rest) == mounted.source);
                    let same =
                        above.access == mounted.access && above.owner.is_some() == mounted.owner.is_some();
                    let covered = same || above.program && !above.access.write;
                    // Of a directory of an overlay, none that the host has can be renamed.
                    let stays = !mounted.access.write || mounted.overlay && above.overlay;
                    same_place && stays && covered
                })
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in redundant {
            self.mounts.remove(&path);
        }
    }

    fn hide(&mut self, request: &Request<'_>) -> Result<(), Refusal> {
        for seen in &request.view.hidden {
            // A link is hidden by its own name as well as by where it leads.
            for path in [&seen.target, &seen.source] {
                if self.mounts.contains_key(path) {
                    return Err(Refusal::GrantedAndDenied { path: path.clone() });
                }
                self.cover(path, false);
            }
        }
        for seen in request.hidden {
            if !self.mounts.contains_key(&seen.target) {
                // Many programs take a refusal for a failure, and do without what is not there.
                self.cover(&seen.source, seen.kind == Kind::Directory);
            }
        }
        for rule in &request.view.absent {
            if let Some((top, mounted)) = self.above(&rule.path).filter(|(_, mounted)| !mounted.overlay) {
                let rest = rule.path.strip_prefix(top).unwrap_or(&rule.path);
                self.reserved.push(Step::ReserveName { path: mounted.source.join(rest), content: None });
                self.hidden.insert(rule.path.clone(), false);
            }
        }
        // What lies below something hidden is hidden with it.
        let tops = self.hidden.clone();
        self.hidden.retain(|path, _| !path.ancestors().skip(1).any(|above| tops.contains_key(above)));
        Ok(())
    }

    /// A host path is covered wherever a tree shows it.
    fn cover(&mut self, path: &Path, emptied: bool) {
        for (target, mounted) in &self.mounts {
            if let Ok(rest) = path.strip_prefix(&mounted.source) {
                self.hidden.entry(target.join(rest)).or_insert(emptied);
            }
        }
    }

    /// In a writable tree, every directory above something hidden or narrower becomes a mount of its own: it could be
    /// renamed otherwise, and the protected name be made anew.
    fn pin(&mut self) {
        let inner: Vec<PathBuf> = self.hidden.keys().chain(self.mounts.keys()).cloned().collect();
        for path in inner {
            let Some((top, mounted)) = self.above(&path).map(|(top, mounted)| (top.clone(), mounted.clone()))
            else {
                continue;
            };
            // In an overlay the kernel refuses to rename a directory of the host's.
            if !mounted.access.write || mounted.overlay {
                continue;
            }
            let between: Vec<&Path> = path.ancestors().skip(1).take_while(|a| **a != top).collect();
            for directory in between {
                let rest = directory.strip_prefix(&top).unwrap_or(directory);
                let pinned =
                    Mounted { source: mounted.source.join(rest), kind: Kind::Directory, ..mounted.clone() };
                self.mounts.insert(directory.to_owned(), pinned);
            }
        }
    }

    /// Mount steps: the root, its directories, binds from the top down, what is hidden, the pivot.
    fn steps(&self, request: &Request<'_>, steps: &mut Vec<Step>) {
        let mut made: BTreeSet<PathBuf> = steps
            .iter()
            .filter_map(|step| match step {
                Step::MakeDirectory { path, .. } | Step::MakeFile { path, .. } => Some(path.clone()),
                _ => None,
            })
            .collect();
        let directory = |steps: &mut Vec<Step>, made: &mut BTreeSet<PathBuf>, path: &Path, mode: u32| {
            if made.insert(path.to_owned()) {
                steps.push(Step::MakeDirectory { path: path.to_owned(), mode });
            }
        };
        let scratch = request.policy.filesystem.scratch;
        if scratch > 0 {
            directory(steps, &mut made, Path::new(SCRATCH), 0o755);
            steps.push(Step::MountScratch {
                path: PathBuf::from(SCRATCH),
                size: scratch,
                inodes: (scratch / 4096).clamp(64, 1 << 20),
                execute: request.policy.filesystem.scratch_execute,
            });
        }
        for (path, target) in request.links {
            if !self.mounts.contains_key(path) && self.above(path).is_none() {
                for ancestor in ancestors(path) {
                    directory(steps, &mut made, ancestor, 0o755);
                }
                steps.push(Step::MakeSymlink { path: path.clone(), target: target.clone() });
            }
        }
        let cwd = request.cwd;
        if cwd.parent().is_some() && !self.mounts.contains_key(cwd) && self.above(cwd).is_none() {
            for ancestor in ancestors(cwd).into_iter().chain([cwd]) {
                directory(steps, &mut made, ancestor, 0o755);
            }
        }
        if self.mounts.values().any(|mounted| mounted.overlay) {
            steps.extend(overlays::begin(request.policy));
        }
        for (target, mounted) in &self.mounts {
            if self.above(target).is_none() {
                for ancestor in ancestors(target) {
                    directory(steps, &mut made, ancestor, 0o755);
                }
                match mounted.kind {
                    Kind::Directory => directory(steps, &mut made, target, 0o755),
                    Kind::File if made.contains(target) => {}
                    Kind::File => file(steps, &target.to_string_lossy(), "", 0),
                }
            }
            steps.push(match mounted.overlay {
                true => overlays::step(request, target, &mounted.source, mounted.access, mounted.owner),
                false => Step::Bind {
                    source: mounted.source.clone(),
                    target: target.clone(),
                    kind: mounted.kind,
                    access: mounted.access,
                    devices: false,
                    owner: mounted.owner,
                },
            });
        }
        for socket in &request.policy.network.unix {
            let path = Path::new(&socket.path);
            // What the host shows there, or the scratch directory, can be connected to just as well.
            if self.mounts.contains_key(path)
                || self.above(path).is_some()
                || is_within(path, Path::new(SCRATCH))
            {
                continue;
            }
            for ancestor in ancestors(path) {
                directory(steps, &mut made, ancestor, 0o755);
            }
            steps.push(Step::MakeSocket { path: path.to_owned() });
        }
        steps.extend(overlays::end(request.policy, steps));
        if self.hidden.values().any(|emptied| *emptied) {
            directory(steps, &mut made, Path::new(EMPTIED), 0o111);
        }
        let hidden = self.hidden.iter();
        steps.extend(hidden.map(|(path, emptied)| Step::Hide { path: path.clone(), emptied: *emptied }));
        steps.push(Step::PivotRoot);
    }

    /// What Landlock cannot express: it only ever adds to what is allowed above.
    fn narrowed(&self, request: &Request<'_>) -> Option<(PathBuf, &'static str)> {
        let asked = request.view.hidden.iter().map(|seen| &seen.source);
        let denied = asked.chain(request.view.absent.iter().map(|rule| &rule.path));
        for path in denied {
            if self.mounts.values().any(|mounted| path.starts_with(&mounted.source)) {
                return Some((path.clone(), "less visible"));
            }
        }
        self.mounts.values().find_map(|inner| {
            let narrower = |outer: &Mounted| {
                inner.source != outer.source
                    && inner.source.starts_with(&outer.source)
                    && (outer.access.write && !inner.access.write
                        || outer.access.execute
                            && !inner.access.execute
                            // Data among a program's own files is not the worse for being executable there.
                            && (inner.access.write || !outer.program))
            };
            self.mounts.values().any(narrower).then(|| (inner.source.clone(), "more restricted"))
        })
    }

    /// The view by the paths of the host, for a cell that has no other.
    fn landlock_on_host(&self, policy: &Policy) -> Vec<LandlockRule> {
        let on_host = |path: &Path| self.mounts.get(path).map_or(path, |mounted| &mounted.source).to_owned();
        self.landlock(policy)
            .into_iter()
            .filter(|rule| !OF_THE_ROOT.iter().any(|own| rule.path == Path::new(own)))
            .map(|rule| LandlockRule { path: on_host(&rule.path), ..rule })
            .collect()
    }

    /// The same view once more, as rules.
    fn landlock(&self, policy: &Policy) -> Vec<LandlockRule> {
        let read = Access::default();
        let mut rules: Vec<LandlockRule> = self
            .mounts
            .iter()
            .map(|(path, m)| LandlockRule { path: path.clone(), access: m.access, kind: m.kind })
            .collect();
        let mut add =
            |path: &str, access, kind| rules.push(LandlockRule { path: PathBuf::from(path), access, kind });
        OF_THE_ROOT.iter().for_each(|path| add(path, read, Kind::Directory));
        if policy.filesystem.scratch > 0 {
            add(
                SCRATCH,
                Access { write: true, execute: policy.filesystem.scratch_execute, ..read },
                Kind::Directory,
            );
        }
        for name in DEVICES {
            let write = matches!(name, "null" | "zero" | "full");
            add(&format!("/dev/{name}"), Access { write, ..read }, Kind::File);
        }
        rules
    }
}

/// A grant whose path leads through a link of the root is put where the link leads, or it could not be reached.
fn through_links(seen: &Seen, links: &[(PathBuf, PathBuf)]) -> PathBuf {
    if links.iter().any(|(link, _)| seen.target.starts_with(link)) {
        seen.source.clone()
    } else {
        seen.target.clone()
    }
}

/// The directories above a path, from the top, without `/`.
fn ancestors(path: &Path) -> Vec<&Path> {
    let mut list: Vec<&Path> = path.ancestors().skip(1).filter(|a| a.parent().is_some()).collect();
    list.reverse();
    list
}

/// Directories that a private root has of its own; on the host they hold what no cell is to see.
const OF_THE_ROOT: [&str; 2] = ["/etc", "/proc"];
