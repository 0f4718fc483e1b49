//! What a name in `[syscalls]` may be, and the words for one that cannot be allowed.
//!
//! Neighbours: `profile` asks about each name that it reads, `plan::seccomp` knows. Never: has a list of names.

/// What a profile may do with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyscallName {
    /// No system call has it.
    Unknown,
    /// It can be denied and never allowed; why, without a full stop.
    Never(&'static str),
    /// It can be allowed and denied.
    Known,
}

/// What is wrong with allowing a call of the second kind.
#[must_use]
pub fn never_allowed(name: &str, why: &str) -> String {
    format!("no profile can allow system call `{name}`: {why}")
}

/// What to do about it.
pub const NEVER_HINT: &str = "take it out of `allow`: the launcher refuses this call to every cell";
