//! The ways in which a cell can be made, and which wrapped server has cells of each.
//!
//! Neighbours: `demo::run` makes each attack in each of them, `client` starts a server for what it may have. Never: guesses
//! how a cell was made: its record says it.

use super::attacks::{Attack, Sign, Wall};
use super::record::Record;
use crate::outcome::Built;
use crate::policy::Writes;

/// A way in which a cell can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// For its call.
    OnDemand,
    /// Ahead of its call.
    Ahead,
    /// Ahead of its call, with its server started.
    Spare,
    /// Ahead of its call, at which what its arguments name was put in.
    PutIn,
    /// The same with its server started.
    PutInSpare,
    /// With doors out of it and into it: for its call, or ahead of it where nothing comes in.
    Doors,
    /// For all calls of a session, which follow each other in it.
    Session,
}

/// All of them.
pub(super) const WAYS: [Way; 7] =
    [Way::OnDemand, Way::Ahead, Way::Spare, Way::PutIn, Way::PutInSpare, Way::Doors, Way::Session];

/// What the wrapped server may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Granted {
    /// The workspace, and the project but for what the host trusts in it.
    Direct,
    /// The same, and servers are started before their calls.
    Spared,
    /// As [`Granted::Direct`], and what the arguments of a call name in one more directory.
    Named,
    /// The same, and servers are started before their calls.
    NamedSpared,
    /// As [`Granted::Direct`], and a door each way.
    Doors,
    /// As [`Granted::Direct`], for all calls in one cell.
    Session,
    /// The workspace, where nothing can be protected.
    Unprotected,
    /// The project, and what is written there goes to memory first.
    InMemory(Writes),
}

impl Granted {
    /// Does it have what its calls name?
    pub(super) const fn is_named(self) -> bool {
        matches!(self, Self::Named | Self::NamedSpared)
    }

    /// Are its servers started before their calls?
    pub(super) const fn is_spared(self) -> bool {
        matches!(self, Self::Spared | Self::NamedSpared)
    }
}

impl Way {
    /// What a server is to have whose cells are made so.
    pub(super) const fn granted(self) -> Granted {
        match self {
            Self::OnDemand | Self::Ahead => Granted::Direct,
            Self::Spare => Granted::Spared,
            Self::PutIn => Granted::Named,
            Self::PutInSpare => Granted::NamedSpared,
            Self::Doors => Granted::Doors,
            Self::Session => Granted::Session,
        }
    }

    /// How the cell of a call was made, if its records say so. A cell that waits has nothing that a call names: what this one had of that
    /// was put in.
    pub(super) fn of(granted: Granted, record: &Record) -> Option<Self> {
        match record.cell()? {
            _ if granted == Granted::Doors => record.is_open().then_some(Self::Doors),
            Built::OnDemand => Some(Self::OnDemand),
            Built::Ahead | Built::Spare if granted.is_named() && !record.named => None,
            Built::Ahead if granted.is_named() => Some(Self::PutIn),
            Built::Ahead => Some(Self::Ahead),
            Built::Spare if granted.is_named() => Some(Self::PutInSpare),
            Built::Spare => Some(Self::Spare),
            Built::Session => Some(Self::Session),
        }
    }

    /// Can this attack be made in such a cell, and fail?
    pub(super) const fn has(self, attack: &Attack) -> bool {
        match self {
            Self::OnDemand | Self::Doors => true,
            // Their plan keeps places for names, and no cell of such a plan waits.
            Self::Ahead | Self::Spare | Self::PutIn | Self::PutInSpare => {
                !matches!(attack.sign, Sign::NoTraps)
            }
            // It was there before the names were gone; its calls are not kept apart; and what one leaves is there for the next one.
            Self::Session => {
                !matches!(attack.sign, Sign::NoTraps | Sign::VictimUnharmed)
                    && !matches!(attack.wall, Wall::End)
            }
        }
    }

    /// The word in the document.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Ahead => "ahead",
            Self::Spare => "spare",
            Self::PutIn => "put-in",
            Self::PutInSpare => "put-in-spare",
            Self::Doors => "doors",
            Self::Session => "session",
        }
    }
}
