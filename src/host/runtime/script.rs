//! Reads the first line of a script, and the commands that a shell script hands over to.
//!
//! Neighbours: `finder` follows what is found. Never: opens a file or expands what only a shell could know.

use std::collections::BTreeMap;
use std::path::Path;

/// As much of the first line as the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE: usize = 255;
const MAX_LINES: usize = 2000;

/// The interpreter and its one argument, split as the kernel does; `None`: not a script.
pub(super) fn first_line(head: &[u8]) -> Option<(String, Option<String>)> {
    let rest = head.strip_prefix(b"#!")?;
    let rest = rest.get(..FIRST_LINE).unwrap_or(rest);
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_matches([' ', '\t', '\r']);
    let (name, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim_matches([' ', '\t']);
    if name.is_empty() {
        return None;
    }
    Some((name.to_owned(), (!argument.is_empty()).then(|| argument.to_owned())))
}

/// The command that `env` runs when it is given these arguments; empty when it runs none.
pub(super) fn after_env(arguments: &[String]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for argument in arguments {
        let split = ["-S", "-vS", "--split-string="].iter().find_map(|option| argument.strip_prefix(option));
        match split {
            Some(rest) if words.is_empty() => {
                words.extend(Shell::default().words(rest).into_iter().map(Option::unwrap_or_default));
            }
            _ => words.push(argument.clone()),
        }
    }
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.peek() {
        let takes_value = matches!(word.as_str(), "-u" | "-C" | "--unset" | "--chdir");
        let skipped = word.is_empty() || word.starts_with('-') || word.contains('=');
        if !skipped {
            break;
        }
        words.next();
        if takes_value {
            words.next();
        }
    }
    words.collect()
}

/// What is known about a shell's variables, well enough to read wrapper scripts that tools generate.
#[derive(Debug, Default)]
pub(super) struct Shell {
    variables: BTreeMap<String, String>,
}

impl Shell {
    /// The shell in which the script at this path runs.
    pub(super) fn of(script: &Path, home: Option<&Path>) -> Self {
        let mut variables = BTreeMap::new();
        variables.insert("0".to_owned(), script.to_string_lossy().into_owned());
        if let Some(home) = home {
            variables.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        }
        Self { variables }
    }

    /// The commands that a script replaces itself with by `exec`, as far as their words can be told.
    pub(super) fn execs(mut self, text: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for line in text.lines().take(MAX_LINES) {
            let line = line.trim();
            if self.assign(line) {
                continue;
            }
            let words = self.words(line);
            let mut words = words.into_iter().skip_while(|word| {
                // `exec` may follow `if …; then`, `&&` or an assignment.
                word.as_deref() != Some("exec")
            });
            if words.next().is_none() {
                continue;
            }
            let command: Vec<Option<String>> = words.collect();
            if let Some(command) = known(command) {
                found.push(command);
            }
        }
        found
    }

    /// The commands of a line given to `sh -c`.
    pub(super) fn commands(mut self, line: &str) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        for piece in line.split(['\n', ';', '|', '&']).take(MAX_LINES) {
            let piece = piece.trim();
            if self.assign(piece) {
                continue;
            }
            let words = self.words(piece).into_iter();
            let command = words.skip_while(|word| {
                word.as_deref().is_some_and(|w| {
                    w == "exec" || w == "cd" || w.split('/').next().is_some_and(|n| n.contains('='))
                })
            });
            if let Some(command) = known(command.collect()) {
                found.push(command);
            }
        }
        found
    }

    /// Takes note of `NAME=value`; true when the line was that.
    fn assign(&mut self, line: &str) -> bool {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else { return false };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return false;
        }
        let directory = self.directory();
        let mut words = self.words(value).into_iter();
        match (words.next(), words.next()) {
            // Every script spells the way to its own directory differently; `dirname` is in nearly all of them.
            _ if value.contains("dirname") && value.contains("$0") | value.contains("BASH_SOURCE") => {
                if let Some(directory) = directory {
                    self.variables.insert(name.to_owned(), directory);
                }
                true
            }
            (Some(Some(value)), None) => {
                self.variables.insert(name.to_owned(), value);
                true
            }
            (None | Some(None), None) => {
                self.variables.remove(name);
                true
            }
            (_, Some(_)) => false,
        }
    }

    fn directory(&self) -> Option<String> {
        Some(Path::new(self.variables.get("0")?).parent()?.to_string_lossy().into_owned())
    }

    /// The words of one line without its quotes; `None` for a word that only a shell could tell.
    pub(super) fn words(&self, line: &str) -> Vec<Option<String>> {
        let mut words = Vec::new();
        let mut rest = line;
        let mut word: Option<String> = None;
        let mut unknown = false;
        let mut quote: Option<char> = None;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            match (c, quote) {
                ('\'' | '"', None) => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (_, Some(open)) if c == open => quote = None,
                ('$' | '`', None | Some('"')) => {
                    let (value, after) = if c == '$' { self.expand(rest) } else { (None, rest) };
                    rest = after;
                    match value {
                        Some(value) => word.get_or_insert_default().push_str(&value),
                        None => unknown = true,
                    }
                    word.get_or_insert_default();
                }
                ('\\', None) => {
                    if let Some(next) = rest.chars().next() {
                        word.get_or_insert_default().push(next);
                        rest = rest.get(next.len_utf8()..).unwrap_or_default();
                    }
                }
                ('#', None) if word.is_none() => break,
                (' ' | '\t' | ';' | '&' | '|' | '(' | ')', None) => {
                    if let Some(done) = word.take() {
                        words.push((!unknown).then_some(done));
                    }
                    unknown = false;
                }
                _ => word.get_or_insert_default().push(c),
            }
        }
        if let Some(done) = word {
            words.push((!unknown && quote.is_none()).then_some(done));
        }
        words
    }

    /// What follows a `$`: its value when it is known, and the text after it.
    fn expand<'t>(&self, text: &'t str) -> (Option<String>, &'t str) {
        for own in ["(dirname \"$0\")", "(dirname $0)", "{0%/*}", "(dirname -- \"$0\")"] {
            if let Some(after) = text.strip_prefix(own) {
                return (self.directory(), after);
            }
        }
        if let Some((name, after)) = text.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            return (self.variables.get(name).cloned(), after);
        }
        let special =
            text.chars().next().filter(|c| matches!(c, '0'..='9' | '@' | '*' | '#' | '?' | '$' | '!'));
        let end = match special {
            Some(c) => c.len_utf8(),
            None => text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()),
        };
        let (name, after) = text.split_at_checked(end).unwrap_or((text, ""));
        (self.variables.get(name).cloned(), after)
    }
}

/// A command whose program is known; its unknown arguments, such as `"$@"`, are left out.
fn known(command: Vec<Option<String>>) -> Option<Vec<String>> {
    command.first()?.as_ref().filter(|name| !name.is_empty())?;
    Some(command.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn the_first_line_is_split_as_the_kernel_does() {
        assert_eq!(
            first_line(b"#! /usr/bin/env  -S node --x \nrest"),
            Some(("/usr/bin/env".into(), Some("-S node --x".into())))
        );
        assert_eq!(first_line(b"#!/bin/sh"), Some(("/bin/sh".into(), None)));
        assert_eq!(first_line(b"#!\n"), None);
        assert_eq!(first_line(b"\x7fELF"), None);
        let long = [b"#!/".as_slice(), &[b'a'; 4000]].concat();
        assert_eq!(first_line(&long).map(|(name, _)| name.len()), Some(FIRST_LINE));
    }

    #[test]
    fn env_gives_the_command_behind_its_options() {
        assert_eq!(
            after_env(&text(&["-S node --import 'a b'", "/x.js"])),
            text(&["node", "--import", "a b", "/x.js"])
        );
        assert_eq!(
            after_env(&text(&["-i", "A=1", "-u", "B", "python3", "x.py"])),
            text(&["python3", "x.py"])
        );
        assert_eq!(after_env(&text(&["-S"])), text(&[]));
    }

    #[test]
    fn wrapper_scripts_tell_what_they_start() {
        let shell = |script: &str| Shell::of(Path::new(script), Some(Path::new("/home/u")));
        assert_eq!(
            shell("/v/bin/x")
                .execs("#!/bin/sh\n'''exec' \"/v e/bin/python\" \"$0\" \"$@\"\n' '''\nimport re\n"),
            [text(&["/v e/bin/python", "/v/bin/x"])]
        );
        let pnpm = "basedir=$(dirname \"$(echo \"$0\" | sed -e 's,\\\\,/,g')\")\nif [ -x \"$basedir/node\" ]; then\n  exec \"$basedir/node\"  \"$basedir/../p/i.js\" \"$@\"\nelse\n  exec node  \"$basedir/../p/i.js\" \"$@\"\nfi\n";
        assert_eq!(
            shell("/m/.bin/x").execs(pnpm),
            [text(&["/m/.bin/node", "/m/.bin/../p/i.js"]), text(&["node", "/m/.bin/../p/i.js"])]
        );
        assert_eq!(shell("/s").execs("T=/opt/t\nexec \"${T}/bin/t\" -v\n"), [text(&["/opt/t/bin/t", "-v"])]);
        assert_eq!(shell("/s").execs("exec $(find_it) x\n"), Vec::<Vec<String>>::new());
        assert_eq!(
            shell("/s").commands("A=1 exec node $HOME/s.js && echo done"),
            [text(&["node", "/home/u/s.js"]), text(&["echo", "done"])]
        );
    }
}
