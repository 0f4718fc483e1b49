//! Ids and eras as a client sees them, against a model: random calls, cancellations, deaths and floods in one session.
//!
//! Whatever servers do, each request gets one answer in its own era, from a process that has seen nothing but what belongs
//! to it; a cancelled one gets at most one, and nothing once the session has read on. Never: knows why.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{Book, Client, Setup, session, text};

/// Sessions that are tried; `PROPTEST_CASES` says another number.
const CASES: u32 = 5;
/// Calls that run at once. One place fewer is ever taken by calls that never end by themselves.
const JOBS: usize = 3;
/// How many ids the client uses over and over.
const IDS: u64 = 5;

/// What a server does before it answers, and how often or under which id.
type Before = (&'static str, u64);

#[derive(Debug, Clone)]
enum Step {
    Call {
        id: u64,
        as_text: bool,
        modern: bool,
        before: Vec<Before>,
        end: &'static str,
    },
    List {
        id: u64,
        modern: bool,
    },
    /// The one of the open requests that this number chooses.
    Cancel(usize),
    /// Waits for all answers that must come.
    Collect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let before = prop_oneof![
        (Just("progress"), 1..4_u64),
        // More than a pipe holds.
        (Just("log"), prop_oneof![4 => Just(1_u64), 1 => Just(1500)]),
        (Just("foreign"), 0..IDS),
        (Just("token"), 0..IDS),
        (Just("withdraw"), 0..3_u64),
        (Just("noise"), Just(1)),
    ];
    let end = prop_oneof![
        4 => Just("answer"), 2 => Just("hang"), 2 => Just("die"), 2 => Just("ask"), 2 => Just("question"),
        1 => Just("half"), 1 => Just("twice"),
    ];
    let call = (0..IDS, any::<bool>(), any::<bool>(), prop::collection::vec(before, 0..3), end).prop_map(
        |(id, as_text, modern, before, end)| {
            // No modern server may ask by a request of its own, and no legacy one by a result.
            let end = match (end, modern) {
                ("ask", true) => "question",
                ("question", false) => "ask",
                (end, _) => end,
            };
            Step::Call { id, as_text, modern, before, end }
        },
    );
    let list = (0..IDS, any::<bool>()).prop_map(|(id, modern)| Step::List { id, modern });
    let step = prop_oneof![
        10 => call, 1 => list, 4 => any::<usize>().prop_map(Step::Cancel), 2 => Just(Step::Collect),
    ];
    prop::collection::vec(step, 8..24)
}

/// One request, as the client knows it.
#[derive(Debug)]
struct Request {
    id: Value,
    modern: bool,
    /// What its answer must be.
    end: &'static str,
    /// The process that has asked the question that this answers.
    who: Option<String>,
    answered: bool,
    cancelled: bool,
    /// The session has read on since it was cancelled.
    over: bool,
}

struct Model {
    client: Client,
    /// The place of each is its tag.
    requests: Vec<Request>,
    /// Ids of the server's requests that were not withdrawn.
    asked: HashSet<String>,
    /// Processes that have answered a call.
    whos: HashSet<String>,
    refused: usize,
    pings: u64,
    pongs: u64,
    sent: Vec<String>,
}

impl Model {
    /// The request that is open under an id.
    fn open(&self, id: &Value) -> Option<usize> {
        self.requests.iter().rposition(|request| request.id == *id && !request.answered && !request.over)
    }

    /// The requests whose answer must come, or never comes by itself.
    fn uncancelled(&self) -> impl Iterator<Item = usize> {
        let open =
            |(_, request): &(usize, &Request)| !(request.answered || request.over || request.cancelled);
        self.requests.iter().enumerate().filter(open).map(|(tag, _)| tag)
    }

    async fn send(&mut self, message: Value) {
        self.sent.push(message.to_string());
        self.client.send(&message.to_string()).await;
    }

    async fn request(&mut self, request: Request, method: &str, mut params: Value) {
        if request.modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
        }
        self.send(json!({"jsonrpc": "2.0", "id": request.id, "method": method, "params": params})).await;
        self.requests.push(request);
    }

    /// Makes an id free: what is open under it is answered or cancelled. False: nobody can tell when that is.
    async fn free(&mut self, id: &Value) -> bool {
        while let Some(tag) = self.open(id) {
            if self.requests[tag].cancelled {
                self.settle().await;
            } else if self.requests[tag].end == "hang" {
                return false;
            } else {
                self.read().await;
            }
        }
        true
    }

    async fn step(&mut self, step: &Step) {
        match step.clone() {
            Step::Call { id, as_text, modern, before, end } => {
                let id = if as_text { json!(id.to_string()) } else { json!(id) };
                let hanging: Vec<usize> =
                    self.uncancelled().filter(|tag| self.requests[*tag].end == "hang").collect();
                if end == "hang" && hanging.len() >= JOBS - 1 {
                    self.cancel(hanging[0]).await;
                }
                let free = self.free(&id).await;
                // Questions are answered by requests of their own, so this is known only now.
                let tag = self.requests.len();
                let arguments = json!({"tag": tag, "before": before, "end": end});
                let params = json!({"name": "x", "arguments": arguments, "_meta": {"progressToken": format!("{tag}")}});
                let mut request =
                    Request { id, modern, end, who: None, answered: false, cancelled: false, over: false };
                if free {
                    return self.request(request, "tools/call", params).await;
                }
                // The same id once more: it is refused without an id, as under this one the other answer is awaited.
                request.over = true;
                let refused = self.refused;
                self.request(request, "tools/call", params).await;
                while self.refused == refused {
                    self.read().await;
                }
            }
            Step::List { id, modern } => {
                let id = json!(id);
                if self.free(&id).await {
                    let request = Request {
                        id,
                        modern,
                        end: "list",
                        who: None,
                        answered: false,
                        cancelled: false,
                        over: false,
                    };
                    self.request(request, "tools/list", json!({})).await;
                }
            }
            Step::Cancel(number) => {
                let open: Vec<usize> = self.uncancelled().collect();
                if !open.is_empty() {
                    self.cancel(open[number % open.len()]).await;
                }
            }
            Step::Collect => self.collect().await,
        }
    }

    async fn cancel(&mut self, tag: usize) {
        let params = json!({"requestId": self.requests[tag].id});
        self.requests[tag].cancelled = true;
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})).await;
    }

    async fn collect(&mut self) {
        while self.uncancelled().any(|tag| self.requests[tag].end != "hang") {
            self.read().await;
        }
    }

    /// Makes sure that the session has read everything, and has said everything to what was cancelled.
    async fn settle(&mut self) {
        self.pings += 1;
        let ping = self.pings;
        self.send(json!({"jsonrpc": "2.0", "id": format!("ping {ping}"), "method": "ping"})).await;
        while self.pongs < ping {
            self.read().await;
        }
        for request in &mut self.requests {
            request.over |= request.cancelled;
        }
    }

    /// The request that a notification belongs to.
    fn mentioned(&self, tag: &Value) -> &Request {
        let tag = tag.as_u64().or_else(|| tag.as_str()?.parse().ok());
        let tag = tag.and_then(|tag| usize::try_from(tag).ok());
        tag.and_then(|tag| self.requests.get(tag)).expect("something of a request that was made")
    }

    async fn read(&mut self) {
        let line = self.client.raw().await.expect("a line");
        let message: Value = serde_json::from_str(&line).unwrap();
        let params = &message["params"];
        let heard = match message["method"].as_str() {
            Some("notifications/progress") => self.mentioned(&params["progressToken"]),
            Some("notifications/message") => self.mentioned(&params["data"]),
            Some("sampling/createMessage") => {
                assert!(self.asked.insert(message["id"].to_string()), "a new id for each request: {line}");
                let request = self.mentioned(&params["tag"]);
                assert!(!request.modern && !request.answered && !request.over, "{line}: {request:?}");
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"tag": params["tag"]}});
                return self.send(answer).await;
            }
            Some("notifications/cancelled") => {
                assert!(
                    self.asked.remove(&params["requestId"].to_string()),
                    "withdraws what was asked: {line}"
                );
                return;
            }
            None if message["id"].is_null() => {
                assert_eq!(message["error"]["code"], -32600, "{line}");
                self.refused += 1;
                return;
            }
            None if message["id"].as_str() == Some(&format!("ping {}", self.pongs + 1)) => {
                self.pongs += 1;
                return;
            }
            None => return self.answered(&message).await,
            Some(_) => panic!("{line}"),
        };
        assert!(!heard.answered && !heard.over, "only while it is open: {line}: {heard:?}");
    }

    async fn answered(&mut self, message: &Value) {
        let tag = self.open(&message["id"]).unwrap_or_else(|| panic!("nobody has asked: {message}"));
        let request = &mut self.requests[tag];
        request.answered = true;
        let Request { id: _, modern, end, who, .. } = request;
        let (modern, end, result) = (*modern, *end, &message["result"]);
        assert_eq!(message["error"], Value::Null, "an answer: {message}");
        assert_eq!(result["resultType"].is_string(), modern, "an answer of its own era: {message}");
        let told = || text(message);
        match end {
            "die" | "half" => {
                // On a busy machine a process may close its output long before it has ended.
                let ended =
                    ["the server exited with status ", "the server closed its output without an answer"];
                return assert!(ended.iter().any(|text| told().starts_with(text)), "{message}");
            }
            "list" => {
                let first = if modern { "tools/list" } else { "initialize" };
                return assert_eq!(result["seen"][0], first, "{message}");
            }
            "question" => {
                assert_eq!(result["resultType"], "input_required", "{message}");
                let state = result["requestState"].as_str().unwrap();
                let who = state.split(' ').next().unwrap().to_owned();
                assert_eq!(state, format!("{who} {tag}"), "the question of this request");
                assert!(self.whos.insert(who.clone()), "a process of its own");
                // The arguments of the first request are found in what was sent for it.
                let first = self.sent.iter().find(|line| line.contains(&format!("\"tag\":{tag},"))).unwrap();
                let mut params: Value = serde_json::from_str::<Value>(first).unwrap()["params"].clone();
                params["requestState"] = json!(state);
                params["inputResponses"] = json!({"x": {"roots": []}});
                let request = Request {
                    id: json!(format!("again {tag}")),
                    modern,
                    end: "again",
                    who: Some(who),
                    answered: false,
                    cancelled: false,
                    over: false,
                };
                return Box::pin(self.request(request, "tools/call", params)).await;
            }
            _ => {}
        }
        let told: Value = serde_json::from_str(told()).unwrap_or_else(|error| panic!("{error}: {message}"));
        let mut seen = if modern { json!([]) } else { json!(["initialize", "notifications/initialized"]) };
        let calls = if end == "again" { 2 } else { 1 };
        seen.as_array_mut().unwrap().extend(vec![json!("tools/call"); calls]);
        match (end, who) {
            ("again", Some(who)) => assert_eq!(told["who"], json!(who), "the process that has asked"),
            ("answer" | "twice", None) => assert_eq!(told["tag"], tag, "its own answer"),
            ("ask", None) => {
                assert_eq!((&told["tag"], &told["heard"]["result"]["tag"]), (&json!(tag), &json!(tag)));
                assert_eq!(told["heard"]["id"], 0, "the server's own id");
                seen.as_array_mut().unwrap().push(json!("answer"));
            }
            _ => panic!("{end} is never answered: {message}"),
        }
        assert_eq!(told["seen"], seen, "nothing but what belongs to it");
        if end != "again" {
            assert!(self.whos.insert(told["who"].as_str().unwrap().to_owned()), "a process of its own");
        }
    }
}

/// Plays the steps; the model checks what it reads.
async fn play(mut client: Client, steps: Vec<Step>) -> Client {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}}, "clientInfo": {"name": "model"}});
    let answer = client.request(900, "initialize", params).await;
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let mut model = Model {
        client,
        requests: vec![],
        asked: HashSet::new(),
        whos: HashSet::new(),
        refused: 0,
        pings: 0,
        pongs: 0,
        sent: vec![],
    };
    for step in &steps {
        model.step(step).await;
    }
    model.collect().await;
    for tag in 0..model.requests.len() {
        if !model.requests[tag].answered {
            model.cancel(tag).await;
        }
    }
    model.settle().await;
    // What was withdrawn by the end of a process arrives before this does.
    model.settle().await;
    model.client
}

/// Each process has one beginning and one end.
fn balanced(book: &Book) {
    let ids = |records: &[Value]| -> Vec<String> {
        records.iter().map(|record| record["call"]["id"].to_string()).collect()
    };
    let (mut started, mut finished) = (ids(&book.started), ids(&book.finished));
    for ids in [&mut started, &mut finished] {
        ids.sort();
    }
    // Each request of a chain has a record of its beginning.
    started.dedup();
    assert_eq!(started, finished);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap()),
        // Each try is a session; a smaller one is worth a few.
        max_shrink_iters: 15,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_request_has_one_answer_whatever_servers_do(steps in steps()) {
        let server = crate::project().join("tests/it/session/scripted.py");
        // How slow the machine is, is nothing of the model's.
        let setup = Setup { jobs: JOBS, server: Some(server), time: "10m", ..Setup::default() };
        balanced(&session(&setup, |client| play(client, steps)));
    }
}
