//! The wire format: messages with attributes, all aligned to 4 bytes.

const HEADER: usize = 16;
const ALIGN: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Flags of the header.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const APPEND: u16 = 0x800;
pub(crate) const DUMP: u16 = 0x300;

fn align(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(ALIGN), 0);
}

/// Several messages for one send.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    kinds: Vec<(u16, u16)>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(1024),
            kinds: Vec::new(),
        }
    }

    /// Appends one message; `fill` writes what follows the header.
    pub(crate) fn add(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message<'_>)) {
        let start = self.buffer.len();
        let flags = flags | REQUEST;
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 8]);
        fill(&mut Message {
            buffer: &mut self.buffer,
        });
        align(&mut self.buffer);
        let length = u32::try_from(self.buffer.len() - start).unwrap_or(u32::MAX);
        self.buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.kinds.push((kind, flags));
    }

    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many messages want an acknowledgement.
    pub(crate) fn acks(&self) -> usize {
        self.kinds
            .iter()
            .filter(|(_, flags)| flags & ACK != 0)
            .count()
    }

    /// Kind of the message at `index`.
    pub(crate) fn kind(&self, index: usize) -> u16 {
        self.kinds.get(index).map_or(0, |(kind, _)| *kind)
    }

    /// Numbers the messages from `first` on and returns the bytes to send.
    pub(crate) fn finish(&mut self, first: u32) -> &[u8] {
        let (mut at, mut sequence) = (0, first);
        while let Some(length) = read_u32(&self.buffer, at) {
            self.buffer[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
            sequence = sequence.wrapping_add(1);
            at += (length as usize).max(HEADER);
        }
        &self.buffer
    }
}

/// A message or nested attribute being written.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    buffer: &'a mut Vec<u8>,
}

impl Message<'_> {
    /// Appends bytes as they are: the family's own header.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        align(self.buffer);
    }

    /// Appends an attribute.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        align(self.buffer);
    }

    /// Appends a number in host order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Appends a number in network order, as netfilter wants it.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Appends a text with its closing zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// Appends an attribute that holds attributes (at most 65,531 bytes of them).
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message<'_>)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer
            .extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(&mut Message {
            buffer: self.buffer,
        });
        let length = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Reads attributes; what is cut off or malformed ends the iteration.
#[derive(Debug, Clone)]
pub(crate) struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The value of the first attribute of this kind.
    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// The text of the first attribute of this kind.
    pub(crate) fn text(&self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// The number, in host order, in the first attribute of this kind.
    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        read_u32(self.get(kind)?, 0)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = self.rest.get(4..length)?;
        self.rest = self
            .rest
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or(&[]);
        Some((kind, value))
    }
}

/// One message as received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// Splits what one receive brought into messages.
pub(crate) fn split(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = read_u32(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let message = Received {
            kind: read_u16(bytes, 4)?,
            flags: read_u16(bytes, 6)?,
            sequence: read_u32(bytes, 8)?,
            port: read_u32(bytes, 12)?,
            payload,
        };
        bytes = bytes.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(message)
    })
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_back() {
        let mut batch = Batch::new();
        batch.add(16, ACK, |m| {
            m.raw(&[1; 16]);
            m.text(3, "eth0");
            m.nested(18, |n| n.u32(1, 7));
        });
        batch.add(17, 0, |m| m.raw(&[2; 5]));
        assert_eq!((batch.len(), batch.acks(), batch.kind(1)), (2, 1, 17));
        let bytes = batch.finish(9).to_vec();
        let messages: Vec<_> = split(&bytes).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].sequence, messages[1].sequence), (9, 10));
        assert_eq!(messages[0].flags, ACK | REQUEST);
        let attrs = Attrs::new(&messages[0].payload[16..]);
        assert_eq!(attrs.text(3), Some("eth0"));
        assert_eq!(Attrs::new(attrs.get(18).unwrap()).u32(1), Some(7));
        assert_eq!(messages[1].payload.len(), 8);
    }

    #[test]
    fn hostile_lengths_end_the_iteration() {
        assert_eq!(Attrs::new(&[0, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(Attrs::new(&[255, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
        assert_eq!(Attrs::new(&[4, 0, 1]).count(), 0);
        assert_eq!(Attrs::new(&[6, 0, 1, 0, 9, 9]).count(), 1);
        let mut short = vec![0_u8; 20];
        short[0] = 4;
        assert_eq!(split(&short).count(), 0);
        short[0] = 21;
        assert_eq!(split(&short).count(), 0);
    }
}
