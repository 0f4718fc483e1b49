//! Temporary entry for trials.
use std::io::{self, Write};

use toolcell::commands::demo;
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|a| a == name);
    if has("hostile-server") {
        return match toolcell::hostile::serve(io::stdin().lock(), io::stdout()) {
            Ok(()) => 0.into(),
            Err(_) => 1.into(),
        };
    }
    let program = std::env::var_os("TOOLCELL_PROGRAM")
        .map_or_else(|| std::env::current_exe().unwrap_or_default(), Into::into);
    let floor = if has("--no-cgroup") { Some(toolcell::policy::Floor::NoCgroup) } else { None };
    let options = demo::Options {
        json: has("--json"),
        floor,
        cell: !has("--without-cell"),
        colour: has("--colour"),
        program,
    };
    match demo::run(&options, &mut io::stdout()) {
        Ok(true) => 0.into(),
        Ok(false) => 1.into(),
        Err(error) => {
            writeln!(io::stderr(), "error: {error}\nhint: {:?}", error.hint()).unwrap_or_default();
            2.into()
        }
    }
}
