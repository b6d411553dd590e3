//! Lists as streams of messages of bounded size.

use std::pin::Pin;

use prost::Message;
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

/// Well under the 16 MiB a client takes in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Items of one message.
const CHUNK_ITEMS: usize = 256;

/// The answer of a streaming list.
pub(crate) type Listing<T> =
    Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send + 'static>>;

/// Splits `items` into messages of at least one item each.
pub(crate) fn stream<I, M>(items: Vec<I>, wrap: fn(Vec<I>) -> M) -> Listing<M>
where
    I: Message + 'static,
    M: Send + 'static,
{
    Box::pin(futures::stream::iter(
        split(items).into_iter().map(move |chunk| Ok(wrap(chunk))),
    ))
}

fn split<I: Message>(items: Vec<I>) -> Vec<Vec<I>> {
    let mut chunks = Vec::new();
    let mut bytes = 0;
    for item in items {
        let size = item.encoded_len();
        match chunks.last_mut() {
            Some(chunk) if bytes + size <= CHUNK_BYTES && Vec::len(chunk) < CHUNK_ITEMS => {
                chunk.push(item);
                bytes += size;
            }
            _ => {
                chunks.push(vec![item]);
                bytes = size;
            }
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use joey_proto::cri::PodIp;

    use super::*;

    fn items(count: usize, size: usize) -> Vec<PodIp> {
        (0..count)
            .map(|n| PodIp {
                ip: format!("{n}{}", " ".repeat(size)),
            })
            .collect()
    }

    #[test]
    fn every_item_is_in_exactly_one_chunk() {
        let all = items(1000, 6);
        let chunks = split(all.clone());
        assert_eq!(chunks.len(), 4);
        assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
        assert_eq!(chunks.concat(), all);
    }

    #[test]
    fn chunks_are_bounded_in_bytes_and_a_large_item_goes_alone() {
        assert_eq!(split(items(4, CHUNK_BYTES / 2)).len(), 4);
        assert_eq!(split(items(2, CHUNK_BYTES * 2)).len(), 2);
        assert!(split(Vec::<PodIp>::new()).is_empty());
    }
}
