//! The canonical form of JSON, RFC 8785: one text for one value, so that a signature can be over it.
//!
//! Narrower than the RFC in one point: a number beyond ±(2^53 - 1) is refused. Readers differ in what they make of it, so
//! that one number would be signed and another used.
//!
//! Neighbours: `access::signed` signs it, `lock` compares by it. Never: guesses; what two readers could read differently is an error.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The greatest whole number up to which every reader counts alike.
const EXACT: u64 = (1 << 53) - 1;

/// A value; its parts are in their canonical form already.
#[derive(Debug)]
enum Value {
    /// Neither list nor object.
    Plain(String),
    List(Vec<Self>),
    /// In order.
    Object(Vec<(String, Self)>),
}

/// The canonical form of a text, without the member `left_out` of the object that it is.
///
/// # Errors
/// It is not JSON, or could be read in two ways: a name twice, half of a surrogate pair, too great a number.
pub(super) fn canonical(text: &[u8], left_out: &str) -> Result<String, String> {
    let mut value: Value = serde_json::from_slice(text).map_err(|error| said(&error))?;
    if let Value::Object(members) = &mut value {
        members.retain(|(name, _)| name != left_out);
    }
    Ok(value.written(text.len()))
}

/// The canonical form of a text, all of it.
///
/// # Errors
/// As of a signed one.
pub fn whole(text: &[u8]) -> Result<String, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| said(&error))?;
    Ok(value.written(text.len()))
}

/// Without the place, which is one in a part of the line.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// A string with quotes. JSON.stringify and `serde_json` escape alike: short forms, `\u00xx` for other control characters,
/// and nothing else.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `Number::toString` of ECMAScript: the shortest digits that are this number and no other, and of those the nearest to it,
/// an even one if two are. Rust finds how many, but not always the even one; rounding to so many does.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs();
    let shortest = format!("{size:e}");
    let places = shortest
        .bytes()
        .take_while(|byte| *byte != b'e')
        .filter(u8::is_ascii_digit)
        .count()
        .saturating_sub(1);
    // Beside a power of two the nearest may be another number already.
    let nearest = Some(format!("{size:.places$e}")).filter(|text| text.parse() == Ok(size));
    let text = nearest.unwrap_or(shortest);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = mantissa.replace('.', "");
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // Where the point stands, counted from before the first digit.
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let text = match point {
        _ if (count..=21).contains(&point) => format!("{digits}{}", zeros(point - count)),
        1..=21 => {
            let (whole, part) = digits.split_at(usize::try_from(point).unwrap_or_default());
            format!("{whole}.{part}")
        }
        -5..=0 => format!("0.{}{digits}", zeros(-point)),
        _ => format!("{mantissa}e{:+}", point - 1),
    };
    if value < 0.0 { format!("-{text}") } else { text }
}

impl Value {
    fn written(&self, about: usize) -> String {
        let mut out = String::with_capacity(about);
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (place, (name, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    out.push_str(&quoted(name));
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

fn too_great<E: de::Error>() -> E {
    E::custom(format_args!("a number beyond ±{EXACT} is not the same for every reader"))
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Plain("null".to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        if value > EXACT { Err(too_great()) } else { Ok(Value::Plain(value.to_string())) }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > EXACT { Err(too_great()) } else { Ok(Value::Plain(value.to_string())) }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        // 2^53; a double has no fraction from there on.
        if value.abs() >= 9_007_199_254_740_992.0 {
            Err(too_great())
        } else {
            Ok(Value::Plain(number(value)))
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Plain(quoted(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members: Vec<(String, Value)> = Vec::new();
        while let Some(member) = entries.next_entry()? {
            members.push(member);
        }
        // UTF-16 puts what is beyond U+FFFF before U+E000; UTF-8 does not.
        members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
        for (one, other) in members.iter().zip(members.iter().skip(1)) {
            if one.0 == other.0 {
                return Err(de::Error::custom(format_args!("`{}` is there more than once", one.0)));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
#[path = "canonical/tests.rs"]
mod tests;
