//! Who sent a request, and whether it may go on: identities, their rights, their limits.
//!
//! ```text
//! request ──► readable in one way? ──► who? ──► allowed? ──► within the limits? ──► without its proof, to the server
//!                  └─────────────────────┴─────────┴────────────────┴──► refused: no cell, a record, an error
//! ```
//!
//! Neighbours: `policy::config` has the rules as values, `session` asks [`Gate::admit`] of every request and filters
//! what it lists by [`Gate::listed`]; `front` asks [`Holders`] first, where requests come over a network. Never: reads a clock that people set (the time is given), writes a
//! record, or keeps a token.

mod canonical;
mod front;
mod gate;
mod holders;
mod known;
mod limits;
mod listed;
mod nonces;
mod now;
mod request;
mod rights;
mod secret;
mod signed;

pub use canonical::whole as canonical;
pub use front::word;
pub use gate::{Admitted, Denied, Gate, Reason};
pub use holders::Holders;
pub use limits::Pass;
pub use nonces::{Nonces, NoncesError};
pub use now::Now;
pub use request::{FRONT_MEMBER, PROOFS, SIGNATURE_MEMBER, TOKEN_MEMBER};
pub use rights::merged;
pub use secret::{fingerprint, signing_key};

/// The variable in which a client hands its token to toolcell.
pub const TOKEN_VARIABLE: &std::ffi::CStr = c"TOOLCELL_TOKEN";

/// The variable in which a front hands its key to the process behind it.
pub const FRONT_VARIABLE: &std::ffi::CStr = c"TOOLCELL_FRONT";
