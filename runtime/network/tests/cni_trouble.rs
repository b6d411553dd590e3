//! CNI plugins and records that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::cni::{RESULT, config, log, ready, write_conf, write_plugin};
use common::{eventually, on_node};
use joey_network::{Mode, Network};

#[test]
fn hanging_and_flooding_plugins_are_bounded() {
    on_node(|node| async move {
        write_plugin(
            &node,
            "hang",
            "[ \"$CNI_COMMAND\" = ADD ] && sleep 1000\nexit 0",
        );
        write_plugin(
            &node,
            "flood",
            "[ \"$CNI_COMMAND\" = ADD ] && cat /dev/zero\nexit 0",
        );
        write_plugin(
            &node,
            "nonsense",
            "[ \"$CNI_COMMAND\" = ADD ] && echo '[[[['\nexit 0",
        );
        for (plugin, expected) in [
            ("hang", "did not end"),
            ("flood", "more than"),
            ("nonsense", "no JSON"),
        ] {
            let conf = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"{plugin}"}}"#);
            write_conf(&node, "10.conf", &conf);
            let mut config = config(&node, Mode::Cni);
            config.cni_timeout_seconds = 1;
            let network = Network::open(config).await.unwrap();
            let error = network.attach(node.pod(plugin)).await.unwrap_err();
            let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
            let cause = cause.unwrap().to_string();
            assert!(cause.contains(expected), "{plugin}: {cause}");
        }
    });
}

#[test]
fn plugins_that_hang_do_not_keep_the_daemon_from_starting() {
    on_node(|node| async move {
        let hang = "[ \"$CNI_COMMAND\" = STATUS ] && sleep 1000\nexit 0";
        write_plugin(&node, "hang", hang);
        let conf = r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"hang"}]}"#;
        write_conf(&node, "10.conflist", conf);
        let begun = std::time::Instant::now();
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it waits for the plugin"
        );
        let status = network.status();
        assert!(!status.ready);
        assert!(status.message.contains("answered"), "{}", status.message);
    });
}

#[test]
fn a_result_without_an_address_is_no_network() {
    on_node(|node| async move {
        let empty = r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0"}'
exit 0"#;
        write_plugin(&node, "scripted", empty);
        let conf = r#"{"cniVersion":"1.0.0","name":"n","type":"scripted"}"#;
        write_conf(&node, "10.conf", conf);
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        log(&node);
        let error = network.attach(node.pod("a")).await.unwrap_err();
        let cause = std::error::Error::source(&error).and_then(std::error::Error::source);
        let cause = cause.unwrap().to_string();
        assert!(cause.contains("no address"), "{cause}");
        let calls = log(&node);
        assert!(
            calls.iter().any(|call| call.starts_with("DEL")),
            "{calls:?}"
        );
    });
}

#[test]
fn a_bad_record_is_set_aside() {
    on_node(|node| async move {
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        let folder = config(&node, Mode::Cni).state_dir.join("cni");
        std::fs::write(folder.join("a.json"), "{ torn").unwrap();
        network.gc(&[]).await.unwrap();
        assert!(!folder.join("a.json").exists());
        assert!(folder.join("bad-a.json.quarantined").exists());
    });
}

#[test]
fn a_missing_plugin_is_not_ready_until_it_comes() {
    on_node(|node| async move {
        write_conf(
            &node,
            "10.conf",
            r#"{"cniVersion":"1.0.0","name":"n","type":"scripted"}"#,
        );
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        let status = network.status();
        assert!(
            !status.ready && status.message.contains("scripted"),
            "{}",
            status.message
        );
        write_plugin(&node, "scripted", RESULT);
        ready(&network).await;
        write_plugin(&node, "old", "exit 0");
        let script = std::fs::read_to_string(node.path("bin/old")).unwrap();
        let script = script.replace(r#","1.0.0","1.1.0""#, "");
        std::fs::write(node.path("bin/old"), script).unwrap();
        write_conf(
            &node,
            "05.conf",
            r#"{"cniVersion":"1.0.0","name":"o","type":"old"}"#,
        );
        eventually("an old plugin is told", || {
            network
                .status()
                .message
                .contains("does not know version 1.0.0")
        })
        .await;
    });
}
