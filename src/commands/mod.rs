//! One file a subcommand: composition only.
//!
//! Neighbours: `main` calls them with what `cli` parsed. Never: decides what a stage should.

pub mod demo;
