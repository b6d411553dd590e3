//! Starting, ending and finding again.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use joey_shim_client::proto::{Exec, Kill};
use joey_shim_client::{ExecStreams, Shim, read_exit_record};

use crate::pod::{Pod, eventually, process};

#[tokio::test]
async fn a_container_logs_and_its_exit_code_is_recorded() {
    let mut pod = Pod::new().await;
    let exit = pod
        .run("c", "echo out; echo err >&2; hostname; printf rest; exit 7")
        .await;
    assert_eq!((exit.code, exit.signal), (7, 0));
    let mut lines = pod.log_lines("c");
    lines.sort();
    assert_eq!(
        lines,
        [
            "stderr F err",
            "stdout F inside",
            "stdout F out",
            "stdout P rest"
        ]
    );
    let record = read_exit_record(&pod.run_dir(), "c").unwrap().unwrap();
    assert_eq!((record.code, record.finished_at), (7, exit.finished_at));
    pod.shim.delete("c").await.unwrap();
    assert_eq!(read_exit_record(&pod.run_dir(), "c").unwrap(), None);
    pod.end().await;
}

#[tokio::test]
async fn an_exec_has_its_own_streams_and_exit_code() {
    let mut pod = Pod::new().await;
    pod.start("c", "echo $$ > /tmp/pid; sleep 1000").await;
    let (code, output) = pod.exec("c", "echo hello; id -u; hostname; exit 3").await;
    assert_eq!((code, output.as_str()), (3, "hello\n0\ninside\n"));
    let missing = pod
        .try_exec("c", process(&["nothing"]), ExecStreams::default())
        .await
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "exec: \"nothing\": executable file not found in $PATH"
    );
    pod.end().await;
}

#[tokio::test]
async fn a_kill_ends_the_container_with_its_signal() {
    let mut pod = Pod::new().await;
    pod.start("c", "sleep 1000 & sleep 1000").await;
    pod.shim
        .kill(Kill {
            container_id: "c".into(),
            signal: 9,
            ..Kill::default()
        })
        .await
        .unwrap();
    let exit = pod.exit("c").await;
    assert_eq!((exit.code, exit.signal), (137, 9));
    let again = pod
        .shim
        .kill(Kill {
            container_id: "c".into(),
            signal: 9,
            ..Kill::default()
        })
        .await
        .unwrap_err();
    assert!(again.is_not_running(), "{again}");
    pod.end().await;
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing() {
    let mut pod = Pod::new().await;
    let mut request = pod.request("c", "");
    request.process = Some(process(&["/missing"]));
    let error = pod.shim.start(request.clone()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "exec: \"/missing\": stat /missing: no such file or directory"
    );
    request.process = Some(process(&["/bin/true"]));
    request.rootfs.as_mut().unwrap().lowers = vec!["/no/such/layer".into()];
    let error = pod.shim.start(request.clone()).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/layer"), "{error}");
    assert_eq!(pod.shim.state().await.unwrap().containers, []);
    let shim = pod.shim.pid();
    let fds = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let before = fds();
    for _ in 0..5 {
        pod.shim.start(request.clone()).await.unwrap_err();
    }
    eventually("the descriptors are closed", || fds() <= before).await;
    let children = format!("/proc/{shim}/task/{shim}/children");
    eventually("the workers are reaped", || {
        fs::read_to_string(&children).unwrap().is_empty()
    })
    .await;
    request.rootfs.as_mut().unwrap().lowers = vec![pod.root().to_string_lossy().into_owned()];
    assert_eq!(pod.run_request(request).await.code, 0);
    pod.end().await;
}

#[tokio::test]
async fn the_shim_is_found_again_and_knows_its_containers() {
    let mut pod = Pod::new().await;
    let started = pod.start("c", "sleep 1000").await;
    pod.run("ended", "exit 4").await;
    let again = Shim::connect(&pod.run_dir()).await.unwrap();
    assert_eq!(again.pid(), pod.shim.pid());
    let state = again.state().await.unwrap();
    let of = |id: &str| {
        state
            .containers
            .iter()
            .find(|c| c.container_id == id)
            .unwrap()
            .clone()
    };
    assert_eq!((of("c").pid, of("c").started), (started.pid, Some(started)));
    assert_eq!((of("ended").pid, of("ended").exit.unwrap().code), (0, 4));
    assert!(again.network_namespace().await.unwrap().is_some());
    assert!(again.shutdown(false).await.is_err());
    pod.end().await;
}

#[tokio::test]
async fn sockets_are_held_until_the_shim_ends_and_no_container_has_them() {
    let mut pod = Pod::new().await;
    assert!(pod.shim.can_hold_sockets());
    // More than one message takes.
    let bound: Vec<TcpListener> = (0..40)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<_> = bound.iter().map(|it| it.local_addr().unwrap()).collect();
    let sockets = bound.into_iter().map(OwnedFd::from).collect();
    pod.shim.hold_sockets(sockets).await.unwrap();
    for address in &addresses {
        TcpListener::bind(address).expect_err("the shim has it");
    }
    let again = Shim::connect(&pod.run_dir()).await.unwrap();
    assert_eq!(again.held_sockets(), 40);
    drop(again);
    let started = pod.start("c", "exec sleep 1000").await;
    let open = fs::read_dir(format!("/proc/{}/fd", started.pid)).unwrap();
    assert_eq!(open.count(), 3);
    pod.end().await;
    eventually("the ports are free", || {
        addresses.iter().all(|at| TcpListener::bind(at).is_ok())
    })
    .await;
}

#[tokio::test]
async fn a_process_ends_with_the_client_that_ran_it() {
    let mut pod = Pod::new().await;
    pod.start("c", "sleep 1000").await;
    let client = Shim::connect(&pod.run_dir()).await.unwrap();
    let request = Exec {
        container_id: "c".into(),
        process: Some(process(&["/bin/sleep", "1000"])),
        ..Exec::default()
    };
    let kept = pod
        .shim
        .exec(request.clone(), ExecStreams::default())
        .await
        .unwrap();
    let left = client
        .exec(request.clone(), ExecStreams::default())
        .await
        .unwrap();
    let abandoned = client.exec(request, ExecStreams::default()).await.unwrap();
    client.abandon(abandoned.exec_id);
    assert_eq!(pod.exec_exit(abandoned.exec_id).await, 137);
    drop(client);
    assert_eq!(pod.exec_exit(left.exec_id).await, 137);
    assert!(fs::exists(format!("/proc/{}", kept.pid)).unwrap());
    pod.end().await;
}
