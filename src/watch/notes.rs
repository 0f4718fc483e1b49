//! What a record keeps of many things that a cell did: the first different ones, how often and when each came, and how
//! many came beside them.
//!
//! Neighbours: `refusals` notes calls, `files` notes files, `denials` what Landlock denied. Never: grows with what a cell does.

use std::time::Duration;

/// Distinct things that a record holds; what comes after them is counted together.
const MOST: usize = 32;

/// One thing.
#[derive(Debug)]
pub(super) struct Note<T> {
    pub(super) what: T,
    pub(super) count: u64,
    pub(super) first: Duration,
    pub(super) last: Duration,
}

/// All of one kind, in the order in which they first came.
#[derive(Debug)]
pub(super) struct Notes<T> {
    pub(super) noted: Vec<Note<T>>,
    /// Beyond [`MOST`] distinct ones.
    pub(super) others: u64,
}

impl<T: PartialEq> Notes<T> {
    pub(super) const fn new() -> Self {
        Self { noted: Vec::new(), others: 0 }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    pub(super) fn add(&mut self, what: T, now: Duration) {
        if !self.again(&what, now) {
            if self.noted.len() < MOST {
                self.noted.push(Note { what, count: 1, first: now, last: now });
            } else {
                self.others = self.others.saturating_add(1);
            }
        }
    }

    /// What came after these.
    pub(super) fn join(&mut self, later: &Self)
    where
        T: Clone,
    {
        for Note { what, count, first, last } in &later.noted {
            let room = self.noted.len() < MOST;
            match self.noted.iter_mut().find(|note| note.what == *what) {
                Some(known) => {
                    known.count = known.count.saturating_add(*count);
                    known.last = *last;
                }
                None if room => {
                    let (what, count, first, last) = (what.clone(), *count, *first, *last);
                    self.noted.push(Note { what, count, first, last });
                }
                None => self.others = self.others.saturating_add(*count),
            }
        }
        self.others = self.others.saturating_add(later.others);
    }

    /// Counts what is there already; false when it is not.
    pub(super) fn again(&mut self, what: &T, now: Duration) -> bool {
        let known = self.noted.iter_mut().find(|note| note.what == *what);
        if let Some(note) = known {
            note.count = note.count.saturating_add(1);
            note.last = now;
            return true;
        }
        false
    }
}
