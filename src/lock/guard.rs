//! Compares what a server is now with what was accepted of it.
//!
//! Neighbours: `commands` make a [`Guard`] from the file and from what the host has, `session` asks it. Never: changes what is
//! accepted.

use std::collections::BTreeMap;
use std::ops::Range;

use super::definition::{Definition, Kind};
use super::diff::lines;
use super::file::{LockFile, Package, Part, Pinned, Server};
use super::words::visible;

/// Something that is not as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// One sentence without a full stop, in words of toolcell's own: what a model may read.
    pub summary: String,
    /// What is gone and what came, a line each; for a person.
    pub diff: Vec<String>,
}

impl Difference {
    /// Both, the diff indented.
    #[must_use]
    pub fn text(&self) -> String {
        let diff: String = self.diff.iter().map(|line| format!("\n  {line}")).collect();
        format!("{}{diff}", self.summary)
    }
}

/// A server as it was found.
pub type Found = Server;

/// What one session is judged by.
#[derive(Debug)]
pub struct Guard {
    file: String,
    name: String,
    locked: Server,
    /// Tools of the file's other servers, with one that has it.
    others: BTreeMap<String, String>,
}

impl Guard {
    /// The guard of the server of this name. `None`: the file has no such server.
    #[must_use]
    pub fn new(file: &str, lock: &LockFile, name: &str) -> Option<Self> {
        let locked = lock.servers.get(name)?.clone();
        Some(Self { file: file.to_owned(), name: name.to_owned(), locked, others: others(lock, name) })
    }

    /// The file that it was made from.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The server's name.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.name
    }

    /// What is not as it was accepted of command, state, package and profiles.
    #[must_use]
    pub fn surroundings(&self, found: &Found) -> Vec<Difference> {
        let mut differences = Vec::new();
        if found.command != self.locked.command {
            differences.push(Difference {
                summary: format!(
                    "the command of server `{}` is another than the one that was locked",
                    self.name
                ),
                diff: lines(&self.locked.command, &found.command),
            });
        }
        if found.state != self.locked.state {
            differences.push(Difference {
                summary: format!("the `state` of server `{}` is not as it was locked", self.name),
                diff: lines(&self.locked.state, &found.state),
            });
        }
        differences.extend(self.package(found.package.as_ref()));
        for (name, profile) in &found.profiles {
            let old = self.locked.profiles.get(name).map(|locked| locked.text.as_str());
            if old == Some(&profile.text) {
                continue;
            }
            let list = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            let summary = match old {
                Some(_) => format!("the profile `{name}` is not as it was locked"),
                None => {
                    format!("the profile `{name}` was not used by server `{}` when it was locked", self.name)
                }
            };
            differences.push(Difference {
                summary,
                diff: lines(&list(old.unwrap_or_default()), &list(&profile.text)),
            });
        }
        differences
    }

    fn package(&self, found: Option<&Package>) -> Option<Difference> {
        let locked = self.locked.package.as_ref();
        if locked == found {
            return None;
        }
        let summary = match (locked, found) {
            (Some(locked), Some(found)) => {
                format!(
                    "the package of server `{}` is not as it was locked: {}",
                    self.name,
                    news(locked, found)
                )
            }
            (None, _) => {
                format!("the program of server `{}` was of no fetched package when it was locked", self.name)
            }
            (_, None) => format!("the program of server `{}` is of no fetched package any more", self.name),
        };
        Some(Difference { summary, diff: lines(&contents(locked), &contents(found)) })
    }

    /// What is not as it was accepted of the program's files.
    #[must_use]
    pub fn program(&self, found: &[Part]) -> Option<Difference> {
        if self.locked.program == found {
            return None;
        }
        let list = |parts: &[Part]| parts.iter().map(shown).collect::<Vec<_>>();
        Some(Difference {
            summary: format!("the program of server `{}` is not as it was locked", self.name),
            diff: lines(&list(&self.locked.program), &list(found)),
        })
    }

    /// A program of which a file was changed while a session ran.
    #[must_use]
    pub fn touched(&self, path: &str) -> Difference {
        let summary = format!("the program of server `{}` was changed while its session ran", self.name);
        let diff = vec![
            format!("changed: {}", visible(path)),
            "a new session compares it with what was locked; this one refuses every call".to_owned(),
        ];
        Difference { summary, diff }
    }

    /// A program whose files could not be looked at.
    #[must_use]
    pub fn unreadable(&self, why: &str) -> Difference {
        let summary =
            format!("the program of server `{}` cannot be compared with what was locked", self.name);
        Difference { summary, diff: why.lines().map(visible).collect() }
    }

    /// Whether there is a definition of this name.
    #[must_use]
    pub fn knows(&self, kind: Kind, name: &str) -> bool {
        self.of(kind).any(|definition| definition.name == name)
    }

    /// Whether an element of a list is as it was accepted; with its name, if it has one.
    ///
    /// # Errors
    /// In what it differs.
    pub fn judge(
        &self,
        kind: Kind,
        line: &[u8],
        span: Range<usize>,
    ) -> Result<String, (Option<String>, Difference)> {
        let now = Definition::read(kind, line, span).map_err(|why| {
            let summary =
                format!("a {} of server `{}` cannot be compared: {}", kind.noun(), self.name, visible(&why));
            (None, Difference { summary, diff: Vec::new() })
        })?;
        match self.against(kind, &now) {
            None => Ok(now.name),
            Some(difference) => Err((Some(now.name), difference)),
        }
    }

    /// What the server says of itself in a result, if it is not what was accepted.
    #[must_use]
    pub fn instructions(&self, line: &[u8], result: Range<usize>) -> Option<Difference> {
        match Definition::instructions(line, result) {
            Ok(now) => self.against(Kind::Instructions, &now?),
            Err(why) => {
                let summary = format!("the instructions of server `{}` cannot be compared: {why}", self.name);
                Some(Difference { summary, diff: Vec::new() })
            }
        }
    }

    /// A call of what is not there, or not any more.
    #[must_use]
    pub fn missing(&self, kind: Kind, name: &str) -> Difference {
        let noun = kind.noun();
        let why = match self.knows(kind, name) {
            true => "was locked, and the server does not list it any more",
            false => "was not there when the server was locked",
        };
        let summary = format!("the {noun} `{}` of server `{}` {why}", visible(name), self.name);
        Difference { summary, diff: Vec::new() }
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Definition> {
        self.locked.items.get(&kind).into_iter().flatten().map(|item| &item.definition)
    }

    fn against(&self, kind: Kind, now: &Definition) -> Option<Difference> {
        let known: Vec<&Definition> = self.of(kind).filter(|known| known.name == now.name).collect();
        if known.contains(&now) {
            return None;
        }
        Some(difference(&self.name, kind, known.first().copied(), Some(now), self.others.get(&now.name)))
    }
}

fn others(lock: &LockFile, name: &str) -> BTreeMap<String, String> {
    let mut others = BTreeMap::new();
    for (server, locked) in lock.servers.iter().filter(|(server, _)| *server != name) {
        for item in locked.items.get(&Kind::Tool).into_iter().flatten() {
            others.entry(item.definition.name.clone()).or_insert_with(|| server.clone());
        }
    }
    others
}

/// The first thing to be told of two packages that are not the same.
fn news(locked: &Package, found: &Package) -> String {
    let (was, is) = (visible(&locked.name), visible(&found.name));
    let is_other = |one: &Pinned, other: &Pinned| {
        one.name == other.name && one.version == other.version && one.integrity != other.integrity
    };
    let replaced = |one: &Pinned| locked.packages.iter().any(|other| is_other(one, other));
    if locked.name != found.name {
        format!("it was `{was}`, and is `{is}`")
    } else if found.packages.iter().any(replaced) {
        format!("under the same version, the registry of `{is}` has another archive")
    } else if locked.version != found.version {
        format!("`{is}` has another version")
    } else if locked.packages != found.packages {
        format!("`{is}` comes with other packages")
    } else {
        format!("of `{is}`, other install scripts were allowed")
    }
}

/// A package, a line each of what is in it.
fn contents(package: Option<&Package>) -> Vec<String> {
    let Some(Package { name, version, scripts, packages }) = package else { return Vec::new() };
    let own = format!("{name} is {version}");
    let scripts = scripts.iter().map(|name| format!("install scripts of {name}"));
    let packages =
        packages.iter().map(|Pinned { name, version, integrity }| format!("{name} {version} {integrity}"));
    [own].into_iter().chain(scripts).chain(packages).collect()
}

fn shown(part: &Part) -> String {
    let version = part.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    format!("{}{version}, {} files, {}", part.path, part.files, part.hash)
}

/// What differs between what was accepted and what is, of which there is at least one.
fn difference(
    server: &str,
    kind: Kind,
    old: Option<&Definition>,
    new: Option<&Definition>,
    other: Option<&String>,
) -> Difference {
    let none = Definition::default();
    let name = visible(&new.or(old).unwrap_or(&none).name);
    let what = match kind {
        Kind::Instructions => format!("the instructions of server `{server}`"),
        Kind::Tool | Kind::Prompt | Kind::Resource | Kind::Template => {
            format!("the {} `{name}` of server `{server}`", kind.noun())
        }
    };
    let members = old.unwrap_or(&none).differing(new.unwrap_or(&none));
    let verb = if kind == Kind::Instructions { ("are", "were", "are") } else { ("is", "was", "is") };
    let summary = match (old, new) {
        (Some(_), Some(_)) => {
            let shown: Vec<String> = members.iter().map(|member| format!("`{}`", visible(member))).collect();
            format!(
                "{what} {} not as {} locked: {} changed",
                verb.0,
                if kind == Kind::Instructions { "they were" } else { "it was" },
                shown.join(", ")
            )
        }
        (None, _) => format!("{what} {} not there when the server was locked", verb.1),
        (Some(_), None) => format!("{what} {} not there any more", verb.2),
    };
    let shadow = match (old, kind, other) {
        (None, Kind::Tool, Some(other)) => {
            format!("; server `{other}` has a tool of that name, which it shadows")
        }
        _ => String::new(),
    };
    let mut diff = Vec::new();
    for member in &members {
        diff.push(visible(member));
        let of = |definition: Option<&Definition>| definition.unwrap_or(&none).member(member);
        diff.extend(lines(&of(old), &of(new)).into_iter().map(|line| format!("  {line}")));
    }
    Difference { summary: format!("{summary}{shadow}"), diff }
}

/// Everything in which a server is not as it was accepted; what is gone, too.
#[must_use]
pub fn compare(lock: &LockFile, name: &str, found: &Found) -> Vec<Difference> {
    let Some(guard) = Guard::new("", lock, name) else {
        let none = LockFile { servers: [(name.to_owned(), Server::default())].into() };
        let summary = format!("the server `{name}` is not in the lock file");
        let mut all = vec![Difference { summary, diff: Vec::new() }];
        all.extend(Guard::new("", &none, name).into_iter().flat_map(|guard| guard.all(found)));
        return all;
    };
    guard.all(found)
}

impl Guard {
    fn all(&self, found: &Found) -> Vec<Difference> {
        let mut all = self.surroundings(found);
        all.extend(self.program(&found.program));
        for (name, _) in self.locked.profiles.iter().filter(|(name, _)| !found.profiles.contains_key(*name)) {
            let summary = format!("the profile `{name}` is not used by server `{}` any more", self.name);
            all.push(Difference { summary, diff: Vec::new() });
        }
        for kind in Kind::ALL {
            let now: Vec<&Definition> =
                found.items.get(&kind).into_iter().flatten().map(|item| &item.definition).collect();
            all.extend(now.iter().filter_map(|now| self.against(kind, now)));
            let gone = self.of(kind).filter(|old| !now.iter().any(|now| now.name == old.name));
            all.extend(gone.map(|old| difference(&self.name, kind, Some(old), None, None)));
        }
        all
    }
}

#[cfg(test)]
#[path = "guard/tests.rs"]
mod tests;
