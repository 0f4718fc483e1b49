//! Judges the head of a request that a program in a cell sends to a door at which TLS ends (RFC 9112), and the framing of its body.
//!
//! What two programs could read in two ways is refused: a second length, a length beside chunks, a line feed alone, a folded line, a name
//! with an underscore. What is left is written anew for the server, so that no byte of the framing is the cell's.
//!
//! Neighbours: `ended` collects the bytes and asks. Never: repairs, guesses, or opens a socket.

use crate::policy::http::{OF_THE_DOOR, check_path, is_header};

/// The most bytes of a head,
pub const MOST: usize = 32 * 1024;
/// and its most lines.
const MOST_HEADERS: usize = 100;
/// Digits in front of a chunk, and behind them its line's end.
const SIZE_LINE: usize = 8 + 2;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The beginning of something that may become a head.
    Part,
    /// A whole head, of so many bytes.
    Whole(usize),
    /// Something else.
    Odd(Fault),
}

/// Why a request is refused before it is asked what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The status of the answer.
    pub status: u16,
    /// What is wrong.
    pub why: &'static str,
}

/// A request that can be read in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// In capital letters.
    pub method: String,
    /// As it was sent.
    pub path: String,
    /// What is behind `?`, as it was sent.
    pub query: Option<String>,
    /// The host that it names, as it was sent.
    pub host: String,
    /// The other headers, in their order, without those about the connection; names in lower case.
    pub headers: Vec<(String, String)>,
    /// How its body is framed.
    pub body: Framing,
    /// Nothing follows on this connection.
    pub close: bool,
    /// The body comes when it is asked for.
    pub expects: bool,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or so many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

const fn bad(why: &'static str) -> Fault {
    Fault { status: 400, why }
}

/// Looks at the first bytes of a request.
#[must_use]
pub fn look(bytes: &[u8]) -> Seen {
    look_on(bytes, 0)
}

/// The same, where so many of them were looked at already and were a part.
#[must_use]
pub fn look_on(bytes: &[u8], looked: usize) -> Seen {
    let mut before = looked.checked_sub(1).and_then(|at| bytes.get(at)).copied();
    for (at, byte) in bytes.iter().enumerate().take(MOST).skip(looked) {
        match byte {
            b'\n' if before != Some(b'\r') => return Seen::Odd(bad("a line ends without a carriage return")),
            b'\n' if bytes.get(..at.saturating_sub(1)).is_some_and(|lines| lines.ends_with(b"\r\n")) => {
                return Seen::Whole(at + 1);
            }
            b'\n' => {}
            _ if before == Some(b'\r') => return Seen::Odd(bad("a carriage return stands within a line")),
            b'\t' | b'\r' | 0x20..=0x7e => {}
            _ if at == 0 => {
                return Seen::Odd(bad("it is no HTTP: at this door TLS ends, and HTTP is spoken"));
            }
            _ => return Seen::Odd(bad("a character stands in the head that is not printable ASCII")),
        }
        before = Some(*byte);
    }
    match bytes.len() >= MOST {
        true => Seen::Odd(Fault { status: 431, why: "the head is too long" }),
        false => Seen::Part,
    }
}

/// Reads a whole head.
///
/// # Errors
/// Why it is refused.
pub fn judge(head: &[u8]) -> Result<Head, Fault> {
    let text = std::str::from_utf8(head).map_err(|_no: std::str::Utf8Error| bad("the head is no text"))?;
    let mut lines = text.strip_suffix("\r\n\r\n").ok_or(bad("the head has no end"))?.split("\r\n");
    let (method, target) = request_line(lines.next().unwrap_or_default())?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    check_path(path.as_bytes()).map_err(bad)?;
    if !query.is_none_or(is_query) {
        return Err(bad("behind `?` stands what no address has"));
    }
    let mut read = Read::default();
    for (nth, line) in lines.enumerate() {
        if nth == MOST_HEADERS {
            return Err(Fault { status: 431, why: "there are too many headers" });
        }
        read.line(line)?;
    }
    let body = match (read.length, read.chunked) {
        (Some(_), true) => return Err(bad("its length is told in two ways")),
        (None, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Head {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        host: read.host.ok_or(bad("it names no `Host`"))?,
        headers: read.headers,
        body,
        close: read.close,
        expects: read.expects,
    })
}

/// Longer methods nobody has registered.
const LONGEST_METHOD: usize = 32;

fn request_line(line: &str) -> Result<(&str, &str), Fault> {
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("its first line is not a method, a path and a version"));
    };
    if method.is_empty()
        || method.len() > LONGEST_METHOD
        || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        return Err(bad("its method is not a few capital letters"));
    }
    if version != "HTTP/1.1" {
        return Err(Fault { status: 505, why: "a door speaks HTTP/1.1 and no other version" });
    }
    if method == "CONNECT" {
        return Err(Fault { status: 405, why: "a door is no proxy" });
    }
    if !target.starts_with('/') {
        return Err(bad("it asks for something else than a path: a door is no proxy"));
    }
    Ok((method, target))
}

/// What headers have said so far.
#[derive(Debug, Default)]
struct Read {
    host: Option<String>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    expects: bool,
    headers: Vec<(String, String)>,
}

impl Read {
    fn line(&mut self, line: &str) -> Result<(), Fault> {
        if line.starts_with([' ', '\t']) {
            return Err(bad("a header goes on in the next line"));
        }
        let (name, value) = line.split_once(':').ok_or(bad("a header has no `:`"))?;
        if !is_header(name) {
            return Err(bad("a header's name is not made of letters, digits and `-`"));
        }
        let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
        match name.as_str() {
            "host" if self.host.is_some() => return Err(bad("it names two hosts")),
            "host" => self.host = Some(value.to_owned()),
            "content-length" if self.length.is_some() => return Err(bad("its length is told twice")),
            "content-length" => {
                let digits =
                    (1..=18).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
                let length = value.parse().ok().filter(|_| digits);
                self.length = Some(length.ok_or(bad("its length is no number"))?);
            }
            "transfer-encoding" if self.chunked => return Err(bad("its encoding is told twice")),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => self.chunked = true,
            "transfer-encoding" => {
                return Err(Fault { status: 501, why: "its body is encoded otherwise than in chunks" });
            }
            "connection" => {
                for token in
                    value.split(',').map(|token| token.trim_matches([' ', '\t']).to_ascii_lowercase())
                {
                    match token.as_str() {
                        "close" => self.close = true,
                        "keep-alive" | "te" | "" => {}
                        _ => return Err(bad("`Connection` says what a door does not do")),
                    }
                }
            }
            "expect" if value.eq_ignore_ascii_case("100-continue") => self.expects = true,
            "expect" => return Err(Fault { status: 417, why: "it expects what a door does not do" }),
            "upgrade" => return Err(bad("it wants to speak something else than HTTP/1.1")),
            "trailer" => return Err(bad("it announces headers behind its body")),
            name if leads_elsewhere(name) => {
                return Err(bad("a header asks for another method, path or host than the request does"));
            }
            name if OF_THE_DOOR.contains(&name) => {}
            _ => self.headers.push((name, value.to_owned())),
        }
        Ok(())
    }
}

/// Headers by which servers and what is in front of them take another method, path or host.
fn leads_elsewhere(name: &str) -> bool {
    name.starts_with("x-forwarded")
        || name.starts_with("x-original-")
        || name.starts_with("x-rewrite-")
        // Clouds copy from there, WebDAV to there.
        || name.ends_with("-copy-source")
        || name.ends_with("-rename-source")
        || matches!(
            name,
            "destination"
                | "forwarded"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-host"
                | "x-http-host-override"
                | "http2-settings"
        )
}

fn is_query(query: &str) -> bool {
    let bytes = query.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?[]{}|^".contains(byte),
    })
}

/// Is this how the door's host is named, with the port that it has in the cell, or without?
#[must_use]
pub fn names(said: &str, host: &str, listen: u16) -> bool {
    match said.split_once(':') {
        None => said.eq_ignore_ascii_case(host),
        Some((name, port)) => name.eq_ignore_ascii_case(host) && port == listen.to_string(),
    }
}

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// More bytes have to come.
    More,
    /// Some of it.
    Data(Vec<u8>),
    /// That was all.
    End,
}

/// The body of a request, as it is taken from what has come.
#[derive(Debug)]
pub struct Body {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes are to come; in chunks or not.
    Data(u64, bool),
    /// The size of the next chunk,
    Size,
    /// the line's end behind its data,
    Behind,
    /// and the empty line behind the last one.
    Last,
    End,
}

impl Body {
    /// One that is framed like this.
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Data(length, false),
            Framing::Chunked => State::Size,
        };
        Self { state }
    }

    /// Takes what belongs to it out of `bytes`.
    ///
    /// # Errors
    /// Its framing is wrong: nobody can say where it ends.
    pub fn take(&mut self, bytes: &mut Vec<u8>) -> Result<Piece, Fault> {
        loop {
            match self.state {
                State::End => return Ok(Piece::End),
                State::Data(..) if bytes.is_empty() => return Ok(Piece::More),
                State::Data(left, chunked) => {
                    let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let data: Vec<u8> = bytes.drain(..count).collect();
                    let left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                    self.state = match (left, chunked) {
                        (0, true) => State::Behind,
                        (0, false) => State::End,
                        (left, chunked) => State::Data(left, chunked),
                    };
                    return Ok(Piece::Data(data));
                }
                State::Size => {
                    let Some(end) = bytes.iter().take(SIZE_LINE).position(|byte| *byte == b'\n') else {
                        return match bytes.len() < SIZE_LINE {
                            true => Ok(Piece::More),
                            false => Err(bad("a chunk begins with more than its size")),
                        };
                    };
                    let line: Vec<u8> = bytes.drain(..=end).collect();
                    let digits = line.strip_suffix(b"\r\n").filter(|digits| !digits.is_empty());
                    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                    let size = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                    let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                    self.state = match size.ok_or(bad("a chunk's size is no number in its line"))? {
                        0 => State::Last,
                        size => State::Data(size, true),
                    };
                }
                State::Behind | State::Last => {
                    let Some(line) = bytes.get(..2) else {
                        let begun = bytes.first().is_none_or(|byte| *byte == b'\r');
                        return if begun { Ok(Piece::More) } else { Err(bad("a chunk has no end")) };
                    };
                    if line != b"\r\n" {
                        return Err(bad("behind a chunk stands something else than the end of its line"));
                    }
                    bytes.drain(..2);
                    self.state = if matches!(self.state, State::Behind) { State::Size } else { State::End };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
