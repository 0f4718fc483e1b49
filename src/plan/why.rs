//! Says what a plan lets a process do with one path, address or system call, and by which rule of the policy.
//!
//! Neighbours: takes what `host::reach` walked, gives an [`Answer`] to `commands::profile`, which prints it and can have it
//! proved in a cell. Never: looks at the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Plan;
use super::seccomp::{self, BadSyscall, Verdict};
use super::step::{Access, Step};
use crate::host::reach::{Place, Reach};
use crate::host::view::View;
use crate::policy::mode::HOST;
use crate::policy::network::{Destination, DestinationError, Host, allow_line};
use crate::policy::path::{PathError, grantable};
use crate::policy::syscalls::SyscallName;
use crate::policy::{PathRule, Policy};

/// What somebody wants to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Read a file, or list a directory.
    Read,
    /// Change a file, or make one.
    Write,
    /// Execute a file.
    Exec,
}

impl Operation {
    /// As the option is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Exec => "exec",
        }
    }
}

/// May it?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// The policy lets it.
    Allowed,
    /// It does not.
    Refused,
    /// It depends on what the policy does not know.
    Depends,
}

/// The rule that decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct By {
    /// What the rule is, e.g. "`filesystem.read` of `/srv`", or what of the cell decides.
    pub rule: String,
    /// Where it comes from; empty for what every cell has.
    pub origin: String,
    /// The reason that stands with it.
    pub why: String,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The verdict.
    pub decision: Decision,
    /// By which rule.
    pub by: By,
    /// The TOML that would allow it; `None` when it is allowed, or when nothing should allow it.
    pub allow: Option<String>,
    /// What else to know, such as why nothing should allow it.
    pub note: Option<String>,
}

fn of_the_cell(rule: &str, why: &str) -> By {
    By { rule: rule.to_owned(), origin: String::new(), why: why.to_owned() }
}

const fn permits(access: Access, operation: Operation) -> bool {
    match operation {
        Operation::Read => !access.names,
        Operation::Write => access.write,
        Operation::Exec => access.execute,
    }
}

/// The question about a path.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// What was asked for.
    pub operation: Operation,
    /// The path as it was asked for.
    pub path: &'a Path,
    /// Where it leads.
    pub reach: &'a Reach,
}

/// What becomes of a path.
#[must_use]
pub fn file(policy: &Policy, plan: &Plan, view: &View, asked: File<'_>) -> Answer {
    let File { operation, reach, .. } = asked;
    let ruled = plan.steps.iter().any(|step| match step {
        Step::Landlock { rules, .. } => {
            rules.iter().any(|rule| reach.path.starts_with(&rule.path) && permits(rule.access, operation))
        }
        _ => false,
    });
    let refused = |by: By| {
        let (allow, note) = remedy(operation, asked.path, &reach.place);
        Answer { decision: Decision::Refused, by, allow, note }
    };
    let answer = |allowed: bool, by: By| {
        if allowed {
            Answer { decision: Decision::Allowed, by, allow: None, note: None }
        } else {
            refused(by)
        }
    };
    let shown = match &reach.place {
        Place::NotShown => {
            refused(of_the_cell("the private root", "no rule grants it, so it does not exist in the cell"))
        }
        Place::Hidden(path) => match denied(policy, plan, view, path) {
            Some(rule) => refused(by_rule("deny", rule)),
            None => Answer {
                decision: Decision::Refused,
                by: of_the_cell(
                    "what the command does not need",
                    "package managers and credentials beside a program are hidden",
                ),
                allow: None,
                note: Some("no line allows it: a command that is the program itself has it".to_owned()),
            },
        },
        Place::Unknown(errno) => Answer {
            decision: Decision::Depends,
            by: of_the_cell("the host", &format!("it does not say what is there: {errno}")),
            allow: None,
            note: None,
        },
        Place::Made => {
            answer(ruled, of_the_cell("the private root", "made by toolcell, the same in every cell"))
        }
        Place::Device => answer(
            ruled,
            of_the_cell("the cell's `/dev`", "null, zero, full, random and urandom are in every cell"),
        ),
        Place::Proc if operation == Operation::Read => Answer {
            decision: Decision::Depends,
            by: of_the_cell(
                "the cell's `/proc`",
                "it shows the processes of the cell, and of the host its network at most, where the cell is in that",
            ),
            allow: None,
            note: None,
        },
        Place::Proc => refused(of_the_cell("the cell's `/proc`", "it can be read only")),
        Place::Scratch => answer(
            ruled,
            of_the_cell("`filesystem.scratch`", "a private directory, empty when the cell starts"),
        ),
        Place::Bound { mount, access, .. } => {
            let protecting = protecting(view, mount, operation);
            let protected = protecting.is_some();
            let by = protecting.unwrap_or_else(|| granting(policy, view, mount, operation));
            let mut told = answer(permits(*access, operation) && ruled, by);
            if protected {
                told.allow = Some(spelled_out(mount));
                told.note = None;
            }
            if told.decision == Decision::Allowed {
                let overlay = plan
                    .steps
                    .iter()
                    .any(|step| matches!(step, Step::MountOverlay { target, .. } if target == mount));
                let writes = policy.filesystem.writes.name();
                let kept = || format!("it goes to memory of the cell: `filesystem.writes = \"{writes}\"`");
                told.note = remark(reach);
                if overlay && operation == Operation::Write {
                    told.note = Some(told.note.map_or_else(kept, |note| format!("{note}; {}", kept())));
                }
            }
            told
        }
    };
    if operation == Operation::Exec && shown.decision == Decision::Allowed && reach.exists && !reach.program {
        let by = of_the_cell("what it is", "the kernel executes only regular files with an execute bit");
        return Answer { decision: Decision::Refused, by, allow: None, note: None };
    }
    shown
}

fn remark(reach: &Reach) -> Option<String> {
    if !reach.exists {
        return Some("there is nothing of that name now".to_owned());
    }
    let closed = reach.closed.as_ref()?;
    Some(format!(
        "the mode of `{}` closes it to others than its owner, and the kernel asks that too",
        closed.display()
    ))
}

/// Every path rule with the name of its list.
fn rules(policy: &Policy) -> impl Iterator<Item = (&'static str, &PathRule)> {
    let files = &policy.filesystem;
    let lists = [("execute", &files.execute), ("write", &files.write), ("read", &files.read)];
    lists.into_iter().flat_map(|(name, list)| list.iter().map(move |rule| (name, rule)))
}

fn by_rule(list: &str, rule: &PathRule) -> By {
    By {
        rule: format!("`filesystem.{list}` of `{}`", rule.path.display()),
        origin: rule.origin.clone(),
        why: rule.why.clone(),
    }
}

/// What keeps a mount from being written that no rule of the policy names.
fn protecting(view: &View, mount: &Path, operation: Operation) -> Option<By> {
    let vacant = view.vacant.iter().map(|(stand_in, _)| stand_in);
    let seen = view.protected.iter().chain(vacant).find(|seen| seen.target == mount)?;
    (operation == Operation::Write)
        .then(|| of_the_cell(&format!("the protection of `{}`", mount.display()), &seen.why))
}

/// The rule behind a mount: the longest at or above it, and of several for one path the one that allows the most.
fn granting(policy: &Policy, view: &View, mount: &Path, operation: Operation) -> By {
    let place = |rule: &PathRule| {
        let moved = view.granted.iter().any(|seen| seen.target == rule.path && seen.source == mount);
        if moved {
            Some(mount.components().count())
        } else {
            mount.starts_with(&rule.path).then(|| rule.path.components().count())
        }
    };
    let wanted = |list: &str| match operation {
        Operation::Read => true,
        Operation::Write => list == "write",
        Operation::Exec => list == "execute",
    };
    rules(policy)
        .filter_map(|(list, rule)| Some((place(rule)?, wanted(list), list, rule)))
        .max_by_key(|(length, wanted, _, _)| (*length, *wanted))
        .map_or_else(
            || {
                of_the_cell(
                    &format!("what the command needs: `{}`", mount.display()),
                    "found from the command, read-only",
                )
            },
            |(_, _, list, rule)| by_rule(list, rule),
        )
}

/// The `deny` behind a hidden path, of that name or of what the name leads to; none of what the runtime has no use for.
fn denied<'p>(policy: &'p Policy, plan: &Plan, view: &View, path: &Path) -> Option<&'p PathRule> {
    let sources: Vec<PathBuf> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Bind { source, target, .. } | Step::MountOverlay { source, target, .. } => {
                Some(source.join(path.strip_prefix(target).ok()?))
            }
            _ => None,
        })
        .collect();
    let denies = |rule: &PathRule| {
        path == rule.path
            || view.hidden.iter().any(|seen| seen.target == rule.path && sources.contains(&seen.source))
    };
    policy.filesystem.deny.iter().find(|rule| denies(rule))
}

/// The line that would allow it, or why there is none.
fn remedy(operation: Operation, path: &Path, place: &Place) -> (Option<String>, Option<String>) {
    let nothing = |why: &str| (None, Some(format!("no line allows it: {why}")));
    match place {
        Place::Hidden(_) => return nothing("`deny` is above all grants; the rule itself would have to go"),
        Place::Made | Place::Device | Place::Proc => {
            return nothing("toolcell makes it itself, and no rule reaches it");
        }
        Place::Scratch => {
            return match operation {
                Operation::Exec => (Some("[filesystem]\nexecute = [\"{scratch}\"]".to_owned()), None),
                Operation::Read | Operation::Write => {
                    (Some("[filesystem]\nscratch = \"64MiB\"".to_owned()), None)
                }
            };
        }
        Place::NotShown | Place::Bound { .. } | Place::Unknown(_) => {}
    }
    let line = match grant(operation, path) {
        Ok(line) => line,
        Err(error) => return nothing(&error.to_string()),
    };
    let both = (operation == Operation::Write).then(|| {
        "a path that does not exist cannot be granted; grant the directory that it is to be made in"
            .to_owned()
    });
    (Some(line), both)
}

/// The line that grants a path.
///
/// # Errors
/// Why none may.
pub fn grant(operation: Operation, path: &Path) -> Result<String, PathError> {
    grantable(path)?;
    let list = match operation {
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Exec => "execute",
    };
    let shown = crate::policy::path::escape(&path.to_string_lossy());
    Ok(format!("[filesystem]\n{list} = [{}]", toml_text(&shown)))
}

/// The line that grants a name which is protected in a writable directory, and may not exist.
#[must_use]
pub fn spelled_out(path: &Path) -> String {
    format!("[filesystem]\nwrite = [{}]", optional(path))
}

/// An item of a list of paths, for a path that may not exist.
pub(super) fn optional(path: &Path) -> String {
    let shown = crate::policy::path::escape(&path.to_string_lossy());
    format!("{{ path = {}, optional = true }}", toml_text(&shown))
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Calls that are of use inside a cell, and that a profile may allow. What the rest would open is the kernel, or the
/// way to what the other layers hide.
const ALLOWABLE: &[&str] =
    &["ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "personality", "setpriority", "prlimit64"];

/// The line that allows a system call, if anything should.
#[must_use]
pub fn call(name: &str) -> Option<String> {
    ALLOWABLE.contains(&name).then(|| format!("[syscalls]\nallow = [\"{name}\"]"))
}

/// What becomes of a system call in a cell with a private root, on a host with this ABI of Landlock.
///
/// # Errors
/// There is none of that name.
pub fn syscall(policy: &Policy, landlock_abi: u32, name: &str) -> Result<Answer, BadSyscall> {
    let explained = seccomp::explain(name, &policy.syscalls, !policy.network.unix.is_empty())?;
    let named = |list: &[String]| list.iter().any(|known| known == name);
    let by = |rule: &str| By {
        rule: rule.to_owned(),
        origin: format!("profile `{}`", policy.name),
        why: explained.why.to_owned(),
    };
    let by = if named(&policy.syscalls.deny) {
        by("`syscalls.deny`")
    } else if named(&policy.syscalls.allow) {
        by("`syscalls.allow`")
    } else {
        of_the_cell("the built-in system call list", explained.why)
    };
    let allow = call(name).filter(|_| !named(&policy.syscalls.deny));
    let refused = |how: String| Answer {
        decision: Decision::Refused,
        by: by.clone(),
        allow: allow.clone(),
        note: Some(match seccomp::named(name) {
            SyscallName::Never(_) => {
                format!("{how}; no line allows it, the launcher's own filter refuses it too")
            }
            SyscallName::Known if call(name).is_none() => {
                format!(
                    "{how}; nothing should allow it: it opens the kernel, or the way to what other layers hide"
                )
            }
            SyscallName::Known | SyscallName::Unknown => how,
        }),
    };
    Ok(match explained.verdict {
        Verdict::Allow if seccomp::unheld(landlock_abi).contains(&name) => Answer {
            by: of_the_cell(
                "the system call filter",
                "Landlock of this kernel holds no ports (Linux 6.7 and newer do)",
            ),
            allow: None,
            ..refused("it returns EPERM, and `listen` in `[network]` is refused there".to_owned())
        },
        Verdict::Allow => Answer { decision: Decision::Allowed, by, allow: None, note: None },
        Verdict::Errno(errno) => refused(format!("it returns {errno}")),
        Verdict::Kill => refused("the process is killed".to_owned()),
        Verdict::Conditional(text) => {
            Answer { decision: Decision::Depends, by, allow: None, note: Some(format!("allowed: {text}")) }
        }
    })
}

/// What becomes of a connection: a cell has a network namespace in which there is nothing but its own loopback, and its doors; or it is
/// in the host's.
///
/// # Errors
/// It is no destination.
pub fn connect(policy: &Policy, destination: &str) -> Result<Answer, DestinationError> {
    let network = &policy.network;
    let asked: Destination = destination.parse()?;
    if network.mode.is_host() {
        let by =
            |rule, why: &str| By { rule, origin: format!("profile `{}`", policy.name), why: why.to_owned() };
        let outside = policy.floor.with_host_network().name();
        return Ok(match policy.floor.has_own_network() {
            false => Answer {
                decision: Decision::Allowed,
                by: by(
                    format!("`{HOST}` in `[network]`"),
                    "the cell is in the host's network: all that its user reaches is allowed",
                ),
                allow: None,
                note: Some("nothing of it is in the record".to_owned()),
            },
            true => Answer {
                decision: Decision::Refused,
                by: by(
                    format!("`floor = \"{}\"`", policy.floor.name()),
                    "it does not accept the host's network, so that every call is refused",
                ),
                allow: Some(format!("floor = \"{outside}\"")),
                note: None,
            },
        });
    }
    // They are the same place in a cell, and have one door.
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let found = match &asked.host {
        Host::Name(name) => network.allows_name(name, asked.port).or_else(|| {
            let mut here = here.into_iter().filter(|_| name == "localhost");
            here.find_map(|address| network.allows_address(address, asked.port))
        }),
        Host::Address(address) => network.allows_address(*address, asked.port).or_else(|| {
            let is_here = here.contains(address);
            is_here.then(|| network.allows_name("localhost", asked.port)).flatten()
        }),
        Host::Below(_) => network.doors().find(|allowed| allowed.destination == asked),
    };
    if let Some(allowed) = found {
        let by = By {
            rule: format!("`network.allow` of `{}`", allowed.destination),
            origin: allowed.origin.clone(),
            why: String::new(),
        };
        let ended = network.ends(&allowed.destination).map(|http| {
            format!(
                "{}; programs speak HTTP to `{}` for it, and there is nothing at the port itself",
                http.words(),
                http.address()
            )
        });
        let note = ended.or_else(|| match &asked.host {
            Host::Name(name) if network.hosts.contains_key(name) => {
                Some("`network.hosts` says where it leads".to_owned())
            }
            Host::Name(_) | Host::Below(_) => Some(
                "it leads to the open network only: an address that is private or this host's own is refused when the name is \
                 resolved, unless `network.hosts`, `network.private` or `network.allow` names it"
                    .to_owned(),
            ),
            Host::Address(_) => None,
        });
        let limits = network
            .bounds_of(&asked.host, asked.port)
            .map(|bounded| format!("the limits of `{}`: {}", bounded.to, bounded.limits.words()));
        let note = [note, limits].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
        return Ok(Answer { decision: Decision::Allowed, by, allow: None, note });
    }
    let denied = network.deny.iter().find(|denied| denied.voids(&asked));
    let (by, allow) = match denied {
        Some(denied) => (of_the_cell(&format!("`network.deny` of `{denied}`"), ""), None),
        None => (
            of_the_cell(
                "the cell's network namespace",
                "it has a loopback interface of its own, doors to what is allowed, and nothing else",
            ),
            Some(allow_line(&asked.to_string())),
        ),
    };
    let note = denied.map(|_| "no line allows it: `deny` is above `allow`".to_owned());
    Ok(Answer { decision: Decision::Refused, by, allow, note })
}
