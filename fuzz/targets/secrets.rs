//! Feeds [`properties::secrets`]. Never: says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::secrets::check(data));
