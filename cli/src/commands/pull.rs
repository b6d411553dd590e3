//! `joey pull`, and the pull before `joey run`.

use std::collections::HashMap;
use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use joey_proto::api::{BlobProgress, PullImageRequest, PullProgress};

use super::print;
use crate::args::Pull;
use crate::auth;
use crate::client::Client;
use crate::error::CliError;
use crate::format::{bytes, short};
use crate::stdio;

/// Digits of a blob's digest.
const DIGITS: usize = 12;
/// Times a second the bars are drawn.
const DRAWN_PER_SECOND: u8 = 10;

/// Fetches an image and prints its id.
pub async fn run(client: &Client, args: &Pull) -> Result<(), CliError> {
    let shown = if args.quiet {
        Shown::Nothing
    } else {
        Shown::for_stderr()
    };
    let creds = args.credentials.creds.as_deref();
    let id = pull(client, &args.image, creds, shown).await?;
    print(&format!("{id}\n"))
}

/// Fetches an image for a container; what happens is told on standard error.
pub async fn fetch(client: &Client, image: &str, creds: Option<&str>) -> Result<(), CliError> {
    stdio::tell(&format!("{image} is not here; fetching it"));
    pull(client, image, creds, Shown::for_stderr())
        .await
        .map(drop)
}

async fn pull(
    client: &Client,
    image: &str,
    creds: Option<&str>,
    mut shown: Shown,
) -> Result<String, CliError> {
    let request = PullImageRequest {
        image: image.to_owned(),
        auth: auth::for_image(image, creds)?,
    };
    let mut messages = client.clone().pull_image(request).await?.into_inner();
    let mut id = String::new();
    while let Some(message) = messages.message().await? {
        shown.update(&message);
        if !message.image_id.is_empty() {
            id = message.image_id;
        }
    }
    shown.finish();
    if id.is_empty() {
        Err(CliError::CutOff)
    } else {
        Ok(id)
    }
}

/// How progress is shown.
enum Shown {
    Nothing,
    /// A line for each change of a blob's status.
    Lines(HashMap<String, String>),
    /// A bar for each blob.
    Bars(Bars),
}

struct Bars {
    all: MultiProgress,
    blobs: HashMap<String, ProgressBar>,
    started: std::time::Instant,
}

impl Shown {
    fn for_stderr() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines(HashMap::new());
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND);
        Self::Bars(Bars {
            all: MultiProgress::with_draw_target(target),
            blobs: HashMap::new(),
            started: std::time::Instant::now(),
        })
    }

    fn update(&mut self, message: &PullProgress) {
        match self {
            Self::Nothing => {}
            Self::Lines(known) => {
                for blob in &message.blobs {
                    if let Some(line) = changed(known, blob) {
                        stdio::tell(&line);
                    }
                }
            }
            Self::Bars(bars) => {
                for blob in &message.blobs {
                    bars.update(blob);
                }
            }
        }
    }

    fn finish(self) {
        if let Self::Bars(bars) = self {
            let took = bars.started.elapsed();
            for bar in bars.blobs.values() {
                bar.finish();
            }
            stdio::tell(&format!("fetched in {took:.1?}"));
        }
    }
}

/// The line for a blob whose status is another than before.
fn changed(known: &mut HashMap<String, String>, blob: &BlobProgress) -> Option<String> {
    if known.get(&blob.digest) == Some(&blob.status) {
        return None;
    }
    known.insert(blob.digest.clone(), blob.status.clone());
    let size = if blob.total > 0 {
        format!(" {}", bytes(blob.total))
    } else {
        String::new()
    };
    Some(format!(
        "{} {}{size}",
        short(&blob.digest, DIGITS),
        blob.status
    ))
}

impl Bars {
    fn update(&mut self, blob: &BlobProgress) {
        let bar = self.blobs.entry(blob.digest.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(blob.total));
            // The template is a constant; the default style would do too.
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix} {msg:<11} {wide_bar} {bytes:>10}/{total_bytes:<10}",
            ) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(short(&blob.digest, DIGITS).to_owned());
            bar
        });
        bar.set_length(blob.total);
        bar.set_position(blob.offset);
        bar.set_message(blob.status.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_new_status() {
        let mut known = HashMap::new();
        let blob = |status: &str, offset| BlobProgress {
            digest: "sha256:0123456789abcdef".into(),
            status: status.into(),
            offset,
            total: 1_000_000,
        };
        let line = changed(&mut known, &blob("Downloading", 0));
        assert_eq!(line.as_deref(), Some("0123456789ab Downloading 1.0 MB"));
        assert_eq!(changed(&mut known, &blob("Downloading", 5)), None);
        assert!(changed(&mut known, &blob("Done", 1_000_000)).is_some());
    }
}
