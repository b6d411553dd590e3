//! A container that nothing may touch, whatever happens beside it.

use joey_proto::cri::*;

use crate::Stand;

/// Counts in its log for as long as it lives.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done";

/// The container, and what is remembered of it.
#[derive(Debug)]
pub struct Bystander {
    /// Its pod.
    pub pod: String,
    status: ContainerStatus,
    process: (i64, u64),
}

impl Bystander {
    /// Starts it in a pod of its own.
    pub async fn start(stand: &Stand) -> Self {
        let config = stand.pod_config("bystander");
        let pod = stand.client.run_pod(&config).await;
        let container = stand.container("main", &["sh", "-c", COUNTER]);
        let id = stand.client.run(&pod, &container, &config).await;
        Self {
            pod,
            status: stand.client.status(&id).await,
            process: process_of(stand, &id),
        }
    }

    /// It runs on, the same process, and its log has no gap.
    pub async fn assert_untouched(&self, stand: &Stand) {
        let now = stand.client.status(&self.status.id).await;
        assert_eq!(now.state(), ContainerState::ContainerRunning, "bystander");
        assert_eq!(now.started_at, self.status.started_at, "bystander");
        assert_eq!(process_of(stand, &now.id), self.process, "bystander");
        let (pid, ticks) = self.process;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its process");
        let field = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19);
        assert_eq!(field, Some(ticks.to_string().as_str()), "bystander");
        let log = std::fs::read_to_string(&now.log_path).unwrap();
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for (number, line) in (1..).zip(complete.lines()) {
            let text = line.rsplit(' ').next();
            assert_eq!(text, Some(number.to_string().as_str()), "bystander's log");
        }
    }
}

/// The pid and the start of a container's init, as recorded.
fn process_of(stand: &Stand, id: &str) -> (i64, u64) {
    let records = stand.daemon.root().join("containers");
    let record = std::fs::read(records.join(format!("{id}.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let started = &record["started"];
    (
        started["pid"].as_i64().unwrap(),
        started["start_ticks"].as_u64().unwrap(),
    )
}
