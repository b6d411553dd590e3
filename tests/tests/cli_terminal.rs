//! Signals, terminals and pipes of `joey`: what happens to joey happens to a container only where
//! that is meant.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use joey_tests::{Stand, Terminal, eventually, piped, signal};
use rustix::process::Signal;
use rustix::termios::{LocalModes, tcgetattr};

/// Whether a terminal edits lines, as shells leave it to programs.
fn edits_lines(terminal: &Terminal) -> bool {
    let mode = tcgetattr(terminal.master()).unwrap();
    mode.local_modes
        .contains(LocalModes::ICANON | LocalModes::ECHO)
}

#[tokio::test]
async fn the_end_of_an_attached_terminal_is_not_the_containers() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let script = "trap 'exit 7' HUP TERM; echo ready; while :; do sleep 0.1; done";
    let run = ["run", "-dit", "--name", "dev", image, "sh", "-c", script];
    stand.out(&run);
    eventually("it runs", || async {
        stand.out(&["logs", "dev"]).contains("ready")
    })
    .await;
    for (number, sent) in [(129, Signal::HUP), (143, Signal::TERM)] {
        let mut terminal = Terminal::run(&stand, &["attach", "dev"]);
        eventually("joey has the terminal", || async {
            !edits_lines(&terminal)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        terminal.signal(sent);
        assert_eq!(terminal.ended().1.code(), Some(number));
        assert!(edits_lines(&terminal));
        assert!(stand.out(&["ps"]).contains("dev"));
    }
    // Without input there is nothing to take the terminal for.
    stand.out(&["run", "-dt", "--name", "deaf", image, "sleep", "1000"]);
    let mut terminal = Terminal::run(&stand, &["attach", "deaf"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(edits_lines(&terminal));
    terminal.signal(Signal::INT);
    assert!(terminal.ended().1.signal().is_some());
    stand.out(&["rm", "-f", "dev", "deaf"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn an_exec_gets_every_key_and_gives_the_terminal_back() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    stand.out(&["run", "-d", "--name", "c", image, "sleep", "1000"]);
    for _ in 0..10 {
        let terminal = Terminal::run(&stand, &["exec", "-it", "c", "stty", "size"]);
        assert_eq!(terminal.end(), ("33 111\r\n".into(), 0));
    }
    let script = "stty raw -echo; echo ready; dd bs=1 count=2 2>/dev/null | od -An -tx1";
    let exec = ["exec", "-it", "c", "sh", "-c", script];
    let mut terminal = Terminal::run(&stand, &exec);
    terminal.see("ready");
    terminal.type_in(b"\x10\x11");
    assert!(terminal.see("11").contains("10 11"));
    assert_eq!(terminal.end().1, 0);

    let mut terminal = Terminal::run(&stand, &["exec", "-it", "c", "sleep", "1000"]);
    eventually("joey has the terminal", || async {
        !edits_lines(&terminal)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.ended().1.code(), Some(143));
    assert!(edits_lines(&terminal));
    stand.out(&["rm", "-f", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn output_that_nobody_takes_stops_no_signal() {
    let stand = Stand::start().await;
    let script = "trap 'exit 9' TERM; yes & wait";
    let image = stand.image_name.as_str();
    let options = ["--rm", "--log-opt", "max-size=64k"];
    let run = [&["run"], &options[..], &[image, "sh", "-c", script]].concat();
    let mut child = piped(&mut stand.joey_command(&run));
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal(&child, Signal::TERM);
    eventually("it has ended", || async {
        stand.out(&["ps", "-aq"]).is_empty()
    })
    .await;
    // Who reads on gets the rest and the code.
    let mut seen = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut seen).unwrap();
    assert!(seen.starts_with(b"y\ny\n"));
    assert_eq!(child.wait().unwrap().code(), Some(9));
    stand.assert_clean().await;
}

#[tokio::test]
async fn pipes_may_be_set_not_to_block_and_be_closed() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    let mut command = stand.joey_command(&["run", "--rm", image, "seq", "1", "60000"]);
    let mut child = command.stdout(write).spawn().unwrap();
    drop(command);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut seen = String::new();
    read.read_to_string(&mut seen).unwrap();
    assert!(child.wait().unwrap().success());
    let expected: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    assert!(seen == expected, "{} bytes", seen.len());

    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let mut command = stand.joey_command(&["ps", "--nosuch"]);
    let failed = command
        .stderr(closed.try_clone().unwrap())
        .status()
        .unwrap();
    assert_eq!(failed.code(), Some(125));
    let mut command = stand.joey_command(&["inspect", "nosuch"]);
    let failed = command
        .stdout(Stdio::null())
        .stderr(closed)
        .status()
        .unwrap();
    assert_eq!(failed.code(), Some(1), "not as after a panic");
    stand.assert_clean().await;
}
