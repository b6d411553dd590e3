//! A registry made of lies: each answer can be chosen by the test.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use joey_image::Digest;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::TestImage;
use super::registry::tls_file;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: String,
    /// Whether the connection presented a client certificate.
    pub client_certificate: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Break the connection after this many bytes of the body.
    pub cut: Option<usize>,
    /// Before the body.
    pub pause: Duration,
    /// Between the bytes of the body.
    pub trickle: Duration,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

type Hook = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

pub struct Fake {
    pub address: String,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Default)]
struct Shared {
    content: Mutex<HashMap<String, (String, Vec<u8>)>>,
    hook: Mutex<Option<Hook>>,
    seen: Mutex<Vec<Request>>,
}

impl Fake {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// Speaks TLS with a certificate of the test authority; takes a client certificate of it, and is
    /// content with none.
    pub async fn start_tls() -> Self {
        Self::serve(Some(acceptor())).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, tls) = (Arc::clone(&serving), tls.clone());
                tokio::spawn(async move {
                    // A client that goes away is part of some tests.
                    drop(accept(stream, tls, &shared).await);
                });
            }
        });
        Self {
            address,
            shared,
            server,
        }
    }

    /// Answers of `hook` go before the content.
    pub fn hook(&self, hook: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) {
        *self.shared.hook.lock() = Some(Box::new(hook));
    }

    pub fn push(&self, repository: &str, tag: &str, image: &TestImage) -> String {
        let mut content = self.shared.content.lock();
        for blob in &image.blobs {
            let path = format!("/v2/{repository}/blobs/{}", Digest::of(blob));
            content.insert(path, ("application/octet-stream".into(), blob.clone()));
        }
        let document = (image.manifest_type.to_owned(), image.manifest.clone());
        for name in [tag.to_owned(), image.digest().to_string()] {
            content.insert(
                format!("/v2/{repository}/manifests/{name}"),
                document.clone(),
            );
        }
        format!("{}/{repository}:{tag}", self.address)
    }

    /// The requests whose method and path contain these.
    pub fn seen(&self, method: &str, path: &str) -> Vec<Request> {
        let seen = self.shared.seen.lock();
        seen.iter()
            .filter(|r| r.method == method && r.path.contains(path))
            .cloned()
            .collect()
    }
}

fn acceptor() -> TlsAcceptor {
    drop(rustls::crypto::ring::default_provider().install_default());
    let chain = |name| {
        CertificateDer::pem_file_iter(tls_file(name))
            .unwrap()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in chain("ca.pem") {
        roots.add(certificate).unwrap();
    }
    let clients = WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain("server.pem"), key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: &Shared,
) -> std::io::Result<()> {
    let Some(tls) = tls else {
        return serve(stream, shared, false).await;
    };
    let stream = tls.accept(stream).await?;
    let certified = stream.get_ref().1.peer_certificates().is_some();
    serve(stream, shared, certified).await
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Shared,
    client_certificate: bool,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream).await? {
        request.client_certificate = client_certificate;
        shared.seen.lock().push(request.clone());
        let hooked = {
            let hook = shared.hook.lock();
            hook.as_ref().and_then(|hook| hook(&request))
        };
        let answer = hooked.unwrap_or_else(|| content(shared, &request));
        let length = answer.body.len();
        let mut head = format!("HTTP/1.1 {} Status\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        tokio::time::sleep(answer.pause).await;
        if request.method != "HEAD" {
            let end = answer.cut.unwrap_or(length);
            if !answer.trickle.is_zero() {
                for byte in &answer.body[..end] {
                    stream.write_all(&[*byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(answer.trickle).await;
                }
                continue;
            }
            stream.write_all(&answer.body[..end]).await?;
            stream.flush().await?;
            if answer.cut.is_some() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn content(shared: &Shared, request: &Request) -> Answer {
    let path = request.path.split('?').next().unwrap_or_default();
    let content = shared.content.lock();
    let Some((kind, body)) = content.get(path) else {
        return Answer::status(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
    };
    let range = request
        .header("range")
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    let answer = match range {
        Some((start, end)) => {
            let _: (usize, usize) = (start, end);
            Answer::status(206)
                .with(
                    "content-range",
                    format!("bytes {start}-{end}/{}", body.len()),
                )
                .body(&body[start..=end])
        }
        None => Answer::status(200).body(body.as_slice()),
    };
    answer
        .with("content-type", kind)
        .with("docker-content-digest", Digest::of(body).to_string())
}

async fn read_request(
    stream: &mut BufReader<impl AsyncRead + Unpin>,
) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        client_certificate: false,
    }))
}
