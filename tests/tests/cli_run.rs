//! `joey run` in the foreground: no byte is lost, whatever the timing.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::Output;
use std::time::Duration;

use joey_tests::{Stand, Terminal, piped, read_until, signal};
use rustix::process::Signal;

/// Bytes of every value in no order.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn a_hundred_short_runs_show_every_byte() {
    let stand = Stand::start().await;
    for number in 0..100 {
        let word = format!("number {number}");
        let ended = stand.joey(&["run", "--rm", &stand.image_name, "echo", &word]);
        let expected = format!("{word}\n");
        assert_eq!(ended.stdout, expected.as_bytes(), "{ended:?}");
        assert!(
            ended.stderr.is_empty() && ended.status.success(),
            "{ended:?}"
        );
    }
    stand.assert_clean().await;
}

#[tokio::test]
async fn both_streams_carry_any_bytes_apart() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (noise(5_000_000, 3), noise(3_000_000, 5));
    std::fs::write(folder.path().join("out"), &out).unwrap();
    std::fs::write(folder.path().join("err"), &err).unwrap();
    let volume = format!("{}:/data:ro", folder.path().display());
    let script = "cat /data/out & cat /data/err >&2; wait; exit 7";
    let arguments = [
        "run",
        "--rm",
        "-v",
        &volume,
        &stand.image_name,
        "sh",
        "-c",
        script,
    ];
    let same = |ended: Output| {
        assert_eq!(ended.status.code(), Some(7));
        assert!(ended.stdout == out, "{} bytes", ended.stdout.len());
        assert!(ended.stderr == err, "{} bytes", ended.stderr.len());
    };
    same(stand.joey(&arguments));
    // A reader that sleeps: longer than an ended container's pod waits.
    let child = piped(&mut stand.joey_command(&arguments));
    tokio::time::sleep(Duration::from_secs(12)).await;
    same(child.wait_with_output().unwrap());
    // The end of the output is in the shim when the container ends.
    let tail = [
        "run",
        "--rm",
        "-v",
        &volume,
        &stand.image_name,
        "head",
        "-c",
        "200000",
        "/data/out",
    ];
    let child = piped(&mut stand.joey_command(&tail));
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(
        stand.out(&["ps", "-a", "-q"]),
        "",
        "a slow reader holds no container"
    );
    let ended = child.wait_with_output().unwrap();
    assert!(
        ended.stdout == out[..200_000],
        "{} bytes",
        ended.stdout.len()
    );
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_prompt_is_seen_before_its_answer() {
    let stand = Stand::start().await;
    let script = "printf 'name? '; read name; printf \"hi $name\"; printf bye >&2";
    let mut child = piped(&mut stand.joey_command(&[
        "run",
        "--rm",
        "-i",
        &stand.image_name,
        "sh",
        "-c",
        script,
    ]));
    read_until(child.stdout.as_mut().unwrap(), b"name? ");
    child.stdin.as_mut().unwrap().write_all(b"bob\n").unwrap();
    read_until(child.stdout.as_mut().unwrap(), b"hi bob");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (&ended.stdout[..], &ended.stderr[..]),
        (&b""[..], &b"bye"[..])
    );
    stand.assert_clean().await;
}

#[tokio::test]
async fn input_ends_before_output_does() {
    let stand = Stand::start().await;
    let input = noise(2_000_000, 7);
    let script = "cat; echo end >&2; exit 6";
    let mut child = piped(&mut stand.joey_command(&[
        "run",
        "--rm",
        "-i",
        &stand.image_name,
        "sh",
        "-c",
        script,
    ]));
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(ended.stdout == input, "{} bytes", ended.stdout.len());
    assert_eq!(ended.stderr, b"end\n");
    assert_eq!(ended.status.code(), Some(6));
    // Without -i there is no input.
    assert_eq!(stand.out(&["run", "--rm", &stand.image_name, "cat"]), "");
    stand.assert_clean().await;
}

#[tokio::test]
async fn more_input_than_fits_anywhere_stops_neither_output_nor_signals() {
    let stand = Stand::start().await;
    let mut child =
        piped(&mut stand.joey_command(&["run", "--rm", "-i", &stand.image_name, "cat"]));
    let input = noise(32_000_000, 9);
    let (mut stdin, sent) = (child.stdin.take().unwrap(), input.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(ended.stdout == input, "{} bytes", ended.stdout.len());

    let script = "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut unread =
        stand.joey_command(&["run", "--rm", "-i", &stand.image_name, "sh", "-c", script]);
    let mut child = piped(&mut unread);
    let mut stdin = child.stdin.take().unwrap();
    // Ends with the pipe's reader.
    let writer = std::thread::spawn(move || while stdin.write_all(&[b'x'; 65536]).is_ok() {});
    let mut stdout = child.stdout.take().unwrap();
    read_until(&mut stdout, b"ready\n");
    std::thread::sleep(Duration::from_secs(1));
    signal(&child, Signal::TERM);
    read_until(&mut stdout, b"term\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    writer.join().unwrap();
    stand.assert_clean().await;
}

#[tokio::test]
async fn signals_reach_the_container() {
    let stand = Stand::start().await;
    let script = "trap 'echo usr' USR1; trap 'echo term; exit 9' TERM; echo ready; \
                  while :; do sleep 0.1; done";
    let mut child =
        piped(&mut stand.joey_command(&["run", "--rm", &stand.image_name, "sh", "-c", script]));
    let mut stdout = child.stdout.take().unwrap();
    read_until(&mut stdout, b"ready\n");
    signal(&child, Signal::USR1);
    read_until(&mut stdout, b"usr\n");
    signal(&child, Signal::TERM);
    read_until(&mut stdout, b"term\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    // An end by a signal has the shell's code.
    let ended = stand.joey(&[
        "run",
        "--rm",
        &stand.image_name,
        "sh",
        "-c",
        "sh -c 'kill -9 $$'; exit $?",
    ]);
    assert_eq!(ended.status.code(), Some(137));
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_reader_that_leaves_ends_joey_and_not_the_container() {
    let stand = Stand::start().await;
    let mut child = piped(&mut stand.joey_command(&[
        "run",
        "--name",
        "yes",
        "--log-opt",
        "max-size=64k",
        &stand.image_name,
        "yes",
    ]));
    read_until(child.stdout.as_mut().unwrap(), b"y\n");
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141), "as by SIGPIPE");
    assert!(ended.stderr.is_empty(), "{ended:?}");
    assert!(stand.out(&["ps"]).contains("yes"));
    stand.out(&["rm", "-f", "yes"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn exit_codes_are_dockers() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let run = |command: &[&str]| stand.fails(&[&["run", "--rm", image], command].concat());
    assert_eq!(run(&["sh", "-c", "exit 3"]), (3, String::new()));
    for (program, code) in [
        ("/no/such", 127),
        ("nosuch", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
    ] {
        let (ended, error) = run(&[program]);
        assert_eq!(ended, code, "{program}: {error}");
        assert!(error.contains(program), "{error}");
    }
    for wrong in [
        &["run", "--net", "tunnel", image][..],
        &["run", "--no-such-flag", image],
        &["run", "--log-opt", "mode=blocking", image],
        &["run", "-v", "/a", image],
    ] {
        let (code, error) = stand.fails(wrong);
        assert_eq!(code, 125, "{wrong:?}");
        let named = wrong[1].starts_with("--no") || error.contains(wrong[2]);
        assert!(named, "{wrong:?}: {error}");
    }
    let (code, error) = stand.fails(&["run", "--net", "none", "-p", "8080:80", image]);
    assert_eq!(code, 125, "{error}");
    assert_eq!(stand.out(&["ps", "-a", "-q"]), "", "nothing stays behind");
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_terminal_is_one_from_the_first_byte_on() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    for number in 0..30 {
        let word = format!("number-{number}");
        let terminal = Terminal::run(&stand, &["run", "-it", "--rm", image, "echo", &word]);
        assert_eq!(terminal.end(), (format!("{word}\r\n"), 0));
    }
    let script =
        "stty size; test -t 0 && test -t 2 && printf 'say: '; read word; echo \"[$word]\"; exit 4";
    let mut terminal = Terminal::run(&stand, &["run", "-it", "--rm", image, "sh", "-c", script]);
    assert_eq!(terminal.see("say: "), "33 111\r\nsay: ");
    let size = rustix::termios::Winsize {
        ws_row: 20,
        ws_col: 70,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal.master(), size).unwrap();
    terminal.type_in(b"w\xc3\xb6rd\n");
    assert_eq!(terminal.end(), ("wörd\r\n[wörd]\r\n".into(), 4));
    // More than a terminal's buffers hold.
    let terminal = Terminal::run(&stand, &["run", "-it", "--rm", image, "seq", "1", "20000"]);
    let expected: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(terminal.end(), (expected, 0));
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_slow_reader_of_an_exec_gets_everything() {
    let stand = Stand::start().await;
    stand.out(&[
        "run",
        "-d",
        "--name",
        "c",
        &stand.image_name,
        "sleep",
        "1000",
    ]);
    let child = piped(&mut stand.joey_command(&["exec", "c", "seq", "1", "60000"]));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ended = child.wait_with_output().unwrap();
    let expected: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    assert!(
        ended.stdout == expected.as_bytes(),
        "{} bytes",
        ended.stdout.len()
    );
    stand.out(&["rm", "-f", "c"]);
    stand.assert_clean().await;
}
