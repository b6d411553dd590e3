//! Several pods at once.

use futures::future::try_join_all;

use crate::error::BenchError;
use crate::pod::{PROGRAM, Pod};
use crate::side::Side;
use crate::usage::{program, pss_kib};

/// How many pods are started or ended at a time.
const WORKERS: usize = 4;

/// Starts pods, some at a time.
pub async fn hold(side: &Side, image: &str, pods: usize) -> Result<Vec<Pod>, BenchError> {
    let starter = |share: usize| async move {
        let mut held = Vec::new();
        for _ in 0..share {
            held.push(Pod::start(side, image).await?.0);
        }
        Ok::<_, BenchError>(held)
    };
    let shares = (0..WORKERS).map(|at| (pods + at) / WORKERS);
    let held = try_join_all(shares.map(starter)).await?;
    Ok(held.into_iter().flatten().collect())
}

/// Ends pods, some at a time.
pub async fn release(side: &Side, mut pods: Vec<Pod>) -> Result<(), BenchError> {
    while !pods.is_empty() {
        let few = pods.split_off(pods.len().saturating_sub(WORKERS));
        try_join_all(few.into_iter().map(|pod| pod.end(side))).await?;
    }
    Ok(())
}

/// The memory of a runtime, without that of the containers' own processes.
pub struct Memory {
    /// The daemon's PSS, in MiB.
    pub daemon_mib: f64,
    /// The PSS of all its helpers, in MiB.
    pub helpers_mib: f64,
    /// How many helpers there are.
    pub helpers: f64,
}

impl Memory {
    /// Measures it.
    pub fn of(side: &Side) -> Result<Self, BenchError> {
        let mut memory = Self {
            daemon_mib: 0.0,
            helpers_mib: 0.0,
            helpers: 0.0,
        };
        for pid in side.group.processes()? {
            if pid == side.place.pid {
                memory.daemon_mib += pss_kib(pid)? / 1024.0;
            } else if program(pid)? != PROGRAM {
                memory.helpers_mib += pss_kib(pid)? / 1024.0;
                memory.helpers += 1.0;
            }
        }
        if memory.daemon_mib == 0.0 {
            let pid = side.place.pid;
            return Err(side.wrong(format!("process {pid} is not in its group")));
        }
        Ok(memory)
    }
}
