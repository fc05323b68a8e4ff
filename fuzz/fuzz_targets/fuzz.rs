//! libFuzzer's entry to every target: the one that `AMC_FUZZ_TARGET` names. What it does stands in the library.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<String> = LazyLock::new(|| std::env::var("AMC_FUZZ_TARGET").expect("AMC_FUZZ_TARGET is set"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| amc_fuzz::run(&TARGET, data));
