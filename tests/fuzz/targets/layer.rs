//! A layer's tar, byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| joey_fuzz::unpack(data));
