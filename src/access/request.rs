//! What a request says of who sent it and what it is about, read so that no server reads something else.
//!
//! Some readers take the first of two members of one name, some the last, and some compare names without case. What
//! decides here is refused unless it stands there once, in its own letters.
//!
//! Neighbours: `access::gate` decides by it. Never: changes a byte, but for what [`without_proof`] takes out.

use std::ops::Range;

use crate::mcp::envelope::{Message, only};
use crate::mcp::object::{self, Member};
use crate::policy::pattern::{Item, Kind};

/// The member of a request's `_meta` in which a client sends its token.
pub const TOKEN_MEMBER: &str = "dev.toolcell/token";

/// The one in which it sends its signature.
pub const SIGNATURE_MEMBER: &str = "dev.toolcell/signature";

/// The one in which toolcell's own front, which has seen who sends, says so to the process behind it.
pub const FRONT_MEMBER: &str = "dev.toolcell/front";

/// The members that prove who sent a request. No server sees them.
pub const PROOFS: [&str; 3] = [TOKEN_MEMBER, SIGNATURE_MEMBER, FRONT_MEMBER];

/// The member of `params` with all of them.
pub(super) const META: &str = "_meta";

/// Methods that every identity may use: they run none of the server's code on a client's arguments but the cursor.
const COMMON: &[&str] = &[
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "server/discover",
    "tools/list",
];

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum About {
    /// A method that needs no right.
    Common,
    /// These; each of them must be allowed.
    Items(Vec<Item>),
    /// A method that no right covers.
    Other,
}

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) token: Option<String>,
    /// What a front says.
    pub(super) front: Option<String>,
    /// Where its signature stands.
    pub(super) signature: Option<Range<usize>>,
    pub(super) about: About,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// Why it could be read in two ways, or not at all.
    pub(super) fn read(line: &[u8], message: &Message, method: &str) -> Result<Self, String> {
        let envelope = object::members(line, 0..line.len());
        for name in ["jsonrpc", "id", "method", "params"] {
            only(&envelope, name)?;
        }
        let params = Object::at(line, message.params.as_ref());
        let meta = params.object(META)?;
        let token = meta.get(TOKEN_MEMBER)?.map(|span| text(line, span, TOKEN_MEMBER)).transpose()?;
        let front = meta.get(FRONT_MEMBER)?.map(|span| text(line, span, FRONT_MEMBER)).transpose()?;
        let signature = meta.get(SIGNATURE_MEMBER)?;
        Ok(Self { token, front, signature, about: about(method, &params)? })
    }
}

fn about(method: &str, params: &Object<'_>) -> Result<About, String> {
    let item = |kind, name: &str| Ok(About::Items(vec![Item { kind, name: params.text(name)? }]));
    match method {
        "tools/call" => item(Kind::Tool, "name"),
        "prompts/get" => item(Kind::Prompt, "name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => item(Kind::Resource, "uri"),
        // That a list has changed, everybody may hear.
        "subscriptions/listen" => {
            let uris = params.object("notifications")?.texts("resourceSubscriptions")?;
            if uris.is_empty() {
                return Ok(About::Common);
            }
            Ok(About::Items(uris.into_iter().map(|name| Item { kind: Kind::Resource, name }).collect()))
        }
        // One of the two is meant, and the server chooses which.
        "completion/complete" => {
            let reference = params.object("ref")?;
            let mut items = Vec::new();
            for (kind, name) in [(Kind::Prompt, "name"), (Kind::Resource, "uri")] {
                if reference.get(name)?.is_some() {
                    items.push(Item { kind, name: reference.text(name)? });
                }
            }
            if items.is_empty() {
                return Err("`params.ref` names neither a prompt nor a resource".to_owned());
            }
            Ok(About::Items(items))
        }
        _ if COMMON.contains(&method) => Ok(About::Common),
        _ => Ok(About::Other),
    }
}

/// An object of the request; one that is not there has no members.
struct Object<'l> {
    line: &'l [u8],
    members: Vec<Member<'l>>,
}

impl<'l> Object<'l> {
    fn at(line: &'l [u8], span: Option<&Range<usize>>) -> Self {
        Self { line, members: span.map(|span| object::members(line, span.clone())).unwrap_or_default() }
    }

    fn get(&self, name: &str) -> Result<Option<Range<usize>>, String> {
        Ok(only(&self.members, name)?.map(|member| member.value.clone()))
    }

    fn object(&self, name: &str) -> Result<Self, String> {
        let span = self.get(name)?;
        if let Some(span) = &span
            && self.line.get(span.start) != Some(&b'{')
        {
            return Err(format!("`{name}` is not an object"));
        }
        Ok(Self::at(self.line, span.as_ref()))
    }

    /// The strings of an array; none if it is not there.
    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let Some(span) = self.get(name)? else { return Ok(Vec::new()) };
        if self.line.get(span.start) != Some(&b'[') {
            return Err(format!("`{name}` is not an array"));
        }
        object::items(self.line, span).into_iter().map(|span| text(self.line, span, name)).collect()
    }

    fn text(&self, name: &str) -> Result<String, String> {
        let span = self.get(name)?.ok_or_else(|| format!("`{name}` is missing"))?;
        text(self.line, span, name)
    }
}

fn text(line: &[u8], span: Range<usize>, name: &str) -> Result<String, String> {
    let raw = line.get(span).unwrap_or_default();
    object::text(raw).map(std::borrow::Cow::into_owned).ok_or_else(|| format!("`{name}` is not a string"))
}

/// The request's line without what proved who sent it. `None`: there is nothing of it in the line.
pub(super) fn without_proof(line: &[u8]) -> Option<Vec<u8>> {
    let params = |line: &[u8]| object::member(line, 0..line.len(), "params");
    let meta = params(line).and_then(|params| object::member(line, params, META))?;
    if !object::members(line, meta).iter().any(|member| PROOFS.contains(&&*member.name)) {
        return None;
    }
    Some(PROOFS.iter().fold(line.to_vec(), |line, name| object::without(line, params, &[META, name])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::envelope::{Kind as Envelope, parse};

    fn read(line: &str) -> Result<Request, String> {
        let message = parse(line.as_bytes()).unwrap();
        let Envelope::Request { method, .. } = &message.kind else { panic!("no request") };
        Request::read(line.as_bytes(), &message, method)
    }

    fn with(method: &str, params: &str) -> Result<Request, String> {
        read(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#))
    }

    fn items(method: &str, params: &str) -> Vec<(Kind, String)> {
        match with(method, params).unwrap().about {
            About::Items(items) => items.into_iter().map(|item| (item.kind, item.name)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_request_is_about() {
        assert_eq!(items("tools/call", r#""name":"a\u0062""#), [(Kind::Tool, "ab".to_owned())]);
        assert_eq!(items("prompts/get", r#""name":"a""#), [(Kind::Prompt, "a".to_owned())]);
        assert_eq!(items("resources/read", r#""uri":"a:b""#), [(Kind::Resource, "a:b".to_owned())]);
        let both = items("completion/complete", r#""ref":{"type":"ref/prompt","name":"a","uri":"b:c"}"#);
        assert_eq!(both, [(Kind::Prompt, "a".to_owned()), (Kind::Resource, "b:c".to_owned())]);
        assert_eq!(with("tools/list", "").unwrap().about, About::Common);
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).unwrap().about, About::Common);
        assert_eq!(items("resources/subscribe", r#""uri":"a:b""#), [(Kind::Resource, "a:b".to_owned())]);
        let listen =
            items("subscriptions/listen", r#""notifications":{"resourceSubscriptions":["a:b","c:d"]}"#);
        assert_eq!(listen, [(Kind::Resource, "a:b".to_owned()), (Kind::Resource, "c:d".to_owned())]);
        let all = with("subscriptions/listen", r#""notifications":{"toolsListChanged":true}"#).unwrap();
        assert_eq!(all.about, About::Common);
        for params in [
            r#""notifications":{"resourceSubscriptions":"a:b"}"#,
            r#""notifications":{"resourceSubscriptions":[7]}"#,
        ] {
            assert!(with("subscriptions/listen", params).is_err(), "{params}");
        }
        for method in ["tools/Call", "tools/list2", "resources/subscribed", "x"] {
            assert_eq!(with(method, r#""name":"a""#).unwrap().about, About::Other, "{method}");
        }
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for params in [
            r#""name":"a","name":"b""#,
            r#""name":"a","Name":"b""#,
            r#""Name":"a""#,
            r#""name":7"#,
            r#""name":"\ud800""#,
            r#""name":"a","_meta":{"dev.toolcell/token":"x","dev.toolcell/token":"y"}"#,
            r#""name":"a","_meta":{"dev.toolcell/token":"x","dev.toolcell\/token":"y"}"#,
            r#""name":"a","_meta":{"dev.toolcell/token":"x","DEV.toolcell/token":"y"}"#,
            r#""name":"a","_meta":{"dev.toolcell/token":7}"#,
            r#""name":"a","_meta":{"dev.toolcell/token":null}"#,
            r#""name":"a","_meta":{"dev.toolcell/token":["x"]}"#,
            r#""name":"a","_meta":{"dev.toolcell/front":"x","dev.toolcell/front":"x"}"#,
            r#""name":"a","_meta":{"dev.toolcell/front":"x","dev.toolcell/Front":"x"}"#,
            r#""name":"a","_meta":{"dev.toolcell/front":7}"#,
            r#""name":"a","_meta":{"dev.toolcell/signature":{},"dev.toolcell/signature":{}}"#,
            r#""name":"a","_meta":{"dev.toolcell/signature":{},"dev.toolcell/Signature":{}}"#,
            r#""name":"a","_meta":[{"dev.toolcell/token":"x"}]"#,
            r#""name":"a","_meta":null"#,
            r#""name":"a","_meta":{},"_meta":{"dev.toolcell/token":"x"}"#,
            r#""name":"a","_Meta":{"dev.toolcell/token":"x"}"#,
        ] {
            assert!(with("tools/call", params).is_err(), "{params}");
        }
        for params in
            [r#""ref":{"name":"a"},"ref":{"name":"b"}"#, r#""ref":{"name":"a","Uri":"b"}"#, r#""ref":{}"#, ""]
        {
            assert!(with("completion/complete", params).is_err(), "{params}");
        }
        for line in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"Params":{"name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","METHOD":"tools/call","params":{"name":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"Id":2,"method":"tools/list"}"#,
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_proof_is_taken_out_and_nothing_else() {
        let strip = |line: &str| without_proof(line.as_bytes()).map(|line| String::from_utf8(line).unwrap());
        let line = r#"{ "params":{"_meta":{"a":1.0, "dev.toolcell\/token":"x" ,"b":2},"name":"\u0061"} }"#;
        assert_eq!(strip(line).unwrap(), r#"{ "params":{"_meta":{"a":1.0, "b":2},"name":"\u0061"} }"#);
        let line = r#"{"params":{"_meta":{"dev.toolcell/token":"x"},"dev.toolcell/token":"kept"}}"#;
        assert_eq!(strip(line).unwrap(), r#"{"params":{"_meta":{},"dev.toolcell/token":"kept"}}"#);
        let line =
            r#"{"params":{"_meta":{"dev.toolcell/signature":{"key":1},"a":1,"dev.toolcell/token":"x"}}}"#;
        assert_eq!(strip(line).unwrap(), r#"{"params":{"_meta":{"a":1}}}"#);
        let line = r#"{"params":{"_meta":{"dev.toolcell/front":"x y","a":1.0}}}"#;
        assert_eq!(strip(line).unwrap(), r#"{"params":{"_meta":{"a":1.0}}}"#);
        assert_eq!(strip(r#"{"params":{"_meta":{"a":"dev.toolcell/token"}}}"#), None);
        assert_eq!(strip("{}"), None);
    }
}
