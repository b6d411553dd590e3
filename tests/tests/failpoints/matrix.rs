//! Every point of an operation, every way to break it there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use joey_failpoint::{Action, Passed, Role};
use joey_tests::Setup;

use crate::node::Node;
use crate::operation::Operation;

/// An operation that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(60);
/// What an operation does after its reply.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// Who is broken at a point, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Break {
    /// The daemon is killed at a point of its own.
    Daemon,
    /// The daemon is killed while the shim or a worker is at a point.
    DaemonMeanwhile,
    Worker,
    Shim,
    /// The step fails.
    Step,
}

impl Break {
    /// How many points of an operation are tried where not all are.
    fn sample(self) -> usize {
        match self {
            Self::Daemon => 10,
            Self::DaemonMeanwhile | Self::Worker | Self::Shim => 4,
            Self::Step => 8,
        }
    }
}

/// The pass of a point: by which kind of process, its name, and which of them.
pub type Point = (Role, String, u32);

/// Passes of one point, first and last ones, that are tried.
const FEW: u32 = 3;

/// How often each break was tried, and how often its point was not passed this time.
type Tally = BTreeMap<Break, (usize, usize)>;

/// Tries an operation; panics with all that was wrong.
pub async fn run(operation: Operation) {
    run_with(operation, &Setup::with("")).await;
}

/// The same on another kind of node.
pub async fn run_with(operation: Operation, setup: &Setup) {
    let began = Instant::now();
    let mut node = Node::start(setup).await;
    let points = trace(&node, operation).await;
    let mut tally = Tally::new();
    let mut failures = Vec::new();
    for (what, point) in cases(&points) {
        let tried = AssertUnwindSafe(try_case(&mut node, operation, what, &point));
        let (count, missed) = tally.entry(what).or_default();
        *count += 1;
        match tried.catch_unwind().await {
            Ok(passed) => *missed += usize::from(!passed),
            Err(panic) => {
                let log = node.stand.daemon.log();
                let tail: Vec<_> = log.lines().rev().take(6).collect();
                failures.push(format!(
                    "{what:?} at {point:?}: {}\n{tail:#?}",
                    text(&*panic)
                ));
                // Two daemons fight over the network's tables.
                drop(node);
                node = Node::start(setup).await;
            }
        }
    }
    report(operation, &points, &tally, began.elapsed());
    assert!(
        failures.is_empty(),
        "{} of {operation:?}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    let (count, missed) = tally.values().fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    assert!(missed * 3 <= count, "{missed} of {count} points not passed");
}

pub fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap_or(&"a panic")).to_owned())
}

/// Does an operation undisturbed: the points it passes, in order.
async fn trace(node: &Node, operation: Operation) -> Vec<Point> {
    let mut scene = operation.prepare(node).await;
    tokio::time::sleep(AFTERWARDS).await;
    node.board.clear();
    operation.perform(node, &scene).await.unwrap();
    tokio::time::sleep(AFTERWARDS).await;
    let passed = node.board.trace();
    operation.retry(node, &mut scene).await;
    operation.assert_done(node, &scene, true).await;
    operation.clean(node, &scene).await;
    node.assert_clean().await;
    numbered(passed)
}

pub fn numbered(passed: Vec<Passed>) -> Vec<Point> {
    let mut counts = BTreeMap::new();
    let number = |Passed { role, point, .. }| {
        let count = counts.entry((role, point.clone())).or_insert(0);
        *count += 1;
        (role, point, *count)
    };
    let points: Vec<Point> = passed.into_iter().map(number).collect();
    // Of what an image's layer passes for each file a few stand for all.
    let few = |(role, point, nth): &Point| {
        let last = counts[&(*role, point.clone())];
        *nth <= FEW || *nth > last - FEW
    };
    points.iter().filter(|point| few(point)).cloned().collect()
}

fn cases(points: &[Point]) -> Vec<(Break, Point)> {
    let all = std::env::var_os("JOEY_FAILPOINT_ALL").is_some();
    let mut cases = Vec::new();
    let mut add = |what: Break, roles: &[Role]| {
        let of: Vec<&Point> = points
            .iter()
            .filter(|(role, ..)| roles.contains(role))
            .collect();
        let limit = if all {
            of.len()
        } else {
            what.sample().min(of.len())
        };
        cases.extend((0..limit).map(|at| (what, of[at * of.len() / limit].clone())));
    };
    add(Break::Daemon, &[Role::Daemon]);
    add(Break::DaemonMeanwhile, &[Role::Shim, Role::Worker]);
    add(Break::Worker, &[Role::Worker]);
    add(Break::Shim, &[Role::Shim]);
    add(Break::Step, &[Role::Daemon, Role::Shim, Role::Worker]);
    cases
}

/// False where the point was not passed this time.
async fn try_case(node: &mut Node, operation: Operation, what: Break, point: &Point) -> bool {
    let (role, name, nth) = point;
    let mut scene = operation.prepare(node).await;
    let daemon = i32::try_from(node.stand.daemon.pid()).unwrap();
    let action = match what {
        Break::Daemon | Break::Worker | Break::Shim => Action::Kill,
        Break::DaemonMeanwhile => Action::KillOther(daemon),
        Break::Step => Action::Fail(errno_for(name)),
    };
    node.board.arm(*role, name, *nth, action);
    let reply = tokio::time::timeout(LONGEST, operation.perform(node, &scene));
    let reply = reply.await.expect("the operation hangs");
    let late = Instant::now() + AFTERWARDS;
    while !node.board.fired() && Instant::now() < late {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.board.disarm();
    let passed = node.board.fired();
    if matches!(what, Break::Daemon | Break::DaemonMeanwhile) && passed {
        node.restart().await;
    }
    node.assert_bystander().await;
    let made = !scene.pod.is_empty() || reply.is_ok();
    if what == Break::Shim && passed && made {
        operation.assert_pod_ended(node, &scene).await;
    } else {
        if let Err(status) = &reply
            && !matches!(what, Break::Daemon | Break::DaemonMeanwhile)
        {
            assert_names_the_step(status);
            if operation.makes_something() {
                assert!(node.pods().await.len() <= usize::from(!scene.pod.is_empty()));
                assert!(node.containers().await.is_empty());
            }
        }
        if reply.is_err() || !matches!(what, Break::Step | Break::Worker) {
            operation.retry(node, &mut scene).await;
        }
        let signalled = what != Break::Step;
        operation.assert_done(node, &scene, signalled).await;
    }
    operation.clean(node, &scene).await;
    node.assert_clean().await;
    node.assert_bystander().await;
    passed
}

/// What a step may fail with: what is written finds no space.
fn errno_for(point: &str) -> i32 {
    let written = [".create", ".write", ".record", ".stage"];
    if written.iter().any(|end| point.ends_with(end)) {
        libc::ENOSPC
    } else {
        libc::EIO
    }
}

fn assert_names_the_step(status: &tonic::Status) {
    let message = status.message().to_lowercase();
    let cause = [
        "no space",
        "input/output error",
        "lost during",
        "without a word",
        "before its program ran",
        "i/o error",
    ];
    assert!(
        cause.iter().any(|cause| message.contains(cause)),
        "{status}"
    );
    assert!(message.contains(": "), "no step is named: {status}");
}

fn report(operation: Operation, points: &[Point], tally: &Tally, took: Duration) {
    let names: BTreeSet<_> = points.iter().map(|(role, name, _)| (role, name)).collect();
    let mut line = format!("| {operation:?} | {} | {} |", names.len(), points.len());
    for what in [
        Break::Daemon,
        Break::DaemonMeanwhile,
        Break::Worker,
        Break::Shim,
        Break::Step,
    ] {
        let (count, missed) = tally.get(&what).copied().unwrap_or_default();
        line.push_str(&format!(" {} |", count - missed));
    }
    line.push_str(&format!(" {:.0} s |", took.as_secs_f64()));
    println!("{line}");
    if let Some(path) = std::env::var_os("JOEY_FAILPOINT_REPORT") {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        writeln!(file.unwrap(), "{line}").unwrap();
    }
}
