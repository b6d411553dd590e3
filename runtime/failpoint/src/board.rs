//! The memory by which a test arms points and learns which were passed.

use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::Role;

const NAME_BYTES: usize = 64;
const TRACE_BYTES: usize = 1 << 20;

/// What happens at an armed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process that passes it is killed.
    Kill,
    /// Another process is killed, and the one that passes goes on.
    KillOther(i32),
    /// The step fails with this errno.
    Fail(i32),
}

/// A point that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What passed it.
    pub role: Role,
    /// Its name.
    pub point: String,
    /// Who passed it, as it sees itself.
    pub pid: i32,
}

/// Memory of several processes: only atomics.
#[repr(C)]
struct Shared {
    /// 1 while a point is armed.
    armed: AtomicU32,
    role: AtomicU32,
    name: [AtomicU8; NAME_BYTES],
    /// Matching passes that are still let through.
    left: AtomicU32,
    /// 0: kill; otherwise the errno.
    errno: AtomicI32,
    /// Who is killed; 0: who passes.
    victim: AtomicI32,
    fired: AtomicU32,
    traced: AtomicUsize,
    trace: [AtomicU8; TRACE_BYTES],
}

/// A mapped board.
#[derive(Debug)]
pub struct Board(NonNull<Shared>);

// SAFETY: the memory consists of atomics and stays mapped for as long as the board lives.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Role {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Daemon => 0,
            Self::Shim => 1,
            Self::Worker => 2,
        }
    }

    pub(crate) fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Daemon,
            1 => Self::Shim,
            _ => Self::Worker,
        }
    }
}

impl Board {
    /// Makes a board with nothing armed.
    ///
    /// # Errors
    /// The file cannot be made or mapped.
    pub fn create(path: &Path) -> io::Result<Self> {
        File::create_new(path)?.set_len(size_of::<Shared>() as u64)?;
        Self::open(path)
    }

    /// Maps a board that a test made.
    ///
    /// # Errors
    /// It is none, or cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let size = size_of::<Shared>();
        if file.metadata()?.len() != size as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                size,
                protection,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let shared = NonNull::new(memory.cast::<Shared>());
        Ok(Self(shared.ok_or(io::ErrorKind::OutOfMemory)?))
    }

    fn shared(&self) -> &Shared {
        // SAFETY: the mapping has this size, is aligned to a page, lives as long as `self`, and
        // every bit pattern is a valid value of its atomics.
        unsafe { self.0.as_ref() }
    }

    /// Arms the pass number `nth`, from 1, of a point by processes of a role.
    ///
    /// # Panics
    /// When the name is too long for a board.
    pub fn arm(&self, role: Role, point: &str, nth: u32, action: Action) {
        assert!(point.len() < NAME_BYTES, "{point} is too long");
        let shared = self.shared();
        self.disarm();
        shared.fired.store(0, Ordering::Relaxed);
        shared.role.store(role.number(), Ordering::Relaxed);
        let bytes = point.bytes().chain(std::iter::repeat(0));
        for (place, byte) in shared.name.iter().zip(bytes) {
            place.store(byte, Ordering::Relaxed);
        }
        let (errno, victim) = match action {
            Action::Kill => (0, 0),
            Action::KillOther(pid) => (0, pid),
            Action::Fail(errno) => (errno, 0),
        };
        shared.errno.store(errno, Ordering::Relaxed);
        shared.victim.store(victim, Ordering::Relaxed);
        shared.left.store(nth, Ordering::Relaxed);
        shared.armed.store(1, Ordering::Release);
    }

    /// Arms nothing.
    pub fn disarm(&self) {
        self.shared().armed.store(0, Ordering::Release);
    }

    /// Whether what was armed last has happened.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.shared().fired.load(Ordering::Acquire) == 1
    }

    /// Forgets what was passed.
    pub fn clear(&self) {
        self.shared().traced.store(0, Ordering::Release);
    }

    /// What was passed since the last [`Board::clear`], the first 1 MiB of it.
    #[must_use]
    pub fn trace(&self) -> Vec<Passed> {
        let shared = self.shared();
        let end = shared.traced.load(Ordering::Acquire).min(TRACE_BYTES);
        let bytes: Vec<u8> = shared.trace[..end]
            .iter()
            .map(|byte| byte.load(Ordering::Relaxed))
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        let read = |line: &str| {
            let mut words = line.split(' ');
            let role = Role::from_number(words.next()?.parse().ok()?);
            let (point, pid) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            Some(Passed { role, point, pid })
        };
        text.lines().filter_map(read).collect()
    }

    /// Notes a pass and does what is armed.
    #[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
    pub(crate) fn pass(&self, role: Role, point: &str) -> io::Result<()> {
        let shared = self.shared();
        self.note(role, point);
        if shared.armed.load(Ordering::Acquire) == 0 || !self.matches(role, point) {
            return Ok(());
        }
        let left = shared
            .left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if left != Ok(1) {
            return Ok(());
        }
        shared.fired.store(1, Ordering::Release);
        match (
            shared.errno.load(Ordering::Relaxed),
            shared.victim.load(Ordering::Relaxed),
        ) {
            (0, 0) => end_self(),
            (0, victim) => match Pid::from_raw(victim) {
                Some(victim) => Ok(kill_process(victim, Signal::KILL)?),
                None => Ok(()),
            },
            (errno, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn matches(&self, role: Role, point: &str) -> bool {
        let shared = self.shared();
        let mut bytes = point.bytes().chain([0]);
        shared.role.load(Ordering::Relaxed) == role.number()
            && shared
                .name
                .iter()
                .zip(&mut bytes)
                .all(|(place, byte)| place.load(Ordering::Relaxed) == byte)
    }

    fn note(&self, role: Role, point: &str) {
        let line = format!("{} {point} {}\n", role.number(), getpid().as_raw_nonzero());
        let shared = self.shared();
        let start = shared.traced.fetch_add(line.len(), Ordering::AcqRel);
        for (place, byte) in shared.trace.iter().skip(start).zip(line.bytes()) {
            place.store(byte, Ordering::Relaxed);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this size; nobody borrows it any more.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// As by `kill -9`: nothing is flushed, no destructor runs.
#[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
fn end_self() -> ! {
    // The init of a PID namespace is not ended by its own signal.
    let _for_others = kill_process(getpid(), Signal::KILL);
    // SAFETY: it has no preconditions.
    unsafe { libc::_exit(137) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> (tempfile::TempDir, Board) {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::create(&folder.path().join("board")).unwrap();
        (folder, board)
    }

    #[test]
    fn only_the_armed_pass_fails() {
        let (folder, board) = board();
        board.arm(Role::Daemon, "record.rename", 2, Action::Fail(libc::ENOSPC));
        let other = Board::open(&folder.path().join("board")).unwrap();
        for (role, point) in [
            (Role::Daemon, "record.rename"),
            (Role::Shim, "record.rename"),
            (Role::Daemon, "record.renam"),
        ] {
            other.pass(role, point).unwrap();
            assert!(!board.fired());
        }
        let error = other.pass(Role::Daemon, "record.rename").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!(board.fired());
        other.pass(Role::Daemon, "record.rename").unwrap();
        let points: Vec<_> = board.trace().into_iter().map(|p| p.point).collect();
        assert_eq!(points.len(), 5);
        board.clear();
        assert!(board.trace().is_empty());
    }

    #[test]
    fn another_process_can_be_killed() {
        let (_folder, board) = board();
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        board.arm(Role::Worker, "mount.attach", 1, Action::KillOther(pid));
        board.pass(Role::Worker, "mount.attach").unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
