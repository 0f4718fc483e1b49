//! Reads the command lines of programs that fetch a package each time and run it (`npx`, `uvx`, `pipx run`, …): which package,
//! and which of its programs with which arguments.
//!
//! Neighbours: `package` reads the names, `commands::compose` puts the installed program in the place of the runner. Never: guesses
//! what an option that it does not know would have done.

use std::path::Path;

use super::package::{NotAPackage, Package, Registry, Requirement};

/// What a runner was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What to have.
    pub package: Package,
    /// Which of its programs; `None`: the one that is the package's.
    pub program: Option<String>,
    /// Arguments of the program.
    pub arguments: Vec<String>,
}

/// Why toolcell does not do what a runner would.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// Not the name of a package.
    #[error(transparent)]
    Package(#[from] NotAPackage),
    /// It would run something else than a package's program.
    #[error("toolcell does not know what `{0}` means for the program that is run")]
    Option(String),
    /// No package is named.
    #[error("no package is named")]
    Nothing,
}

impl Unclear {
    /// What to write instead.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Package(error) => error.hint(),
            Self::Option(_) => {
                "leave it out, or install the package (`toolcell install npm:NAME` or `pypi:NAME`) and name its program"
            }
            Self::Nothing => {
                "name the package behind the program that runs it, as in `npx PACKAGE` or `uvx PACKAGE`"
            }
        }
    }
}

/// One kind of runner.
#[derive(Debug, Clone, Copy)]
struct Runner {
    registry: Registry,
    /// Options without a value that change nothing of what is run.
    flags: &'static [&'static str],
    /// Options that name the package, when the first word is the program.
    from: &'static [&'static str],
    /// Options that name a package beside it.
    with: &'static [&'static str],
    /// The first word names a program also when it stands alone, and not only a package.
    program: bool,
    /// A `--` behind the first word is the runner's own.
    dashes: bool,
}

const NPX: Runner = Runner {
    registry: Registry::Npm,
    flags: &[
        "-y",
        "--yes",
        "-q",
        "--quiet",
        "--silent",
        "-s",
        "--prefer-online",
        "--prefer-offline",
        "--bun",
    ],
    from: &["-p", "--package"],
    with: &[],
    program: false,
    dashes: false,
};
const NPM_EXEC: Runner = Runner { dashes: true, ..NPX };
const UVX: Runner = Runner {
    registry: Registry::Pypi,
    flags: &[
        "-q",
        "--quiet",
        "-v",
        "--verbose",
        "--isolated",
        "--no-progress",
        "--refresh",
        "-U",
        "--upgrade",
    ],
    from: &["--from"],
    with: &["--with", "-w"],
    program: true,
    dashes: false,
};
const PIPX: Runner = Runner {
    registry: Registry::Pypi,
    flags: &["-q", "--quiet", "-v", "--verbose", "--no-cache"],
    from: &["--spec"],
    with: &["--with"],
    program: true,
    dashes: false,
};

/// What a command asks a runner for; `None`: its program is no runner.
#[must_use]
pub fn asked(command: &[String]) -> Option<Result<Asked, Unclear>> {
    let (name, rest) = command.split_first()?;
    let name = Path::new(name).file_name()?.to_str()?;
    let words: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (runner, words) = match (name, words.as_slice()) {
        ("npx" | "pnpx" | "bunx", words) => (NPX, words),
        ("npm", ["exec" | "x", words @ ..]) => (NPM_EXEC, words),
        ("pnpm" | "yarn", ["dlx", words @ ..]) | ("bun", ["x", words @ ..]) => (NPX, words),
        ("uvx", words) | ("uv", ["tool", "run", words @ ..]) => (UVX, words),
        ("pipx", ["run", words @ ..]) => (PIPX, words),
        _ => return None,
    };
    Some(runner.read(words))
}

impl Runner {
    fn read(self, words: &[&str]) -> Result<Asked, Unclear> {
        let (mut from, mut with) = (Vec::new(), Vec::new());
        let mut words = words.iter().copied();
        let first = loop {
            let word = words.next().ok_or(Unclear::Nothing)?;
            let (option, joined) = match word.split_once('=').filter(|_| word.starts_with("--")) {
                Some((option, value)) => (option, Some(value)),
                None => (word, None),
            };
            let list = match option {
                "--" => break words.next().ok_or(Unclear::Nothing)?,
                _ if !word.starts_with('-') => break word,
                _ if joined.is_none() && self.flags.contains(&option) => continue,
                _ if self.from.contains(&option) => &mut from,
                _ if self.with.contains(&option) => &mut with,
                _ => return Err(Unclear::Option(word.to_owned())),
            };
            list.push(joined.or_else(|| words.next()).ok_or(Unclear::Nothing)?);
        };
        let mut arguments: Vec<String> = words.map(str::to_owned).collect();
        if self.dashes && arguments.first().is_some_and(|word| word == "--") {
            arguments.remove(0);
        }
        let named = from.is_empty();
        let (main, others) = from.split_first().map_or((first, &[][..]), |(main, others)| (*main, others));
        let main = Requirement::parse(self.registry, main)?;
        let program = match (named, self.program) {
            (true, false) => None,
            (true, true) => Some(typed_name(first)),
            (false, _) => Some(first.to_owned()),
        };
        let package = Package { registry: self.registry, main, with: Vec::new() };
        let package = package.with(others.iter().chain(&with))?;
        Ok(Asked { package, program, arguments })
    }
}

/// A program has the name that was typed for the package, not the form in which the registry has it.
fn typed_name(text: &str) -> String {
    let end = text.find(['[', '=', '<', '>', '!', '~', '@', ' ']).unwrap_or(text.len());
    text.get(..end).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Result<Asked, Unclear>> {
        asked(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_runner_says_package_program_and_arguments() {
        for (line, package, program, arguments) in [
            ("npx -y @s/server-a /data", "npm:@s/server-a", None, "/data"),
            ("/usr/bin/npx --yes a@1.2 -y --x=1 -- b", "npm:a@1.2", None, "-y --x=1 -- b"),
            ("npx -p a@1 b -c", "npm:a@1", Some("b"), "-c"),
            ("npx --package=a --package b c", "npm:a with b", Some("c"), ""),
            ("npx -y -- a --b", "npm:a", None, "--b"),
            ("npm exec -y a -- --b", "npm:a", None, "--b"),
            ("pnpm dlx a b", "npm:a", None, "b"),
            ("bunx --bun a", "npm:a", None, ""),
            (
                "uvx mcp_server_git --repository /r",
                "pypi:mcp-server-git",
                Some("mcp_server_git"),
                "--repository /r",
            ),
            ("uvx a[x]@1.2 b", "pypi:a[x]==1.2", Some("a"), "b"),
            ("uvx --from a==1 --with c --with=b prog", "pypi:a==1 with b with c", Some("prog"), ""),
            ("uv tool run a", "pypi:a", Some("a"), ""),
            ("pipx run --spec a==1 b c", "pypi:a==1", Some("b"), "c"),
        ] {
            let asked = read(line).unwrap().unwrap();
            assert_eq!(asked.package.to_string(), package, "{line}");
            assert_eq!(asked.program.as_deref(), program, "{line}");
            assert_eq!(asked.arguments.join(" "), arguments, "{line}");
        }
    }

    #[test]
    fn what_would_run_something_else_is_not_guessed() {
        for line in [
            "npx",
            "npx -y",
            "npx -c a",
            "npx --registry=x a",
            "npx -p a",
            "npx ./server",
            "npx github:a/b",
            "uvx --python 3.12 a",
            "uvx --index-url x a",
            "uvx --from git+https://a.example/b c",
            "uvx --with",
            "pipx run --pip-args=x a",
            "pipx run ./a.py",
        ] {
            let unclear = read(line).unwrap().unwrap_err();
            assert!(!unclear.hint().is_empty(), "{line}");
        }
        for line in ["node a.js", "npm install a", "uv run a", "pipx install a", "python3 -m a", "bun a.ts"] {
            assert!(read(line).is_none(), "{line}");
        }
    }
}
