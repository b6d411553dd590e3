//! `joey attach` and `joey start -a`: a container's own streams, from outside.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::time::Duration;

use joey_tests::{Stand, Terminal, eventually, piped, read_until};
use rustix::process::Signal;

#[tokio::test]
async fn detached_keys_and_attached_again() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let script =
        "while read line; do echo \"<$line>\"; stty size; test $line = end && exit 8; done";
    let run = ["run", "-it", "--name", "shell", image, "sh", "-c", script];
    let mut terminal = Terminal::run(&stand, &run);
    terminal.type_in(b"one\n");
    terminal.see("<one>\r\n33 111\r\n");
    terminal.type_in(b"\x10\x11");
    assert_eq!(terminal.end().1, 0);
    assert!(stand.out(&["ps"]).contains("shell"));
    let mut terminal = Terminal::run(&stand, &["attach", "shell"]);
    let size = rustix::termios::Winsize {
        ws_row: 20,
        ws_col: 70,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    terminal.type_in(b"two\n");
    terminal.see("<two>\r\n33 111\r\n");
    rustix::termios::tcsetwinsize(terminal.master(), size).unwrap();
    terminal.signal(Signal::WINCH);
    tokio::time::sleep(Duration::from_millis(300)).await;
    terminal.type_in(b"end\n");
    terminal.see("<end>\r\n20 70\r\n");
    assert_eq!(terminal.end(), (String::new(), 8));
    eventually("it has ended", || async {
        stand.out(&["ps", "-a"]).contains("Exited (8)")
    })
    .await;
    // Started again with a terminal of its own.
    let mut terminal = Terminal::run(&stand, &["start", "-ai", "shell"]);
    terminal.type_in(b"end\n");
    terminal.see("<end>\r\n33 111\r\n");
    assert_eq!(terminal.end().1, 8);
    stand.out(&["rm", "shell"]);
    stand.assert_clean().await;
}

/// Echoes lines, and says when there are no more.
const ECHO: &str = "while read line; do echo \"<$line>\"; done; echo end";

#[tokio::test]
async fn input_of_a_detached_container_outlives_its_clients() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    stand.out(&["run", "-d", "-i", "--name", "c", image, "sh", "-c", ECHO]);
    for word in ["one", "two", "three"] {
        let mut client = piped(&mut stand.joey_command(&["attach", "c"]));
        let mut stdin = client.stdin.take().unwrap();
        stdin.write_all(format!("{word}\n").as_bytes()).unwrap();
        read_until(
            client.stdout.as_mut().unwrap(),
            format!("<{word}>\n").as_bytes(),
        );
        // By the end of its input, and then as a whole.
        drop(stdin);
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert_eq!(stand.out(&["logs", "c"]), "<one>\n<two>\n<three>\n");
    assert!(stand.out(&["ps"]).contains('c'));

    // Of one that is made for a client, it ends with the first.
    stand.out(&["create", "-i", "--name", "d", image, "sh", "-c", ECHO]);
    let mut client = piped(&mut stand.joey_command(&["start", "-ai", "d"]));
    client.stdin.take().unwrap().write_all(b"one\n").unwrap();
    let ended = client.wait_with_output().unwrap();
    assert_eq!(ended.stdout, b"<one>\nend\n", "{ended:?}");
    stand.out(&["rm", "-f", "c", "d"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn streams_are_those_of_the_container_that_is_meant() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let id = stand.out(&["create", "-t", "--name", "terminal", image, "true"]);
    // Its name is the beginning of another's id.
    let name = &id[..6];
    let run = ["create", "-i", "--name", name, image, "sh", "-c", ECHO];
    stand.out(&run);
    let mut client = piped(&mut stand.joey_command(&["start", "-ai", name]));
    client.stdin.take().unwrap().write_all(b"one\n").unwrap();
    let ended = client.wait_with_output().unwrap();
    assert_eq!(ended.stdout, b"<one>\nend\n", "{ended:?}");
    // A terminal without input needs none here.
    let ended = stand.joey(&["start", "-ai", "terminal"]);
    assert!(ended.status.success(), "{ended:?}");
    let (code, error) = stand.fails(&["attach", "nosuch"]);
    assert!(code == 1 && error.contains("nosuch"), "{error}");
    stand.out(&["rm", name, "terminal"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_told_so() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let log = "max-size=64k";
    let run = ["run", "-d", "--name", "yes", "--log-opt", log, image, "yes"];
    stand.out(&run);
    let client = piped(&mut stand.joey_command(&["attach", "yes"]));
    tokio::time::sleep(Duration::from_secs(12)).await;
    let ended = client.wait_with_output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert!(error.contains("detached: the client"), "{error}");
    assert_eq!(ended.status.code(), Some(1));
    stand.out(&["rm", "-f", "yes"]);
    stand.assert_clean().await;
}
