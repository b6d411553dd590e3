//! Records as found on a disk: of pods and containers, images and layers, leases and CNI networks.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    joey_runtime::fuzzing::record(data);
    joey_image::fuzzing::record(data);
    joey_network::fuzzing::record(data);
});
