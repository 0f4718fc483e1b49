//! Which of an interpreter's arguments is the script, the module or the library that it loads?
//!
//! Neighbours: `finder` looks the answers up. Never: opens a file.

/// Interpreters that read their arguments alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Python,
    Node,
    /// Programs that run one JavaScript or TypeScript file: deno, bun, tsx, ts-node.
    NodeLike,
    Shell,
    Java,
    Dotnet,
    /// ruby, perl, php, lua: the first argument that is not an option.
    Plain,
    /// env: the rest is a command.
    Env,
}

/// Something that an argument makes the interpreter load.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A script that it runs.
    Script(String),
    /// A module, found in the working directory or where the interpreter keeps its modules.
    Module(String),
    /// A package or file that node loads before the script.
    Package(String),
    /// A file or directory, as it is.
    File(String),
    /// Text of a shell script.
    Line(String),
}

impl Family {
    /// Knows an interpreter by its file name, with or without a version.
    pub(super) fn of(name: &str) -> Option<Self> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        Some(match stem {
            "python" | "pypy" | "pythonw" => Self::Python,
            "node" | "nodejs" => Self::Node,
            "deno" | "bun" | "tsx" | "ts-node" => Self::NodeLike,
            "sh" | "bash" | "dash" | "zsh" | "ksh" | "ash" => Self::Shell,
            "java" => Self::Java,
            "dotnet" => Self::Dotnet,
            "ruby" | "perl" | "php" | "lua" | "luajit" | "Rscript" | "tclsh" | "guile" => Self::Plain,
            "env" => Self::Env,
            _ => return None,
        })
    }

    /// What the arguments after the program's name make it load.
    pub(super) fn inputs(self, arguments: &[String]) -> Vec<Input> {
        match self {
            Self::Python => python(arguments),
            Self::Node => node(arguments),
            Self::NodeLike => first_word(arguments, &["run", "serve", "watch"]),
            Self::Plain => first_word(arguments, &[]),
            Self::Shell => shell(arguments),
            Self::Java => java(arguments),
            Self::Dotnet => first_word(arguments, &["exec"])
                .into_iter()
                .filter(|input| matches!(input, Input::Script(name) if name.ends_with(".dll")))
                .collect(),
            Self::Env => Vec::new(),
        }
    }
}

fn python(arguments: &[String]) -> Vec<Input> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--check-hash-based-pycs" {
            rest.next();
            continue;
        }
        let Some(cluster) = argument.strip_prefix('-').filter(|_| !argument.starts_with("--")) else {
            if argument.starts_with("--") {
                continue;
            }
            return vec![Input::Script(argument.clone())];
        };
        if cluster.is_empty() {
            return Vec::new();
        }
        // Letters may be joined, `-um module`; the first that takes a value takes the rest, or the next argument.
        let Some(place) = cluster.find(['c', 'm', 'W', 'X']) else { continue };
        let (letter, joined) =
            cluster.get(place..).and_then(|tail| tail.split_at_checked(1)).unwrap_or_default();
        let value = if joined.is_empty() { rest.next().cloned() } else { Some(joined.to_owned()) };
        match letter {
            "c" => return Vec::new(),
            "m" => return value.map(Input::Module).into_iter().collect(),
            _ => {}
        }
    }
    Vec::new()
}

fn node(arguments: &[String]) -> Vec<Input> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    let mut no_script = false;
    while let Some(argument) = rest.next() {
        let (name, joined) = match argument.split_once('=') {
            Some((name, value)) if argument.starts_with("--") => (name, Some(value.to_owned())),
            _ => (argument.as_str(), None),
        };
        let mut value = || joined.clone().or_else(|| rest.next().cloned());
        match name {
            "-r" | "--require" | "--import" | "--loader" | "--experimental-loader" => {
                found.extend(value().map(Input::Package));
            }
            "--env-file" | "--env-file-if-exists" | "--experimental-config-file" | "--openssl-config" => {
                found.extend(value().map(Input::File));
            }
            "-C"
            | "--conditions"
            | "--input-type"
            | "--title"
            | "--max-old-space-size"
            | "--stack-trace-limit"
            | "--unhandled-rejections"
            | "--disable-warning"
            | "--icu-data-dir" => {
                value();
            }
            "-e" | "--eval" | "-p" | "--print" | "-pe" => {
                value();
                no_script = true;
            }
            "-" => return found,
            "--" => {
                found.extend(rest.next().filter(|_| !no_script).cloned().map(Input::Script));
                return found;
            }
            option if option.starts_with('-') => {}
            _ => {
                if !no_script {
                    found.push(Input::Script(argument.clone()));
                }
                return found;
            }
        }
    }
    found
}

fn first_word(arguments: &[String], commands: &[&str]) -> Vec<Input> {
    let mut words =
        arguments.iter().skip_while(|word| word.starts_with('-') || commands.contains(&word.as_str()));
    words.next().cloned().map(Input::Script).into_iter().collect()
}

fn shell(arguments: &[String]) -> Vec<Input> {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-o" | "+o" | "-O" | "+O" | "--rcfile" | "--init-file" => {
                rest.next();
            }
            "--" | "-" => return rest.next().cloned().map(Input::Script).into_iter().collect(),
            option if option.starts_with("--") => {}
            option if option.starts_with('-') && option.contains('c') => {
                let line = rest.find(|word| !word.starts_with('-'));
                return line.cloned().map(Input::Line).into_iter().collect();
            }
            option if option.starts_with(['-', '+']) => {}
            _ => return vec![Input::Script(argument.clone())],
        }
    }
    Vec::new()
}

fn java(arguments: &[String]) -> Vec<Input> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, joined) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        match name {
            "-jar" => {
                found.extend(rest.next().cloned().map(Input::Script));
                return found;
            }
            "-cp" | "-classpath" | "--class-path" | "-p" | "--module-path" => {
                let list = joined.or_else(|| rest.next().cloned()).unwrap_or_default();
                let entries = list.split(':').filter(|entry| !entry.is_empty());
                found.extend(entries.map(|entry| Input::File(entry.trim_end_matches("/*").to_owned())));
            }
            "--add-modules" | "--add-opens" | "--add-exports" | "--add-reads" if joined.is_none() => {
                rest.next();
            }
            option if option.starts_with('-') => {}
            _ => return found,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(family: Family, line: &str) -> Vec<Input> {
        family.inputs(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn interpreters_are_known_with_and_without_a_version() {
        assert_eq!(Family::of("python3.11"), Some(Family::Python));
        assert_eq!(Family::of("nodejs"), Some(Family::Node));
        assert_eq!(Family::of("pythonic"), None);
        assert_eq!(Family::of("git"), None);
    }

    #[test]
    fn python_arguments() {
        let script = |name: &str| vec![Input::Script(name.into())];
        assert_eq!(inputs(Family::Python, "-u -X utf8 server.py -m x"), script("server.py"));
        assert_eq!(inputs(Family::Python, "-Werror -um mcp.time --x"), [Input::Module("mcp.time".into())]);
        assert_eq!(inputs(Family::Python, "-c code file"), []);
        assert_eq!(inputs(Family::Python, "-"), []);
    }

    #[test]
    fn node_arguments() {
        assert_eq!(
            inputs(Family::Node, "--import tsx --env-file=.env -C dev server.js -r no"),
            [Input::Package("tsx".into()), Input::File(".env".into()), Input::Script("server.js".into())]
        );
        assert_eq!(inputs(Family::Node, "-e code arg"), []);
        assert_eq!(inputs(Family::NodeLike, "run -A main.ts x"), [Input::Script("main.ts".into())]);
    }

    #[test]
    fn other_arguments() {
        assert_eq!(inputs(Family::Shell, "-e -o pipefail run.sh -c"), [Input::Script("run.sh".into())]);
        assert_eq!(inputs(Family::Shell, "-ec line"), [Input::Line("line".into())]);
        assert_eq!(
            inputs(Family::Java, "-Xmx1g -cp a.jar:lib/* -jar s.jar -cp no"),
            [Input::File("a.jar".into()), Input::File("lib".into()), Input::Script("s.jar".into())]
        );
        assert_eq!(inputs(Family::Dotnet, "exec s.dll"), [Input::Script("s.dll".into())]);
        assert_eq!(inputs(Family::Dotnet, "build"), []);
    }
}
