//! Finding runtimes in small trees.
