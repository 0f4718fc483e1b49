//! Reads `tokens.toml`, which `toolcell token` writes beside the file of `--config`: who has which token, by its hash, or
//! by the key derived from it with which requests are signed.
//!
//! Neighbours: `policy::files` opens it, `access` compares with it. Never: sees a token.

use std::fmt;

use toml::de::{DeTable, DeValue};

use super::Source;
use super::mistakes::Mistakes;
use super::toml_file::{TomlFile, Value};

/// Bytes of a salt.
pub const SALT: usize = 16;
/// Bytes of a hash.
pub const HASH: usize = 32;

/// The keys of an entry of `tokens`.
pub const KEYS: &[&str] = &["id", "identity", "salt", "hash", "signing", "expires"];

/// One token, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// By which a person names it.
    pub id: String,
    /// Whose it is.
    pub identity: String,
    /// By what it is known.
    pub secret: Secret,
    /// Seconds after 1970 from which on it is good for nothing.
    pub expires: u64,
}

/// By what a token is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// For `mode = "token"`.
    Hash {
        /// What the hash is keyed with.
        salt: [u8; SALT],
        /// HMAC-SHA256 of the token.
        hash: [u8; HASH],
    },
    /// For `mode = "signed"`.
    Signing(SigningKey),
}

/// What requests are signed with. Who has it can sign.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(pub [u8; HASH]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// Reads the file.
///
/// # Errors
/// Every mistake of the text.
pub fn parse(source: &Source) -> Result<Vec<Token>, Mistakes> {
    let (mut file, table) = TomlFile::open(source, &[]);
    let mut tokens: Vec<Token> = Vec::new();
    for (_, _, value) in file.entries(&table, "", &["tokens"]) {
        for item in file.items(value, "`tokens`") {
            let Some(entry) = file.table(item, "an item of `tokens`") else { continue };
            let Some(token) = token(&mut file, item, entry) else { continue };
            if tokens.iter().any(|known| known.id == token.id) {
                file.mistake(&item.span(), &format!("the token `{}` is there twice", token.id), None);
            }
            tokens.push(token);
        }
    }
    Mistakes::none_or(tokens, file.finish())
}

fn token(file: &mut TomlFile<'_>, item: &Value<'_>, table: &DeTable<'_>) -> Option<Token> {
    let (mut id, mut identity, mut salt, mut hash, mut signing, mut expires) =
        (None, None, None, None, None, None);
    for (key, _, value) in file.entries(table, "`[[tokens]]`", KEYS) {
        match key {
            "id" => id = file.line(value, "`id`"),
            "identity" => identity = file.line(value, "`identity`"),
            "salt" => salt = bytes::<SALT>(file, value, "`salt`"),
            "hash" => hash = bytes::<HASH>(file, value, "`hash`"),
            "signing" => signing = bytes::<HASH>(file, value, "`signing`").map(SigningKey),
            _ => expires = moment(file, value),
        }
    }
    let has = |key: &str| table.contains_key(key);
    let signs = has("signing");
    if signs && (has("salt") || has("hash")) {
        let hint = "an entry is for `mode = \"token\"` or for `mode = \"signed\"`";
        file.mistake(&item.span(), "a token with `signing` and with `salt` or `hash`", Some(hint));
    }
    let needed = |key: &str| match key {
        "salt" | "hash" => !signs,
        "signing" => false,
        _ => true,
    };
    for key in KEYS.iter().filter(|key| needed(key) && !has(key)) {
        let hint = "`toolcell token new` writes whole entries";
        file.mistake(&item.span(), &format!("a token without `{key}`"), Some(hint));
    }
    let secret = match signing {
        Some(key) => Secret::Signing(key),
        None => Secret::Hash { salt: salt?, hash: hash? },
    };
    Some(Token { id: id?, identity: identity?, secret, expires: expires? })
}

fn bytes<const N: usize>(file: &mut TomlFile<'_>, value: &Value<'_>, name: &str) -> Option<[u8; N]> {
    let text = file.text(value, name)?;
    let bytes = from_hex(text).and_then(|bytes| bytes.try_into().ok());
    if bytes.is_none() {
        file.mistake(&value.span(), &format!("{name} is not {N} bytes in hexadecimal"), None);
    }
    bytes
}

fn moment(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<u64> {
    let DeValue::Datetime(moment) = value.get_ref() else {
        file.wrong_kind(value, "`expires`", "a date and time such as 2027-01-31T00:00:00Z");
        return None;
    };
    let whole = (moment.date, moment.time, moment.offset.filter(|offset| offset.to_string() == "Z"));
    let seconds = match whole {
        (Some(date), Some(time), Some(_utc)) => {
            let second = time.second.unwrap_or(0);
            seconds([date.year.into(), date.month.into(), date.day.into()], [time.hour, time.minute, second])
        }
        _ => None,
    };
    if seconds.is_none() {
        let hint = "write the date, the time and `Z`, as in 2027-01-31T00:00:00Z";
        file.mistake(&value.span(), "`expires` is no moment in UTC", Some(hint));
    }
    seconds
}

/// Seconds after 1970. The days by Howard Hinnant's `days_from_civil`: years begin in March.
pub(super) fn seconds([year, month, day]: [u64; 3], time: [u8; 3]) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let from_march = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1;
    let of_day = time.iter().fold(0, |sum, part| sum * 60 + u64::from(*part));
    Some(days.checked_sub(719_468)? * 86_400 + of_day)
}

/// The bytes of a text of lower-case hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// The inverse of [`from_hex`].
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Token>, Mistakes> {
        parse(&Source {
            name: "tokens".to_owned(),
            path: Some("/etc/cells/tokens.toml".into()),
            text: text.to_owned(),
        })
    }

    fn entry(expires: &str) -> String {
        let (salt, hash) = ("00".repeat(SALT), "ff".repeat(HASH));
        format!(
            "[[tokens]]\nid = \"a\"\nidentity = \"bob\"\nsalt = \"{salt}\"\nhash = \"{hash}\"\nexpires = {expires}\n"
        )
    }

    fn signs(entry: &str) -> String {
        let at = entry.find("salt").unwrap()..entry.find("expires").unwrap();
        format!("{}signing = \"{}\"\n{}", &entry[..at.start], "ab".repeat(HASH), &entry[at.end..])
    }

    #[test]
    fn an_entry_is_read_to_the_second() {
        let token = read(&entry("2026-11-22T14:05:09Z")).unwrap().remove(0);
        assert_eq!((token.identity.as_str(), token.expires), ("bob", 1_795_356_309));
        assert_eq!(token.secret, Secret::Hash { salt: [0; SALT], hash: [255; HASH] });
        let signs = signs(&entry("2026-11-22T14:05:09Z"));
        let token = read(&signs).unwrap().remove(0);
        assert_eq!(token.secret, Secret::Signing(SigningKey([171; HASH])));
        assert!(!format!("{token:?}").contains("171"));
        for (moment, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-28T23:59:59Z", 951_782_399),
            ("2000-02-29T00:00:00.5Z", 951_782_400),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(read(&entry(moment)).unwrap()[0].expires, seconds, "{moment}");
        }
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_half_an_entry_is_refused_whole() {
        for expires in ["2026-11-22", "2026-11-22T14:05:09", "2026-11-22T14:05:09+01:00", "\"never\"", "9"] {
            assert!(read(&entry(expires)).is_err(), "{expires}");
        }
        let right = entry("2026-11-22T14:05:09Z");
        for (key, other) in
            [("salt = \"00", "salt = \""), ("hash = \"ff", "hash = \"FF"), ("id = \"a\"\n", "")]
        {
            assert!(right.contains(key) && read(&right.replace(key, other)).is_err(), "{key}");
        }
        let (signs, hash) = (signs(&right), format!("hash = \"{}\"\n", "ff".repeat(HASH)));
        for wrong in [signs.replace("ab", "a"), signs.replace("signing", "hash"), format!("{signs}{hash}")] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("{right}{right}")).unwrap_err().to_string().contains("is there twice"));
        insta::assert_snapshot!(read("[[tokens]]\nidd = \"a\"\n[[token]]\n").unwrap_err());
    }

    #[test]
    fn hexadecimal_has_one_form() {
        assert_eq!(from_hex("00ff1a").unwrap(), [0, 255, 26]);
        assert_eq!(to_hex(&[0, 255, 26]), "00ff1a");
        for text in ["0", "0g", "FF", "é0"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
