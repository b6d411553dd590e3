//! The points of a program under test.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::board::Board;
use crate::{Role, VARIABLE};

static BOARD: OnceLock<Option<Board>> = OnceLock::new();
static ROLE: AtomicU32 = AtomicU32::new(0);

fn board() -> Option<&'static Board> {
    let open = || Board::open(Path::new(&std::env::var_os(VARIABLE)?)).ok();
    BOARD.get_or_init(open).as_ref()
}

/// Passes a point.
///
/// # Errors
/// The one that a test armed it with.
pub fn hit(point: &'static str) -> io::Result<()> {
    match board() {
        Some(board) => board.pass(Role::from_number(ROLE.load(Ordering::Relaxed)), point),
        None => Ok(()),
    }
}

/// Says what this process, and what it forks, is; a daemon need not.
pub fn become_role(role: Role) {
    ROLE.store(role.number(), Ordering::Relaxed);
    // Mapped while the path still leads there.
    board();
}

/// What a child with an environment of its own needs of this one's.
#[must_use]
pub fn environment() -> Option<(&'static str, OsString)> {
    Some((VARIABLE, std::env::var_os(VARIABLE)?))
}
