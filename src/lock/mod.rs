//! What was accepted of a server, so that it cannot change unseen: its definitions, its program, the profiles it runs under.
//!
//! ```text
//! lists ──► definition ──► rules (what is suspicious) ──► file ──► toolcell.lock
//!              └──► guard, which has the file ──► the same: on it goes │ another: no call, and a diff
//! ```
//!
//! Neighbours: `commands::lock` writes the file, `session` asks a [`Guard`] of each list and call, `host::program` hashes
//! files. Never: does I/O.

mod definition;
mod diff;
mod file;
mod guard;
mod read;
mod rules;
mod shown;
mod words;

pub use definition::{Definition, Kind, hash};
pub use diff::lines as diff;
pub use file::{Item, LockFile, Package, Part, Pinned, Profile, Server};
pub use guard::{Difference, Found, Guard, compare};
pub use read::{NotALock, parse};
pub use rules::{Flag, RULES, Rule, flags, shadowed};
pub use shown::{filtered, without_instructions};
