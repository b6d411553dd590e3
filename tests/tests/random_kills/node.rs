//! What the load and the killer share: the present daemon, and who was hit.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use joey_tests::{Client, Stand};
use tokio::sync::watch;
use tonic::Status;

/// A call that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(90);
/// More are not of use.
const MAX_FAILURES: usize = 20;

/// What was killed of a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hit {
    pub shim: bool,
    pub worker: bool,
}

/// A daemon that answers, and which one it is.
#[derive(Debug, Clone)]
struct Present {
    number: u64,
    client: Client,
}

#[derive(Debug)]
pub struct Node {
    pub image: String,
    /// Another image, that is pulled and removed.
    pub other_image: String,
    pub state: PathBuf,
    /// Of the bystander.
    pub spared: String,
    pub logs: tempfile::TempDir,
    pub runs: tempfile::TempDir,
    present: watch::Sender<Option<Present>>,
    hits: Mutex<HashMap<String, Hit>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<Vec<String>>,
    finished: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub async fn new(stand: &Stand, spared: &str) -> Self {
        let mut other = joey_tests::busybox();
        other.file("other", 0o644, b"another layer");
        let registry = &stand.registry;
        let client = stand.client.clone();
        Self {
            image: stand.image.clone(),
            other_image: registry.push("test/other", "latest", other).await,
            state: stand.daemon.state(),
            spared: spared.to_owned(),
            logs: tempfile::tempdir().unwrap(),
            runs: tempfile::tempdir().unwrap(),
            present: watch::Sender::new(Some(Present { number: 0, client })),
            hits: Mutex::default(),
            counts: Mutex::default(),
            failures: Mutex::default(),
            finished: AtomicBool::new(false),
        }
    }

    /// Calls fail from now on.
    pub fn daemon_goes(&self) {
        self.present.send_replace(None);
    }

    pub fn daemon_is_back(&self, number: u64, client: Client) {
        self.present.send_replace(Some(Present { number, client }));
    }

    /// A daemon to ask, once there is one; its number tells it from the next.
    pub async fn connection(&self) -> (u64, Client) {
        let mut present = self.present.subscribe();
        let present = present.wait_for(Option::is_some).await.unwrap();
        let present = present.as_ref().unwrap();
        (present.number, present.client.clone())
    }

    /// Whether that daemon was killed meanwhile.
    pub fn is_gone(&self, number: u64) -> bool {
        let present = self.present.borrow();
        present
            .as_ref()
            .is_none_or(|present| present.number != number)
    }

    /// Asks until a daemon lives long enough to answer, as a kubelet does.
    pub async fn call<T, F>(&self, mut ask: impl FnMut(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            let (number, client) = self.connection().await;
            let answer = tokio::time::timeout(LONGEST, ask(client)).await;
            match answer.expect("a call hangs") {
                Err(_) if self.is_gone(number) => self.count("interrupted calls"),
                answer => return answer,
            }
        }
    }

    /// To be noted before it is done.
    pub fn note_hit(&self, pod: &str, shim: bool) {
        let mut hits = locked(&self.hits);
        let hit = hits.entry(pod.to_owned()).or_default();
        hit.shim |= shim;
        hit.worker |= !shim;
    }

    /// What was killed of a pod, by its id.
    pub fn hit(&self, pod: &str) -> Hit {
        locked(&self.hits).get(pod).copied().unwrap_or_default()
    }

    /// How many pods were hit.
    pub fn hits(&self) -> usize {
        locked(&self.hits).len()
    }

    pub fn count(&self, what: &'static str) {
        *locked(&self.counts).entry(what).or_default() += 1;
    }

    pub fn fail(&self, what: String) {
        eprintln!("FAILED {what}");
        let mut failures = locked(&self.failures);
        if failures.len() < MAX_FAILURES {
            failures.push(what);
        }
    }

    pub fn failures(&self) -> Vec<String> {
        locked(&self.failures).clone()
    }

    /// The load ends with what it is at.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire) || locked(&self.failures).len() >= MAX_FAILURES
    }

    pub fn summary(&self) -> String {
        let counts = locked(&self.counts);
        let counts = counts
            .iter()
            .map(|(what, count)| format!("{count} {what},"));
        counts.collect::<Vec<_>>().join(" ")
    }
}
