//! CNI configurations and plugins' answers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| joey_network::fuzzing::cni(data));
