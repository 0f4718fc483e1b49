//! The attacks of a demonstration, in order: tool, arguments, the sign of an escape, and what should stand in its way.
//!
//! Neighbours: `demo::run` makes one call for each, `judge` reads the sign. Never: does anything itself.

mod bounds;
mod list;
mod reviewed;

use serde_json::Value;

use super::stage::Stage;
use crate::outcome::Limit;

/// How an escape shows from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The planted secret is in what came back.
    Secret,
    /// The home directory is not as it was made.
    AsMade,
    /// What the host trusts in the project is not as it was made.
    TrapsAsMade,
    /// What the host trusts is in the project, where it was not.
    NoTraps,
    /// A set-user-id file is in the workspace.
    NoSetuid,
    /// The marker process is gone.
    MarkerLives,
    /// The host's name is in what came back.
    HostName,
    /// The daemon is among the processes of the host.
    NoDaemon,
    /// A listener was called.
    Silence,
    /// The victim's call got another answer than its own, or more than one.
    VictimUnharmed,
    /// The call got more than one answer.
    OneAnswer,
    /// The mark came through to the client.
    NoMark,
    /// The audit log, or what `run` says of itself, has a line that the tool made up.
    LogIntact,
    /// The audit log has what the tool added to it: in the cell it may make a file of its own by that name.
    LogKept,
    /// The tool's words came through in number.
    Quiet,
    /// The probe's word, unless all that it asked was the cell's own resolver, and the record says what for.
    Unasked,
    /// The probe got to its own bound.
    Limit,
    /// There is none: the probe's word, and that the layer was verified to be on.
    Word,
}

impl Sign {
    /// Does the tool write its answer itself, so that there is no report?
    pub(super) const fn is_answered_by_hand(self) -> bool {
        self.is_protocol() || matches!(self, Self::LogIntact)
    }

    /// Is the attack one on the protocol?
    pub(super) const fn is_protocol(self) -> bool {
        matches!(self, Self::VictimUnharmed | Self::OneAnswer | Self::NoMark)
    }
}

/// What should stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wall {
    /// Only what was granted exists.
    View,
    /// Nothing that was written can be executed.
    Execute,
    /// Privileges are gone for good.
    Privilege,
    /// The system call is not in the list.
    Call,
    /// Only the cell's own processes can be named.
    Processes,
    /// Every process of a cell ends with its call.
    End,
    /// The environment holds only what was passed.
    Environment,
    /// The host's names are not the cell's.
    Names,
    /// Nothing is open but the cell's own three pipes.
    Descriptors,
    /// What a tool says is escaped, and bounded.
    Output,
    /// What is left in memory of the cell is reviewed before it is done to the host, where no other wall stood before it.
    Review,
    /// The same, and a person has to agree.
    Agreed,
    /// What is left in memory of the cell goes with it.
    Discarded,
    /// There is no network but the cell's own.
    Network,
    /// The rules of MCP.
    Protocol,
    /// A limit.
    Limit(Limit),
    /// A limit of the kernel for each process, which no profile has.
    Rlimit,
}

/// The tool's arguments; the flag says that there is no cell.
type Arguments = fn(&Stage, bool) -> Value;

/// One attack.
#[derive(Debug)]
pub(super) struct Attack {
    /// The heading it stands under.
    pub(super) class: &'static str,
    /// What it tries, in at most 29 characters.
    pub(super) title: &'static str,
    /// The tool of the hostile server.
    pub(super) tool: &'static str,
    /// What the tool is given.
    pub(super) arguments: Arguments,
    /// How an escape shows.
    pub(super) sign: Sign,
    /// What should stop it.
    pub(super) wall: Wall,
}

/// All attacks but those on what a cell writes to memory.
pub(super) fn direct() -> impl Iterator<Item = &'static Attack> {
    list::ATTACKS.iter().chain(bounds::ATTACKS)
}

/// Those of a tool that writes to memory of its cell.
pub(super) fn reviewed() -> impl Iterator<Item = &'static Attack> {
    reviewed::ATTACKS.iter()
}

/// The class of [`reviewed`].
pub(super) const REVIEW: &str = reviewed::REVIEW;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn titles_tell_attacks_apart_and_fit_into_the_table() {
        let titles: BTreeSet<&str> = direct().chain(reviewed()).map(|attack| attack.title).collect();
        assert_eq!(titles.len(), direct().chain(reviewed()).count());
        assert!(titles.iter().all(|title| title.chars().count() <= 29), "{titles:?}");
    }
}
