//! Feeds [`properties::roles`]. Never: says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::roles::check(data));
