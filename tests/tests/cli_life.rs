//! The life of `joey`'s containers: started again, stopped, killed, waited for; their networks.
#![allow(clippy::unwrap_used)]

use joey_tests::{Stand, eventually};
use serde_json::Value;

fn inspect(stand: &Stand, name: &str) -> Value {
    let text = stand.out(&["inspect", name]);
    let mut array: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(array.len(), 1);
    array.remove(0)
}

#[tokio::test]
async fn an_ended_container_runs_again_on_what_it_wrote() {
    let mut stand = Stand::start().await;
    let image = stand.image_name.clone();
    let script = "echo life >> /lives; cat /lives | wc -l; hostname; exit 5";
    let run = stand.joey(&["run", "--name", "cat", &image, "sh", "-c", script]);
    assert_eq!(run.stdout, b"1\ncat\n");
    assert_eq!(run.status.code(), Some(5));
    for life in 2..5 {
        let again = stand.joey(&["start", "-a", "cat"]);
        assert_eq!(
            String::from_utf8_lossy(&again.stdout),
            format!("{life}\ncat\n")
        );
        assert_eq!(again.status.code(), Some(5));
    }
    // In the background; its end can be waited for.
    assert_eq!(stand.out(&["start", "cat"]), "cat\n");
    assert_eq!(stand.out(&["wait", "cat"]), "5\n");
    // Across a restart of the daemon, with the pod given back and without.
    stand.restart_after(|_| {}).await;
    let again = stand.joey(&["start", "-a", "cat"]);
    assert_eq!(again.stdout, b"6\ncat\n", "{again:?}");
    stand.restart_after(|_| {}).await;
    let again = stand.joey(&["start", "-a", "cat"]);
    assert_eq!(again.stdout, b"7\ncat\n", "{again:?}");
    // The log has all lives.
    assert_eq!(stand.out(&["logs", "cat"]).lines().count(), 14);
    stand.out(&["rm", "cat"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_container_runs_again_after_a_reboot() {
    let mut stand = Stand::start().await;
    let script = "echo life >> /lives; cat /lives | wc -l; sleep 1000";
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        &stand.image_name,
        "sh",
        "-c",
        script,
    ];
    stand.out(&run);
    eventually("it runs", || async { stand.out(&["logs", "web"]) == "1\n" }).await;
    stand
        .restart_after(|daemon| {
            // As the next boot finds it: another boot id, and nothing in the run folder.
            for name in std::fs::read_dir(daemon.root().join("pods"))
                .unwrap()
                .flatten()
            {
                let text = std::fs::read_to_string(name.path()).unwrap();
                let mut record: Value = serde_json::from_str(&text).unwrap();
                record["boot_id"] = "another".into();
                std::fs::write(name.path(), record.to_string()).unwrap();
            }
        })
        .await;
    let listed = stand.out(&["ps", "-a"]);
    assert!(
        listed.contains("web") && listed.contains("Exited"),
        "{listed}"
    );
    assert_eq!(stand.out(&["start", "web"]), "web\n");
    eventually("it runs again", || async {
        stand.out(&["logs", "web"]) == "1\n2\n"
    })
    .await;
    stand.out(&["rm", "-f", "web"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_restart_keeps_ports_and_settings() {
    let stand = Stand::start().await;
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "18080:80",
        "-e",
        "KEY=value",
        &stand.image_name,
        "sh",
        "-c",
        "trap 'exit 0' TERM; echo $KEY; while :; do sleep 0.1; done",
    ];
    stand.out(&run);
    let first = inspect(&stand, "web");
    assert_eq!(stand.out(&["restart", "-t", "5", "web"]), "web\n");
    let second = inspect(&stand, "web");
    assert_eq!(second["State"]["Status"], "running");
    assert_ne!(first["State"]["Pid"], second["State"]["Pid"]);
    assert_eq!(first["Id"], second["Id"]);
    assert_eq!(
        second["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"],
        "18080"
    );
    assert_eq!(
        stand.out(&["exec", "web", "sh", "-c", "echo $KEY"]),
        "value\n"
    );
    // A running one is started already.
    assert_eq!(stand.out(&["start", "web"]), "web\n");
    assert_eq!(
        inspect(&stand, "web")["State"]["Pid"],
        second["State"]["Pid"]
    );
    // An ended one, and one that would be removed at its end.
    stand.out(&["stop", "-t", "5", "web"]);
    stand.out(&["restart", "web"]);
    assert!(stand.out(&["ps"]).contains("web"));
    stand.out(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "gone",
        &stand.image_name,
        "sleep",
        "1000",
    ]);
    stand.out(&["restart", "-t", "0", "gone"]);
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(stand.out(&["ps"]).contains("gone"));
    assert_eq!(stand.out(&["rm", "-f", "web", "gone"]), "web\ngone\n");
    stand.assert_clean().await;
}

#[tokio::test]
async fn stop_kill_wait_and_removal_are_dockers() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    stand.out(&["run", "-d", "--name", "a", image, "sleep", "1000"]);
    stand.out(&["run", "-d", "--name", "b", image, "sleep", "1000"]);
    // Init ignores SIGTERM without a handler: killed after the grace.
    assert_eq!(stand.out(&["stop", "-t", "1", "a"]), "a\n");
    assert_eq!(stand.out(&["wait", "a"]), "137\n");
    assert_eq!(stand.out(&["stop", "a"]), "a\n", "stopped already");
    let (code, error) = stand.fails(&["kill", "a"]);
    assert!(
        code == 1 && error.contains('a') && error.contains("not running"),
        "{error}"
    );
    assert_eq!(stand.out(&["kill", "-s", "SIGKILL", "b"]), "b\n");
    assert_eq!(stand.out(&["wait", "b"]), "137\n");
    let (code, error) = stand.fails(&["stop", "nosuch", "a"]);
    assert!(code == 1 && error.contains("nosuch"), "{error}");

    let (code, error) = stand.fails(&["rm", "nosuch"]);
    assert!(code == 1 && error.contains("nosuch"), "{error}");
    let gone = stand.joey(&["rm", "-f", "nosuch"]);
    assert!(gone.status.success() && gone.stdout.is_empty(), "{gone:?}");
    assert!(String::from_utf8(gone.stderr).unwrap().contains("nosuch"));
    assert_eq!(stand.out(&["rm", "a", "b"]), "a\nb\n");

    // Made and never started: it is neither waited for nor stopped.
    let id = stand.out(&["create", "--name", "c", image, "true"]);
    assert_eq!(id.trim().len(), 64);
    assert_eq!(stand.out(&["wait", "c"]), "0\n");
    assert_eq!(stand.out(&["stop", "c"]), "c\n");
    assert!(
        stand
            .out(&["ps", "-a", "-f", "status=created"])
            .contains('c')
    );
    assert_eq!(stand.out(&["start", &id[..12]]).trim(), &id[..12]);
    assert_eq!(stand.out(&["wait", "c"]), "0\n");
    // A program that does not exist fails at each start, and leaves no pod behind.
    stand.out(&["create", "--name", "bad", image, "/no/such"]);
    for _ in 0..2 {
        let (code, error) = stand.fails(&["start", "bad"]);
        assert!(code == 1 && error.contains("/no/such"), "{error}");
    }
    assert_eq!(stand.out(&["rm", "c", "bad"]), "c\nbad\n");
    stand.assert_clean().await;
}

#[tokio::test]
async fn real_time_signals() {
    let stand = Stand::start().await;
    let script = "trap 'echo 35' 35; trap 'echo 63' 63; trap 'exit 9' 37; echo ready; \
                  while :; do sleep 0.1; done";
    let run = ["run", "-d", "--name", "c", "--stop-signal", "RTMIN+3"];
    stand.out(&[&run[..], &[&stand.image_name, "sh", "-c", script]].concat());
    let mut wanted = "ready\n".to_owned();
    for (signal, line) in [("SIGRTMIN+1", "35\n"), ("rtmax-1", "63\n"), ("35", "35\n")] {
        eventually(signal, || async { stand.out(&["logs", "c"]) == wanted }).await;
        assert_eq!(stand.out(&["kill", "-s", signal, "c"]), "c\n");
        wanted.push_str(line);
    }
    eventually("the last", || async { stand.out(&["logs", "c"]) == wanted }).await;
    assert_eq!(inspect(&stand, "c")["Config"]["StopSignal"], 37);
    stand.out(&["stop", "-t", "10", "c"]);
    assert_eq!(stand.out(&["wait", "c"]), "9\n");
    for wrong in ["32", "65", "RTMIN+31"] {
        let (code, error) = stand.fails(&["kill", "-s", wrong, "c"]);
        assert!(code != 0 && error.contains(wrong), "{error}");
    }
    stand.out(&["rm", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn lists_show_what_is_asked_for() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let id = stand.out(&[
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        image,
        "sleep",
        "1000",
    ]);
    stand.out(&["create", "--name", "job", "-l", "tier=back", image, "true"]);
    let names = |arguments: &[&str]| -> Vec<String> {
        let text = stand.out(&[&["ps"], arguments].concat());
        let names = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect()
    };
    assert_eq!(names(&[]), ["web"]);
    assert_eq!(names(&["-a"]), ["job", "web"]);
    assert_eq!(names(&["-a", "-f", "label=tier=front"]), ["web"]);
    assert_eq!(names(&["-f", "status=created"]), ["job"]);
    assert_eq!(names(&["-a", "-f", "name=jo"]), ["job"]);
    assert_eq!(stand.out(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(stand.out(&["ps", "-q"]).trim(), &id[..12]);
    assert!(
        stand
            .fails(&["ps", "-f", "colour=red"])
            .1
            .contains("colour")
    );

    let web = inspect(&stand, "web");
    assert_eq!(web["Id"], id.trim());
    assert_eq!(web["Path"], "sleep");
    assert_eq!(web["Config"]["Labels"]["tier"], "front");
    assert_eq!(web["HostConfig"]["NetworkMode"], "bridge");
    assert!(
        web["State"]["StartedAt"]
            .as_str()
            .unwrap()
            .starts_with("20")
    );
    let shown = inspect(&stand, image);
    assert_eq!(shown["RepoTags"][0], image);
    assert_eq!(
        inspect(&stand, shown["Id"].as_str().unwrap())["Os"],
        "linux"
    );
    let (code, error) = stand.fails(&["inspect", "--type", "image", "web"]);
    assert!(code == 1 && error.contains("web"), "{error}");
    stand.out(&["rm", "-f", "web", "job"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn networks_of_its_own_of_the_host_and_none() {
    let stand = Stand::start().await;
    let links = |network: &[&str]| {
        let command = [
            &["run", "--rm"],
            network,
            &[&stand.image_name, "ls", "/sys/class/net"],
        ];
        let text = stand.out(&command.concat());
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(links(&[]), ["eth0", "lo"]);
    assert_eq!(links(&["--net", "none"]), ["lo"]);
    let here = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let host = links(&["--network", "host"]);
    for line in here.lines().filter(|line| line.contains(':')) {
        let name = line.split(':').next().unwrap().trim().to_owned();
        assert!(host.contains(&name), "{name} in {host:?}");
    }
    // The loopback is up, and the host's processes are not on it.
    let ping = [
        "run",
        "--rm",
        "--net",
        "none",
        &stand.image_name,
        "ping",
        "-c",
        "1",
        "127.0.0.1",
    ];
    assert!(stand.out(&ping).contains("1 packets received"));
    stand.out(&[
        "run",
        "-d",
        "--net",
        "none",
        "--name",
        "n",
        &stand.image_name,
        "sleep",
        "1000",
    ]);
    assert_eq!(inspect(&stand, "n")["HostConfig"]["NetworkMode"], "none");
    stand.out(&["restart", "-t", "0", "n"]);
    assert_eq!(stand.out(&["exec", "n", "ls", "/sys/class/net"]), "lo\n");
    stand.out(&["rm", "-f", "n"]);
    stand.assert_clean().await;
}
