//! What the kernel's audit records say of Landlock: a denial, a domain that shows for the first time, one that has ended.
//!
//! ```text
//! audit(1764162000.123:45): domain=195ba459b blockers=fs.read_file path="/a" dev="tmpfs" ino=2
//! audit(1764162000.123:45): domain=195ba459b status=allocated mode=enforcing pid=300 uid=0 exe="/x" comm="x"
//! audit(1764162000.456:46): domain=195ba459b status=deallocated denials=3
//! ```
//!
//! Names in it are the cell's: the kernel writes those with a blank, a quote, a control character or anything beyond ASCII as
//! hexadecimal digits, so that a field is what stands between two blanks.
//!
//! Neighbours: `denials` keeps what is found. Never: takes a record for one that it does not know whole.

use std::fmt::Write as _;

use crate::sys::audit::{LANDLOCK_ACCESS, LANDLOCK_DOMAIN};

/// Bytes of a name that are kept.
pub const TEXT: usize = 1024;
/// Bytes of the list of what was denied.
const BLOCKERS: usize = 512;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A domain denied something.
    Denied {
        /// Its number, which no other domain has until the next boot.
        domain: u64,
        /// What.
        denial: Denial,
    },
    /// A domain has denied something for the first time.
    Allocated {
        /// Its number.
        domain: u64,
        /// Who entered it first.
        pid: i32,
    },
    /// Nobody is left in a domain.
    Deallocated {
        /// Its number.
        domain: u64,
        /// How often it has denied something.
        denials: u64,
    },
}

/// What was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rights that were lacking, by the kernel's names, with commas.
    pub rights: String,
    /// On what, for a reader.
    pub object: String,
    /// The object is a path, and all of it.
    pub path: bool,
}

/// One record; nothing for one that is not as the kernel writes it.
#[must_use]
pub fn parse(kind: u16, text: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches(['\0', '\n', ' ']);
    let (stamp, text) = text.strip_prefix("audit(")?.split_once("): ")?;
    if stamp.is_empty() || !stamp.bytes().all(|byte| byte.is_ascii_digit() || b".:".contains(&byte)) {
        return None;
    }
    let fields = Fields::of(text)?;
    let domain = hexadecimal(fields.get("domain")?)?;
    match (kind, fields.get("status")) {
        (LANDLOCK_ACCESS, None) => Some(Record::Denied { domain, denial: denial(&fields)? }),
        (LANDLOCK_DOMAIN, Some("allocated")) => {
            let pid = decimal(fields.get("pid")?)?;
            Some(Record::Allocated { domain, pid: i32::try_from(pid).ok()? })
        }
        (LANDLOCK_DOMAIN, Some("deallocated")) => {
            Some(Record::Deallocated { domain, denials: decimal(fields.get("denials")?)? })
        }
        _ => None,
    }
}

/// Names and values, each name once.
struct Fields<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Fields<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for field in text.split(' ').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=')?;
            let known = fields.iter().any(|(known, _)| *known == name);
            if known || name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                return None;
            }
            fields.push((name, value));
        }
        Some(Self(fields))
    }

    fn get(&self, name: &str) -> Option<&'t str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

fn decimal(value: &str) -> Option<u64> {
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}

fn hexadecimal(value: &str) -> Option<u64> {
    value.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(value, 16).ok())?
}

fn denial(fields: &Fields<'_>) -> Option<Denial> {
    let rights = fields.get("blockers")?;
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._,".contains(&byte);
    if rights.is_empty() || rights.len() > BLOCKERS || !rights.bytes().all(of_name) {
        return None;
    }
    let (object, path) = match (fields.get("path").or_else(|| fields.get("name")), fields.get("opid")) {
        (Some(name), _) => name_of(name)?,
        (None, Some(process)) => (format!("process {}", decimal(process)?), false),
        (None, None) => (address(fields)?, false),
    };
    Some(Denial { rights: rights.to_owned(), object, path })
}

/// An untrusted string of the kernel's, for a reader, and whether it is a path and whole.
fn name_of(value: &str) -> Option<(String, bool)> {
    let bytes = match value.strip_prefix('"') {
        Some(rest) => {
            let inner = rest.strip_suffix('"')?;
            // Else it would have been written as digits.
            inner
                .bytes()
                .all(|b| (0x21..0x7f).contains(&b) && b != b'"')
                .then(|| inner.as_bytes().to_vec())?
        }
        // What is not there.
        None if value == "(null)" => Vec::new(),
        None => digits(value)?,
    };
    let whole = std::str::from_utf8(&bytes).is_ok_and(|text| text.len() <= TEXT && text.starts_with('/'));
    let mut text = match bytes.split_first() {
        // An abstract socket, as ss(8) writes it.
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        _ => String::from_utf8_lossy(&bytes).into_owned(),
    };
    if text.len() > TEXT {
        text.truncate(text.floor_char_boundary(TEXT));
        text.push('…');
    }
    Some((text, whole))
}

/// Pairs of hexadecimal digits, at least one.
fn digits(value: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = value.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|bytes| rest.is_empty() && !bytes.is_empty())
}

/// Where to, or from; nothing when the record names neither.
fn address(fields: &Fields<'_>) -> Option<String> {
    let mut object = String::new();
    for (host, port) in [("daddr", "dest"), ("saddr", "src")] {
        if let Some(host) = fields.get(host) {
            host.parse::<std::net::IpAddr>().ok()?;
            object.push_str(host);
        }
        if let Some(port) = fields.get(port) {
            let port: u16 = decimal(port)?.try_into().ok()?;
            let blank = if object.is_empty() { "" } else { " " };
            // Writing to a string does not fail.
            let _written = write!(object, "{blank}port {port}").is_ok();
        }
        if !object.is_empty() {
            break;
        }
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn denied(fields: &str) -> Option<Denial> {
        let text = format!("audit(1764162000.123:45): domain=195ba459b {fields}");
        match parse(LANDLOCK_ACCESS, text.as_bytes())? {
            Record::Denied { domain: 0x1_95ba_459b, denial } => Some(denial),
            other => panic!("{other:?}"),
        }
    }

    fn seen(fields: &str) -> Option<(String, String, bool)> {
        denied(fields).map(|Denial { rights, object, path }| (rights, object, path))
    }

    #[test]
    fn each_kind_of_record_is_read() {
        let cases = [
            (
                "blockers=fs.read_file path=\"/etc/shadow\" dev=\"vda\" ino=1234",
                "fs.read_file",
                "/etc/shadow",
                true,
            ),
            (
                "blockers=fs.make_reg,fs.refer path=2F612062 dev=\"vda\" ino=2",
                "fs.make_reg,fs.refer",
                "/a b",
                true,
            ),
            ("blockers=fs.change_topology name=\"/\" dev=\"tmpfs\" ino=1", "fs.change_topology", "/", true),
            (
                "blockers=fs.ioctl_dev path=\"/dev/x\" dev=\"d\" ino=9 ioctlcmd=0x5401",
                "fs.ioctl_dev",
                "/dev/x",
                true,
            ),
            ("blockers=net.connect_tcp daddr=127.0.0.1 dest=9", "net.connect_tcp", "127.0.0.1 port 9", false),
            ("blockers=net.bind_tcp saddr=::1 src=80", "net.bind_tcp", "::1 port 80", false),
            ("blockers=net.bind_tcp src=80", "net.bind_tcp", "port 80", false),
            ("blockers=net.bind_tcp saddr=127.0.0.1", "net.bind_tcp", "127.0.0.1", false),
            ("blockers=net.bind_tcp", "net.bind_tcp", "", false),
            ("blockers=scope.signal opid=1 ocomm=\"systemd\"", "scope.signal", "process 1", false),
            (
                "blockers=scope.abstract_unix_socket path=00616263",
                "scope.abstract_unix_socket",
                "@abc",
                false,
            ),
        ];
        for (fields, rights, object, path) in cases {
            assert_eq!(seen(fields), Some((rights.to_owned(), object.to_owned(), path)), "{fields}");
        }
        let allocated =
            b"audit(1764162000.123:45): domain=195ba459b status=allocated mode=enforcing pid=300 uid=0 \
            exe=\"/root/sandboxer\" comm=\"sandboxer\"";
        assert_eq!(
            parse(LANDLOCK_DOMAIN, allocated),
            Some(Record::Allocated { domain: 0x1_95ba_459b, pid: 300 })
        );
        let ended = b"audit(1764162000.456:46): domain=195ba459b status=deallocated denials=3\0";
        assert_eq!(
            parse(LANDLOCK_DOMAIN, ended),
            Some(Record::Deallocated { domain: 0x1_95ba_459b, denials: 3 })
        );
    }

    #[test]
    fn what_is_not_whole_is_none() {
        for fields in [
            "path=\"/a\"",
            "blockers= path=\"/a\"",
            "blockers=fs.read_file path=\"/a",
            "blockers=fs.read_file path=\"/a\"b\"",
            "blockers=fs.read_file path=\"/a\" path=\"/b\"",
            "blockers=fs.read_file domain=1 path=\"/a\"",
            "blockers=fs.read_file path=2F6",
            "blockers=fs.read_file path=/a",
            "blockers=fs.read_file path=",
            "blockers=fs.read_file path=\"/a b\"",
            "blockers=fs.read\nfile path=\"/a\"",
            "blockers=FS path=\"/a\"",
            "blockers=net.connect_tcp daddr=example dest=9",
            "blockers=net.connect_tcp daddr=127.0.0.1 dest=65536",
            "blockers=scope.signal opid=-1",
            "blockers=fs.read_file status=allocated path=\"/a\"",
        ] {
            assert_eq!(denied(fields), None, "{fields:?}");
        }
        for text in [
            "",
            "audit(1:2)",
            "audit(): domain=1 status=deallocated denials=3",
            "audit(1.2:3): domain= status=deallocated denials=3",
            "audit(1.2:3): domain=+1 status=deallocated denials=3",
            "audit(1.2:3): domain=11112222333344445 status=deallocated denials=3",
            "audit(1.2:3): domain=1 status=deallocated denials=+3",
            "audit(1.2:3): domain=1 status=gone denials=3",
            "audit(1.2:3): domain=1 status=allocated pid=4294967297",
        ] {
            assert_eq!(parse(LANDLOCK_DOMAIN, text.as_bytes()), None, "{text:?}");
        }
        let denied = b"audit(1.2:3): domain=1 blockers=fs.execute path=\"/a\"";
        assert!(parse(LANDLOCK_ACCESS, denied).is_some() && parse(1400, denied).is_none());
        assert_eq!(parse(LANDLOCK_DOMAIN, denied), None);
    }

    #[test]
    fn a_long_name_is_cut_where_a_character_ends() {
        let name = "/€".repeat(TEXT);
        let written: String = name.bytes().map(|byte| format!("{byte:02X}")).collect();
        let Denial { object, path, .. } = denied(&format!("blockers=fs.execute path={written}")).unwrap();
        assert!(object.len() <= TEXT + '…'.len_utf8() && object.ends_with('…') && !path);
        assert!(name.starts_with(object.trim_end_matches('…')));
    }

    /// As `audit_log_n_untrustedstring` of the kernel does.
    fn untrusted(name: &[u8]) -> String {
        if name.iter().any(|byte| *byte == b'"' || !(0x21..0x7f).contains(byte)) {
            return name.iter().map(|byte| format!("{byte:02X}")).collect();
        }
        format!("\"{}\"", String::from_utf8_lossy(name))
    }

    proptest! {
        /// Whatever a cell calls a file: it is told as it is, and nothing of it passes for a field.
        #[test]
        fn every_name_is_told_and_none_is_a_field(
            name in prop_oneof![
                prop::collection::vec(1_u8.., 0..200),
                "[ -~]{0,60}".prop_map(String::into_bytes),
                Just(b"x\" denials=9 domain=1 path=\"/b".to_vec()),
            ],
        ) {
            let name = [b"/".to_vec(), name].concat();
            let fields = format!("blockers=fs.read_file path={} dev=\"vda\" ino=2", untrusted(&name));
            let denial = denied(&fields).unwrap();
            prop_assert_eq!(&denial.object, &String::from_utf8_lossy(&name));
            prop_assert_eq!(denial.path, std::str::from_utf8(&name).is_ok());
            prop_assert_eq!(denial.rights, "fs.read_file");
        }
    }
}
