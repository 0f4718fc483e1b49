//! Where the chain of a log goes on: its last whole record, and what stands behind that one.
//!
//! Neighbours: `audit::log` asks before it appends to what somebody else may have written to. Never: writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use super::chain::{Hash, Link, sealed};

/// Bytes that are looked at first; more than most records have.
const FIRST: u64 = 4 * 1024;
/// Bytes in which a record has to end; many times as much as the longest.
const MOST: u64 = 64 * 1024 * 1024;

/// The end of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The last whole record; `None` when there is none.
    pub(super) link: Option<Link>,
    /// Bytes behind it.
    pub(super) loose: u64,
}

/// Finds the last whole record of a log of this length.
pub(super) fn find(file: &File, length: u64) -> io::Result<End> {
    let mut window = FIRST;
    loop {
        let start = length.saturating_sub(window);
        let size = length - start;
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        if let Some((link, end)) = last_sealed(&bytes, start == 0) {
            let loose = size - u64::try_from(end).map_err(io::Error::other)?;
            return Ok(End { link: Some(link), loose });
        }
        if start == 0 {
            return Ok(End { link: None, loose: length });
        }
        if window >= MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not end in records"));
        }
        window *= 8;
    }
}

/// The last record that is whole in these bytes, and where it ends. `whole`: a line begins at the first of them.
fn last_sealed(bytes: &[u8], whole: bool) -> Option<(Link, usize)> {
    let mut end = memchr::memrchr(b'\n', bytes)?;
    loop {
        let before = bytes.get(..end)?;
        let start = memchr::memrchr(b'\n', before);
        let line = match start {
            Some(newline) => before.get(newline + 1..)?,
            None if whole => before,
            None => return None,
        };
        if let Some(sealed) = sealed(line) {
            return Some((sealed.link, end + 1));
        }
        end = start?;
    }
}

/// What has to be written behind the loose bytes at the end of a log to end their line, and the digest of both.
pub(super) fn close(file: &File, length: u64, loose: u64) -> io::Result<(&'static [u8], Hash)> {
    let mut whole = Sha256::new();
    let mut at = length - loose;
    let mut buffer = [0; 64 * 1024];
    let mut last = None;
    while at < length {
        let wanted = buffer.len().min(usize::try_from(length - at).unwrap_or(buffer.len()));
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(part, at)?;
        whole.update(&*part);
        last = part.last().copied();
        at += u64::try_from(wanted).map_err(io::Error::other)?;
    }
    let ending: &[u8] = if last == Some(b'\n') { b"" } else { b"\n" };
    whole.update(ending);
    Ok((ending, whole.finalize().into()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::test_directory::TestDirectory;
    use super::*;

    #[test]
    fn the_last_record_is_found_behind_records_of_any_length() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        for size in [1, 4_000, 4_096, 5_000, 40_000, 300_000] {
            for loose in ["", "x", "{\"a\":1}\n", "\n\n\n"] {
                let line = |link: &Link| {
                    link.seal(format!("{{\"text\":\"{}\"}}\n", "x".repeat(size)).into_bytes()).unwrap()
                };
                let (first, link) = line(&Link::default());
                let (second, link) = line(&link);
                let text = [first, second, loose.as_bytes().to_vec()].concat();
                fs::write(&path, &text).unwrap();
                let file = File::open(&path).unwrap();
                let end = find(&file, u64::try_from(text.len()).unwrap()).unwrap();
                assert_eq!(end, End { link: Some(link), loose: u64::try_from(loose.len()).unwrap() });
            }
        }
    }

    #[test]
    fn a_file_without_records_is_all_loose() {
        let directory = TestDirectory::new();
        let path = directory.path.join("log");
        for text in ["", "x", "{}\n[]\n"] {
            fs::write(&path, text).unwrap();
            let end = find(&File::open(&path).unwrap(), u64::try_from(text.len()).unwrap()).unwrap();
            assert_eq!(end, End { link: None, loose: u64::try_from(text.len()).unwrap() });
        }
    }
}
