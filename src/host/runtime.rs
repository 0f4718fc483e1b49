//! Works out, from a command line, the read-only view that the program itself needs to start.
//!
//! Neighbours: `commands` call it and hand [`Runtime`] to `plan`. Never: runs the program or anything else.

use std::path::PathBuf;

/// What a command needs, found and not configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The program: absolute, existing, as it is to be executed in the cell.
    pub program: PathBuf,
    /// The whole argument list; the first is the name as it was typed.
    pub argv: Vec<String>,
    /// Host paths that the cell must see at the same place, each readable and executable, with the reason.
    pub view: Vec<Needed>,
    /// Symbolic links to recreate in the cell's root: path → target as it stands in the link.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Directories for the cell's `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// Remarks for the person: what was not found, and which option to add.
    pub hints: Vec<String>,
}

/// One path and why it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// Absolute, free of symbolic links.
    pub path: PathBuf,
    /// E.g. "base of the virtual environment", "interpreter named in the script's first line".
    pub why: String,
}
