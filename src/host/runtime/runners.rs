//! Programs that fetch another program and then run it: they need the network and the home directory, so a cell
//! refuses them and says what to run instead.
//!
//! Neighbours: `finder` asks before it follows a command. Never: guesses which version would have been fetched.

use std::path::{Path, PathBuf};

use super::World;

/// Why the command cannot work in a cell, and what to run instead; `None` for all other commands.
pub(super) fn refusal(world: &World, name: &str, arguments: &[String]) -> Option<(String, String)> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let first = first_word(&words);
    let (ecosystem, rest): (Ecosystem, &[&str]) = match (name, first.map(|(word, _)| word)) {
        ("npx" | "pnpx", _) => (Ecosystem::Node, &words),
        ("bunx", _) => (Ecosystem::Node, &words),
        ("npm", Some("exec" | "x")) | ("pnpm" | "yarn", Some("dlx")) | ("bun", Some("x")) => {
            (Ecosystem::Node, after_first(&words))
        }
        ("uvx", _) => (Ecosystem::Python, &words),
        ("pipx", Some("run")) => (Ecosystem::Python, after_first(&words)),
        ("uv", Some("tool")) if first_word(after_first(&words)).is_some_and(|(word, _)| word == "run") => {
            (Ecosystem::Python, after_first(&words))
        }
        ("uv" | "poetry" | "pdm" | "pipenv" | "hatch" | "rye", Some("run")) => {
            (Ecosystem::Project, after_first(&words))
        }
        _ => return None,
    };
    let rest = if rest.first() == Some(&"run") { after_first(rest) } else { rest };
    let package = package(&words).or_else(|| first_word(rest).map(|(word, _)| word)).unwrap_or("PACKAGE");
    let reason =
        "it fetches or prepares the program each time, which needs the network and your home directory";
    let hint = match ecosystem {
        Ecosystem::Node => {
            format!(
                "install it once with `toolcell install npm:{package}`, then name the program that this shows instead of `{name}`"
            )
        }
        Ecosystem::Python => format!(
            "install it once with `toolcell install pypi:{package}`, then name the program that this shows instead of `{name}`"
        ),
        Ecosystem::Project => project_hint(world, name, &words, rest),
    };
    Some((reason.to_owned(), hint))
}

enum Ecosystem {
    Node,
    Python,
    Project,
}

fn project_hint(world: &World, name: &str, words: &[&str], rest: &[&str]) -> String {
    let option = |wanted: &[&str]| {
        words.iter().enumerate().find_map(|(at, word)| {
            let joined = wanted.iter().find_map(|o| word.strip_prefix(o)?.strip_prefix('='));
            joined.or_else(|| wanted.contains(word).then(|| words.get(at + 1).copied()).flatten())
        })
    };
    let directory =
        option(&["--directory", "--project", "-C"]).map_or_else(|| world.cwd.clone(), |d| world.cwd.join(d));
    let program = first_word(rest).map_or("python", |(word, _)| word);
    let programs = directory.join(".venv/bin");
    let direct = programs.join(program);
    let script = Path::new(program).extension().is_some_and(|e| e == "py");
    let instead: PathBuf =
        if script || !world.files.is_file(&direct) { programs.join("python") } else { direct };
    if world.files.is_file(&instead) {
        return format!(
            "name the program of the project's environment instead of `{name}`: `{}`",
            instead.display()
        );
    }
    format!(
        "make the project's environment (`{name} sync` or `{name} install`), then name its own program, as in `.venv/bin/{program}`"
    )
}

/// Options of these programs that take the next argument as value.
const WITH_VALUE: [&str; 12] = [
    "-p",
    "--package",
    "--from",
    "--with",
    "--python",
    "--directory",
    "--project",
    "-C",
    "--call",
    "-c",
    "--spec",
    "--extra",
];

/// The first word that is no option, and its place.
fn first_word<'w>(words: &[&'w str]) -> Option<(&'w str, usize)> {
    let mut skip = false;
    for (at, word) in words.iter().enumerate() {
        if skip {
            skip = false;
        } else if WITH_VALUE.contains(word) {
            skip = true;
        } else if !word.starts_with('-') {
            return Some((word, at));
        }
    }
    None
}

fn after_first<'s, 'w>(words: &'s [&'w str]) -> &'s [&'w str] {
    first_word(words).and_then(|(_, at)| words.get(at + 1..)).unwrap_or_default()
}

/// The package named by an option, when it differs from the program's name.
fn package<'w>(words: &[&'w str]) -> Option<&'w str> {
    words.iter().enumerate().find_map(|(at, word)| {
        let joined = ["--package=", "--from=", "--spec="].iter().find_map(|option| word.strip_prefix(option));
        let apart = || {
            ["-p", "--package", "--from", "--spec"]
                .contains(word)
                .then(|| words.get(at + 1).copied())
                .flatten()
        };
        joined.or_else(apart)
    })
}
