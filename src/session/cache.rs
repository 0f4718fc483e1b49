//! Answers of the catalogue that are given again: raw bytes, only the id changed.
//!
//! Neighbours: [`super::catalogue`] fills it, [`super::client`] asks it first. Never: reads a clock, or grows without bound.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::mcp::envelope::Era;
use crate::mcp::object;

/// Bytes of answers that are kept: the supervisor stays small whatever a server lists.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    modern: bool,
    method: String,
    params: Vec<u8>,
}

impl Key {
    /// The key of a request. `None` if its answer is not to be kept.
    pub(super) fn new(era: Era, method: &str, line: &[u8], params: Option<&Range<usize>>) -> Option<Self> {
        let listed = matches!(
            method,
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "server/discover"
        );
        if !listed {
            return None;
        }
        let raw = params.and_then(|params| line.get(params.clone())).unwrap_or_default();
        let params = match era {
            // A modern server may answer by what `_meta` says of the client.
            Era::Modern => raw.to_vec(),
            Era::Legacy => {
                let members = params.map(|params| object::members(line, params.clone())).unwrap_or_default();
                if members.iter().any(|member| member.name != "cursor" && member.name != "_meta") {
                    return None;
                }
                let cursor = members.iter().find(|member| member.name == "cursor");
                cursor.and_then(|member| line.get(member.value.clone())).unwrap_or_default().to_vec()
            }
        };
        Some(Self { modern: era == Era::Modern, method: method.to_owned(), params })
    }
}

#[derive(Debug)]
struct Entry {
    line: Vec<u8>,
    id: Range<usize>,
    until: Option<Instant>,
}

/// The kept answers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    bytes: usize,
}

impl Cache {
    /// The kept answer, for this id.
    pub(super) fn get(&self, key: &Key, id: &[u8], now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(key).filter(|entry| entry.until.is_none_or(|until| now < until))?;
        Some(object::replaced(&entry.line, &entry.id, id))
    }

    /// Keeps a result for the session (legacy), or as long as its `ttlMs` says (modern).
    pub(super) fn put(
        &mut self,
        key: Key,
        line: &[u8],
        id: Range<usize>,
        result: Range<usize>,
        now: Instant,
    ) {
        let until = if key.modern {
            let ttl = object::member(line, result, "ttlMs").and_then(|span| line.get(span));
            let ttl = ttl.and_then(|raw| std::str::from_utf8(raw).ok()?.parse().ok()).unwrap_or(0);
            if ttl == 0 {
                return;
            }
            // A time that cannot be represented is for ever.
            now.checked_add(Duration::from_millis(ttl))
        } else {
            None
        };
        self.entries.retain(|_, entry| entry.until.is_none_or(|until| now < until));
        self.entries.remove(&key);
        self.bytes = self.entries.iter().map(|(key, entry)| key.params.len() + entry.line.len()).sum();
        if self.bytes + key.params.len() + line.len() <= MOST_BYTES {
            self.entries.insert(key, Entry { line: line.to_vec(), id, until });
        }
    }

    /// Forgets everything of an era.
    pub(super) fn clear(&mut self, era: Era) {
        self.entries.retain(|key, _| key.modern != (era == Era::Modern));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::envelope::parse;

    #[test]
    fn an_answer_is_given_again_with_another_id_as_long_as_it_may() {
        let request = br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"x":1}}}"#;
        let params = parse(request).unwrap().params;
        let modern = Key::new(Era::Modern, "tools/list", request, params.as_ref()).unwrap();
        let legacy = Key::new(Era::Legacy, "tools/list", request, params.as_ref()).unwrap();
        assert_eq!(Some(&legacy), Key::new(Era::Legacy, "tools/list", b"", None).as_ref());
        assert_eq!(Key::new(Era::Legacy, "tools/call", b"", None), None);
        let line = b"{\"result\":{\"ttlMs\":50 ,\"tools\":[1.0]},\"id\":1,\"jsonrpc\":\"2.0\"}\n";
        let answer = parse(&line[..line.len() - 1]).unwrap();
        let now = Instant::now();
        let mut cache = Cache::default();
        for key in [&modern, &legacy] {
            cache.put(key.clone(), line, answer.id.clone(), answer.body.clone().unwrap(), now);
        }
        let again = cache.get(&modern, b"\"x\"", now + Duration::from_millis(49)).unwrap();
        assert_eq!(again, b"{\"result\":{\"ttlMs\":50 ,\"tools\":[1.0]},\"id\":\"x\",\"jsonrpc\":\"2.0\"}\n");
        assert_eq!(cache.get(&modern, b"2", now + Duration::from_millis(50)), None);
        assert!(cache.get(&legacy, b"2", now + Duration::from_secs(9999)).is_some());
        cache.clear(Era::Legacy);
        assert_eq!(cache.get(&legacy, b"2", now), None);
    }
}
