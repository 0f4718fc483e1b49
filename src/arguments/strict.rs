//! Reads JSON so that every reader must have read the same: no name twice in one object, no NUL, no half of a surrogate
//! pair, no depth or size that another reader gives up at.
//!
//! Neighbours: `session` reads a call's parameters with it, and schemas are read with it, too. Never: corrects anything.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::place::Place;

/// Bytes of a call's parameters, at most: no client that is known sends a longer line.
pub const MOST_BYTES: usize = 10 * 1024 * 1024;
/// Objects and arrays inside each other, at most.
pub const MOST_DEPTH: usize = 64;

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Wrong {
    /// Readers disagree whether the first or the last counts.
    #[error("the member `{0}` is there more than once; send it once")]
    Twice(String),
    /// Readers written in C end a text there.
    #[error("holds a NUL character; leave it out")]
    Nul,
    /// More than [`MOST_DEPTH`].
    #[error("is nested deeper than {MOST_DEPTH} levels; send it flatter")]
    Depth,
    /// More than [`MOST_BYTES`].
    #[error("is longer than {MOST_BYTES} bytes; send less at once")]
    Size,
    /// Not JSON, or not UTF-8, or a number or character that not every reader can hold.
    #[error("cannot be read: {0}")]
    Syntax(String),
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// JSON Pointer to the value.
    pub at: String,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// Reads a text.
///
/// # Errors
/// The first thing that readers could disagree about.
pub fn read(text: &[u8]) -> Result<Value, Unreadable> {
    if text.len() > MOST_BYTES {
        return Err(Unreadable { at: String::new(), wrong: Wrong::Size });
    }
    let found = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let part = Part { place: &Place::ROOT, depth: 0, found: &found };
    let value = part.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| {
        let syntax = || Unreadable { at: String::new(), wrong: Wrong::Syntax(error.to_string()) };
        found.take().unwrap_or_else(syntax)
    })
}

/// One value of the text.
struct Part<'p> {
    place: &'p Place<'p>,
    depth: usize,
    found: &'p RefCell<Option<Unreadable>>,
}

impl Part<'_> {
    fn wrong<E: serde::de::Error>(&self, wrong: Wrong) -> E {
        let error = E::custom(&wrong);
        *self.found.borrow_mut() = Some(Unreadable { at: self.place.pointer(), wrong });
        error
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth == MOST_DEPTH {
            return Err(self.wrong(Wrong::Depth));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') {
            return Err(self.wrong(Wrong::Nul));
        }
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut list = Vec::new();
        loop {
            let place = self.place.item(list.len());
            match items.next_element_seed(Part { place: &place, depth, found: self.found })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let place = self.place.member(&name);
            let part = Part { place: &place, depth, found: self.found };
            if name.contains('\0') {
                return Err(part.wrong(Wrong::Nul));
            }
            let value = members.next_value_seed(part)?;
            if map.contains_key(&name) {
                return Err(self.wrong(Wrong::Twice(name)));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn refused(text: &str) -> (String, Wrong) {
        let refusal = read(text.as_bytes()).unwrap_err();
        (refusal.at, refusal.wrong)
    }

    fn twice(name: &str) -> Wrong {
        Wrong::Twice(name.to_owned())
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_at_any_depth_and_in_any_spelling() {
        assert_eq!(refused(r#"{"a":1,"a":1}"#), (String::new(), twice("a")));
        assert_eq!(refused(r#"{"a":{"b/c":[0,{"x":1,"\u0078":2}]}}"#), ("/a/b~1c/1".to_owned(), twice("x")));
        assert_eq!(refused(r#"{"":{"":1,"":1}}"#), ("/".to_owned(), twice("")));
        assert_eq!(read(br#"{"a":{"a":1},"b":{"a":1}}"#).unwrap(), json!({"a": {"a": 1}, "b": {"a": 1}}));
    }

    #[test]
    fn nul_is_refused_in_texts_and_names() {
        assert_eq!(refused(r#"{"path":"/etc/x\u0000.png"}"#), ("/path".to_owned(), Wrong::Nul));
        assert_eq!(refused(r#"["a\u0000b"]"#).1, Wrong::Nul);
        assert_eq!(refused(r#"{"a\u0000":1}"#).1, Wrong::Nul);
        assert_eq!(read(br#""\\u0000""#).unwrap(), json!("\\u0000"));
    }

    #[test]
    fn what_not_every_reader_can_hold_is_refused() {
        for text in [
            &b"\"\xff\""[..],
            b"{\"\xc0\x80\":1}",
            br#""\ud800""#,
            br#"{"\udc00":1}"#,
            b"1e400",
            b"{",
            b"{} {}",
            b"\"a\0\"",
            b"",
        ] {
            let shown = String::from_utf8_lossy(text);
            assert!(matches!(read(text).unwrap_err().wrong, Wrong::Syntax(_)), "{shown}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |depth: usize| [&b"[".repeat(depth)[..], &b"]".repeat(depth)].concat();
        assert!(read(&nested(MOST_DEPTH)).is_ok());
        assert_eq!(read(&nested(MOST_DEPTH + 1)).unwrap_err().wrong, Wrong::Depth);
        let objects = format!("{}1{}", "{\"a\":".repeat(MOST_DEPTH + 1), "}".repeat(MOST_DEPTH + 1));
        assert_eq!(refused(&objects).1, Wrong::Depth);
        // No deeper than this one looks: half a million levels do not end the process.
        assert_eq!(read(&nested(500_000)).unwrap_err().wrong, Wrong::Depth);
        let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(read(long(MOST_BYTES).as_bytes()).is_ok());
        assert_eq!(refused(&long(MOST_BYTES + 1)).1, Wrong::Size);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no others", |f| f.is_finite()).prop_map(Value::from),
            "[^\0]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[^\0]{0,3}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in values()) {
            prop_assert_eq!(read(value.to_string().as_bytes()), Ok(value));
        }
    }
}
