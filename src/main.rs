//! The `toolcell` binary: hands over to the library. Never: does anything else.

fn main() {}
