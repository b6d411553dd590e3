//! `Logs`: what a container wrote, and what it goes on writing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use joey_proto::api::{LogChunk, LogsRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::follow::{Changes, Log};
use super::log_line::{self, Entry};
use super::sessions::Session;
use super::status::Failure;
use super::{STREAM_DEPTH, State, Stream};

/// The most lines from the end that are kept apart.
const MAX_TAIL: usize = 100_000;
/// The most bytes of them.
const MAX_TAIL_BYTES: usize = 64 << 20;

/// Sends the log in a task of its own.
pub fn logs(state: &Arc<State>, request: &LogsRequest) -> Result<Stream<LogChunk>, Failure> {
    let container = state.find(&request.container)?;
    let path = container.record().config.log_path.clone();
    let path = path.ok_or_else(|| Failure::WrongState("the container keeps no log".into()))?;
    let reader = Reader {
        state: Arc::clone(state),
        container: container.id().to_owned(),
        path,
        filter: Filter {
            since: request.since,
            until: if request.until > 0 {
                request.until
            } else {
                i64::MAX
            },
            timestamps: request.timestamps,
            line_begins: [true; 2],
        },
        follow: request.follow,
        tail: usize::try_from(request.tail)
            .ok()
            .map(|tail| tail.min(MAX_TAIL)),
        _busy: state.sessions.enter(container.id()),
    };
    let (client, receiver) = mpsc::channel(STREAM_DEPTH);
    tokio::spawn(async move {
        let to_client = client.clone();
        tokio::select! {
            () = client.closed() => {}
            read = reader.run(|chunk| {
                let client = to_client.clone();
                async move { client.send(Ok(chunk)).await.is_ok() }
            }) => if let Err(failure) = read {
                drop(client.send(Err(Status::from(failure))).await);
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Reads one container's log for one client.
#[derive(Debug)]
pub struct Reader {
    pub(super) state: Arc<State>,
    pub(super) container: String,
    pub(super) path: PathBuf,
    pub(super) filter: Filter,
    pub(super) follow: bool,
    /// Lines from the end; None: all.
    pub(super) tail: Option<usize>,
    pub(super) _busy: Session,
}

impl Reader {
    /// Hands chunks to `send` until the end, or until it says no.
    pub async fn run<F>(mut self, send: impl Fn(LogChunk) -> F) -> Result<(), Failure>
    where
        F: Future<Output = bool>,
    {
        let path = self.path.display().to_string();
        let failed = |source| Failure::File {
            action: "read",
            path: path.clone(),
            source,
        };
        let folder = self.path.parent().unwrap_or(&self.path).to_owned();
        let changes = if self.follow {
            Some(Changes::of(&folder).map_err(failed)?)
        } else {
            None
        };
        let mut log = Log::new(&self.path);
        if let Some(count) = self.tail {
            let lines = last_lines(&mut log, &self.filter, count).await;
            for entry in lines.map_err(failed)? {
                if !self.pass(&entry, &send).await {
                    return Ok(());
                }
            }
        }
        let mut ended = false;
        loop {
            while let Some(entry) = log.next().await.map_err(failed)? {
                if !self.pass(&entry, &send).await {
                    return Ok(());
                }
            }
            let Some(changes) = changes.as_ref().filter(|_| !ended) else {
                return Ok(());
            };
            tokio::select! {
                changed = changes.next() => changed.map_err(failed)?,
                // Removed or ended: what is written by now is the rest.
                _ = self.state.runtime.wait_container(&self.container) => ended = true,
            }
        }
    }

    async fn pass<F>(&mut self, entry: &[u8], send: &impl Fn(LogChunk) -> F) -> bool
    where
        F: Future<Output = bool>,
    {
        let Some(entry) = log_line::parse(entry) else {
            return true;
        };
        match self.filter.chunk(&entry) {
            Some(chunk) => send(chunk).await,
            None => !self.filter.is_over(&entry),
        }
    }
}

/// Which entries are sent, and how.
#[derive(Debug)]
pub struct Filter {
    /// ns since the epoch.
    pub since: i64,
    /// ns since the epoch.
    pub until: i64,
    /// A time before each line.
    pub timestamps: bool,
    /// Whether the next entry of stdout, of stderr begins a line.
    pub line_begins: [bool; 2],
}

impl Filter {
    /// Everything, as it was written.
    #[cfg(test)]
    fn all() -> Self {
        Self {
            since: 0,
            until: i64::MAX,
            timestamps: false,
            line_begins: [true; 2],
        }
    }

    fn wants(&self, entry: &Entry<'_>) -> bool {
        let everything = self.since == 0 && self.until == i64::MAX;
        everything
            || log_line::nanoseconds(entry.time)
                .is_some_and(|at| (self.since..=self.until).contains(&at))
    }

    /// Whether neither an entry nor what follows it is wanted: times go on.
    fn is_over(&self, entry: &Entry<'_>) -> bool {
        self.until < i64::MAX && log_line::nanoseconds(entry.time).is_some_and(|at| at > self.until)
    }

    fn chunk(&mut self, entry: &Entry<'_>) -> Option<LogChunk> {
        if !self.wants(entry) {
            return None;
        }
        let begins = &mut self.line_begins[usize::from(entry.stderr)];
        let mut data = Vec::with_capacity(entry.text.len() + 1);
        if self.timestamps && *begins {
            data.extend_from_slice(entry.time.as_bytes());
            data.push(b' ');
        }
        *begins = !entry.partial;
        data.extend_from_slice(entry.text);
        if !entry.partial {
            data.push(b'\n');
        }
        Some(LogChunk {
            stderr: entry.stderr,
            data,
        })
    }
}

/// The entries of the last `count` lines that the filter wants.
async fn last_lines(
    log: &mut Log,
    filter: &Filter,
    count: usize,
) -> std::io::Result<VecDeque<Vec<u8>>> {
    let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
    let (mut lines, mut bytes) = (0, 0);
    let is_end = |entry: &[u8]| log_line::parse(entry).is_some_and(|entry| !entry.partial);
    while let Some(entry) = log.next().await? {
        if !log_line::parse(&entry).is_some_and(|entry| filter.wants(&entry)) {
            continue;
        }
        lines += usize::from(is_end(&entry));
        bytes += entry.len();
        kept.push_back(entry);
        // The first line ends at the first entry that is not partial.
        while lines > count || bytes > MAX_TAIL_BYTES {
            let Some(first) = kept.pop_front() else { break };
            bytes -= first.len();
            lines -= usize::from(is_end(&first));
        }
    }
    if count == 0 {
        kept.clear(); // the beginning of a line that has not ended
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (PathBuf, Log) {
        let path = std::env::temp_dir().join(format!("joeyd-logs-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let log = Log::new(&path);
        (path, log)
    }

    #[tokio::test]
    async fn the_last_lines_are_whole() {
        let (path, mut log) = file(
            "tail",
            "t stdout F a\nt stdout P b\nt stdout F c\nt stdout F d\n",
        );
        let lines = last_lines(&mut log, &Filter::all(), 2).await.unwrap();
        assert_eq!(
            lines,
            [&b"t stdout P b"[..], b"t stdout F c", b"t stdout F d"]
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn partial_entries_make_one_line_with_one_time() {
        let mut filter = Filter {
            timestamps: true,
            ..Filter::all()
        };
        let mut text = Vec::new();
        for line in [
            &b"t1 stdout P ab"[..],
            b"t2 stderr F x",
            b"t3 stdout F c",
            b"t4 stdout F d",
        ] {
            text.extend(filter.chunk(&log_line::parse(line).unwrap()).unwrap().data);
        }
        assert_eq!(text, b"t1 abt2 x\nc\nt4 d\n");
    }

    #[test]
    fn times_choose_entries() {
        let mut filter = Filter {
            since: 1_000_000_000,
            until: 2_000_000_000,
            ..Filter::all()
        };
        let mut chosen = |time: &str| {
            filter
                .chunk(&Entry {
                    time,
                    stderr: false,
                    partial: false,
                    text: b"x",
                })
                .is_some()
        };
        assert!(!chosen("1970-01-01T00:00:00.9Z") && chosen("1970-01-01T00:00:01Z"));
        assert!(
            chosen("1970-01-01T00:00:02Z") && !chosen("1970-01-01T00:00:02.1Z") && !chosen("?")
        );
    }
}
