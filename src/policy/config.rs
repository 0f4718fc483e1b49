//! Reads the file of `--config`: servers by name, and the profile of each server and tool.
//!
//! Neighbours: `policy::files` opens it, `commands` start the server it names. Never: is looked for: a file in the
//! working directory, which a tool may have written, is read only when the operator names it.

pub mod access;
pub mod arguments;
pub mod audit;
pub mod grants;
pub mod guard;
pub mod secrets;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use access::Access;
use arguments::Arguments;
use audit::Rotation;
use grants::Grants;
use guard::Guarding;
use secrets::Secret;
use state::State;
use toml::de::DeTable;

use super::add::parse_env;
use super::mistakes::{Mistakes, closest};
use super::toml_file::{TomlFile, Value, list};
use super::units::parse_size;
use super::{Source, print};

/// The profile of a server that names none.
pub const DEFAULT_PROFILE: &str = "default";

/// The tables of the file and their keys.
pub const SECTIONS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "lock",
            "servers",
            "auth",
            "identities",
            "roles",
            "secrets",
            "anomalies",
            "alerts",
            "quarantine",
            "export",
            "audit",
        ],
    ),
    (
        "servers.NAME",
        &[
            "command",
            "profile",
            "env",
            "validate",
            "validate-output",
            "client-roots",
            "client-policy",
            "state",
            "idle",
            "persist",
            "tools",
        ],
    ),
    ("audit", audit::KEYS),
    ("servers.NAME.tools.TOOL", &["profile", "grants", "validate", "validate-output", "arguments", "state"]),
];

/// The servers of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// By name.
    pub servers: BTreeMap<String, Server>,
    /// Who may call what.
    pub access: Access,
    /// What is unusual, and what comes of it.
    pub guarding: Guarding,
    /// What tools are given and nobody is told, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// Whether there has to be a lock file.
    pub lock: Lock,
    /// When the log becomes an earlier file.
    pub audit: Rotation,
}

/// When servers are compared with the lock file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lock {
    /// When there is one.
    #[default]
    IfThere,
    /// Always: without one, nothing is run.
    Require,
}

/// One server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Program and arguments, at least the program.
    pub command: Vec<String>,
    /// The profile of every call that has no other.
    pub profile: Option<String>,
    /// Variables let through (`NAME`) or set (`NAME=VALUE`), as `--env` does.
    pub env: Vec<(String, Option<String>)>,
    /// Whether arguments are checked against what the server lists.
    pub validate: Option<Validate>,
    /// What becomes of results that are not what the server lists.
    pub results: Option<Results>,
    /// Which words of the client narrow its calls.
    pub heeded: Heeded,
    /// How long its processes live, if it is said.
    pub state: Option<State>,
    /// How long the cell of a session waits for the next request.
    pub idle: Option<Duration>,
    /// How many bytes its cells may keep from call to call, if any.
    pub persist: Option<u64>,
    /// Tools of which more is said.
    pub tools: BTreeMap<String, Tool>,
}

/// What is said of one tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tool {
    /// The profile of its calls, else the server's.
    pub profile: Option<String>,
    /// What the arguments of a call say of what it sees and reaches.
    pub grants: Grants,
    /// What its arguments must be, whatever the server lists.
    pub arguments: Option<Arguments>,
    /// Whether its arguments are checked against what the server lists, else as for the server.
    pub validate: Option<Validate>,
    /// What becomes of its results that are not what the server lists, else as for the server.
    pub results: Option<Results>,
    /// How long the process of a call lives, else as for the server.
    pub state: Option<State>,
}

/// Whether arguments are checked against the `inputSchema` that a server lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validate {
    /// They are.
    On,
    /// They are not.
    Off,
}

/// What becomes of a result that is not what the `outputSchema` says that a server lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Results {
    /// Nobody looks.
    Off,
    /// It goes to the client, and the record says what is wrong with it.
    #[default]
    Warn,
    /// The client gets an error in its place.
    Refuse,
}

/// Which words of a client narrow its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heeded {
    /// Its roots, for which it has to be asked.
    pub roots: bool,
    /// The policy that it sends along with a call.
    pub policy: bool,
    /// A client that sends one only to who asks for it is asked.
    pub offer: bool,
}

impl Default for Heeded {
    /// What a client sends by itself counts. What it would have to be asked for does not: it may declare roots for other
    /// reasons, and would lose what the operator granted beside them.
    fn default() -> Self {
        Self { roots: false, policy: true, offer: false }
    }
}

impl Server {
    /// The name of the profile for a call of `tool`, or for what is not a tool's call.
    #[must_use]
    pub fn profile_for(&self, tool: Option<&str>) -> &str {
        tool.and_then(|tool| self.tools.get(tool)?.profile.as_ref())
            .or(self.profile.as_ref())
            .map_or(DEFAULT_PROFILE, String::as_str)
    }

    /// How long the process lives that a call of `tool`, or what is not a tool's call, gets.
    #[must_use]
    pub fn state_for(&self, tool: Option<&str>) -> State {
        tool.and_then(|tool| self.tools.get(tool)?.state).or(self.state).unwrap_or_default()
    }

    /// Every profile that a call of this server can run under.
    #[must_use]
    pub fn profiles(&self) -> BTreeSet<&str> {
        let own = self.tools.values().filter_map(|tool| tool.profile.as_deref());
        own.chain([self.profile_for(None)]).collect()
    }
}

impl Config {
    /// The server of this name.
    ///
    /// # Errors
    /// A hint at the name that was meant, or at all names there are.
    pub fn server(&self, name: &str) -> Result<&Server, String> {
        self.servers.get(name).ok_or_else(|| {
            let names = || self.servers.keys().map(String::as_str);
            match closest(name, names()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if self.servers.is_empty() => "the file names no server".to_owned(),
                None => format!("servers in the file: {}", names().collect::<Vec<_>>().join(", ")),
            }
        })
    }
}

/// Reads a configuration; `profiles` are the names of the profiles there are.
///
/// # Errors
/// Every mistake of the text.
pub fn parse(source: &Source, profiles: &BTreeSet<String>) -> Result<Config, Mistakes> {
    let (file, table) = TomlFile::open(source, &[]);
    let mut reader = Reader { file, profiles };
    let config = reader.top(&table);
    Mistakes::none_or(config, reader.file.finish())
}

/// Whether a server can be called this: it is part of records and of directories' names.
fn is_server(name: &str) -> bool {
    name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

struct Reader<'s, 'p> {
    file: TomlFile<'s>,
    profiles: &'p BTreeSet<String>,
}

impl Reader<'_, '_> {
    fn keys(section: &str) -> &'static [&'static str] {
        SECTIONS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
    }

    fn top(&mut self, table: &DeTable<'_>) -> Config {
        let mut config = Config::default();
        let entries = self.file.entries(table, "", Self::keys(""));
        for (name, _, value) in entries {
            if name == "lock" {
                config.lock = self.lock(value);
            }
            if name != "servers" {
                continue;
            }
            let Some(servers) = self.file.table(value, "`servers`") else { continue };
            for (key, value) in servers {
                let name: &str = key.get_ref();
                if !is_server(name) {
                    let hint = "names are made of letters, digits, `-`, `_` and `.`";
                    self.file.mistake(
                        &key.span(),
                        &format!("`{name}` cannot be a server's name"),
                        Some(hint),
                    );
                    continue;
                }
                if let Some(server) = self.server(name, value) {
                    config.servers.insert(name.to_owned(), server);
                }
            }
        }
        config.guarding = guard::read(&mut self.file, table, self.profiles);
        config.access = access::read(&mut self.file, table, &config.servers.keys().cloned().collect());
        config.audit = audit::read(&mut self.file, table);
        config.secrets = secrets::read(&mut self.file, table, &config.servers);
        config
    }

    fn lock(&mut self, value: &Value<'_>) -> Lock {
        match self.file.text(value, "`lock`") {
            Some("require") => return Lock::Require,
            Some("if-there") | None => {}
            Some(other) => {
                let message = format!("`{other}` is no value of `lock`");
                self.file.mistake(&value.span(), &message, Some("write \"require\" or \"if-there\""));
            }
        }
        Lock::IfThere
    }

    fn server(&mut self, name: &str, value: &Value<'_>) -> Option<Server> {
        let table = self.file.table(value, &format!("`servers.{name}`"))?;
        let place = format!("`[servers.{name}]`");
        let mut server = Server::default();
        for (key, _, value) in self.file.entries(table, &place, Self::keys("servers.NAME")) {
            match key {
                "command" => server.command = self.command(value),
                "profile" => server.profile = self.file.profile(value, self.profiles),
                "env" => server.env = self.env(value),
                "validate" => server.validate = self.validate(value),
                "validate-output" => server.results = self.results(value),
                "persist" => server.persist = self.size(value),
                "client-roots" => {
                    server.heeded.roots = self.heeds(key, value, &["narrow", "ignore"]) == Some("narrow")
                }
                "client-policy" => {
                    let heeds = self.heeds(key, value, &["narrow", "offer", "ignore"]);
                    server.heeded.policy = heeds != Some("ignore");
                    server.heeded.offer = heeds == Some("offer");
                }
                "state" => server.state = state::read(&mut self.file, value),
                "idle" => server.idle = state::idle(&mut self.file, value),
                _ => server.tools = self.tools(name, value),
            }
        }
        state::check(&mut self.file, name, table, &server);
        if !table.contains_key("command") {
            let hint = "write `command = [\"program\", \"argument\"]`";
            self.file.mistake(&value.span(), &format!("{place} has no `command`"), Some(hint));
        }
        Some(server)
    }

    fn command(&mut self, value: &Value<'_>) -> Vec<String> {
        if let Some(line) = value.get_ref().as_str() {
            let hint = format!("there is no shell: write `[{}]`", words(line));
            self.file.mistake(&value.span(), "`command` must be an array, not a string", Some(&hint));
            return Vec::new();
        }
        let mut command = Vec::new();
        for item in self.file.items(value, "`command`") {
            let Some(word) = self.file.text(item, "an item of `command`") else { continue };
            if word.contains('\0') {
                self.file.mistake(&item.span(), "an item of `command` holds a NUL", None);
            }
            command.push(word.to_owned());
        }
        if value.get_ref().as_array().is_some_and(|items| items.first().is_none_or(is_empty)) {
            self.file.mistake(&value.span(), "`command` names no program", None);
        }
        command
    }

    fn validate(&mut self, value: &Value<'_>) -> Option<Validate> {
        match self.file.text(value, "`validate`")? {
            "on" => Some(Validate::On),
            "off" => Some(Validate::Off),
            other => {
                let message = format!("`{other}` is no value of `validate`");
                self.file.mistake(&value.span(), &message, Some("write \"on\" or \"off\""));
                None
            }
        }
    }

    fn size(&mut self, value: &Value<'_>) -> Option<u64> {
        match parse_size(self.file.text(value, "`persist`")?) {
            Ok(0) => self.file.mistake(&value.span(), "`persist` is 0", Some("leave it out")),
            Ok(size) => return Some(size),
            Err(error) => self.file.mistake(&value.span(), &error.to_string(), error.hint().as_deref()),
        }
        None
    }

    fn heeds(&mut self, key: &str, value: &Value<'_>, words: &[&'static str]) -> Option<&'static str> {
        let text = self.file.text(value, &format!("`{key}`"))?;
        let known = words.iter().find(|word| **word == text).copied();
        if known.is_none() {
            let words: Vec<String> = words.iter().map(|word| print::quote(word)).collect();
            let hint = format!("write {}", words.join(" or "));
            self.file.mistake(&value.span(), &format!("`{text}` is no value of `{key}`"), Some(&hint));
        }
        known
    }

    fn results(&mut self, value: &Value<'_>) -> Option<Results> {
        match self.file.text(value, "`validate-output`")? {
            "off" => Some(Results::Off),
            "warn" => Some(Results::Warn),
            "refuse" => Some(Results::Refuse),
            other => {
                let message = format!("`{other}` is no value of `validate-output`");
                let hint = "write \"off\", \"warn\" or \"refuse\"";
                self.file.mistake(&value.span(), &message, Some(hint));
                None
            }
        }
    }

    fn env(&mut self, value: &Value<'_>) -> Vec<(String, Option<String>)> {
        let mut variables = Vec::new();
        for item in self.file.items(value, "`env`") {
            let Some(text) = self.file.text(item, "an item of `env`") else { continue };
            match parse_env(text) {
                Ok(variable) => variables.push(variable),
                Err(error) => {
                    let hint = "write `NAME` to let a variable through, `NAME=VALUE` to set it";
                    self.file.mistake(&item.span(), &error.to_string(), Some(hint));
                }
            }
        }
        variables
    }

    fn tools(&mut self, server: &str, value: &Value<'_>) -> BTreeMap<String, Tool> {
        let mut tools = BTreeMap::new();
        let Some(table) = self.file.table(value, &format!("`servers.{server}.tools`")) else { return tools };
        for (key, value) in table {
            let name: &str = key.get_ref();
            let place = format!("`[servers.{server}.tools.{name}]`");
            if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
                self.file.mistake(&key.span(), &format!("`{name}` cannot be a tool's name"), None);
                continue;
            }
            let Some(table) = self.file.table(value, &place) else { continue };
            let mut tool = Tool::default();
            for (key, _, value) in self.file.entries(table, &place, Self::keys("servers.NAME.tools.TOOL")) {
                match key {
                    "profile" => tool.profile = self.file.profile(value, self.profiles),
                    "validate" => tool.validate = self.validate(value),
                    "validate-output" => tool.results = self.results(value),
                    "state" => tool.state = state::read(&mut self.file, value),
                    "arguments" => {
                        let table =
                            format!("servers.{}.tools.{}.arguments", print::key(server), print::key(name));
                        tool.arguments = arguments::read(&mut self.file, &table, value);
                    }
                    _ => tool.grants = grants::read(&mut self.file, value),
                }
            }
            let keys = Self::keys("servers.NAME.tools.TOOL");
            if table.is_empty() {
                let hint = format!("known here: {}", list(keys));
                self.file.mistake(&value.span(), &format!("{place} says nothing"), Some(&hint));
            }
            tools.insert(name.to_owned(), tool);
        }
        tools
    }
}

fn is_empty(value: &Value<'_>) -> bool {
    value.get_ref().as_str().is_some_and(str::is_empty)
}

fn words(line: &str) -> String {
    line.split_whitespace().map(print::quote).collect::<Vec<_>>().join(", ")
}
