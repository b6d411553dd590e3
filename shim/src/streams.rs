//! A container's standard streams: to its log and its attachers, from an attacher to its stdin.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::logs::{Line, LogFile, Stream};

/// What an attacher may lag behind, bytes.
const MAX_LAG: usize = 1 << 20;
/// How long it may, without taking anything.
const MAX_LAG_TIME: Duration = Duration::from_secs(10);
/// What a patient attacher may lag behind before the container waits for it, bytes.
const MAX_HELD: usize = 64 << 10;
const READ_SIZE: usize = 16 << 10;
/// The most that is read of one stream in a row, so that nobody waits for a chatty container.
const READ_ROUNDS: usize = 16;

/// One of a container's streams in the poll set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The output with this index.
    Output(usize),
    /// The container's stdin became writable.
    Stdin,
    /// An attacher's stdin.
    AttachIn(u64),
    /// An attacher's output became writable, or was closed.
    AttachOut(u64, Stream),
}

/// A stream that the container writes.
#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    stream: Stream,
    line: Line,
}

/// The container's stdin.
#[derive(Debug)]
struct Input {
    fd: OwnedFd,
    pending: Vec<u8>,
    close_when_drained: bool,
}

/// An attacher's end of one stream.
#[derive(Debug)]
struct Sink {
    fd: OwnedFd,
    queue: Vec<u8>,
    since: Instant,
}

/// An attacher's descriptors.
#[derive(Debug, Default)]
pub struct Ends {
    /// Read for the container's stdin.
    pub stdin: Option<OwnedFd>,
    /// Written.
    pub stdout: Option<OwnedFd>,
    /// Written.
    pub stderr: Option<OwnedFd>,
}

/// What an attacher that does not read costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The container waits for it.
    Patient,
    /// It is dropped.
    Impatient,
}

/// What is done with a terminal that is yet to come.
#[derive(Debug)]
pub struct TerminalPlan {
    /// It is read from, and whether only once.
    pub input: Option<bool>,
    /// Its first attacher.
    pub attacher: Option<(u64, Ends)>,
}

#[derive(Debug)]
struct Attacher {
    id: u64,
    patience: Patience,
    stdin: Option<OwnedFd>,
    stdout: Option<Sink>,
    stderr: Option<Sink>,
}

/// An attacher that was dropped, and why.
#[derive(Debug)]
pub struct Dropped {
    /// Which.
    pub id: u64,
    /// Why, for its user.
    pub reason: String,
}

/// All streams of a container.
#[derive(Debug, Default)]
pub struct Streams {
    /// The log file, unless none is kept.
    pub log: Option<LogFile>,
    /// With a terminal: its master.
    pub master: Option<OwnedFd>,
    /// With a terminal that is yet to come.
    pub terminal: Option<TerminalPlan>,
    outputs: Vec<Output>,
    input: Option<Input>,
    stdin_once: bool,
    attachers: Vec<Attacher>,
}

fn set_nonblocking(fd: &OwnedFd) {
    rustix::io::ioctl_fionbio(fd, true).ok();
}

impl Streams {
    /// Reads a stream from now on.
    pub fn add_output(&mut self, fd: OwnedFd, stream: Stream) {
        set_nonblocking(&fd);
        self.outputs.push(Output {
            fd,
            stream,
            line: Line::default(),
        });
    }

    /// The container's stdin; `once`: it ends with its first attacher's.
    pub fn set_input(&mut self, fd: OwnedFd, once: bool) {
        set_nonblocking(&fd);
        self.stdin_once = once;
        self.input = Some(Input {
            fd,
            pending: Vec::new(),
            close_when_drained: false,
        });
    }

    /// Whether stdin is open.
    pub fn has_input(&self) -> bool {
        self.input.is_some()
    }

    /// Whether the container may still write.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Adds an attacher.
    pub fn attach(&mut self, id: u64, ends: Ends, patience: Patience) {
        let Ends {
            stdin,
            stdout,
            stderr,
        } = ends;
        let sink = |fd: OwnedFd| {
            set_nonblocking(&fd);
            Sink {
                fd,
                queue: Vec::new(),
                since: Instant::now(),
            }
        };
        if let Some(stdin) = &stdin {
            set_nonblocking(stdin);
        }
        self.attachers.push(Attacher {
            id,
            patience,
            stdin,
            stdout: stdout.map(sink),
            stderr: stderr.map(sink),
        });
        self.close_finished();
    }

    /// Closes stdin once everything that waits for it is written.
    pub fn close_stdin(&mut self) {
        if let Some(input) = &mut self.input {
            input.close_when_drained = true;
            if input.pending.is_empty() {
                self.input = None;
            }
        }
    }

    /// What to poll for.
    pub fn interests(&self) -> Vec<(Part, BorrowedFd<'_>, PollFlags)> {
        let mut wanted = Vec::new();
        for (index, output) in self.outputs.iter().enumerate() {
            if !self.is_held(output.stream) {
                wanted.push((Part::Output(index), output.fd.as_fd(), PollFlags::IN));
            }
        }
        let mut takes_input = false;
        if let Some(input) = &self.input {
            takes_input = input.pending.is_empty();
            if !takes_input {
                wanted.push((Part::Stdin, input.fd.as_fd(), PollFlags::OUT));
            }
        }
        for attacher in &self.attachers {
            if let Some(stdin) = attacher.stdin.as_ref().filter(|_| takes_input) {
                wanted.push((Part::AttachIn(attacher.id), stdin.as_fd(), PollFlags::IN));
            }
            for (stream, sink) in [
                (Stream::Stdout, &attacher.stdout),
                (Stream::Stderr, &attacher.stderr),
            ] {
                let Some(sink) = sink else { continue };
                // Without a wish, an error still tells that the reader has gone.
                let flags = if sink.queue.is_empty() {
                    PollFlags::empty()
                } else {
                    PollFlags::OUT
                };
                wanted.push((Part::AttachOut(attacher.id, stream), sink.fd.as_fd(), flags));
            }
        }
        wanted
    }

    /// Whether a stream waits for a patient attacher.
    fn is_held(&self, stream: Stream) -> bool {
        self.attachers.iter().any(|attacher| {
            attacher.patience == Patience::Patient
                && attacher
                    .sink(stream)
                    .is_some_and(|sink| sink.queue.len() >= MAX_HELD)
        })
    }

    /// The time by which an attacher must have read something.
    pub fn deadline(&self) -> Option<Instant> {
        let sinks = self
            .attachers
            .iter()
            .filter(|attacher| attacher.patience == Patience::Impatient)
            .flat_map(|attacher| [&attacher.stdout, &attacher.stderr])
            .flatten();
        sinks
            .filter(|sink| !sink.queue.is_empty())
            .map(|sink| sink.since + MAX_LAG_TIME)
            .min()
    }

    /// Handles one ready descriptor.
    pub fn ready(&mut self, part: Part, dropped: &mut Vec<Dropped>) {
        match part {
            Part::Output(index) => {
                let stream = self.outputs.get(index).map(|output| output.stream);
                let mut rounds = 0..READ_ROUNDS;
                while rounds.next().is_some()
                    && !stream.is_some_and(|stream| self.is_held(stream))
                    && self.read_output(index, dropped)
                {}
            }
            Part::Stdin => self.write_input(),
            Part::AttachIn(id) => self.read_attacher(id),
            Part::AttachOut(id, stream) => self.write_attacher(id, stream),
        }
        self.close_finished();
    }

    /// Drops attachers that have not read for too long.
    pub fn expire(&mut self, now: Instant, dropped: &mut Vec<Dropped>) {
        self.attachers.retain(|attacher| {
            let late = [&attacher.stdout, &attacher.stderr]
                .into_iter()
                .flatten()
                .any(|sink| !sink.queue.is_empty() && now >= sink.since + MAX_LAG_TIME);
            let late = late && attacher.patience == Patience::Impatient;
            if late {
                dropped.push(Dropped {
                    id: attacher.id,
                    reason: "the client did not read for 10 s".to_owned(),
                });
            }
            !late
        });
    }

    /// Reads what is there now, after the container's end.
    pub fn drain(&mut self, dropped: &mut Vec<Dropped>) {
        // A pipe holds at most 1 MiB; more can only come from a process that lives on.
        for index in (0..self.outputs.len()).rev() {
            let mut rounds = 0..(1 << 20) / READ_SIZE;
            while rounds.next().is_some() && self.read_output(index, dropped) {}
        }
    }

    /// Ends every stream.
    pub fn finish(&mut self) {
        while !self.outputs.is_empty() {
            self.end_output(0);
        }
        self.input = None;
        self.master = None;
        self.close_finished();
    }

    /// Reads once; false where nothing is left to read.
    fn read_output(&mut self, index: usize, dropped: &mut Vec<Dropped>) -> bool {
        let mut buffer = [0; READ_SIZE];
        let Some(output) = self.outputs.get_mut(index) else {
            return false;
        };
        match rustix::io::read(&output.fd, &mut buffer) {
            Ok(got @ 1..) => {
                if let Some(log) = &mut self.log {
                    log.write(output.stream, &mut output.line, &buffer[..got]);
                }
                let stream = output.stream;
                self.fan_out(stream, &buffer[..got], dropped);
                true
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // EIO: the terminal's last other end is closed.
            Ok(_) | Err(_) => {
                self.end_output(index);
                false
            }
        }
    }

    fn end_output(&mut self, index: usize) {
        let mut output = self.outputs.remove(index);
        if let Some(log) = &mut self.log {
            log.finish(output.stream, &mut output.line);
        }
    }

    fn fan_out(&mut self, stream: Stream, data: &[u8], dropped: &mut Vec<Dropped>) {
        self.attachers.retain_mut(|attacher| {
            let slot = match stream {
                Stream::Stdout => &mut attacher.stdout,
                Stream::Stderr => &mut attacher.stderr,
            };
            let Some(sink) = slot else { return true };
            if sink.queue.is_empty() {
                sink.since = Instant::now();
            }
            sink.queue.extend_from_slice(data);
            if sink.write().is_err() {
                *slot = None;
                return true;
            }
            let impatient = attacher.patience == Patience::Impatient;
            let lags = impatient && sink.queue.len() > MAX_LAG;
            if lags {
                dropped.push(Dropped {
                    id: attacher.id,
                    reason: "the client lagged by more than 1 MiB".to_owned(),
                });
            }
            !lags
        });
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        while !input.pending.is_empty() {
            match rustix::io::write(&input.fd, &input.pending) {
                Ok(written) => drop(input.pending.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.input = None;
                    return;
                }
            }
        }
        input.pending = Vec::new();
        if input.close_when_drained {
            self.input = None;
        }
    }

    fn read_attacher(&mut self, id: u64) {
        let mut buffer = [0; READ_SIZE];
        let Some(attacher) = self.attachers.iter_mut().find(|attacher| attacher.id == id) else {
            return;
        };
        let Some(stdin) = &attacher.stdin else { return };
        match rustix::io::read(stdin, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => {
                attacher.stdin = None;
                if self.stdin_once && self.master.is_none() {
                    self.close_stdin();
                }
            }
            Ok(got) => {
                if let Some(input) = &mut self.input {
                    input.pending.extend_from_slice(&buffer[..got]);
                }
                self.write_input();
            }
        }
    }

    fn write_attacher(&mut self, id: u64, stream: Stream) {
        let Some(attacher) = self.attachers.iter_mut().find(|attacher| attacher.id == id) else {
            return;
        };
        let slot = match stream {
            Stream::Stdout => &mut attacher.stdout,
            Stream::Stderr => &mut attacher.stderr,
        };
        // The queue may have been written since it was polled for, with what the container wrote.
        let gone = slot
            .as_mut()
            .is_some_and(|sink| match sink.queue.is_empty() {
                true => sink.reader_is_gone(),
                false => sink.write().is_err(),
            });
        if gone {
            *slot = None;
        }
    }

    /// Lets go of attachers that have nothing left to do.
    fn close_finished(&mut self) {
        let writes = !self.outputs.is_empty();
        let reads = self.input.is_some();
        for attacher in &mut self.attachers {
            if !reads {
                attacher.stdin = None;
            }
            for slot in [&mut attacher.stdout, &mut attacher.stderr] {
                if slot
                    .as_ref()
                    .is_some_and(|sink| sink.queue.is_empty() && !writes)
                {
                    *slot = None;
                }
            }
        }
        self.attachers.retain(|attacher| {
            attacher.stdin.is_some() || attacher.stdout.is_some() || attacher.stderr.is_some()
        });
    }
}

impl Attacher {
    fn sink(&self, stream: Stream) -> Option<&Sink> {
        match stream {
            Stream::Stdout => self.stdout.as_ref(),
            Stream::Stderr => self.stderr.as_ref(),
        }
    }
}

impl Sink {
    fn reader_is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled.is_err() || !fds[0].revents().is_empty()
    }

    fn write(&mut self) -> Result<(), Errno> {
        let mut sent = 0;
        let outcome = loop {
            if sent == self.queue.len() {
                break Ok(());
            }
            match rustix::io::write(&self.fd, &self.queue[sent..]) {
                Ok(written) => sent += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if sent > 0 {
            self.since = Instant::now();
            self.queue.drain(..sent);
        }
        if self.queue.is_empty() {
            self.queue = Vec::new();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attacher_stays_until_its_reader_goes() {
        let mut streams = Streams::default();
        let (output, _container) = rustix::pipe::pipe().unwrap();
        streams.add_output(output, Stream::Stdout);
        let (reader, stdout) = rustix::pipe::pipe().unwrap();
        let ends = Ends {
            stdout: Some(stdout),
            ..Ends::default()
        };
        streams.attach(1, ends, Patience::Patient);
        // Polled with a queue that other output has flushed meanwhile.
        let part = Part::AttachOut(1, Stream::Stdout);
        streams.ready(part, &mut Vec::new());
        assert_eq!(streams.attachers.len(), 1);
        drop(reader);
        streams.ready(part, &mut Vec::new());
        assert!(streams.attachers.is_empty());
    }
}
