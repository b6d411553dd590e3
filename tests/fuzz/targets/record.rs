//! Records of pods and containers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| joey_runtime::fuzzing::record(data));
