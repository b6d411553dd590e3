//! The daemon is killed at the points that it passes while it starts again, or a step of that fails;
//! the start after that finds everything in order.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use joey_failpoint::{Action, Role};
use joey_proto::cri::*;
use joey_tests::{Setup, eventually};

use crate::matrix::{self, Point};
use crate::node::Node;
use crate::operation::{Operation, Scene, create, ran};

/// A start that passes a point does so within.
const PASSING: Duration = Duration::from_secs(5);
/// Points tried where not all are.
const SAMPLE: usize = 12;
/// Ends while the daemon is away.
const SHORT: &str = "echo begin; sleep 0.2; echo end; exit 5";

/// What the daemon finds.
struct Found {
    scene: Scene,
    short: String,
    half: PodSandboxConfig,
}

#[tokio::test]
async fn killed_while_it_starts_again() {
    let mut node = Node::start(&Setup::with("")).await;
    let found = leave(&mut node).await;
    node.board.clear();
    node.restart_after_end().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut points = matrix::numbered(node.board.trace());
    points.retain(|(role, ..)| *role == Role::Daemon);
    check(&node, found).await;

    let all = std::env::var_os("JOEY_FAILPOINT_ALL").is_some();
    let limit = if all {
        points.len()
    } else {
        SAMPLE.min(points.len())
    };
    let (mut tried, mut failures) = (0, Vec::new());
    for at in 0..limit {
        let point = &points[at * points.len() / limit];
        for action in [Action::Kill, Action::Fail(libc::EIO)] {
            let case = AssertUnwindSafe(try_case(&mut node, point, action));
            match case.catch_unwind().await {
                Ok(passed) => tried += usize::from(passed),
                Err(panic) => {
                    failures.push(format!(
                        "{action:?} at {point:?}: {}",
                        matrix::text(&*panic)
                    ));
                    drop(node);
                    node = Node::start(&Setup::with("")).await;
                }
            }
        }
    }
    println!("recovery: {} points, {tried} cases", points.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        tried * 3 > limit * 4,
        "{tried} of {} points passed",
        limit * 2
    );
}

/// A pod with a container that runs and one that ends meanwhile, and a pod half made.
async fn leave(node: &mut Node) -> Found {
    let scene = Operation::StopContainer.prepare(node).await;
    let mut short = node.stand.container("short", &["sh", "-c", SHORT]);
    short.log_path = "short.log".into();
    let client = node.client();
    let short = client.run(&scene.pod, &short, &scene.pod_config).await;
    let half = node.stand.pod_config("half");
    node.board
        .arm(Role::Daemon, "shim.answered", 2, Action::Kill);
    let request = RunPodSandboxRequest {
        config: Some(half.clone()),
        ..Default::default()
    };
    let made = node.client().runtime().run_pod_sandbox(request).await;
    made.expect_err("the daemon is killed");
    node.board.disarm();
    // The end of a process that waits for the disk takes a while.
    let late = Instant::now() + PASSING;
    while !node.stand.daemon.has_ended() {
        assert!(Instant::now() < late, "the daemon is not killed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    Found { scene, short, half }
}

/// False where the point was not passed.
async fn try_case(node: &mut Node, point: &Point, action: Action) -> bool {
    let found = leave(node).await;
    let (role, name, nth) = point;
    node.board.arm(*role, name, *nth, action);
    let daemon = &mut node.stand.daemon;
    daemon.begin_restart();
    let late = Instant::now() + PASSING;
    while !node.board.fired() && Instant::now() < late {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let passed = node.board.fired();
    if action != Action::Kill {
        // It goes on without the step, or ends and says why.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    node.board.disarm();
    if !node.stand.daemon.has_ended() {
        node.stand.daemon.kill();
    }
    node.restart_after_end().await;
    if action != Action::Kill {
        // What could not be torn down is not ready, and for a kubelet to remove.
        for pod in node.pods().await {
            if pod.state() == PodSandboxState::SandboxNotready {
                node.client().remove_pod(&pod.id).await;
            }
        }
    }
    check(node, found).await;
    passed
}

/// All is as if the daemon had never gone; then it is removed.
async fn check(node: &Node, found: Found) {
    let Found { scene, short, half } = found;
    node.assert_bystander().await;
    let pods = node.pods().await;
    assert_eq!(pods.len(), 1, "the half made one is gone: {pods:?}");
    assert_eq!(pods[0].state(), PodSandboxState::SandboxReady);
    let runs = node.client().status(&scene.container).await;
    assert_eq!(runs.state(), ContainerState::ContainerRunning);
    assert_eq!(node.times_run("worker-0"), 1);
    let ended = node.client().ended(&short).await;
    assert_eq!(ended.exit_code, 5, "{ended:?}");
    let log = std::fs::read_to_string(&ended.log_path).unwrap();
    assert!(log.ends_with(" stdout F end\n"), "{log}");
    node.client().run_pod(&half).await;
    let again = create(node, &scene, 1).await.unwrap();
    node.client().start(&again).await.unwrap();
    ran(node, "worker-1").await;
    eventually("exec works", || async {
        node.client().exec(&again, &["echo", "on"]).await.0 == "on\n"
    })
    .await;
    node.remove_all().await;
    node.assert_clean().await;
}
