//! Probes that reach for other processes, outlive their call, and look for secrets of the one who started them.
//!
//! Neighbours: `hostile::tools` lists them. Never: tells a value that is not a planted secret.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::files::read;
use super::report::{CANARY, Call, Probed, Refusal, errno, reveal};
use super::resources::wait;
use crate::sys::{Errno, attack, observe, surface};

/// One call that is given the process.
fn on_process(
    call: &Call<'_>,
    operation: &str,
    success: &str,
    attempt: fn(i32) -> Result<(), Errno>,
) -> Probed {
    let pid = call.pid()?;
    Ok(call.tried(operation, format!("process {pid}"), attempt(pid).map(|()| success.to_owned())))
}

/// Sends SIGTERM to a process that is not its own.
pub(super) fn kill_process(call: &mut Call<'_>) -> Probed {
    on_process(call, "kill", "signal sent", |pid| observe::kill(pid, libc::SIGTERM))
}

/// Attaches as a debugger.
pub(super) fn trace_process(call: &mut Call<'_>) -> Probed {
    let pid = call.pid()?;
    Ok(call.tried_in_child("ptrace", format!("process {pid}"), "attached", attack::trace(pid)))
}

/// Reads another process's memory.
pub(super) fn read_memory(call: &mut Call<'_>) -> Probed {
    on_process(call, "process_vm_readv", "allowed", attack::read_memory)
}

/// Takes an open file out of another process.
pub(super) fn take_descriptor(call: &mut Call<'_>) -> Probed {
    on_process(call, "pidfd_getfd", "taken", attack::take_descriptor)
}

/// Looks whether a process is there.
pub(super) fn see_process(call: &mut Call<'_>) -> Probed {
    let path = format!("/proc/{}", call.pid()?);
    let seen = fs::metadata(&path).map(|_directory| "it is there".to_owned());
    Ok(call.tried("stat", path, seen.map_err(|error| errno(&error))))
}

/// Writes into another process's memory.
pub(super) fn write_memory(call: &mut Call<'_>) -> Probed {
    on_process(call, "process_vm_writev", "allowed", surface::write_memory)
}

/// Opens another process's memory as a file.
pub(super) fn open_memory(call: &mut Call<'_>) -> Probed {
    open_of_process(call, "mem")
}

/// Opens a file of the process that everything descends from.
pub(super) fn read_first_process(call: &mut Call<'_>) -> Probed {
    let path = "/proc/1/environ";
    Ok(call.tried("open", path, read(Path::new(path))))
}

/// Reads the command line of another process.
pub(super) fn read_arguments(call: &mut Call<'_>) -> Probed {
    open_of_process(call, "cmdline")
}

/// Opens a file of another process and reads its start.
fn open_of_process(call: &Call<'_>, name: &str) -> Probed {
    let path = format!("/proc/{}/{name}", call.pid()?);
    let mut start = [0; 256];
    let read = fs::File::open(&path).and_then(|mut file| match file.read(&mut start) {
        // Nothing is mapped at the start of memory, which is told only to who may read it.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
        answer => answer,
    });
    let saw = read.map(|length| reveal(start.get(..length).unwrap_or_default()));
    Ok(call.tried("open", path, saw.map_err(|error| errno(&error))))
}

/// Compares what a process holds.
pub(super) fn compare_process(call: &mut Call<'_>) -> Probed {
    on_process(call, "kcmp", "compared", surface::compare_process)
}

/// Lets a crash write its memory to a file.
pub(super) fn allow_core(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("setrlimit", "core", "allowed", surface::allow_core()))
}

/// Looks into the environment of every process it can see but itself.
pub(super) fn read_environments(call: &mut Call<'_>) -> Probed {
    let itself = std::process::id().to_string();
    let listed = match fs::read_dir("/proc") {
        Ok(listed) => listed,
        Err(error) => return Ok(call.tried("open", "/proc", Err(errno(&error)))),
    };
    let (mut seen, mut opened, mut refusal) = (0_u32, 0_u32, Errno(libc::ENOENT));
    let mut secrets: Vec<String> = Vec::new();
    for entry in listed.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        if pid == itself {
            continue;
        }
        seen += 1;
        match fs::read(entry.path().join("environ")) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => {
                opened += 1;
                let text = reveal(&bytes);
                secrets.extend(Some(text).filter(|text| text.starts_with(CANARY)));
            }
            Err(error) => refusal = errno(&error),
        }
    }
    let object = "/proc/*/environ";
    Ok(match opened {
        0 => call.tried("open", object, Err(refusal)),
        _ if secrets.is_empty() => {
            call.tried("open", object, Ok(format!("read {opened} of {seen}, no planted key in them")))
        }
        _ => call.tried("open", object, Ok(secrets.join(" "))),
    })
}

/// Looks for keys in its own environment.
pub(super) fn read_keys(call: &mut Call<'_>) -> Probed {
    const WORDS: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"];
    let mut names = Vec::new();
    let mut planted = None;
    for (name, value) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word)) {
            let value = reveal(value.as_encoded_bytes());
            planted = planted.or(Some(value).filter(|value| value.starts_with(CANARY)));
            names.push(name);
        }
    }
    let found = match (names.is_empty(), planted) {
        (true, _) => Err(Errno(libc::ENOENT)),
        (false, Some(value)) => Ok(format!("{}: {value}", names.join(" "))),
        (false, None) => Ok(names.join(" ")),
    };
    Ok(call.tried("getenv", "*KEY*, *TOKEN*", found))
}

/// Asks for the name of the machine.
pub(super) fn identify_host(call: &mut Call<'_>) -> Probed {
    Ok(call.tried("uname", "host name", observe::host_name()))
}

/// Leaves a process behind that is to outlive its call.
pub(super) fn daemonise(call: &mut Call<'_>) -> Probed {
    let name = CString::new(call.text("name")?).map_err(|_nul| Refusal("name"))?;
    let time = Duration::from_millis(call.number("milliseconds", 20_000)?);
    let left = attack::daemonise(&name, || wait(time)).map(|()| "left behind".to_owned());
    Ok(call.tried("fork twice", name.to_string_lossy(), left))
}
