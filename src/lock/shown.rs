//! Takes out of an answer what was not accepted, so that no model reads it.
//!
//! Neighbours: `session` gives each list and handshake through here. Never: touches another byte.

use std::ops::Range;

use super::definition::{INSTRUCTIONS, Kind};
use crate::mcp::envelope::alike;
use crate::mcp::object;

/// The line of an answer to this kind's list with those elements only that stay.
#[must_use]
pub fn filtered(line: Vec<u8>, kind: Kind, stays: impl FnMut(&[u8], Range<usize>) -> bool) -> Vec<u8> {
    let Some((_, member)) = kind.list() else { return line };
    let Some(result) = object::member(&line, 0..line.len(), "result") else { return line };
    object::with_items(line, result, member, stays)
}

/// The line of an answer without what the server says of itself, however often and in whichever letters it does.
#[must_use]
pub fn without_instructions(line: Vec<u8>) -> Vec<u8> {
    let result = |line: &[u8]| object::member(line, 0..line.len(), "result");
    let members = result(&line).map(|span| object::members(&line, span)).unwrap_or_default();
    let names: Vec<String> = members
        .into_iter()
        .filter(|member| alike(&member.name, INSTRUCTIONS))
        .map(|member| member.name.into_owned())
        .collect();
    names.iter().fold(line, |line, name| object::without(line, result, &[name]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_does_not_stay_is_taken_out() {
        let shown = |line: &str| {
            let line = filtered(line.as_bytes().to_vec(), Kind::Tool, |line, item| {
                !String::from_utf8_lossy(&line[item]).contains("bad")
            });
            String::from_utf8(line).unwrap()
        };
        let same = r#"{"result":{"tools":[ {"name":"a"} , {"name":"b","x":1.0}],"more":["bad"]},"id":1}"#;
        assert_eq!(shown(same), same);
        assert_eq!(
            shown(r#"{"result":{"tools":[ {"name":"a"} , {"name":"bad"}],"nextCursor":"c"},"id":1}"#),
            r#"{"result":{"tools":[{"name":"a"}],"nextCursor":"c"},"id":1}"#
        );
        assert_eq!(
            shown(r#"{"result":{"tools":[{"name":"bad"}],"tools":["bad",{"name":"a"}]}}"#),
            r#"{"result":{"tools":[],"tools":[{"name":"a"}]}}"#
        );
        assert_eq!(shown(r#"{"result":{"Tools":["bad","a"]}}"#), r#"{"result":{"Tools":["a"]}}"#);
        assert_eq!(shown(r#"{"error":{"tools":["bad"]}}"#), r#"{"error":{"tools":["bad"]}}"#);
    }

    #[test]
    fn instructions_are_taken_out_wherever_a_reader_could_find_them() {
        let shown = |line: &str| String::from_utf8(without_instructions(line.as_bytes().to_vec())).unwrap();
        for (before, after) in [
            (r#"{"result":{"a":1,"instructions":"x"},"id":1}"#, r#"{"result":{"a":1},"id":1}"#),
            (
                r#"{"result":{"instructions":"x", "a":1.0 ,"instructions":"y","Instructions":"z"}}"#,
                r#"{"result":{"a":1.0}}"#,
            ),
            (r#"{"result":{"in\u0073tructions":["x"],"INSTRUCTIONS":1}}"#, r#"{"result":{}}"#),
            (r#"{"result":{"a":{"instructions":"x"}}}"#, r#"{"result":{"a":{"instructions":"x"}}}"#),
            (r#"{"error":{"instructions":"x"}}"#, r#"{"error":{"instructions":"x"}}"#),
        ] {
            assert_eq!(shown(before), after);
        }
    }
}
