//! What the client says that its calls may see at most: its roots, and the policy that it sends along. Never: looks inside.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::world::{Book, Client, Scratch, Setup, session, text};

/// `data` and `other` with a file each, for everybody to read and change.
fn tree(scratch: &Scratch) -> [String; 2] {
    ["data", "other"].map(|name| {
        let directory = scratch.0.join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(directory.join("a"), "one").unwrap();
        fs::set_permissions(directory.join("a"), fs::Permissions::from_mode(0o666)).unwrap();
        directory.to_str().unwrap().to_owned()
    })
}

fn setup(trees: &[String; 2], config: &str) -> Setup {
    Setup { config: config.to_owned(), filesystem: format!("write = {trees:?}"), ..Setup::default() }
}

async fn call(client: &mut Client, tool: &str, arguments: Value, state: Option<Value>) -> Value {
    let mut meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    if let Some(state) = state {
        meta["codex/sandbox-state-meta"] = state;
    }
    client.request(1, "tools/call", json!({"name": tool, "arguments": arguments, "_meta": meta})).await
}

fn granted(book: &Book, nth: usize) -> Vec<String> {
    let calls: Vec<_> =
        book.started.iter().filter(|record| record["call"]["method"] == "tools/call").collect();
    let granted = calls[nth]["granted"].as_array().unwrap().iter();
    let named = granted.filter(|granted| {
        !["/usr", "/etc"].iter().any(|system| granted["path"].as_str().unwrap().starts_with(system))
    });
    named
        .map(|granted| {
            format!(
                "{} {} {}",
                granted["access"].as_str().unwrap(),
                granted["path"].as_str().unwrap(),
                granted["by"]
            )
        })
        .collect()
}

const REFUSALS: [&str; 2] = ["EACCES", "EROFS"];

#[test]
fn the_policy_that_a_client_sends_along_narrows_its_call() {
    let scratch = Scratch::new();
    let trees = tree(&scratch);
    let [data, other] = trees.clone();
    let book = session(&setup(&trees, ""), |mut client| async move {
        let codex = |policy: Value| {
            Some(json!({"sandboxPolicy": policy, "sandboxCwd": data, "codexLinuxSandboxExe": null}))
        };
        let at = |tree: &str| json!({"path": format!("{tree}/a")});
        let read_only = codex(json!({"type": "read-only", "network_access": true}));
        assert_eq!(text(&call(&mut client, "read", at(&data), read_only.clone()).await), "one");
        let changed = call(&mut client, "change", at(&data), read_only).await;
        assert!(REFUSALS.contains(&text(&changed)), "{changed}");
        let workspace =
            codex(json!({"type": "workspace-write", "network_access": false, "exclude_slash_tmp": true}));
        assert_eq!(text(&call(&mut client, "change", at(&data), workspace.clone()).await), "ok");
        let changed = call(&mut client, "change", at(&other), workspace).await;
        assert!(REFUSALS.contains(&text(&changed)), "{changed}");
        let hidden = json!([
            {"path": {"type": "special", "value": {"kind": "root"}}, "access": "read"},
            {"path": {"type": "path", "path": other}, "access": "none"},
        ]);
        let file_system = json!({"type": "restricted", "entries": hidden});
        let hidden = json!({"permissionProfile": {"type": "managed", "file_system": file_system, "network": "restricted"}, "sandboxCwd": data});
        // Without the directory a cell's own `/tmp` may have the name, and nothing in it.
        assert_eq!(text(&call(&mut client, "read", at(&other), Some(hidden)).await), "ENOENT");
        // The rest is as without: a profile is never made wider.
        let open = codex(json!({"type": "danger-full-access"}));
        assert_eq!(text(&call(&mut client, "change", at(&other), open.clone()).await), "ok");
        let own = call(&mut client, "read", json!({"path": "/etc/shadow"}), open).await;
        assert_eq!(text(&own), "ENOENT");
        for state in [json!({"sandboxPolicy": {"type": "new"}}), json!(7), json!({"sandboxCwd": "/"})] {
            let answer = call(&mut client, "read", at(&data), Some(state)).await;
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
            assert!(
                answer["error"]["message"].as_str().unwrap().contains("the client's policy in `_meta`"),
                "{answer}"
            );
        }
        assert_eq!(fs::read_to_string(format!("{other}/a")).unwrap(), "more");
        client
    });
    let [data, other] = &trees;
    assert_eq!(granted(&book, 0), [format!("read {data} null"), format!("read {other} null")]);
    assert_eq!(granted(&book, 2), [format!("read {other} null"), format!("write {data} null")]);
    assert!(granted(&book, 5).is_empty(), "a call that nothing narrows has what its profile says");
    let refused = book.finished.iter().filter(|record| record["status"]["kind"] == "refused");
    assert_eq!(refused.filter(|record| record["receipt"] == Value::Null).count(), 3);
}

#[test]
fn a_policy_narrows_what_arguments_grant_and_is_not_looked_at_where_the_configuration_says_so() {
    let scratch = Scratch::new();
    let trees = tree(&scratch);
    let [data, _] = trees.clone();
    let grants = format!(
        "[servers.fixture.tools.change]\ngrants = [{{ argument = \"/path\", access = \"write\", within = [\"{data}\"] }}]\n"
    );
    let file = format!("{data}/a");
    let state = json!({"sandboxPolicy": {"type": "read-only"}});
    let book = session(&setup(&trees, &grants), |mut client| {
        let (file, state) = (file.clone(), state.clone());
        async move {
            let changed = call(&mut client, "change", json!({"path": file}), Some(state)).await;
            assert_eq!(changed["result"]["isError"], true);
            assert!(
                text(&changed)
                    .contains("hint: the profile grants it; the client's roots, or the policy that it sends"),
                "{changed}"
            );
            assert_eq!(text(&call(&mut client, "change", json!({"path": file}), None).await), "ok");
            client
        }
    });
    let other = &trees[1];
    assert_eq!(
        granted(&book, 1),
        [format!("write {file} \"/arguments/path\""), format!("write {other} null")]
    );
    session(&setup(&trees, "client-policy = \"ignore\"\n"), |mut client| async move {
        assert_eq!(text(&call(&mut client, "change", json!({"path": file}), Some(state)).await), "ok");
        client
    });
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_policy_is_asked() {
    let scratch = Scratch::new();
    let trees = tree(&scratch);
    for (config, offered) in
        [("client-policy = \"offer\"\n", json!({"codex/sandbox-state-meta": {}})), ("", Value::Null)]
    {
        let [data, _] = trees.clone();
        session(&setup(&trees, config), |mut client| async move {
            let capabilities = client.handshake(json!({})).await["result"]["capabilities"].clone();
            assert_eq!(capabilities["experimental"], offered);
            let meta = json!({"codex/sandbox-state-meta": {"sandboxPolicy": {"type": "read-only"}}});
            let params = json!({"name": "change", "arguments": {"path": format!("{data}/a")}, "_meta": meta});
            let changed = client.request(1, "tools/call", params).await;
            assert!(REFUSALS.contains(&text(&changed)), "{changed}");
            client
        });
    }
}

/// The next answer; the client's roots are said whenever somebody asks for them, and how often that was.
async fn answered(client: &mut Client, roots: &Value) -> (Value, usize) {
    let mut asked = 0;
    loop {
        let message = client.read().await;
        if message["method"] != "roots/list" {
            return (message, asked);
        }
        asked += 1;
        let mut answer = json!({"jsonrpc": "2.0", "id": message["id"]});
        match roots {
            Value::Null => answer["error"] = json!({"code": -32603, "message": "no"}),
            roots => answer["result"] = json!({"roots": roots}),
        }
        client.send(&answer.to_string()).await;
    }
}

async fn legacy(client: &mut Client, path: &str, roots: &Value) -> (Value, usize) {
    let params = json!({"name": "read", "arguments": {"path": path}});
    client
        .send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string())
        .await;
    answered(client, roots).await
}

#[test]
fn the_clients_roots_narrow_its_calls_where_the_configuration_says_so() {
    let scratch = Scratch::new();
    let trees = tree(&scratch);
    let [data, other] = trees.clone();
    let book = session(&setup(&trees, "client-roots = \"narrow\"\n"), |mut client| async move {
        client.handshake(json!({"roots": {"listChanged": true}})).await;
        let of = |tree: &str| json!([{"uri": format!("file://{tree}"), "name": "a root"}]);
        let (a, b) = (format!("{data}/a"), format!("{other}/a"));
        // The server's own first process asks, the session does, and so does the call's process.
        let (answer, asked) = legacy(&mut client, &a, &of(&data)).await;
        assert_eq!((text(&answer), asked), ("one", 3));
        // What is known is not asked for again.
        let (answer, asked) = legacy(&mut client, &b, &of(&data)).await;
        assert_eq!((text(&answer), asked), ("ENOENT", 1));
        client.send(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await;
        let (answer, _) = legacy(&mut client, &b, &of(&other)).await;
        assert_eq!(text(&answer), "one");
        let (answer, _) = legacy(&mut client, &a, &of(&other)).await;
        assert_eq!(text(&answer), "ENOENT");
        for wrong in [Value::Null, json!(7), json!([{"uri": "file:///a/../b"}])] {
            client.send(r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#).await;
            let (answer, _) = legacy(&mut client, &a, &wrong).await;
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
            assert!(
                answer["error"]["message"].as_str().unwrap().contains("the client's roots cannot be used"),
                "{answer}"
            );
        }
        client
    });
    assert_eq!(granted(&book, 0), [format!("write {} null", trees[0])]);
}

#[test]
fn roots_are_not_asked_for_where_nobody_wants_them() {
    let scratch = Scratch::new();
    let trees = tree(&scratch);
    let [data, other] = trees.clone();
    session(&setup(&trees, ""), |mut client| async move {
        client.handshake(json!({"roots": {}})).await;
        let roots = json!([{"uri": format!("file://{data}")}]);
        let (answer, asked) = legacy(&mut client, &format!("{other}/a"), &roots).await;
        assert_eq!((text(&answer), asked), ("one", 2));
        client
    });
    // A client that has none is not narrowed by them.
    let [_, other] = trees.clone();
    session(&setup(&trees, "client-roots = \"narrow\"\n"), |mut client| async move {
        client.handshake(json!({})).await;
        let (answer, asked) = legacy(&mut client, &format!("{other}/a"), &json!([])).await;
        assert_eq!((text(&answer), asked), ("one", 0));
        client
    });
}

#[test]
fn a_refusal_repeats_nothing_in_the_log_that_the_profile_keeps_out_of_it() {
    for redact in ["", "\n[audit]\nredact = [\"/arguments/path\"]"] {
        let scratch = Scratch::new();
        let trees = tree(&scratch);
        let [data, other] = trees.clone();
        let config = format!(
            "[servers.fixture.tools.change]\ngrants = [{{ argument = \"/path\", access = \"write\", within = [\"{data}\"] }}]\n"
        );
        let mut setup = setup(&trees, &config);
        setup.filesystem.push_str(redact);
        let path = format!("{other}/a");
        let named = path.clone();
        let book = session(&setup, |mut client| async move {
            let refused = call(&mut client, "change", json!({"path": named}), None).await;
            assert!(refused["result"]["isError"] == true && text(&refused).contains(&named), "{refused}");
            client
        });
        let refused = book.finished.iter().find(|record| record["status"]["kind"] == "refused").unwrap();
        let detail = refused["status"]["detail"].as_str().unwrap();
        match redact.is_empty() {
            true => assert!(detail.contains(&path), "{detail}"),
            false => assert_eq!(detail, "[redacted]"),
        }
    }
}
