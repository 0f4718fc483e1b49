//! Takes out of a list what was not accepted, so that no model reads it.
//!
//! Neighbours: `session` gives each list through here. Never: touches another byte.

use std::ops::Range;

use super::definition::Kind;
use crate::mcp::object;

/// The line of an answer to this kind's list with those elements only that stay.
#[must_use]
pub fn filtered(
    mut line: Vec<u8>,
    kind: Kind,
    mut stays: impl FnMut(&[u8], Range<usize>) -> bool,
) -> Vec<u8> {
    let Some((_, member)) = kind.list() else { return line };
    let Some(result) = object::member(&line, 0..line.len(), "result") else { return line };
    let lists: Vec<Range<usize>> = object::members(&line, result)
        .into_iter()
        .filter(|found| found.name == member)
        .map(|found| found.value)
        .collect();
    // From the end, so that the places before stay where they are.
    for list in lists.into_iter().rev() {
        let all = object::items(&line, list.clone());
        let kept: Vec<Range<usize>> =
            all.iter().filter(|item| stays(&line, (*item).clone())).cloned().collect();
        if kept.len() < all.len() {
            let kept: Vec<&[u8]> = kept.into_iter().map(|item| line.get(item).unwrap_or_default()).collect();
            let list_of_kept = [b"[".as_slice(), &kept.join(&b','), b"]"].concat();
            line = object::replaced(&line, &list, &list_of_kept);
        }
    }
    line
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
        assert_eq!(shown(r#"{"error":{"tools":["bad"]}}"#), r#"{"error":{"tools":["bad"]}}"#);
    }
}
