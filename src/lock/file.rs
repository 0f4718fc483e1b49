//! `toolcell.lock`: what was accepted of each server, as TOML that a person and a version control system can read.
//!
//! Neighbours: `lock::read` reads it back, `commands::lock` writes it. Never: holds a character that nobody sees.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::definition::{Definition, Kind, hash, pretty};
use super::words::is_hidden;
use crate::policy::print::key_or;

/// The version of the format.
pub(super) const VERSION: i64 = 1;

const HEAD: &str = "\
# Written by `toolcell lock`: what servers were when somebody accepted them. `toolcell run` refuses calls of what differs.
# To look at changes and accept them: toolcell lock --review
";

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockFile {
    /// By name.
    pub servers: BTreeMap<String, Server>,
}

/// What was accepted of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long its processes live, and those of single tools, where that is not one call.
    pub state: Vec<String>,
    /// What its program was installed from, where toolcell has fetched that.
    pub package: Option<Package>,
    /// Files of the program.
    pub program: Vec<Part>,
    /// The profiles of its calls, resolved and printed, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// What it lists. Two of one name were both accepted: a server may speak differently in the two eras of the protocol.
    pub items: BTreeMap<Kind, Vec<Item>>,
}

/// A package that toolcell has fetched, as its registry named it then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// Registry and name, as `npm:NAME`.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Packages whose install scripts, or builds, were allowed.
    pub scripts: Vec<String>,
    /// It and all that came with it.
    pub packages: Vec<Pinned>,
}

impl Package {
    /// The SHA-256 of all of it.
    #[must_use]
    pub fn hash(&self) -> String {
        let Self { name, version, scripts, packages } = self;
        hash(Sha256::new_with_prefix(serde_json::json!([name, version, scripts, packages]).to_string()))
    }
}

/// One package of several, and what its archive's bytes must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pinned {
    /// In the form in which the registry has it; for npm with its place in the tree.
    pub name: String,
    /// Exactly.
    pub version: String,
    /// A hash with its algorithm, as the package manager writes it; of several one.
    pub integrity: String,
}

/// A part of a program: a package, or a directory or file of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Where.
    pub path: String,
    /// Of the package, as it says itself.
    pub version: Option<String>,
    /// How many files, directories and links.
    pub files: u64,
    /// Over names, kinds and contents of all of them.
    pub hash: String,
}

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The policy, printed as a profile.
    pub text: String,
}

impl Profile {
    /// The SHA-256 of the text.
    #[must_use]
    pub fn hash(&self) -> String {
        hash(Sha256::new_with_prefix(&self.text))
    }
}

/// A definition, and which rules' flags on it were accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// The definition.
    pub definition: Definition,
    /// Identifiers of rules.
    pub accepted: BTreeSet<String>,
}

impl LockFile {
    /// The text of the file: the same for equal values.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = format!("{HEAD}version = {VERSION}\n");
        for (name, server) in &self.servers {
            let table = format!("servers.{}", key(name));
            let command: Vec<String> = server.command.iter().map(|word| one_line(word)).collect();
            out.push_str(&format!("\n[{table}]\ncommand = [{}]\n", command.join(", ")));
            if !server.state.is_empty() {
                let state: Vec<String> = server.state.iter().map(|word| one_line(word)).collect();
                out.push_str(&format!("state = [{}]\n", state.join(", ")));
            }
            if let Some(package) = &server.package {
                print_package(&mut out, &table, package);
            }
            for Part { path, version, files, hash } in &server.program {
                let path = one_line(path);
                let version =
                    version.as_ref().map(|v| format!("version = {}\n", one_line(v))).unwrap_or_default();
                let hash = one_line(hash);
                out.push_str(&format!(
                    "\n[[{table}.program]]\npath = {path}\n{version}files = {files}\nhash = {hash}\n"
                ));
            }
            for (name, profile) in &server.profiles {
                let (name, hash, text) = (one_line(name), one_line(&profile.hash()), quoted(&profile.text));
                out.push_str(&format!(
                    "\n[[{table}.profiles]]\nname = {name}\nhash = {hash}\ntext = {text}\n"
                ));
            }
            for (kind, items) in &server.items {
                items.iter().for_each(|item| print(&mut out, &format!("{table}.{}", kind.table()), item));
            }
        }
        out
    }
}

fn print_package(out: &mut String, table: &str, package: &Package) {
    let Package { name, version, scripts, packages } = package;
    let hash = one_line(&package.hash());
    let (name, version) = (one_line(name), one_line(version));
    out.push_str(&format!("\n[{table}.package]\nname = {name}\nversion = {version}\nhash = {hash}\n"));
    if !scripts.is_empty() {
        let scripts: Vec<String> = scripts.iter().map(|name| one_line(name)).collect();
        out.push_str(&format!("scripts = [{}]\n", scripts.join(", ")));
    }
    out.push_str("packages = [\n");
    for Pinned { name, version, integrity } in packages {
        let (name, version, integrity) = (one_line(name), one_line(version), one_line(integrity));
        out.push_str(&format!("  {{ name = {name}, version = {version}, integrity = {integrity} }},\n"));
    }
    out.push_str("]\n");
}

fn print(out: &mut String, table: &str, item: &Item) {
    let Item { definition, accepted } = item;
    let (name, hash) = (one_line(&definition.name), one_line(&definition.hash()));
    out.push_str(&format!("\n[[{table}]]\nname = {name}\nhash = {hash}\n"));
    if !accepted.is_empty() {
        let rules: Vec<String> = accepted.iter().map(|rule| one_line(rule)).collect();
        out.push_str(&format!("accepted = [{}]\n", rules.join(", ")));
    }
    for (member, text) in &definition.texts {
        out.push_str(&format!("text.{} = {}\n", key(member), quoted(text)));
    }
    for (member, json) in &definition.json {
        out.push_str(&format!("json.{} = {}\n", key(member), quoted(&pretty(json))));
    }
}

/// A key, without characters that nobody sees.
fn key(name: &str) -> String {
    key_or(name, one_line)
}

fn one_line(text: &str) -> String {
    format!("\"{}\"", escaped(text, false))
}

/// Over several lines, if the text has them.
fn quoted(text: &str) -> String {
    if text.contains('\n') { format!("\"\"\"\n{}\"\"\"", escaped(text, true)) } else { one_line(text) }
}

fn escaped(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quotes = false;
    while let Some(character) = chars.next() {
        let open = lines && !quotes && chars.peek().is_some_and(|next| *next != '"');
        quotes = false;
        match character {
            '"' if open => {
                out.push('"');
                quotes = true;
            }
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' if lines => out.push('\n'),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_hidden(c) => {
                let code = u32::from(c);
                out.push_str(&if code > 0xffff {
                    format!("\\U{code:08X}")
                } else {
                    format!("\\u{code:04X}")
                });
            }
            c => out.push(c),
        }
    }
    out
}
