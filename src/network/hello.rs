//! Reads which server a TLS client asks for, from the first bytes that it sends (RFC 8446, RFC 6066).
//!
//! Neighbours: `relay` collects the bytes and passes them on as they came. Never: reads beyond the first message, or takes what it
//! cannot read for something harmless.

/// The most bytes that are waited for.
pub const MOST: usize = 16 * 1024;

/// What the bytes so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The beginning of something that may become a greeting.
    Part,
    /// A whole greeting.
    Hello(Hello),
    /// Something else, and why.
    Other(&'static str),
}

/// A client's greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server's name, as it was sent.
    pub name: Option<Vec<u8>>,
    /// Another greeting is encrypted in it, with a name that only the server reads.
    pub encrypted: bool,
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn look(bytes: &[u8]) -> Seen {
    match handshake(bytes) {
        Ok(None) if bytes.len() >= MOST => Seen::Other("the greeting is too long"),
        Ok(None) => Seen::Part,
        Ok(Some(body)) => greeting(&body).map_or(Seen::Other("the greeting cannot be read"), Seen::Hello),
        Err(why) => Seen::Other(why),
    }
}

/// The body of the first message, put together from its records; `None` when some of it is missing.
fn handshake(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const RECORD_MOST: usize = 1 << 14;
    const NO_TLS: &str = "it is no TLS";
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some((head, body)) = message.split_at_checked(4) {
            let [kind, a, b, c] = *head else { return Err(NO_TLS) };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if kind != CLIENT_HELLO {
                return Err(NO_TLS);
            }
            if length > MOST {
                return Err("the greeting is too long");
            }
            if let Some(whole) = body.get(..length) {
                return Ok(Some(whole.to_vec()));
            }
        } else if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NO_TLS);
        }
        // What is there of the next record's head must fit.
        match rest {
            [] | [HANDSHAKE] | [HANDSHAKE, 3] | [HANDSHAKE, 3, _] | [HANDSHAKE, 3, _, _] => return Ok(None),
            [HANDSHAKE, 3, _, high, low, after @ ..] => {
                let length = usize::from(*high) << 8 | usize::from(*low);
                if length == 0 || length > RECORD_MOST {
                    return Err(NO_TLS);
                }
                message.extend(after.iter().take(length));
                match after.get(length..) {
                    Some(next) => rest = next,
                    // The record is not whole; what is there may be all that counts.
                    None => rest = &[],
                }
            }
            _ => return Err(NO_TLS),
        }
    }
}

/// Bytes that are read from the front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes with their length before them.
    fn counted(&mut self, bytes: usize) -> Option<Reader<'b>> {
        let length = self.number(bytes)?;
        self.take(length).map(Reader)
    }
}

/// The names in a whole message; `None` if it is not as it must be.
fn greeting(body: &[u8]) -> Option<Hello> {
    const SERVER_NAME: usize = 0;
    const ENCRYPTED_HELLO: [usize; 2] = [0xfe0d, 0xffce];
    let mut reader = Reader(body);
    let _version_and_random = reader.take(2 + 32)?;
    let _session = reader.counted(1)?;
    let _suites = reader.counted(2)?;
    let _compression = reader.counted(1)?;
    let mut hello = Hello { name: None, encrypted: false };
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = reader.counted(2)?;
    if !reader.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let data = extensions.counted(2)?;
        hello.encrypted |= ENCRYPTED_HELLO.contains(&kind);
        if kind == SERVER_NAME && hello.name.replace(server_name(data)?).is_some() {
            return None;
        }
    }
    Some(hello)
}

/// The one name of the list.
fn server_name(mut data: Reader<'_>) -> Option<Vec<u8>> {
    let mut list = data.counted(2)?;
    let kind = list.number(1)?;
    let name = list.counted(2)?;
    (kind == 0 && list.0.is_empty() && data.0.is_empty() && !name.0.is_empty()).then(|| name.0.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[8 - bytes..], content].concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), counted(2, data)].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        extension(0, &counted(2, &[vec![0], counted(2, name)].concat()))
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(counted(1, &[1; 32]));
        body.extend(counted(2, &[0x13, 1, 0x13, 2]));
        body.extend(counted(1, &[0]));
        body.extend(counted(2, &extensions.concat()));
        [vec![1], counted(3, &body)].concat()
    }

    /// In records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|chunk| [vec![22, 3, 1], counted(2, chunk)].concat()).collect()
    }

    fn hello(name: Option<&str>, encrypted: bool) -> Seen {
        Seen::Hello(Hello { name: name.map(|name| name.as_bytes().to_vec()), encrypted })
    }

    #[test]
    fn the_name_is_found_however_it_is_cut() {
        let message = message(&[
            extension(10, &[0, 2, 0, 29]),
            named(b"a.example"),
            extension(16, &[0, 3, 2, b'h', b'2']),
        ]);
        for size in [1, 2, 3, 5, 100, message.len()] {
            let bytes = records(&message, size);
            for cut in 0..bytes.len() {
                assert_eq!(look(&bytes[..cut]), Seen::Part, "{size} {cut}");
            }
            assert_eq!(look(&bytes), hello(Some("a.example"), false));
            // What comes behind it is not looked at.
            assert_eq!(look(&[bytes, vec![20, 3, 3, 0, 1, 1]].concat()), hello(Some("a.example"), false));
        }
    }

    #[test]
    fn what_hides_its_name_or_has_none_is_told_apart() {
        let read = |extensions: &[Vec<u8>]| look(&records(&message(extensions), 1000));
        assert_eq!(read(&[]), hello(None, false));
        assert_eq!(read(&[named(b"a.example"), extension(0xfe0d, &[0])]), hello(Some("a.example"), true));
        assert_eq!(read(&[extension(0xffce, &[0])]), hello(None, true));
        let unreadable = Seen::Other("the greeting cannot be read");
        assert_eq!(read(&[named(b"a.example"), named(b"b.example")]), unreadable);
        assert_eq!(read(&[named(b"")]), unreadable);
        assert_eq!(read(&[extension(0, &[])]), unreadable);
        let two = [vec![0], counted(2, b"a"), vec![0], counted(2, b"b")].concat();
        assert_eq!(read(&[extension(0, &counted(2, &two))]), unreadable);
    }

    #[test]
    fn what_is_no_greeting_is_known_by_its_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"SSH-2.0-x",
            &[22, 2],
            &[22, 3, 1, 0, 0],
            &[22, 3, 1, 0x50, 0],
            &[22, 3, 1, 0, 4, 2],
            &[0x80, 0x2e, 1],
        ] {
            assert_eq!(look(bytes), Seen::Other("it is no TLS"), "{bytes:?}");
        }
        assert_eq!(look(&[22, 3, 1, 0, 4, 1, 1, 0, 0]), Seen::Other("the greeting is too long"));
        // Many tiny records, of which no message is made for a long time.
        let slow = [vec![1, 0, 0x3f, 0xff], vec![0; 3000]].concat();
        assert_eq!(look(&records(&slow, 1)[..MOST]), Seen::Other("the greeting is too long"));
    }

    proptest! {
        /// Nothing panics, and what is a beginning stays one when there is less of it.
        #[test]
        fn any_bytes_are_something(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let seen = look(&bytes);
            if seen == Seen::Part {
                prop_assert_eq!(look(&bytes[..cut.min(bytes.len())]), Seen::Part);
            }
        }
    }
}
