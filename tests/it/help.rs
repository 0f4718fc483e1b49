//! Each help page as a person sees it, and the process around it.

use std::process::{Command, Output};

use toolcell::cli::definition;

fn toolcell(arguments: &[&str]) -> Output {
    Command::new(crate::binary()).args(arguments).env_remove("NO_COLOR").output().unwrap()
}

/// The pages below a command, `path` being the words typed so far.
fn pages(command: &mut clap::Command, path: &str, found: &mut Vec<(String, String)>) {
    found.push((format!("{path} -h"), command.render_help().to_string()));
    found.push((format!("{path} --help"), command.render_long_help().to_string()));
    for subcommand in command.get_subcommands_mut() {
        let path = format!("{path} {}", subcommand.get_name());
        pages(subcommand, &path, found);
    }
}

#[test]
fn every_help_page_is_as_it_was_reviewed() {
    let mut command = definition::command().term_width(100);
    command.build();
    let mut found = Vec::new();
    pages(&mut command, "toolcell", &mut found);
    for (path, text) in found {
        insta::assert_snapshot!(path.replace(' ', "_"), text);
    }
}

#[test]
fn help_goes_to_stdout_and_a_mistake_to_stderr() {
    let help = toolcell(&["exec", "--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    assert!(help.stdout.starts_with(b"Run one command in a cell"));

    let mistake = toolcell(&["exec", "--\u{202e}\x1b[31m\nhint: x"]);
    assert_eq!(mistake.status.code(), Some(2));
    assert!(mistake.stdout.is_empty());
    insta::assert_snapshot!(String::from_utf8(mistake.stderr).unwrap());

    let nothing = toolcell(&[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(nothing.stdout.is_empty() && nothing.stderr.starts_with(b"Run each MCP tool call"));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(crate::binary()).arg("man").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.starts_with(b"error: cannot write to stdout\n  caused by: "));
}

#[test]
fn a_reader_that_went_away_gets_no_message() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(crate::binary()).arg("man").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}

#[test]
fn manual_pages_are_written_into_a_directory() {
    let directory = std::env::temp_dir().join(format!("toolcell-man-{}", std::process::id()));
    let missing = toolcell(&["man", directory.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("hint: make it first: mkdir -p"));

    std::fs::create_dir(&directory).unwrap();
    assert!(toolcell(&["man", directory.to_str().unwrap()]).status.success());
    let exec = std::fs::read_to_string(directory.join("toolcell-exec.1")).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(exec.contains("\\-\\-memory"));
}
