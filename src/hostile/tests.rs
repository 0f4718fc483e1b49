//! The hostile server over in-memory pipes: both handshakes, and each tool with a bound so small that it hurts nobody.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::serve;

/// What the server writes for these lines.
fn answers(lines: &[Value]) -> Vec<Value> {
    let input = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut output = Vec::new();
    serve(input.as_bytes(), &mut output).unwrap();
    String::from_utf8_lossy(&output).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A legacy call.
fn call(name: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": name, "method": "tools/call", "params": {"name": name, "arguments": arguments}})
}

/// The last answer to one call.
fn result(name: &str, arguments: &Value) -> Value {
    answers(&[call(name, arguments)]).pop().unwrap()
}

/// An empty directory of one test.
fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("toolcell-test-{}-{test}", std::process::id()));
    fs::create_dir(&path).unwrap();
    path
}

#[test]
fn legacy_handshake_agrees_on_a_known_version() {
    for (asked, given) in
        [("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")]
    {
        let answers = answers(&[
            json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": asked}}),
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}),
            json!({"jsonrpc": "2.0", "id": 2, "method": "server/discover", "params": {}}),
        ]);
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0]["result"]["protocolVersion"], given);
        assert_eq!(answers[1]["result"], json!({}));
        assert_eq!(answers[2]["error"]["code"], -32602);
    }
}

#[test]
fn modern_requests_need_no_handshake() {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let request = |id: i32, method: &str, params: Value| {
        let mut params = params;
        params["_meta"] = meta.clone();
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    };
    let answers = answers(&[
        request(1, "server/discover", json!({})),
        request(2, "tools/list", json!({})),
        request(3, "tools/call", json!({"name": "harmless", "arguments": {"text": "hello"}})),
        request(4, "ping", json!({})),
        json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params":
            {"_meta": {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}}}),
    ]);
    assert_eq!(answers[0]["result"]["supportedVersions"], json!(["2026-07-28"]));
    for answer in &answers[..2] {
        assert!(answer["result"]["ttlMs"].is_u64());
        assert_eq!(answer["result"]["cacheScope"], "public");
    }
    for answer in &answers[..3] {
        assert_eq!(answer["result"]["resultType"], "complete");
    }
    assert_eq!(answers[2]["result"]["content"][0]["text"], "hello");
    assert_eq!(answers[3]["error"]["code"], -32601);
    assert_eq!(answers[4]["error"]["code"], -32022);
    assert_eq!(answers[4]["error"]["data"]["supported"], json!(["2026-07-28"]));
}

#[test]
fn malformed_requests_are_answered() {
    let mut output = Vec::new();
    serve(&b"not json\n\n{\"id\":1,\"method\":\"nothing\"}\n"[..], &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    let codes: Vec<i64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["error"]["code"].as_i64().unwrap())
        .collect();
    assert_eq!(codes, [-32700, -32601]);
    assert_eq!(result("no_such_tool", &json!({}))["error"]["code"], -32602);
    assert_eq!(result("read_ssh_key", &json!({}))["error"]["code"], -32602);
    assert_eq!(result("kill_process", &json!({"pid": 1}))["error"]["code"], -32602);
}

#[test]
fn every_tool_answers_with_a_whole_report() {
    let directory = directory("reports");
    let absent = directory.join("absent");
    let arguments = BTreeMap::from([
        ("text", json!("hello")),
        ("path", json!(absent)),
        ("directory", json!(directory)),
        ("pid", json!(i32::MAX)),
        ("name", json!("toolcell-test")),
        ("address", json!("127.0.0.1:1")),
        ("id", json!("other")),
        ("key", json!(1)),
        ("mark", json!("mark")),
        ("limit", json!(3)),
        ("milliseconds", json!(1)),
        ("threads", json!(1)),
    ]);
    let listed = answers(&[json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})]);
    let tools = listed[0]["result"]["tools"].as_array().unwrap();
    assert!(tools.len() > 50);
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        let mut arguments = arguments.clone();
        if name == "call_kernel" {
            arguments.insert("name", json!("personality"));
        }
        let result = &result(name, &json!(arguments))["result"];
        let report = &result["structuredContent"];
        for member in tool["outputSchema"]["required"].as_array().unwrap() {
            assert!(report.get(member.as_str().unwrap()).is_some(), "{name} lacks {member}: {report}");
        }
        let outcome = report["outcome"].as_str().unwrap();
        assert!(["done", "blocked", "escaped"].contains(&outcome), "{name}: {report}");
        assert_eq!(outcome == "blocked", report["errno"].is_string(), "{name}: {report}");
        assert_eq!(result["isError"], false);
    }
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn probes_tell_a_planted_secret_and_only_the_size_of_another() {
    let directory = directory("reveal");
    for (name, content, told) in [
        ("planted", "key: toolcell-canary-42\nrest", "toolcell-canary-42"),
        ("real", "do not tell this to anybody", "27 bytes"),
    ] {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        for tool in ["read_ssh_key", "read_by_detour"] {
            let result = result(tool, &json!({"path": path}));
            assert_eq!(result["result"]["structuredContent"]["outcome"], "escaped");
            assert_eq!(result["result"]["structuredContent"]["saw"], told);
        }
    }
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn calls_home_really_arrive() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addresses = [tcp.local_addr().unwrap(), udp.local_addr().unwrap()];
    for (tool, address) in ["call_home_tcp", "call_home_udp"].into_iter().zip(addresses) {
        let result = result(tool, &json!({"address": address.to_string()}));
        assert_eq!(result["result"]["structuredContent"]["outcome"], "escaped");
    }
    tcp.accept().unwrap();
    assert_eq!(udp.recv(&mut [0; 64]).unwrap(), 15);
}

#[test]
fn a_forged_answer_comes_before_the_own_one() {
    let answers = answers(&[call("forge_answer", &json!({"id": "victim"}))]);
    assert_eq!(answers[0]["id"], "victim");
    assert_eq!(answers[1]["id"], "forge_answer");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_built_in_program_runs() {
    let directory = directory("program");
    // A process that another test forked meanwhile may have the file open for writing until its own execve(2).
    let dropped = loop {
        let dropped = result("run_dropped_program", &json!({"directory": directory}));
        if dropped["result"]["structuredContent"]["errno"] != "ETXTBSY" {
            break dropped;
        }
    };
    assert_eq!(dropped["result"]["structuredContent"]["outcome"], "escaped", "{dropped}");
    let memory = &result("run_from_memory", &json!({}))["result"]["structuredContent"];
    // A host may forbid execution from memory (`vm.memfd_noexec`).
    assert!(memory["outcome"] == "escaped" || memory["errno"] == "EACCES", "{memory}");
    fs::remove_dir_all(&directory).unwrap();
}
