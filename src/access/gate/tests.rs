//! The gate as an attacker and as a client meet it; time and tokens are values.

use super::*;
use crate::access::secret::fingerprint;
use crate::mcp::envelope::parse;
use crate::policy::Source;
use crate::policy::config::{self, Config};
use crate::policy::tokens::to_hex;

const CONFIG: &str = r#"
[servers.git]
command = ["git-server"]
[servers.files]
command = ["files-server"]
[auth]
mode = "token"
[identities.alice]
roles = ["reader", "writer"]
[identities.bob]
roles = ["reader"]
quota = 3
[identities.carol]
roles = []
[roles.reader]
allow = ["git/git_log", "git/prompt:sum", "git/resource:file:///srv/*"]
deny = ["*/git_reset"]
[roles.writer]
allow = ["git/git_*", "files/*"]
"#;

const NOON: u64 = 1_800_000_000;

fn config_of(text: &str) -> Config {
    let source = Source { name: "c".to_owned(), path: Some("/c.toml".into()), text: text.to_owned() };
    config::parse(&source, &[].into()).unwrap_or_else(|error| panic!("{error}"))
}

fn token(identity: &str, secret: &str) -> Token {
    let salt = [7; 16];
    let hash = fingerprint(&salt, secret.as_bytes()).unwrap();
    let secret = Secret::Hash { salt, hash };
    Token { id: format!("{identity}-1"), identity: identity.to_owned(), secret, expires: NOON }
}

fn new_gate(server: &str, environment: Option<&str>) -> Gate {
    let tokens = [("alice", "secret-a"), ("bob", "secret-b"), ("carol", "secret-c"), ("gone", "secret-g")];
    let tokens = tokens.map(|(name, secret)| token(name, secret)).to_vec();
    Gate::new(server, &config_of(CONFIG).access, tokens, environment.map(str::as_bytes)).unwrap()
}

fn at(seconds: u64) -> Now {
    Now { date: Duration::from_secs(seconds), steady: Duration::ZERO }
}

fn ask_at(gate: &Gate, method: &str, params: &str, now: Now) -> Result<Admitted, Denied> {
    let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#);
    gate.admit(line.as_bytes(), &parse(line.as_bytes()).unwrap(), method, now)
}

fn ask(gate: &Gate, method: &str, params: &str) -> Result<Admitted, Denied> {
    ask_at(gate, method, params, at(NOON - 1))
}

fn with(token: &str, params: &str) -> String {
    format!(r#""_meta":{{"dev.toolcell/token":{token}}}{params}"#)
}

fn reason(result: Result<Admitted, Denied>) -> Option<Reason> {
    result.err().map(|denied| denied.reason)
}

#[test]
fn without_a_mode_there_is_no_gate() {
    assert!(Gate::new("git", &Access::default(), vec![token("alice", "x")], Some(b"x")).is_none());
}

#[test]
fn only_a_token_that_is_known_whole_opens() {
    let gate = new_gate("git", None);
    let admitted = ask(&gate, "tools/list", &with("\"secret-a\"", "")).unwrap();
    assert_eq!((&*admitted.identity, admitted.pass.is_none()), ("alice", true));
    let line = String::from_utf8(admitted.line.unwrap()).unwrap();
    assert!(!line.contains("secret") && !line.contains("dev.toolcell"), "{line}");
    for token in [
        "\"\"",
        "\"secret-\"",
        "\"secret-a \"",
        "\" secret-a\"",
        "\"Secret-a\"",
        "\"SECRET-A\"",
        "\"secret-ab\"",
        "\"secret-a\\u0000\"",
        "\"secret-x\"",
        "\"secret-g\"",
        "\"0707070707070707\"",
    ] {
        let denied = ask(&gate, "tools/list", &with(token, "")).unwrap_err();
        assert_eq!((denied.reason, &denied.identity), (Reason::Unauthenticated, &None), "{token}");
        assert_eq!(denied.why, "its token is not known");
    }
    for token in ["7", "null", "true", "[\"secret-a\"]", "{\"secret-a\":1}"] {
        assert_eq!(reason(ask(&gate, "tools/list", &with(token, ""))), Some(Reason::Malformed), "{token}");
    }
    // What is stored is not what opens.
    let hash = to_hex(&fingerprint(&[7; 16], b"secret-a").unwrap());
    assert_eq!(
        reason(ask(&gate, "tools/list", &with(&format!("\"{hash}\""), ""))),
        Some(Reason::Unauthenticated)
    );
    assert_eq!(reason(ask(&gate, "tools/list", "")), Some(Reason::Unauthenticated));
}

#[test]
fn every_method_is_asked_for_its_token() {
    let gate = new_gate("git", None);
    for method in
        ["initialize", "ping", "server/discover", "tools/list", "tools/call", "logging/setLevel", "x"]
    {
        assert_eq!(
            reason(ask(&gate, method, r#""name":"git_log""#)),
            Some(Reason::Unauthenticated),
            "{method}"
        );
    }
    assert_eq!(reason(ask(&gate, "x", &with("\"secret-a\"", ""))), Some(Reason::NotOffered));
}

#[test]
fn a_token_is_good_until_the_second_of_its_end() {
    let gate = new_gate("git", Some("secret-b"));
    for params in [String::new(), with("\"secret-b\"", "")] {
        let last = Now { date: Duration::from_secs(NOON) - Duration::from_nanos(1), steady: Duration::ZERO };
        assert!(ask_at(&gate, "tools/list", &params, last).is_ok());
        let denied = ask_at(&gate, "tools/list", &params, at(NOON)).unwrap_err();
        assert_eq!(
            (denied.reason, denied.why.as_str()),
            (Reason::Unauthenticated, "its token `bob-1` has expired")
        );
    }
}

#[test]
fn the_token_of_a_request_decides_before_the_environments() {
    let gate = new_gate("git", Some("secret-a"));
    let who = |params: &str| ask(&gate, "tools/list", params).map(|admitted| admitted.identity.to_string());
    assert_eq!(who("").unwrap(), "alice");
    assert_eq!(who(&with("\"secret-b\"", "")).unwrap(), "bob");
    assert_eq!(who(&with("\"wrong\"", "")).unwrap_err().reason, Reason::Unauthenticated);
    assert_eq!(who(&with("\"\"", "")).unwrap_err().reason, Reason::Unauthenticated);
    let wrong = new_gate("git", Some(""));
    assert_eq!(reason(ask(&wrong, "tools/list", "")), Some(Reason::Unauthenticated));
    assert!(ask(&wrong, "tools/list", &with("\"secret-b\"", "")).is_ok());
}

#[test]
fn each_may_what_its_roles_say_of_this_server() {
    let (git, files) = (new_gate("git", None), new_gate("files", None));
    let call = |gate: &Gate, who: &str, tool: &str| {
        let params = with(&format!("\"secret-{who}\""), &format!(r#","name":"{tool}""#));
        reason(ask(gate, "tools/call", &params))
    };
    assert_eq!(call(&git, "a", "git_commit"), None);
    assert_eq!(call(&git, "b", "git_log"), None);
    assert_eq!(call(&files, "a", "anything"), None);
    for (gate, who, tool) in [
        (&git, "b", "git_commit"),
        (&git, "a", "git_reset"),
        (&files, "a", "git_reset"),
        (&files, "b", "git_log"),
        (&git, "c", "git_log"),
        (&git, "a", "other"),
        (&git, "b", ""),
        (&git, "b", "git_log "),
    ] {
        assert_eq!(call(gate, who, tool), Some(Reason::Forbidden), "{who} {tool}");
    }
}

#[test]
fn prompts_and_resources_are_asked_for_as_tools_are() {
    let gate = new_gate("git", Some("secret-b"));
    for (method, params, expected) in [
        ("prompts/get", r#""name":"sum""#, None),
        ("prompts/get", r#""name":"git_log""#, Some(Reason::Forbidden)),
        ("resources/read", r#""uri":"file:///srv/a""#, None),
        ("resources/read", r#""uri":"file:///etc/passwd""#, Some(Reason::Forbidden)),
        ("resources/read", r#""uri":"file:///srv/../etc/passwd""#, Some(Reason::Forbidden)),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"sum"}"#, None),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":"other"}"#, Some(Reason::Forbidden)),
        // The server may look at the other one.
        ("completion/complete", r#""ref":{"name":"sum","uri":"file:///etc/{x}"}"#, Some(Reason::Forbidden)),
    ] {
        assert_eq!(reason(ask(&gate, method, params)), expected, "{method} {params}");
    }
}

#[test]
fn a_refusal_names_who_what_and_the_line_that_would_allow_it() {
    let gate = new_gate("git", Some("secret-b"));
    let told = |gate: &Gate, method: &str, params: &str| ask(gate, method, params).unwrap_err().to_string();
    let mut all = vec![
        told(&gate, "tools/call", r#""name":"git_push""#),
        told(&gate, "tools/call", r#""name":"git_reset""#),
        told(&gate, "resources/read", r#""uri":"file:///etc/a\"b""#),
        told(&gate, "resources/read", r#""uri":"file:///srv/../etc""#),
        told(&gate, "prompts/get", r#""name":"a*""#),
        told(&new_gate("git", Some("secret-c")), "tools/call", r#""name":"git_log""#),
        told(&new_gate("git", None), "ping", ""),
        told(&gate, "x/y", ""),
    ];
    for _ in 0..3 {
        assert!(ask(&gate, "tools/call", r#""name":"git_log""#).is_ok());
    }
    all.push(told(&gate, "tools/call", r#""name":"git_log""#));
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn a_line_that_is_told_allows_it() {
    for (method, params) in [
        ("tools/call", r#""name":"git_push""#),
        ("prompts/get", r#""name":"x \"y""#),
        ("resources/read", r#""uri":"file:///a\"b""#),
    ] {
        let denied = ask(&new_gate("git", Some("secret-b")), method, params).unwrap_err();
        let allow = denied.allow.unwrap();
        let line = allow.strip_prefix("[roles.reader]\n").unwrap();
        let text = CONFIG.replace(
            "[roles.reader]\nallow = [\"git/git_log\",",
            &format!("[roles.reader]\n{},", line.strip_suffix(']').unwrap()),
        );
        assert_ne!(text, CONFIG);
        let gate = Gate::new("git", &config_of(&text).access, vec![token("bob", "b")], Some(b"b")).unwrap();
        assert!(ask(&gate, method, params).is_ok(), "{allow}");
    }
}

#[test]
fn a_list_has_what_its_reader_may_call() {
    let gate = new_gate("git", None);
    let line = br#"{"id":1,"jsonrpc":"2.0","result":{"tools":[{"name":"git_log"},{"name":"git_push"},{"name":"git_reset"}]}}"#;
    let names = |who: &str| {
        let line = gate.listed(who, "tools/list", line.to_vec());
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let tools = value["result"]["tools"].as_array().unwrap().clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("alice"), ["git_log", "git_push"]);
    assert_eq!(names("bob"), ["git_log"]);
    assert!(names("carol").is_empty() && names("").is_empty());
}

/// Its cells, a row a line.
fn rows(document: &str) -> Vec<Vec<&str>> {
    let table = document.split("## A worked configuration").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_worked_configuration_does_what_its_table_says() {
    let document = include_str!("../../../docs/policy.md");
    let text = document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let source = Source { name: "c".to_owned(), path: Some("/c.toml".into()), text: text.to_owned() };
    let profiles = ["offline", "git-write"].map(str::to_owned).into();
    let access = config::parse(&source, &profiles).unwrap_or_else(|error| panic!("{error}")).access;
    let rows = rows(document);
    let (head, rows) = rows.split_first().unwrap();
    let mut asked = 0;
    for row in rows {
        let (kind, name) = row[0].split_once(' ').unwrap();
        let name = name.trim_matches('`');
        let (method, member, list, listed) = match kind {
            "tool" => ("tools/call", "name", "tools/list", "tools"),
            "prompt" => ("prompts/get", "name", "prompts/list", "prompts"),
            "resource" => ("resources/read", "uri", "resources/list", "resources"),
            other => panic!("{other}"),
        };
        for (identity, expected) in head.iter().zip(row).skip(1) {
            let gate = Gate::new("git", &access, vec![token(identity, "secret")], Some(b"secret")).unwrap();
            let reason = reason(ask(&gate, method, &format!(r#""{member}":"{name}""#)));
            let expected = match *expected {
                "yes" => None,
                "no" => Some(Reason::Forbidden),
                other => panic!("{other}"),
            };
            assert_eq!(reason, expected, "{identity} {kind} {name}");
            let line =
                format!(r#"{{"id":1,"jsonrpc":"2.0","result":{{"{listed}":[{{"{member}":"{name}"}}]}}}}"#);
            let shown = gate.listed(identity, list, line.clone().into_bytes()) == line.as_bytes();
            assert_eq!(shown, expected.is_none(), "{identity} sees {kind} {name}");
            asked += 1;
        }
    }
    assert_eq!(asked, 36, "a row or an identity is not asked for");
    // Three branches at once, then one in six minutes.
    let gate = Gate::new("git", &access, vec![token("ci", "secret")], Some(b"secret")).unwrap();
    let branch = |seconds: u64| {
        let now = Now { date: Duration::ZERO, steady: Duration::from_secs(seconds) };
        reason(ask_at(&gate, "tools/call", r#""name":"git_create_branch""#, now))
    };
    assert_eq!([branch(0), branch(0), branch(0)], [None; 3]);
    assert_eq!(
        [branch(0), branch(359), branch(360), branch(360)],
        [Some(Reason::Limited), Some(Reason::Limited), None, Some(Reason::Limited)]
    );
}
