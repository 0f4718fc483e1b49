//! Regular expressions of JSON Schema, which are ECMA-262's, matched in a time that grows with the text alone.
//!
//! What cannot be matched so (looking around, references back) is no pattern here. `\d`, `\w`, `\s`, `\b` and `.` mean what
//! they mean in ECMA-262, and what is special to the `regex` crate alone is taken literally.
//!
//! Neighbours: `arguments::compile` makes them. Never: backtracks.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Bytes of a pattern, at most.
const MOST: usize = 4096;
/// Bytes of a program, at most, in steps: what a larger one costs is counted as so much more.
const SIZES: [usize; 3] = [16 * 1024, 64 * 1024, 256 * 1024];
/// Groups inside each other, at most.
const NEST: u32 = 32;

const SPACES: &str =
    r"\t\n\x0B\x0C\r \u{A0}\u{1680}\u{2000}-\u{200A}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}";
const WORD: &str = "A-Za-z0-9_";
const DIGITS: &str = "0-9";

/// A pattern.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) text: String,
    regex: Regex,
    size: usize,
}

impl Pattern {
    /// Makes one.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.len() > MOST {
            return Err(format!("is longer than {MOST} bytes"));
        }
        let translated = translated(text)?;
        let build = |limit: usize| RegexBuilder::new(&translated).size_limit(limit).nest_limit(NEST).build();
        let mut failed = String::new();
        for size in SIZES {
            match build(size) {
                Ok(regex) => return Ok(Self { text: text.to_owned(), regex, size: size / SIZES[0] }),
                Err(regex::Error::CompiledTooBig(_)) => failed = "is too large when compiled".to_owned(),
                Err(error) => {
                    let error = error.to_string();
                    let last = error.lines().last().unwrap_or_default();
                    return Err(last.trim_start_matches("error: ").to_owned());
                }
            }
        }
        Err(failed)
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// How much looking for it in a text costs.
    pub(super) const fn cost(&self, text: &str) -> usize {
        1 + text.len() / 8 * self.size
    }
}

fn translated(pattern: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match escape(&mut rest, false)? {
                Atom::One(c) => literal(&mut out, c),
                Atom::Set { of, negated } => write(&mut out, format_args!("[{}{of}]", not(negated))),
                Atom::As(text) => out.push_str(&text),
            },
            '[' => class(&mut rest, &mut out)?,
            '.' => out.push_str(r"[^\n\r\u{2028}\u{2029}]"),
            '(' => {
                out.push('(');
                if rest.peek() == Some(&'?') {
                    group(&mut rest, &mut out)?;
                }
            }
            '{' => out.push_str(&repetition(&mut rest)),
            '^' | '$' | '|' | ')' | '*' | '+' | '?' => out.push(c),
            c => literal(&mut out, c),
        }
    }
    Ok(out)
}

/// What a backslash stands for.
enum Atom {
    One(char),
    Set { of: &'static str, negated: bool },
    As(String),
}

const fn not(negated: bool) -> &'static str {
    if negated { "^" } else { "" }
}

fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    out.push_str(&arguments.to_string());
}

fn literal(out: &mut String, c: char) {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '/' | '_' | ' ' => out.push(c),
        c => write(out, format_args!("\\u{{{:X}}}", u32::from(c))),
    }
}

fn escape(rest: &mut Peekable<Chars<'_>>, in_class: bool) -> Result<Atom, String> {
    let c = rest.next().ok_or("ends in a backslash")?;
    Ok(match c {
        'd' | 'D' => Atom::Set { of: DIGITS, negated: c == 'D' },
        'w' | 'W' => Atom::Set { of: WORD, negated: c == 'W' },
        's' | 'S' => Atom::Set { of: SPACES, negated: c == 'S' },
        'b' if in_class => Atom::One('\u{8}'),
        'b' | 'B' => Atom::As(format!("(?-u:\\{c})")),
        't' => Atom::One('\t'),
        'n' => Atom::One('\n'),
        'r' => Atom::One('\r'),
        'v' => Atom::One('\u{b}'),
        'f' => Atom::One('\u{c}'),
        '0' if !rest.peek().is_some_and(char::is_ascii_digit) => Atom::One('\0'),
        'x' => Atom::One(hex(rest, 2)?),
        'u' => Atom::One(unicode(rest)?),
        'c' => match rest.next() {
            Some(c) if c.is_ascii_alphabetic() => Atom::One(char::from(c as u8 % 32)),
            _ => return Err("has `\\c` without a letter".to_owned()),
        },
        'p' | 'P' => Atom::As(property(c, rest)?),
        '1'..='9' | 'k' => return Err("refers back to a group, which takes an unbounded time".to_owned()),
        c if c.is_ascii_alphanumeric() => return Err(format!("has the unknown escape `\\{c}`")),
        c => Atom::One(c),
    })
}

fn hex(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Result<char, String> {
    char::from_u32(code(rest, digits)?).ok_or_else(|| "has an escape of no character".to_owned())
}

fn code(rest: &mut Peekable<Chars<'_>>, digits: usize) -> Result<u32, String> {
    let text: String = (0..digits).filter_map(|_| rest.next()).collect();
    let whole = text.chars().count() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
    let code = u32::from_str_radix(&text, 16).ok().filter(|_| whole);
    code.ok_or_else(|| format!("has an escape without its {digits} digits"))
}

fn unicode(rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    if rest.next_if_eq(&'{').is_some() {
        let text: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_hexdigit)).collect();
        let closed = rest.next() == Some('}');
        let code = u32::from_str_radix(&text, 16).ok().filter(|_| closed).and_then(char::from_u32);
        return code.ok_or_else(|| "has an escape of no character".to_owned());
    }
    let first = code(rest, 4)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).ok_or_else(|| "has half of a surrogate pair".to_owned());
    }
    let second = match (rest.next(), rest.next()) {
        (Some('\\'), Some('u')) => code(rest, 4)?,
        _ => 0,
    };
    let pair = [first, second].map(|half| u16::try_from(half).unwrap_or_default());
    let joined = char::decode_utf16(pair).next().and_then(Result::ok);
    joined.ok_or_else(|| "has half of a surrogate pair".to_owned())
}

fn property(kind: char, rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let name: String = rest.by_ref().take_while(|c| *c != '}').collect();
    let name = name.strip_prefix('{').unwrap_or_default();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_=".contains(c)) {
        return Err(format!("has `\\{kind}` without a property"));
    }
    Ok(format!("\\{kind}{{{name}}}"))
}

fn group(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let mut ahead = rest.clone();
    ahead.next();
    match (ahead.next(), ahead.next()) {
        (Some(':'), _) => {}
        (Some('<'), Some(c)) if !matches!(c, '=' | '!') => {
            // Only a name; nothing refers to it.
            let name: String = rest.by_ref().take_while(|c| *c != '>').collect();
            if !name.chars().skip(2).all(|c| c.is_alphanumeric() || "_$".contains(c)) {
                return Err("has a group with no name".to_owned());
            }
            out.push_str("?:");
            return Ok(());
        }
        (Some('=' | '!'), _) | (Some('<'), _) => {
            return Err("looks ahead or behind, which takes an unbounded time".to_owned());
        }
        _ => return Err("has a group of an unknown kind".to_owned()),
    }
    rest.next();
    rest.next();
    out.push_str("?:");
    Ok(())
}

/// A brace is one of a repetition, or itself.
fn repetition(rest: &mut Peekable<Chars<'_>>) -> String {
    let inside: String = rest.clone().take_while(|c| *c != '}').collect();
    let (from, to) = inside.split_once(',').unwrap_or((&inside, ""));
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    let closed = rest.clone().nth(inside.chars().count()) == Some('}');
    if !closed || from.is_empty() || !number(from) || !number(to) {
        return r"\{".to_owned();
    }
    rest.by_ref().take(inside.chars().count() + 1).for_each(drop);
    format!("{{{inside}}}")
}

fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut inside = String::new();
    loop {
        match class_atom(rest)? {
            None => break,
            Some(Atom::One(first)) => {
                let mut ahead = rest.clone();
                let ranges = ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']');
                one(&mut inside, first);
                if ranges {
                    rest.next();
                    match class_atom(rest)? {
                        Some(Atom::One(last)) => {
                            inside.push('-');
                            one(&mut inside, last);
                        }
                        // Not a range: the `-` is itself.
                        Some(other) => {
                            one(&mut inside, '-');
                            set(&mut inside, &other);
                        }
                        None => return Err("has a class without an end".to_owned()),
                    }
                }
            }
            Some(other) => set(&mut inside, &other),
        }
    }
    match (inside.is_empty(), negated) {
        (true, true) => out.push_str("(?s:.)"),
        (true, false) => out.push_str("[a&&b]"),
        (false, negated) => write(out, format_args!("[{}{inside}]", not(negated))),
    }
    Ok(())
}

fn class_atom(rest: &mut Peekable<Chars<'_>>) -> Result<Option<Atom>, String> {
    match rest.next() {
        None => Err("has a class without an end".to_owned()),
        Some(']') => Ok(None),
        Some('\\') => escape(rest, true).map(Some),
        Some(c) => Ok(Some(Atom::One(c))),
    }
}

fn one(out: &mut String, c: char) {
    write(out, format_args!("\\u{{{:X}}}", u32::from(c)));
}

fn set(out: &mut String, atom: &Atom) {
    match atom {
        Atom::One(c) => one(out, *c),
        Atom::Set { of, negated: true } => write(out, format_args!("[^{of}]")),
        Atom::Set { of, negated: false } => out.push_str(of),
        Atom::As(text) => out.push_str(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_means_what_it_means_in_ecma_262() {
        for (pattern, yes, no) in [
            ("^[a-z]+$", &["abc"][..], &["abc\n", "aBc", ""][..]),
            (r"^\d$", &["7"], &["٣", "a"]),
            (r"^\w$", &["_", "k"], &["é", "\u{212a}"]),
            (r"^\s$", &["\u{feff}", "\u{a0}", "\t"], &["\u{180e}", "x"]),
            (r"^\S\D\W$", &["ab-"], &["a1-"]),
            ("^.$", &["a", "é", "\u{85}"], &["\n", "\r", "\u{2028}"]),
            (r"^[[a&&b]$", &["[", "a", "&"], &["]"]),
            (r"^[^]$", &["\n", "x"], &[""]),
            (r"^[]?x$", &["x"], &["]x"]),
            (r"^[\]\-\\a-]$", &["]", "-", "\\", "a"], &["b"]),
            (r"^[\w-.]+$", &["a-.", "_"], &["/"]),
            (r"^[\D]$", &["x"], &["1"]),
            (r"^a{2,3}b{1}c{2,}$", &["aabcc"], &["abcc"]),
            ("^{}{a}{,3}$", &["{}{a}{,3}"], &["a"]),
            (r"^\/\.\$\-$", &["/.$-"], &["x"]),
            (r"^\u0041\x42\u{43}\cJ\0$", &["ABC\n\0"], &["ABC"]),
            (r"^\ud83d\ude00$", &["😀"], &["x"]),
            (r"^\p{Lu}\P{Lu}$", &["Éa"], &["aa"]),
            (r"\bx\b", &["a x", "éxé"], &["1x", "ax"]),
            ("^(?:a|b)(?<n>c)$", &["ac"], &["c"]),
            ("b", &["abc"], &["ac"]),
            ("^#~ x$", &["#~ x"], &["#~x"]),
        ] {
            let compiled = Pattern::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            for text in yes {
                assert!(compiled.is_match(text), "{pattern} {text:?}");
            }
            for text in no {
                assert!(!compiled.is_match(text), "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn what_takes_an_unbounded_time_or_room_is_no_pattern() {
        for pattern in [
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?<!a)",
            r"(a)\1",
            r"(?<n>a)\k<n>",
            "(?i)a",
            "(a",
            "a)",
            "[a",
            r"\",
            r"\q",
            r"\ud800",
            r"\u12",
            "*",
            "((a{100}){100}){100}",
            r"\p",
            &"a".repeat(MOST + 1),
            &format!("{}a{}", "(".repeat(100), ")".repeat(100)),
        ] {
            assert!(Pattern::new(pattern).is_err(), "{}", &pattern[..pattern.len().min(40)]);
        }
        // Backtracking would take more than the life of the universe.
        let evil = Pattern::new("^(a+)+$").unwrap();
        assert!(!evil.is_match(&format!("{}b", "a".repeat(10_000))));
    }

    proptest! {
        #[test]
        fn no_pattern_breaks_anything(pattern in r"[\\\[\](){}^$|*+?.a-c0-2\-&~:=!<,ucdwsb]{0,20}", text in "[a-c0-2\\-]{0,9}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.is_match(&text);
            }
        }

        #[test]
        fn a_literal_matches_itself(text in "[^\\\\\\[\\](){}^$|*+?.]{1,12}") {
            prop_assert!(Pattern::new(&["^", &text, "$"].concat()).unwrap().is_match(&text));
        }
    }
}
