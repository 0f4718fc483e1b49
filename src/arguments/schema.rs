//! A compiled schema: nodes by number, each a list of rules.
//!
//! Neighbours: `arguments::compile` makes it, `arguments::check` walks it. Never: holds a reference to the document that
//! it was made from.

use std::collections::HashMap;

use serde_json::Value;

use super::meaning::Meaning;
use super::number::Decimal;
use super::pattern::Pattern;

/// A node's number.
pub(super) type Id = usize;

/// A schema that values can be checked against.
#[derive(Debug)]
pub struct Schema {
    pub(super) nodes: Vec<Node>,
    /// Some node asks what its neighbours have looked at.
    pub(super) tracks: bool,
}

/// What stands at one place of the document.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// JSON Pointer into the document.
    pub(super) at: String,
    /// In the order of checking: what looks at others' work is last.
    pub(super) rules: Vec<Rule>,
}

/// One rule, under the name of its keyword.
#[derive(Debug)]
pub(super) enum Rule {
    /// The schema `false`.
    Never,
    Type(Types),
    Enum(Vec<Value>),
    Const(Value),
    MultipleOf(Decimal, String),
    /// A bound of numbers; with its text for people.
    Bound(Bound, Decimal, String),
    /// A bound of a length or count.
    Count(Measure, Bound, u64),
    Pattern(Pattern),
    UniqueItems,
    Contains {
        schema: Id,
        least: u64,
        most: Option<u64>,
    },
    Required(Vec<String>),
    DependentRequired(Vec<(String, Vec<String>)>),
    Members(Members),
    PropertyNames(Id),
    DependentSchemas(Vec<(String, Id)>),
    Items {
        first: Vec<Id>,
        others: Option<Id>,
    },
    AllOf(Vec<Id>),
    AnyOf(Vec<Id>),
    OneOf(Vec<Id>),
    Not(Id),
    If {
        condition: Id,
        then: Option<Id>,
        otherwise: Option<Id>,
    },
    Ref(Id),
    Means(Meaning),
    UnevaluatedItems(Id),
    UnevaluatedProperties(Id),
}

/// `properties`, `patternProperties` and `additionalProperties`, which know of each other.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) named: HashMap<String, Id>,
    pub(super) matching: Vec<(Pattern, Id)>,
    pub(super) others: Option<Id>,
}

/// A side of a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Least,
    Most,
    Above,
    Below,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    Characters,
    Items,
    Members,
}

/// A set of types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Types {
    pub(super) const NAMES: [&'static str; 7] =
        ["null", "boolean", "object", "array", "number", "string", "integer"];

    /// Adds a type by its name. False: there is none.
    pub(super) fn add(&mut self, name: &str) -> bool {
        let at = Self::NAMES.iter().position(|known| *known == name);
        self.0 |= at.map_or(0, |at| 1 << at);
        at.is_some()
    }

    /// Is a value of one of the types? A number without a part behind the point is an integer.
    pub(super) fn hold(self, value: &Value) -> bool {
        let whole = matches!(value, Value::Number(number) if number.is_i64() || number.is_u64() || Decimal::of(number).is_whole());
        let at = match value {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Object(_) => 2,
            Value::Array(_) => 3,
            Value::Number(_) => 4,
            Value::String(_) => 5,
        };
        self.0 & (1 << at) != 0 || whole && self.0 & (1 << 6) != 0
    }

    /// `a string or null`
    pub(super) fn told(self) -> String {
        let named = Self::NAMES.iter().enumerate().filter(|(at, _)| self.0 & (1 << at) != 0);
        named.map(|(_, name)| with_article(name)).collect::<Vec<_>>().join(" or ")
    }
}

/// A type's name in a sentence.
pub(super) fn with_article(name: &str) -> String {
    match name {
        "null" => name.to_owned(),
        "object" | "array" | "integer" => format!("an {name}"),
        name => format!("a {name}"),
    }
}

/// The name of a value's type.
pub(super) const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::Number(_) => "number",
        Value::String(_) => "string",
    }
}

impl Rule {
    /// Its keyword.
    pub(super) const fn keyword(&self) -> &'static str {
        match self {
            Self::Never => "false",
            Self::Type(_) => "type",
            Self::Enum(_) => "enum",
            Self::Const(_) => "const",
            Self::MultipleOf(..) => "multipleOf",
            Self::Bound(Bound::Least, ..) => "minimum",
            Self::Bound(Bound::Most, ..) => "maximum",
            Self::Bound(Bound::Above, ..) => "exclusiveMinimum",
            Self::Bound(Bound::Below, ..) => "exclusiveMaximum",
            Self::Count(Measure::Characters, Bound::Least | Bound::Above, _) => "minLength",
            Self::Count(Measure::Characters, ..) => "maxLength",
            Self::Count(Measure::Items, Bound::Least | Bound::Above, _) => "minItems",
            Self::Count(Measure::Items, ..) => "maxItems",
            Self::Count(Measure::Members, Bound::Least | Bound::Above, _) => "minProperties",
            Self::Count(Measure::Members, ..) => "maxProperties",
            Self::Pattern(_) => "pattern",
            Self::UniqueItems => "uniqueItems",
            Self::Contains { .. } => "contains",
            Self::Required(_) => "required",
            Self::DependentRequired(_) => "dependentRequired",
            Self::Members(_) => "additionalProperties",
            Self::PropertyNames(_) => "propertyNames",
            Self::DependentSchemas(_) => "dependentSchemas",
            Self::Items { .. } => "items",
            Self::AllOf(_) => "allOf",
            Self::AnyOf(_) => "anyOf",
            Self::OneOf(_) => "oneOf",
            Self::Not(_) => "not",
            Self::If { .. } => "if",
            Self::Ref(_) => "$ref",
            Self::Means(meaning) => meaning.keyword(),
            Self::UnevaluatedItems(_) => "unevaluatedItems",
            Self::UnevaluatedProperties(_) => "unevaluatedProperties",
        }
    }
}
