//! `hosts.toml`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

fuzz_target!(|data: &[u8]| {
    let folder = TempDir::new().expect("a folder");
    joey_image::fuzzing::hosts(data, folder.path());
});
