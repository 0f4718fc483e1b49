//! Reads the small files of /proc and of cgroups, whose content the kernel makes when they are read.
//!
//! Neighbours: `host::cgroups`, `launch`. Never: reads a file that a person or a cell wrote.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any of these files has.
const LARGEST: u64 = 16 << 20;

/// The whole text. These files say that they are empty, so nothing is asked but for what is in them: two system calls
/// for the content of most, where `fs::read_to_string` feels its way in steps of 32 bytes.
///
/// # Errors
/// As for `fs::read_to_string`.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(4096);
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_file_is_whole() {
        let path = "/proc/self/mountinfo";
        assert_eq!(super::read(path).unwrap(), std::fs::read_to_string(path).unwrap());
        assert!(super::read("/proc/self/absent").is_err());
    }
}
