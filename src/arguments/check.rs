//! Checks a value against a schema, and says of each thing that is wrong what would be right.
//!
//! What a check costs is counted, so that no schema and no value takes long: beyond [`MOST_STEPS`] or [`MOST_DEPTH`] the
//! value counts as wrong.
//!
//! Neighbours: `arguments::compile` makes the schema; `session` and `policy::config` turn what is found into faults. Never:
//! quotes a value that it found.

use std::collections::HashSet;

use serde_json::Value;

use super::equal::{canonical, same};
use super::meaning::{Nowhere, World};
use super::number::Decimal;
use super::place::Place;
use super::schema::{Bound, Id, Measure, Members, Node, Rule, Schema, type_of, with_article};

/// Steps of one check, at most.
const MOST_STEPS: usize = 4_000_000;
/// Schemas inside each other that are looked at, at most.
const MOST_DEPTH: usize = 200;
/// Things that are told of one value.
const MOST_FOUND: usize = 8;
/// Alternatives whose reasons are told.
const MOST_ALTERNATIVES: usize = 4;
/// Names or values that a sentence lists.
const MOST_LISTED: usize = 12;

/// One thing that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// JSON Pointer into the value.
    pub at: String,
    /// JSON Pointer to the schema that says so.
    pub schema: String,
    /// Its keyword.
    pub keyword: &'static str,
    /// What the value must be.
    pub told: String,
    /// What would have to stand at the keyword to let it through, where that can be said.
    pub wider: Option<Wider>,
}

/// What would let a value through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wider {
    /// This value of the keyword.
    Value(Value),
    /// This name in `properties`.
    Property(String),
}

impl Schema {
    /// Checks a value.
    ///
    /// # Errors
    /// What is wrong with it, the first few things.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Found>> {
        self.check_in(value, &Nowhere)
    }

    /// Checks a value whose paths lead somewhere.
    ///
    /// # Errors
    /// What is wrong with it, the first few things.
    pub fn check_in(&self, value: &Value, world: &dyn World) -> Result<(), Vec<Found>> {
        let mut run = Run { schema: self, world, steps: 0, over: false, found: Vec::new() };
        let fits = run.node(0, value, &Place::ROOT, 0, true, &mut Seen::default());
        if run.over {
            let told = "would take too long to check; send less".to_owned();
            let at = String::new();
            return Err(vec![Found { at, schema: String::new(), keyword: "$ref", told, wider: None }]);
        }
        if fits { Ok(()) } else { Err(run.found) }
    }
}

/// What of an object or array has been looked at.
#[derive(Debug, Default)]
struct Seen<'v> {
    all: bool,
    members: HashSet<&'v str>,
    first: usize,
    items: HashSet<usize>,
}

impl Seen<'_> {
    fn take(&mut self, other: Self)
    where
        Self: Sized,
    {
        self.all |= other.all;
        self.first = self.first.max(other.first);
        self.items.extend(other.items);
    }
}

impl<'v> Seen<'v> {
    fn join(&mut self, mut other: Seen<'v>) {
        self.members.extend(std::mem::take(&mut other.members));
        self.take(other);
    }
}

struct Run<'s> {
    schema: &'s Schema,
    world: &'s dyn World,
    steps: usize,
    over: bool,
    found: Vec<Found>,
}

/// What is being checked, and how.
#[derive(Clone, Copy)]
struct At<'a, 'v> {
    node: &'a Node,
    rule: &'a Rule,
    value: &'v Value,
    place: &'a Place<'a>,
    depth: usize,
    /// What is wrong is to be told.
    tell: bool,
}

impl<'s> Run<'s> {
    fn node<'v>(
        &mut self,
        id: Id,
        value: &'v Value,
        place: &Place<'_>,
        depth: usize,
        tell: bool,
        seen: &mut Seen<'v>,
    ) -> bool {
        self.spend(1);
        self.over |= depth > MOST_DEPTH;
        let schema = self.schema;
        let Some(node) = schema.nodes.get(id).filter(|_| !self.over) else { return false };
        let mut fits = true;
        for rule in &node.rules {
            let at = At { node, rule, value, place, depth: depth + 1, tell };
            fits &= self.rule(at, seen);
            // The rest is of interest only to who is to be told all of it.
            let rest = fits || tell && self.found.len() < MOST_FOUND;
            if self.over || !rest {
                return false;
            }
        }
        fits
    }

    fn spend(&mut self, steps: usize) {
        self.steps = self.steps.saturating_add(steps);
        self.over |= self.steps > MOST_STEPS;
    }

    fn wrong(&mut self, at: At<'_, '_>, told: impl FnOnce() -> String) -> bool {
        self.wrong_at(at, at.place, told, || None)
    }

    fn wrong_at(
        &mut self,
        at: At<'_, '_>,
        place: &Place<'_>,
        told: impl FnOnce() -> String,
        wider: impl FnOnce() -> Option<Wider>,
    ) -> bool {
        if at.tell && self.found.len() < MOST_FOUND {
            self.found.push(Found {
                at: place.pointer(),
                schema: at.node.at.clone(),
                keyword: at.rule.keyword(),
                told: told(),
                wider: wider(),
            });
        }
        false
    }

    fn rule<'v>(&mut self, at: At<'_, 'v>, seen: &mut Seen<'v>) -> bool {
        match at.rule {
            Rule::AllOf(_)
            | Rule::AnyOf(_)
            | Rule::OneOf(_)
            | Rule::Not(_)
            | Rule::If { .. }
            | Rule::Ref(_)
            | Rule::DependentSchemas(_) => self.in_place(at, seen),
            Rule::Never => self.wrong(at, || "must not be there".to_owned()),
            Rule::Type(types) => {
                types.hold(at.value)
                    || self.wrong(at, || {
                        format!("must be {}, not {}", types.told(), with_article(type_of(at.value)))
                    })
            }
            Rule::Enum(_) | Rule::Const(_) => self.constant(at),
            Rule::MultipleOf(..) | Rule::Bound(..) => self.number(at),
            Rule::Count(measure, bound, limit) => self.count(at, *measure, *bound, *limit),
            Rule::Pattern(pattern) => {
                let Value::String(text) = at.value else { return true };
                self.spend(pattern.cost(text));
                self.over
                    || pattern.is_match(text)
                    || self.wrong(at, || format!("must match the pattern `{}`", pattern.text))
            }
            Rule::Means(meaning) => {
                self.spend(at.value.as_str().map_or(1, |text| 1 + text.len() / 8));
                match meaning.judge(at.value, self.world) {
                    Ok(()) => true,
                    Err(unmeant) => {
                        self.wrong_at(at, at.place, || unmeant.told, || unmeant.wider.map(Wider::Value))
                    }
                }
            }
            Rule::UniqueItems | Rule::Contains { .. } | Rule::Items { .. } | Rule::UnevaluatedItems(_) => {
                match at.value {
                    Value::Array(items) => self.array(at, items, seen),
                    _ => true,
                }
            }
            Rule::Required(_)
            | Rule::DependentRequired(_)
            | Rule::Members(_)
            | Rule::PropertyNames(_)
            | Rule::UnevaluatedProperties(_) => match at.value {
                Value::Object(members) => self.object(at, members, seen),
                _ => true,
            },
        }
    }

    fn constant(&mut self, at: At<'_, '_>) -> bool {
        let allowed = match at.rule {
            Rule::Enum(values) => values.as_slice(),
            Rule::Const(value) => std::slice::from_ref(value),
            _ => return true,
        };
        self.spend(allowed.len());
        if allowed.iter().any(|value| same(value, at.value)) {
            return true;
        }
        let told = || match allowed {
            [one] => format!("must be {}", shown(one)),
            several => format!("must be one of {}", listed(several.iter().map(shown))),
        };
        let wider = || {
            let scalar = !at.value.is_object() && !at.value.is_array();
            let several = matches!(at.rule, Rule::Enum(_)) && scalar;
            several.then(|| Wider::Value(Value::Array([allowed, std::slice::from_ref(at.value)].concat())))
        };
        self.wrong_at(at, at.place, told, wider)
    }

    fn number(&mut self, at: At<'_, '_>) -> bool {
        let Value::Number(number) = at.value else { return true };
        let found = Decimal::of(number);
        let (fits, told) = match at.rule {
            Rule::MultipleOf(divisor, shown) => (found.is_multiple_of(*divisor), ("a multiple of", shown)),
            Rule::Bound(Bound::Least, limit, shown) => (found >= *limit, ("at least", shown)),
            Rule::Bound(Bound::Most, limit, shown) => (found <= *limit, ("at most", shown)),
            Rule::Bound(Bound::Above, limit, shown) => (found > *limit, ("more than", shown)),
            Rule::Bound(Bound::Below, limit, shown) => (found < *limit, ("less than", shown)),
            _ => return true,
        };
        let inclusive = matches!(at.rule, Rule::Bound(Bound::Least | Bound::Most, ..));
        fits || self.wrong_at(
            at,
            at.place,
            || format!("must be {} {}", told.0, told.1),
            || inclusive.then(|| Wider::Value(at.value.clone())),
        )
    }

    fn count(&mut self, at: At<'_, '_>, measure: Measure, bound: Bound, limit: u64) -> bool {
        let (count, unit) = match (measure, at.value) {
            (Measure::Characters, Value::String(text)) => {
                self.spend(text.len() / 64);
                (text.chars().count(), "characters")
            }
            (Measure::Items, Value::Array(items)) => (items.len(), "items"),
            (Measure::Members, Value::Object(members)) => (members.len(), "members"),
            _ => return true,
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let least = bound == Bound::Least;
        let fits = if least { count >= limit } else { count <= limit };
        let side = if least { "at least" } else { "at most" };
        fits || self.wrong_at(
            at,
            at.place,
            || format!("must have {side} {limit} {unit}, and has {count}"),
            || Some(Wider::Value(count.into())),
        )
    }

    fn in_place<'v>(&mut self, at: At<'_, 'v>, seen: &mut Seen<'v>) -> bool {
        match at.rule {
            Rule::Ref(id) => self.sub(at, *id, at.tell, seen),
            Rule::AllOf(ids) => {
                // Each is asked, so that all that is wrong is told.
                let fitting = ids.iter().filter(|id| self.sub(at, **id, at.tell, seen)).count();
                fitting == ids.len()
            }
            Rule::DependentSchemas(needs) => {
                let Value::Object(members) = at.value else { return true };
                self.spend(needs.len());
                let given = needs.iter().filter(|(name, _)| members.contains_key(name));
                given.fold(true, |fits, (_, id)| self.sub(at, *id, at.tell, seen) && fits)
            }
            Rule::If { condition, then, otherwise } => {
                let branch = if self.sub(at, *condition, false, seen) { then } else { otherwise };
                branch.is_none_or(|id| self.sub(at, id, at.tell, seen))
            }
            Rule::Not(id) => {
                !self.sub(at, *id, false, &mut Seen::default())
                    || self.wrong(at, || "must not fit the schema of `not`".to_owned())
            }
            Rule::AnyOf(ids) => {
                let mut fits = false;
                for id in ids {
                    fits |= self.sub(at, *id, false, seen);
                    if fits && !self.schema.tracks {
                        break;
                    }
                }
                fits || self.no_alternative(at, ids)
            }
            Rule::OneOf(ids) => {
                let mut fitting = 0;
                for id in ids {
                    fitting += usize::from(self.sub(at, *id, false, seen));
                }
                match fitting {
                    0 => self.no_alternative(at, ids),
                    1 => true,
                    _ => self.wrong(at, || format!("must fit one alternative, and fits {fitting}")),
                }
            }
            _ => true,
        }
    }

    /// Another schema for the same value. What it has looked at counts if the value fits.
    fn sub<'v>(&mut self, at: At<'_, 'v>, id: Id, tell: bool, seen: &mut Seen<'v>) -> bool {
        let mut own = Seen::default();
        let fits = self.node(id, at.value, at.place, at.depth, tell, &mut own);
        if fits && self.schema.tracks {
            seen.join(own);
        }
        fits
    }

    /// Says of each alternative what it wants.
    fn no_alternative(&mut self, at: At<'_, '_>, ids: &[Id]) -> bool {
        if !at.tell || self.over {
            return false;
        }
        let before = std::mem::take(&mut self.found);
        let mut reasons = Vec::new();
        for (nth, id) in ids.iter().take(MOST_ALTERNATIVES).enumerate() {
            self.sub(at, *id, true, &mut Seen::default());
            if let Some(first) = std::mem::take(&mut self.found).into_iter().next() {
                let place = if first.at.is_empty() { String::new() } else { format!("`{}` ", first.at) };
                reasons.push(format!("{}: {place}{}", nth + 1, first.told));
            }
        }
        self.found = before;
        self.wrong(at, || {
            format!("must fit one of {} alternatives, and fits none ({})", ids.len(), reasons.join("; "))
        })
    }

    fn array<'v>(&mut self, at: At<'_, 'v>, items: &'v [Value], seen: &mut Seen<'v>) -> bool {
        match at.rule {
            Rule::UniqueItems => {
                let mut known = HashSet::new();
                let twice = items.iter().position(|item| {
                    let text = canonical(item);
                    self.spend(1 + text.len() / 8);
                    self.over || !known.insert(text)
                });
                twice.is_none_or(|index| {
                    let place = at.place.item(index);
                    let told = || "must not be there again: each item may be there once".to_owned();
                    self.wrong_at(at, &place, told, || None)
                })
            }
            Rule::Contains { schema, least, most } => {
                let mut count = 0_u64;
                for (index, item) in items.iter().enumerate() {
                    let place = at.place.item(index);
                    if self.node(*schema, item, &place, at.depth, false, &mut Seen::default()) {
                        count += 1;
                        if self.schema.tracks {
                            seen.items.insert(index);
                        }
                    }
                }
                let enough = count >= *least && most.is_none_or(|most| count <= most);
                let most = most.map_or(String::new(), |most| format!(" and at most {most}"));
                enough
                    || self.wrong(at, || {
                        format!("must have at least {least}{most} items that fit `contains`, and has {count}")
                    })
            }
            Rule::Items { first, others } => {
                let mut fits = true;
                for (index, item) in items.iter().enumerate() {
                    let Some(id) = first.get(index).or(others.as_ref()) else { break };
                    fits &= self.item(at, *id, index, item);
                    if self.over {
                        return false;
                    }
                }
                seen.first = seen.first.max(first.len());
                seen.all |= others.is_some();
                fits
            }
            Rule::UnevaluatedItems(id) => {
                let mut fits = true;
                for (index, item) in items.iter().enumerate() {
                    if !seen.all && index >= seen.first && !seen.items.contains(&index) {
                        fits &= self.item(at, *id, index, item);
                    }
                }
                seen.all = true;
                fits
            }
            _ => true,
        }
    }

    fn item(&mut self, at: At<'_, '_>, id: Id, index: usize, item: &Value) -> bool {
        let place = at.place.item(index);
        self.node(id, item, &place, at.depth, at.tell, &mut Seen::default())
    }

    fn object<'v>(
        &mut self,
        at: At<'_, 'v>,
        members: &'v serde_json::Map<String, Value>,
        seen: &mut Seen<'v>,
    ) -> bool {
        self.spend(members.len());
        match at.rule {
            Rule::Required(names) => {
                self.spend(names.len());
                self.needed(at, members, names)
            }
            Rule::DependentRequired(needs) => {
                self.spend(needs.iter().map(|(_, names)| 1 + names.len()).sum());
                let given = needs.iter().filter(|(name, _)| members.contains_key(name));
                given.fold(true, |fits, (_, names)| self.needed(at, members, names) && fits)
            }
            Rule::PropertyNames(id) => {
                let mut fits = true;
                for name in members.keys() {
                    let place = at.place.member(name);
                    let value = Value::String(name.clone());
                    let named = self.node(*id, &value, &place, at.depth, false, &mut Seen::default());
                    fits &= named
                        || self.wrong_at(at, &place, || "has a name that is not allowed".to_owned(), || None);
                }
                fits
            }
            Rule::Members(rule) => members
                .iter()
                .fold(true, |fits, (name, value)| self.member(at, rule, name, value, seen) && fits),
            Rule::UnevaluatedProperties(id) => {
                let mut fits = true;
                for (name, value) in members {
                    if !seen.all && !seen.members.contains(name.as_str()) {
                        let place = at.place.member(name);
                        fits &= self.node(*id, value, &place, at.depth, at.tell, &mut Seen::default());
                    }
                }
                seen.all = true;
                fits
            }
            _ => true,
        }
    }

    fn needed(&mut self, at: At<'_, '_>, members: &serde_json::Map<String, Value>, names: &[String]) -> bool {
        let lacking: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| !members.contains_key(*name)).collect();
        lacking.is_empty()
            || self.wrong(at, || {
                let plural = if lacking.len() == 1 { "member" } else { "members" };
                format!("must have the {plural} {}", listed(lacking.iter().map(|name| format!("`{name}`"))))
            })
    }

    fn member<'v>(
        &mut self,
        at: At<'_, 'v>,
        rule: &Members,
        name: &'v str,
        value: &'v Value,
        seen: &mut Seen<'v>,
    ) -> bool {
        let place = at.place.member(name);
        let mut known = false;
        let mut fits = true;
        if let Some(id) = rule.named.get(name) {
            known = true;
            fits &= self.node(*id, value, &place, at.depth, at.tell, &mut Seen::default());
        }
        for (pattern, id) in &rule.matching {
            self.spend(pattern.cost(name));
            if !self.over && pattern.is_match(name) {
                known = true;
                fits &= self.node(*id, value, &place, at.depth, at.tell, &mut Seen::default());
            }
        }
        match rule.others.filter(|_| !known) {
            Some(id) if self.is_never(id) => {
                known = true;
                let names = || {
                    let mut names: Vec<_> = rule.named.keys().map(|name| format!("`{name}`")).collect();
                    names.sort_unstable();
                    names
                };
                fits &= self.wrong_at(
                    at,
                    &place,
                    || match names() {
                        names if names.is_empty() => "must not be there: no member is known here".to_owned(),
                        names => format!("must not be there; known are {}", listed(names.into_iter())),
                    },
                    || Some(Wider::Property(name.to_owned())),
                );
            }
            Some(id) => {
                known = true;
                fits &= self.node(id, value, &place, at.depth, at.tell, &mut Seen::default());
            }
            None => {}
        }
        if known && self.schema.tracks {
            seen.members.insert(name);
        }
        fits
    }

    fn is_never(&self, id: Id) -> bool {
        self.schema.nodes.get(id).is_some_and(|node| matches!(node.rules.as_slice(), [Rule::Never]))
    }
}

/// A value of a schema, for a sentence.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { format!("{}…", text.chars().take(80).collect::<String>()) } else { text }
}

fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MOST_LISTED);
    let mut text = names.take(MOST_LISTED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
