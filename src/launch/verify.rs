//! Looks at each layer from inside the finished cell, before exec: what is not on stops the launch.
//!
//! Neighbours: `launch::init` runs it as the last step before exec; the result is the receipt. Never: trusts that a
//! step which returned 0 had its effect.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::LaunchError;
use super::init::State;
use crate::outcome::{Built, Layer, Receipt};
use crate::plan::step::{CANARY, EMPTY_DIRECTORY, EMPTY_FILE, Step};
use crate::sys::{Errno, kernel_file, mount, network, process};

/// What a check saw, or what was wrong.
type Check = Result<String, (String, Errno)>;

pub(super) fn run(layers: &[Layer], state: &State<'_>) -> Result<Receipt, LaunchError> {
    let mut seen = BTreeMap::new();
    let failed = |layer: Layer, object: String, errno| {
        LaunchError::new("verify", format!("{}: {object}", layer.name()), errno)
    };
    let status = kernel_file::read("/proc/self/status")
        .map_err(|error| failed(Layer::Root, "/proc/self/status".to_owned(), Errno::from(error)))?;
    for layer in layers {
        let check = match layer {
            Layer::Namespaces => namespaces(state),
            Layer::Root => private_root(),
            Layer::Landlock => landlock(state),
            Layer::Seccomp => field(&status, "Seccomp", "2").map(|_mode| "filter".to_owned()),
            Layer::Capabilities => capabilities(&status),
            Layer::Cgroup => cgroup(state),
            Layer::Rlimit | Layer::Deadline | Layer::Output | Layer::Protocol => continue,
        };
        let saw = check.map_err(|(object, errno)| failed(*layer, object, errno))?;
        seen.insert(layer.name().to_owned(), saw);
    }
    let ids = ["Uid", "Gid", "Groups"].map(|name| value(&status, name).unwrap_or_default().to_owned());
    seen.insert(
        "identity".to_owned(),
        format!("uid {} gid {} groups {}", first(&ids[0]), first(&ids[1]), groups(&ids[2])),
    );
    seen.insert("descriptors".to_owned(), descriptors().map_err(|(o, e)| failed(Layer::Root, o, e))?);
    Ok(Receipt { floor: state.prepared.plan.floor, cell: Built::OnDemand, layers: seen })
}

/// What the plan hides is covered now, while a cell waits as well as when it goes on.
pub(super) fn covers(steps: &[Step]) -> Result<(), LaunchError> {
    let look = |path: &Path| {
        let seen = std::fs::symlink_metadata(path);
        let seen =
            seen.map_err(|error| LaunchError::new("hide", path.to_string_lossy(), Errno::from(error)))?;
        Ok((seen.dev(), seen.ino()))
    };
    let empty = [look(Path::new(EMPTY_FILE))?, look(Path::new(EMPTY_DIRECTORY))?];
    for step in steps {
        if let Step::Hide { path } = step
            && !empty.contains(&look(path)?)
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

fn value<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// A line of `/proc/self/status` must say exactly this.
fn field(status: &str, name: &str, wanted: &str) -> Check {
    match value(status, name) {
        Some(found) if found == wanted => Ok(found.to_owned()),
        found => {
            Err((format!("{name} is `{}`, not `{wanted}`", found.unwrap_or("missing")), Errno(libc::EPROTO)))
        }
    }
}

fn capabilities(status: &str) -> Check {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        field(status, set, "0000000000000000")?;
    }
    field(status, "NoNewPrivs", "1")?;
    Ok("all five sets empty, no_new_privs".to_owned())
}

/// The canary is readable by mode and mount; only Landlock refuses it.
fn landlock(state: &State<'_>) -> Check {
    match std::fs::File::open(CANARY) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {}
        Err(error) => return Err((CANARY.to_owned(), Errno::from(error))),
        Ok(_) => return Err((format!("`{CANARY}` can be read"), Errno(libc::EPROTO))),
    }
    let abi = state.prepared.plan.steps.iter().find_map(|step| match step {
        Step::Landlock { abi, .. } => Some(*abi),
        _ => None,
    });
    Ok(format!("abi {}", abi.unwrap_or(0)))
}

/// A namespace of this kind that is not the launcher's.
fn own_namespace(state: &State<'_>, kind: &str) -> Result<(), (String, Errno)> {
    let path = format!("/proc/self/ns/{kind}");
    let here = std::fs::read_link(&path).map_err(|error| (path, Errno::from(error)))?;
    match state.prepared.namespaces.iter().find(|(known, _)| *known == kind) {
        Some((_, launchers)) if *launchers == here => {
            Err((format!("the {kind} namespace is the launcher's"), Errno(libc::EPROTO)))
        }
        _ => Ok(()),
    }
}

/// None of the launcher's, pid 1, and no interface that is up but a loopback.
fn namespaces(state: &State<'_>) -> Check {
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "time"] {
        own_namespace(state, kind)?;
    }
    if process::pid() != 1 {
        return Err(("process id is not 1".to_owned(), Errno(libc::EPROTO)));
    }
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
fn private_root() -> Check {
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
    Ok("tmpfs, read-only".to_owned())
}

/// Seen from inside a cgroup namespace that is not the launcher's, the cell is at the root of each hierarchy that
/// limits it.
fn cgroup(state: &State<'_>) -> Check {
    own_namespace(state, "cgroup")?;
    let membership = read("/proc/self/cgroup")?;
    let path = |wanted: &dyn Fn(&str) -> bool| {
        membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            wanted(parts.next()?).then(|| parts.next()).flatten()
        })
    };
    // A controller that no v1 hierarchy has is one of v2, whose line names none.
    let at_root = |controller: &str| {
        let listed = path(&|list: &str| list.split(',').any(|name| name == controller));
        listed.or_else(|| path(&str::is_empty)) == Some("/")
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

fn read(path: &str) -> Result<String, (String, Errno)> {
    kernel_file::read(path).map_err(|error| (path.to_owned(), Errno::from(error)))
}
