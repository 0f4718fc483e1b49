//! The `toolcell` binary: hands over to the library. Never: does anything else.
//!
//! SIGPIPE stays ignored, as Rust's start-up code leaves it: a pipe whose other end went away is an error to
//! handle, never the end of the supervisor and of the cells it answers for.

use std::process::ExitCode;

fn main() -> ExitCode {
    toolcell::commands::main(std::env::args_os()).into()
}
