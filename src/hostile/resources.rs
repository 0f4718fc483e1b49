//! Probes that use up what others need. Each has a bound at which it stops by itself and counts as escaped.
//!
//! Neighbours: `hostile::tools` lists them. Never: keeps anything once it has answered.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{hint, thread};

use super::report::{Call, Probed, Report, errno};
use crate::sys::{Errno, attack, descriptor, surface};

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
    let directory = call.directory();
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

/// Stops itself.
pub(super) fn stop_itself(call: &mut Call<'_>) -> Probed {
    let time = Duration::from_millis(call.number("milliseconds", 3_600_000)?);
    let refusal = surface::stop_itself(|| wait(time)).err();
    Ok(bounded(call, "stop", format!("{} ms", time.as_millis()), refusal))
}

/// Locks memory.
pub(super) fn lock_memory(call: &mut Call<'_>) -> Probed {
    let limit = usize::try_from(call.number("limit", 1 << 20)?).unwrap_or(usize::MAX);
    Ok(call.tried_in_child("mlock", format!("{} KiB", limit >> 10), "locked", surface::lock_memory(limit)))
}

/// Makes files in memory that belong to no directory.
pub(super) fn fill_memory_files(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 1 << 30)?;
    let mut held = Vec::new();
    let mut written = 0;
    let mut refusal = None;
    while written < limit && refusal.is_none() {
        match descriptor::anonymous_file().map(File::from).and_then(|mut file| {
            file.write_all(&vec![1; MIB]).map_err(|error| errno(&error))?;
            Ok(file)
        }) {
            Ok(file) => held.push(file),
            Err(errno) => refusal = Some(errno),
        }
        written += 1 << 20;
    }
    Ok(bounded(call, "write", format!("about {} MiB", written >> 20), refusal))
}

/// Makes empty files.
pub(super) fn fill_names(call: &mut Call<'_>) -> Probed {
    let directory = call.directory().join(format!("toolcell-names-{}", std::process::id()));
    let limit = call.number("limit", 100_000)?;
    let mut refusal = fs::create_dir(&directory).err().map(|error| errno(&error));
    let mut made = 0;
    while made < limit && refusal.is_none() {
        refusal = File::create(directory.join(made.to_string())).err().map(|error| errno(&error));
        made += 1;
    }
    fs::remove_dir_all(&directory).unwrap_or_default();
    Ok(bounded(call, "create", format!("about {made} files"), refusal))
}

/// Makes pipes and fills them.
pub(super) fn fill_pipes(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 10_000)?;
    let mut held = Vec::new();
    let mut refusal = None;
    while held.len() < usize::try_from(limit).unwrap_or(usize::MAX) && refusal.is_none() {
        match io::pipe().and_then(|(reader, mut writer)| {
            writer.write_all(&[1; 4096])?;
            Ok((reader, writer))
        }) {
            Ok(pipe) => held.push(pipe),
            Err(error) => refusal = Some(errno(&error)),
        }
    }
    let count = held.len();
    drop(held);
    Ok(bounded(call, "write", format!("{count} pipes"), refusal))
}

/// Makes pairs of connected sockets and fills both ways.
pub(super) fn fill_sockets(call: &mut Call<'_>) -> Probed {
    let limit = usize::try_from(call.number("limit", 10_000)?).unwrap_or(usize::MAX);
    let mut held = Vec::new();
    let mut refusal = None;
    while held.len() < limit && refusal.is_none() {
        match filled_pair() {
            Ok(pair) => held.push(pair),
            Err(error) => refusal = Some(errno(&error)),
        }
    }
    let count = held.len();
    drop(held);
    Ok(bounded(call, "send", format!("{count} pairs of sockets"), refusal))
}

/// Two connected sockets, each with all that it takes for the other.
fn filled_pair() -> io::Result<(UnixStream, UnixStream)> {
    let (mut one, mut other) = UnixStream::pair()?;
    for end in [&mut one, &mut other] {
        end.set_nonblocking(true)?;
        loop {
            match end.write(&[1; 1 << 15]) {
                Ok(_some) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok((one, other))
}

/// Calls itself deeper and deeper, with a stack that may be as large as it can be had.
pub(super) fn grow_stack(call: &mut Call<'_>) -> Probed {
    let limit = usize::try_from(call.number("limit", 1 << 20)?).unwrap_or(usize::MAX);
    let grown = surface::grow_stack(limit);
    Ok(call.tried_in_child("recurse", format!("{} MiB of stack", limit >> 20), "grown", grown))
}

/// Makes one file as large as it gets, without writing to it.
pub(super) fn grow_file(call: &mut Call<'_>) -> Probed {
    let path = call.directory().join(format!("toolcell-grown-{}", std::process::id()));
    let limit = call.number("limit", 1 << 40)?;
    let grown = attack::in_child(|| {
        File::create(&path).and_then(|file| file.set_len(limit)).map_err(|error| errno(&error))
    });
    fs::remove_file(&path).unwrap_or_default();
    Ok(call.tried_in_child("ftruncate", format!("{} MiB", limit >> 20), "grown", grown))
}

/// Writes messages that nobody asked for.
pub(super) fn flood_messages(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 1 << 30)?;
    let filling = "x".repeat(4096);
    let line = format!(r#"{{"jsonrpc":"2.0","method":"notifications/none","params":{{"x":"{filling}"}}}}"#);
    let mut written = 0;
    let mut refusal = None;
    while written < limit && refusal.is_none() {
        let sent = call.out.write_all(line.as_bytes()).and_then(|()| call.out.write_all(b"\n"));
        refusal = sent.err().map(|error| errno(&error));
        written += 4096;
    }
    Ok(bounded(call, "write", format!("{} KiB of messages", written >> 10), refusal))
}

/// Writes to standard error.
pub(super) fn flood_errors(call: &mut Call<'_>) -> Probed {
    let limit = call.number("limit", 1 << 30)?;
    let mut written = 0;
    let mut refusal = None;
    while written < limit && refusal.is_none() {
        refusal = io::stderr().write_all(&[b'x'; 1 << 16]).err().map(|error| errno(&error));
        written += 1 << 16;
    }
    Ok(bounded(call, "write", format!("{} KiB to stderr", written >> 10), refusal))
}
