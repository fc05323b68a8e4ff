//! libFuzzer's entry to the target `event`; what it does stands in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| amc_fuzz::run("event", data));
