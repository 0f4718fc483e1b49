//! What a front changes in lines: ids and progress tokens, which many clients choose alike, and the word on who sends.
//!
//! Every other byte goes to the supervisor and comes back as it was written, but for line ends between a body's tokens,
//! which would end the line.
//!
//! Neighbours: [`super::shared`] and [`super::session`] send the lines. Never: does I/O, or decides.

use std::ops::Range;

use crate::access::{FRONT_MEMBER, PROOFS};
use crate::mcp::envelope::{self, Id, Message, alike};
use crate::mcp::{label, object};

/// One message of a client.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) line: Vec<u8>,
    pub(super) message: Message,
}

/// What the answer to a request gets back.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The id, as the client wrote it.
    pub(super) id: Vec<u8>,
    /// The progress token, as the client wrote it.
    pub(super) token: Option<Vec<u8>>,
}

impl Incoming {
    /// Reads a body. JSON has line ends between tokens only, so each can be a space.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(mut body: Vec<u8>) -> Result<Self, envelope::Refusal> {
        for byte in &mut body {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        let message = envelope::parse(&body)?;
        Ok(Self { line: body, message })
    }

    pub(super) fn slice(&self, span: Range<usize>) -> &[u8] {
        self.line.get(span).unwrap_or_default()
    }

    /// Where `params._meta` stands.
    pub(super) fn meta(&self) -> Option<Range<usize>> {
        object::member(&self.line, self.message.params.clone()?, "_meta")
    }

    /// A string member of `_meta`. `Err`: it is there, and no string.
    pub(super) fn meta_text(&self, name: &str) -> Option<Result<String, ()>> {
        let span = object::member(&self.line, self.meta()?, name)?;
        Some(object::text(self.slice(span)).map(std::borrow::Cow::into_owned).ok_or(()))
    }

    /// Whether the body itself says who sends it, which over HTTP a header does.
    pub(super) fn has_proof(&self) -> bool {
        let Some(params) = &self.message.params else { return false };
        let metas =
            object::members(&self.line, params.clone()).into_iter().filter(|m| alike(&m.name, "_meta"));
        let mut members = metas.flat_map(|meta| object::members(&self.line, meta.value));
        members.any(|member| PROOFS.iter().any(|proof| alike(&member.name, proof)))
    }

    /// The line with the front's word in `_meta`. `None`: there is no place for it.
    pub(super) fn with_word(&self, word: &str) -> Option<Vec<u8>> {
        let member = format!("\"{FRONT_MEMBER}\":{}", serde_json::Value::from(word));
        let brace = |span: &Range<usize>| (self.line.get(span.start) == Some(&b'{')).then_some(span.start);
        match (&self.message.params, self.meta()) {
            (_, Some(meta)) => Some(object::inserted(&self.line, brace(&meta)?, member.as_bytes())),
            (Some(params), None) => {
                let member = format!("\"_meta\":{{{member}}}");
                Some(object::inserted(&self.line, brace(params)?, member.as_bytes()))
            }
            (None, None) => {
                let start = self.line.iter().position(|byte| *byte == b'{')?;
                let member = format!("\"params\":{{\"_meta\":{{{member}}}}}");
                Some(object::inserted(&self.line, start, member.as_bytes()))
            }
        }
    }

    /// The request under another id, which is its progress token too if it has one.
    pub(super) fn numbered(&self, number: i64) -> (Vec<u8>, Kept) {
        let token = self.meta().and_then(|meta| object::member(&self.line, meta, "progressToken"));
        let token = token.filter(|span| Id::parse(self.slice(span.clone())).is_some());
        let kept = Kept {
            id: self.slice(self.message.id.clone()).to_vec(),
            token: token.clone().map(|span| self.slice(span).to_vec()),
        };
        let mut spans: Vec<Range<usize>> = token.into_iter().chain([self.message.id.clone()]).collect();
        // The later edit first, so that the earlier one's position still holds.
        spans.sort_by_key(|span| std::cmp::Reverse(span.start));
        let number = number.to_string();
        let line = spans
            .into_iter()
            .fold(self.line.clone(), |line, span| object::replaced(&line, &span, number.as_bytes()));
        (line, kept)
    }
}

/// The answer under the client's own id.
pub(super) fn answer(line: &[u8], message: &Message, kept: &Kept) -> Vec<u8> {
    object::replaced(line, &message.id, &kept.id)
}

/// A notification for a request under the client's own progress token, or the client's own id where that is its subscription's.
pub(super) fn note(line: Vec<u8>, number: i64, kept: &Kept) -> Vec<u8> {
    let ours = |line: &[u8], path: &[&str]| {
        let span = object::lookup(line, 0..line.len(), path)?;
        (line.get(span.clone()).and_then(Id::parse) == Some(Id::Number(number))).then_some(span)
    };
    let line = match (&kept.token, ours(&line, &["params", "progressToken"])) {
        (Some(own), Some(span)) => object::replaced(&line, &span, own),
        _ => line,
    };
    match ours(&line, &["params", "_meta", "io.modelcontextprotocol/subscriptionId"]) {
        Some(span) => object::replaced(&line, &span, &kept.id),
        None => line,
    }
}

/// For which request a line is that is no answer, and the line as the server wrote it.
pub(super) fn unlabelled(line: Vec<u8>) -> (Option<Id>, Vec<u8>) {
    match label::unlabelled(&line) {
        Some((id, line)) => (Some(id), line),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Incoming {
        Incoming::read(body.as_bytes().to_vec()).unwrap()
    }

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_body_of_several_lines_becomes_one() {
        let incoming = read("{\r\n \"jsonrpc\":\"2.0\",\"method\":\"a\\nb\",\n\"id\":1}\n");
        assert_eq!(text(incoming.line), "{   \"jsonrpc\":\"2.0\",\"method\":\"a\\nb\", \"id\":1} ");
    }

    #[test]
    fn ids_and_tokens_go_and_come_back_as_they_were_written() {
        let incoming = read(
            r#"{"jsonrpc":"2.0","params":{"x":1.0,"_meta":{"progressToken":"\u0061"}},"id": "7" ,"method":"tools/call"}"#,
        );
        let (line, kept) = incoming.numbered(41);
        assert_eq!(
            text(line),
            r#"{"jsonrpc":"2.0","params":{"x":1.0,"_meta":{"progressToken":41}},"id": 41 ,"method":"tools/call"}"#
        );
        let said = br#"{"result":{"y":1e2},"id":41,"jsonrpc":"2.0"}"#;
        let message = envelope::parse(said).unwrap();
        assert_eq!(text(answer(said, &message, &kept)), r#"{"result":{"y":1e2},"id":"7","jsonrpc":"2.0"}"#);
        let progress = r#"{"method":"notifications/progress","params":{"progressToken":41,"progress":1.0}}"#;
        let expected = progress.replace("41", r#""\u0061""#);
        assert_eq!(text(note(progress.into(), 41, &kept)), expected);
        let heard = r#"{"params":{"_meta":{"io.modelcontextprotocol/subscriptionId":41},"x":41}}"#;
        let expected = heard.replacen("41", r#""7""#, 1);
        assert_eq!(text(note(heard.into(), 41, &kept)), expected);
        assert_eq!(text(note(heard.into(), 4, &kept)), heard);
        // A number that is another's token stays.
        assert_eq!(text(note(progress.into(), 4, &kept)), progress);
        assert_eq!(text(note(progress.into(), 41, &Kept::default())), progress);
    }

    #[test]
    fn the_word_has_a_place_wherever_it_can() {
        let word = |body: &str| read(body).with_word("w").map(text);
        let front = r#""dev.toolcell/front":"w""#;
        for (body, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#,
                format!(r#"{{"params":{{"_meta":{{{front}}}}},"jsonrpc":"2.0","id":1,"method":"x"}}"#),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{ }}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"_meta":{{{front}}} }}}}"#),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1}}}"#,
                format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"_meta":{{{front},"a":1}}}}}}"#),
            ),
        ] {
            assert_eq!(word(body), Some(expected));
        }
        assert_eq!(word(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#), None);
        assert_eq!(word(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":7}}"#), None);
    }

    #[test]
    fn proofs_in_a_body_are_seen_in_whichever_letters() {
        let has = |meta: &str| {
            read(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{{meta}}}}}"#)).has_proof()
        };
        for meta in [
            r#""_meta":{"dev.toolcell/token":"x"}"#,
            r#""_meta":{"dev.toolcell\/signature":{}}"#,
            r#""_meta":{"DEV.toolcell/front":"x"}"#,
            r#""_Meta":{"dev.toolcell/token":"x"}"#,
            r#""_meta":{},"_meta":{"dev.toolcell/token":"x"}"#,
        ] {
            assert!(has(meta), "{meta}");
        }
        assert!(!has(r#""_meta":{"a":"dev.toolcell/token"},"dev.toolcell/token":1"#));
    }
}
