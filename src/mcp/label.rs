//! The mark by which a front knows for which of its requests a line is: many clients' requests share one supervisor, and a
//! log message names none of them.
//!
//! It is the first member of the line, in one form only, so that the line is as it was when the mark is taken off, and
//! what a server writes by itself is never taken for one.
//!
//! Neighbours: `session` puts it on where its client is a front; `front` takes it off. Never: touches another byte.

use super::envelope::Id;
use super::object;

const START: &[u8] = b"{\"dev.toolcell/request\":";

/// The line, marked with the id of a request. One that is no object stays as it is.
#[must_use]
pub fn labelled(line: &[u8], id: &Id) -> Vec<u8> {
    match line.trim_ascii_start().strip_prefix(b"{") {
        Some(rest) => [START, id.to_json().as_bytes(), b",", rest].concat(),
        None => line.to_vec(),
    }
}

/// The id, and the line without the mark. `None`: it is not marked.
#[must_use]
pub fn unlabelled(line: &[u8]) -> Option<(Id, Vec<u8>)> {
    if !line.starts_with(START) {
        return None;
    }
    let value = object::members(line, 0..line.len()).into_iter().next()?.value;
    let id = Id::parse(line.get(value.clone())?)?;
    let rest = line.get(value.end..)?.strip_prefix(b",")?;
    Some((id, [b"{", rest].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_marked_and_as_it_was() {
        let line = br#"{ "method":"x","params":{"a":1.0}}"#;
        let marked = labelled(line, &Id::Number(7));
        assert_eq!(marked, br#"{"dev.toolcell/request":7, "method":"x","params":{"a":1.0}}"#);
        assert_eq!(unlabelled(&marked), Some((Id::Number(7), line.to_vec())));
        // The server's own mark stands behind ours.
        let forged = labelled(br#"{"dev.toolcell/request":1,"method":"x"}"#, &Id::Number(2));
        assert_eq!(
            unlabelled(&forged),
            Some((Id::Number(2), br#"{"dev.toolcell/request":1,"method":"x"}"#.to_vec()))
        );
        let text = Id::Text("a\",b".to_owned());
        assert_eq!(unlabelled(&labelled(line, &text)), Some((text, line.to_vec())));
        assert_eq!(unlabelled(line), None);
        assert_eq!(labelled(b"[]", &Id::Number(1)), b"[]");
    }
}
