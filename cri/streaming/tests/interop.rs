//! The server against client-go, the client behind kubectl, crictl and critest.
//!
//! Skipped, with a note, where there is no Go.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use joey_streaming::{AttachRequest, ExecRequest, Server, StreamingConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

const SPDY: &[&str] = &["-transport", "spdy"];
const WEBSOCKET: &[&str] = &["-transport", "websocket"];
const BOTH: [&[&str]; 2] = [SPDY, WEBSOCKET];
const BIG: &str = "50000000";

/// Builds the client once; `None` without Go.
fn client() -> Option<&'static Path> {
    static CLIENT: OnceLock<Option<PathBuf>> = OnceLock::new();
    CLIENT
        .get_or_init(|| {
            let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("streaming-interop");
            let built = std::process::Command::new("go")
                .args(["build", "-buildvcs=false", "-o"])
                .arg(&out)
                .arg(".")
                .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop"))
                .status();
            match built {
                Ok(status) => {
                    assert!(status.success(), "the Go client does not build");
                    Some(out)
                }
                Err(error) => {
                    eprintln!("skipped: no Go to build the client with: {error}");
                    None
                }
            }
        })
        .as_deref()
}

async fn run(url: &str, args: &[&[&str]], input: &[u8]) -> Output {
    let client = client().expect("checked by the caller");
    let mut child = Command::new(client)
        .args(["-url", url])
        .args(args.concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    timeout(Duration::from_secs(120), child.wait_with_output())
        .await
        .unwrap()
        .unwrap()
}

fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        container_id: "machine".into(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        stdout: true,
        stderr: true,
        ..ExecRequest::default()
    }
}

async fn server() -> Option<Arc<Server>> {
    client()?;
    let (server, _) = support::start(StreamingConfig::default()).await;
    Some(server)
}

macro_rules! server_or_skip {
    () => {
        match server().await {
            Some(server) => server,
            None => return,
        }
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_exit_codes() {
    let server = server_or_skip!();
    for transport in BOTH {
        for code in [0, 1, 42] {
            let url = server
                .exec_url(shell(&format!("echo out; echo err >&2; exit {code}")))
                .unwrap();
            let result = texts(&run(&url, &[transport], b"").await);
            assert_eq!(
                result,
                (code, "out\n".into(), "err\n".into()),
                "{transport:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_version() {
    let server = server_or_skip!();
    for version in [
        "v4.channel.k8s.io",
        "v3.channel.k8s.io",
        "v2.channel.k8s.io",
        "channel.k8s.io",
    ] {
        for transport in BOTH {
            let args = [transport, &["-protocols", version]];
            let url = server.exec_url(shell("echo out; echo err >&2")).unwrap();
            let result = texts(&run(&url, &args, b"").await);
            assert_eq!(
                result,
                (0, "out\n".into(), "err\n".into()),
                "{version} {transport:?}"
            );
        }
        if version != "channel.k8s.io" {
            let url = server.exec_url(shell("exit 3")).unwrap();
            let args = [SPDY, &["-protocols", version]];
            let (code, _, err) = texts(&run(&url, &args, b"").await);
            if version.starts_with("v4") {
                assert_eq!(code, 3);
            } else {
                assert_eq!(code, 125);
                assert!(err.contains("non-zero exit code: 3"), "{err}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_ends_where_the_client_ends_it() {
    let server = server_or_skip!();
    for transport in BOTH {
        let request = ExecRequest {
            stdin: true,
            ..shell("cat; echo end")
        };
        let url = server.exec_url(request).unwrap();
        let result = texts(&run(&url, &[transport, &["-stdin"]], b"typed\n").await);
        assert_eq!(
            result,
            (0, "typed\nend\n".into(), String::new()),
            "{transport:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_of_bytes_both_ways() {
    let server = server_or_skip!();
    for transport in BOTH {
        let request = ExecRequest {
            stdin: true,
            ..shell("exec cat")
        };
        let url = server.exec_url(request).unwrap();
        let started = std::time::Instant::now();
        let result = texts(&run(&url, &[transport, &["-send", BIG]], b"").await);
        assert_eq!(result, (0, String::new(), String::new()), "{transport:?}");
        eprintln!("50 MB each way over {transport:?}: {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_leaves_its_input_unread_ends() {
    let server = server_or_skip!();
    for transport in BOTH {
        let request = ExecRequest {
            stdin: true,
            ..shell("head -c 3; exit 9")
        };
        let url = server.exec_url(request).unwrap();
        let (code, _, _) = texts(&run(&url, &[transport, &["-send", "2000000"]], b"").await);
        assert_eq!(code, 9, "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_output_comes_whole() {
    let server = server_or_skip!();
    for transport in BOTH {
        let url = server
            .exec_url(shell("head -c 20000000 /dev/zero"))
            .unwrap();
        let output = run(&url, &[transport], b"").await;
        assert_eq!(output.stdout.len(), 20_000_000, "{transport:?}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_with_its_sizes() {
    let server = server_or_skip!();
    for transport in BOTH {
        // On a busy machine the first size may be gone before it is looked at.
        let script = "until [ \"$(stty size)\" = '40 120' ]; do sleep 0.02; done; stty size";
        let request = ExecRequest {
            tty: true,
            stdin: true,
            stderr: false,
            ..shell(script)
        };
        let url = server.exec_url(request).unwrap();
        let args: &[&str] = &["-tty", "-stdin", "-sizes", "100x30,120x40"];
        let (code, out, err) = texts(&run(&url, &[transport, args], b"").await);
        assert_eq!((code, err.as_str()), (0, ""), "{transport:?}: {out:?}");
        assert_eq!(out, "40 120\r\n", "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_with_their_causes() {
    let server = server_or_skip!();
    for transport in BOTH {
        for (container, cmd, expected) in [
            (
                "missing",
                "true",
                "execute command: container missing not found",
            ),
            ("broken", "true", "the runtime failed"),
            (
                "machine",
                "/no/such/command",
                "relay command: No such file or directory",
            ),
        ] {
            let request = ExecRequest {
                container_id: container.into(),
                cmd: vec![cmd.into()],
                ..shell("")
            };
            let url = server.exec_url(request).unwrap();
            let (code, _, err) = texts(&run(&url, &[transport], b"").await);
            assert_eq!(code, 125);
            assert!(err.contains(expected), "{transport:?}: {err}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_with_and_without_input() {
    let server = server_or_skip!();
    for transport in BOTH {
        let request = AttachRequest {
            container_id: "machine".into(),
            stdin: true,
            stdout: true,
            ..AttachRequest::default()
        };
        let url = server.attach_url(request).unwrap();
        let args: &[&str] = &["-stdin", "-no-stderr"];
        let result = texts(&run(&url, &[transport, args], b"hello").await);
        assert_eq!(
            result,
            (0, "attached\nhello".into(), String::new()),
            "{transport:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_good_once() {
    let server = server_or_skip!();
    for transport in BOTH {
        let url = server.exec_url(shell("true")).unwrap();
        assert_eq!(texts(&run(&url, &[transport], b"").await).0, 0);
        let (code, _, err) = texts(&run(&url, &[transport], b"").await);
        assert_eq!(code, 125);
        assert!(err.contains("no such streaming request"), "{err}");
    }
}

async fn echo_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn many_forwarded_connections_at_once() {
    let server = server_or_skip!();
    let port = echo_port().await.to_string();
    for transport in BOTH {
        for (connections, bytes) in [("1", "0"), ("20", "1000000"), ("2", "20000000")] {
            let url = server.port_forward_url("machine", vec![]).unwrap();
            let args: &[&str] = &["-port", &port, "-connections", connections, "-send", bytes];
            let result = texts(&run(&url, &[transport, args], b"").await);
            assert_eq!(result, (0, String::new(), String::new()), "{transport:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_told() {
    let server = server_or_skip!();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    for transport in BOTH {
        let url = server.port_forward_url("machine", vec![]).unwrap();
        let args: &[&str] = &["-port", &port, "-send", "10", "-refused"];
        let (code, _, err) = texts(&run(&url, &[transport, args], b"").await);
        assert_eq!(code, 125);
        assert!(
            err.contains("in pod machine: Connection refused"),
            "{transport:?}: {err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_over_tls_too() {
    if client().is_none() {
        return;
    }
    let config = StreamingConfig {
        tls: Some(support::tls_files(&support::tls_folder())),
        ..StreamingConfig::default()
    };
    let (server, _) = support::start(config).await;
    let ca = support::tls_folder().join("ca.pem");
    let trust: &[&str] = &["-ca", ca.to_str().unwrap()];
    let port = echo_port().await.to_string();
    for transport in BOTH {
        let url = server
            .exec_url(shell("echo out; echo err >&2; exit 3"))
            .unwrap();
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        let (code, _, err) = texts(&run(&url, &[transport], b"").await);
        assert_eq!(code, 125, "an unknown authority is not trusted");
        assert!(err.contains("certificate"), "{err}");
        let result = texts(&run(&url, &[transport, trust], b"").await);
        assert_eq!(result, (3, "out\n".into(), "err\n".into()), "{transport:?}");

        let cat = ExecRequest {
            stdin: true,
            ..shell("exec cat")
        };
        let url = server.exec_url(cat).unwrap();
        let result = texts(&run(&url, &[transport, trust, &["-send", BIG]], b"").await);
        assert_eq!(result, (0, String::new(), String::new()), "{transport:?}");

        let url = server.port_forward_url("machine", vec![]).unwrap();
        let args: &[&str] = &["-port", &port, "-connections", "5", "-send", "1000000"];
        let result = texts(&run(&url, &[transport, trust, args], b"").await);
        assert_eq!(result, (0, String::new(), String::new()), "{transport:?}");
    }
}
