//! A streaming server over this machine's processes, to try clients by hand.
//!
//! Each line on standard input is a request, and is answered with its URL: `exec CMD…`,
//! `tty CMD…`, `attach`, `forward`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::BufRead as _;

use joey_streaming::{AttachRequest, ExecRequest, StreamingConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (server, _shutdown) = support::start(StreamingConfig::default()).await;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let kind = words.next().unwrap_or_default();
        let container_id = "this-machine".to_owned();
        let url = match kind.as_str() {
            "exec" | "tty" => server.exec_url(ExecRequest {
                container_id,
                cmd: words.collect(),
                tty: kind == "tty",
                stdin: true,
                stdout: true,
                stderr: kind == "exec",
            })?,
            "attach" => server.attach_url(AttachRequest {
                container_id,
                stdin: true,
                stdout: true,
                ..AttachRequest::default()
            })?,
            "forward" => server.port_forward_url("this-machine", vec![])?,
            _ => "unknown request".to_owned(),
        };
        println!("{url}");
    }
    Ok(())
}
