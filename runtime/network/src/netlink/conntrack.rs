//! Connection tracking: forgetting flows that no longer lead where they should.

use super::message::{ACK, DUMP, Message};
use super::{Attrs, Batch, NetlinkError, Socket};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_TO_PORT: u16 = 3;
const ID: u16 = 12;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// Which parts of the tuple count: protocol and destination port.
const BY_PORT: u32 = 1 << 3 | 1 << 5;
const UDP: u8 = 17;

/// Forgets all UDP flows that were sent to this port.
pub(crate) fn forget_udp(socket: &mut Socket, port: u16) -> Result<(), NetlinkError> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        forget(socket, family, port)?;
    }
    Ok(())
}

fn forget(socket: &mut Socket, family: u8, port: u16) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.add(GET, DUMP, |m| {
        m.raw(&[family, 0, 0, 0]);
        m.nested(TUPLE_ORIGINAL, |tuple| by_port(tuple, port));
        m.nested(FILTER, |filter| {
            filter.u32(FILTER_ORIGINAL, BY_PORT);
            filter.u32(FILTER_REPLY, 0);
        });
    });
    let mut flows = Vec::new();
    socket.dump(batch, |_, data| flows.extend(flow(data, port)))?;
    let mut batch = Batch::new();
    for (tuple, id) in &flows {
        batch.add(DELETE, ACK, |m| {
            m.raw(&[family, 0, 0, 0]);
            m.nested(TUPLE_ORIGINAL, |t| t.raw(tuple));
            m.attr(ID, id);
        });
    }
    // One that has ended meanwhile is as good as forgotten.
    let ended = |_: usize, errno| errno == rustix::io::Errno::NOENT;
    socket.transact(batch)?.check(ended).map(drop)
}

fn by_port(tuple: &mut Message<'_>, port: u16) {
    tuple.nested(TUPLE_PROTOCOL, |protocol| {
        protocol.attr(PROTOCOL_NUMBER, &[UDP]);
        protocol.attr(PROTOCOL_TO_PORT, &port.to_be_bytes());
    });
}

/// The flow's tuple and id, if it is what was asked for: a filter the kernel does not know would
/// show all.
fn flow(data: &[u8], port: u16) -> Option<(Vec<u8>, Vec<u8>)> {
    let attrs = Attrs::new(data.get(4..)?);
    let tuple = attrs.get(TUPLE_ORIGINAL)?;
    let protocol = Attrs::new(Attrs::new(tuple).get(TUPLE_PROTOCOL)?);
    let wanted = protocol.get(PROTOCOL_NUMBER) == Some(&[UDP])
        && protocol.get(PROTOCOL_TO_PORT) == Some(&port.to_be_bytes());
    wanted.then_some((tuple.to_vec(), attrs.get(ID)?.to_vec()))
}
