//! Feeds [`properties::doors`]. Never: says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::doors::check(data));
