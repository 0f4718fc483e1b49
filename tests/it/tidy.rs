//! The house rules: headers, the length of files, who may import whom, where `unsafe` is, what is documented, and
//! words that belong to nobody's project.
//!
//! Neighbours: `scripts/test` runs formatting and lints. Never: starts a process.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toolcell::plan::step::Step;
use toolcell::plan::{Plan, written};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Every text that is written by hand, by its path below the project.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(ROOT).join(folder)];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                open.push(path);
            } else if endings.is_empty()
                || path.extension().is_some_and(|e| endings.iter().any(|end| e == *end))
            {
                let name = path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned();
                if let Ok(text) = fs::read_to_string(&path) {
                    found.push((name, text));
                }
            }
        }
    }
    found
}

fn sources() -> Vec<(String, String)> {
    files("src", &["rs"])
}

/// Source, tests, benches, scripts.
fn programs() -> Vec<(String, String)> {
    let folders = ["src", "tests", "benches", "fuzz"];
    let mut all: Vec<_> = folders.iter().flat_map(|folder| files(folder, &["rs", "py", "c"])).collect();
    for folder in ["scripts", "integration", ".ci"] {
        all.extend(files(folder, &[]));
    }
    all.retain(|(name, _)| {
        !name.contains("__pycache__") && !name.contains("/target/") && !name.ends_with(".json")
    });
    all
}

/// Collects what is wrong and tells all of it at once.
#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .chain(files("tests", &["rs"]))
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| format!("{name}: the first line is not a `//!` header"))
        .collect();
    none(&wrong);
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let lengths = programs().into_iter().map(|(name, text)| (name, text.lines().count()));
    let wrong: Vec<String> = lengths
        .filter(|(_, lines)| *lines > 600)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    none(&wrong);
}

/// Who may import whom: module, then what it may know. A stage knows the ones before it by their values.
const IMPORTS: &[(&str, &[&str])] = &[
    // Values and words.
    ("call", &[]),
    ("outcome", &["policy"]),
    ("text", &[]),
    ("exit_codes", &["outcome"]),
    // The kernel, and an attacker who needs it bare.
    ("sys", &[]),
    ("hostile", &["sys"]),
    // The stages.
    ("mcp", &["call", "text"]),
    ("arguments", &[]),
    ("policy", &["arguments", "outcome", "text"]),
    ("access", &["mcp", "policy"]),
    ("lock", &["access", "mcp", "policy", "text"]),
    ("host", &["arguments", "lock", "outcome", "plan", "policy", "sys"]),
    ("store", &["host", "lock", "sys"]),
    ("secrets", &["policy", "sys", "text"]),
    ("plan", &["host", "outcome", "policy", "text"]),
    ("network", &["outcome", "plan", "policy", "secrets", "sys"]),
    ("launch", &["network", "outcome", "plan", "sys"]),
    ("watch", &["launch", "network", "outcome", "plan", "policy", "sys", "text"]),
    ("audit", &["call", "outcome", "policy", "text"]),
    ("guard", &["audit", "call", "launch", "outcome", "policy", "sys", "text"]),
    // What puts them together.
    (
        "session",
        &[
            "access",
            "arguments",
            "audit",
            "call",
            "guard",
            "host",
            "launch",
            "lock",
            "mcp",
            "outcome",
            "plan",
            "policy",
            "secrets",
            "sys",
            "text",
            "watch",
        ],
    ),
    ("front", &["access", "mcp", "network", "policy", "sys"]),
    ("cli", &["exit_codes", "policy", "text"]),
    ("diag", &["cli", "exit_codes", "text"]),
    (
        "commands",
        &[
            "access",
            "arguments",
            "audit",
            "call",
            "cli",
            "diag",
            "exit_codes",
            "front",
            "guard",
            "host",
            "hostile",
            "launch",
            "lock",
            "mcp",
            "network",
            "outcome",
            "plan",
            "policy",
            "secrets",
            "session",
            "store",
            "sys",
            "text",
            "watch",
        ],
    ),
    ("main", &["commands", "sys"]),
];

/// Imports against the direction, each with the one file that has it and the reason why it may.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "src/host/view.rs",
        "launch",
        "a directory that holds a denied name's place is known by the mark of who made it",
    ),
    (
        "src/host/cgroups.rs",
        "launch",
        "the names that launch gives to its directories tell its own from others",
    ),
    ("src/host/probe.rs", "launch", "a trial launch is what is looked at, and its failed step is the answer"),
    (
        "src/host/probe/causes.rs",
        "launch",
        "a trial launch is what is looked at, and its failed step is the answer",
    ),
    ("src/host/probe/kernel.rs", "launch", "whether owners can be mapped is found out by mapping one"),
    (
        "src/launch/supervisor.rs",
        "watch",
        "the counters must be read between the last process's end and the cgroup's",
    ),
    ("src/launch/supervisor.rs", "policy", "handed on to the counters, and not looked at"),
    (
        "src/launch/cell.rs",
        "watch",
        "the counters must be read between the last process's end and the cgroup's",
    ),
    ("src/launch/cell.rs", "policy", "handed on to the counters, and not looked at"),
];

/// The modules that a source text names by `crate::`, in code.
fn imported(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut found = BTreeSet::new();
    for rest in code.join("\n").split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap(),
            None => rest,
        };
        for name in list.split(',').take(if rest.starts_with('{') { usize::MAX } else { 1 }) {
            let name: String =
                name.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn a_stage_knows_only_the_stages_before_it() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (name, text) in sources() {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if module == "lib" {
            continue;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(known, _)| *known == module) else {
            wrong.push(format!("{name}: `{module}` is not in the table"));
            continue;
        };
        for import in imported(&text) {
            let known = IMPORTS.iter().any(|(known, _)| *known == import);
            if import == module || allowed.contains(&import.as_str()) || !known {
                continue;
            }
            match EXCEPTIONS.iter().find(|(file, what, _)| *file == name && *what == import) {
                Some(exception) => {
                    used.insert(exception);
                }
                None => wrong.push(format!("{name}: `{module}` imports `{import}`")),
            }
        }
    }
    wrong.extend(
        EXCEPTIONS
            .iter()
            .filter(|e| !used.contains(e))
            .map(|(file, what, _)| format!("{file}: no longer imports `{what}`")),
    );
    none(&wrong);
}

#[test]
fn unsafe_code_is_in_one_module() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .chain(files("tests", &["rs"]))
        .filter(|(name, _)| !name.starts_with("src/sys/"))
        .filter(|(name, text)| {
            text.lines().any(|line| {
                let code = line.split("//").next().unwrap();
                // The name by which libc's start calls a program.
                if name == "src/main.rs" && code == concat!("#[unsafe", "(no_mangle)]") {
                    return false;
                }
                [
                    concat!("unsafe", " {"),
                    concat!("unsafe", " fn"),
                    concat!("unsafe", " impl"),
                    concat!("unsafe", "("),
                ]
                .iter()
                .any(|word| code.contains(word))
            })
        })
        .map(|(name, _)| name)
        .collect();
    none(&wrong);
}

/// Who may look at the wall clock, which jumps: what dates records, what compares or sets files' times, and what ends on a date, in another session if need be. Deadlines are
/// made of `Instant`, which is `CLOCK_MONOTONIC`.
const DATED: &[&str] = &[
    "src/access/now.rs",
    "src/audit/",
    "src/commands/demo/stage.rs",
    "src/commands/exec.rs",
    "src/commands/run",
    "src/commands/quarantine.rs",
    "src/commands/secrets.rs",
    "src/commands/token.rs",
    "src/guard/",
    "src/hostile/",
    "src/launch/changes/",
    "src/launch/overlay.rs",
    "src/launch/ready.rs",
    "src/secrets/keeper.rs",
    "src/store/",
];

#[test]
fn no_deadline_depends_on_the_wall_clock() {
    let clocks = ["SystemTime", "CLOCK_REALTIME", "gettimeofday(", "libc::time("];
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter(|(name, _)| !DATED.iter().any(|dated| name.starts_with(dated)))
        .filter(|(_, text)| clocks.iter().any(|clock| text.contains(clock)))
        .map(|(name, _)| name)
        .collect();
    none(&wrong);
}

#[test]
fn docs_launch_names_every_step_in_order() {
    let document = fs::read_to_string(Path::new(ROOT).join("docs/launch.md")).unwrap();
    let headings: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    // The names as `Step::name` has them, so that a new one is missed here.
    let source = fs::read_to_string(Path::new(ROOT).join("src/plan/step.rs")).unwrap();
    let arms = source.split("pub const fn name(&self)").nth(1).unwrap();
    let names: Vec<&str> = arms
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split("=> \"").nth(1)?.strip_suffix("\","))
        .collect();
    assert!(names.len() > 25, "{names:?}");
    assert_eq!(headings.iter().collect::<BTreeSet<_>>(), names.iter().collect::<BTreeSet<_>>());

    // And in the order in which plans have them, where these have them.
    for plan in super::golden::plans() {
        let mut first = Vec::new();
        for name in plan.steps.iter().map(Step::name) {
            // One follows the user namespace, the other depends on the cgroup version; the document says so of both.
            if !first.contains(&name) && !["forbid-user-namespaces", "create-cgroup"].contains(&name) {
                first.push(name);
            }
        }
        let positions: Vec<usize> =
            first.iter().map(|name| headings.iter().position(|heading| heading == name).unwrap()).collect();
        assert!(positions.is_sorted(), "the document has another order than {first:?}");
    }
}

/// Hosts of package registries, which are the package managers' to know, and numbers that mean nothing in a fresh clone.
const FOREIGN: &[&str] = &[
    concat!("crates", ".io"),
    concat!("registry.", "npmjs"),
    concat!("npmjs", ".com"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.", "org"),
    concat!("issue ", "#"),
];

#[test]
fn no_word_belongs_to_another_place() {
    let mut texts = programs();
    for folder in ["docs", "profiles", ".cargo"] {
        texts.extend(files(folder, &[]));
    }
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "SPECIFICATION.md",
        "CHANGELOG.md",
        "Cargo.toml",
        "deny.toml",
    ] {
        if let Ok(text) = fs::read_to_string(Path::new(ROOT).join(name)) {
            texts.push((name.to_owned(), text));
        }
    }
    let mut wrong = Vec::new();
    for (name, text) in texts {
        for (number, line) in text.lines().enumerate() {
            for word in FOREIGN.iter().filter(|word| line.to_lowercase().contains(&word.to_lowercase())) {
                wrong.push(format!("{name}:{}: `{word}`", number + 1));
            }
        }
    }
    none(&wrong);
}

/// The blocks of a language in a document.
fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let start = format!("```{language}\n");
    document.split(start.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn blocks_of_documents_are_what_they_say() {
    let mut documents = files("docs", &["md"]);
    for name in ["README.md", "SPECIFICATION.md", "SECURITY.md", "ARCHITECTURE.md"] {
        if let Ok(text) = fs::read_to_string(Path::new(ROOT).join(name)) {
            documents.push((name.to_owned(), text));
        }
    }
    let mut wrong = Vec::new();
    for (name, text) in documents {
        for block in blocks(&text, "json") {
            if let Err(error) = serde_json::from_str::<serde_json::Value>(block) {
                wrong.push(format!("{name}: {error} in\n{block}"));
            }
        }
        // Paths of the project that a document names exist.
        for path in text.split('`').skip(1).step_by(2) {
            let folder = ["src/", "tests/", "docs/", "scripts/", "integration/", "benches/", "profiles/"];
            // Capitals stand for something else, as in `profiles/NAME.toml`.
            let plain =
                path.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c));
            if plain && folder.iter().any(|f| path.starts_with(f)) && !Path::new(ROOT).join(path).exists() {
                wrong.push(format!("{name}: `{path}` does not exist"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn a_plan_survives_being_written_and_read() {
    for plan in super::golden::plans() {
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        assert_eq!(Plan::read(&written(plan.floor, &plan.steps).unwrap()).unwrap(), plan);
    }
}

#[test]
fn every_lane_stands_in_the_specification_with_its_star() {
    let read = |path: &str| fs::read_to_string(crate::project().join(path)).unwrap();
    let (lanes, specification) = (read("integration/vm/lanes.py"), read("SPECIFICATION.md"));
    let hosts = specification.split("\n## Hosts\n").nth(1).unwrap();
    let (_, lanes) = lanes.split_once("\nLANES = {\n    \"").unwrap();
    let (lanes, _) = lanes.split_once("\n}\n").unwrap();
    let lanes: Vec<&str> = lanes.split("\n    \"").collect();
    assert!(lanes.len() > 20, "{lanes:?}");
    for lane in lanes {
        let (name, what) = lane.split_once('"').unwrap();
        let starred = hosts.contains(&format!("`{name}`*"));
        assert!(hosts.contains(&format!("`{name}`")), "`{name}` is in no row");
        assert_eq!(starred, what.contains("quick=True"), "`{name}`");
    }
}
