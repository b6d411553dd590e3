//! What is measured, a file for each.

mod cycles;
mod held;
mod holding;
mod idle;
mod image;
mod lanes;
mod latency;
mod probes;
mod throughput;

use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::pod::IMAGE;
use crate::report::Report;
use crate::side::Side;
use crate::usage::{machine_busy_ms, own_cpu_ms};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// The latency of each call of a pod's life, and its CPU time
    Latency,
    /// Pods per minute with several workers
    Throughput,
    /// Memory, CPU and lists with 50 idle pods
    Idle,
    /// Pull and removal of a 300 MB image
    Image,
    /// A thousand pods one after the other: latency, memory, descriptors and files
    Cycles,
    /// 500 pods at once and a poller
    Held,
    /// Latency during pulls and execs
    Lanes,
    /// 100 exec probes per second
    Probes,
}

impl Scenario {
    /// What is measured unless others are named.
    pub const DEFAULT: [Self; 4] = [Self::Latency, Self::Throughput, Self::Idle, Self::Image];
}

/// The sides, and what is found out about them.
#[derive(Debug)]
pub struct Bench {
    /// What is compared; the first is what the others are compared with.
    pub sides: Vec<Side>,
    /// The pods' image by the reference each side knows it by.
    pub images: Vec<String>,
    /// The results.
    pub report: Report,
    /// A rough result is enough.
    pub quick: bool,
}

impl Bench {
    /// Pulls the pods' image on all sides.
    pub async fn new(sides: Vec<Side>, quick: bool) -> Result<Self, BenchError> {
        let mut images = Vec::new();
        for side in &sides {
            side.assert_empty().await?;
            images.push(side.pull(IMAGE).await?.0);
        }
        let names = sides.iter().map(|side| side.place.name.clone());
        Ok(Self {
            report: Report::new(names.collect()),
            sides,
            images,
            quick,
        })
    }

    /// Measures, and checks that no pod is left.
    pub async fn run(&mut self, scenario: Scenario) -> Result<(), BenchError> {
        let noise = Noise::begin(&self.sides)?;
        match scenario {
            Scenario::Latency => latency::run(self).await?,
            Scenario::Throughput => throughput::run(self).await?,
            Scenario::Idle => idle::run(self).await?,
            Scenario::Image => image::run(self).await?,
            Scenario::Cycles => cycles::run(self).await?,
            Scenario::Held => held::run(self).await?,
            Scenario::Lanes => lanes::run(self).await?,
            Scenario::Probes => probes::run(self).await?,
        }
        self.report.others_were_busy(noise.end(&self.sides)?);
        for side in &self.sides {
            side.assert_empty().await?;
        }
        Ok(())
    }

    /// The order of the sides in a round: the other way round in every second one.
    fn order(&self, round: usize) -> Vec<usize> {
        let all = 0..self.sides.len();
        if round.is_multiple_of(2) {
            all.collect()
        } else {
            all.rev().collect()
        }
    }
}

/// CPU time of the machine that nobody in the measurement spent.
struct Noise {
    begun: Instant,
    others_ms: f64,
}

impl Noise {
    fn begin(sides: &[Side]) -> Result<Self, BenchError> {
        Ok(Self {
            begun: Instant::now(),
            others_ms: Self::others_ms(sides)?,
        })
    }

    /// How many processors others kept busy since the beginning.
    fn end(self, sides: &[Side]) -> Result<f64, BenchError> {
        let spent = Self::others_ms(sides)? - self.others_ms;
        Ok(spent / (self.begun.elapsed().as_secs_f64() * 1e3))
    }

    fn others_ms(sides: &[Side]) -> Result<f64, BenchError> {
        let mut others = machine_busy_ms()? - own_cpu_ms()?;
        for side in sides {
            others -= side.group.cpu_ms()?;
        }
        Ok(others)
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
