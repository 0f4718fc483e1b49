//! Audit records of Landlock: any bytes mean one thing or nothing, and that is small; what is there twice, or follows what is
//! not known, is not believed.
//!
//! The first byte of an input says of which kind it is. Never: opens the socket that they come by.

use toolcell::sys::audit::{LANDLOCK_ACCESS, LANDLOCK_DOMAIN};
use toolcell::watch::audited::{Record, TEXT, parse};

/// Reads one record.
pub fn check(data: &[u8]) {
    let [kind, text @ ..] = data else { return };
    let kind = if kind % 2 == 0 { LANDLOCK_ACCESS } else { LANDLOCK_DOMAIN };
    let Some(record) = parse(kind, text) else { return };
    assert_eq!(parse(LANDLOCK_ACCESS ^ LANDLOCK_DOMAIN ^ kind, text), None, "two meanings");
    let number = match &record {
        Record::Denied { domain, denial } => {
            assert!(
                !denial.rights.is_empty()
                    && denial.rights.is_ascii()
                    && !denial.rights.contains(['=', ' ', '"'])
            );
            assert!(denial.object.len() <= TEXT + '…'.len_utf8());
            assert!(!denial.path || denial.object.starts_with('/'));
            domain
        }
        Record::Allocated { domain, pid } => {
            assert!(*pid >= 0);
            domain
        }
        Record::Deallocated { domain, .. } => domain,
    };
    let text = text.trim_ascii_end();
    let with = |more: &str| parse(kind, &[text, more.as_bytes()].concat());
    // Behind zeroes the text goes on in another way.
    if !text.ends_with(b"\0") {
        assert_eq!(with(&format!(" domain={number:x}")), None, "a number twice");
        assert_eq!(with(" garbage"), None);
        // A name that it has already would be there twice.
        let mut name = "unheard".to_owned();
        while String::from_utf8_lossy(text).contains(&name) {
            name.push('_');
        }
        assert_eq!(with(&format!(" {name}=of")).as_ref(), Some(&record), "a field more");
    }
}
