//! The edges that have children which are `toolcell run`: an HTTP process in front of them, and several servers as one ([`gather`]).
//!
//! ```text
//! clients ⇄ server ─► endpoint ─► shared  ⇄ child (all modern clients)
//!                        │  └───► session ⇄ child (each legacy session its own)
//!                        └ hosts, auth, mirror: whether a request goes anywhere at all
//! ```
//!
//! What parses HTTP holds no cell, and what holds cells reads lines from one pipe: a child is what a client would start by
//! itself, with all its own walls.
//!
//! Neighbours: `commands::serve` and `commands::gather` compose it. Never: starts a cell, decides what an identity may, writes a record.

mod answer;
mod auth;
mod base64;
pub mod child;
mod endpoint;
mod fetch;
pub mod gather;
mod hosts;
mod io;
mod jwks;
mod jwt;
mod marks;
mod mirror;
mod queue;
mod server;
mod session;
mod shared;
mod tail;
mod taken;
pub mod tls;
mod wire;

pub use auth::Auth;
pub use endpoint::PATH;
pub use hosts::{Hosts, is_name, is_origin};
pub use jwt::Jwt;
pub use server::{Options, ServeError, serve};
