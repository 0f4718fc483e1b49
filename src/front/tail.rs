//! The id of a line that is too long to hold, read while the line passes.
//!
//! Neighbours: [`super::shared`] and [`super::session`] answer for such a line. Never: keeps more of it than its last piece.

use std::ops::Range;

use crate::mcp::envelope::Id;
use crate::mcp::scan::Scanner;

/// The longest id that is found.
const LONGEST_ID: usize = 256;

/// What has passed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    scanner: Scanner,
    broken: bool,
    /// The last bytes, and where they start.
    last: Vec<u8>,
    from: usize,
    id: Option<(Range<usize>, Option<Id>)>,
}

impl Tail {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.broken |= self.scanner.feed(piece).is_err();
        let kept = self.last.len().saturating_sub(LONGEST_ID);
        self.last.drain(..kept);
        self.from += kept;
        self.last.extend_from_slice(piece);
        let span = self.scanner.spans().id.clone();
        if let Some(span) = span.filter(|span| self.id.as_ref().is_none_or(|(known, _)| known != span)) {
            let inside = span.start.checked_sub(self.from).zip(span.end.checked_sub(self.from));
            let raw = inside.and_then(|(start, end)| self.last.get(start..end));
            self.id = Some((span, raw.and_then(Id::parse)));
        }
    }

    /// The id, if the line was a message with one.
    pub(super) fn id(mut self) -> Option<Id> {
        let whole = !self.broken && !self.scanner.duplicate() && self.scanner.finish().is_ok();
        self.id.filter(|_| whole)?.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(line: &str, size: usize) -> Option<Id> {
        let mut tail = Tail::default();
        line.as_bytes().chunks(size).for_each(|piece| tail.feed(piece));
        tail.id()
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        let long = "x".repeat(3000);
        for size in [1, 7, 1000, 100_000] {
            let first = format!(r#"{{"jsonrpc":"2.0","id":12345,"result":{{"t":"{long}","id":7}}}}"#);
            assert_eq!(id(&first, size), Some(Id::Number(12345)), "{size}");
            let last = format!(r#"{{"result":{{"t":"{long}","id":7}},"jsonrpc":"2.0","id":12345}}"#);
            assert_eq!(id(&last, size), Some(Id::Number(12345)), "{size}");
            assert_eq!(id(&format!(r#"{{"result":"{long}""#), size), None);
        }
    }
}
