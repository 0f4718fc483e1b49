//! A directory of its own for each test that needs files, gone with the test.
//!
//! Neighbours: the tests of `audit`. Never: part of the program.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) struct TestDirectory {
    pub(super) path: PathBuf,
    pub(super) owner: u32,
}

impl TestDirectory {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toolcell-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        let owner = std::fs::metadata(&path).unwrap().uid();
        Self { path, owner }
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.path).unwrap();
    }
}
