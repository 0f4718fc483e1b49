//! The edges that have children which are `toolcell run`: several servers as one.
//!
//! Neighbours: `commands` composes them. Never: starts a cell, decides what an identity may, writes a record.

pub mod child;
pub mod gather;
mod tail;
