//! Whether a log is what was written: each line against its hash, the numbers against each other, and both against what
//! was signed.
//!
//! Reading comes first and keeps of each line its number and two hashes; what is wrong is worked out from these. So an
//! edited line is told from a removed one and from one that was moved, also in a log in which more than one thing was
//! done.
//!
//! Neighbours: `audit::chain` has the arithmetic, `commands::audit` shows what is found. Never: writes.

use std::collections::HashMap;
use std::io::{self, BufRead};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::chain::{Hash, Link, Sealed, sealed};
use super::checkpoint::Checkpoint;
use super::key::Public;
use super::record::{Continued, Torn};
use crate::policy::tokens::{from_hex, to_hex};

/// How the line of a [`Torn`] begins.
const TORN: &[u8] = br#"{"schema":"toolcell.record/1","event":"torn","#;

/// How the line of a [`Checkpoint`] begins.
const CHECKPOINT: &[u8] = br#"{"schema":"toolcell.record/1","event":"checkpoint","#;

/// How the line of a [`Continued`] begins.
const CONTINUED: &[u8] = br#"{"schema":"toolcell.record/1","event":"continued","#;

/// A line of a log: the number of its file, and its own in it, which begins with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which of the files that were read.
    pub file: usize,
    /// Its line.
    pub line: u64,
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Wrong {
    /// The record does not have the hash that follows from the record before.
    Edited {
        /// Its number.
        number: u64,
    },
    /// Records are not there any more. The place is that of the next one, or of the end.
    Removed {
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The record stands behind a later one.
    Moved {
        /// Its number.
        number: u64,
    },
    /// Another line has this number too.
    Repeated {
        /// The number.
        number: u64,
    },
    /// Lines that are no records, and that no record says were found.
    Foreign {
        /// How many.
        lines: u64,
    },
    /// The checkpoint is not signed, or by another key.
    Forged {
        /// Its number.
        number: u64,
    },
    /// A checkpoint, or who verifies, has another hash for this record.
    Replaced {
        /// The record's number.
        number: u64,
    },
    /// The file beside the log does not have its last checkpoint, so that it cannot be told whether the end was cut off.
    Unkept,
}

impl Wrong {
    /// One sentence without a full stop.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Edited { number } => format!("record {number} was edited, or the record before it was"),
            Self::Removed { first, last } if first == last => format!("record {first} was removed"),
            Self::Removed { first, last } => format!("records {first} to {last} were removed"),
            Self::Moved { number } => format!("record {number} was moved behind a later one"),
            Self::Repeated { number } => format!("another line has the number {number} too"),
            Self::Foreign { lines: 1 } => "no record, and none says that it was found".to_owned(),
            Self::Forged { number } => format!("record {number} is a checkpoint that the key did not sign"),
            Self::Replaced { number } => format!("record {number} is not the one that was signed"),
            Self::Unkept => {
                "the last checkpoint is not in this file, so whether the log's end was cut off cannot be told"
                    .to_owned()
            }
            Self::Foreign { lines } => {
                format!("{lines} lines are no records, and none says that they were found")
            }
        }
    }
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub wrong: Wrong,
}

/// What was found of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many records there are.
    pub records: u64,
    /// How many there were in earlier files that were not read.
    pub before: u64,
    /// The last of them.
    pub last: Link,
    /// The last checkpoint that is signed.
    pub signed: Option<Signed>,
    /// How many records there are after that one, which are chained, but not signed.
    pub unsigned: u64,
    /// What is wrong, by place.
    pub findings: Vec<Finding>,
    /// Unfinished lines that a later record says were found, and in how many bytes.
    pub torn: Vec<(Place, u64)>,
    /// The last line, where it is unfinished and no record has come yet.
    pub unfinished: Option<Place>,
}

/// Who vouches for how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// The number of the checkpoint.
    pub number: u64,
    /// When it was made, by itself.
    pub time: String,
    /// The public key, in hexadecimal.
    pub key: String,
}

/// What who verifies knows from elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// The key that has to have signed. Without it the one that signed first is believed.
    pub key: Option<Public>,
    /// A record that the log had at an earlier time.
    pub link: Option<Link>,
}

struct Entry {
    place: Place,
    sealed: Sealed,
}

/// A line that is a checkpoint, wherever it was read.
struct Vouched {
    place: Place,
    sealed: Sealed,
    checkpoint: Checkpoint,
}

/// The file beside the log.
struct Kept {
    place: Place,
    vouched: Option<Vouched>,
    /// It is there, and is empty or has a checkpoint.
    sound: bool,
}

impl Vouched {
    fn new(place: Place, sealed: Sealed, line: &[u8]) -> Option<Self> {
        let checkpoint = line.starts_with(CHECKPOINT).then(|| serde_json::from_slice(line).ok())??;
        Some(Self { place, sealed, checkpoint })
    }
}

/// Lines that are no records, between two that are.
struct Loose {
    place: Place,
    lines: u64,
    bytes: u64,
    digest: Sha256,
    ended: bool,
}

/// Reads files of a log, in their order.
#[derive(Default)]
pub struct Reader {
    files: usize,
    entries: Vec<Entry>,
    vouched: Vec<Vouched>,
    kept: Option<Kept>,
    /// Where the first file goes on, if it does.
    base: Option<Link>,
    verdict: Verdict,
    end: Option<Place>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("records", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads the next file to its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, mut file: impl BufRead) -> io::Result<()> {
        let mut place = Place { file: self.files, line: 0 };
        let mut loose: Option<Loose> = None;
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            place.line += 1;
            let whole = line.strip_suffix(b"\n");
            match whole.and_then(sealed) {
                Some(sealed) => {
                    self.settle(loose.take(), &line);
                    if self.entries.is_empty() {
                        self.base = continued(&line)
                            .filter(|base| base.number.checked_add(1) == Some(sealed.link.number));
                    }
                    self.entries.push(Entry { place, sealed });
                    self.vouched.extend(Vouched::new(place, sealed, &line));
                }
                None => {
                    let begun = Loose { place, lines: 0, bytes: 0, digest: Sha256::new(), ended: true };
                    let loose = loose.get_or_insert(begun);
                    loose.lines += 1;
                    loose.bytes = loose.bytes.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
                    loose.digest.update(&line);
                    loose.ended = whole.is_some();
                }
            }
            line.clear();
        }
        self.files += 1;
        self.end = Some(place);
        match loose {
            Some(Loose { lines: 1, ended: false, place, .. }) => self.verdict.unfinished = Some(place),
            loose => self.settle(loose, b""),
        }
        Ok(())
    }

    /// Reads the file beside the log, after the log; `None` where there is none.
    pub fn read_kept(&mut self, text: Option<&[u8]>) {
        let place = Place { file: self.files, line: 1 };
        let line = text.unwrap_or_default().split(|byte| *byte == b'\n').next().unwrap_or_default();
        let vouched = sealed(line).and_then(|sealed| Vouched::new(place, sealed, line));
        let sound = text.is_some_and(|text| text.is_empty() || vouched.is_some());
        self.files += 1;
        self.kept = Some(Kept { place, vouched, sound });
    }

    /// Looks at what stands before a record: nothing, or exactly what the record says was found.
    fn settle(&mut self, loose: Option<Loose>, record: &[u8]) {
        let torn: Option<Torn> =
            record.starts_with(TORN).then(|| serde_json::from_slice(record).ok()).flatten();
        let Some(Loose { place, lines, bytes, digest, .. }) = loose else { return };
        let digest = to_hex(&digest.finalize());
        if torn.is_some_and(|torn| torn.bytes == bytes && torn.sha256 == digest) {
            self.verdict.torn.push((place, bytes));
        } else {
            self.verdict.findings.push(Finding { place, wrong: Wrong::Foreign { lines } });
        }
    }

    /// Says what is wrong with all that was read.
    #[must_use]
    pub fn verdict(self, known: Known) -> Verdict {
        let Self { entries, vouched, kept, mut verdict, end, base, .. } = self;
        let base = base.unwrap_or_default();
        verdict.before = base.number;
        let numbered = Numbered::new(&entries, base);
        let findings = &mut verdict.findings;
        let mut add = |place, wrong| findings.push(Finding { place, wrong });
        // What a record's hash should have been, where that is not what it says.
        let mut should: HashMap<u64, Hash> = HashMap::new();
        let mut highest = 0;
        for (at, Entry { place, sealed }) in entries.iter().enumerate() {
            let Link { number, hash } = sealed.link;
            if numbered.of.get(&number) != Some(&at) {
                add(*place, Wrong::Repeated { number });
                continue;
            }
            let before = numbered.before(&entries, number);
            let follows = |hash: &Hash| Link::after(hash, number, &sealed.digest).hash;
            if let Some(before) = before.filter(|before| follows(before) != hash) {
                match should.get(&number.wrapping_sub(1)).map(follows) {
                    // Only the hash of the record before was touched, and that is known already.
                    Some(found) if found == hash => {}
                    _ => {
                        add(*place, Wrong::Edited { number });
                        should.insert(number, follows(&before));
                    }
                }
            }
            if number < highest {
                add(*place, Wrong::Moved { number });
            }
            highest = highest.max(number);
        }
        let end = end.unwrap_or(Place { file: 0, line: 0 });
        for (first, last) in numbered.gaps() {
            let next = numbered.entry(&entries, last + 1);
            add(next.map_or(end, |entry| entry.place), Wrong::Removed { first, last });
        }
        let signed = signatures(&entries, &numbered, &vouched, kept.as_ref(), known, end, &mut add);
        verdict.records = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let last = numbered.sorted.last().and_then(|number| numbered.entry(&entries, *number));
        verdict.last = last.map(|entry| entry.sealed.link).unwrap_or_default();
        let signed_up_to = signed.as_ref().map_or(verdict.before, |signed| signed.number);
        verdict.unsigned = verdict.last.number.saturating_sub(signed_up_to);
        verdict.signed = signed;
        verdict.findings.sort_by_key(|finding| finding.place);
        verdict.findings.dedup();
        verdict
    }
}

/// Compares checkpoints with the key and with the records that they vouch for, and gives the last good one.
fn signatures(
    entries: &[Entry],
    numbered: &Numbered,
    vouched: &[Vouched],
    kept: Option<&Kept>,
    known: Known,
    end: Place,
    add: &mut impl FnMut(Place, Wrong),
) -> Option<Signed> {
    let last = numbered.sorted.last().copied().unwrap_or(0);
    // Says whether a record that is known of is there, and is the same.
    let compare = |place: Place, link: &Link, add: &mut dyn FnMut(Place, Wrong)| {
        match numbered.entry(entries, link.number) {
            Some(entry) if entry.sealed.link.hash == link.hash => return true,
            None if *link == numbered.base => return true,
            Some(_) => add(place, Wrong::Replaced { number: link.number }),
            None if link.number > last => add(end, Wrong::Removed { first: last + 1, last: link.number }),
            // Among the gaps already.
            None => {}
        }
        false
    };
    let mut expected = known.key;
    let mut signed: Option<Signed> = None;
    let kept_one = kept.and_then(|kept| kept.vouched.as_ref());
    for Vouched { place, sealed: Sealed { link, digest }, checkpoint } in vouched.iter().chain(kept_one) {
        let (signer, before) = (checkpoint.signer(), checkpoint.link());
        let (Some(signer), Some(before)) = (signer, before) else {
            add(*place, Wrong::Forged { number: link.number });
            continue;
        };
        // A checkpoint is the record behind those that it vouches for. In the log, its hash is compared like any other's.
        let is_next = before.number.checked_add(1) == Some(link.number);
        let follows = Link::after(&before.hash, link.number, digest) == *link;
        let is_kept = kept.is_some_and(|kept| kept.place == *place);
        if signer != *expected.get_or_insert(signer) || !is_next || (is_kept && !follows) {
            add(*place, Wrong::Forged { number: link.number });
            continue;
        }
        // What it vouches for; of the one beside the log also that it is in there.
        if compare(*place, if is_kept { link } else { &before }, add)
            && signed.as_ref().is_none_or(|signed| signed.number < link.number)
        {
            let key = checkpoint.key.clone();
            signed = Some(Signed { number: link.number, time: checkpoint.time.clone(), key });
        }
    }
    // The file may be one checkpoint behind, when its writer was killed between the two.
    let needed = vouched.iter().rev().nth(1).map_or(0, |vouched| vouched.sealed.link.number);
    let behind = kept_one.map_or(0, |kept| kept.sealed.link.number) < needed;
    if let Some(kept) = kept.filter(|kept| behind || (!kept.sound && !vouched.is_empty())) {
        add(kept.place, Wrong::Unkept);
    }
    if let Some(link) = &known.link {
        compare(end, link, add);
    }
    signed
}

/// The place behind which a file says that it goes on. Of a log that was removed nothing is taken for granted.
fn continued(line: &[u8]) -> Option<Link> {
    let continued: Continued = line.starts_with(CONTINUED).then(|| serde_json::from_slice(line).ok())??;
    if continued.previous.is_empty() {
        return None;
    }
    Some(Link { number: continued.count, hash: from_hex(&continued.head)?.try_into().ok()? })
}

/// Which entry has which number.
struct Numbered {
    /// What is before all of them.
    base: Link,
    of: HashMap<u64, usize>,
    sorted: Vec<u64>,
}

impl Numbered {
    /// Of entries that have one number, the one counts that stands behind the number before.
    fn new(entries: &[Entry], base: Link) -> Self {
        let mut of: HashMap<u64, usize> = HashMap::with_capacity(entries.len());
        let mut before = None;
        for (at, entry) in entries.iter().enumerate() {
            let number = entry.sealed.link.number;
            let in_place = before == number.checked_sub(1);
            of.entry(number)
                .and_modify(|known| {
                    if in_place {
                        *known = at
                    }
                })
                .or_insert(at);
            before = Some(number);
        }
        let mut sorted: Vec<u64> = entries.iter().map(|entry| entry.sealed.link.number).collect();
        sorted.sort_unstable();
        sorted.dedup();
        Self { base, of, sorted }
    }

    fn entry<'e>(&self, entries: &'e [Entry], number: u64) -> Option<&'e Entry> {
        entries.get(*self.of.get(&number)?)
    }

    /// The hash that the record before this number says it has.
    fn before(&self, entries: &[Entry], number: u64) -> Option<Hash> {
        match number.checked_sub(1)? {
            before if before == self.base.number => Some(self.base.hash),
            before => Some(self.entry(entries, before)?.sealed.link.hash),
        }
    }

    /// Numbers that nothing has, behind the base to the highest: the first and the last of each run.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let before = std::iter::once(&self.base.number).chain(&self.sorted);
        before
            .zip(&self.sorted)
            .filter_map(|(before, number)| {
                let (first, last) = (before.saturating_add(1), number.checked_sub(1)?);
                (first <= last).then_some((first, last))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
