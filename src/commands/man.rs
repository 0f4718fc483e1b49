//! `toolcell man`: manual pages, generated from the description of the command line.
//!
//! Neighbours: `cli::definition` is the source. Never: reads a page that is already there.

use std::io;
use std::path::{Path, PathBuf};

use clap_mangen::Man;

use crate::cli::definition;
use crate::diag::Failure;
use crate::exit_codes::Ending;
use crate::text::quoted_path;

/// Why pages could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManError {
    /// Rendering wrote to memory and failed all the same.
    #[error("cannot render the manual page")]
    Render(#[source] io::Error),
    /// The directory or a page in it.
    #[error("cannot write manual pages to `{}`", .directory.display())]
    Write {
        /// Where.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The page toolcell(1).
pub(super) fn page() -> Result<Vec<u8>, ManError> {
    let mut page = Vec::new();
    let mut command = definition::command();
    command.build();
    Man::new(command).render(&mut page).map_err(ManError::Render)?;
    Ok(page)
}

/// Writes toolcell(1) and a page for each command into a directory that exists.
pub(super) fn write_pages(directory: &Path) -> Result<Ending, ManError> {
    clap_mangen::generate_to(definition::command(), directory)
        .map_err(|source| ManError::Write { directory: directory.to_owned(), source })?;
    Ok(Ending::Success)
}

pub(super) fn failure(error: ManError) -> Failure {
    let hint = match &error {
        ManError::Write { directory, source } if source.kind() == io::ErrorKind::NotFound => {
            Some(format!("make it first: mkdir -p {}", quoted_path(directory)))
        }
        ManError::Write { .. } | ManError::Render(_) => None,
    };
    Failure::new(Ending::Other, error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_command_that_is_not_hidden() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        assert!(page.contains(".TH toolcell 1"), "{page}");
        for command in ["run", "exec", "doctor", "profile", "demo", "selftest", "completions", "man"] {
            assert!(page.contains(&format!("toolcell\\-{command}(1)")), "{command}: {page}");
        }
        assert!(!page.contains("hostile\\-server"));
    }
}
