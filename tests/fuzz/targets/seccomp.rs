//! Seccomp profiles, down to the BPF program.
#![no_main]

use joey_seccomp::{Profile, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(profile) = Profile::parse(data) {
        drop(compile(&profile, &["CAP_CHOWN".to_owned()]));
    }
});
