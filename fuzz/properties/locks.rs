//! A lock file, and a definition as a server lists it: any text is a lock that is written and read again as it was, or is
//! refused; any definition is compared with itself as the same, and what is told of it is safe to show.
//!
//! Never: opens a file.

use std::collections::BTreeMap;

use toolcell::lock::{Definition, Guard, Item, Kind, LockFile, Server, compare, filtered, flags, parse};
use toolcell::mcp::envelope;
use toolcell::text::escape;

/// Reads a text as a lock file, and as a tool that a server lists.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse(&text) {
        Ok(lock) => again(&lock),
        Err(error) => shown(&error.to_string()),
    }
    // Only what is JSON is ever looked at by position.
    let line =
        [br#"{"jsonrpc":"2.0","id":1,"result":{"tools":["#.as_slice(), text.as_bytes(), b"]}}"].concat();
    if envelope::parse(&line).is_ok() {
        listed(&line);
    }
}

fn shown(text: &str) {
    // A tab stays what it is, for code in descriptions.
    assert!(text.split(['\n', '\t']).all(|part| escape(part) == part), "{text:?}");
}

fn again(lock: &LockFile) {
    let text = lock.to_toml();
    assert_eq!(parse(&text).as_ref(), Ok(lock), "{text}");
    shown(&text.replace('\n', ""));
    for (name, server) in &lock.servers {
        assert_eq!(compare(lock, name, server), []);
        for difference in compare(&LockFile::default(), name, server) {
            shown(&difference.text());
        }
        for (kind, item) in
            server.items.iter().flat_map(|(kind, items)| items.iter().map(move |item| (kind, item)))
        {
            flags(*kind, &item.definition).iter().for_each(|flag| shown(&flag.excerpt));
        }
    }
}

/// Each element of the list is kept by a lock that was made of the same list, and by no other.
fn listed(line: &[u8]) {
    let mut read = Vec::new();
    let whole = filtered(line.to_vec(), Kind::Tool, |line, span| {
        read.push(Definition::read(Kind::Tool, line, span));
        true
    });
    assert_eq!(whole, line);
    for definition in read.iter().flatten() {
        let item = Item { definition: definition.clone(), ..Item::default() };
        let server = Server {
            command: vec!["server".to_owned()],
            items: BTreeMap::from([(Kind::Tool, vec![item])]),
            ..Server::default()
        };
        let lock = LockFile { servers: BTreeMap::from([("s".to_owned(), server)]) };
        again(&lock);
        let guard = Guard::new("toolcell.lock", &lock, "s").unwrap();
        let mut same = 0;
        let kept = filtered(line.to_vec(), Kind::Tool, |line, span| {
            let now = Definition::read(Kind::Tool, line, span.clone());
            match guard.judge(Kind::Tool, line, span) {
                Ok(name) => {
                    assert_eq!((now.as_ref().ok(), &name), (Some(definition), &definition.name));
                    same += 1;
                    true
                }
                Err((_, difference)) => {
                    shown(&difference.text());
                    assert_ne!(now.as_ref().ok(), Some(definition));
                    false
                }
            }
        });
        assert!(same > 0 && envelope::parse(&kept).is_ok(), "{definition:?}");
    }
}
