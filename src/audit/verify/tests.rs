//! Logs in which something was done, and what is said of it.

use proptest::prelude::*;
use serde_json::json;

use super::super::chain::digest;
use super::super::key::Key;
use super::super::line::to_line;
use super::super::log::Log;
use super::super::rotate::{self, Bounds};
use super::super::test_directory::TestDirectory;
use super::*;

/// A log of so many records, line by line.
fn log(records: usize) -> Vec<Vec<u8>> {
    let mut link = Link::default();
    (0..records)
        .map(|number| {
            let (line, next) = link.seal(format!("{{\"a\":{number}}}\n").into_bytes()).unwrap();
            link = next;
            line
        })
        .collect()
}

fn verdict(lines: &[Vec<u8>]) -> Verdict {
    let mut reader = Reader::default();
    reader.read(lines.concat().as_slice()).unwrap();
    reader.verdict(Known::default())
}

/// What is found, as line and what.
fn found(lines: &[Vec<u8>]) -> Vec<(u64, Wrong)> {
    verdict(lines).findings.into_iter().map(|finding| (finding.place.line, finding.wrong)).collect()
}

fn replaced(line: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap();
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn a_log_as_it_was_written_has_no_findings() {
    for records in [0, 1, 2, 50] {
        let lines = log(records);
        let Verdict { records: counted, last, findings, torn, unfinished, .. } = verdict(&lines);
        assert_eq!((counted, last.number), (records as u64, records as u64));
        assert!(findings.is_empty() && torn.is_empty() && unfinished.is_none());
    }
}

#[test]
fn an_edited_line_is_named() {
    let mut lines = log(9);
    lines[4] = replaced(&lines[4], "\"a\":4", "\"a\":5");
    assert_eq!(found(&lines), [(5, Wrong::Edited { number: 5 })]);

    // Its hash alone.
    let mut lines = log(9);
    let at = lines[4].len() - 5;
    lines[4][at] = if lines[4][at] == b'0' { b'1' } else { b'0' };
    assert_eq!(found(&lines), [(5, Wrong::Edited { number: 5 })]);

    // Its hash made to fit: the next one does not fit any more.
    let mut lines = log(9);
    let before = sealed(lines[3].trim_ascii_end()).unwrap().link;
    lines[4] = before.seal(b"{\"a\":5}\n".to_vec()).unwrap().0;
    assert_eq!(found(&lines), [(6, Wrong::Edited { number: 6 })]);

    // Its number.
    let mut lines = log(9);
    lines[4] = replaced(&lines[4], "\"number\":5", "\"number\":7");
    assert_eq!(
        found(&lines),
        [(5, Wrong::Repeated { number: 7 }), (6, Wrong::Removed { first: 5, last: 5 })]
    );
}

#[test]
fn removed_lines_are_named() {
    let mut lines = log(9);
    lines.drain(3..6);
    assert_eq!(found(&lines), [(4, Wrong::Removed { first: 4, last: 6 })]);
    let mut lines = log(9);
    lines.remove(0);
    assert_eq!(found(&lines), [(1, Wrong::Removed { first: 1, last: 1 })]);
}

#[test]
fn moved_and_repeated_lines_are_named() {
    let mut lines = log(9);
    lines.swap(3, 4);
    assert_eq!(found(&lines), [(5, Wrong::Moved { number: 4 })]);
    let mut lines = log(9);
    lines.insert(7, lines[2].clone());
    assert_eq!(found(&lines), [(8, Wrong::Repeated { number: 3 })]);
}

#[test]
fn lines_that_are_no_records_are_named_unless_a_record_says_that_they_were_found() {
    let mut lines = log(9);
    lines.insert(4, b"{\"event\":\"finished\"}\n".to_vec());
    lines.insert(5, b"\n".to_vec());
    assert_eq!(found(&lines), [(5, Wrong::Foreign { lines: 2 })]);

    let sealed_with = |bytes: u64, text: &[u8]| {
        let mut lines = log(3);
        let link = sealed(lines[2].trim_ascii_end()).unwrap().link;
        let torn = Torn::new(bytes, &digest(text), std::time::UNIX_EPOCH);
        lines.push(b"{\"tor\n".to_vec());
        lines.push(link.seal(to_line(&torn).unwrap()).unwrap().0);
        verdict(&lines)
    };
    let good = sealed_with(6, b"{\"tor\n");
    assert_eq!((good.findings, good.torn), (vec![], vec![(Place { file: 0, line: 4 }, 6)]));
    for (bytes, text) in [(5, b"{\"tor\n"), (6, b"{\"tox\n")] {
        let bad = sealed_with(bytes, text);
        let place = Place { file: 0, line: 4 };
        assert_eq!(bad.findings, [Finding { place, wrong: Wrong::Foreign { lines: 1 } }]);
        assert_eq!(bad.torn, []);
    }

    let mut lines = log(3);
    lines.push(b"{\"half".to_vec());
    let verdict = verdict(&lines);
    assert_eq!((verdict.findings, verdict.unfinished), (vec![], Some(Place { file: 0, line: 4 })));
}

#[test]
fn a_number_that_was_made_up_costs_no_time() {
    let mut lines = log(2);
    lines[1] = replaced(&lines[1], "\"number\":2", "\"number\":18446744073709551615");
    let last = u64::MAX - 1;
    assert_eq!(found(&lines), [(2, Wrong::Removed { first: 2, last })]);
}

/// A log that was written by the program itself: three records, a checkpoint, three more, a checkpoint, one more.
struct Signed {
    directory: TestDirectory,
    key: Key,
    log: Vec<Vec<u8>>,
    kept: Vec<u8>,
}

impl Signed {
    fn new() -> Self {
        let directory = TestDirectory::new();
        let key = Key::at(&directory.path.join("key"), directory.owner).unwrap();
        let path = directory.path.join("log");
        let log = Log::open(&path, directory.owner).unwrap();
        for record in 1..=7 {
            log.write(&json!({"event": "started", "record": record})).unwrap();
            if record % 3 == 0 {
                log.sign(&key).unwrap();
            }
        }
        let lines = std::fs::read(&path).unwrap();
        let lines = lines.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let kept = std::fs::read(directory.path.join("log.checkpoint")).unwrap();
        Self { directory, key, log: lines, kept }
    }

    fn verdict(&self, kept: Option<&[u8]>, known: Known) -> Verdict {
        let mut reader = Reader::default();
        reader.read(self.log.concat().as_slice()).unwrap();
        reader.read_kept(kept);
        reader.verdict(known)
    }

    fn found(&self) -> Vec<Wrong> {
        let known = Known { key: Some(self.key.public()), link: None };
        self.verdict(Some(&self.kept), known).findings.into_iter().map(|finding| finding.wrong).collect()
    }

    /// Makes the chain fit again from this record on, as who has no key can.
    fn chain_again(&mut self, from: usize) {
        let mut link = self
            .log
            .get(from.wrapping_sub(1))
            .map_or_else(Link::default, |line| sealed(line.trim_ascii_end()).unwrap().link);
        for line in &mut self.log[from..] {
            let text = std::str::from_utf8(line).unwrap();
            let body = format!("{}}}\n", text.rsplit_once(",\"number\":").unwrap().0);
            (*line, link) = link.seal(body.into_bytes()).unwrap();
        }
    }
}

#[test]
fn what_is_signed_and_what_is_only_chained_is_told() {
    let signed = Signed::new();
    let known = Known { key: Some(signed.key.public()), link: None };
    let verdict = signed.verdict(Some(&signed.kept), known);
    assert_eq!((verdict.records, verdict.unsigned, verdict.findings), (9, 1, vec![]));
    let vouched = verdict.signed.unwrap();
    assert_eq!((vouched.number, vouched.key), (8, to_hex(&signed.key.public())));
    // Without a key from elsewhere, the one that signed is named.
    assert_eq!(signed.verdict(Some(&signed.kept), Known::default()).findings, []);
    assert_eq!(verdict.last, sealed(signed.log[8].trim_ascii_end()).unwrap().link);
}

#[test]
fn a_log_that_was_cut_off_is_told_from_one_that_ends() {
    for left in 0..8 {
        let mut signed = Signed::new();
        signed.log.truncate(left);
        let first = u64::try_from(left).unwrap() + 1;
        assert_eq!(signed.found(), [Wrong::Removed { first, last: 8 }]);
    }
    // What is not signed yet cannot be missed.
    let mut signed = Signed::new();
    signed.log.truncate(8);
    assert_eq!(signed.found(), []);
    // But by who knows of it from elsewhere.
    let link = Link { number: 9, hash: [7; 32] };
    let known = Known { key: None, link: Some(link) };
    let wrong = |signed: &Signed, known| signed.verdict(Some(&signed.kept), known).findings[0].wrong.clone();
    assert_eq!(wrong(&signed, known), Wrong::Removed { first: 9, last: 9 });
    assert_eq!(wrong(&Signed::new(), known), Wrong::Replaced { number: 9 });
}

#[test]
fn a_chain_that_was_made_to_fit_again_contradicts_what_was_signed() {
    for at in 0..8 {
        let mut signed = Signed::new();
        if signed.log[at].starts_with(CHECKPOINT) {
            continue;
        }
        signed.log[at] = replaced(&signed.log[at], "started", "stopped");
        signed.chain_again(at);
        let found = signed.found();
        let first = if at < 3 { 3 } else { 7 };
        assert_eq!(found[0], Wrong::Replaced { number: first }, "{at}");
        assert_eq!(*found.last().unwrap(), Wrong::Replaced { number: 8 }, "{at}");
    }
}

#[test]
fn a_log_in_several_files_is_one_chain() {
    let directory = TestDirectory::new();
    let path = directory.path.join("log");
    let key = Key::at(&directory.path.join("key"), directory.owner).unwrap();
    for record in 0..4 {
        drop(Log::open_within(&path, directory.owner, Bounds { size: 1, ..Bounds::default() }).unwrap());
        let log = Log::open(&path, directory.owner).unwrap();
        log.write(&json!({"event": "started", "record": record})).unwrap();
        log.sign(&key).unwrap();
    }
    let mut files: Vec<Vec<u8>> =
        rotate::earlier(&path).unwrap().iter().map(|path| std::fs::read(path).unwrap()).collect();
    files.push(std::fs::read(&path).unwrap());
    assert_eq!(files.len(), 4);
    let kept = std::fs::read(directory.path.join("log.checkpoint")).unwrap();
    let verdict = |files: &[&Vec<u8>]| {
        let mut reader = Reader::default();
        files.iter().for_each(|file| reader.read(file.as_slice()).unwrap());
        reader.read_kept(Some(&kept));
        reader.verdict(Known { key: Some(key.public()), link: None })
    };
    let all: Vec<&Vec<u8>> = files.iter().collect();
    let whole = verdict(&all);
    assert_eq!((whole.records, whole.before, whole.unsigned, whole.findings), (11, 0, 0, vec![]));
    // The oldest ones may be gone; that they were there is known.
    let rest = verdict(&all[2..]);
    assert_eq!((rest.records, rest.before, rest.findings), (6, 5, vec![]));
    let wrong = |files: &[&Vec<u8>]| -> Vec<Wrong> {
        verdict(files).findings.into_iter().map(|finding| finding.wrong).collect()
    };
    assert_eq!(wrong(&[all[0], all[2], all[3]]), [Wrong::Removed { first: 3, last: 5 }]);
    assert_eq!(wrong(&all[..3]), [Wrong::Removed { first: 9, last: 11 }]);
    // A first record that says something else of what was before.
    let text = String::from_utf8(files[2].clone()).unwrap();
    let other = text.replacen("\"head\":\"", "\"head\":\"0", 1).into_bytes();
    assert!(!wrong(&[&other, all[3]]).is_empty());
}

#[test]
fn a_checkpoint_of_another_key_or_of_none_is_named() {
    let signed = Signed::new();
    let other = Key::at(&signed.directory.path.join("other"), signed.directory.owner).unwrap();
    let known = Known { key: Some(other.public()), link: None };
    let found = signed.verdict(Some(&signed.kept), known).findings;
    let wrong: Vec<Wrong> = found.into_iter().map(|finding| finding.wrong).collect();
    assert_eq!(wrong, [4, 8, 8].map(|number| Wrong::Forged { number }));

    for (from, to) in [("\"signature\":\"", "\"signature\":\"0"), ("\"count\":3", "\"count\":2")] {
        let mut signed = Signed::new();
        signed.log[3] = replaced(&signed.log[3], from, to);
        signed.chain_again(3);
        assert!(signed.found().contains(&Wrong::Forged { number: 4 }), "{from}");
    }
    // One that somebody else signed over, in the log and beside it.
    let mut signed = Signed::new();
    let link = sealed(signed.log[6].trim_ascii_end()).unwrap().link;
    let forged = Checkpoint::new(&link, &other, std::time::UNIX_EPOCH);
    signed.log[7] = link.seal(to_line(&forged).unwrap()).unwrap().0;
    signed.kept = signed.log[7].clone();
    signed.chain_again(8);
    assert_eq!(signed.found(), [8, 8].map(|number| Wrong::Forged { number }));
}

#[test]
fn without_the_file_beside_the_log_its_end_is_not_known() {
    let signed = Signed::new();
    let found = |kept: Option<&[u8]>| -> Vec<Wrong> {
        let findings = signed.verdict(kept, Known::default()).findings;
        findings.into_iter().map(|finding| finding.wrong).collect()
    };
    for kept in [None, Some(&b""[..]), Some(b"x\n"), Some(&signed.log[2])] {
        assert_eq!(found(kept), [Wrong::Unkept]);
    }
    // A writer that was killed in between leaves it one behind.
    assert_eq!(found(Some(&signed.log[3])), []);
}

proptest! {
    #[test]
    fn any_single_edit_is_found(records in 2..12_usize, at in 0..4_000_usize, byte: u8) {
        let lines = log(records);
        let mut text = lines.concat();
        let at = at % text.len();
        prop_assume!(text[at] != byte);
        text[at] = byte;
        let mut reader = Reader::default();
        reader.read(text.as_slice()).unwrap();
        let verdict = reader.verdict(Known::default());
        // Only the newline at the end may go: then the last line is unfinished.
        prop_assert!(!verdict.findings.is_empty() || verdict.unfinished.is_some());
    }

    #[test]
    fn any_removal_swap_or_copy_is_found(records in 2..12_usize, a in 0..12_usize, b in 0..12_usize) {
        let (a, b) = (a % records, b % records);
        let mut lines = log(records);
        // The end can only be missed by what was signed.
        if a + 1 < records {
            lines.remove(a);
            prop_assert!(!found(&lines).is_empty());
        }
        let mut lines = log(records);
        if a != b {
            lines.swap(a, b);
            prop_assert!(!found(&lines).is_empty());
        }
        let mut lines = log(records);
        lines.insert(b, lines[a].clone());
        prop_assert!(!found(&lines).is_empty());
    }
}
