//! Questions about names, and answers to them, as messages of DNS (RFC 1035).
//!
//! Neighbours: `resolver` decides what is answered. Never: follows a pointer in a message, or reads more than one question.

use std::net::IpAddr;

/// The longest message over UDP that is answered, and over TCP too: a question is short.
pub const MOST: usize = 512;
/// How long an answer may be kept: a name keeps its address as long as there is the cell.
const SECONDS: u32 = 300;
const HEAD: usize = 12;
const INTERNET: u16 = 1;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    id: [u8; 2],
    /// Recursion is desired: said again in the answer.
    desired: bool,
    /// The question as it was sent, which the answer repeats.
    raw: Vec<u8>,
    /// The name in lower case, without a dot at its end; bytes that no name has are `\DDD`.
    pub name: String,
    /// What about it.
    pub kind: u16,
}

/// Kinds of question (`A`, `PTR`, `AAAA`).
pub mod kind {
    #![expect(missing_docs, reason = "the names are DNS's own")]
    pub const A: u16 = 1;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The name has these addresses; those of another kind than was asked for are left out.
    Addresses(&'a [IpAddr]),
    /// There is no such name.
    NoName,
    /// There is no room for another name.
    Failed,
}

/// Reads a message; `None` for what is not one ordinary question.
#[must_use]
pub fn question(message: &[u8]) -> Option<Question> {
    let (head, rest) = message.split_at_checked(HEAD)?;
    let [id0, id1, flags, _, 0, 1, 0, 0, 0, 0, _, _] = *head else { return None };
    // A question (`QR`) of the standard kind (`OPCODE`), that is whole (`TC`).
    if flags & 0b1111_1010 != 0 {
        return None;
    }
    let mut name = String::new();
    let mut at = 0;
    loop {
        let length = usize::from(*rest.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 || at + length > 254 {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        for byte in rest.get(at..at + length)? {
            match byte.to_ascii_lowercase() {
                byte @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => name.push(char::from(byte)),
                byte => name.push_str(&format!("\\{byte:03}")),
            }
        }
        at += length;
    }
    let [k0, k1, c0, c1] = *rest.get(at..at + 4)? else { return None };
    let raw = rest.get(..at + 4)?.to_vec();
    let kind = u16::from_be_bytes([k0, k1]);
    let internet = u16::from_be_bytes([c0, c1]) == INTERNET;
    internet.then_some(Question { id: [id0, id1], desired: flags & 1 != 0, raw, name, kind })
}

impl Question {
    /// The message that answers it.
    #[must_use]
    pub fn answer(&self, answer: Answer<'_>) -> Vec<u8> {
        const RESPONSE: u8 = 0x80;
        const AVAILABLE: u8 = 0x80;
        let (code, addresses) = match answer {
            Answer::Addresses(addresses) => (0, addresses),
            Answer::NoName => (3, &[][..]),
            Answer::Failed => (2, &[][..]),
        };
        let wanted = |address: &&IpAddr| match address {
            IpAddr::V4(_) => self.kind == kind::A,
            IpAddr::V6(_) => self.kind == kind::AAAA,
        };
        let records: Vec<&IpAddr> = addresses.iter().filter(wanted).collect();
        let mut message = self.id.to_vec();
        message.extend([RESPONSE | u8::from(self.desired), AVAILABLE | code, 0, 1]);
        message.extend(u16::try_from(records.len()).unwrap_or_default().to_be_bytes());
        message.extend([0; 4]);
        message.extend(&self.raw);
        for address in records {
            // The name is the one at the beginning of the question.
            message.extend([0xc0, 12]);
            message.extend(self.kind.to_be_bytes());
            message.extend(INTERNET.to_be_bytes());
            message.extend(SECONDS.to_be_bytes());
            let bytes = match address {
                IpAddr::V4(four) => four.octets().to_vec(),
                IpAddr::V6(six) => six.octets().to_vec(),
            };
            message.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
            message.extend(bytes);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(name: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut bytes = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(*label);
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn a_question_is_read_and_answered_with_addresses_of_its_kind() {
        let asked = message(&[b"A", b"eXample"], kind::A);
        let question = question(&asked).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("a.example", 1));
        let addresses = ["127.80.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let answer = question.answer(Answer::Addresses(&addresses));
        let mut wanted = asked.clone();
        wanted[2] = 0x81;
        wanted[3] = 0x80;
        wanted[7] = 1;
        wanted.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 127, 80, 0, 1]);
        assert_eq!(answer, wanted);
        let none = question.answer(Answer::NoName);
        assert_eq!((none[3] & 0xf, none[7], none.len()), (3, 0, asked.len()));
        let six = super::question(&message(&[b"a"], kind::AAAA)).unwrap();
        assert_eq!(six.answer(Answer::Addresses(&addresses[..1]))[7], 0);
    }

    #[test]
    fn a_name_is_one_text_and_no_other() {
        let name = |labels: &[&[u8]]| question(&message(labels, 1)).map(|question| question.name);
        assert_eq!(name(&[b"a.b", b"c"]).unwrap(), "a\\046b.c");
        assert_eq!(name(&[b"a\0", b"example"]).unwrap(), "a\\000.example");
        assert_eq!(name(&[]).unwrap(), "");
        assert_eq!(name(&[&[b'a'; 63], &[b'b'; 63], &[b'c'; 63], &[b'd'; 63]]), None);
    }

    #[test]
    fn what_is_no_ordinary_question_is_not_answered() {
        let right = message(&[b"a"], 1);
        assert!(question(&right).is_some());
        for (at, value) in
            [(2, 0x81), (2, 0x29), (2, 0x03), (5, 0), (5, 2), (7, 1), (12, 0xc0), (12, 64), (18, 3)]
        {
            let mut wrong = right.clone();
            wrong[at] = value;
            assert_eq!(question(&wrong), None, "{at} {value}");
        }
        for cut in 0..right.len() {
            assert_eq!(question(&right[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(question) = question(&bytes) {
                let answer = question.answer(Answer::Addresses(&["127.0.0.1".parse().unwrap()]));
                prop_assert!(answer.len() <= bytes.len() + 16);
                prop_assert!(question.name.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
