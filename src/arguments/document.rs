//! The places of a schema's document that references lead to: resources by `$id`, anchors, and JSON Pointers.
//!
//! Neighbours: `arguments::compile` asks. Never: fetches anything: what is not in the document does not exist.

use std::collections::HashMap;

use serde_json::Value;

use super::percent;

/// Bytes of a JSON Pointer into a document, at most; what lies deeper is not found.
pub(super) const MOST_POINTER: usize = 4096;
/// Keywords whose members are names, each with a schema.
const NAMED: &[&str] =
    &["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
/// Keywords whose values are no schemas.
const DATA: &[&str] = &["enum", "const", "default", "examples", "required", "dependentRequired"];

/// A document and its names.
#[derive(Debug)]
pub(super) struct Document<'v> {
    root: &'v Value,
    /// Where each `$id` stands.
    resources: HashMap<&'v str, String>,
    /// Where each anchor stands, by the pointer of its resource and its name.
    anchors: HashMap<(String, &'v str), String>,
    /// A name of either kind is there twice, and readers could choose either.
    ambiguous: bool,
}

impl<'v> Document<'v> {
    pub(super) fn new(root: &'v Value) -> Self {
        let mut document =
            Self { root, resources: HashMap::new(), anchors: HashMap::new(), ambiguous: false };
        let mut open = vec![(root, String::new(), String::new(), false)];
        while let Some((value, at, resource, names)) = open.pop() {
            match value {
                _ if at.len() > MOST_POINTER => {}
                Value::Object(members) => {
                    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|_| !names);
                    let mut resource = resource;
                    for id in ["$id", "id"].into_iter().filter_map(text) {
                        match id.strip_prefix('#') {
                            // As drafts before 2019-09 wrote anchors.
                            Some(anchor) if !anchor.is_empty() => {
                                let before = document.anchors.insert((resource.clone(), anchor), at.clone());
                                document.ambiguous |= before.is_some();
                            }
                            _ => {
                                let before = document.resources.insert(id.trim_end_matches('#'), at.clone());
                                document.ambiguous |= before.is_some();
                                resource.clone_from(&at);
                            }
                        }
                    }
                    for anchor in ["$anchor", "$dynamicAnchor"].into_iter().filter_map(text) {
                        let before = document.anchors.insert((resource.clone(), anchor), at.clone());
                        document.ambiguous |= before.is_some();
                    }
                    for (name, inner) in members {
                        if names || !DATA.contains(&name.as_str()) {
                            let inside = !names && NAMED.contains(&name.as_str());
                            open.push((inner, below(&at, name), resource.clone(), inside));
                        }
                    }
                }
                Value::Array(items) => {
                    for (index, inner) in items.iter().enumerate() {
                        open.push((inner, format!("{at}/{index}"), resource.clone(), false));
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        document
    }

    pub(super) fn at(&self, pointer: &str) -> Option<&'v Value> {
        self.root.pointer(pointer)
    }

    /// The pointer that a reference from the schema at `from` leads to.
    ///
    /// # Errors
    /// Why it leads nowhere.
    pub(super) fn target(&self, reference: &str, from: &str) -> Result<String, &'static str> {
        let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let named = !base.is_empty() || !(fragment.is_empty() || fragment.starts_with('/'));
        if named && self.ambiguous {
            return Err("cannot be followed: an `$id` or `$anchor` is there twice");
        }
        let resource = match base {
            "" => self.resource_of(from),
            base => self
                .resources
                .get(base)
                .map(String::as_str)
                .ok_or("leads out of the schema, and nothing is fetched")?,
        };
        let fragment = percent::decoded(fragment).ok_or("is no reference")?;
        let pointer = match fragment.as_str() {
            "" => resource.to_owned(),
            path if path.starts_with('/') => format!("{resource}{path}"),
            anchor => {
                let found = self.anchors.get(&(resource.to_owned(), anchor));
                found.cloned().ok_or("names an anchor that is not there")?
            }
        };
        self.at(&pointer).map(|_| pointer).ok_or("leads to nothing")
    }

    /// The innermost resource that holds a place.
    fn resource_of(&self, pointer: &str) -> &str {
        let holds = |at: &&String| {
            pointer.strip_prefix(at.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.resources.values().filter(holds).max_by_key(|at| at.len()).map_or("", String::as_str)
    }
}

/// The pointer to a member.
pub(super) fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", super::place::escaped(name))
}
