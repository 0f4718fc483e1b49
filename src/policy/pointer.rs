//! JSON Pointer (RFC 6901), with one step more: `*` stands for every element of an array.
//!
//! Neighbours: `policy::config::grants` reads them, `host::narrow` and `policy::connect` follow them. Never: looks into an object for `*`.

use std::fmt;

use serde_json::Value;

/// Where in a call's arguments something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    steps: Vec<String>,
}

impl Pointer {
    /// Reads a pointer. The empty one, which is the arguments themselves, is none here.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let steps = text.strip_prefix('/').ok_or("write it as `/name`")?;
        let steps = steps.split('/').map(unescaped).collect::<Option<Vec<_>>>();
        let steps = steps.ok_or("`~` is written `~0`, and `/` in a name `~1`")?;
        Ok(Self { text: text.to_owned(), steps })
    }

    /// What is there: nothing where a name is missing, several for `*`.
    #[must_use]
    pub fn find<'v>(&self, arguments: &'v Value) -> Vec<&'v Value> {
        self.steps.iter().fold(vec![arguments], |found, step| {
            let next = |value: &'v Value| match value {
                Value::Array(items) if step == "*" => items.iter().collect(),
                Value::Array(items) => index(step).and_then(|at| items.get(at)).into_iter().collect(),
                Value::Object(members) => members.get(step).into_iter().collect(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
            };
            found.into_iter().flat_map(next).collect()
        })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescaped(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (escaped, rest) = match part.strip_prefix('0') {
            Some(rest) => ('~', rest),
            None => ('/', part.strip_prefix('1')?),
        };
        text.push(escaped);
        text.push_str(rest);
    }
    Some(text)
}

/// The number of an element, which has no leading zeros.
fn index(step: &str) -> Option<usize> {
    let plain = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_finds_what_the_standard_says() {
        // RFC 6901, section 5, but for the whole document and names that only a shell could mistake.
        let document = json!({"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, " ": 7});
        for (pointer, value) in [
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/m~0n", json!(8)),
            ("/ ", json!(7)),
        ] {
            assert_eq!(Pointer::parse(pointer).unwrap().find(&document), [&value], "{pointer}");
        }
        for pointer in ["/foo/2", "/foo/00", "/foo/+1", "/foo/-", "/bar", "/a/b", "/m~01n", "/foo/0/x", "/*"]
        {
            assert!(Pointer::parse(pointer).unwrap().find(&document).is_empty(), "{pointer}");
        }
        for pointer in ["", "foo", "/m~n", "/m~", "/~2"] {
            assert!(Pointer::parse(pointer).is_err(), "{pointer}");
        }
    }

    #[test]
    fn a_star_is_every_element_of_an_array() {
        let arguments = json!({"files": [{"path": "/a"}, {"path": "/b"}, {}, 7], "object": {"x": 1, "*": 2}});
        let found = |pointer: &str| {
            Pointer::parse(pointer).unwrap().find(&arguments).into_iter().cloned().collect::<Vec<_>>()
        };
        assert_eq!(found("/files/*/path"), [json!("/a"), json!("/b")]);
        assert_eq!(found("/object/*"), [json!(2)]);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<u8>().prop_map(Value::from)];
        let name = "[a*/~0]{0,2}";
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        /// An array is the only thing that a star is more of than the standard's.
        #[test]
        fn a_pointer_finds_what_the_standards_finds(text in "(/(a|0|1|00|\\+1|-|~0|~1|\\*){0,2}){1,4}", value in values()) {
            let Ok(pointer) = Pointer::parse(&text) else { return Ok(()) };
            prop_assert_eq!(pointer.to_string(), &*text);
            let found = pointer.find(&value);
            let mut places = vec![String::new()];
            for step in text.split('/').skip(1) {
                let next = |at: String| match value.pointer(&at) {
                    Some(Value::Array(items)) if step == "*" => {
                        (0..items.len()).map(|number| format!("{at}/{number}")).collect()
                    }
                    _ => vec![format!("{at}/{step}")],
                };
                places = places.into_iter().flat_map(next).collect();
            }
            let expected: Vec<&Value> = places.iter().filter_map(|at| value.pointer(at)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
