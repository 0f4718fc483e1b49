//! A call as an OpenTelemetry span, in the JSON form of OTLP (opentelemetry-proto, "OTLP/JSON"): ids in hexadecimal, times and
//! large numbers as text, enumerations as numbers.
//!
//! Neighbours: `guard::exports` appends each as a line. Never: does I/O, makes an id.

use serde_json::{Value, json};

use super::event::{Event, Seen};
use crate::policy::tokens::to_hex;

/// A server's side of a request.
const SERVER: u8 = 2;
const ERROR: u8 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`
const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;
/// The trace flag of a span that is recorded.
const SAMPLED: u32 = 1;

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn nanos(micros: u64) -> String {
    (u128::from(micros) * 1000).to_string()
}

fn violation(seen: &Seen, when: &str) -> Value {
    let mut attributes =
        vec![text("toolcell.layer", seen.layer.name()), text("toolcell.operation", &seen.operation)];
    if !seen.object.is_empty() {
        attributes.push(text("toolcell.object", &seen.object));
    }
    attributes.extend(seen.limit.map(|limit| text("toolcell.limit", limit.name())));
    json!({ "name": "violation", "timeUnixNano": when, "attributes": attributes })
}

/// The span of a call, as a request to export it. Without a context of the request's own it begins a trace.
pub(super) fn span(event: &Event, trace: [u8; 16], span: [u8; 8]) -> Value {
    let call = &event.call;
    let context = call.trace.as_ref();
    let parts = context.map(crate::call::Trace::parts);
    let (trace_id, parent, flags) = match parts {
        Some((trace, parent, flags)) => (trace.to_owned(), Some(parent), KNOWN | REMOTE | u32::from(flags)),
        None => (to_hex(&trace), None, KNOWN | SAMPLED),
    };
    let named = matches!(call.method.as_str(), "tools/call" | "prompts/get");
    let target = call.target.as_deref().filter(|_| named);
    let end = nanos(event.ended);
    let told: u64 = event.layers.values().sum();
    let untold = told.saturating_sub(u64::try_from(event.seen.len()).unwrap_or(u64::MAX));
    let mut attributes = vec![
        text("mcp.method.name", &call.method),
        text("toolcell.server", &call.server),
        text("toolcell.call.id", &call.id),
        text("toolcell.profile", &call.profile),
        text("toolcell.status", &event.status),
        number("toolcell.violations", told),
    ];
    attributes.extend(call.tool().map(|tool| text("gen_ai.tool.name", tool)));
    attributes.extend(call.identity.as_deref().map(|identity| text("toolcell.identity", identity)));
    attributes.extend(event.memory.map(|memory| number("toolcell.memory_peak", memory)));
    let failed = !matches!(event.status.as_str(), "completed" | "cancelled");
    let mut one = json!({
        "traceId": trace_id,
        "spanId": to_hex(&span),
        "flags": flags,
        "name": target.map_or_else(|| call.method.clone(), |target| format!("{} {target}", call.method)),
        "kind": SERVER,
        "startTimeUnixNano": nanos(event.began),
        "endTimeUnixNano": end,
        "attributes": attributes,
        "events": event.seen.iter().map(|seen| violation(seen, &end)).collect::<Vec<_>>(),
        "droppedEventsCount": untold,
        "status": if failed { json!({ "code": ERROR, "message": event.status }) } else { json!({}) },
    });
    let state = context.and_then(|context| context.state.as_deref());
    let optional = [("parentSpanId", parent), ("traceState", state)];
    let optional = optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
    one.as_object_mut().into_iter().for_each(|one| one.extend(optional.clone()));
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", "toolcell"), text("service.version", version)] },
        "scopeSpans": [{ "scope": { "name": "toolcell", "version": version }, "spans": [one] }],
    }] })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::call::{Call, Trace};
    use crate::outcome::Layer;

    fn event(trace: Option<Trace>) -> Event {
        let call = Call { profile: "p".to_owned(), who: "w".to_owned(), trace, ..Call::example("t") };
        let seen = Seen {
            layer: Layer::Seccomp,
            limit: None,
            operation: "socket".to_owned(),
            object: "AF_INET".to_owned(),
        };
        Event {
            tool: call.tool().map(str::to_owned),
            call,
            began: 1_000_000,
            ended: 3_000_001,
            status: "failed".to_owned(),
            ran: true,
            wall_us: 1,
            memory: Some(7),
            seen: vec![seen],
            layers: BTreeMap::from([(Layer::Seccomp, 2)]),
            unrecorded: None,
        }
    }

    fn one(event: &Event) -> Value {
        span(event, [0xab; 16], [0xcd; 8])["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()
    }

    #[test]
    fn a_call_without_a_context_begins_a_trace() {
        let span = one(&event(None));
        assert_eq!(span["traceId"], "ab".repeat(16));
        assert_eq!((&span["spanId"], span.get("parentSpanId")), (&json!("cd".repeat(8)), None));
        assert_eq!(
            (&span["name"], &span["kind"], &span["flags"]),
            (&json!("tools/call t"), &json!(2), &json!(257))
        );
        assert_eq!(
            (&span["startTimeUnixNano"], &span["endTimeUnixNano"]),
            (&json!("1000000000"), &json!("3000001000"))
        );
        assert_eq!(span["status"], json!({"code": 2, "message": "failed"}));
        assert_eq!(span["events"][0]["attributes"][1]["value"]["stringValue"], "socket");
        assert_eq!(span["droppedEventsCount"], 1);
        assert!(span["attributes"].as_array().unwrap().contains(&number("toolcell.violations", 2)));
    }

    #[test]
    fn a_call_with_a_context_is_part_of_its_trace() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let span = one(&event(Trace::new(parent, Some("a=b"))));
        assert_eq!(
            (&span["traceId"], &span["parentSpanId"]),
            (&json!(&parent[3..35]), &json!(&parent[36..52]))
        );
        assert_eq!((&span["flags"], &span["traceState"]), (&json!(0x300), &json!("a=b")));
    }
}
