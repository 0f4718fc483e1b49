//! The `toolcell` binary: hands over to the library. Never: does anything else.
//!
//! SIGPIPE is ignored, as Rust's own start-up code would have it: a pipe whose other end went away is an error to
//! handle, never the end of the supervisor and of the cells it answers for.

#![no_main]

use std::io::{self, Write as _};

use toolcell::commands;
use toolcell::sys::{process, start};

#[expect(
    unsafe_code,
    reason = "the one name by which libc's start calls a program: there is no other `main`"
)]
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    start::begin();
    let ending = commands::main(std::env::args_os());
    // What a command had to say there it has flushed, and told if that failed.
    let _told = io::stdout().flush().is_err();
    // Nothing of libc or of Rust is to be done at the end, and to look for it takes its time.
    process::exit_now(ending.code().into())
}
