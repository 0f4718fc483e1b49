//! The sections `auth`, `identities` and `roles`: any text is who may call what, or a list of mistakes that a terminal can
//! show; and whatever the roles are, what is let through is allowed by one of them and denied by none.
//!
//! Never: knows how the gate decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use toolcell::access::{Gate, Now, fingerprint, merged};
use toolcell::mcp::envelope;
use toolcell::policy::config::access::{Access, Mode, Role};
use toolcell::policy::pattern::{Item, Kind, Pattern};
use toolcell::policy::tokens::{Secret, Token};
use toolcell::policy::{Source, config};

/// The servers that the sections may speak of.
const SERVERS: &str = "[servers.git]\ncommand = [\"git\"]\n[servers.db]\ncommand = [\"db\"]\n";

/// Reads a text behind two servers.
pub fn check(data: &[u8]) {
    let text = format!("{SERVERS}{}", String::from_utf8_lossy(data));
    let source = Source { name: String::new(), path: Some("/etc/cells/servers.toml".into()), text };
    let profiles = BTreeSet::from(["default".to_owned()]);
    match config::parse(&source, &profiles) {
        Ok(config) => holds(&config.access),
        Err(mistakes) => {
            let text = mistakes.to_string();
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        }
    }
}

fn items() -> Vec<Item> {
    let names = [
        (Kind::Tool, "git_log"),
        (Kind::Tool, "git_push"),
        (Kind::Tool, ""),
        (Kind::Prompt, "git_log"),
        (Kind::Resource, "file:///srv/p/notes"),
        (Kind::Resource, "file:///srv/p/../q"),
    ];
    names.into_iter().map(|(kind, name)| Item { kind, name: name.to_owned() }).collect()
}

fn request(item: &Item) -> (&'static str, Vec<u8>) {
    let (method, params) = match item.kind {
        Kind::Tool => ("tools/call", json!({"name": item.name})),
        Kind::Prompt => ("prompts/get", json!({"name": item.name})),
        Kind::Resource => ("resources/read", json!({"uri": item.name})),
    };
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    (method, line.to_string().into_bytes())
}

fn holds(access: &Access) {
    let now = Now { date: Duration::ZERO, steady: Duration::ZERO };
    for (name, identity) in &access.identities {
        let roles: Vec<_> = identity.roles.iter().map(|role| &access.roles[role]).collect();
        let together = roles.iter().fold(Default::default(), |all, role| merged(all, role));
        let backwards = roles.iter().rev().fold(Default::default(), |all, role| merged(all, role));
        assert_eq!(together, backwards);
        let hash = Secret::Hash { salt: [0; 16], hash: fingerprint(&[0; 16], b"token").unwrap() };
        let token = Token { id: "t".to_owned(), identity: name.clone(), secret: hash, expires: u64::MAX };
        let access = Access { mode: Mode::Token, ..access.clone() };
        for server in ["git", "db"] {
            for item in items() {
                let gate = Gate::new(server, &access, vec![token.clone()], Some(b"token")).unwrap();
                let (method, line) = request(&item);
                let message = envelope::parse(&line).unwrap();
                let admitted = gate.admit(&line, &message, method, now);
                let any = |list: fn(&Role) -> &BTreeSet<_>| {
                    roles
                        .iter()
                        .any(|role| list(role).iter().any(|pattern: &Pattern| pattern.covers(server, &item)))
                };
                let (allowed, denied) = (any(|role| &role.allow), any(|role| &role.deny));
                match admitted {
                    Ok(_) => assert!(allowed && !denied, "{name} {server} {item:?}"),
                    Err(refused) => {
                        let open = identity.rates.is_empty()
                            && identity.concurrent.is_none()
                            && identity.quota.is_none()
                            && item.kind != Kind::Resource
                            && !item.name.is_empty();
                        assert!(!(open && allowed && !denied), "{name} {server} {item:?}: {refused}");
                    }
                }
            }
        }
        // A list holds what may be called, and nothing else.
        let gate = Gate::new("git", &access, Vec::new(), None).unwrap();
        let list = json!({"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "git_log"}, {"name": "git_push"}]}});
        let shown = gate.listed(name, "tools/list", list.to_string().into_bytes());
        let shown: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&shown).unwrap();
        for tool in ["git_log", "git_push"] {
            let item = Item { kind: Kind::Tool, name: tool.to_owned() };
            let allowed = together.allow.iter().any(|pattern| pattern.covers("git", &item))
                && !together.deny.iter().any(|pattern| pattern.covers("git", &item));
            assert_eq!(shown["result"].to_string().contains(tool), allowed, "{name} {tool}");
        }
    }
}
