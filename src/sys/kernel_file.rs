//! Reads the small files and links of /proc and of cgroups, whose content the kernel makes when they are read.
//!
//! Neighbours: `host::cgroups`, `launch`. Never: reads a file that a person or a cell wrote.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use super::{Errno, Result, check};

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

/// Where a link of an open directory leads: readlinkat(2).
///
/// # Errors
/// The kernel's errno; `ENAMETOOLONG` for more than 63 bytes, `EILSEQ` when it is no UTF-8.
pub fn link(directory: BorrowedFd<'_>, name: &str) -> Result<String> {
    let name = CString::new(name).map_err(|_nul| Errno(libc::EINVAL))?;
    let mut target = [0_u8; 64];
    // SAFETY: `name` ends with NUL, and at most the length of `target` is written to it.
    let length = check(unsafe {
        libc::readlinkat(directory.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len())
    } as libc::c_long)?;
    match usize::try_from(length).ok().filter(|length| *length < target.len()).and_then(|l| target.get(..l)) {
        Some(target) => String::from_utf8(target.to_vec()).map_err(|_other| Errno(libc::EILSEQ)),
        None => Err(Errno(libc::ENAMETOOLONG)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_link_is_whole_or_refused() {
        let directory = File::open("/proc/self").unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(link(File::open("/proc").unwrap().as_fd(), "self").unwrap(), pid);
        assert_eq!(link(directory.as_fd(), "status"), Err(Errno(libc::EINVAL)));
        assert_eq!(link(directory.as_fd(), "absent"), Err(Errno(libc::ENOENT)));
        let (made, long) = (std::env::temp_dir().join(format!("toolcell-link-{pid}")), "x".repeat(64));
        std::fs::create_dir(&made).unwrap();
        let links = [(63, "short"), (64, "long")];
        for (length, name) in links {
            std::os::unix::fs::symlink(&long[..length], made.join(name)).unwrap();
        }
        let directory = File::open(&made).unwrap();
        let found = links.map(|(_, name)| link(directory.as_fd(), name));
        std::fs::remove_dir_all(&made).unwrap();
        assert_eq!(found, [Ok(long[..63].to_owned()), Err(Errno(libc::ENAMETOOLONG))]);
    }

    #[test]
    fn a_long_file_is_whole() {
        let path = "/proc/self/mountinfo";
        assert_eq!(read(path).unwrap(), std::fs::read_to_string(path).unwrap());
        assert!(read("/proc/self/absent").is_err());
    }
}
