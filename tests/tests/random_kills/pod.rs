//! A pod from its start to its removal, and what must be true of it all along.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;
use joey_proto::cri::*;
use joey_tests::{Client, bind, container_spec, pod_config};
use tonic::Status;

use crate::node::{Hit, Node};

/// Of what is waited for; the daemon is away for a part of it.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(30);
/// Of a container that ends at its stop signal.
const GRACE: i64 = 30;
/// From a container's last deed to its recorded end, at the most, ns.
const LATEST_END: i64 = 10_000_000_000;
/// The message of an end that a lost shim was the cause of.
const SHIM_LOST: &str = "the pod's monitor ended";
/// How often something is tried that a kill can make fail.
const ATTEMPTS: u32 = 20;

/// What a container is made to do.
#[derive(Debug, Clone, Copy)]
struct Task {
    lines: u32,
    code: i32,
    /// It ends when it is told to.
    stays: bool,
}

#[derive(Debug)]
struct Container {
    id: String,
    /// Of its log and its notes.
    name: String,
    task: Task,
    /// Its start was answered with success, or it was seen running.
    started: bool,
}

#[derive(Debug)]
pub struct Pod<'a> {
    node: &'a Node,
    name: String,
    config: PodSandboxConfig,
    id: String,
    began: i64,
    containers: Vec<Container>,
}

impl<'a> Pod<'a> {
    /// Everything, with assertions.
    pub async fn live(node: &'a Node, name: &str, random: &mut Rng) {
        let mut pod = Self::run(node, name).await;
        let count = random.usize(1..=3);
        for number in 0..count {
            let task = Task {
                lines: random.u32(2..60),
                code: random.i32(0..100),
                stays: random.bool(),
            };
            pod.add(number, task).await;
        }
        for at in 0..pod.containers.len() {
            pod.exec(at).await;
            if pod.containers[at].task.stays {
                pod.stop(at).await;
            }
            pod.await_end(at).await;
            pod.check(at).await;
        }
        pod.remove(random).await;
        node.count(match node.hit(&pod.id) {
            Hit { shim: true, .. } => "pods with a killed shim",
            Hit { worker: true, .. } => "pods with a killed worker",
            _ => "pods untouched",
        });
    }

    async fn run(node: &'a Node, name: &str) -> Self {
        let config = pod_config(name, &node.logs.path().join(name));
        let began = now();
        for _ in 0..ATTEMPTS {
            let hits = node.hits();
            let made = node.call(|client| {
                let config = Some(config.clone());
                let request = RunPodSandboxRequest {
                    config,
                    ..Default::default()
                };
                async move { client.runtime().run_pod_sandbox(request).await }
            });
            match made.await {
                Ok(reply) => {
                    return Self {
                        node,
                        name: name.to_owned(),
                        config,
                        id: reply.into_inner().pod_sandbox_id,
                        began,
                        containers: Vec::new(),
                    };
                }
                // The pod that failed has no name for us; some pod was hit meanwhile.
                Err(status) => assert!(node.hits() > hits, "run: {status}"),
            }
        }
        panic!("no pod after {ATTEMPTS} attempts");
    }

    fn hit(&self) -> Hit {
        self.node.hit(&self.id)
    }

    fn is_hit(&self) -> bool {
        self.hit() != Hit::default()
    }

    /// Creates and starts a container; one whose start was cut off is made anew.
    async fn add(&mut self, number: usize, task: Task) {
        for attempt in 0..ATTEMPTS {
            let name = format!("{}-{number}-{attempt}", self.name);
            let mut config = container_spec(
                &format!("c{number}"),
                &self.node.image,
                &["sh", "-c", &script(&name, task)],
            );
            config.metadata.as_mut().unwrap().attempt = attempt;
            config.log_path = format!("{name}.log");
            config.mounts.push(bind(self.node.runs.path(), "/runs"));
            let created = self
                .node
                .call(|client| {
                    let (pod, config, pod_config) =
                        (self.id.clone(), config.clone(), self.config.clone());
                    async move { client.create(&pod, &config, &pod_config).await }
                })
                .await;
            let id = match created {
                Ok(id) => id,
                Err(status) => {
                    assert!(self.hit().shim, "create: {status}");
                    return;
                }
            };
            self.node.count("containers");
            let started = self.start(&id).await;
            self.containers.push(Container {
                id,
                name,
                task,
                started: started.is_ok(),
            });
            match started {
                Ok(()) => return,
                Err(status) => assert!(self.is_hit(), "start: {status}"),
            }
            if self.hit().shim {
                return;
            }
        }
        panic!("no container after {ATTEMPTS} attempts");
    }

    /// Starts a container; where the daemon was killed meanwhile, looks whether it has been started.
    async fn start(&self, id: &str) -> Result<(), Status> {
        loop {
            let (number, client) = self.node.connection().await;
            match client.start(id).await {
                Err(_) if self.node.is_gone(number) => {
                    self.node.count("interrupted calls");
                    let status = self.status(id).await;
                    match status.state() {
                        ContainerState::ContainerCreated => {}
                        _ if status.started_at > 0 => return Ok(()),
                        _ => return Err(Status::internal(status.message)),
                    }
                }
                answer => return answer,
            }
        }
    }

    async fn status(&self, id: &str) -> ContainerStatus {
        let reply = self.node.call(|client| {
            let request = ContainerStatusRequest {
                container_id: id.to_owned(),
                verbose: false,
            };
            async move { client.runtime().container_status(request).await }
        });
        reply.await.unwrap().into_inner().status.unwrap()
    }

    /// Runs a command in a container that stays.
    async fn exec(&self, at: usize) {
        let container = &self.containers[at];
        if !container.started || !container.task.stays {
            return;
        }
        for _ in 0..ATTEMPTS {
            let reply = self.node.call(|client| {
                let cmd = ["sh", "-c", "echo hi; exit 3"].map(str::to_owned).to_vec();
                let request = ExecSyncRequest {
                    container_id: container.id.clone(),
                    cmd,
                    timeout: 60,
                };
                async move { client.runtime().exec_sync(request).await }
            });
            match reply.await {
                Ok(reply) => {
                    let reply = reply.into_inner();
                    let told = (reply.stdout.as_slice(), reply.exit_code);
                    let killed = self.hit().worker && reply.exit_code == 137;
                    assert!(killed || told == (&b"hi\n"[..], 3), "exec: {reply:?}");
                    self.node.count("execs");
                    return;
                }
                Err(status) => assert!(self.is_hit(), "exec: {status}"),
            }
            if self.hit().shim {
                return;
            }
        }
        panic!("no exec after {ATTEMPTS} attempts");
    }

    async fn stop(&self, at: usize) {
        let container = &self.containers[at];
        // Before its last line but one it does not expect the signal.
        let wanted = usize::try_from(container.task.lines).unwrap() - 1;
        let end = Instant::now() + PATIENCE;
        while self.log(container).lines().count() < wanted
            && self.status(&container.id).await.state() == ContainerState::ContainerRunning
        {
            assert!(Instant::now() < end, "{} says nothing", container.name);
            tokio::time::sleep(POLL).await;
        }
        let stop = |client: Client| {
            let request = StopContainerRequest {
                container_id: container.id.clone(),
                timeout: GRACE,
            };
            async move { client.runtime().stop_container(request).await }
        };
        self.node.call(stop).await.expect("stop");
    }

    async fn await_end(&self, at: usize) {
        let container = &self.containers[at];
        let end = Instant::now() + PATIENCE;
        loop {
            match self.status(&container.id).await.state() {
                ContainerState::ContainerRunning => {}
                ContainerState::ContainerCreated if container.started => {
                    panic!("{} is told as created", container.name)
                }
                _ => return,
            }
            let hit = self.hit();
            assert!(
                Instant::now() < end,
                "{} does not end, {hit:?}",
                container.name
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// It ran at most once, its exit code, times and log are right.
    async fn check(&self, at: usize) {
        let container = &self.containers[at];
        let status = self.status(&container.id).await;
        let notes = self.node.runs.path().join(&container.name);
        let noted = std::fs::read_to_string(&notes).unwrap_or_default();
        let (runs, ended) = (noted.matches("run\n").count(), noted.contains("end\n"));
        let hit = self.hit();
        let case = format!("{hit:?} {noted:?} {status:?}");
        assert!(runs <= 1, "it ran {runs} times: {case}");
        assert!(status.created_at >= self.began, "{case}");
        if status.state() == ContainerState::ContainerCreated {
            assert!(hit.shim && runs == 0, "{case}");
            return;
        }
        assert!(status.finished_at >= status.started_at, "{case}");
        assert!(status.finished_at <= now(), "{case}");
        if status.started_at == 0 {
            // With its shim goes the only one who knows whether its program began.
            assert!(hit.shim || (hit.worker && runs == 0), "{case}");
            assert!(!status.message.is_empty(), "{case}");
            return;
        }
        assert!(status.started_at >= status.created_at, "{case}");
        let own = status.exit_code == container.task.code;
        if hit == Hit::default() {
            assert!(own && ended && runs == 1, "{case}");
        } else {
            assert!((own && ended) || status.exit_code == 137, "{case}");
            if status.message == SHIM_LOST {
                assert!(hit.shim, "{case}");
            }
        }
        if ended && own {
            let file = std::fs::metadata(&notes).unwrap();
            let wrote = file.mtime() * 1_000_000_000 + file.mtime_nsec();
            let times = wrote..wrote + LATEST_END;
            assert!(times.contains(&status.finished_at), "{wrote} {case}");
        }
        self.check_log(container, ended && !hit.shim, &case);
    }

    fn log_path(&self, container: &Container) -> PathBuf {
        let folder = self.node.logs.path().join(&self.name);
        folder.join(format!("{}.log", container.name))
    }

    fn log(&self, container: &Container) -> String {
        std::fs::read_to_string(self.log_path(container)).unwrap_or_default()
    }

    /// All lines, each once, in order; of a container that was cut off the first ones.
    fn check_log(&self, container: &Container, whole: bool, case: &str) {
        let log = self.log(container);
        assert!(log.is_empty() || log.ends_with('\n'), "{log:?} {case}");
        let mut count = 0;
        for (number, line) in (1..).zip(log.lines()) {
            let text = line.split_once(" stdout F ").map(|(_, text)| text);
            assert_eq!(text, Some(format!("line {number}").as_str()), "{case}");
            count = number;
        }
        if whole {
            assert_eq!(count, container.task.lines, "lines of the log, {case}");
        }
    }

    async fn remove(&self, random: &mut Rng) {
        if self.hit().shim {
            self.await_not_ready().await;
        }
        for container in self.containers.iter().filter(|_| random.bool()) {
            let remove = |client: Client| {
                let container_id = container.id.clone();
                async move {
                    let request = RemoveContainerRequest { container_id };
                    client.runtime().remove_container(request).await
                }
            };
            self.node.call(remove).await.expect("remove a container");
        }
        if random.bool() {
            let stop = |client: Client| {
                let pod_sandbox_id = self.id.clone();
                async move {
                    let request = StopPodSandboxRequest { pod_sandbox_id };
                    client.runtime().stop_pod_sandbox(request).await
                }
            };
            self.node.call(stop).await.expect("stop the pod");
        }
        let remove = |client: Client| {
            let pod_sandbox_id = self.id.clone();
            async move {
                let request = RemovePodSandboxRequest { pod_sandbox_id };
                client.runtime().remove_pod_sandbox(request).await
            }
        };
        self.node.call(remove).await.expect("remove the pod");
        for container in &self.containers {
            let _absent = std::fs::remove_file(self.node.runs.path().join(&container.name));
        }
        std::fs::remove_dir_all(self.node.logs.path().join(&self.name)).ok();
    }

    /// A pod whose shim was killed has ended.
    async fn await_not_ready(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let reply = self.node.call(|client| {
                let request = PodSandboxStatusRequest {
                    pod_sandbox_id: self.id.clone(),
                    verbose: false,
                };
                async move { client.runtime().pod_sandbox_status(request).await }
            });
            let status = reply.await.unwrap().into_inner().status.unwrap();
            if status.state() == PodSandboxState::SandboxNotready {
                return;
            }
            assert!(Instant::now() < end, "still ready: {status:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Notes that it runs, writes numbered lines, notes that it ends.
fn script(name: &str, task: Task) -> String {
    let Task { lines, code, stays } = task;
    let end = format!("echo end >> /runs/{name}; exit {code}");
    let count = |to: u32| {
        format!(
            "i=0; while [ $i -lt {to} ]; do i=$((i+1)); echo line $i; \
             [ $((i % 16)) != 0 ] || sleep 0.1; done"
        )
    };
    if stays {
        let before = lines - 1;
        let trap = format!("echo line {lines}; {end}");
        format!(
            "echo run >> /runs/{name}; trap '{trap}' TERM; {}; sleep 1000 & wait",
            count(before)
        )
    } else {
        format!("echo run >> /runs/{name}; {}; {end}", count(lines))
    }
}

fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}
