//! File systems that a test can fill.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Two of the test image fit into the root folder's.
const SIZES: [(&str, &str); 2] = [
    ("root", "size=32m,nr_inodes=6000,mode=0755"),
    ("state", "size=4m,nr_inodes=2000,mode=0755"),
];
const FILLER: &str = "filler";

/// What there is none of any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Bytes.
    Space,
    /// Files and folders.
    Inodes,
}

/// A daemon's root and state folders as file systems of their own, in this mount namespace.
#[derive(Debug)]
pub struct SmallDisk(Vec<PathBuf>);

impl SmallDisk {
    pub(crate) fn new(folder: &Path) -> Self {
        let mut mounted = Self(Vec::new());
        for (name, options) in SIZES {
            let path = folder.join(name);
            std::fs::create_dir(&path).unwrap();
            let options = std::ffi::CString::new(options).unwrap();
            mount("tmpfs", &path, "tmpfs", MountFlags::empty(), &*options).unwrap();
            mounted.0.push(path);
        }
        mounted
    }

    /// Takes all that is left.
    pub fn fill(&self, what: Full) {
        for folder in &self.0 {
            let filler = folder.join(FILLER);
            std::fs::create_dir(&filler).unwrap();
            match what {
                Full::Space => {
                    let mut file = File::create(filler.join("bytes")).unwrap();
                    let page = [1; 4096];
                    while file.write_all(&page).is_ok() {}
                }
                Full::Inodes => {
                    let mut files = 0..;
                    let mut path = || filler.join(files.next().unwrap().to_string());
                    while File::create_new(path()).is_ok() {}
                }
            }
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        for folder in &self.0 {
            std::fs::remove_dir_all(folder.join(FILLER)).unwrap();
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Processes of a failed test may still be there.
            let _mounted_no_more = unmount(folder, UnmountFlags::DETACH);
        }
    }
}
