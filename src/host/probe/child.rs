//! Runs one probe in a child, so that what it does to itself is gone with it, and takes its answer from a pipe.
//!
//! Neighbours: `host::probe` and `commands::doctor` run everything through here. Never: is used with a second thread.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, Result, descriptor};

/// Dropped only by an unwinding panic, which must not run on into a copy of the parent's stack.
struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        process::exit_now(1);
    }
}

/// What `work` returns in a child of fork(2).
///
/// # Errors
/// The errno of fork, or `ECHILD` when the child ended without an answer.
pub fn fork<T: Serialize + DeserializeOwned>(work: impl FnOnce() -> T) -> Result<T> {
    let (reader, writer) = descriptor::pipe()?;
    match process::fork()? {
        None => answer(&writer, work),
        Some(pid) => collect(reader, writer, pid),
    }
}

/// What `work` returns in a child of clone3(2) with these new namespaces.
///
/// # Errors
/// The errno of clone3, or `ECHILD` when the child ended without an answer.
pub(super) fn clone<T: Serialize + DeserializeOwned>(
    namespaces: libc::c_int,
    work: impl FnOnce() -> T,
) -> Result<T> {
    let (reader, writer) = descriptor::pipe()?;
    match process::clone3(process::namespace_bits(namespaces), None)? {
        Cloned::Child => answer(&writer, work),
        Cloned::Parent(pid, _pidfd) => collect(reader, writer, pid),
    }
}

/// The child's side; never returns.
fn answer<T: Serialize>(writer: &OwnedFd, work: impl FnOnce() -> T) -> ! {
    let _guard = ExitOnUnwind;
    if process::die_with_parent().is_err() {
        process::exit_now(1);
    }
    let bytes = serde_json::to_vec(&work()).unwrap_or_default();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match descriptor::write(writer.as_fd(), rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(_) => process::exit_now(1),
        }
    }
    process::exit_now(0)
}

fn collect<T: DeserializeOwned>(reader: OwnedFd, writer: OwnedFd, pid: libc::pid_t) -> Result<T> {
    drop(writer);
    let mut bytes = Vec::new();
    let read = File::from(reader).read_to_end(&mut bytes);
    process::wait(pid)?;
    read?;
    serde_json::from_slice(&bytes).map_err(|_no_answer| Errno(libc::ECHILD))
}
