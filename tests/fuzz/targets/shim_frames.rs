//! What a shim reads from its socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

#[allow(dead_code, reason = "a shim answers too")]
#[path = "../../../shim/src/wire.rs"]
mod wire;

fuzz_target!(|data: &[u8]| {
    let pair = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    );
    let (near, far) = pair.expect("a pair of sockets");
    let mut conn = wire::Conn::new(near);
    for chunk in data.chunks(16 << 10) {
        if send(&far, chunk, SendFlags::NOSIGNAL).is_err() || conn.read().is_err() {
            return;
        }
        while let Ok(Some(request)) = conn.next() {
            drop(request);
        }
    }
});
