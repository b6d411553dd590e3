//! What fuzzers of layers share: a folder to unpack into, and a guard of everything beside it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;

const SECRET: &str = "not the image's";

/// Unpacks a tar and checks that nothing outside of its folder has changed.
///
/// # Panics
/// When something has.
pub fn unpack(tar: &[u8]) {
    let root = TempDir::new().expect("a folder");
    let outside = root.path().join("outside");
    fs::create_dir(&outside).expect("a folder beside the layer");
    fs::write(outside.join("file"), SECRET).expect("a file beside the layer");
    let before = stamp(&outside);
    let layer = root.path().join("layer");
    fs::create_dir(&layer).expect("the layer's folder");
    joey_image::fuzzing::layer(tar, &layer);
    assert_eq!(stamp(&outside), before, "the layer reached out");
    let mut beside: Vec<_> = fs::read_dir(root.path())
        .expect("the folder above")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    beside.sort();
    assert_eq!(beside, ["layer", "outside"], "the layer reached out");
}

/// Names, times, owners, modes and content of a folder with one file.
fn stamp(folder: &Path) -> String {
    let file = folder.join("file");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let of = |path: &Path| {
        fs::symlink_metadata(path).map(|data| {
            let times = (data.mtime_nsec(), data.ctime(), data.ctime_nsec());
            (data.mode(), data.uid(), data.gid(), data.nlink(), times)
        })
    };
    let names = fs::read_dir(folder).map_or(0, Iterator::count);
    format!("{names} {text} {:?} {:?}", of(folder).ok(), of(&file).ok())
}
