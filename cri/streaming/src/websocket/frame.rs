//! WebSocket frames (RFC 6455, section 5): an incremental decoder of what clients send, and the
//! headers of what the server sends.

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Most bytes of a control frame's payload (RFC 6455, 5.5).
const MAX_CONTROL: u64 = 125;

/// What a client sent that ends the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("frame without a mask")]
    Unmasked,
    #[error("reserved bits or opcode in frame type {0:#x}")]
    Reserved(u8),
    #[error("fragmented or oversized control frame")]
    Control,
    #[error("continuation of no message")]
    NoMessage,
    #[error("new message within a message")]
    Interleaved,
    #[error("frame length with its highest bit set")]
    Length,
    #[error("text message where bytes are expected")]
    UnexpectedText,
    #[error("bad close signal for a channel")]
    BadSignal,
}

/// What a client's frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A part of a message, as far as it arrived; messages may be of any size.
    Part {
        first: bool,
        text: bool,
        chunk: Bytes,
        last: bool,
    },
    Ping(Bytes),
    Pong,
    Close,
}

#[derive(Debug)]
struct OpenFrame {
    remaining: u64,
    mask: [u8; 4],
    fin: bool,
}

/// Makes events of bytes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    frame: Option<OpenFrame>,
    /// Whether a message is open, and whether it is text.
    message: Option<bool>,
    first: bool,
}

struct Header {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    size: usize,
}

impl Decoder {
    /// Takes the next event off the buffer; `None` when it needs more bytes.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        if self.frame.is_some() {
            return Ok(self.part(buffer));
        }
        let Some(header) = parse(buffer)? else {
            return Ok(None);
        };
        if header.opcode >= CLOSE {
            return control(&header, buffer);
        }
        match (header.opcode, self.message) {
            (0, None) => return Err(FrameError::NoMessage),
            (0, Some(_)) => {}
            (_, Some(_)) => return Err(FrameError::Interleaved),
            (opcode, None) => {
                self.message = Some(opcode == TEXT);
                self.first = true;
            }
        }
        buffer.advance(header.size);
        self.frame = Some(OpenFrame {
            remaining: header.length,
            mask: header.mask,
            fin: header.fin,
        });
        Ok(self.part(buffer))
    }

    fn part(&mut self, buffer: &mut BytesMut) -> Option<Event> {
        let frame = self.frame.as_mut()?;
        if frame.remaining > 0 && buffer.is_empty() {
            return None;
        }
        let take = usize::try_from(frame.remaining)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut chunk = buffer.split_to(take);
        unmask(&mut chunk, frame.mask);
        frame.mask.rotate_left(take % 4);
        frame.remaining -= take as u64;
        let frame_done = frame.remaining == 0;
        let last = frame_done && frame.fin;
        let text = self.message == Some(true);
        if frame_done {
            self.frame = None;
        }
        if last {
            self.message = None;
        }
        let first = std::mem::take(&mut self.first);
        Some(Event::Part {
            first,
            text,
            chunk: chunk.freeze(),
            last,
        })
    }
}

fn parse(buffer: &[u8]) -> Result<Option<Header>, FrameError> {
    let [first, second, ..] = *buffer else {
        return Ok(None);
    };
    let opcode = first & 0x0f;
    if first & 0x70 != 0 || !matches!(opcode, 0..=BINARY | CLOSE..=PONG) {
        return Err(FrameError::Reserved(first));
    }
    if second & 0x80 == 0 {
        return Err(FrameError::Unmasked);
    }
    let fin = first & 0x80 != 0;
    let mut rest = &buffer[2..];
    let length = match second & 0x7f {
        126 => rest.try_get_u16().map(u64::from),
        127 => rest.try_get_u64(),
        short => Ok(u64::from(short)),
    };
    let Ok(length) = length else { return Ok(None) };
    if length >> 63 != 0 {
        return Err(FrameError::Length);
    }
    if opcode >= CLOSE && (!fin || length > MAX_CONTROL) {
        return Err(FrameError::Control);
    }
    let Some(mask) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let size = buffer.len() - rest.len() + mask.len();
    Ok(Some(Header {
        fin,
        opcode,
        length,
        mask: *mask,
        size,
    }))
}

fn control(header: &Header, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
    let length = usize::try_from(header.length).map_err(|_| FrameError::Control)?;
    if buffer.len() < header.size + length {
        return Ok(None);
    }
    buffer.advance(header.size);
    let mut payload = buffer.split_to(length);
    unmask(&mut payload, header.mask);
    Ok(Some(match header.opcode {
        CLOSE => Event::Close,
        PING => Event::Ping(payload.freeze()),
        _ => Event::Pong,
    }))
}

/// Exclusive-ors the bytes with the repeated mask, eight at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The header of an unfragmented server frame, followed by `prefix` as the payload's first bytes.
pub(super) fn header(opcode: u8, length: usize, prefix: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(10 + prefix.len());
    frame.put_u8(0x80 | opcode);
    let length = length + prefix.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => frame.put_u8(short),
        (_, Ok(medium)) => {
            frame.put_u8(126);
            frame.put_u16(medium);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
    frame.put_slice(prefix);
    frame
}

/// A close frame with its code.
pub(super) fn close(code: u16) -> BytesMut {
    header(CLOSE, 0, &code.to_be_bytes())
}

/// The answer to a ping.
pub(super) fn pong_header(length: usize) -> BytesMut {
    header(PONG, length, &[])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A client's frame: the first byte (flags and opcode) and the payload, masked.
    pub(crate) fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = header(0, payload.len(), &[]).to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(mask);
        let mut masked = payload.to_vec();
        unmask(&mut masked, mask);
        frame.extend(masked);
        frame
    }

    fn all(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Event>, FrameError> {
        let mut buffer = BytesMut::from(bytes);
        let mut events = Vec::new();
        while let Some(event) = decoder.next(&mut buffer)? {
            events.push(event);
        }
        Ok(events)
    }

    fn part(first: bool, text: bool, chunk: &'static [u8], last: bool) -> Event {
        Event::Part {
            first,
            text,
            chunk: Bytes::from_static(chunk),
            last,
        }
    }

    #[test]
    fn the_rfcs_masked_hello() {
        let frame = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let events = all(&mut Decoder::default(), &frame).unwrap();
        assert_eq!(events, [part(true, true, b"Hello", true)]);
    }

    #[test]
    fn fragments_with_a_ping_between() {
        let mut bytes = client(0x02, b"one ");
        bytes.extend(client(0x89, b"still there?"));
        bytes.extend(client(0x00, b"two "));
        bytes.extend(client(0x80, b"three"));
        let events = all(&mut Decoder::default(), &bytes).unwrap();
        assert_eq!(
            events,
            [
                part(true, false, b"one ", false),
                Event::Ping(Bytes::from_static(b"still there?")),
                part(false, false, b"two ", false),
                part(false, false, b"three", true),
            ]
        );
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let payload: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let frame = client(0x82, &payload);
        for step in [1, 3, 7, 4096, frame.len()] {
            let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
            let mut seen = Vec::new();
            let mut ends = 0;
            for piece in frame.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(event) = decoder.next(&mut buffer).unwrap() {
                    let Event::Part { chunk, last, .. } = event else {
                        panic!("{event:?}")
                    };
                    seen.extend(chunk);
                    ends += usize::from(last);
                }
            }
            assert_eq!((seen.len(), ends), (payload.len(), 1), "step {step}");
            assert_eq!(seen, payload);
        }
    }

    #[test]
    fn lengths_use_their_shortest_form() {
        for (length, expected) in [
            (5, vec![0x82, 5]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(header(BINARY, length, &[]).to_vec(), expected);
        }
        assert_eq!(close(1000).to_vec(), [0x88, 2, 0x03, 0xe8]);
    }

    #[test]
    fn hostile_frames_are_errors() {
        let unmasked = header(BINARY, 0, b"x").to_vec();
        let mut interleaved = client(0x02, b"a");
        interleaved.extend(client(0x82, b"b"));
        let huge = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        for (bytes, expected) in [
            (unmasked, "frame without a mask"),
            (
                client(0x83, b"x"),
                "reserved bits or opcode in frame type 0x83",
            ),
            (
                client(0xc2, b"x"),
                "reserved bits or opcode in frame type 0xc2",
            ),
            (client(0x80, b"x"), "continuation of no message"),
            (interleaved, "new message within a message"),
            (client(0x09, b"x"), "fragmented or oversized control frame"),
            (
                client(0x89, &[0; 126]),
                "fragmented or oversized control frame",
            ),
            (huge.to_vec(), "frame length with its highest bit set"),
        ] {
            let error = all(&mut Decoder::default(), &bytes).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
