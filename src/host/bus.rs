//! The few words of D-Bus that asking systemd takes: the greeting, a method call, and messages as they come
//! (dbus.freedesktop.org/doc/dbus-specification.html, "Authentication Protocol" and "Message Protocol").
//!
//! Neighbours: `host::scope` says them. Never: starts a bus, takes a message of another byte order or of more than
//! [`LONGEST`] bytes, knows what a message is about.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::{Errno, Result, socket};

/// More than any message has that answers ours.
const LONGEST: usize = 64 * 1024;

/// Values as they are sent: little-endian, each aligned to its size from the start of the message.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// `u`, and `b` as 0 or 1.
    pub(super) fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    /// `s` and `o`.
    pub(super) fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `g`, and the beginning of a `v`.
    pub(super) fn signature(&mut self, signature: &str) {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// `a` of what is aligned so.
    pub(super) fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let begin = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        for (byte, value) in self.0.iter_mut().skip(length_at).zip(length.to_le_bytes()) {
            *byte = value;
        }
    }

    /// One `(…)` or `{…}`.
    pub(super) fn structure(&mut self, fill: impl FnOnce(&mut Self)) {
        self.align(8);
        fill(self);
    }
}

/// To whom a call goes, and which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
    pub(super) member: &'static str,
}

/// A method call with its number, by which the reply names it.
pub(super) fn call(number: u32, method: Method, signature: &str, body: &Body) -> Vec<u8> {
    const METHOD_CALL: u8 = 1;
    let mut message = Body(vec![b'l', METHOD_CALL, 0, 1]);
    message.number(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    message.number(number);
    let fields = [
        (1, "o", method.path),
        (2, "s", method.interface),
        (3, "s", method.member),
        (6, "s", method.destination),
    ];
    message.array(8, |message| {
        for (code, kind, value) in fields {
            message.structure(|message| {
                message.0.push(code);
                message.signature(kind);
                message.text(value);
            });
        }
        if !signature.is_empty() {
            message.structure(|message| {
                message.0.push(8);
                message.signature("g");
                message.signature(signature);
            });
        }
    });
    message.align(8);
    message.0.extend(&body.0);
    message.0
}

/// A message of the bus.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Of an error: its name.
    pub(super) error: Option<String>,
    /// Of a signal: its name.
    pub(super) signal: Option<String>,
    /// The number of the call that it answers.
    pub(super) answers: Option<u32>,
    /// The texts at the beginning of the body, numbers left out.
    pub(super) texts: Vec<String>,
}

/// Reads values; what is not there is `EPROTO`.
struct Values<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Values<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(Errno(libc::EPROTO))?;
        let taken = self.bytes.get(self.at..end).ok_or(Errno(libc::EPROTO))?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32> {
        self.at = self.at.next_multiple_of(4);
        let bytes = self.take(4)?.try_into().map_err(|_short| Errno(libc::EPROTO))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn string(&mut self, length: usize) -> Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_foreign| Errno(libc::EPROTO))?;
        self.take(1).map(|_nul| text)
    }

    fn text(&mut self) -> Result<String> {
        let length = self.number()?;
        self.string(length as usize)
    }

    fn signature(&mut self) -> Result<String> {
        let length = self.take(1)?.iter().map(|byte| usize::from(*byte)).sum();
        self.string(length)
    }
}

/// The fields of a header, and the body that they describe.
fn message(kind: u8, fields: &[u8], body: &[u8]) -> Result<Message> {
    const SIGNAL: u8 = 4;
    let mut found = Message::default();
    let mut signature = String::new();
    let mut values = Values { bytes: fields, at: 0 };
    while values.at.next_multiple_of(8) < fields.len() {
        values.at = values.at.next_multiple_of(8);
        let code = values.take(1)?.first().copied();
        let text = match values.signature()?.as_str() {
            "u" => {
                let number = values.number()?;
                found.answers = found.answers.or((code == Some(5)).then_some(number));
                continue;
            }
            "g" => values.signature()?,
            "s" | "o" => values.text()?,
            _ => return Err(Errno(libc::EPROTO)),
        };
        match code {
            Some(3) if kind == SIGNAL => found.signal = Some(text),
            Some(4) => found.error = Some(text),
            Some(8) => signature = text,
            _ => {}
        }
    }
    let mut values = Values { bytes: body, at: 0 };
    for kind in signature.chars() {
        match kind {
            'u' => drop(values.number()?),
            's' | 'o' => found.texts.push(values.text()?),
            _ => break,
        }
    }
    Ok(found)
}

/// A stream whose waiting ends at a moment, however its bytes come.
#[derive(Debug)]
struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let late = || std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => late(),
            _ => error,
        })
    }
}

/// A connection to a bus.
#[derive(Debug)]
pub(super) struct Bus(BufReader<Timed>);

fn errno(error: std::io::Error) -> Errno {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Errno(libc::ECONNRESET),
        _ => Errno::from(error),
    }
}

impl Bus {
    /// Connects. Reading takes no longer than `patience` in all, and connecting and each write no longer than that.
    pub(super) fn connect(path: &Path, patience: Duration) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_nul| Errno(libc::EINVAL))?;
        let stream = UnixStream::from(socket::connect(&name, patience)?);
        Ok(Self(BufReader::new(Timed { stream, until: Instant::now() + patience })))
    }

    /// Says who is calling, and all calls behind it in one go; the bus takes them in order.
    pub(super) fn greet(&mut self, uid: u32, calls: &[Vec<u8>]) -> Result<()> {
        let name: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        let mut bytes = format!("\0AUTH EXTERNAL {name}\r\nBEGIN\r\n").into_bytes();
        bytes.extend(calls.concat());
        Ok(self.0.get_mut().stream.write_all(&bytes)?)
    }

    /// The answer to the greeting: `EACCES` when it is refused.
    pub(super) fn welcome(&mut self) -> Result<()> {
        let mut line = Vec::new();
        (&mut self.0).take(1024).read_until(b'\n', &mut line).map_err(errno)?;
        match line.as_slice() {
            [] => Err(Errno(libc::ECONNRESET)),
            [b'O', b'K', b' ', ..] => Ok(()),
            _ => Err(Errno(libc::EACCES)),
        }
    }

    /// Waits for the next message.
    pub(super) fn next(&mut self) -> Result<Message> {
        let mut head = [0; 16];
        self.0.read_exact(&mut head).map_err(errno)?;
        let mut values = Values { bytes: &head, at: 0 };
        let kind = match values.take(4)? {
            [b'l', kind, _, 1] => *kind,
            _ => return Err(Errno(libc::EPROTO)),
        };
        let (body, _number, fields) = (values.number()?, values.number()?, values.number()?);
        let (body, padded) = (body as usize, (fields as usize).next_multiple_of(8));
        if padded.saturating_add(body) > LONGEST {
            return Err(Errno(libc::EMSGSIZE));
        }
        let mut rest = vec![0; padded + body];
        self.0.read_exact(&mut rest).map_err(errno)?;
        let (head, body) = rest.split_at_checked(padded).ok_or(Errno(libc::EPROTO))?;
        message(kind, head.get(..fields as usize).ok_or(Errno(libc::EPROTO))?, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let method = Method { destination: "a.b", path: "/p", interface: "i.j", member: "M" };
        let mut body = Body::default();
        body.text("x");
        body.array(4, |body| body.number(7));
        let bytes = call(9, method, "sau", &body);
        let mut expected = b"l\x01\x00\x01\x10\0\0\0\x09\0\0\0\x49\0\0\0".to_vec();
        expected.extend(b"\x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0");
        expected.extend(b"\x02\x01s\0\x03\0\0\0i.j\0\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0");
        expected.extend(b"\x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0");
        expected.extend(b"\x08\x01g\0\x03sau\0\0\0\0\0\0\0\0");
        expected.extend(b"\x01\0\0\0x\0\0\0\x04\0\0\0\x07\0\0\0");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_cut_short_is_no_message() {
        let fields = b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\x08\x01g\0\x01s\0";
        let whole = message(4, fields, b"\x02\0\0\0ab\0").unwrap();
        assert_eq!((whole.signal.as_deref(), whole.texts), (Some("M"), vec!["ab".to_owned()]));
        for length in 0..7 {
            let cut = b"\x02\0\0\0ab\0".get(..length).unwrap();
            assert_eq!(message(4, fields, cut), Err(Errno(libc::EPROTO)));
        }
        assert_eq!(message(4, b"\x03\x01s\0\xff\xff\xff\xffM", b""), Err(Errno(libc::EPROTO)));
    }
}
