//! Probes that use up what others need. Each has a bound at which it stops by itself and counts as escaped.
//!
//! Neighbours: `hostile::tools` lists them. Never: keeps anything once it has answered.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{hint, thread};

use super::report::{Call, Probed, Report, errno};
use crate::sys::{Errno, attack};

const MIB: usize = 1 << 20;

/// Waits for a time, whatever happens.
pub(super) fn wait(time: Duration) {
    let (_never_dropped_before, nothing) = mpsc::channel::<()>();
    nothing.recv_timeout(time).unwrap_or_default();
}

/// A report of a probe that got as far as `reached`: to its own bound, or to a refusal.
fn bounded(call: &Call<'_>, operation: &str, reached: String, refusal: Option<Errno>) -> Report {
    match refusal {
        None => call.tried(operation, reached, Ok("reached the probe's own bound".to_owned())),
        Some(errno) => call.tried(operation, reached, Err(errno)),
    }
}

/// Makes processes.
pub(super) fn fork_bomb(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 2_000)?;
    Ok(match attack::fork_many(limit) {
        Ok((count, refusal)) => bounded(call, "fork", format!("{count} processes"), refusal),
        Err(errno) => bounded(call, "fork", "0 processes".to_owned(), Some(errno)),
    })
}

/// Takes memory and touches every page of it.
pub(super) fn memory_bomb(call: &mut Call<'_>) -> Probed {
    const PAGE: usize = 4096;
    let limit = call.number("limit", 4 << 30)?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut taken = 0;
    let mut refusal = None;
    while taken < limit {
        let mut chunk: Vec<u8> = Vec::new();
        if chunk.try_reserve_exact(MIB).is_err() {
            refusal = Some(Errno(libc::ENOMEM));
            break;
        }
        chunk.resize(MIB, 0);
        chunk.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        held.push(hint::black_box(chunk));
        taken += 1 << 20;
    }
    Ok(bounded(call, "allocate", format!("{} MiB", taken >> 20), refusal))
}

/// Keeps processors busy.
pub(super) fn spin(call: &mut Call<'_>) -> Probed {
    let threads = call.number("threads", 4)?;
    let time = Duration::from_millis(call.number("milliseconds", 60_000)?);
    let end = Instant::now() + time;
    let mut spinning = Vec::new();
    let mut refusal = None;
    for _ in 0..threads {
        let spinner = thread::Builder::new().spawn(move || {
            while Instant::now() < end {
                hint::spin_loop();
            }
        });
        match spinner {
            Ok(spinner) => spinning.push(spinner),
            Err(error) => refusal = Some(errno(&error)),
        }
    }
    let count = spinning.len();
    for spinner in spinning {
        spinner.join().unwrap_or_default();
    }
    Ok(bounded(call, "spin", format!("{count} threads"), refusal))
}

/// Fills the directory it may write to, in files small enough for every limit on one file.
pub(super) fn fill_scratch(call: &mut Call<'_>) -> Probed {
    let directory = call.path("directory")?;
    let limit = call.number("limit", 1 << 30)?;
    let mut paths = Vec::new();
    let mut written = 0;
    let mut refusal = None;
    while written < limit && refusal.is_none() {
        let path = directory.join(format!("toolcell-fill-{}-{}", std::process::id(), paths.len()));
        refusal = write_one(&path).err().map(|error| errno(&error));
        paths.push(path);
        written += 1 << 20;
    }
    for path in paths {
        fs::remove_file(path).unwrap_or_default();
    }
    Ok(bounded(call, "write", format!("about {} MiB", written >> 20), refusal))
}

/// Writes one file of a mebibyte.
fn write_one(path: &Path) -> io::Result<()> {
    File::create(path)?.write_all(&vec![1; MIB])
}

/// Opens files and closes none.
pub(super) fn fill_descriptors(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 100_000)?;
    let stdin = io::stdin();
    let mut held = Vec::new();
    let mut refusal = None;
    for _ in 0..limit {
        match stdin.as_fd().try_clone_to_owned() {
            Ok(descriptor) => held.push(descriptor),
            Err(error) => {
                refusal = Some(errno(&error));
                break;
            }
        }
    }
    let count = held.len();
    drop(held);
    Ok(bounded(call, "open", format!("{count} descriptors"), refusal))
}

/// Writes to standard output without a newline.
pub(super) fn endless_output(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 1 << 30)?;
    let chunk = [b'x'; 1 << 16];
    let mut written = 0;
    let mut refusal = None;
    while written < limit {
        match call.out.write_all(&chunk) {
            Ok(()) => written += 1 << 16,
            Err(error) => {
                refusal = Some(errno(&error));
                break;
            }
        }
    }
    call.out.write_all(b"\n").unwrap_or_default();
    Ok(bounded(call, "write", format!("{} KiB to stdout", written >> 10), refusal))
}

/// Answers late, or never.
pub(super) fn hang(call: &mut Call<'_>) -> Probed {
    let time = Duration::from_millis(call.number("milliseconds", 3_600_000)?);
    if call.flag("deaf")? {
        attack::ignore_sigterm();
    }
    wait(time);
    Ok(bounded(call, "wait", format!("{} ms", time.as_millis()), None))
}
