//! Members of an object inside a line, by position, so that a line can be changed without touching its other bytes.
//!
//! Neighbours: reads only lines that [`super::scan`] has accepted. Never: validates, or writes a value anew.

use std::borrow::Cow;
use std::ops::Range;

use super::envelope::alike;

/// One member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The key, unescaped.
    pub name: Cow<'a, str>,
    /// Where the key stands, quotes included.
    pub key: Range<usize>,
    /// Where the value stands.
    pub value: Range<usize>,
}

/// The members of the object at `span` of a valid `line`, in order; empty if it is no object.
#[must_use]
pub fn members(line: &[u8], span: Range<usize>) -> Vec<Member<'_>> {
    let mut found = Vec::new();
    if line.get(span.start) != Some(&b'{') {
        return found;
    }
    let mut at = span.start + 1;
    loop {
        let start = skip(line, at, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b','));
        if line.get(start) != Some(&b'"') || start >= span.end {
            return found;
        }
        let end = string_end(line, start);
        let value = skip(line, end, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b':'));
        at = value_end(line, value);
        found.push(Member {
            name: text(line.get(start..end).unwrap_or_default()).unwrap_or(Cow::Borrowed("\u{fffd}")),
            key: start..end,
            value: value..at,
        });
    }
}

/// The elements of the array at `span` of a valid `line`, in order; none if it is no array.
#[must_use]
pub fn items(line: &[u8], span: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if line.get(span.start) != Some(&b'[') {
        return found;
    }
    let mut at = span.start + 1;
    loop {
        let start = skip(line, at, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b','));
        if matches!(line.get(start), None | Some(b']')) || start >= span.end {
            return found;
        }
        at = value_end(line, start);
        found.push(start..at);
    }
}

/// The value of the only member called `name`, or of the last one.
#[must_use]
pub fn member(line: &[u8], span: Range<usize>, name: &str) -> Option<Range<usize>> {
    members(line, span).into_iter().rev().find(|member| member.name == name).map(|member| member.value)
}

/// The value at the end of a path of names.
#[must_use]
pub fn lookup(line: &[u8], span: Range<usize>, path: &[&str]) -> Option<Range<usize>> {
    path.iter().try_fold(span, |span, name| member(line, span, name))
}

/// A JSON string's text. `None` if it is no string, or one that holds half a surrogate pair.
#[must_use]
pub fn text(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice(raw).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// The line with the bytes at `span` replaced.
#[must_use]
pub fn replaced(line: &[u8], span: &Range<usize>, by: &[u8]) -> Vec<u8> {
    let before = line.get(..span.start).unwrap_or_default();
    let after = line.get(span.end..).unwrap_or_default();
    [before, by, after].concat()
}

/// The line with a member put at the beginning of the object that opens at `brace`.
#[must_use]
pub fn inserted(line: &[u8], brace: usize, member: &[u8]) -> Vec<u8> {
    let inside = line.get(brace + 1..).unwrap_or_default().trim_ascii_start();
    let comma: &[u8] = if inside.starts_with(b"}") { b"" } else { b"," };
    replaced(line, &(brace + 1..brace + 1), &[member, comma].concat())
}

/// The line with those elements only that stay in each array called `name`, in whichever letters, of the object at `span`.
#[must_use]
pub fn with_items(
    mut line: Vec<u8>,
    span: Range<usize>,
    name: &str,
    mut stays: impl FnMut(&[u8], Range<usize>) -> bool,
) -> Vec<u8> {
    let named = members(&line, span).into_iter().filter(|member| alike(&member.name, name));
    let lists: Vec<Range<usize>> = named.map(|member| member.value).collect();
    // From the end, so that the places before stay where they are.
    for list in lists.into_iter().rev() {
        let all = items(&line, list.clone());
        let kept: Vec<&[u8]> = all
            .iter()
            .filter(|item| stays(&line, (*item).clone()))
            .map(|item| line.get(item.clone()).unwrap_or_default())
            .collect();
        if kept.len() < all.len() {
            let list_of_kept = [b"[".as_slice(), &kept.join(&b','), b"]"].concat();
            line = replaced(&line, &list, &list_of_kept);
        }
    }
    line
}

/// Removes every member that `path` leads to from the object at the start of the path, with its comma.
///
/// `root` finds the object in the line each time anew, because a removal moves what follows it.
#[must_use]
pub fn without(mut line: Vec<u8>, root: impl Fn(&[u8]) -> Option<Range<usize>>, path: &[&str]) -> Vec<u8> {
    let Some((last, parents)) = path.split_last() else { return line };
    loop {
        let Some(parent) = root(&line).and_then(|span| lookup(&line, span, parents)) else { return line };
        let all = members(&line, parent);
        let Some(at) = all.iter().position(|member| member.name == *last) else { return line };
        let Some(found) = all.get(at) else { return line };
        let cut = match (all.get(at + 1), at.checked_sub(1).and_then(|before| all.get(before))) {
            (Some(next), _) => found.key.start..next.key.start,
            (None, Some(previous)) => previous.value.end..found.value.end,
            (None, None) => found.key.start..found.value.end,
        };
        line = replaced(&line, &cut, b"");
    }
}

fn skip(line: &[u8], from: usize, over: impl Fn(u8) -> bool) -> usize {
    let rest = line.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| !over(*byte)).unwrap_or(rest.len())
}

/// One past the closing quote of the string that opens at `from`.
fn string_end(line: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', line.get(at..).unwrap_or_default()) {
        at += found;
        if line.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    line.len()
}

fn value_end(line: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    while let Some(byte) = line.get(at) {
        match byte {
            b'"' => {
                at = string_end(line, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(line: &[u8]) -> Option<Range<usize>> {
        Some(0..line.len())
    }

    #[test]
    fn members_are_found_by_position() {
        let line = br#"{ "a" : [1,{"b":"}"}] ,"b\u0063":"x\"y", "d":-1.5e3}"#;
        let found = members(line, 0..line.len());
        let seen: Vec<(&str, &[u8])> =
            found.iter().map(|member| (&*member.name, &line[member.value.clone()])).collect();
        assert_eq!(seen, [("a", &br#"[1,{"b":"}"}]"#[..]), ("bc", br#""x\"y""#), ("d", b"-1.5e3")]);
        assert_eq!(lookup(b"{\"a\":{\"b\":7}}", 0..13, &["a", "b"]), Some(10..11));
        assert!(members(b"[1]", 0..3).is_empty());
        let line = br#"[ 1.0,"]" ,[[2],3],{"a":[]}] "#;
        let seen: Vec<&[u8]> = items(line, 0..line.len()).into_iter().map(|item| &line[item]).collect();
        assert_eq!(seen, [&b"1.0"[..], br#""]""#, b"[[2],3]", br#"{"a":[]}"#]);
        assert!(items(b"[ ]", 0..3).is_empty() && items(b"{}", 0..2).is_empty());
        assert!(members(b"{}", 0..2).is_empty());
    }

    #[test]
    fn removal_takes_one_comma_and_nothing_else() {
        for (before, after) in [
            (r#"{"a":{"x":1, "t":{} , "y":1.0}}"#, r#"{"a":{"x":1, "y":1.0}}"#),
            (r#"{"a":{"x":1 ,"t":[2]}}"#, r#"{"a":{"x":1}}"#),
            (r#"{"a":{ "t":true }}"#, r#"{"a":{  }}"#),
            (r#"{"a":{"t":1,"t":2,"z":3}}"#, r#"{"a":{"z":3}}"#),
            (r#"{"b":{"t":1}}"#, r#"{"b":{"t":1}}"#),
        ] {
            assert_eq!(without(before.as_bytes().to_vec(), whole, &["a", "t"]), after.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn replacing_keeps_all_other_bytes(before in "[ ]{0,3}", id in "[0-9]{1,9}", text in ".{0,30}", new in "\"[a-z]{0,12}\"") {
            let text = serde_json::to_string(&text).unwrap();
            let line = format!("{{{before}\"x\":{text},\"id\":{before}{id}, \"y\":{text}}}");
            let span = member(line.as_bytes(), 0..line.len(), "id").unwrap();
            let expected = format!("{{{before}\"x\":{text},\"id\":{before}{new}, \"y\":{text}}}");
            prop_assert_eq!(replaced(line.as_bytes(), &span, new.as_bytes()), expected.into_bytes());
        }
    }
}
