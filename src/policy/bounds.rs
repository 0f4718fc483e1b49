//! What a client says that its tools may see and change: its roots, or the policy that it sends along with a call.
//!
//! Of paths the longest rule decides, as in a profile. Whatever is not understood is an error and stops the call: a member that is
//! not known may be the one that forbids something.
//!
//! Neighbours: `session` has the messages, `host::bounded` applies the bounds to a policy. Never: looks at the file system.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::path::{OF_THE_SYSTEM, normal};
use crate::arguments::percent;

/// The member of a request's `_meta` in which Codex says what its own sandbox allows.
pub const CODEX: &str = "codex/sandbox-state-meta";
/// Rules of one client, at most: each costs every call a look.
const MOST: usize = 256;

/// What may be done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// It can be read, and executed where the profile lets it.
    Read,
    /// It can be changed too.
    Write,
}

/// What a client allows at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Whose they are, e.g. "the client's roots".
    pub by: &'static str,
    /// Paths with all that is in them, each once.
    rules: Vec<(PathBuf, Level)>,
    /// What holds elsewhere.
    pub otherwise: Level,
    /// Nothing may be reached over the network.
    pub offline: bool,
}

impl Bounds {
    /// Each path once; of two rules for one, "nothing" wins, then the wider, as Codex has it.
    fn new(by: &'static str, otherwise: Level, all: Vec<(PathBuf, Level)>) -> Result<Self, String> {
        if all.len() > MOST {
            return Err(format!("there are {} paths; a client can name {MOST}", all.len()));
        }
        let mut bounds = Self { by, rules: Vec::new(), otherwise, offline: false };
        for (path, level) in all {
            match bounds.rules.iter_mut().find(|(known, _)| *known == path) {
                Some((_, known)) if *known == Level::None || level == Level::None => *known = Level::None,
                Some((_, known)) => *known = level.max(*known),
                None => bounds.rules.push((path, level)),
            }
        }
        if let Some(at) = bounds.rules.iter().position(|(path, _)| path.parent().is_none()) {
            bounds.otherwise = bounds.rules.remove(at).1;
        }
        Ok(bounds)
    }

    /// Of the result of `roots/list`: what lies in a root, as far as the profile grants it, and the system's own directories.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn of_roots(result: &Value) -> Result<Self, String> {
        let roots = result.get("roots").and_then(Value::as_array).ok_or("`roots` is no array")?;
        let mut rules: Vec<_> = OF_THE_SYSTEM.iter().map(|path| (PathBuf::from(path), Level::Read)).collect();
        for root in roots {
            let uri = root.get("uri").and_then(Value::as_str).ok_or("a root has no `uri`")?;
            // A root elsewhere is nothing that a cell could see.
            if uri.starts_with("file:") {
                rules.push((place(uri)?, Level::Write));
            }
        }
        Self::new("the client's roots", Level::None, rules)
    }

    /// Of the member [`CODEX`] of a call's `_meta`. What forbids nothing is left out.
    ///
    /// # Errors
    /// What cannot be read, or could not be held.
    pub fn of_codex(state: &Value) -> Result<Vec<Self>, String> {
        let state = State::deserialize(state).map_err(|error| error.to_string())?;
        let cwd = state.sandbox_cwd.as_deref().map(place).transpose()?;
        let mut all = Vec::new();
        if state.permission_profile.is_none() && state.sandbox_policy.is_none() {
            return Err("it has neither `permissionProfile` nor `sandboxPolicy`".to_owned());
        }
        let offline = match &state.permission_profile {
            Some(Profile::Managed { network, .. } | Profile::External { network }) => {
                *network == Network::Restricted
            }
            Some(Profile::Disabled {}) | None => false,
        };
        if offline {
            all.push(Self::without_network());
        }
        if let Some(Profile::Managed { file_system: FileSystem::Restricted { entries, .. }, .. }) =
            &state.permission_profile
        {
            let mut rules = Vec::new();
            for entry in entries {
                rules.extend(entry.rules(cwd.as_deref())?);
            }
            all.push(Self::new("the client's policy", Level::None, rules)?);
        }
        if let Some(policy) = &state.sandbox_policy {
            all.extend(policy.is_offline().then(Self::without_network));
            all.extend(policy.bounds(cwd.as_deref())?);
        }
        Ok(all)
    }

    /// Everything but the network.
    const fn without_network() -> Self {
        let by = "the client's policy";
        Self { by, rules: Vec::new(), otherwise: Level::Write, offline: true }
    }

    /// The rules; none is for `/`.
    #[must_use]
    pub fn rules(&self) -> &[(PathBuf, Level)] {
        &self.rules
    }

    /// The same with other paths: where they lead.
    #[must_use]
    pub fn led(&self, to: impl Fn(&Path) -> PathBuf) -> Self {
        let rules = self.rules.iter().map(|(path, level)| (to(path), *level)).collect();
        Self { rules, ..self.clone() }
    }

    /// What may be done with a path.
    #[must_use]
    pub fn level(&self, path: &Path) -> Level {
        let over = self.rules.iter().filter(|(rule, _)| path.starts_with(rule));
        let longest = over.clone().map(|(rule, _)| rule.as_os_str().len()).max();
        // Two rules can lead to one place.
        let deciding = over.filter(|(rule, _)| Some(rule.as_os_str().len()) == longest);
        deciding.map(|(_, level)| *level).min().unwrap_or(self.otherwise)
    }
}

/// A path, or a `file:` URL.
fn place(text: &str) -> Result<PathBuf, String> {
    let path = match text.starts_with("file:") {
        true => percent::of_file_url(text).ok_or_else(|| format!("`{text}` names no file of this host"))?,
        false => text.to_owned(),
    };
    normal(&path).map_err(|error| error.to_string())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct State {
    permission_profile: Option<Profile>,
    sandbox_policy: Option<Sandbox>,
    sandbox_cwd: Option<String>,
    #[expect(dead_code, reason = "is about how Codex builds its own sandbox")]
    codex_linux_sandbox_exe: Option<String>,
    #[expect(dead_code, reason = "is about how Codex builds its own sandbox")]
    use_legacy_landlock: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Profile {
    Managed { file_system: FileSystem, network: Network },
    Disabled {},
    External { network: Network },
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Network {
    Restricted,
    Enabled,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum FileSystem {
    Restricted {
        entries: Vec<Entry>,
        #[expect(dead_code, reason = "is about patterns, of which none that forbids is accepted")]
        glob_scan_max_depth: Option<u64>,
    },
    Unrestricted {},
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: Target,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Read,
    Write,
    #[serde(alias = "deny")]
    None,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Target {
    Path { path: String },
    GlobPattern { pattern: String },
    Special { value: Special },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Special {
    Root {},
    Minimal {},
    CurrentWorkingDirectory {},
    ProjectRoots {
        subpath: Option<String>,
    },
    Tmpdir {},
    SlashTmp {},
    Unknown {
        path: String,
        #[expect(dead_code, reason = "what is not known grants nothing, wherever in it")]
        subpath: Option<String>,
    },
}

impl Entry {
    /// What is granted of an unknown place is nothing; what is forbidden of one could not be held.
    fn rules(&self, cwd: Option<&Path>) -> Result<Vec<(PathBuf, Level)>, String> {
        let level = match self.access {
            Access::Read => Level::Read,
            Access::Write => Level::Write,
            Access::None => Level::None,
        };
        let unknown = |what: &str| match level {
            Level::None => Err(format!("{what} cannot be kept out of a cell")),
            Level::Read | Level::Write => Ok(Vec::new()),
        };
        let below = |subpath: &str| {
            let cwd = cwd.ok_or("`sandboxCwd` is not there")?;
            place(&format!("{}/{subpath}", cwd.display())).map(|path| vec![(path, level)])
        };
        match &self.path {
            Target::Path { path } => Ok(vec![(place(path)?, level)]),
            Target::GlobPattern { pattern } => unknown(&format!("the pattern `{pattern}`")),
            Target::Special { value } => match value {
                Special::Root {} => Ok(vec![(PathBuf::from("/"), level)]),
                Special::Minimal {} => {
                    Ok(OF_THE_SYSTEM.iter().map(|path| (PathBuf::from(path), level)).collect())
                }
                Special::CurrentWorkingDirectory {} => below(""),
                Special::ProjectRoots { subpath } => below(subpath.as_deref().unwrap_or_default()),
                Special::Tmpdir {} => unknown("the client's `TMPDIR`"),
                Special::SlashTmp {} => Ok(vec![(PathBuf::from("/tmp"), level)]),
                Special::Unknown { path, .. } => unknown(&format!("`{path}`")),
            },
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum Sandbox {
    DangerFullAccess {},
    ReadOnly {
        access: Option<Readable>,
        network_access: Option<bool>,
    },
    WorkspaceWrite {
        #[serde(default)]
        writable_roots: Vec<String>,
        read_only_access: Option<Readable>,
        network_access: Option<bool>,
        #[expect(dead_code, reason = "the client's `TMPDIR` is not known here, and counts as excluded")]
        exclude_tmpdir_env_var: Option<bool>,
        #[serde(default)]
        exclude_slash_tmp: bool,
    },
    #[serde(rename = "external-sandbox")]
    External {
        network_access: Option<Network>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum Readable {
    FullAccess {},
    Restricted {
        #[serde(default)]
        include_platform_defaults: bool,
        #[serde(default)]
        readable_roots: Vec<String>,
    },
}

impl Sandbox {
    /// Codex lets nothing out unless the policy says so.
    fn is_offline(&self) -> bool {
        match self {
            Self::DangerFullAccess {} => false,
            Self::ReadOnly { network_access, .. } | Self::WorkspaceWrite { network_access, .. } => {
                *network_access != Some(true)
            }
            Self::External { network_access } => *network_access != Some(Network::Enabled),
        }
    }

    fn bounds(&self, cwd: Option<&Path>) -> Result<Option<Bounds>, String> {
        let (readable, mut rules) = match self {
            Self::DangerFullAccess {} | Self::External { .. } => return Ok(None),
            Self::ReadOnly { access, .. } => (access, Vec::new()),
            Self::WorkspaceWrite { writable_roots, read_only_access, exclude_slash_tmp, .. } => {
                let cwd = cwd.ok_or("`sandboxCwd` is not there")?;
                let mut rules = vec![(cwd.to_owned(), Level::Write)];
                for root in writable_roots {
                    rules.push((place(root)?, Level::Write));
                }
                rules.extend((!exclude_slash_tmp).then(|| (PathBuf::from("/tmp"), Level::Write)));
                (read_only_access, rules)
            }
        };
        let otherwise = match readable {
            None | Some(Readable::FullAccess {}) => Level::Read,
            Some(Readable::Restricted { include_platform_defaults, readable_roots }) => {
                for root in readable_roots {
                    rules.push((place(root)?, Level::Read));
                }
                let system = OF_THE_SYSTEM.iter().filter(|_| *include_platform_defaults);
                rules.extend(system.map(|path| (PathBuf::from(path), Level::Read)));
                Level::None
            }
        };
        Bounds::new("the client's policy", otherwise, rules).map(Some)
    }
}

#[cfg(test)]
#[path = "bounds/tests.rs"]
mod tests;
