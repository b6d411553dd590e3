//! Manifests, indexes and image configs.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| joey_image::fuzzing::manifest(data));
