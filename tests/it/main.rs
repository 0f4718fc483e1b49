//! The fast tests, in one binary.

mod demo;
