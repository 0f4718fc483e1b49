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

/// Work that goes on in a child while this process does something else. The child ends with this process.
#[derive(Debug)]
pub struct Begun {
    reader: OwnedFd,
    pid: libc::pid_t,
}

/// Begins work in a child of fork(2), which has no descriptor but that of its answer.
///
/// # Errors
/// The kernel's errno.
pub fn begin<T: Serialize>(work: impl FnOnce() -> T) -> Result<Begun> {
    let (reader, writer) = descriptor::pipe()?;
    match process::fork()? {
        None => {
            let _guard = ExitOnUnwind;
            // Else it would hold a lock, or keep a reader of this process's output waiting.
            let alone = descriptor::duplicate_to(writer.as_fd(), ANSWER, true)
                .and_then(|()| descriptor::close_standard())
                .and_then(|()| descriptor::close_from(ANSWER + 1));
            if alone.is_err() {
                process::exit_now(1);
            }
            answer(&descriptor::adopt(ANSWER), work)
        }
        Some(pid) => Ok(Begun { reader, pid }),
    }
}

/// The one descriptor of a child that works beside this process.
const ANSWER: std::os::fd::RawFd = 3;

impl Begun {
    /// Where the answer comes, up to the end.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn reader(&self) -> std::io::Result<OwnedFd> {
        self.reader.try_clone()
    }

    /// What the work has returned, once the answer was read to its end.
    ///
    /// # Errors
    /// `ECHILD` when the child ended without an answer.
    pub fn ended<T: DeserializeOwned>(self, answer: &[u8]) -> Result<T> {
        drop(self.reader);
        process::wait(self.pid)?;
        serde_json::from_slice(answer).map_err(|_no_answer| Errno(libc::ECHILD))
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
