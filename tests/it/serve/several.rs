//! Several servers over HTTP, and clients that listen. Never: looks inside.

use serde_json::json;

use super::super::session::world::{Scratch, Setup, text};
use super::http::{Served, Stream, modern, request};

#[test]
fn each_listener_hears_of_its_own_subscription_from_all_servers() {
    let kept = crate::project().join("tests/it/session/kept.py");
    let command = ["/usr/bin/python3", "-S", "-E", kept.to_str().unwrap()];
    let config = format!("[servers.kept]\ncommand = {command:?}\nvalidate = \"off\"\nstate = \"session\"\n");
    let (scratch, setup) = (Scratch::new(), Setup { config, ..Setup::default() });
    let served = Served::start(&setup, &scratch, &["--all"]);
    let call = served.modern(&json!("a"), "tools/call", json!({"name": "kept__count"}));
    assert_eq!((call.status, text(&call.json())), (200, "1"));
    let listen = |id: &str| {
        let (headers, body) =
            modern(&json!(id), "subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Stream::open(served.address, &request(served.address, "POST", "/mcp", &headers, &body))
    };
    for id in ["one", "two"] {
        let mut stream = listen(id);
        assert_eq!(stream.head().status, 200);
        let told = stream.event().unwrap();
        assert_eq!(told["method"], "notifications/subscriptions/acknowledged", "{told}");
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
    }
    served.stop(&scratch);
}
