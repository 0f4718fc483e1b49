//! Signed requests, signed by docs/examples/sign.py, seen from the client. Never: looks inside.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use toolcell::access::signing_key;
use toolcell::policy::tokens::to_hex;

use super::world::{Client, Scratch, Setup, session, session_in, text};

const CONFIG: &str = r#"
env = ["TOOLS=who request read"]
[auth]
mode = "signed"
[identities.alice]
roles = ["all"]
[roles.all]
allow = ["fixture/*"]
"#;

const TOKEN: &str = "toolcell_of_a_test";

fn setup() -> Setup {
    let key = to_hex(&signing_key(TOKEN.as_bytes()).unwrap().0);
    let tokens = format!(
        "[[tokens]]\nid = \"k\"\nidentity = \"alice\"\nsigning = \"{key}\"\nexpires = 2100-01-01T00:00:00Z\n"
    );
    Setup { config: CONFIG.to_owned(), tokens, ..Setup::default() }
}

/// The requests as the example signs them.
fn signed<const N: usize>(requests: [Value; N]) -> [String; N] {
    let mut signer = Command::new("python3")
        .arg("-B")
        .arg(crate::project().join("docs/examples/sign.py"))
        .args(["k", "fixture"])
        .env("TOOLCELL_TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    signer.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = signer.wait_with_output().unwrap();
    let lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.try_into().unwrap()
}

fn call(id: u64, tool: &str, arguments: Value) -> Value {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "own": 1});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta}})
}

async fn say(client: &mut Client, line: &str) -> Value {
    client.send(line).await;
    client.read().await
}

const REPLAYED: &str = "its nonce was here before";

#[test]
fn what_the_example_signs_is_let_in_and_its_proof_goes_nowhere() {
    let arguments = json!({
        "floats": [0.1, 1e-7, 5e-324, -0.0, 123_456_789.125, 0.000_001_234, 1e15, 1e-6, 1_424_953_923_781_206.2, 333_333_333.333_333_3],
        "whole": [0, -7, 9_007_199_254_740_991_u64, -9_007_199_254_740_991_i64],
        "\u{fb33}": "after the emoji", "\u{1f600}": "\u{1}\u{7f}\u{2028}\"\\/\r\n\t\u{8}\u{c}é", "€": {"b": [], "a": {}},
        "": [null, true, false, "\u{10ffff}"],
    });
    let lines = signed([
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-06-18",
            "capabilities": {}, "clientInfo": {"name": "tester", "version": "9"}}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
        call(2, "request", arguments.clone()),
    ]);
    let book = session(&setup(), |mut client| async move {
        assert_eq!(say(&mut client, &lines[0]).await["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(say(&mut client, &lines[1]).await["result"], json!({}));
        let answer = say(&mut client, &lines[2]).await;
        let seen: Value = serde_json::from_str(text(&answer)).unwrap();
        assert_eq!(seen["arguments"], arguments);
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28", "own": 1});
        assert_eq!(seen["_meta"], meta, "the server sees no proof");
        client
    });
    assert_eq!(book.end_of("request")["call"]["identity"], "alice");
    let all = format!("{:?}{:?}", book.started, book.finished);
    assert!(!all.contains("signature") && !all.contains("nonce"), "{all}");
}

#[test]
fn a_notification_goes_on_without_the_signature() {
    let setup = Setup { config: CONFIG.replace("TOOLS=", "TOOLS=talk-after-cancel "), ..setup() };
    let [first, second] = signed([call(1, "talk-after-cancel", json!({})), call(2, "who", json!({}))]);
    let proof = json!({"dev.toolcell/signature": {"key": "k", "nonce": "0123456789abcdef"}, "own": 1});
    let params = json!({"requestId": 1, "reason": "enough", "_meta": proof});
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).to_string();
    let book = session(&setup, |mut client| async move {
        client.send(&first).await;
        // The answer of another shows that the first has had time to be sent.
        assert_ne!(text(&say(&mut client, &second).await), "");
        client.send(&cancel).await;
        client
    });
    let told = book.end_of("talk-after-cancel")["stderr"].to_string();
    assert!(told.contains("enough") && told.contains("own") && !told.contains("signature"), "{told}");
}

#[test]
fn a_replay_is_refused_here_in_another_process_and_after_a_restart() {
    let scratch = Scratch::new();
    let [first, second, third] = signed([1, 2, 3].map(|id| call(id, "who", json!({}))));
    let refused = |answer: &Value| {
        assert_eq!(answer["error"]["code"], 401, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(REPLAYED), "{answer}");
    };
    let lines = [first.clone(), second.clone(), third.clone()];
    let place = &scratch;
    let book = session_in(place, &setup(), |mut client| async move {
        let mut other = Client::start(&setup(), place);
        assert_ne!(text(&say(&mut client, &lines[0]).await), "");
        refused(&say(&mut client, &lines[0]).await);
        refused(&say(&mut other, &lines[0]).await);
        assert_ne!(text(&say(&mut other, &lines[1]).await), "");
        refused(&say(&mut client, &lines[1]).await);
        other.hang_up();
        other.exit().await;
        client
    });
    assert_eq!(book.finished.iter().filter(|record| record.to_string().contains(REPLAYED)).count(), 3);
    session_in(&scratch, &setup(), |mut client| async move {
        for line in [first, second] {
            refused(&say(&mut client, &line).await);
        }
        assert_ne!(text(&say(&mut client, &third).await), "");
        client
    });
    let nonces = fs::read_to_string(scratch.0.join("nonces")).unwrap();
    assert_eq!(nonces.lines().count(), 3, "{nonces}");
}

#[test]
fn what_was_changed_on_its_way_has_no_cell() {
    let [line] = signed([call(1, "read", json!({"path": "/etc/hostname"}))]);
    let book = session(&setup(), |mut client| async move {
        for (part, other) in [
            ("/etc/hostname", "/etc/passwd"),
            ("\"read\"", "\"who\""),
            ("tools/call", "tools/list"),
            ("\"key\": \"k\"", "\"key\": \"l\""),
            ("\"timestamp\": 1", "\"timestamp\": 2"),
            ("\"nonce\": \"", "\"nonce\": \"A"),
            ("toolcell/signature\"", "toolcell/other\""),
        ] {
            assert!(line.contains(part), "{part} {line}");
            let answer = say(&mut client, &line.replacen(part, other, 1)).await;
            assert_eq!(answer["error"]["code"], 401, "{other}: {answer}");
        }
        let token = json!({"name": "who", "_meta": {"dev.toolcell/token": TOKEN}});
        let answer = client.request(9, "tools/call", token).await;
        assert_eq!(answer["error"]["code"], 401, "{answer}");
        client
    });
    assert_eq!(book.finished.len(), 8);
    assert!(book.finished.iter().all(|record| record["receipt"].is_null()));
    assert!(!format!("{:?}", book.finished).contains(TOKEN));
}

/// Starts where it must not, and gives what it says.
fn refused_start(setup: &Setup, prepare: impl FnOnce(&Scratch)) -> String {
    let scratch = Scratch::new();
    let config = format!("[servers.fixture]\ncommand = [\"/bin/true\"]\n{}", setup.config);
    fs::write(scratch.0.join("servers.toml"), config).unwrap();
    fs::write(scratch.0.join("tokens.toml"), &setup.tokens).unwrap();
    fs::set_permissions(scratch.0.join("tokens.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    prepare(&scratch);
    let output = Command::new(crate::binary())
        .args(["run", "--no-validate", "--floor", crate::cell::floor()])
        .args(setup.options.iter().map(|option| option.replace("SCRATCH", scratch.0.to_str().unwrap())))
        .arg("--config")
        .arg(scratch.0.join("servers.toml"))
        .env("XDG_STATE_HOME", scratch.0.join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap().replace(scratch.0.to_str().unwrap(), "SCRATCH")
}

#[test]
fn no_session_starts_whose_keys_or_nonces_others_could_reach() {
    let grants = Setup { options: vec!["--read=SCRATCH".to_owned()], ..setup() };
    let told = refused_start(&grants, |_| ());
    assert!(told.contains("a tool sees `SCRATCH` and in it `SCRATCH/tokens.toml`"), "{told}");
    // What a server is started from is shown to it without a grant.
    let told = refused_start(&setup(), |scratch| {
        fs::write(scratch.0.join("server.py"), "").unwrap();
        let config = fs::read_to_string(scratch.0.join("servers.toml")).unwrap();
        let command = format!("[\"/usr/bin/python3\", {:?}]", scratch.0.join("server.py"));
        fs::write(scratch.0.join("servers.toml"), config.replace("[\"/bin/true\"]", &command)).unwrap();
    });
    assert!(told.contains("a tool sees `SCRATCH` and in it `SCRATCH/tokens.toml`"), "{told}");
    let told = refused_start(&setup(), |scratch| {
        fs::set_permissions(scratch.0.join("tokens.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    });
    assert!(told.contains("has mode 0640: others can read its signing keys\nhint: chmod 600"), "{told}");
    let told = refused_start(&setup(), |scratch| {
        std::os::unix::fs::symlink("/dev/null", scratch.0.join("nonces")).unwrap();
    });
    assert!(told.contains("cannot use `SCRATCH/nonces`"), "{told}");
}
