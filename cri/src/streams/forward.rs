//! A forwarded connection, both ways.

use std::time::Duration;

use joey_streaming::StreamError;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::failed;

/// How long a forwarded connection may still send after the pod's side ended.
const LINGER: Duration = Duration::from_secs(1);

/// Carries a connection both ways. An end sent by the client is passed on and the pod's answer
/// awaited; after the pod's end the client has a moment to finish.
pub(super) async fn carry<CR, CW, PR, PW>(
    client_read: &mut CR,
    client_write: &mut CW,
    pod_read: &mut PR,
    pod_write: &mut PW,
) -> Result<(), StreamError>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    PR: AsyncRead + Unpin,
    PW: AsyncWrite + Unpin,
{
    let upward = async {
        let copied = tokio::io::copy(client_read, pod_write).await;
        // The pod may have closed already; what it answered is still carried.
        drop(pod_write.shutdown().await);
        copied
    };
    let downward = async {
        tokio::io::copy(pod_read, client_write).await?;
        client_write.shutdown().await
    };
    tokio::pin!(upward, downward);
    let ended = tokio::select! {
        ended = &mut downward => {
            drop(timeout(LINGER, upward).await);
            ended
        }
        _ = &mut upward => downward.await,
    };
    ended.map_err(failed("the connection"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// The far ends of a carried connection: the client's and the pod's.
    fn carried() -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (client, near_client) = duplex(1 << 16);
        let (pod, near_pod) = duplex(1 << 16);
        tokio::spawn(async move {
            let (mut client_read, mut client_write) = tokio::io::split(near_client);
            let (mut pod_read, mut pod_write) = tokio::io::split(near_pod);
            carry(
                &mut client_read,
                &mut client_write,
                &mut pod_read,
                &mut pod_write,
            )
            .await
            .unwrap();
        });
        (client, pod)
    }

    #[tokio::test]
    async fn a_pod_answers_after_the_clients_end() {
        let (mut client, mut pod) = carried();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        pod.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        pod.write_all(b"answer").await.unwrap();
        drop(pod);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_client_that_stays_open_does_not_hold_a_closed_pod() {
        let (mut client, mut pod) = carried();
        pod.write_all(b"bye").await.unwrap();
        pod.shutdown().await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "bye");
    }
}
