//! References, auth fields, challenges.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| joey_image::fuzzing::texts(data));
