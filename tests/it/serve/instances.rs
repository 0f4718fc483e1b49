//! Several instances behind a load balancer. Never: routes by what is said.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::super::session::world::{Scratch, Setup, text};
use super::http::{Served, modern, post, with_region};

/// Passes each connection on to the next instance in turn.
struct Balancer {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Balancer {
    fn start(instances: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        std::thread::spawn(move || {
            for (client, instance) in listener.incoming().map_while(Result::ok).zip(instances.iter().cycle())
            {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let server = TcpStream::connect(instance).unwrap();
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    std::thread::spawn(move || {
                        let _ended = std::io::copy(&mut from, &mut to).is_ok();
                        let _closed = to.shutdown(std::net::Shutdown::Write).is_ok();
                    });
                }
            }
        });
        Self { address, over }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

#[test]
fn any_of_three_instances_answers_any_modern_request() {
    let scratch = Scratch::new();
    let setup = with_region();
    let instances: Vec<Served> = (0..3).map(|_| Served::start(&setup, &scratch, &[])).collect();
    let balancer = Balancer::start(instances.iter().map(|instance| instance.address).collect());
    let ask = |id: u64, method: &str, params, more: &[(&str, &str)]| {
        let (headers, body) = modern(&json!(id), method, params);
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = headers.chain(more.iter().copied()).collect();
        post(balancer.address, &all, &body)
    };
    // The list comes from one instance, its cursor goes to the next, and calls to all of them.
    let list = ask(0, "tools/list", json!({}), &[]).json();
    let second = ask(1, "tools/list", json!({"cursor": list["result"]["nextCursor"]}), &[]).json();
    assert_eq!(second["result"]["tools"][0]["name"], "request");
    for id in 2..8 {
        let reply = ask(id, "tools/call", json!({"name": "who"}), &[]);
        assert_eq!((reply.status, reply.json()["id"].clone()), (200, json!(id)));
        assert_eq!(text(&reply.json()).len(), 16);
    }
    // An instance that no list was asked of knows what has to be in headers.
    let params = json!({"name": "request", "arguments": {"region": "a"}});
    for id in 8..11 {
        assert_eq!(ask(id, "tools/call", params.clone(), &[("mcp-param-region", "a")]).status, 200);
        assert_eq!(ask(id, "tools/call", params.clone(), &[]).status, 400);
    }
    // A process that keeps what it was asked without a state is asked again on another instance, and says what it is told.
    let asked = ask(11, "tools/call", json!({"name": "ask-once", "arguments": {}}), &[]).json();
    assert_eq!(asked["result"]["resultType"], "input_required");
    drop(balancer);
    for instance in instances {
        let book = instance.stop(&scratch);
        assert!(book.started.iter().any(|record| record["call"]["target"] == "who"));
    }
}

#[test]
fn a_session_of_another_instance_is_unknown() {
    let scratch = Scratch::new();
    let instances: Vec<Served> = (0..2).map(|_| Served::start(&Setup::default(), &scratch, &[])).collect();
    let session = instances[0].session(&[]);
    assert_eq!(instances[1].legacy(&session, 1, "who").status, 404);
    assert_eq!(instances[0].legacy(&session, 1, "who").status, 200);
    for instance in instances {
        instance.stop(&scratch);
    }
}
