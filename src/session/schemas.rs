//! What a server's list of tools says of their arguments and results, kept for the session.
//!
//! A schema is compiled when its tool is first called, and again when the server lists another one.
//!
//! Neighbours: [`super::catalogue`] fills it, [`super::arguments`] asks it. Never: grows with what a server lists, or takes one of two
//! schemas that a list has for one name.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::arguments::strict::{self, Unreadable};
use crate::arguments::{Author, Schema, compile};
use crate::mcp::envelope::{self, only};
use crate::mcp::object;

/// Bytes of the schemas of one server, at most.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one schema, at most.
const MOST_SCHEMA: usize = 512 * 1024;

#[derive(Debug)]
struct Tool {
    input: Option<Part>,
    output: Option<Part>,
    /// The list in which it stood last.
    walk: u64,
}

#[derive(Debug)]
struct Part {
    raw: Vec<u8>,
    /// Once it was needed; why not, if it cannot be used.
    compiled: Option<Result<Rc<Schema>, String>>,
}

/// What is known of a tool's schema.
#[derive(Debug)]
pub(super) enum Known {
    /// The list has not been seen whole.
    Unknown,
    /// The server does not list such a tool.
    Unlisted,
    /// It is listed without a schema.
    Free,
    Schema(Rc<Schema>),
    /// Why it cannot be used.
    Unusable(String),
}

/// The tools of one era.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    tools: HashMap<String, Tool>,
    bytes: usize,
    walk: u64,
    /// The cursor of the page that goes on with the walk, if there is one and no page was left out.
    next: Option<String>,
    complete: bool,
    /// A tool was left out, because there were too many.
    over: bool,
}

impl Schemas {
    /// The list has changed.
    pub(super) fn forget(&mut self) {
        *self = Self { walk: self.walk, ..Self::default() };
    }

    /// The list has been seen whole.
    pub(super) const fn complete(&mut self) {
        self.complete = true;
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes a page of the list, asked for with this cursor; without one a walk begins. A tool that a walk has not shown
    /// when it ends is not known any more.
    pub(super) fn take(&mut self, line: &[u8], result: Range<usize>, cursor: Option<&str>) {
        self.walk += u64::from(cursor.is_none());
        let goes_on = cursor.is_none() || self.next.take().as_deref() == cursor;
        let tools = object::member(line, result.clone(), "tools").unwrap_or_default();
        for tool in object::items(line, tools) {
            let members = object::members(line, tool);
            let part =
                |name: &str| only(&members, name).map(|member| member.map(|member| member.value.clone()));
            // A tool that readers could call differently is not listed.
            let name = part("name").ok().flatten().and_then(|span| object::text(line.get(span)?));
            let Some(name) = name else { continue };
            let [input, output] = ["inputSchema", "outputSchema"].map(|name| match part(name) {
                Ok(span) => span.and_then(|span| line.get(span)).map(<[u8]>::to_vec).map(Part::new),
                Err(why) => Some(Part::unusable(why)),
            });
            self.put(name.into_owned(), Tool { input, output, walk: self.walk });
        }
        self.next = envelope::text_member(line, result, "nextCursor").filter(|_| goes_on);
        if goes_on && self.next.is_none() {
            self.tools.retain(|_, tool| tool.walk == self.walk);
            self.bytes = self.tools.iter().map(|(name, tool)| name.len() + tool.size()).sum();
        }
    }

    fn put(&mut self, name: String, listed: Tool) {
        let more = name.len() + listed.size();
        let less = self.tools.get(&name).map_or(0, |tool| name.len() + tool.size());
        match self.tools.get_mut(&name) {
            Some(tool) if tool.is_like(&listed) => tool.walk = self.walk,
            Some(tool) if tool.walk == self.walk => {
                self.bytes -= tool.size();
                let twice = || Some(Part::unusable("the tool is listed twice, with two schemas".to_owned()));
                (tool.input, tool.output) = (twice(), twice());
            }
            _ if self.bytes - less + more > MOST_BYTES => self.over = true,
            _ => {
                self.bytes = self.bytes - less + more;
                self.tools.insert(name, listed);
            }
        }
    }

    /// What is known of the arguments of a tool.
    pub(super) fn of_arguments(&mut self, tool: &str) -> Known {
        self.of(tool, |tool| &mut tool.input)
    }

    /// What is known of the structured content of a tool's result.
    pub(super) fn of_result(&mut self, tool: &str) -> Known {
        self.of(tool, |tool| &mut tool.output)
    }

    fn of(&mut self, tool: &str, part: impl FnOnce(&mut Tool) -> &mut Option<Part>) -> Known {
        let Some(found) = self.tools.get_mut(tool) else {
            return match (self.complete, self.over) {
                (true, false) => Known::Unlisted,
                (true, true) => {
                    Known::Unusable(format!("the server's schemas have more than {MOST_BYTES} bytes"))
                }
                (false, _) => Known::Unknown,
            };
        };
        match part(found) {
            None => Known::Free,
            Some(part) => match part.compiled() {
                Ok(schema) => Known::Schema(Rc::clone(schema)),
                Err(why) => Known::Unusable(why.clone()),
            },
        }
    }

    /// The names of all tools.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tools.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

impl Tool {
    fn size(&self) -> usize {
        [&self.input, &self.output].into_iter().flatten().map(|part| part.raw.len()).sum()
    }

    fn is_like(&self, other: &Self) -> bool {
        let same = |one: &Option<Part>, other: &Option<Part>| match (one, other) {
            (Some(one), Some(other)) => one.raw == other.raw,
            (one, other) => one.is_none() && other.is_none(),
        };
        same(&self.input, &other.input) && same(&self.output, &other.output)
    }
}

impl Part {
    const fn new(raw: Vec<u8>) -> Self {
        Self { raw, compiled: None }
    }

    const fn unusable(why: String) -> Self {
        Self { raw: Vec::new(), compiled: Some(Err(why)) }
    }

    fn compiled(&mut self) -> &Result<Rc<Schema>, String> {
        self.compiled.get_or_insert_with(|| compiled(&self.raw).map(Rc::new))
    }
}

fn compiled(raw: &[u8]) -> Result<Schema, String> {
    if raw.len() > MOST_SCHEMA {
        return Err(format!("it has more than {MOST_SCHEMA} bytes"));
    }
    let place = |at: &str| if at.is_empty() { "it".to_owned() } else { format!("`{at}` in it") };
    let document = strict::read(raw).map_err(|Unreadable { at, wrong }| format!("{} {wrong}", place(&at)))?;
    compile(&document, Author::Server).map_err(|mistakes| {
        let first = mistakes.first().map(|mistake| format!("{} {}", place(&mistake.at), mistake.told));
        first.unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(schemas: &mut Schemas, tools: &str, first: bool) {
        let result = format!(r#"{{"tools":[{tools}]}}"#);
        schemas.take(result.as_bytes(), 0..result.len(), (!first).then_some("c"));
    }

    fn known(schemas: &mut Schemas, tool: &str) -> String {
        match schemas.of_arguments(tool) {
            Known::Schema(_) => "schema".to_owned(),
            Known::Unusable(why) => why,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_known_is_unknown_until_the_list_has_been_seen_whole() {
        let mut schemas = Schemas::default();
        take(&mut schemas, r#"{"name":"a","inputSchema":{"type":"object"}},{"name":"b"}"#, true);
        assert_eq!(known(&mut schemas, "a"), "schema");
        assert_eq!(known(&mut schemas, "b"), "Free");
        assert_eq!(known(&mut schemas, "c"), "Unknown");
        schemas.complete();
        assert_eq!(known(&mut schemas, "c"), "Unlisted");
        assert_eq!(schemas.names(), ["a", "b"]);
        schemas.forget();
        assert_eq!(known(&mut schemas, "a"), "Unknown");
    }

    #[test]
    fn a_tool_that_a_whole_walk_does_not_show_is_not_known_any_more() {
        let page = |schemas: &mut Schemas, tool: &str, cursor: Option<&str>, next: &str| {
            let result = format!(r#"{{"tools":[{{"name":"{tool}","inputSchema":{{}}}}]{next}}}"#);
            schemas.take(result.as_bytes(), 0..result.len(), cursor);
        };
        let mut schemas = Schemas::default();
        page(&mut schemas, "a", None, r#","nextCursor":"2""#);
        page(&mut schemas, "b", Some("2"), "");
        schemas.complete();
        assert_eq!(schemas.names(), ["a", "b"]);
        // As long as the walk goes on, and where a page of it was left out, a tool may still come.
        page(&mut schemas, "b", None, r#","nextCursor":"2""#);
        assert_eq!(schemas.names(), ["a", "b"]);
        page(&mut schemas, "c", Some("3"), "");
        assert_eq!(schemas.names(), ["a", "b", "c"]);
        page(&mut schemas, "c", None, r#","nextCursor":"2""#);
        page(&mut schemas, "d", Some("2"), "");
        assert_eq!(schemas.names(), ["c", "d"]);
        assert_eq!((known(&mut schemas, "a").as_str(), schemas.bytes), ("Unlisted", 6));
    }

    #[test]
    fn one_of_two_schemas_is_never_taken() {
        let mut schemas = Schemas::default();
        let one = r#"{"name":"a","inputSchema":{"type":"object"}}"#;
        let other = r#"{"name":"a","inputSchema":{}}"#;
        take(&mut schemas, one, true);
        take(&mut schemas, one, false);
        assert_eq!(known(&mut schemas, "a"), "schema");
        take(&mut schemas, other, false);
        assert!(known(&mut schemas, "a").contains("listed twice"));
        // Another walk: the server has changed its mind.
        take(&mut schemas, other, true);
        assert_eq!(known(&mut schemas, "a"), "schema");
        take(&mut schemas, r#"{"name":"x","inputSchema":{},"inputschema":{"type":"object"}}"#, true);
        assert!(known(&mut schemas, "x").contains("more than once"));
        take(&mut schemas, r#"{"name":"y","inputSchema":{"type":"object","type":"string"}}"#, true);
        assert!(known(&mut schemas, "y").contains("`type` is there more than once"));
        take(&mut schemas, r#"{"name":"z","inputSchema":{"pattern":"(?=a)"}}"#, true);
        assert!(
            known(&mut schemas, "z")
                .starts_with("`/pattern` in it is a regular expression that cannot be used")
        );
    }

    #[test]
    fn a_schema_that_replaces_another_takes_its_place() {
        let mut schemas = Schemas::default();
        let long = "x".repeat(MOST_SCHEMA / 2);
        for number in 0..100 {
            take(
                &mut schemas,
                &format!(r#"{{"name":"a","inputSchema":{{"title":"{number}{long}"}}}}"#),
                true,
            );
            assert_eq!(known(&mut schemas, "a"), "schema", "{number}");
        }
        assert!(!schemas.over && schemas.bytes < MOST_SCHEMA);
    }

    #[test]
    fn what_a_server_lists_is_bounded() {
        let mut schemas = Schemas::default();
        let long = "x".repeat(MOST_SCHEMA);
        for number in 0..20 {
            take(
                &mut schemas,
                &format!(r#"{{"name":"{number}","inputSchema":{{"title":"{long}"}}}}"#),
                number == 0,
            );
        }
        schemas.complete();
        assert!(schemas.bytes <= MOST_BYTES);
        assert!(known(&mut schemas, "0").contains("has more than"));
        assert!(known(&mut schemas, "19").contains("schemas have more than"));
    }
}
