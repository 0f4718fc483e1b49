//! Several servers as one: seen from the client. Never: looks inside.

use serde_json::{Value, json};

use super::world::{Client, Setup, assert_closed_up, session, text};

/// `fixture`, and `kept` with a session.
fn setup(more: &str) -> Setup {
    let kept = crate::project().join("tests/it/session/kept.py");
    let command = ["/usr/bin/python3", "-S", "-E", kept.to_str().unwrap()];
    let kept = format!("[servers.kept]\ncommand = {command:?}\nvalidate = \"off\"\nstate = \"session\"\n");
    Setup { options: vec!["--all".to_owned()], config: format!("{kept}{more}"), ..Setup::default() }
}

async fn handshake(client: &mut Client) -> Value {
    let answer = super::kept::handshake(client).await;
    // `fixture` announces this on its start.
    assert_eq!(client.read().await["method"], "notifications/tools/list_changed");
    answer
}

#[test]
fn one_client_has_the_tools_of_all_servers_by_name() {
    let book = session(&setup(""), |mut client| async move {
        let result = handshake(&mut client).await["result"].clone();
        assert_eq!(
            (&result["serverInfo"]["name"], &result["capabilities"].get("tasks")),
            (&json!("toolcell"), &None)
        );
        let list = client.request(1, "tools/list", json!({})).await;
        let names: Vec<&str> = list["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["kept__count"]);
        for expected in ["1", "2"] {
            assert_eq!(text(&client.legacy(2, "kept__count").await), expected);
        }
        let (one, other) = (client.legacy(3, "fixture__who").await, client.legacy(4, "fixture__who").await);
        assert_ne!(text(&one), text(&other));
        assert_closed_up(client.supervisor());
        // Each server's own results pass as they are.
        client
            .send(r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"fixture__verbatim"}}"#)
            .await;
        let line = client.raw().await.unwrap();
        assert!(line.contains(r#""odd":1.0,"z":1e2,"a":"\u0061""#), "{line}");
        for (id, name) in [(6, "count"), (7, "nobody__count")] {
            let refused = client.legacy(id, name).await;
            let told = refused["error"]["message"].as_str().unwrap();
            assert!(told.ends_with("names begin with `fixture__` or `kept__`"), "{told}");
        }
        client
    });
    let servers: Vec<&Value> = book.started.iter().map(|record| &record["call"]["server"]).collect();
    assert!(servers.contains(&&json!("kept")) && servers.contains(&&json!("fixture")));
    assert_eq!(book.end_of("who")["status"]["kind"], "completed");
}

#[test]
fn what_servers_ask_and_what_clients_take_back_finds_its_way() {
    session(&setup(""), |mut client| async move {
        handshake(&mut client).await;
        client.legacy(1, "fixture__who").await;
        for (id, name) in [(2, "kept__ask-client"), (3, "fixture__ask-client")] {
            let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name}});
            client.send(&call.to_string()).await;
            let asked = client.read().await;
            assert_eq!(asked["method"], "sampling/createMessage");
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"model": name}});
            client.send(&answer.to_string()).await;
            let answered = client.read().await;
            assert_eq!(answered["id"], id);
            assert!(text(&answered).contains(name), "{answered}");
        }
        client.start_call(4, "kept__hold", json!({"name": "a"})).await;
        assert_eq!(client.read().await["params"]["data"], "held a");
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 4}});
        client.send(&cancel.to_string()).await;
        client.start_call(5, "kept__let-go", json!({"name": "a"})).await;
        assert_eq!(client.read().await["id"], 5);
        client
    });
}

#[test]
fn a_server_that_is_not_there_does_not_touch_the_others() {
    let more = "[servers.lost]\ncommand = [\"/nonexistent/server\"]\n";
    session(&setup(more), |mut client| async move {
        handshake(&mut client).await;
        assert_eq!(text(&client.legacy(1, "kept__count").await), "1");
        let refused = client.legacy(2, "lost__tool").await;
        assert!(text(&refused).starts_with("server `lost` is not there"), "{refused}");
        assert_eq!(text(&client.legacy(3, "kept__count").await), "2");
        client
    });
}

#[test]
fn a_resource_goes_to_who_has_it_and_a_listener_is_heard_once() {
    session(&setup(""), |mut client| async move {
        handshake(&mut client).await;
        let nobody = client.request(1, "resources/read", json!({"uri": "x:/a"})).await;
        assert_eq!(nobody["error"]["code"], -32002, "{nobody}");
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let params = json!({"notifications": {"toolsListChanged": true}, "_meta": meta});
        client
            .send(
                &json!({"jsonrpc": "2.0", "id": 2, "method": "subscriptions/listen", "params": params})
                    .to_string(),
            )
            .await;
        let told = client.read().await;
        assert_eq!(told["method"], "notifications/subscriptions/acknowledged", "{told}");
        assert_eq!(told["params"]["notifications"], json!({"toolsListChanged": true}));
        client
    });
}

#[test]
fn servers_whose_tools_could_have_one_name_are_refused() {
    let scratch = super::world::Scratch::new();
    let setup = setup("[servers.kept__too]\ncommand = [\"x\"]\n");
    let (status, _, told) = super::world::command(&setup, &scratch, "run", &[]);
    assert_eq!(status, 120, "{told}");
    assert!(told.contains("could have the same name") && told.contains("hint: rename one"), "{told}");
}
