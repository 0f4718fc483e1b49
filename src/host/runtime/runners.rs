//! Programs that fetch another program and then run it: they need the network and the home directory, so a cell
//! refuses them and says what to run instead.
//!
//! Neighbours: `finder` asks before it follows a command. Never: guesses which version would have been fetched.

use std::path::{Path, PathBuf};

use super::World;

/// Why the command cannot work in a cell, and what to run instead; `None` for all other commands.
pub(super) fn refusal(world: &World, name: &str, arguments: &[String]) -> Option<(String, String)> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rest = after_first(&words);
    // What is typed as the command itself does not come here: the program that was installed stands for it.
    let itself = |how: &str| {
        format!(
            "name it as the command itself, as in `{how} PACKAGE`: then the package is fetched once, and run without `{name}`"
        )
    };
    let hint = match (name, first_word(&words)) {
        ("npx" | "pnpx" | "bunx", _)
        | ("npm", Some("exec" | "x"))
        | ("pnpm" | "yarn", Some("dlx"))
        | ("bun", Some("x")) => itself("npx"),
        ("uvx", _) | ("pipx", Some("run")) => itself("uvx"),
        ("uv", Some("tool")) if first_word(rest) == Some("run") => itself("uvx"),
        ("uv" | "poetry" | "pdm" | "pipenv" | "hatch" | "rye", Some("run")) => {
            project_hint(world, name, &words, rest)
        }
        _ => return None,
    };
    let reason =
        "it fetches or prepares the program each time, which needs the network and your home directory";
    Some((reason.to_owned(), hint))
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
    let program = first_word(rest).unwrap_or("python");
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

/// The first word that is no option.
fn first_word<'w>(words: &[&'w str]) -> Option<&'w str> {
    first_at(words).and_then(|at| words.get(at).copied())
}

fn after_first<'s, 'w>(words: &'s [&'w str]) -> &'s [&'w str] {
    first_at(words).and_then(|at| words.get(at + 1..)).unwrap_or_default()
}

fn first_at(words: &[&str]) -> Option<usize> {
    let mut skip = false;
    words.iter().position(|word| {
        let value = std::mem::replace(&mut skip, WITH_VALUE.contains(word));
        !value && !word.starts_with('-')
    })
}
