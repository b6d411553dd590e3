//! The listener's certificate: renewed while the server runs, and refused where it is none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod support;

use std::path::Path;
use std::sync::Arc;

use joey_streaming::{Server, StreamingConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn copy(name: &str, to: &Path) {
    std::fs::copy(support::tls_folder().join(name), to).unwrap();
}

/// Makes a request over TLS; gives the server's certificate and the answer's head.
async fn ask(server: &Server) -> (CertificateDer<'static>, String) {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate(&support::tls_folder().join("ca.pem")))
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.local_address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let seen = stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned();
    stream
        .write_all(b"GET /exec/x HTTP/1.1\r\nHost: joey\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (seen, answer)
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_over_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = support::tls_files(folder.path());
    copy("server.pem", &files.certificate);
    copy("server.key", &files.key);
    let config = StreamingConfig {
        tls: Some(files.clone()),
        ..StreamingConfig::default()
    };
    let (server, _shutdown) = support::start(config).await;
    let first = certificate(&files.certificate);
    let (seen, answer) = ask(&server).await;
    assert_eq!(seen, first);
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");

    copy("renewed.pem", &files.certificate);
    let error = server.reload_certificate().unwrap_err();
    assert!(error.to_string().contains("server.key"), "{error}");
    assert_eq!(ask(&server).await.0, first, "the old one stays");
    copy("renewed.key", &files.key);
    assert_eq!(ask(&server).await.0, first, "not before it is told");
    server.reload_certificate().unwrap();
    let renewed = certificate(&files.certificate);
    assert_ne!(renewed, first);
    assert_eq!(ask(&server).await.0, renewed);
}

#[tokio::test]
async fn who_speaks_no_tls_is_not_served() {
    let config = StreamingConfig {
        tls: Some(support::tls_files(&support::tls_folder())),
        ..StreamingConfig::default()
    };
    let (server, _shutdown) = support::start(config).await;
    let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
    stream
        .write_all(b"GET /exec/x HTTP/1.1\r\nHost: joey\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = support::tls_files(folder.path());
    let config = StreamingConfig {
        tls: Some(files.clone()),
        ..StreamingConfig::default()
    };
    let bind = || Server::bind(config.clone(), Arc::new(support::Machine));
    let cause =
        |error: joey_streaming::BindError| std::error::Error::source(&error).unwrap().to_string();
    let absent = cause(bind().await.unwrap_err());
    assert!(absent.contains("server.pem"), "{absent}");
    std::fs::write(&files.certificate, "no PEM").unwrap();
    let empty = cause(bind().await.unwrap_err());
    assert!(empty.contains("server.pem"), "{empty}");
    copy("server.pem", &files.certificate);
    copy("ca.pem", &files.key);
    let no_key = cause(bind().await.unwrap_err());
    assert!(no_key.contains("server.key"), "{no_key}");
}
