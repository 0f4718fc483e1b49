//! `doctor --fix`: prints what can be done about what is missing; with `--apply` does each after a typed `yes`.
//!
//! Neighbours: `host::probe::repairs` says what; `doctor` has found out for whom. Never: does anything that it has not
//! printed, or that nobody has said yes to.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};

use crate::cli::{DoctorArgs, Fix};
use crate::commands::print;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::host::probe::repairs::{Act, Repair};
use crate::sys::identity;
use crate::text::{escape, escape_lines};

/// Prints, and does what was asked for. `verdict` is the doctor's own ending.
pub(super) fn run(args: &DoctorArgs, repairs: &[Repair], verdict: Ending) -> Result<Ending, Failure> {
    if repairs.is_empty() {
        print(b"\nnothing here that --fix could do\n")?;
        return Ok(verdict);
    }
    if args.fix == Some(Fix::Print) {
        for repair in repairs {
            print(described(repair).as_bytes())?;
        }
        return Ok(verdict);
    }
    if identity::effective().0 != 0 {
        let program =
            std::env::current_exe().map_or_else(|_| "toolcell".to_owned(), |p| p.display().to_string());
        let hint = format!("sudo {program} doctor --fix --apply");
        return Err(Failure::new(Ending::Usage, "only root can do this").hint(Some(hint)));
    }
    let mut all = true;
    for repair in repairs {
        print(described(repair).as_bytes())?;
        if args.fix == Some(Fix::Apply) && !says_yes()? {
            print(b"not done\n")?;
            all = false;
            continue;
        }
        for act in &repair.acts {
            apply(act).map_err(|why| {
                Failure::new(Ending::Other, why).hint(Some(format!("by hand: {}", in_shell(act))))
            })?;
        }
        print(b"done\n")?;
        if let Some(then) = &repair.then {
            print(format!("{then}\n").as_bytes())?;
        }
    }
    Ok(if all { Ending::Success } else { verdict })
}

fn described(repair: &Repair) -> String {
    let mut text = format!("\nfix: {}\n  {}\n", repair.name, escape(&repair.cause));
    for act in &repair.acts {
        match act {
            Act::Write { path, content } => {
                let replaces =
                    if path.starts_with("/etc") && path.exists() { ", replacing what is there" } else { "" };
                text += &format!("  write {}{replaces}:\n", path.display());
                for line in content.lines() {
                    text += &format!("    {}\n", escape_lines(line, ""));
                }
            }
            Act::Run { command } => text += &format!("  run {}\n", escape(&command.join(" "))),
        }
    }
    text
}

/// One line from the caller; only this word is a yes.
fn says_yes() -> Result<bool, Failure> {
    print(b"do this? type yes: ")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::new(Ending::Other, error))?;
    if !line.ends_with('\n') {
        print(b"\n")?;
    }
    Ok(line.trim() == "yes")
}

fn in_shell(act: &Act) -> String {
    match act {
        Act::Write { path, content } => {
            format!("write {} with `{}`", path.display(), escape(content.trim_end()))
        }
        Act::Run { command } => command.join(" "),
    }
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("cannot {0}")]
    Act(String, #[source] io::Error),
    #[error("`{0}` ended with {1}")]
    Ended(String, std::process::ExitStatus),
}

fn apply(act: &Act) -> Result<(), Broken> {
    match act {
        Act::Write { path, content } => {
            let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path);
            // A kernel setting takes its value in one write.
            written
                .and_then(|mut file| file.write_all(content.as_bytes()))
                .map_err(|error| Broken::Act(format!("write `{}`", path.display()), error))
        }
        Act::Run { command } => {
            let (program, arguments) = command.split_first().unzip();
            let program = program.map_or("", String::as_str);
            let ended =
                Command::new(program).args(arguments.unwrap_or_default()).stdin(Stdio::null()).status();
            match ended {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(Broken::Ended(command.join(" "), status)),
                Err(error) => Err(Broken::Act(format!("run `{program}`"), error)),
            }
        }
    }
}
