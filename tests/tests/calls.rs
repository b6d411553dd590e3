//! Many calls at once, and calls under way while the daemon stops.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use joey_proto::api::joey_client::JoeyClient;
use joey_proto::api::{VersionRequest, WaitContainerRequest};
use joey_tests::{Stand, eventually, piped};

#[tokio::test]
async fn calls_that_stay_open_hold_up_no_other_of_their_connection() {
    let stand = Stand::start().await;
    let id = stand.out(&[
        "run",
        "-d",
        "--name",
        "c",
        &stand.image_name,
        "sleep",
        "1000",
    ]);
    let client = JoeyClient::new(stand.client.channel());
    let waiting: Vec<_> = (0..400)
        .map(|_| {
            let (mut client, container) = (client.clone(), id.trim().to_owned());
            tokio::spawn(async move {
                let request = WaitContainerRequest {
                    container,
                    removed: false,
                };
                client.wait_container(request).await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut client = client.clone();
    let version = client.version(VersionRequest {});
    let answered = tokio::time::timeout(Duration::from_secs(2), version).await;
    answered.unwrap().unwrap();
    stand.out(&["kill", "c"]);
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap().into_inner().exit_code, 137);
    }
    stand.out(&["rm", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_restart_that_is_under_way_when_the_daemon_stops_is_finished() {
    let mut stand = Stand::start().await;
    let script = "trap 'sleep 2; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
    let image = stand.image_name.clone();
    stand.out(&["run", "-d", "--name", "c", &image, "sh", "-c", script]);
    eventually("it runs", || async {
        stand.out(&["logs", "c"]) == "ready\n"
    })
    .await;
    let restart = piped(&mut stand.joey_command(&["restart", "-t", "8", "c"]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    assert!(stand.daemon.terminate().success());
    assert!(begun.elapsed() > Duration::from_secs(1));
    let ended = restart.wait_with_output().unwrap();
    assert_eq!(ended.stdout, b"c\n", "{ended:?}");
    stand.restart_after(|_| {}).await;
    assert!(stand.out(&["ps"]).contains('c'));
    eventually("both lives", || async {
        stand.out(&["logs", "c"]) == "ready\nready\n"
    })
    .await;
    stand.out(&["rm", "-f", "c"]);
    stand.assert_clean().await;
}
