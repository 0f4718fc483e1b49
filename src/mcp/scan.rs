//! An incremental JSON validator that finds the members of a message's outermost object.
//!
//! It takes a line in pieces of any size and keeps only a few hundred bytes, so that a message of any length is
//! checked while it passes. It accepts exactly what `serde_json` accepts as a raw value, up to [`MAX_DEPTH`].
//!
//! ```text
//! Value ──► String | Number | Literal ──► After ──► (`,`) Value or Key   (`]` `}`) After, one level up
//!   └─────► FirstItem (`[`)  FirstKey (`{`) ──► Key ──► Colon ──► Value
//! ```
//!
//! Neighbours: [`super::envelope`] reads whole lines with it, the session streams long answers through it.
//! Never: builds a value, or looks at what a string means other than a key of the outer two levels.

use std::ops::Range;

use thiserror::Error;

/// Deeper nesting is refused: readers that recurse must survive what passes here.
pub const MAX_DEPTH: usize = 512;
const DEPTH_WORDS: usize = MAX_DEPTH / 64 + 1;
/// Longer keys cannot be one of the known names, escapes included.
const KEY_BYTES: usize = 64;

/// Why a text is not a JSON message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The grammar of RFC 8259 does not allow this byte here.
    #[error("invalid JSON at byte {0}")]
    Syntax(usize),
    /// Not UTF-8.
    #[error("invalid UTF-8 near byte {0}")]
    Utf8(usize),
    /// More than [`MAX_DEPTH`] containers inside each other.
    #[error("JSON nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// The text ends inside a value.
    #[error("JSON that ends too early")]
    Truncated,
}

/// The members of a JSON-RPC message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are JSON-RPC's")]
pub enum Member {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
}

impl Member {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "jsonrpc" => Self::Jsonrpc,
            "id" => Self::Id,
            "method" => Self::Method,
            "params" => Self::Params,
            "result" => Self::Result,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

/// Where the values of the outermost object's known members lie, in bytes from the start of the line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are JSON-RPC's")]
pub struct Spans {
    pub jsonrpc: Option<Range<usize>>,
    pub id: Option<Range<usize>>,
    pub method: Option<Range<usize>>,
    pub params: Option<Range<usize>>,
    pub result: Option<Range<usize>>,
    pub error: Option<Range<usize>>,
}

impl Spans {
    fn slot(&mut self, member: Member) -> &mut Option<Range<usize>> {
        match member {
            Member::Jsonrpc => &mut self.jsonrpc,
            Member::Id => &mut self.id,
            Member::Method => &mut self.method,
            Member::Params => &mut self.params,
            Member::Result => &mut self.result,
            Member::Error => &mut self.error,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    const fn complete(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }

    const fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => Self::ExponentDigits,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstItem,
    FirstKey,
    Key,
    Colon,
    After,
    String { key: bool },
    Escape { key: bool },
    Unicode { key: bool, left: u8 },
    Number(Number),
    Literal { rest: &'static [u8] },
}

/// The bytes of a key of the two outer levels, as they stand between the quotes.
#[derive(Debug, Clone, Copy)]
struct Key {
    bytes: [u8; KEY_BYTES],
    length: usize,
}

impl Key {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        // A length past the end marks a key that is too long to be a known one.
        self.length = self.length.saturating_add(bytes.len()).min(KEY_BYTES + 1);
    }

    /// Is the key this name, however it is escaped?
    fn with_name<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = std::str::from_utf8(self.bytes.get(..self.length)?).ok()?;
        if text.contains('\\') {
            let decoded: String = serde_json::from_str(&format!("\"{text}\"")).ok()?;
            return read(&decoded);
        }
        read(text)
    }
}

/// UTF-8 in pieces: at most three bytes of an unfinished character are kept.
#[derive(Debug, Clone, Copy, Default)]
struct Utf8 {
    pending: [u8; 4],
    length: usize,
}

impl Utf8 {
    /// Where in `chunk` the first wrong byte is, if there is one.
    fn feed(&mut self, mut chunk: &[u8]) -> Result<(), usize> {
        let mut before = 0;
        while self.length > 0 {
            let Some((&byte, rest)) = chunk.split_first() else { return Ok(()) };
            if let Some(room) = self.pending.get_mut(self.length) {
                *room = byte;
            }
            self.length += 1;
            match std::str::from_utf8(self.pending.get(..self.length).unwrap_or_default()) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(before),
            }
            before += 1;
            chunk = rest;
        }
        match std::str::from_utf8(chunk) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let tail = chunk.get(error.valid_up_to()..).unwrap_or_default();
                for (room, byte) in self.pending.iter_mut().zip(tail) {
                    *room = *byte;
                }
                self.length = tail.len();
                Ok(())
            }
            Err(error) => Err(before + error.valid_up_to()),
        }
    }

    /// Bytes that make an unfinished character a valid one.
    fn complete(mut self, out: &mut Vec<u8>) {
        while self.length > 0 && self.length < 4 {
            // The second byte has a narrower range after two of the first bytes; A0 and 90 lie inside them.
            let byte = match (self.length, self.pending.first()) {
                (1, Some(0xe0)) => 0xa0,
                (1, Some(0xf0)) => 0x90,
                _ => 0x80,
            };
            out.push(byte);
            if self.feed(&[byte]).is_err() {
                return;
            }
        }
    }
}

/// The validator. Feed it a line without its newline, then [`Scanner::finish`].
#[derive(Debug, Clone)]
pub struct Scanner {
    state: State,
    depth: usize,
    objects: [u64; DEPTH_WORDS],
    offset: usize,
    utf8: Utf8,
    key: Key,
    root: Option<u8>,
    member: Option<Member>,
    value_at: Option<usize>,
    flag_key: bool,
    tool_error: bool,
    duplicate: bool,
    spans: Spans,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the start of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Value,
            depth: 0,
            objects: [0; DEPTH_WORDS],
            offset: 0,
            utf8: Utf8 { pending: [0; 4], length: 0 },
            key: Key { bytes: [0; KEY_BYTES], length: 0 },
            root: None,
            member: None,
            value_at: None,
            flag_key: false,
            tool_error: false,
            duplicate: false,
            spans: Spans { jsonrpc: None, id: None, method: None, params: None, result: None, error: None },
        }
    }

    /// Checks the next piece of the line.
    ///
    /// # Errors
    /// The first thing in it that no JSON text could have here; the scanner is of no use after that.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Fault> {
        self.utf8.feed(chunk).map_err(|at| Fault::Utf8(self.offset + at))?;
        let mut rest = chunk;
        while let Some((&byte, after)) = rest.split_first() {
            if let State::String { key } = self.state {
                let (run, others) = rest.split_at(plain_run(rest));
                if !run.is_empty() {
                    if key && self.depth <= 2 {
                        self.key.push(run);
                    }
                    self.offset += run.len();
                    rest = others;
                    continue;
                }
            }
            self.step(byte)?;
            self.offset += 1;
            rest = after;
        }
        Ok(())
    }

    /// The line has ended.
    ///
    /// # Errors
    /// When a value is unfinished.
    pub fn finish(&mut self) -> Result<(), Fault> {
        if let State::Number(number) = self.state
            && number.complete()
            && self.depth == 0
        {
            self.end_value(self.offset);
        }
        if self.utf8.length == 0 && self.depth == 0 && self.state == State::After {
            return Ok(());
        }
        Err(Fault::Truncated)
    }

    /// Bytes seen so far.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The first byte of the outermost value.
    #[must_use]
    pub const fn root(&self) -> Option<u8> {
        self.root
    }

    /// The known members whose values have ended.
    #[must_use]
    pub const fn spans(&self) -> &Spans {
        &self.spans
    }

    /// A known member was there twice.
    #[must_use]
    pub const fn duplicate(&self) -> bool {
        self.duplicate
    }

    /// `result.isError` is `true`.
    #[must_use]
    pub const fn tool_error(&self) -> bool {
        self.tool_error
    }

    /// The outermost object's member whose value is being read, if it is a known one.
    #[must_use]
    pub fn inside(&self) -> Option<Member> {
        self.value_at.and(self.member)
    }

    /// Where the value that is being read at the outermost object's level began.
    #[must_use]
    pub const fn inside_from(&self) -> Option<usize> {
        self.value_at
    }

    /// The bytes that make what was seen so far a valid text in which `depth` containers are open
    /// and a further member or item, or their end, may follow.
    pub fn complete(&self, depth: usize, out: &mut Vec<u8>) {
        self.utf8.complete(out);
        let (end, key): (&[u8], bool) = match self.state {
            State::String { key } => (b"\"", key),
            State::Escape { key } => (b"\\\"", key),
            State::Unicode { key, left } => {
                out.extend(std::iter::repeat_n(b'0', usize::from(left)));
                (b"\"", key)
            }
            State::Value => (b"null", false),
            State::Colon => (b"", true),
            State::Key => (b"\"\"", true),
            State::Literal { rest } => (rest, false),
            State::Number(number) if !number.complete() => (b"0", false),
            State::Number(_) | State::FirstItem | State::FirstKey | State::After => (b"", false),
        };
        out.extend_from_slice(end);
        if key {
            out.extend_from_slice(b":null");
        }
        for level in (depth + 1..=self.depth).rev() {
            out.push(if self.is_object(level) { b'}' } else { b']' });
        }
    }

    fn is_object(&self, level: usize) -> bool {
        self.objects.get(level / 64).is_some_and(|word| word & (1 << (level % 64)) != 0)
    }

    fn step(&mut self, byte: u8) -> Result<(), Fault> {
        let wrong = Fault::Syntax(self.offset);
        let space = matches!(byte, b' ' | b'\n' | b'\t' | b'\r');
        match self.state {
            State::Value | State::FirstItem | State::FirstKey | State::Key | State::Colon | State::After
                if space => {}
            State::FirstItem if byte == b']' => self.pop(),
            State::Value | State::FirstItem => return self.begin(byte),
            State::FirstKey if byte == b'}' => self.pop(),
            State::FirstKey | State::Key if byte == b'"' => {
                self.key.length = 0;
                self.state = State::String { key: true };
            }
            State::Colon if byte == b':' => self.state = State::Value,
            State::After if self.depth == 0 => return Err(wrong),
            State::After => match (byte, self.is_object(self.depth)) {
                (b',', true) => self.state = State::Key,
                (b',', false) => self.state = State::Value,
                (b'}', true) | (b']', false) => self.pop(),
                _ => return Err(wrong),
            },
            State::FirstKey | State::Key | State::Colon => return Err(wrong),
            State::String { key } => match byte {
                b'"' if key => self.end_key(),
                b'"' => self.end_value(self.offset + 1),
                b'\\' => {
                    self.keep(key, byte);
                    self.state = State::Escape { key };
                }
                _ => return Err(wrong),
            },
            State::Escape { key } => {
                self.keep(key, byte);
                self.state = match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => State::String { key },
                    b'u' => State::Unicode { key, left: 4 },
                    _ => return Err(wrong),
                };
            }
            State::Unicode { key, left } => {
                if !byte.is_ascii_hexdigit() {
                    return Err(wrong);
                }
                self.keep(key, byte);
                self.state =
                    if left > 1 { State::Unicode { key, left: left - 1 } } else { State::String { key } };
            }
            State::Literal { rest } => match rest.split_first() {
                Some((&expected, [])) if expected == byte => {
                    // The flag outlives only the start of a `true`.
                    self.tool_error |= self.flag_key && self.depth == 2;
                    self.end_value(self.offset + 1);
                }
                Some((&expected, rest)) if expected == byte => self.state = State::Literal { rest },
                _ => return Err(wrong),
            },
            State::Number(number) => match number.next(byte) {
                Some(next) => self.state = State::Number(next),
                None if number.complete() => {
                    self.end_value(self.offset);
                    return self.step(byte);
                }
                None => return Err(wrong),
            },
        }
        Ok(())
    }

    fn keep(&mut self, key: bool, byte: u8) {
        if key && self.depth <= 2 {
            self.key.push(&[byte]);
        }
    }

    fn begin(&mut self, byte: u8) -> Result<(), Fault> {
        if self.depth == 0 {
            self.root = Some(byte);
        }
        if self.depth == 1 {
            self.value_at = Some(self.offset);
        }
        // Only `true` raises the flag, and a container or another value in its place must not.
        self.flag_key &= byte == b't';
        self.state = match byte {
            b'"' => State::String { key: false },
            b'{' => {
                self.push(true)?;
                State::FirstKey
            }
            b'[' => {
                self.push(false)?;
                State::FirstItem
            }
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            b't' => State::Literal { rest: b"rue" },
            b'f' => State::Literal { rest: b"alse" },
            b'n' => State::Literal { rest: b"ull" },
            _ => return Err(Fault::Syntax(self.offset)),
        };
        Ok(())
    }

    fn push(&mut self, object: bool) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::Depth);
        }
        self.depth += 1;
        if let Some(word) = self.objects.get_mut(self.depth / 64) {
            let bit = 1 << (self.depth % 64);
            if object { *word |= bit } else { *word &= !bit }
        }
        Ok(())
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.end_value(self.offset + 1);
    }

    fn end_key(&mut self) {
        self.state = State::Colon;
        if self.depth == 1 {
            self.member = self.key.with_name(Member::named);
            self.duplicate |= self.member.is_some_and(|member| self.spans.slot(member).is_some());
        } else if self.depth == 2 && self.member == Some(Member::Result) {
            self.flag_key = self.key.with_name(|name| (name == "isError").then_some(())).is_some();
        }
    }

    fn end_value(&mut self, end: usize) {
        self.state = State::After;
        if self.depth == 2 {
            self.flag_key = false;
        }
        if self.depth == 1
            && let Some(start) = self.value_at.take()
            && let Some(member) = self.member.take()
        {
            *self.spans.slot(member) = Some(start..end);
        }
    }
}

/// How many bytes from the start are an ordinary part of a string: no quote, backslash or control character.
fn plain_run(bytes: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let special = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let mut done = 0;
    // No early way out within a block, so that the compiler uses vector instructions.
    for block in bytes.chunks_exact(BLOCK) {
        if block.iter().fold(false, |found, byte| found | special(byte)) {
            break;
        }
        done += BLOCK;
    }
    let rest = bytes.get(done..).unwrap_or_default();
    done + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
