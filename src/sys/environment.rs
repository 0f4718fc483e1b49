//! Takes a variable out of the environment of this process (environ(7)), so that nothing reads it there again.
//!
//! Never: is called with a second thread running.

use std::ffi::CStr;
use std::ptr;

use super::wiped::wipe;

/// The value of a variable, which is overwritten where `/proc/PID/environ` shows it, and is no longer in the environment.
/// Every entry of the name goes; the first one's value is given.
pub fn take(name: &CStr) -> Option<Vec<u8>> {
    let mut taken = None;
    loop {
        // SAFETY: the name ends with a NUL; the caller has one thread, so nobody changes the environment meanwhile.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        if value.is_null() {
            return taken;
        }
        // SAFETY: `value` is the NUL-terminated rest of an entry, in memory that stays as long as the entry is there.
        let length = unsafe { libc::strlen(value) };
        // SAFETY: `length` bytes from `value` were just counted, and nobody else has a reference to them.
        let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length) };
        taken.get_or_insert_with(|| bytes.to_vec());
        let name = name.to_bytes();
        // The entry is `NAME=value` in one piece; without its name it is no entry any more.
        let whole = name.len() + 1 + length;
        // SAFETY: an entry's value is preceded by its name and `=`, so the result is the entry's first byte.
        let entry = unsafe { value.sub(name.len() + 1) };
        // SAFETY: the whole entry is writable memory (the stack that execve made, or malloc's); `bytes` is not used again.
        unsafe { ptr::write_bytes(entry, 0, whole) };
    }
}

/// Overwrites a secret before its memory is given back.
pub fn forget(mut secret: Vec<u8>) {
    wipe(&mut secret);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// The environment is the process's, so a process of its own tries it.
    const CHILD: &str = "TOOLCELL_TEST_TAKE";

    #[test]
    fn what_is_taken_is_nowhere_any_more() {
        if std::env::var_os(CHILD).is_none() {
            let test = "sys::environment::tests::what_is_taken_is_nowhere_any_more";
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .envs([(CHILD, "ab+c=d/efg"), ("TOOLCELL_TEST_TAKE_NOT", "kept")])
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
            return;
        }
        let shown = || std::fs::read("/proc/self/environ").unwrap();
        let has = |bytes: &[u8]| shown().windows(bytes.len()).any(|window| window == bytes);
        assert!(has(b"ab+c=d/efg"));
        assert_eq!(take(c"TOOLCELL_TEST_TAKE").unwrap(), b"ab+c=d/efg");
        assert!(!has(b"ab+c=d/efg"));
        assert_eq!((take(c"TOOLCELL_TEST_TAKE"), std::env::var_os(CHILD)), (None, None));
        assert_eq!(std::env::var("TOOLCELL_TEST_TAKE_NOT").unwrap(), "kept");
        assert!(!std::env::vars_os().any(|(name, _)| name == CHILD));
    }
}
