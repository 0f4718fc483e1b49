//! The system call filter: an allow-list by number and, for some calls, by argument, as a program of classic BPF.
//!
//! Neighbours: takes a profile's [`Syscalls`], gives the instructions of [`super::step::Step::Seccomp`], which `launch`
//! installs. `table` has the numbers, `groups` the answers and their reasons, `rules` the arguments, `tree` the code.
//! Never: installs anything, or asks the running kernel what it knows.
//!
//! What it answers, in this order:
//! 1. another architecture than x86-64, and the x32 ABI: the process is killed;
//! 2. a call of the allow-list: it runs, some only with harmless arguments;
//! 3. another known call: `EPERM`, or `ENOSYS` where programs have an older way;
//! 4. a number that the table does not have: `ENOSYS`, so that libc falls back as on an older kernel.

mod attempt;
mod evaluate;
mod groups;
#[cfg(test)]
mod model;
mod observe;
pub mod own;
mod past;
mod rules;
mod suggest;
mod table;
mod tree;

#[cfg(test)]
mod tests;

pub use attempt::{Attempt, Destination, attempt};
pub use evaluate::{allows, refusal};
use groups::{GROUPS, Group, OF_SOCKETS};
pub use observe::{observing, opens, reaches, runs};
pub use past::{PAST_LANDLOCK, PAST_LANDLOCK_OUTSIDE, denying, holds_ports, unheld};
use rules::{Action, Entry, Errno};
use table::{TABLE, find, is_known};
pub use table::{name, names, number};
pub use tree::AUDIT_ARCH_X86_64;
use tree::{Instruction, NO_CALL, Range, X32_BIT};

use crate::policy::Syscalls;
use crate::policy::syscalls::{NEVER_HINT, SyscallName, never_allowed};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the system call filter has numbers and argument rules for x86-64 only");

/// A name in `[syscalls]` that cannot stand there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSyscall {
    /// No system call has it.
    #[error("unknown system call `{name}`")]
    Unknown {
        /// As it was written.
        name: String,
        /// The known name that is nearest, if one is near.
        nearest: Option<&'static str>,
    },
    /// The launcher's filter would refuse what the profile allows.
    #[error("{}", never_allowed(name, why))]
    Never {
        /// Which.
        name: &'static str,
        /// Why, without a full stop.
        why: &'static str,
    },
}

impl BadSyscall {
    /// The error for a name, if no call has it.
    fn check(name: &str) -> Result<(), Self> {
        if is_known(name) {
            return Ok(());
        }
        Err(Self::Unknown { name: name.to_owned(), nearest: suggest::nearest(name, names()) })
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest, .. } => nearest.map(|nearest| format!("did you mean `{nearest}`?")),
            Self::Never { .. } => Some(NEVER_HINT.to_owned()),
        }
    }
}

/// What a profile may do with a name.
#[must_use]
pub fn named(name: &str) -> SyscallName {
    match (is_known(name), never(name)) {
        (false, _) => SyscallName::Unknown,
        (true, Some((_, why))) => SyscallName::Never(why),
        (true, None) => SyscallName::Known,
    }
}

/// A call that is refused to every cell, by its name, and why.
fn never(name: &str) -> Option<(&'static str, &'static str)> {
    let name = own::NEVER.iter().find(|never| **never == name)?;
    Some((name, group_of(name).map_or("not in the allow-list", |group| group.why)))
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It runs, whatever its arguments.
    Allow,
    /// It returns this error, by the kernel's name.
    Errno(&'static str),
    /// The process is killed.
    Kill,
    /// It depends on the arguments: this is what runs, the rest returns an error.
    Conditional(&'static str),
}

/// A verdict and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of the call.
    pub verdict: Verdict,
    /// Why, without a full stop.
    pub why: &'static str,
}

/// The program for `SECCOMP_SET_MODE_FILTER`: code, jump if true, jump if false, operand of each `struct sock_filter`.
/// `sockets`: the cell has doors to sockets with a path.
///
/// # Errors
/// A name in `changes` is not a system call, or one that no profile can allow.
pub fn compile(changes: &Syscalls, sockets: bool) -> Result<Vec<Instruction>, BadSyscall> {
    check(changes)?;
    let unknown = Entry::Always(Action::Refuse(Errno::Nosys));
    Ok(tree::program(&ranges(unknown, &GROUP_OF, |name, group| decide(name, *group, changes, sockets).0)))
}

/// What becomes of a call that is known by its name, and why.
///
/// # Errors
/// `call` or a name in `changes` is not a system call, or `changes` allow one that no profile can.
pub fn explain(call: &str, changes: &Syscalls, sockets: bool) -> Result<Explanation, BadSyscall> {
    BadSyscall::check(call)?;
    check(changes)?;
    Ok(explain_known(call, changes, sockets))
}

/// What becomes of a call of the x86-64 architecture that is known by its number only, and why.
///
/// # Errors
/// A name in `changes` is not a system call, or one that no profile can allow.
pub fn explain_number(call: u32, changes: &Syscalls, sockets: bool) -> Result<Explanation, BadSyscall> {
    check(changes)?;
    Ok(match name(call) {
        Some(name) => explain_known(name, changes, sockets),
        None if call & X32_BIT != 0 && call != NO_CALL => {
            Explanation { verdict: Verdict::Kill, why: "a call of the x32 ABI, which no program here uses" }
        }
        None => Explanation {
            verdict: Verdict::Errno(Errno::Nosys.name()),
            why: "not in the table: newer than this program, or no call at all",
        },
    })
}

/// Are all names known, and is nothing allowed that the launcher's filter would refuse all the same?
fn check(changes: &Syscalls) -> Result<(), BadSyscall> {
    changes.allow.iter().chain(&changes.deny).try_for_each(|name| BadSyscall::check(name))?;
    match changes.allow.iter().find_map(|name| never(name)) {
        Some((name, why)) => Err(BadSyscall::Never { name, why }),
        None => Ok(()),
    }
}

/// The group of each call of [`TABLE`]. Worked out by the compiler, because every start of a cell needs it.
static GROUP_OF: [Option<&Group>; TABLE.len()] = table::in_order(GROUPS);

/// The group of a call, by name.
fn group_of(name: &str) -> Option<&'static Group> {
    GROUP_OF.get(find(name)?).copied().flatten()
}

/// What the filter does with a known call, and why: a profile's `deny` before what doors to sockets take, that before its `allow`,
/// and all of them before the groups.
fn decide(
    name: &str,
    group: Option<&'static Group>,
    changes: &Syscalls,
    sockets: bool,
) -> (Entry, &'static str) {
    let refused = Entry::Always(Action::Refuse(Errno::Perm));
    let (entry, why) = group.map_or((refused, "not in the allow-list"), |group| (group.entry, group.why));
    if changes.deny.iter().any(|denied| denied == name) {
        // A call that is refused anyway keeps its error, because callers know how to do without it.
        let entry = match entry {
            Entry::Always(Action::Refuse(_) | Action::Yield | Action::Kill) => entry,
            Entry::Always(Action::Allow) | Entry::Arguments(_) => refused,
        };
        return (entry, "the profile denies it");
    }
    let mut of_sockets = OF_SOCKETS.iter().filter(|_| sockets);
    if let Some(group) = of_sockets.find(|group| group.names.contains(&name)) {
        return (group.entry, group.why);
    }
    if changes.allow.iter().any(|allowed| allowed == name) {
        return (Entry::Always(Action::Allow), "the profile allows it");
    }
    (entry, why)
}

/// The verdict on a name that is in the table.
fn explain_known(name: &str, changes: &Syscalls, sockets: bool) -> Explanation {
    let (entry, why) = decide(name, group_of(name), changes, sockets);
    let verdict = match entry {
        Entry::Always(Action::Allow) => Verdict::Allow,
        Entry::Always(Action::Refuse(errno)) => Verdict::Errno(errno.name()),
        Entry::Always(Action::Yield) => Verdict::Errno(Errno::Nosys.name()),
        Entry::Always(Action::Kill) => Verdict::Kill,
        Entry::Arguments(rule) => Verdict::Conditional(rule.text),
    };
    Explanation { verdict, why }
}

/// The table as ranges of equal answers; holes and all that comes after it are `unknown`. `known` is something about each
/// call of the table, in its order.
fn ranges<T>(unknown: Entry, known: &[T; TABLE.len()], decide: impl Fn(&str, &T) -> Entry) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut extend = |first: u32, entry: Entry| {
        if ranges.last().is_none_or(|last| last.entry != entry) {
            ranges.push(Range { first, entry });
        }
    };
    let mut next = 0;
    for ((number, name), known) in TABLE.iter().zip(known) {
        if *number != next {
            extend(next, unknown);
        }
        extend(*number, decide(name, known));
        next = number + 1;
    }
    extend(next, unknown);
    ranges
}
