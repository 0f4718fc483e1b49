//! `toolcell completions`: a shell's completion script, generated from the description of the command line.
//!
//! Neighbours: `cli::definition` is the source. Never: writes anywhere.

use clap_complete::Shell;

use crate::cli::definition;

/// The script for this shell.
pub(super) fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition::command(), "toolcell", &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_is_offered_the_options_of_the_commands() {
        for &shell in Shell::value_variants() {
            let script = String::from_utf8(script(shell)).unwrap();
            for option in ["memory", "floor", "explain"] {
                assert!(script.contains(option), "{shell}: {option}");
            }
        }
    }
}
