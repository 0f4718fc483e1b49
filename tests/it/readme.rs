//! Runs the transcript of the README: each command, compared with what stands below it.
//!
//! Neighbours: `tidy` checks the other blocks. Never: touches anything but its own directory.

use std::fs;
use std::process::Command;

const DIRECTORY: &str = "/tmp/toolcell-readme";

/// Commands and the lines that follow each.
fn transcript(readme: &str) -> Vec<(String, String)> {
    let block = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command.to_owned(), String::new())),
            None => {
                let (_, output) = steps.last_mut().unwrap();
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    steps
}

#[test]
fn the_transcript_is_what_happens() {
    let binary = &crate::binary();
    let ready = Command::new(binary).args(["doctor", "--json"]).output().unwrap().status.success();
    if !ready {
        assert!(
            crate::host::expected().is_none_or(|floor| floor != "full"),
            "this host does not reach the floor `full`"
        );
        return;
    }
    fs::create_dir_all(DIRECTORY).unwrap();
    fs::write(format!("{DIRECTORY}/notes"), "hello\n").unwrap();
    let path = format!("{}:/usr/bin:/bin", binary.parent().unwrap().display());
    let steps = transcript(include_str!("../../README.md"));
    assert!(steps.len() >= 5, "the transcript has lost its commands");
    for (command, expected) in steps {
        let script = format!("{command} 2>&1");
        let output = Command::new("/bin/sh").args(["-c", &script]).env("PATH", &path).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "$ {command}");
    }
    fs::remove_dir_all(DIRECTORY).unwrap();
}
