//! Prints a policy as a profile that resolves to it again: what `profile show` prints.
//!
//! Neighbours: `commands`. Never: drops a value; only where a rule comes from is told in a comment.

use std::path::Path;

use super::door::DoorLimits;
use super::http::{Credential, Http};
use super::mode::HOST;
use super::network::{DEFAULT_CONNECTIONS, Network, Sni};
use super::path::{SCRATCH, escape};
use super::source::From;
use super::units::{print_duration, print_size};
use super::{PathRule, Policy, limits};
use crate::outcome::Limit;

/// The policy as TOML, each rule with its `why` and, as a comment, its origin.
#[must_use]
pub fn to_toml(policy: &Policy) -> String {
    let Policy {
        name, description, filesystem, syscalls, environment, audit, floor, observe, network, ..
    } = policy;
    let mut out = Printer(String::new());
    out.line(&format!("# profile `{name}`, with everything that it extends"));
    if !description.is_empty() {
        out.line(&format!("description = {}", quote(description)));
    }
    out.line(&format!("floor = {}", quote(floor.name())));
    out.line(&format!("observe = {}", quote(observe.name())));
    out.line("\n[filesystem]");
    out.rules("read", &filesystem.read);
    out.rules("write", &filesystem.write);
    let scratch = PathRule {
        path: SCRATCH.into(),
        why: "files in the scratch directory can be executed".to_owned(),
        origin: String::new(),
        optional: false,
    };
    let execute: Vec<PathRule> =
        filesystem.execute.iter().cloned().chain(filesystem.scratch_execute.then_some(scratch)).collect();
    out.rules("execute", &execute);
    out.rules("deny", &filesystem.deny);
    out.line(&limits::to_toml(Limit::Scratch, filesystem.scratch));
    out.line(&format!("writes = {}", quote(filesystem.writes.name())));
    out.line("\n[limits]");
    for limit in limits::ALL.into_iter().filter(|limit| *limit != Limit::Scratch) {
        out.line(&limits::to_toml(limit, policy.limit(limit)));
    }
    out.line("\n[syscalls]");
    out.words("allow", &syscalls.allow);
    out.words("deny", &syscalls.deny);
    out.line("\n[environment]");
    out.words("pass", &environment.pass);
    for (name, value) in &environment.set {
        out.line(&format!("set.{name} = {}", quote(&escape(value))));
    }
    out.line("\n[audit]");
    out.words("redact", &audit.redact);
    out.network(network);
    out.0
}

/// A key as it stands in a table or a header: bare, where TOML lets it be.
#[must_use]
pub fn key(name: &str) -> String {
    key_or(name, quote)
}

/// The same for who quotes in another way.
#[must_use]
pub fn key_or(name: &str, quote: impl FnOnce(&str) -> String) -> String {
    let bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if bare && !name.is_empty() { name.to_owned() } else { quote(name) }
}

struct Printer(String);

impl Printer {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn words(&mut self, key: &str, words: &[String]) {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        self.line(&format!("{key} = [{}]", words.join(", ")));
    }

    /// Nothing, where a cell has no way out.
    fn network(&mut self, network: &Network) {
        if *network == Network::default() {
            return;
        }
        if network.mode.is_host() {
            // Nothing else holds there.
            self.line("\n[network]");
            self.line(HOST);
            return;
        }
        let Network {
            mode: _,
            allow,
            deny,
            unix,
            listen,
            hosts,
            private,
            sni,
            connections,
            up,
            down,
            time,
            rate,
            bounded,
            http,
            named: _,
        } = network;
        self.line("\n[network]");
        self.line("allow = [");
        let mut origin = "";
        for allowed in allow {
            if allowed.origin != origin && !allowed.origin.is_empty() {
                self.line(&format!("  # {}", allowed.origin));
            }
            origin = &allowed.origin;
            match bounded.iter().find(|bounded| bounded.to == allowed.destination) {
                Some(bounded) => self.line(&format!("  {},", bounded.toml())),
                None => self.line(&format!("  {},", quote(&allowed.destination.to_string()))),
            }
        }
        self.line("]");
        self.words("deny", &deny.iter().map(ToString::to_string).collect::<Vec<_>>());
        if !unix.is_empty() {
            self.line("allow-unix = [");
            for socket in unix {
                self.line(&format!("  {},", socket.toml()));
            }
            self.line("]");
        }
        if !listen.is_empty() {
            self.line("listen = [");
            listen.iter().for_each(|one| self.line(&format!("  {},", one.toml())));
            self.line("]");
        }
        self.words("private", &private.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (name, addresses) in hosts {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            self.words(&format!("hosts.{}", quote(name)), &addresses);
        }
        if *sni != Sni::Door {
            self.line(&format!("sni = {}", quote(sni.name())));
        }
        if *connections != DEFAULT_CONNECTIONS {
            self.line(&format!("connections = {connections}"));
        }
        for (key, bytes) in [("up", up), ("down", down)] {
            if let Some(bytes) = bytes {
                self.line(&format!("{key} = {}", quote(&print_size(*bytes))));
            }
        }
        let each = DoorLimits { time: *time, rate: *rate, ..DoorLimits::default() };
        if each != DoorLimits::default() {
            self.line(&each.lines());
        }
        http.iter().for_each(|http| self.http(http));
    }

    fn http(&mut self, http: &Http) {
        self.line(&format!("\n{}", http.section()));
        if !http.origin.is_empty() {
            self.line(&format!("# {}", http.origin));
        }
        self.line("tls = \"end\"");
        self.line(&format!("listen = {}", http.listen));
        self.words("methods", &http.methods);
        self.words("paths", &http.paths.iter().map(|path| path.text().to_owned()).collect::<Vec<_>>());
        if let Some(roots) = &http.roots {
            self.line(&format!("roots = {}", quote(&escape(&roots.to_string_lossy()))));
        }
        let Some(Credential { header, around: (before, behind), secret }) = &http.credential else { return };
        self.line(&format!("credential.header = {}", quote(header)));
        self.line(&format!("credential.value = {}", quote(&format!("{before}{{}}{behind}"))));
        let Some(secret) = secret else { return };
        let text = |path: &Path| quote(&path.to_string_lossy());
        let from = match &secret.from {
            From::Env(name) => format!("env = {}", quote(name)),
            From::File { path, shared } => format!("file = {}, shared = {shared}", text(path)),
            From::Command { argv, timeout } => {
                let words: Vec<String> = argv.iter().map(|word| quote(word)).collect();
                format!("command = [{}], timeout = {}", words.join(", "), quote(&print_duration(*timeout)))
            }
            From::Credential(name) => format!("credential = {}", quote(name)),
            From::Age { path, identity, timeout } => {
                let timeout = quote(&print_duration(*timeout));
                format!("age = {}, identity = {}, timeout = {timeout}", text(path), text(identity))
            }
        };
        self.line(&format!("credential.from = {{ {from} }}"));
        if let Some(format) = &secret.format {
            self.line(&format!("credential.format = {}", quote(format)));
        }
        if let Some(age) = secret.max_age {
            self.line(&format!("credential.max-age = {}", quote(&print_duration(age))));
        }
    }

    fn rules(&mut self, key: &str, rules: &[PathRule]) {
        if rules.is_empty() {
            self.line(&format!("{key} = []"));
            return;
        }
        self.line(&format!("{key} = ["));
        let mut origin = "";
        for rule in rules {
            if rule.origin != origin && !rule.origin.is_empty() {
                self.line(&format!("  # {}", rule.origin));
            }
            origin = &rule.origin;
            let mut table = format!("path = {}", quote(&escape(&rule.path.to_string_lossy())));
            if !rule.why.is_empty() {
                table = format!("{table}, why = {}", quote(&rule.why));
            }
            let optional = if rule.optional { ", optional = true" } else { "" };
            self.line(&format!("  {{ {table}{optional} }},"));
        }
        self.line("]");
    }
}

/// A basic string of TOML.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
