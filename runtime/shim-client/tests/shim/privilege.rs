//! Users, capabilities, seccomp, limits and the OOM killer.

use std::fs;

use joey_shim_client::ExecStreams;
use joey_shim_client::proto::{Process, Rlimit, User};

use crate::pod::{Pod, capabilities, pipe, process, read_all};

async fn output_of(
    pod: &mut Pod,
    id: &str,
    change: impl FnOnce(&mut Process),
    script: &str,
) -> Vec<String> {
    let mut request = pod.request(id, script);
    change(request.process.as_mut().unwrap());
    pod.run_request(request).await;
    pod.log_lines(id)
        .iter()
        .map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test]
async fn users_are_those_of_the_image() {
    let mut pod = Pod::new().await;
    let mut request = pod.request(
        "c",
        "id -u; id -g; id -G; echo $HOME; pwd; echo x > /dev/stdout; umask",
    );
    let user = User {
        name: "ann".into(),
        additional_gids: vec![77],
        ..User::default()
    };
    request.process.as_mut().unwrap().user = Some(user);
    request.process.as_mut().unwrap().cwd = "/made/here".into();
    let started = pod.shim.start(request).await.unwrap();
    let resolved = started.user.unwrap();
    assert_eq!(
        (resolved.uid, resolved.gid, resolved.groups),
        (1000, 1001, vec![1001, 50, 77])
    );
    pod.exit("c").await;
    let lines = pod
        .log_lines("c")
        .iter()
        .map(|line| line["stdout F ".len()..].to_owned())
        .collect::<Vec<_>>();
    assert_eq!(
        lines,
        [
            "1000",
            "1001",
            "1001 50 77",
            "/home/ann",
            "/made/here",
            "x",
            "0022"
        ]
    );
    let mut request = pod.request("d", "");
    request.process.as_mut().unwrap().user = Some(User {
        name: "nobody".into(),
        ..User::default()
    });
    let error = pod.shim.start(request).await.unwrap_err().to_string();
    assert!(error.contains("unable to find user nobody"), "{error}");
    pod.end().await;
}

#[tokio::test]
async fn capabilities_are_exactly_those_given_and_ambient_ones_survive_a_user() {
    let mut pod = Pod::new().await;
    let script = "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status";
    let lines = output_of(
        &mut pod,
        "root",
        |process| process.no_new_privileges = true,
        script,
    )
    .await;
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service
    let set = "00000000000005fb";
    let expect = |inheritable: &str, ambient: &str, nnp: &str| {
        vec![
            format!("CapInh:\t{inheritable}"),
            format!("CapPrm:\t{set}"),
            format!("CapEff:\t{set}"),
            format!("CapBnd:\t{set}"),
            format!("CapAmb:\t{ambient}"),
            format!("NoNewPrivs:\t{nnp}"),
            "Seccomp:\t0".to_owned(),
        ]
    };
    let none = "0000000000000000";
    assert_eq!(lines, expect(none, none, "1"));
    let ambient = |process: &mut Process| {
        let mut all = capabilities(&[]);
        all.inheritable = all.permitted.clone();
        all.ambient = all.permitted.clone();
        process.capabilities = Some(all);
        process.user = Some(User {
            uid: 1000,
            ..User::default()
        });
    };
    assert_eq!(
        output_of(&mut pod, "user", ambient, script).await,
        expect(set, set, "0")
    );
    pod.end().await;
}

/// A program that makes mkdir(2) fail with ENOSYS and allows the rest.
fn no_mkdir() -> Vec<u8> {
    const LOAD_NUMBER: (u16, u8, u8, u32) = (0x20, 0, 0, 0);
    let program = [
        LOAD_NUMBER,
        (0x15, 0, 1, 83),
        (0x06, 0, 0, 0x0005_0000 | 38),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let encode = |(code, jt, jf, k): (u16, u8, u8, u32)| {
        [&code.to_ne_bytes()[..], &[jt, jf], &k.to_ne_bytes()].concat()
    };
    program.into_iter().flat_map(encode).collect()
}

#[tokio::test]
async fn the_seccomp_filter_holds_for_init_and_exec_alike() {
    let mut pod = Pod::new().await;
    for (id, no_new_privileges) in [("with", true), ("without", false)] {
        let change = |process: &mut Process| {
            process.seccomp = vec![no_mkdir()];
            process.no_new_privileges = no_new_privileges;
        };
        let mut request = pod.request(id, "mkdir /d; grep Seccomp: /proc/self/status; sleep 1000");
        change(request.process.as_mut().unwrap());
        pod.shim.start(request).await.unwrap();
        let mut executed = process(&["/bin/sh", "-c", "mkdir /d; grep Seccomp: /proc/self/status"]);
        change(&mut executed);
        let (read, write) = pipe();
        let streams = ExecStreams {
            stderr: Some(write.try_clone().unwrap()),
            stdout: Some(write),
            stdin: None,
        };
        pod.try_exec(id, executed, streams).await.unwrap();
        let output = read_all(read).await;
        crate::pod::eventually("the init's output", || pod.log(id).contains("Seccomp")).await;
        for text in [output, pod.log(id)] {
            assert!(
                text.contains("not implemented") && text.contains("Seccomp:\t2"),
                "{text}"
            );
        }
    }
    pod.end().await;
}

#[tokio::test]
async fn rlimits_and_the_oom_score_are_set() {
    let mut pod = Pod::new().await;
    let change = |process: &mut Process| {
        process.rlimits = vec![Rlimit {
            r#type: "RLIMIT_NOFILE".into(),
            hard: 123,
            soft: 100,
        }];
        process.has_oom_score_adj = true;
        process.oom_score_adj = 777;
    };
    let lines = output_of(
        &mut pod,
        "c",
        change,
        "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj",
    )
    .await;
    assert_eq!(lines, ["100", "123", "777"]);
    pod.end().await;
}

#[tokio::test]
async fn an_oom_kill_is_counted_in_the_exit() {
    let mut pod = Pod::new().await;
    let request = pod.request("c", "dd if=/dev/zero of=/dev/null bs=64M count=1");
    let limit = if request.oom_file.ends_with("oom_control") {
        "memory.limit_in_bytes"
    } else {
        "memory.max"
    };
    fs::write(format!("{}/{limit}", request.cgroup_dirs[0]), "20000000").unwrap();
    let exit = pod.run_request(request).await;
    assert_eq!(
        (exit.code, exit.oom_kills_before, exit.oom_kills),
        (137, 0, 1)
    );
    pod.end().await;
}

#[tokio::test]
async fn an_exec_has_no_descriptor_of_the_host() {
    let mut pod = Pod::new().await;
    pod.start("c", "ls -l /proc/self/fd; sleep 1000").await;
    let (_, output) = pod.exec("c", "ls -l /proc/self/fd | grep -v /proc/").await;
    let open = output.lines().filter(|line| line.contains("->")).count();
    assert!(
        open <= 4 && !output.contains("/sys") && !output.contains("socket"),
        "{output}"
    );
    crate::pod::eventually("the init's output", || pod.log("c").contains(" 2 ->")).await;
    let log = pod.log("c");
    assert!(!log.contains("socket") && !log.contains("mnt:"), "{log}");
    pod.end().await;
}
