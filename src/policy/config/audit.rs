//! `[audit]` of the file of `--config`: when the log becomes an earlier file.
//!
//! Neighbours: `policy::config` reads the rest of the file, `audit` rotates. Never: says that a file is removed.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeTable;

use super::super::toml_file::{TomlFile, Value};
use super::super::units::{parse_size, print_size};

/// Its keys.
pub const KEYS: &[&str] = &["rotate-size", "rotate-age"];

/// So small that a file has a few records, so large that one is still read at once.
const SIZES: RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024 * 1024;
const AGES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(3650 * 24 * 60 * 60);

/// What the file says; `None`: what is usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// From so many bytes on.
    pub size: Option<u64>,
    /// From this age of the first record on.
    pub age: Option<Duration>,
}

pub(super) fn read(file: &mut TomlFile<'_>, table: &DeTable<'_>) -> Rotation {
    let mut rotation = Rotation::default();
    let Some(table) = table.get("audit").and_then(|value| file.table(value, "`audit`")) else {
        return rotation;
    };
    for (key, _, value) in file.entries(table, "`[audit]`", KEYS) {
        match key {
            "rotate-size" => rotation.size = size(file, value),
            _ => rotation.age = file.duration(value, "`rotate-age`", &AGES),
        }
    }
    rotation
}

fn size(file: &mut TomlFile<'_>, value: &Value<'_>) -> Option<u64> {
    let text = file.text(value, "`rotate-size`")?;
    match parse_size(text) {
        Ok(size) if SIZES.contains(&size) => return Some(size),
        Ok(_) => {
            let hint = format!("from `{}` to `{}`", print_size(*SIZES.start()), print_size(*SIZES.end()));
            file.mistake(&value.span(), &format!("`rotate-size` of `{text}` is out of range"), Some(&hint));
        }
        Err(error) => file.mistake(&value.span(), &error.to_string(), error.hint().as_deref()),
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::parse;
    use super::*;
    use crate::policy::Source;

    #[test]
    fn the_bounds_of_a_log_are_read_and_what_is_none_is_told() {
        let read = |text: &str| {
            let source = Source { name: "config".to_owned(), path: None, text: text.to_owned() };
            parse(&source, &BTreeSet::new()).map(|config| config.audit).map_err(|wrong| wrong.to_string())
        };
        assert_eq!(read(""), Ok(Rotation::default()));
        assert_eq!(
            read("[audit]\nrotate-size = \"1MiB\"\nrotate-age = \"7d\"\n"),
            Ok(Rotation { size: Some(1 << 20), age: Some(Duration::from_secs(7 * 24 * 60 * 60)) })
        );
        for (text, told) in [
            ("rotate-size = \"1KiB\"", "from `64KiB` to `1TiB`"),
            ("rotate-size = 7", "must be"),
            ("rotate-size = \"7M\"", "7M"),
            ("rotate-age = \"1s\"", "is out of range"),
            ("keep = 3", "unknown key `keep`"),
        ] {
            let found = read(&format!("[audit]\n{text}\n")).unwrap_err();
            assert!(found.contains(told), "{text}: {found}");
        }
    }
}
