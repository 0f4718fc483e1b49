//! The exit codes of the `toolcell` process, each with its meaning, in one exhaustive match.
//!
//! Neighbours: commands return an [`Ending`], `main` turns it into the process's status, `cli` prints the table
//! in help and manual. Never: ends the process.

use crate::outcome::Limit;

/// How the process ends, as seen by who started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything asked for was done; for `exec`, the command exited with 0.
    Success,
    /// `exec`: the command's own exit status, unchanged.
    Exited(u8),
    /// `exec`: the command was ended by this signal, and no limit was the reason.
    Signalled(u8),
    /// Something failed that no other code names.
    Other,
    /// The command line is wrong.
    Usage,
    /// `exec`: the command succeeded, and its changes were not done to the host.
    NotApplied,
    /// `audit verify`: the log is not as it was written. `lock`: a server is not as it was accepted.
    Altered,
    /// `profile why`: the profile does not allow what was asked about. `lock`: something is flagged and was not accepted.
    Refused,
    /// A profile or the configuration is invalid.
    Configuration,
    /// This host does not reach the floor.
    Floor,
    /// A cell could not be built.
    Cell,
    /// The audit record or the report could not be written.
    Audit,
    /// The time limit stopped the command.
    Time,
    /// Another limit stopped the command.
    Limit,
    /// The command was found, but cannot be executed.
    NotExecutable,
    /// The command was not found.
    NotFound,
}

impl Ending {
    /// The endings that are toolcell's own words, in the order of their codes: the rows of the table in the help.
    pub const OWN: [Self; 14] = [
        Self::Success,
        Self::Other,
        Self::Usage,
        Self::NotApplied,
        Self::Altered,
        Self::Refused,
        Self::Configuration,
        Self::Floor,
        Self::Cell,
        Self::Audit,
        Self::Time,
        Self::Limit,
        Self::NotExecutable,
        Self::NotFound,
    ];

    /// The number that the process exits with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Exited(status) => status,
            Self::Signalled(signal) => signal.saturating_add(128),
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotApplied => 117,
            Self::Altered => 118,
            Self::Refused => 119,
            Self::Configuration => 120,
            Self::Floor => 121,
            Self::Cell => 122,
            Self::Audit => 123,
            Self::Time => 124,
            Self::Limit => 125,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
        }
    }

    /// What the code means, for help and manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Exited(_) => "exec: the command's own exit status",
            Self::Signalled(_) => "exec: 128 + the signal that ended the command",
            Self::Other => "another failure, such as output that could not be written",
            Self::Usage => "the command line is wrong",
            Self::NotApplied => {
                "exec --writes review: the command succeeded, and its changes were not done to the host"
            }
            Self::Altered => "audit verify, lock: the log, or a server, is not as it was written",
            Self::Refused => "profile why, lock: what was asked about is not allowed, or flagged",
            Self::Configuration => "a profile or the configuration is invalid",
            Self::Floor => "this host does not reach the floor",
            Self::Cell => "a cell could not be built",
            Self::Audit => "the audit record or the report could not be written",
            Self::Time => "the time limit stopped the command",
            Self::Limit => "another limit stopped the command",
            Self::NotExecutable => "the command was found, but cannot be executed",
            Self::NotFound => "the command was not found",
        }
    }
}

impl From<Limit> for Ending {
    /// The ending of a command that this limit stopped.
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Time => Self::Time,
            Limit::Memory
            | Limit::Cpu
            | Limit::Tasks
            | Limit::Output
            | Limit::OpenFiles
            | Limit::FileSize
            | Limit::Scratch => Self::Limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolcells_own_codes_are_distinct_and_sorted() {
        assert!(Ending::OWN.is_sorted_by(|a, b| a.code() < b.code()));
    }

    #[test]
    fn a_signal_is_added_to_128() {
        assert_eq!(Ending::Signalled(9).code(), 137);
        assert_eq!(Ending::Signalled(255).code(), 255);
        assert_eq!(Ending::Exited(3).code(), 3);
    }

    #[test]
    fn only_the_time_limit_is_124() {
        assert_eq!(Ending::from(Limit::Time).code(), 124);
        assert_eq!(Ending::from(Limit::Memory).code(), 125);
    }
}
