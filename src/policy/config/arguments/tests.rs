//! What a configuration says of arguments, from its text to the line that would allow more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::arguments::World;
use crate::policy::Source;
use crate::policy::config::{Config, parse};
use crate::policy::mistakes::Mistakes;

fn read(text: &str) -> Result<Config, Mistakes> {
    let path = Some(PathBuf::from("/etc/cells/config.toml"));
    parse(&Source { name: "config".to_owned(), path, text: text.to_owned() }, &BTreeSet::new())
}

#[test]
fn mistakes_in_what_arguments_must_be_are_told_at_their_places() {
    let text = r#"
[servers.files]
command = ["x"]
[servers.files.tools.read.arguments]
additionalProperty = false
required = "path"
[servers.files.tools.read.arguments.properties.path]
type = "strnig"
maxLenght = 4096
format = "uri"
path = { within = ["data"] , inside = [] }
[servers.files.tools.read.arguments.properties.query]
pattern = "(?=a)"
default = 1979-05-27
[servers.files.tools.fetch.arguments.properties.url]
"$ref" = "https://example.com/url.json"
url = { host = ["example.com", "*"] }
anyOf = [{ type = "string" }, { minimum = "3" }]
[servers.files.tools.run]
arguments = "all"
"#;
    insta::assert_snapshot!(read(text).unwrap_err().to_string());
}

/// Paths lead where they say.
struct Plain;

impl World for Plain {
    fn lands(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }
}

#[test]
fn a_line_that_is_told_to_allow_arguments_does() {
    let mut text = r#"
[servers.files]
command = ["x"]
[servers.files.tools."read file".arguments]
additionalProperties = false
maxProperties = 1
[servers.files.tools."read file".arguments.properties.path]
maxLength = 8
path = { within = ["/data"] }
[servers.files.tools."read file".arguments.properties.mode]
enum = ["a", "b"]
[servers.files.tools."read file".arguments.properties."the url"]
url = { host = ["a.example"], scheme = ["https"] }
"#
    .to_owned();
    let arguments = json!({"path": "/etc/passwd", "mode": "\"c\"", "the url": "http://b.example/", "x": 1});
    let mut told = Vec::new();
    for _ in 0..20 {
        let config = read(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let rules = config.servers["files"].tools["read file"].arguments.clone().unwrap();
        let Some(fault) = rules.faults(&arguments, &Plain).into_iter().next() else { break };
        let allow = fault.allow.clone().unwrap();
        told.push(format!("{fault}\n{allow}\n"));
        // As a person would: the line replaces the one of its key, in its table.
        let (header, line) = allow.split_once('\n').unwrap();
        let key = line.split(" = ").next().unwrap();
        text = match text.split_once(&format!("{header}\n")) {
            Some((before, after)) => {
                let (own, others) = after.split_at(after.find("\n[").map_or(after.len(), |end| end + 1));
                let kept: Vec<_> = own.lines().filter(|own| !own.starts_with(&format!("{key} ="))).collect();
                format!("{before}{header}\n{line}\n{}\n{others}", kept.join("\n"))
            }
            None => format!("{text}{header}\n{line}\n"),
        };
    }
    insta::assert_snapshot!(told.join("\n"));
}
