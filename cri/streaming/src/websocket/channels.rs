//! What the messages of a client mean: data for a channel, the end of a channel, or the next
//! bytes of a tunnel.

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf, Bytes};

use super::Codec;
use super::frame::FrameError;
use crate::pipe::Pipe;

/// The channel number by which a client says that it closes another channel.
const CLOSE_SIGNAL: u8 = 255;

/// Padding may be there or not, as with lenient servers.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the open message is.
#[derive(Debug)]
enum Current {
    /// Its first byte is still to come.
    Start,
    Data(usize),
    /// A close signal, with the channels named so far.
    Signal(Vec<u8>),
    /// Undecodable: the rest is skipped.
    Skip,
}

/// Hands messages to their channels.
#[derive(Debug)]
pub(super) struct Channels {
    codec: Codec,
    pipes: Vec<Arc<Pipe>>,
    current: Current,
    /// Base64 characters that do not yet make a group of four.
    carry: Vec<u8>,
}

impl Channels {
    pub(super) fn new(codec: Codec, pipes: Vec<Arc<Pipe>>) -> Self {
        Self {
            codec,
            pipes,
            current: Current::Start,
            carry: Vec::new(),
        }
    }

    /// Takes a part of a message, waiting while its channel is full.
    pub(super) async fn part(
        &mut self,
        first: bool,
        text: bool,
        mut chunk: Bytes,
        last: bool,
    ) -> Result<(), FrameError> {
        if self.codec == Codec::Tunnel {
            if text {
                return Err(FrameError::UnexpectedText);
            }
            self.push(0, chunk).await;
            return Ok(());
        }
        if first {
            self.current = Current::Start;
            self.carry.clear();
        }
        if matches!(self.current, Current::Start) && chunk.has_remaining() {
            self.current = self.classify(chunk.get_u8());
        }
        match &mut self.current {
            Current::Start | Current::Skip => {}
            Current::Signal(named) => {
                let room = 2_usize.saturating_sub(named.len());
                named.extend(chunk.iter().take(room));
                if last {
                    self.signal()?;
                }
            }
            Current::Data(channel) => {
                let channel = *channel;
                if self.codec == Codec::Base64 {
                    match self.decode(&chunk, last) {
                        Some(decoded) => chunk = decoded,
                        None => {
                            self.current = Current::Skip;
                            return Ok(());
                        }
                    }
                }
                self.push(channel, chunk).await;
            }
        }
        Ok(())
    }

    /// Cuts all channels.
    pub(super) fn end(&self) {
        for pipe in &self.pipes {
            pipe.reset();
        }
    }

    fn classify(&self, first: u8) -> Current {
        match self.codec {
            Codec::Binary {
                close_signals: true,
            } if first == CLOSE_SIGNAL => Current::Signal(Vec::new()),
            Codec::Base64 => Current::Data(usize::from(first.wrapping_sub(b'0'))),
            _ => Current::Data(usize::from(first)),
        }
    }

    fn signal(&self) -> Result<(), FrameError> {
        let Current::Signal(named) = &self.current else {
            return Ok(());
        };
        let [channel] = named[..] else {
            return Err(FrameError::BadSignal);
        };
        let pipe = self
            .pipes
            .get(usize::from(channel))
            .ok_or(FrameError::BadSignal)?;
        pipe.close();
        Ok(())
    }

    fn decode(&mut self, chunk: &[u8], last: bool) -> Option<Bytes> {
        self.carry
            .extend(chunk.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        let whole = if last {
            self.carry.len()
        } else {
            self.carry.len() / 4 * 4
        };
        let decoded = LENIENT.decode(&self.carry[..whole]).ok()?;
        self.carry.drain(..whole);
        Some(decoded.into())
    }

    async fn push(&self, channel: usize, chunk: Bytes) {
        // Data for channels that are not there is dropped, as other servers do.
        if let Some(pipe) = self.pipes.get(channel) {
            pipe.push(chunk).await;
        }
    }
}
