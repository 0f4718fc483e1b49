//! The official test suite of JSON Schema, where `TOOLCELL_JSON_SCHEMA_SUITE` names a copy of its repository: each schema is
//! either refused as a whole or judges every value as the suite says.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Author, compile};

/// Folders, the dialect of their schemas, and how many values are judged at least.
const DRAFTS: &[(&str, Option<&str>, usize)] = &[
    ("draft2020-12", None, 1100),
    ("draft2020-12/optional", None, 100),
    ("draft2019-09", Some("https://json-schema.org/draft/2019-09/schema"), 1100),
    ("draft7", Some("http://json-schema.org/draft-07/schema#"), 850),
    ("draft4", Some("http://json-schema.org/draft-04/schema#"), 550),
];

/// What is not about validation: how a text is encoded is only told, as the standard has it since 2019-09, and a schema that is not `true` or an
/// object is a mistake here.
const LEFT_OUT: &[&str] = &["content.json"];

#[test]
#[expect(clippy::print_stdout, reason = "says what was compared, and why not")]
fn every_schema_judges_as_the_suite_says_or_is_refused() {
    let Some(suite) = std::env::var_os("TOOLCELL_JSON_SCHEMA_SUITE") else {
        println!("skipped: `TOOLCELL_JSON_SCHEMA_SUITE` names no copy of the suite");
        return;
    };
    let mut wrong = Vec::new();
    for (draft, dialect, least) in DRAFTS {
        let (mut judged, mut refused) = (0, 0);
        let folder = Path::new(&suite).join("tests").join(draft);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.retain(|file| file.is_file() && !LEFT_OUT.iter().any(|name| file.ends_with(name)));
        for file in files {
            let groups: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            for group in groups.as_array().unwrap() {
                let mut schema = group["schema"].clone();
                if let (Some(dialect), Some(members)) = (dialect, schema.as_object_mut()) {
                    members.entry("$schema").or_insert((*dialect).into());
                }
                let Ok(schema) = compile(&schema, Author::Server) else {
                    refused += 1;
                    continue;
                };
                for test in group["tests"].as_array().unwrap() {
                    judged += 1;
                    if schema.check(&test["data"]).is_ok() != (test["valid"] == true) {
                        wrong.push(format!(
                            "{}: {}: {}",
                            file.display(),
                            group["description"],
                            test["description"]
                        ));
                    }
                }
            }
        }
        println!("{draft}: {judged} judged, {refused} schemas refused");
        assert!(judged >= *least, "{draft}: only {judged}");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
