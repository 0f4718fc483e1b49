//! What is installed: packages of one registry, by the names and versions that a person writes.
//!
//! Neighbours: `runner` finds them in a command line, `commands::install` takes them from its own. Never: knows where a registry
//! is, or takes what is no name in one (a directory, an address, a repository).

use std::fmt;
use std::str::FromStr;

/// Longer names and versions than registries have.
const LONGEST: usize = 214;
/// Characters of a version, a tag or a range.
const VERSION: &str = "._+~^*<>=!|,-";

/// Whose packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Registry {
    /// Of Node.
    Npm,
    /// Of Python.
    Pypi,
}

impl Registry {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Npm, Self::Pypi];

    /// As it is written in front of a package.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pypi => "pypi",
        }
    }
}

/// One package, as its own package manager takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// In the form in which the registry has it.
    pub name: String,
    /// Of a package of Python: its extras, in order.
    pub extras: Vec<String>,
    /// A version, a tag or a range; empty: the newest.
    pub version: String,
}

/// A package, and what is to be beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Whose.
    pub registry: Registry,
    /// The package itself.
    pub main: Requirement,
    /// Sorted.
    pub with: Vec<Requirement>,
}

/// A text that names no package of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPackage {
    /// Neither `npm:` nor `pypi:` stands in front.
    #[error("`{0}` does not say whose package it is")]
    Registry(String),
    /// It is a path, an address, or nothing that has a name.
    #[error("`{text}` is no package in the registry of {}", registry.name())]
    Name {
        /// As it was written.
        text: String,
        /// Where it was looked for.
        registry: Registry,
    },
}

impl NotAPackage {
    /// What to write.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Registry(_) => "write `npm:NAME@VERSION` or `pypi:NAME==VERSION`",
            Self::Name { .. } => {
                "toolcell fetches by name and version; what lies in a directory, a repository or at an address has to be \
                 installed by hand: then name its program"
            }
        }
    }
}

impl Requirement {
    /// Reads what a package manager of this registry takes.
    ///
    /// # Errors
    /// It is no name and version.
    pub fn parse(registry: Registry, text: &str) -> Result<Self, NotAPackage> {
        let found = match registry {
            Registry::Npm => npm(text),
            Registry::Pypi => pypi(text),
        };
        found.ok_or_else(|| NotAPackage::Name { text: text.to_owned(), registry })
    }

    /// The name in the form in which the registry has it, if the text is nothing else than one.
    #[must_use]
    pub fn name(registry: Registry, text: &str) -> Option<String> {
        let Self { name, extras, version } = Self::parse(registry, text).ok()?;
        (extras.is_empty() && version.is_empty()).then_some(name)
    }

    /// As the package manager takes it.
    #[must_use]
    pub fn to_argument(&self, registry: Registry) -> String {
        let Self { name, extras, version } = self;
        match registry {
            Registry::Npm if version.is_empty() => name.clone(),
            Registry::Npm => format!("{name}@{version}"),
            Registry::Pypi if extras.is_empty() => format!("{name}{version}"),
            Registry::Pypi => format!("{name}[{}]{version}", extras.join(",")),
        }
    }
}

/// `name`, `@scope/name`, with `@version`.
fn npm(text: &str) -> Option<Requirement> {
    let (scope, rest) = match text.strip_prefix('@') {
        Some(rest) => rest.split_once('/').map(|(scope, rest)| (Some(scope), rest))?,
        None => (None, text),
    };
    let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
    if !is_name(name) || !scope.is_none_or(is_name) || !is_version(version) {
        return None;
    }
    let name = scope.map_or_else(|| name.to_owned(), |scope| format!("@{scope}/{name}"));
    let version = if version == "latest" { "" } else { version };
    Some(Requirement { name, extras: Vec::new(), version: version.to_owned() })
}

/// `name`, `name[extra]`, with a version specifier (PEP 440) or `@version`, which `uvx` takes for `==version`.
fn pypi(text: &str) -> Option<Requirement> {
    let end = text.find(['[', '=', '<', '>', '!', '~', '@', ' ']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (extras, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut extras: Vec<String> =
        extras.split(',').map(str::trim).filter(|extra| !extra.is_empty()).map(normal).collect();
    extras.sort();
    let version: String = rest.chars().filter(|c| *c != ' ').collect();
    let version = match version.strip_prefix('@') {
        Some("latest") => String::new(),
        Some(version) if version.starts_with(|c: char| c.is_ascii_digit()) => format!("=={version}"),
        Some(_) => return None,
        None => version,
    };
    let right = is_python_name(name)
        && extras.iter().all(|extra| is_python_name(extra))
        && is_version(&version)
        && (version.is_empty() || version.starts_with(['=', '<', '>', '!', '~']));
    right.then(|| Requirement { name: normal(name), extras, version })
}

/// PEP 503: the same package, however its name is written.
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    text.len() <= LONGEST
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_~".contains(c))
        && text.chars().all(inner)
}

/// By the specification of names of distributions (PEP 508); what is left of others once they are in their normal form may be nothing.
fn is_python_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    is_name(text) && text.starts_with(edge) && text.ends_with(edge) && !text.contains('~')
}

fn is_version(text: &str) -> bool {
    text.len() <= LONGEST
        && !text.starts_with('-')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || VERSION.contains(c))
}

impl FromStr for Package {
    type Err = NotAPackage;

    /// `npm:NAME@VERSION`, `pypi:NAME==VERSION`.
    fn from_str(text: &str) -> Result<Self, NotAPackage> {
        let named = Registry::ALL
            .into_iter()
            .find_map(|registry| Some((registry, text.strip_prefix(registry.name())?.strip_prefix(':')?)));
        let (registry, rest) = named.ok_or_else(|| NotAPackage::Registry(text.to_owned()))?;
        Ok(Self { registry, main: Requirement::parse(registry, rest)?, with: Vec::new() })
    }
}

impl Package {
    /// The same, with others beside it.
    ///
    /// # Errors
    /// One is no name and version.
    pub fn with(mut self, others: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, NotAPackage> {
        for other in others {
            self.with.push(Requirement::parse(self.registry, other.as_ref())?);
        }
        self.with.sort();
        self.with.dedup();
        Ok(self)
    }

    /// The package itself first.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        [&self.main].into_iter().chain(&self.with)
    }

    /// What to type, for it to be installed, and the install scripts of these run.
    #[must_use]
    pub fn to_command(&self, scripts: &[String]) -> String {
        let quoted = |text: String| {
            if text.contains(['<', '>', '*', '|', '!', '~', '[', '^']) { format!("'{text}'") } else { text }
        };
        // What comes from a registry is taken for a name only if it is one.
        let allowed = scripts.iter().filter_map(|name| Requirement::name(self.registry, name));
        let allowed = allowed.map(|name| format!(" --allow-scripts {name}"));
        let others =
            self.with.iter().map(|other| format!(" --with {}", quoted(other.to_argument(self.registry))));
        let main = format!("{}:{}", self.registry.name(), self.main.to_argument(self.registry));
        format!("toolcell install{} {}", allowed.chain(others).collect::<String>(), quoted(main))
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.registry.name(), self.main.to_argument(self.registry))?;
        self.with.iter().try_for_each(|other| write!(f, " with {}", other.to_argument(self.registry)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_package_managers_take_by_name_is_taken() {
        for (text, shown) in [
            ("npm:server", "npm:server"),
            ("npm:@scope/server@1.2.3", "npm:@scope/server@1.2.3"),
            ("npm:server@latest", "npm:server"),
            ("npm:server@^1.2", "npm:server@^1.2"),
            ("pypi:mcp-server-git", "pypi:mcp-server-git"),
            ("pypi:MCP_Server.Git==2026.1", "pypi:mcp-server-git==2026.1"),
            ("pypi:a[b, C]>=1, <2", "pypi:a[b,c]>=1,<2"),
            ("pypi:a@1.2", "pypi:a==1.2"),
            ("pypi:a@latest", "pypi:a"),
        ] {
            let package: Package = text.parse().unwrap();
            assert_eq!(package.to_string(), shown);
            assert_eq!(shown.parse::<Package>().unwrap(), package);
        }
        let package = "pypi:a".parse::<Package>().unwrap().with(["c", "B<2", "c"]).unwrap();
        assert_eq!(package.to_string(), "pypi:a with b<2 with c");
        assert_eq!(package.to_command(&[]), "toolcell install --with 'b<2' --with c pypi:a");
        let scripts = ["@s/b", "c;d", "e"].map(str::to_owned);
        let command = "npm:a@^1".parse::<Package>().unwrap().to_command(&scripts);
        assert_eq!(command, "toolcell install --allow-scripts @s/b --allow-scripts e 'npm:a@^1'");
    }

    #[test]
    fn what_is_elsewhere_than_in_a_registry_is_not() {
        for text in [
            "server",
            "gem:server",
            "npm:",
            "npm:./server",
            "npm:../server",
            "npm:/server",
            "npm:user/server",
            "npm:server@npm:other",
            "npm:server@git+ssh://a/b",
            "npm:server@file:..",
            "npm:@scope",
            "npm:@scope/a/b",
            "npm:-g",
            "npm:server@-g",
            "npm:a b",
            "pypi:a @ https://a.example/x.whl",
            "pypi:git+https://a.example/x",
            "pypi:a[../b]",
            "pypi:a[b",
            "pypi:_",
            "pypi:a[_]",
            "pypi:a-",
            "pypi:--index-url=x",
            "pypi:a; python_version > '3'",
            "pypi:./a",
        ] {
            assert!(text.parse::<Package>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_alone_is_one_package() {
        for (registry, text, name) in [
            (Registry::Npm, "@s/a", Some("@s/a")),
            (Registry::Pypi, "A_b", Some("a-b")),
            (Registry::Pypi, ":all:", None),
            (Registry::Pypi, "a,b", None),
            (Registry::Pypi, "a==1", None),
            (Registry::Pypi, "a[b]", None),
            (Registry::Npm, "a@1", None),
            (Registry::Npm, "./a", None),
        ] {
            assert_eq!(Requirement::name(registry, text).as_deref(), name, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_one_argument_that_is_no_option_and_no_path(text in "(npm|pypi):[ -~]{0,24}") {
            if let Ok(package) = text.parse::<Package>() {
                let argument = package.main.to_argument(package.registry);
                prop_assert!(!argument.starts_with(['-', '.', '/']) && !argument.contains(':'), "{argument}");
                prop_assert_eq!(argument.matches('/').count(), usize::from(argument.starts_with('@')));
                prop_assert_eq!(package.to_string().parse::<Package>().unwrap(), package);
            }
        }
    }
}
