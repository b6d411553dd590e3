//! Header blocks: name-value pairs inside one zlib stream per direction, primed with the
//! preset dictionary (SPDY protocol draft 3, 2.6.10).

use bytes::{Buf, BufMut, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::{DICTIONARY, ID};

/// Most bytes of one block after decompression. Clients send three short headers.
const MAX_BLOCK: usize = 64 * 1024;
/// Most headers of one block.
const MAX_HEADERS: u32 = 256;

/// A header block the connection can't go on after, as its compression state is lost.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("decompress header block")]
    Corrupt(#[source] flate2::DecompressError),
    #[error("header block's zlib stream ended")]
    Ended,
    #[error("header block of more than {MAX_BLOCK} bytes")]
    TooLarge,
    #[error("header block with {0} headers")]
    TooMany(u32),
    #[error("header block ends within a header")]
    Truncated,
    #[error("header name is empty, not lower case or not text")]
    BadName,
    #[error("header value is not text")]
    BadValue,
}

/// The headers of one stream. Names are lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header by its name in lower case; the first where it has several.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(header, _)| header == name)?;
        value.split('\0').next()
    }

    fn parse(mut block: &[u8]) -> Result<Self, HeaderError> {
        let count = block.try_get_u32().map_err(|_| HeaderError::Truncated)?;
        if count > MAX_HEADERS {
            return Err(HeaderError::TooMany(count));
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name =
                String::from_utf8(take(&mut block)?.to_vec()).map_err(|_| HeaderError::BadName)?;
            if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(HeaderError::BadName);
            }
            let value =
                String::from_utf8(take(&mut block)?.to_vec()).map_err(|_| HeaderError::BadValue)?;
            headers.push((name, value));
        }
        Ok(Self(headers))
    }
}

fn take<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], HeaderError> {
    let length = block.try_get_u32().map_err(|_| HeaderError::Truncated)?;
    let length = usize::try_from(length).map_err(|_| HeaderError::Truncated)?;
    let (taken, rest) = block
        .split_at_checked(length)
        .ok_or(HeaderError::Truncated)?;
    *block = rest;
    Ok(taken)
}

/// Reads the client's header blocks, in the order they came.
#[derive(Debug)]
pub(crate) struct HeaderReader {
    inflate: Decompress,
}

impl HeaderReader {
    pub(crate) fn new() -> Self {
        Self {
            inflate: Decompress::new(true),
        }
    }

    pub(crate) fn read(&mut self, compressed: &[u8]) -> Result<Headers, HeaderError> {
        let block = self.decompress(compressed)?;
        Headers::parse(&block)
    }

    fn decompress(&mut self, mut input: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut block = vec![0; 1024];
        let mut filled = 0;
        loop {
            let (consumed, produced) = (self.inflate.total_in(), self.inflate.total_out());
            let result =
                self.inflate
                    .decompress(input, &mut block[filled..], FlushDecompress::Sync);
            let consumed = self.inflate.total_in() - consumed;
            let produced = self.inflate.total_out() - produced;
            input = &input[usize::try_from(consumed)
                .unwrap_or(input.len())
                .min(input.len())..];
            filled += usize::try_from(produced).unwrap_or(0);
            match result {
                Ok(Status::StreamEnd) => return Err(HeaderError::Ended),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate
                        .set_dictionary(&DICTIONARY)
                        .map_err(HeaderError::Corrupt)?;
                    continue;
                }
                Err(error) => return Err(HeaderError::Corrupt(error)),
            }
            if filled < block.len() {
                // Room is left, so all input was used.
                block.truncate(filled);
                return Ok(block);
            }
            if filled >= MAX_BLOCK {
                return Err(HeaderError::TooLarge);
            }
            block.resize((filled * 4).min(MAX_BLOCK), 0);
        }
    }
}

/// Writes the server's header blocks.
///
/// The only blocks a server of this protocol sends are the empty ones of SYN_REPLY. They go out
/// as stored blocks of a zlib stream: valid, and without 256 KiB of compressor per connection.
#[derive(Debug, Default)]
pub(crate) struct HeaderWriter {
    started: bool,
}

impl HeaderWriter {
    /// Appends an empty header block.
    pub(crate) fn write_empty(&mut self, out: &mut BytesMut) {
        if !self.started {
            // RFC 1950: deflate with a 32 KiB window, preset dictionary named by its checksum.
            out.put_slice(&[0x78, 0x20]);
            out.put_u32(ID);
            self.started = true;
        }
        // RFC 1951: a stored block of the four zero bytes that count the headers; then an empty
        // one, after which decompressors hand out what they have.
        out.put_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        out.put_slice(&[0, 0, 0, 0xff, 0xff]);
    }
}

/// A client's side of the compression.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a compressor with room does not fail")]
pub(crate) mod client {
    use flate2::{Compress, Compression, FlushCompress};

    use super::DICTIONARY;

    pub(crate) struct Deflater(Compress);

    impl Deflater {
        pub(crate) fn new() -> Self {
            let mut deflate = Compress::new(Compression::best(), true);
            deflate.set_dictionary(&DICTIONARY).unwrap();
            Self(deflate)
        }

        pub(crate) fn raw(&mut self, block: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(block.len() + 1024);
            self.0
                .compress_vec(block, &mut out, FlushCompress::Sync)
                .unwrap();
            out
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::client::Deflater;
    use super::*;

    impl Deflater {
        pub(crate) fn headers(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
            self.raw(&plain(headers))
        }
    }

    fn plain(headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(u32::try_from(headers.len()).unwrap());
        for (name, value) in headers {
            for text in [name, value] {
                block.put_u32(u32::try_from(text.len()).unwrap());
                block.put_slice(text.as_bytes());
            }
        }
        block
    }

    #[test]
    fn blocks_share_one_compression_state() {
        let (mut client, mut server) = (Deflater::new(), HeaderReader::new());
        for id in ["1", "2", "3"] {
            let sent = client.headers(&[("streamtype", "data"), ("requestid", id)]);
            let headers = server.read(&sent).unwrap();
            assert_eq!(headers.get("streamtype"), Some("data"));
            assert_eq!(headers.get("requestid"), Some(id));
            assert_eq!(headers.get("port"), None);
        }
        let several = server
            .read(&client.headers(&[("port", "80\x0081")]))
            .unwrap();
        assert_eq!(several.get("port"), Some("80"));
    }

    #[test]
    fn what_we_write_is_one_zlib_stream() {
        let (mut writer, mut reader) = (HeaderWriter::default(), HeaderReader::new());
        for _ in 0..3 {
            let mut out = BytesMut::new();
            writer.write_empty(&mut out);
            assert_eq!(reader.read(&out).unwrap(), Headers::default());
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        let bomb = Deflater::new().raw(&vec![0; 16 << 20]);
        assert!(bomb.len() < 64 * 1024);
        let result = HeaderReader::new().read(&bomb);
        assert!(matches!(result, Err(HeaderError::TooLarge)), "{result:?}");
    }

    #[test]
    fn hostile_blocks_are_errors() {
        let mut counted = 0x00ff_ffff_u32.to_be_bytes().to_vec();
        counted.extend([0; 64]);
        let mut long_name = 1_u32.to_be_bytes().to_vec();
        long_name.extend(u32::MAX.to_be_bytes());
        for (block, expected) in [
            (counted, "header block with 16777215 headers"),
            (long_name, "header block ends within a header"),
            (vec![], "header block ends within a header"),
            (
                plain(&[("Port", "80")]),
                "header name is empty, not lower case or not text",
            ),
            (
                plain(&[("", "80")]),
                "header name is empty, not lower case or not text",
            ),
        ] {
            let sent = Deflater::new().raw(&block);
            assert_eq!(
                HeaderReader::new().read(&sent).unwrap_err().to_string(),
                expected
            );
        }
        for garbage in [
            &[0xff; 40][..],
            b"GET / HTTP/1.1\r\n",
            &[0x78, 0xbb, 1, 2, 3, 4, 5],
        ] {
            let result = HeaderReader::new().read(garbage);
            assert!(matches!(result, Err(HeaderError::Corrupt(_))), "{result:?}");
        }
    }
}
