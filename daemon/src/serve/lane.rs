//! Lanes: calls of different weight do not wait for each other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::config::Limits;

/// A kind of call with a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What changes or lists something.
    Calls,
    /// What fetches an image.
    Pulls,
    /// What runs a command and returns its output.
    Execs,
    /// What stays open.
    Streams,
}

impl Lane {
    /// The lane of a method, by its path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        match path.rsplit('/').next().unwrap_or_default() {
            "PullImage" | "CheckLogin" => Self::Pulls,
            "ExecSync" => Self::Execs,
            // They last as long as a container's grace.
            "StopContainer" | "StopPodSandbox" | "RestartContainer" => Self::Streams,
            _ if stays_open(path) => Self::Streams,
            _ => Self::Calls,
        }
    }

    /// As in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Pulls => "pulls",
            Self::Execs => "execs",
            Self::Streams => "streams",
        }
    }
}

/// Whether a call lasts until somebody ends it; one that changes something is not among them.
#[must_use]
pub fn stays_open(path: &str) -> bool {
    matches!(
        path,
        "/runtime.v1.RuntimeService/GetContainerEvents"
            | "/joey.v1.Joey/Logs"
            | "/joey.v1.Joey/Exec"
            | "/joey.v1.Joey/Attach"
            | "/joey.v1.Joey/WaitContainer"
    )
}

/// How many more calls may wait for each one that is served.
const WAITING_PER_SERVED: usize = 4;

#[derive(Debug)]
struct Gate {
    /// Served and waiting calls.
    admitted: Arc<Semaphore>,
    served: Arc<Semaphore>,
    limit: usize,
}

/// A served call's places in its lane; dropped when the call is over.
#[derive(Debug)]
pub struct Place {
    _served: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

/// The limits of all lanes.
#[derive(Debug)]
pub struct Lanes([Gate; 4]);

impl Lanes {
    /// Lanes with these limits; a limit of 0 counts as 1.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let gate = |limit: usize| {
            let limit = limit.clamp(1, Semaphore::MAX_PERMITS / (WAITING_PER_SERVED + 1));
            Gate {
                admitted: Arc::new(Semaphore::new(limit * (WAITING_PER_SERVED + 1))),
                served: Arc::new(Semaphore::new(limit)),
                limit,
            }
        };
        Self([
            gate(limits.calls),
            gate(limits.pulls),
            gate(limits.execs),
            gate(limits.streams),
        ])
    }

    fn gate(&self, lane: Lane) -> &Gate {
        let [calls, pulls, execs, streams] = &self.0;
        match lane {
            Lane::Calls => calls,
            Lane::Pulls => pulls,
            Lane::Execs => execs,
            Lane::Streams => streams,
        }
    }

    /// Waits for a place in a lane.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait already.
    pub async fn enter(&self, lane: Lane) -> Result<Place, Status> {
        let gate = self.gate(lane);
        let full = |_| {
            Status::resource_exhausted(format!(
                "{} calls of the lane {:?} are under way or wait; [limits] sets how many",
                gate.limit * (WAITING_PER_SERVED + 1),
                lane.name(),
            ))
        };
        let admitted = Arc::clone(&gate.admitted)
            .try_acquire_owned()
            .map_err(full)?;
        let served = Arc::clone(&gate.served)
            .acquire_owned()
            .await
            .map_err(|_| Status::unavailable("the daemon is stopping"))?;
        Ok(Place {
            _served: served,
            _admitted: admitted,
        })
    }

    /// Lane, calls served now and the limit.
    pub fn in_flight(&self) -> impl Iterator<Item = (Lane, usize, usize)> {
        [Lane::Calls, Lane::Pulls, Lane::Execs, Lane::Streams]
            .into_iter()
            .map(|lane| {
                let gate = self.gate(lane);
                (
                    lane,
                    gate.limit - gate.served.available_permits().min(gate.limit),
                    gate.limit,
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_their_lanes() {
        for (path, lane) in [
            ("/runtime.v1.ImageService/PullImage", Lane::Pulls),
            ("/joey.v1.Joey/PullImage", Lane::Pulls),
            ("/runtime.v1.RuntimeService/ExecSync", Lane::Execs),
            ("/runtime.v1.RuntimeService/Exec", Lane::Calls),
            (
                "/runtime.v1.RuntimeService/GetContainerEvents",
                Lane::Streams,
            ),
            ("/joey.v1.Joey/Exec", Lane::Streams),
            ("/joey.v1.Joey/WaitContainer", Lane::Streams),
            ("/joey.v1.Joey/StopContainer", Lane::Streams),
            ("/joey.v1.Joey/RestartContainer", Lane::Streams),
            ("/runtime.v1.RuntimeService/StopContainer", Lane::Streams),
            ("/runtime.v1.RuntimeService/StopPodSandbox", Lane::Streams),
            ("/runtime.v1.RuntimeService/RunPodSandbox", Lane::Calls),
        ] {
            assert_eq!(Lane::of(path), lane, "{path}");
            let changes = path.contains("Stop") || path.contains("Restart");
            assert_eq!(
                stays_open(path),
                lane == Lane::Streams && !changes,
                "{path}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_lane_refuses_and_leaves_the_others_alone() {
        let limits = Limits {
            calls: 1,
            pulls: 1,
            execs: 1,
            streams: 1,
        };
        let lanes = Arc::new(Lanes::new(&limits));
        let first = lanes.enter(Lane::Pulls).await.unwrap();
        let waiting: Vec<_> = (0..WAITING_PER_SERVED)
            .map(|_| {
                let lanes = Arc::clone(&lanes);
                tokio::spawn(async move { lanes.enter(Lane::Pulls).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        let refused = lanes.enter(Lane::Pulls).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(lanes.enter(Lane::Calls).await.unwrap());
        drop(first);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert!(
            lanes
                .in_flight()
                .all(|(_, now, limit)| now == 0 && limit == 1)
        );
    }
}
