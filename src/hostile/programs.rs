//! Probes that run what they should not, and that ask for privileges.
//!
//! Neighbours: `hostile::tools` lists them. Never: runs anything but a program of twelve bytes that exits.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::report::{Call, Probed, errno};
use crate::sys::attack;

/// An x86-64 ELF image in 64-bit words: file header, one program header, and the code
/// `mov edi, 0; mov eax, 60; syscall`, which exits with 0.
const PROGRAM: [u64; 17] = [
    0x0001_0102_464c_457f,
    0,
    0x0000_0001_003e_0002,
    0x40_0078,
    64,
    0,
    0x0038_0040_0000_0000,
    0x0000_0000_0000_0001,
    0x0000_0005_0000_0001,
    0,
    0x40_0000,
    0x40_0000,
    136,
    136,
    0x1000,
    0x3cb800000000bf,
    0x50f0000,
];

/// The image as bytes.
fn program() -> Vec<u8> {
    PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Writes a program where it may write, and runs it.
pub(super) fn run_dropped_program(call: &mut Call<'_>) -> Probed {
    let path = call.directory().join("toolcell-dropped");
    let ran = drop_and_run(&path).map(|()| "ran".to_owned());
    fs::remove_file(&path).unwrap_or_default();
    Ok(call.tried("execve", path.to_string_lossy(), ran.map_err(|error| errno(&error))))
}

/// Writes the program, which is executable from the start and by chmod(2) if it has to be, and runs it to its end.
fn drop_and_run(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    file.write_all(&program())?;
    if file.metadata()?.permissions().mode() & 0o100 == 0 {
        file.set_permissions(Permissions::from_mode(0o755))?;
    }
    drop(file);
    match Command::new(path).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::ENOEXEC)),
    }
}

/// Runs a program that is in no file system.
pub(super) fn run_from_memory(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("execveat", "memfd", "ran", attack::run_from_memory(&program())))
}

/// Asks to be root.
pub(super) fn become_root(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("setresuid", "0", "is root", attack::become_root()))
}

/// Calls the kernel through the 32-bit entry, which a filter of 64-bit numbers does not see.
pub(super) fn i386_call(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("int 0x80", "getpid", "answered", attack::i386_call()))
}

/// Calls the kernel with the x32 bit.
pub(super) fn x32_call(call: &mut Call<'_>) -> Probed {
    Ok(call.tried_in_child("x32 call", "getpid", "answered", attack::x32_call()))
}
