//! When two values of JSON are the same: numbers by what they are worth, objects without regard to order.
//!
//! Neighbours: `arguments::check` compares with it. Never: looks at how a value was written.

use serde_json::Value;

use super::number::Decimal;

/// Are two values the same?
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => Decimal::of(one) == Decimal::of(other),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

/// A text that is the same for values that are the same, and for no others.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => out.push_str(&format!("{:?}", Decimal::of(number))),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(out, item);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                out.push_str(&format!("{name:?}:"));
                write(out, value);
                out.push(',');
            }
            out.push('}');
        }
        Value::String(text) => out.push_str(&format!("{text:?}")),
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}
