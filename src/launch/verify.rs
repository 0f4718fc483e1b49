//! Looks at each layer from inside the finished cell, before exec: what is not on stops the launch.
//!
//! Neighbours: `launch::init` runs it as the last step before exec, and what asks Landlock and the doors before the filter is there;
//! the result is the receipt. Never: trusts that a step which returned 0 had its effect.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::confine::Alone;
use super::init::State;
use super::root::text;
use super::spawn::Origin;
use super::{LaunchError, private};
use crate::outcome::{Built, Coverage, Layer, Receipt};
use crate::plan::doors::Doors;
use crate::plan::step::{Attempts, CANARY, EMPTIED, EMPTY_DIRECTORY, EMPTY_FILE, Observe, Ports, Step};
use crate::sys::{Errno, descriptor, kernel_file, mount, network, process, socket};

/// What a check saw, or what was wrong.
type Check = Result<String, (String, Errno)>;

/// Where the namespaces of the calling thread are named (`namespaces(7)`).
fn links() -> Result<OwnedFd, Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    descriptor::open_at(descriptor::working_directory(), c"/proc/thread-self/ns", flags)
}

/// What a look at the finished cell gives.
pub(super) struct Seen {
    pub(super) receipt: Receipt,
    /// The signals that this process ignores, signal N as bit N-1.
    pub(super) ignored: u64,
    /// How often Landlock has refused something to this process.
    pub(super) denials: u32,
}

/// What Landlock answered, and that the doors are behind it.
#[derive(Debug)]
pub(super) struct Held {
    /// Which classes it refused.
    saw: String,
    /// How often it did.
    denials: u32,
}

fn failed(layer: Layer, object: String, errno: Errno) -> LaunchError {
    LaunchError::new("verify", format!("{}: {object}", layer.name()), errno)
}

/// A socket without a path in the host's network, made before the domain is there that must not reach it.
pub(super) fn before_landlock(ports: Option<&Ports>) -> Result<Option<UnixDatagram>, Errno> {
    match ports {
        Some(_) => Ok(None),
        None => socket::bind_abstract().map(Some),
    }
}

/// Whether Landlock holds, and whether doors are behind it: before there is a filter, which would refuse the calls by which that
/// is found out, or have the supervisor answer them. What Landlock refuses now it refuses from now on.
pub(super) fn behind_landlock(
    state: &State<'_>,
    abstract_socket: Option<UnixDatagram>,
) -> Result<Option<Held>, LaunchError> {
    let steps = &state.prepared.plan.steps;
    let asks = |step: &Step| matches!(step, Step::Verify { layers } if layers.contains(&Layer::Landlock));
    if !steps.iter().any(asks) {
        return Ok(None);
    }
    let held = landlock(state, abstract_socket);
    let held = held.map_err(|(object, errno)| failed(Layer::Landlock, object, errno))?;
    if let Some(doors) = opened(steps) {
        super::doors::try_each(doors).map_err(|(object, errno)| failed(Layer::Network, object, errno))?;
    }
    Ok(Some(held))
}

/// What was answered before there was a filter; without it nothing was.
fn asked<'s>(state: &'s State<'_>) -> Result<&'s Held, (String, Errno)> {
    state.held.as_ref().ok_or_else(|| ("nothing was asked of it".to_owned(), Errno(libc::EPROTO)))
}

pub(super) fn run(layers: &[Layer], state: &State<'_>) -> Result<Seen, LaunchError> {
    let mut seen = BTreeMap::new();
    let mut denials = 0;
    let status = match &state.alone {
        None => kernel_file::read("/proc/self/status"),
        Some(alone) => std::io::read_to_string(&alone.status),
    };
    let status =
        status.map_err(|error| failed(Layer::Root, "/proc/self/status".to_owned(), Errno::from(error)))?;
    let status = Status::of(&status);
    let origin = state.prepared.origin();
    let origin =
        origin.map_err(|errno| failed(Layer::Namespaces, "what the launcher is".to_owned(), errno))?;
    let floor = state.prepared.plan.floor;
    let own_network = floor.has_own_network();
    for layer in layers {
        let check = match layer {
            Layer::Namespaces => namespaces(origin, own_network),
            Layer::Root => private_root(&state.prepared.plan.steps),
            Layer::Landlock => asked(state).map(|held| {
                denials += held.denials;
                held.saw.clone()
            }),
            Layer::Seccomp => status
                .field("Seccomp_filters", &(origin.filters + 1).to_string())
                .map(|_count| "filter".to_owned()),
            Layer::Capabilities => capabilities(&status, state),
            Layer::Cgroup => cgroup(state, origin),
            Layer::Network if !own_network => host_network(origin),
            Layer::Network => {
                asked(state).and_then(|_held| doors(&state.prepared.plan.steps, state.observed.is_some()))
            }
            Layer::Rlimit
            | Layer::Deadline
            | Layer::Output
            | Layer::Protocol
            | Layer::Access
            | Layer::Arguments
            | Layer::Quarantine
            | Layer::Lock
            | Layer::Review => continue,
        };
        let saw = check.map_err(|(object, errno)| failed(*layer, object, errno))?;
        seen.insert(layer.name().to_owned(), saw);
    }
    let ids = ["Uid", "Gid", "Groups"].map(|name| status.value(name).unwrap_or_default().to_owned());
    seen.insert(
        "identity".to_owned(),
        format!("uid {} gid {} groups {}", first(&ids[0]), first(&ids[1]), groups(&ids[2])),
    );
    let closed = match &state.alone {
        None => descriptors(),
        Some(alone) => {
            let saw = processes().map_err(|(object, errno)| failed(Layer::Landlock, object, errno))?;
            // Another user's launcher is out of reach before Landlock is asked.
            let others = state.prepared.plan.steps.iter().any(|step| matches!(step, Step::SetIds { .. }));
            denials += u32::from(!others);
            seen.insert("processes".to_owned(), saw);
            descriptors_by_number(alone)
        }
    };
    seen.insert("descriptors".to_owned(), closed.map_err(|(o, e)| failed(Layer::Root, o, e))?);
    let ignored = status.value("SigIgn").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let mut coverage = coverage(layers, state.observed, attempts(&state.prepared.plan.steps));
    if !own_network {
        coverage.insert(Layer::Network.name().to_owned(), Coverage::Blind);
    }
    let receipt = Receipt { floor, cell: Built::OnDemand, layers: seen, coverage, reasons: BTreeMap::new() };
    Ok(Seen { receipt, ignored: ignored.unwrap_or(u64::MAX), denials })
}

/// What will be known of each layer's refusals. Mounts and capabilities tell nobody but the payload; what Landlock tells is found
/// out when it has (`watch::denials`); of what
/// resource limits refuse, the payload's own words are the only trace.
fn coverage(layers: &[Layer], observed: Option<Observe>, attempts: bool) -> BTreeMap<String, Coverage> {
    let supervisors = [Layer::Rlimit, Layer::Deadline, Layer::Output, Layer::Protocol];
    let doors = layers.contains(&Layer::Network);
    let told = |layer: &Layer| match layer {
        Layer::Seccomp if observed.is_some() => Coverage::Complete,
        Layer::Root if observed.is_some() => Coverage::Sampled,
        // An address in memory may be another when it is read. Doors tell by themselves.
        Layer::Network if observed.is_some() || doors => Coverage::Sampled,
        Layer::Cgroup
        | Layer::Deadline
        | Layer::Output
        | Layer::Protocol
        | Layer::Access
        | Layer::Arguments
        | Layer::Quarantine
        | Layer::Lock
        | Layer::Review => Coverage::Complete,
        Layer::Rlimit => Coverage::Sampled,
        Layer::Namespaces
        | Layer::Root
        | Layer::Landlock
        | Layer::Seccomp
        | Layer::Capabilities
        | Layer::Network => Coverage::Blind,
    };
    // Whom a cell tries to reach is told without a door, too.
    let network = attempts.then_some(&Layer::Network);
    let all = layers.iter().chain(&supervisors).chain(network);
    all.map(|layer| (layer.name().to_owned(), told(layer))).collect()
}

/// Are attempts to reach an address told?
fn attempts(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Seccomp { attempts: Attempts::All, .. }))
}

/// What the plan hides is covered now, while a cell waits as well as when it goes on.
pub(super) fn covers(steps: &[Step]) -> Result<(), LaunchError> {
    let look = |path: &Path| {
        let seen = std::fs::symlink_metadata(path);
        let seen =
            seen.map_err(|error| LaunchError::new("hide", path.to_string_lossy(), Errno::from(error)))?;
        Ok((seen.dev(), seen.ino()))
    };
    if !steps.iter().any(|step| matches!(step, Step::Hide { .. })) {
        return Ok(());
    }
    let closed = [look(Path::new(EMPTY_FILE))?, look(Path::new(EMPTY_DIRECTORY))?];
    for step in steps {
        if let Step::Hide { path, emptied } = step
            && let found = look(path)?
            && !closed.contains(&found)
            && !(*emptied && found == look(Path::new(EMPTIED))?)
        {
            return Err(LaunchError::new("hide", path.to_string_lossy(), Errno(libc::EPROTO)));
        }
    }
    Ok(())
}

fn first(list: &str) -> &str {
    list.split_whitespace().next().unwrap_or_default()
}

/// A user without privilege cannot give up groups in a user namespace (`user_namespaces(7)`): the receipt says so.
fn groups(list: &str) -> String {
    match list.split_whitespace().count() {
        0 => "none".to_owned(),
        kept => format!("{kept} of the user's own kept"),
    }
}

/// The lines of a `status` file of `/proc`: names and values.
struct Status<'s>(Vec<(&'s str, &'s str)>);

impl<'s> Status<'s> {
    fn of(text: &'s str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(':')).collect())
    }

    fn value(&self, wanted: &str) -> Option<&'s str> {
        self.0.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.trim())
    }

    /// A line must say exactly this.
    fn field(&self, name: &str, wanted: &str) -> Check {
        match self.value(name) {
            Some(found) if found == wanted => Ok(found.to_owned()),
            found => {
                let found = found.unwrap_or("missing");
                Err((format!("{name} is `{found}`, not `{wanted}`"), Errno(libc::EPROTO)))
            }
        }
    }
}

/// The calling process, which is to be a launcher.
///
/// # Errors
/// The kernel's errno.
pub(super) fn caller() -> Result<Origin, Errno> {
    let directory = links()?;
    let mut namespaces = BTreeMap::new();
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "time", "cgroup"] {
        match kernel_file::link(directory.as_fd(), kind) {
            Err(Errno(libc::ENOENT)) => None,
            found => namespaces.insert(kind.to_owned(), found?),
        };
    }
    Ok(Origin { namespaces, filters: filters_of_caller()? })
}

/// How many filters the calling process has; init inherits them, so that the cell's own has to be one more.
fn filters_of_caller() -> Result<u32, Errno> {
    if process::prctl(libc::PR_GET_SECCOMP, 0)? == 0 {
        return Ok(0);
    }
    let status = kernel_file::read("/proc/thread-self/status")?;
    Status::of(&status)
        .value("Seccomp_filters")
        .and_then(|count| count.parse().ok())
        .ok_or(Errno(libc::EPROTO))
}

/// A process without any cannot empty the bounding set, which alone gives nothing.
fn capabilities(status: &Status<'_>, state: &State<'_>) -> Check {
    let held = state.alone.is_some();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"].into_iter().take(if held { 4 } else { 5 }) {
        status.field(set, "0000000000000000")?;
    }
    status.field("NoNewPrivs", "1")?;
    let sets = if held { "all sets but the bounding one" } else { "all five sets" };
    Ok(format!("{sets} empty, no_new_privs"))
}

/// Without a pid namespace the launcher can be named, and only Landlock's scope, or another user id, keeps it from being
/// signalled. Init may end "all others" only after this.
fn processes() -> Check {
    match process::signal_parent() {
        Err(Errno(libc::EPERM)) => Ok("no signal leaves, init ends what is left".to_owned()),
        Err(errno) => Err(("the launcher".to_owned(), errno)),
        Ok(()) => Err(("the launcher can be signalled".to_owned(), Errno(libc::EPROTO))),
    }
}

/// The canary is readable by mode and mount; only Landlock refuses it. Also gives how often it has refused something.
fn landlock(state: &State<'_>, abstract_socket: Option<UnixDatagram>) -> Result<Held, (String, Errno)> {
    let canary = state.private.map_or_else(|| PathBuf::from(CANARY), private::canary);
    let shown = canary.display();
    match std::fs::File::open(&canary) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
        Err(error) => return Err((shown.to_string(), Errno::from(error))),
        Ok(_) => return Err((format!("`{shown}` can be read"), Errno(libc::EPROTO))),
    }
    let found = state.prepared.plan.steps.iter().find_map(|step| match step {
        Step::Landlock { abi, ports, .. } => Some((*abi, ports.as_ref())),
        _ => None,
    });
    let (abi, ports) = found.unwrap_or((0, None));
    let mut refused = vec!["files"];
    if let Some(bound) = abstract_socket {
        match socket::connect_to(&bound) {
            // A pair of this process's own user, and no mode is in the way: only the scope is.
            Err(Errno(libc::EPERM)) => refused.push("abstract sockets"),
            Err(errno) => return Err(("an abstract socket".to_owned(), errno)),
            Ok(()) => {
                return Err(("an abstract socket can be connected to".to_owned(), Errno(libc::EPROTO)));
            }
        }
    }
    // A port to which no door leads.
    let closed = (9..).find(|port| !ports.is_some_and(|ports| ports.connect.contains(port))).unwrap_or(9);
    // Over UDP who asks the resolver is at any port that is free, and at no port of his choice.
    let protocols = [
        (4, network::Protocol::Tcp, 0, ["TCP connect", "TCP bind"]),
        (10, network::Protocol::Udp, u16::MAX, ["UDP connect", "UDP bind"]),
    ];
    let held = |since: &u32| ports.is_some() && abi >= *since;
    for (since, protocol, at, names) in protocols.into_iter().filter(|(since, ..)| held(since)) {
        for (name, answer) in names.into_iter().zip(network::connect_and_bind(protocol, closed, at)) {
            match answer {
                // Nothing else in a cell gives this answer.
                Err(Errno(libc::EACCES)) => refused.push(name),
                // A kernel without these sockets leaves Landlock nothing to refuse.
                Err(Errno(libc::EAFNOSUPPORT)) => {}
                Err(errno) => return Err((format!("{name} (abi {since})"), errno)),
                Ok(()) => return Err((format!("{name} is not refused (abi {since})"), Errno(libc::EPROTO))),
            }
        }
    }
    let denials = u32::try_from(refused.len()).unwrap_or(u32::MAX);
    Ok(Held { saw: format!("abi {abi}; refused: {}", refused.join(", ")), denials })
}

fn opened(steps: &[Step]) -> Option<&Doors> {
    steps.iter().find_map(|step| match step {
        Step::OpenDoors { doors } => Some(&**doors),
        _ => None,
    })
}

/// What the plan opened; that it listens was found out behind Landlock.
fn doors(steps: &[Step], told: bool) -> Check {
    let doors = opened(steps).ok_or_else(|| ("no doors in the plan".to_owned(), Errno(libc::EPROTO)))?;
    if !doors.network.unix.is_empty() && !told {
        // Nobody would hand in a socket, and a program would be refused each: by a filter that nobody hears.
        return Err(("the listener of the filter, by which sockets come in".to_owned(), Errno(libc::EBUSY)));
    }
    Ok(format!("doors: {}", doors.words()))
}

/// Namespaces of these kinds that are not the launcher's.
fn own_namespaces(origin: &Origin, kinds: &[&str]) -> Result<(), (String, Errno)> {
    let directory = links().map_err(|errno| ("/proc/thread-self/ns".to_owned(), errno))?;
    for kind in kinds {
        let here = kernel_file::link(directory.as_fd(), kind);
        let here = here.map_err(|errno| (format!("the {kind} namespace"), errno))?;
        if origin.namespaces.get(*kind) == Some(&here) {
            return Err((format!("the {kind} namespace is the launcher's"), Errno(libc::EPROTO)));
        }
    }
    Ok(())
}

/// The network namespace is the launcher's, as the plan says.
fn host_network(origin: &Origin) -> Check {
    let directory = links().map_err(|errno| ("/proc/thread-self/ns".to_owned(), errno))?;
    let here = kernel_file::link(directory.as_fd(), "net");
    let here = here.map_err(|errno| ("the net namespace".to_owned(), errno))?;
    match origin.namespaces.get("net") {
        Some(launchers) if *launchers == here => Ok("the host's: all that its user reaches".to_owned()),
        _ => Err(("the net namespace is not the launcher's".to_owned(), Errno(libc::EPROTO))),
    }
}

/// None of the launcher's, pid 1, and no interface that is up but a loopback.
fn namespaces(origin: &Origin, own_network: bool) -> Check {
    own_namespaces(origin, &["user", "mnt", "pid", "ipc", "uts", "time"])?;
    if process::pid() != 1 {
        return Err(("process id is not 1".to_owned(), Errno(libc::EPROTO)));
    }
    if !own_network {
        return Ok("user, mnt, pid, ipc, uts, time; pid 1".to_owned());
    }
    own_namespaces(origin, &["net"])?;
    let devices = read("/proc/self/net/dev")?;
    for line in devices.lines().skip(2) {
        let name = line.split(':').next().unwrap_or_default().trim();
        // Modules such as sit put an interface of theirs into every namespace; it is down and leads nowhere.
        if name != "lo" && network::is_up(name).map_err(|errno| (format!("interface `{name}`"), errno))? {
            return Err((format!("interface `{name}` is up"), Errno(libc::EPROTO)));
        }
    }
    Ok("user, mnt, pid, net, ipc, uts, time; pid 1, only lo".to_owned())
}

/// A read-only tmpfs is the root, and what every host has and no cell gets is not there.
fn private_root(steps: &[Step]) -> Check {
    let root = mount::kind(c"/").map_err(|errno| ("/".to_owned(), errno))?;
    if !root.tmpfs || !root.read_only {
        return Err((format!("the root is not a read-only tmpfs: {root:?}"), Errno(libc::EPROTO)));
    }
    for path in ["/sys", "/proc/sys", "/proc/kcore"] {
        match std::fs::symlink_metadata(path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES)) => {}
            Err(error) => return Err((path.to_owned(), Errno::from(error))),
            Ok(_) => return Err((format!("`{path}` is visible"), Errno(libc::EPROTO))),
        }
    }
    let mut overlays = 0;
    for step in steps {
        if let Step::MountOverlay { target, .. } = step {
            let shown = target.to_string_lossy();
            let place = text(target).and_then(|path| mount::kind(&path));
            if !place.map_err(|errno| (shown.to_string(), errno))?.overlay {
                return Err((format!("`{shown}` is no overlay"), Errno(libc::EPROTO)));
            }
            overlays += 1;
        }
    }
    Ok(match overlays {
        0 => "tmpfs, read-only".to_owned(),
        count => format!("tmpfs, read-only; writes go to {count} overlays"),
    })
}

/// Seen from inside a cgroup namespace that is not the launcher's, the cell is at the root of each hierarchy that
/// limits it; without such a namespace, in the directory that was made for it.
fn cgroup(state: &State<'_>, origin: &Origin) -> Check {
    let membership = match &state.alone {
        None => {
            own_namespaces(origin, &["cgroup"])?;
            read("/proc/self/cgroup")?
        }
        Some(alone) => std::io::read_to_string(&alone.membership)
            .map_err(|error| ("/proc/self/cgroup".to_owned(), Errno::from(error)))?,
    };
    let path = |wanted: &dyn Fn(&str) -> bool| {
        membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            wanted(parts.next()?).then(|| parts.next()).flatten()
        })
    };
    // A controller that no v1 hierarchy has is one of v2, whose line names none.
    let at_root = |controller: &str| {
        let listed = path(&|list: &str| list.split(',').any(|name| name == controller));
        let found = listed.or_else(|| path(&str::is_empty));
        match &state.alone {
            None => found == Some("/"),
            Some(_) => found.is_some_and(|found| found.rsplit('/').next() == Some(state.name.as_str())),
        }
    };
    for controller in ["memory", "pids", "cpu"] {
        if !at_root(controller) {
            return Err((format!("not at the root of `{controller}`: {membership:?}"), Errno(libc::EPROTO)));
        }
    }
    Ok("memory, pids, cpu".to_owned())
}

/// 0, 1, 2 and init's channel, and the scratch directory that the channel hands over; all others are closed.
fn descriptors() -> Check {
    // Linux 6.2 and newer say how many there are (Documentation/filesystems/proc.rst); if all that may be open are, there is no other.
    let may_be_open = [0, 1, 2, 3, 6].into_iter().filter(|number| descriptor::is_open(*number)).count();
    if std::fs::metadata("/proc/self/fd").is_ok_and(|found| found.size() == may_be_open as u64) {
        return Ok("stdin, stdout, stderr".to_owned());
    }
    let list =
        std::fs::read_dir("/proc/self/fd").map_err(|e| ("/proc/self/fd".to_owned(), Errno::from(e)))?;
    let mut numbers: Vec<i32> =
        list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    // 4 is the directory that is being read, 6 the scratch directory.
    match numbers.iter().find(|number| **number == 5 || **number > 6) {
        None => Ok("stdin, stdout, stderr".to_owned()),
        Some(number) => Err((format!("descriptor {number} is open"), Errno(libc::EPROTO))),
    }
}

/// The same where `/proc` is not granted: every number is asked for.
fn descriptors_by_number(alone: &Alone) -> Check {
    const MOST: i32 = 4096;
    let kept = [alone.scope.as_raw_fd(), alone.status.as_raw_fd(), alone.membership.as_raw_fd()];
    match (4..MOST).find(|number| !kept.contains(number) && descriptor::is_open(*number)) {
        None => Ok("stdin, stdout, stderr".to_owned()),
        Some(number) => Err((format!("descriptor {number} is open"), Errno(libc::EPROTO))),
    }
}

fn read(path: &str) -> Result<String, (String, Errno)> {
    kernel_file::read(path).map_err(|error| (path.to_owned(), Errno::from(error)))
}
