//! Bytes of a secret, overwritten before their memory is given back (`explicit_bzero(3)`).
//!
//! Neighbours: `secrets` reads into them, `launch` hands them on. Never: grows in place, which would leave a copy behind;
//! shows what it holds.

use std::fmt;
use std::io::{self, Read};
use std::ops::Deref;

/// A secret in memory, or what was made of one.
#[derive(Default)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Nothing yet, with room for so many bytes.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds bytes. Where there is no room for them, all is moved, and the old place overwritten.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn reserve(&mut self, more: usize) {
        if self.0.capacity() - self.0.len() < more {
            let mut wider = Self::with_room((self.0.len() + more).next_power_of_two());
            wider.0.extend_from_slice(&self.0);
            // What is replaced is overwritten.
            *self = wider;
        }
    }

    /// Reads to the end; stops behind more than `most` bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn fill(&mut self, from: &mut impl Read, most: usize) -> io::Result<()> {
        const PIECE: usize = 4096;
        while self.0.len() <= most {
            self.reserve(PIECE);
            let end = self.0.len();
            self.0.resize(end + PIECE, 0);
            let count = loop {
                match from.read(self.0.get_mut(end..).unwrap_or_default()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break other,
                }
            };
            self.0.truncate(end + count.as_ref().map_or(0, |count| *count));
            if count? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The bytes from `start` on, to be written over.
    #[must_use]
    pub fn room(&mut self, start: usize) -> &mut [u8] {
        self.0.get_mut(start..).unwrap_or_default()
    }

    /// Keeps only the first bytes.
    pub fn truncate(&mut self, length: usize) {
        wipe(self.0.get_mut(length..).unwrap_or_default());
        self.0.truncate(length);
    }

    /// Drops the first bytes.
    pub fn drop_first(&mut self, count: usize) {
        let count = count.min(self.0.len());
        let length = self.0.len() - count;
        self.0.copy_within(count.., 0);
        self.truncate(length);
    }
}

impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Clone for Wiped {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes that are not shown", self.0.len())
    }
}

/// Overwrites bytes, also where nobody reads them any more.
pub fn wipe(bytes: &mut [u8]) {
    // SAFETY: the slice's own bytes, which nobody else has a reference to.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_bounded_and_not_shown() {
        let mut read = Wiped::default();
        read.fill(&mut &vec![b'x'; 10_000][..], 9000).unwrap();
        assert!(read.len() > 9000 && read.len() <= 10_000);
        let mut read = Wiped::with_room(2);
        read.extend(b"abc");
        read.extend(b"def");
        read.drop_first(2);
        read.truncate(3);
        assert_eq!(&*read, b"cde");
        assert_eq!(format!("{read:?}"), "3 bytes that are not shown");
    }

    #[test]
    fn bytes_are_overwritten() {
        let mut bytes = *b"secret";
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 6]);
    }
}
