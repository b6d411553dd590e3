//! Disk traffic and the writable layer's file system.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use joey_cgroup::IoStats;
use joey_runtime::LayerUsage;
use rustix::fs::{major, minor};

use super::descriptors as metric;
use super::samples::Samples;

impl Samples<'_> {
    /// Devices by name; without any traffic one zero of a device without a name, so that each
    /// metric has a sample.
    pub(super) fn io(&mut self, devices: &[IoStats]) {
        let none = [IoStats::default()];
        let devices = if devices.is_empty() { &none } else { devices };
        for io in devices {
            let name = device_name(io.major, io.minor);
            let device = name.as_str();
            self.add(&metric::FS_READS, &[device], io.reads);
            self.add(&metric::FS_READ_BYTES, &[device], io.read_bytes);
            self.add(&metric::FS_WRITES, &[device], io.writes);
            self.add(&metric::FS_WRITE_BYTES, &[device], io.write_bytes);
            let (major, minor) = (io.major.to_string(), io.minor.to_string());
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.write_bytes)] {
                self.add(
                    &metric::BLKIO_USAGE,
                    &[device, &major, &minor, operation],
                    bytes,
                );
            }
        }
    }

    pub(super) fn layer(&mut self, layer: &LayerUsage) {
        let name = device_of(&layer.path);
        let device = [name.as_str()];
        self.add(&metric::FS_USAGE, &device, layer.used_bytes);
        if let Ok(fs) = rustix::fs::statvfs(&layer.path) {
            self.add(
                &metric::FS_LIMIT,
                &device,
                fs.f_blocks.saturating_mul(fs.f_frsize),
            );
            self.add(&metric::FS_INODES_TOTAL, &device, fs.f_files);
            self.add(&metric::FS_INODES_FREE, &device, fs.f_ffree);
        }
    }
}

fn device_of(path: &Path) -> String {
    std::fs::metadata(path)
        .map(|file| device_name(major(file.dev()), minor(file.dev())))
        .unwrap_or_default()
}

/// `/dev/sda1`; empty for what is no block device, as a network's file system.
fn device_name(major: u32, minor: u32) -> String {
    std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))
        .ok()
        .and_then(|link| Some(format!("/dev/{}", link.file_name()?.to_string_lossy())))
        .unwrap_or_default()
}
