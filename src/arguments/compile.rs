//! From a JSON Schema to rules: the keywords of draft 2020-12 that say what a value must be, and what older drafts called the
//! same.
//!
//! What only describes (`title`, `format`, …) and what is unknown says nothing, as the standard has it. What says something
//! that cannot be checked here is a mistake, and no value is checked against a schema that has one.
//!
//! Neighbours: `session` compiles what servers list, `policy::config` what the operator wrote; `arguments::check` uses the
//! result. Never: follows a reference out of the document, or grows beyond [`MOST_NODES`].

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::document::{Document, MOST_POINTER, below};
use super::meaning::{self, Meaning};
use super::number::Decimal;
use super::pattern::Pattern;
use super::schema::{Bound, Id, Measure, Members, Node, Rule, Schema, Types};

/// Schemas within one, at most.
const MOST_NODES: usize = 10_000;
/// All keywords, for hints.
pub const KEYWORDS: &[&str] = &[
    "type",
    "enum",
    "const",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "maxContains",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "required",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "$ref",
    "$defs",
    "title",
    "description",
    "path",
    "url",
    "command",
    "sql",
];
/// Mistakes that are told.
const MOST_MISTAKES: usize = 32;

/// What is wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// JSON Pointer into the schema's document.
    pub at: String,
    /// The mistake is the name at the end of the pointer, not its value.
    pub name: bool,
    /// What it is, as the end of a sentence that begins with the place.
    pub told: String,
    /// What to write instead, where that can be said.
    pub hint: Option<String>,
}

/// Who wrote a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// A server. What it says that is not known here says nothing.
    Server,
    /// The operator, who also says what texts mean. What is not known is a mistake.
    Operator,
}

/// What an operator may write beside the keywords that are checked.
const DESCRIBING: &[&str] = &[
    "$schema",
    "$id",
    "$anchor",
    "$comment",
    "$defs",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
];

/// Makes a schema of a document.
///
/// # Errors
/// What in it cannot be checked, at least one thing.
pub fn compile(root: &Value, author: Author) -> Result<Schema, Vec<Mistake>> {
    let declared = root.get("$schema").and_then(Value::as_str).map(|text| text.trim_end_matches('#'));
    let draft = match declared {
        None => Draft::New,
        Some(uri) => match DRAFTS.iter().find(|(known, _)| uri.ends_with(known)) {
            Some((_, draft)) => *draft,
            None => {
                let told = "names a kind of schema that is not known here".to_owned();
                return Err(vec![Mistake { at: "/$schema".to_owned(), name: false, told, hint: None }]);
            }
        },
    };
    let mut compiler = Compiler {
        document: Document::new(root),
        draft,
        author,
        schema: Schema { nodes: Vec::new(), tracks: false },
        known: HashMap::new(),
        open: Vec::new(),
        mistakes: Vec::new(),
    };
    compiler.node(String::new());
    while let Some((id, at)) = compiler.open.pop() {
        let rules = compiler.rules(&at);
        if let Some(node) = compiler.schema.nodes.get_mut(id) {
            *node = Node { at, rules };
        }
        if compiler.mistakes.len() >= MOST_MISTAKES {
            break;
        }
    }
    if compiler.mistakes.is_empty() { Ok(compiler.schema) } else { Err(compiler.mistakes) }
}

/// What differs between drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draft {
    /// `exclusiveMaximum` is a flag.
    Four,
    /// Beside `$ref` nothing counts.
    Six,
    New,
}

const DRAFTS: &[(&str, Draft)] = &[
    ("json-schema.org/draft-04/schema", Draft::Four),
    ("json-schema.org/draft-06/schema", Draft::Six),
    ("json-schema.org/draft-07/schema", Draft::Six),
    ("json-schema.org/draft/2019-09/schema", Draft::New),
    ("json-schema.org/draft/2020-12/schema", Draft::New),
];

struct Compiler<'v> {
    document: Document<'v>,
    draft: Draft,
    author: Author,
    schema: Schema,
    known: HashMap<String, Id>,
    /// Nodes that have a number and no rules yet.
    open: Vec<(Id, String)>,
    mistakes: Vec<Mistake>,
}

impl<'v> Compiler<'v> {
    /// The number of the schema at a place. Its rules are made later, so that no document leads too deep.
    fn node(&mut self, at: String) -> Id {
        if let Some(id) = self.known.get(&at) {
            return *id;
        }
        let id = self.schema.nodes.len();
        if id >= MOST_NODES || at.len() > MOST_POINTER {
            self.mistake(
                String::new(),
                format!("holds more than {MOST_NODES} schemas, or one that is too deep"),
            );
            return 0;
        }
        self.schema.nodes.push(Node::default());
        self.known.insert(at.clone(), id);
        self.open.push((id, at));
        id
    }

    fn mistake(&mut self, at: String, told: impl Into<String>) {
        let mistake = Mistake { at, name: false, told: told.into(), hint: None };
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    fn rules(&mut self, at: &str) -> Vec<Rule> {
        match self.document.at(at) {
            Some(Value::Bool(true)) => Vec::new(),
            Some(Value::Bool(false)) => vec![Rule::Never],
            Some(Value::Object(members)) => self.of_object(at, members),
            _ => {
                self.mistake(at.to_owned(), "must be a schema: an object, `true` or `false`");
                Vec::new()
            }
        }
    }

    fn of_object(&mut self, at: &str, members: &'v Map<String, Value>) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.draft != Draft::New && members.contains_key("$ref") {
            rules.extend(members.get("$ref").and_then(|value| self.reference(at, "$ref", value)));
            return rules;
        }
        let mut last = Vec::new();
        for (keyword, value) in members {
            let place = below(at, keyword);
            let rule = match keyword.as_str() {
                "type" => self.types(place, value),
                "enum" => self.array(place, value).map(|values| Rule::Enum(values.clone())),
                "const" => Some(Rule::Const(value.clone())),
                "multipleOf" => self.multiple(place, value),
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                    self.bound(place, keyword, value, members)
                }
                "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                    self.count(place, keyword, value)
                }
                "pattern" => self.pattern(place, value).map(Rule::Pattern),
                "uniqueItems" => match value {
                    Value::Bool(unique) => unique.then_some(Rule::UniqueItems),
                    _ => self.wrong(place, "must be `true` or `false`"),
                },
                "contains" => self.contains(at, members),
                "required" => self.names(place, value).map(Rule::Required),
                "dependentRequired" => self.dependent_required(place, value),
                "propertyNames" => Some(Rule::PropertyNames(self.node(place))),
                "dependentSchemas" => {
                    let members = self.object(place.clone(), value);
                    members.map(|members| {
                        let one = |(name, _)| (String::clone(name), self.node(below(&place, name)));
                        Rule::DependentSchemas(members.iter().map(one).collect())
                    })
                }
                "dependencies" => {
                    rules.extend(self.dependencies(place, value));
                    None
                }
                "allOf" => self.several(place, value).map(Rule::AllOf),
                "anyOf" => self.several(place, value).map(Rule::AnyOf),
                "oneOf" => self.several(place, value).map(Rule::OneOf),
                "not" => Some(Rule::Not(self.node(place))),
                "if" => {
                    let mut branch = |name: &str| members.get(name).map(|_| self.node(below(at, name)));
                    let (then, otherwise) = (branch("then"), branch("else"));
                    Some(Rule::If { condition: self.node(place), then, otherwise })
                }
                "$ref" => self.reference(at, keyword, value),
                "$dynamicRef" | "$recursiveRef" => self.wrong(
                    place,
                    "is a reference whose target depends on the way there, which is not offered",
                ),
                "unevaluatedItems" => {
                    last.push(Rule::UnevaluatedItems(self.node(place)));
                    None
                }
                "unevaluatedProperties" => {
                    last.push(Rule::UnevaluatedProperties(self.node(place)));
                    None
                }
                _ if self.author == Author::Operator => self.of_operator(place, keyword, value),
                _ => None,
            };
            rules.extend(rule);
        }
        rules.extend(self.members(at, members));
        rules.extend(self.items(at, members));
        self.schema.tracks |= !last.is_empty();
        rules.extend(last);
        rules
    }

    /// What only an operator may say, and what nobody may.
    fn of_operator(&mut self, at: String, keyword: &str, value: &Value) -> Option<Rule> {
        if meaning::KEYWORDS.contains(&keyword) {
            return match Meaning::read(keyword, &at, value) {
                Ok(meaning) => Some(Rule::Means(meaning)),
                Err(mistakes) => {
                    self.mistakes.extend(mistakes);
                    None
                }
            };
        }
        let beside = ["properties", "patternProperties", "additionalProperties", "items", "prefixItems"];
        let beside = beside.iter().chain(&["additionalItems", "then", "else", "minContains", "maxContains"]);
        if !beside.chain(DESCRIBING).any(|known| *known == keyword) {
            let told = "is no keyword that is checked".to_owned();
            let hint = (keyword == "format")
                .then(|| "`format` only describes; write a `pattern`, or `url`".to_owned());
            self.mistakes.push(Mistake { at, name: true, told, hint });
        }
        None
    }

    fn wrong(&mut self, at: String, told: &str) -> Option<Rule> {
        self.mistake(at, told);
        None
    }

    fn object(&mut self, at: String, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let members = value.as_object();
        if members.is_none() {
            self.mistake(at, "must be an object");
        }
        members
    }

    fn array(&mut self, at: String, value: &'v Value) -> Option<&'v Vec<Value>> {
        let items = value.as_array();
        if items.is_none() {
            self.mistake(at, "must be an array");
        }
        items
    }

    fn names(&mut self, at: String, value: &'v Value) -> Option<Vec<String>> {
        let names: Option<Vec<String>> = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        if names.is_none() {
            self.mistake(at, "must be an array of names");
        }
        names
    }

    fn types(&mut self, at: String, value: &Value) -> Option<Rule> {
        let mut types = Types::default();
        let known = match value {
            Value::String(name) => types.add(name),
            Value::Array(names) => names.iter().all(|name| name.as_str().is_some_and(|name| types.add(name))),
            _ => false,
        };
        if !known {
            return self.wrong(at, &format!("must be one or several of: {}", Types::NAMES.join(", ")));
        }
        Some(Rule::Type(types))
    }

    fn multiple(&mut self, at: String, value: &Value) -> Option<Rule> {
        match value {
            Value::Number(number) if number.as_f64().is_some_and(|number| number > 0.0) => {
                Some(Rule::MultipleOf(Decimal::of(number), number.to_string()))
            }
            _ => self.wrong(at, "must be a number above 0"),
        }
    }

    fn bound(
        &mut self,
        at: String,
        keyword: &str,
        value: &Value,
        members: &Map<String, Value>,
    ) -> Option<Rule> {
        let flag = |name: &str| self.draft == Draft::Four && members.get(name) == Some(&Value::Bool(true));
        let bound = match keyword {
            "minimum" if flag("exclusiveMinimum") => Bound::Above,
            "minimum" => Bound::Least,
            "maximum" if flag("exclusiveMaximum") => Bound::Below,
            "maximum" => Bound::Most,
            _ if self.draft == Draft::Four && value.is_boolean() => return None,
            "exclusiveMinimum" => Bound::Above,
            _ => Bound::Below,
        };
        match value {
            Value::Number(number) => Some(Rule::Bound(bound, Decimal::of(number), number.to_string())),
            _ => self.wrong(at, "must be a number"),
        }
    }

    fn whole(&mut self, at: String, value: &Value) -> Option<u64> {
        let float =
            |f: f64| (f.fract() == 0.0 && f >= 0.0).then(|| format!("{f:.0}").parse().unwrap_or(u64::MAX));
        let count = value.as_u64().or_else(|| value.as_f64().and_then(float));
        if count.is_none() {
            self.mistake(at, "must be a whole number, 0 or more");
        }
        count
    }

    fn count(&mut self, at: String, keyword: &str, value: &Value) -> Option<Rule> {
        let measure = match keyword {
            "minLength" | "maxLength" => Measure::Characters,
            "minItems" | "maxItems" => Measure::Items,
            _ => Measure::Members,
        };
        let bound = if keyword.starts_with("min") { Bound::Least } else { Bound::Most };
        self.whole(at, value).map(|count| Rule::Count(measure, bound, count))
    }

    fn pattern(&mut self, at: String, value: &Value) -> Option<Pattern> {
        let Some(text) = value.as_str() else {
            self.mistake(at, "must be a string");
            return None;
        };
        self.pattern_of(at, text)
    }

    fn pattern_of(&mut self, at: String, text: &str) -> Option<Pattern> {
        match Pattern::new(text) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                self.mistake(at, format!("is a regular expression that cannot be used: it {why}"));
                None
            }
        }
    }

    fn contains(&mut self, at: &str, members: &Map<String, Value>) -> Option<Rule> {
        let schema = self.node(below(at, "contains"));
        let mut bound = |name: &str| match members.get(name) {
            Some(value) => self.whole(below(at, name), value),
            None => None,
        };
        Some(Rule::Contains { schema, least: bound("minContains").unwrap_or(1), most: bound("maxContains") })
    }

    fn several(&mut self, at: String, value: &'v Value) -> Option<Vec<Id>> {
        let count = self.array(at.clone(), value)?.len();
        if count == 0 {
            self.mistake(at, "must have at least one schema");
            return None;
        }
        Some((0..count).map(|index| self.node(format!("{at}/{index}"))).collect())
    }

    fn dependent_required(&mut self, at: String, value: &'v Value) -> Option<Rule> {
        let mut needs = Vec::new();
        for (name, value) in self.object(at.clone(), value)? {
            needs.push((name.clone(), self.names(below(&at, name), value)?));
        }
        Some(Rule::DependentRequired(needs))
    }

    /// What draft 7 had in place of two keywords.
    fn dependencies(&mut self, at: String, value: &'v Value) -> Vec<Rule> {
        let (mut names, mut schemas) = (Vec::new(), Vec::new());
        for (name, value) in self.object(at.clone(), value).into_iter().flatten() {
            let place = below(&at, name);
            if value.is_array() {
                names.extend(self.names(place, value).map(|needed| (name.clone(), needed)));
            } else {
                schemas.push((name.clone(), self.node(place)));
            }
        }
        vec![Rule::DependentRequired(names), Rule::DependentSchemas(schemas)]
    }

    fn members(&mut self, at: &str, members: &'v Map<String, Value>) -> Option<Rule> {
        let mut rule = Members::default();
        let mut any = false;
        if let Some(value) = members.get("properties") {
            let place = below(at, "properties");
            any = true;
            for (name, _) in self.object(place.clone(), value)? {
                rule.named.insert(name.clone(), self.node(below(&place, name)));
            }
        }
        if let Some(value) = members.get("patternProperties") {
            let place = below(at, "patternProperties");
            any = true;
            for (text, _) in self.object(place.clone(), value)? {
                let pattern = self.pattern_of(below(&place, text), text)?;
                rule.matching.push((pattern, self.node(below(&place, text))));
            }
        }
        if members.contains_key("additionalProperties") {
            any = true;
            rule.others = Some(self.node(below(at, "additionalProperties")));
        }
        any.then_some(Rule::Members(rule))
    }

    /// `prefixItems` and `items`; before 2020-12 these were an array in `items`, and `additionalItems`.
    fn items(&mut self, at: &str, members: &'v Map<String, Value>) -> Option<Rule> {
        let tuple = members.get("items").is_some_and(Value::is_array);
        let names = if tuple { ["items", "additionalItems"] } else { ["prefixItems", "items"] };
        if tuple && members.contains_key("prefixItems") {
            return self.wrong(below(at, "items"), "must be a schema beside `prefixItems`");
        }
        let first = match members.get(names[0]) {
            Some(value) => {
                let place = below(at, names[0]);
                let count = self.array(place.clone(), value)?.len();
                (0..count).map(|index| self.node(format!("{place}/{index}"))).collect()
            }
            None => Vec::new(),
        };
        let others = members.get(names[1]).map(|_| self.node(below(at, names[1])));
        (others.is_some() || !first.is_empty()).then_some(Rule::Items { first, others })
    }

    fn reference(&mut self, at: &str, keyword: &str, value: &Value) -> Option<Rule> {
        let place = below(at, keyword);
        let Some(reference) = value.as_str() else { return self.wrong(place, "must be a string") };
        match self.document.target(reference, at) {
            Ok(target) => Some(Rule::Ref(self.node(target))),
            Err(why) => self.wrong(place, &format!("{why} (`{}`)", shortened(reference))),
        }
    }
}

/// The start of a text that may be long.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
