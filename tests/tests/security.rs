//! What a container's processes may do, as its security context asks.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use joey_proto::cri::security_profile::ProfileType;
use joey_proto::cri::*;
use joey_tests::{Stand, bind, namespaces, pod_security, security};
use tonic::Code;

/// The default set, by the kernel's numbers: chown, dac_override, fowner, fsetid, kill, setgid,
/// setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
const DEFAULT: u64 = 0xa804_25fb;
const CHOWN: u64 = 1;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_TIME: u64 = 1 << 25;

/// The fields of `/proc/PID/status`.
fn fields(status: &str) -> BTreeMap<&str, &str> {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name, value.trim())).collect()
}

fn own_bounding_set() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    u64::from_str_radix(fields(&status)["CapBnd"], 16).unwrap()
}

/// Inheritable, permitted, effective, bounding, ambient.
fn capability_sets(status: &str) -> [u64; 5] {
    let fields = fields(status);
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|name| u64::from_str_radix(fields[name], 16).unwrap())
}

fn profile(kind: ProfileType, reference: &str) -> SecurityProfile {
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: reference.into(),
    }
}

fn id(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

async fn privileged_pod(node: &Stand, name: &str) -> (String, PodSandboxConfig) {
    let mut config = node.pod_config(name);
    pod_security(&mut config).privileged = true;
    (node.client.run_pod(&config).await, config)
}

struct Asked {
    add: &'static [&'static str],
    drop: &'static [&'static str],
    ambient: &'static [&'static str],
    user: i64,
}

#[tokio::test]
async fn capabilities_are_the_default_with_what_is_added_and_dropped() {
    let node = Stand::start().await;
    let (pod, config) = privileged_pod(&node, "caps").await;
    let all = own_bounding_set();
    let root = |add, drop| Asked {
        add,
        drop,
        ambient: &[],
        user: 0,
    };
    let user = |add, ambient| Asked {
        add,
        drop: &[],
        ambient,
        user: 1000,
    };
    let of_root = |set| [0, set, set, set, 0];
    let cases = [
        (root(&[], &[]), of_root(DEFAULT)),
        (
            root(&["net_admin"], &["CAP_CHOWN"]),
            of_root(DEFAULT & !CHOWN | NET_ADMIN),
        ),
        (root(&[], &["ALL"]), of_root(0)),
        (root(&["SYS_TIME"], &["ALL"]), of_root(SYS_TIME)),
        (root(&["ALL"], &[]), of_root(all)),
        (root(&["ALL"], &["SYS_ADMIN"]), of_root(all & !SYS_ADMIN)),
        (root(&["ALL"], &["ALL"]), of_root(0)),
        // Another user's program starts with none of what it may still gain.
        (user(&["NET_ADMIN"], &[]), [0, 0, 0, DEFAULT | NET_ADMIN, 0]),
        (
            user(&[], &["NET_BIND_SERVICE"]),
            [
                NET_BIND_SERVICE,
                NET_BIND_SERVICE,
                NET_BIND_SERVICE,
                DEFAULT,
                NET_BIND_SERVICE,
            ],
        ),
    ];
    for (number, (asked, wanted)) in cases.into_iter().enumerate() {
        let mut container = node.sleeper(&format!("c{number}"));
        let context = security(&mut container);
        context.run_as_user = id(asked.user);
        context.capabilities = Some(Capability {
            add_capabilities: words(asked.add),
            drop_capabilities: words(asked.drop),
            add_ambient_capabilities: words(asked.ambient),
        });
        let id = node.client.run(&pod, &container, &config).await;
        let read = "cat /proc/1/status; echo; cat /proc/self/status";
        let (seen, err, _) = node.client.exec(&id, &["sh", "-c", read]).await;
        let (init, exec) = seen.split_once("\n\n").unwrap_or_else(|| panic!("{err}"));
        assert_eq!(capability_sets(init), wanted, "init of case {number}");
        assert_eq!(capability_sets(exec), wanted, "exec of case {number}");
    }

    let mut container = node.sleeper("privileged");
    security(&mut container).privileged = true;
    let id = node.client.run(&pod, &container, &config).await;
    let read = ["cat", "/proc/self/status"];
    let status = node.client.exec(&id, &read).await.0;
    assert_eq!(capability_sets(&status), of_root(all));

    let mut container = node.sleeper("unknown");
    security(&mut container).capabilities = Some(Capability {
        add_capabilities: words(&["FLY"]),
        ..Default::default()
    });
    let error = node.refusal(&pod, &container, &config).await;
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("FLY"), "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn users_and_groups_are_resolved_in_the_image_and_told_in_the_status() {
    let node = Stand::start().await;
    let config = node.pod_config("users");
    let pod = node.client.run_pod(&config).await;
    type Change = fn(&mut LinuxContainerSecurityContext);
    let cases: [(Change, &str); 7] = [
        (|_| {}, "0 0 0"),
        (|it| it.run_as_user = id(1000), "1000 1000 1000 2000"),
        (
            |it| it.run_as_username = "alice".into(),
            "1000 1000 1000 2000",
        ),
        (
            |it| {
                it.run_as_user = id(1000);
                it.run_as_group = id(7);
                it.supplemental_groups = vec![8, 9];
            },
            "1000 7 7 8 9 2000",
        ),
        (
            |it| {
                it.run_as_username = "alice".into();
                it.supplemental_groups = vec![8];
                it.supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
            },
            "1000 1000 1000 8",
        ),
        (|it| it.run_as_user = id(4242), "4242 0 0"),
        (|it| it.supplemental_groups = vec![8], "0 0 0 8"),
    ];
    for (number, (change, wanted)) in cases.into_iter().enumerate() {
        let mut container = node.sleeper(&format!("c{number}"));
        change(security(&mut container));
        let id = node.client.run(&pod, &container, &config).await;
        let command = "echo $(id -u) $(id -g) $(id -G); \
                       echo $(awk '/^[UG]id:/ { print $2 }; /^Groups:/ { $1 = \"\"; print }' \
                       /proc/1/status)";
        let (seen, err, _) = node.client.exec(&id, &["sh", "-c", command]).await;
        let mut lines = seen.lines();
        assert_eq!(lines.next(), Some(wanted), "case {number}: {err}");
        // The kernel sorts groups.
        let sorted = |numbers: &str| {
            let numbers = numbers
                .split_whitespace()
                .map(|number| number.parse().unwrap());
            let mut numbers: Vec<i64> = numbers.collect();
            numbers[2..].sort_unstable();
            numbers
        };
        let of_init = sorted(lines.next().unwrap());
        assert_eq!(of_init, sorted(wanted), "init of case {number}");
        let told = node.client.status(&id).await.user.unwrap().linux.unwrap();
        let told = [told.uid, told.gid]
            .into_iter()
            .chain(told.supplemental_groups);
        let told: Vec<String> = told.map(|id| id.to_string()).collect();
        assert_eq!(
            sorted(&told.join(" ")),
            sorted(wanted),
            "status of case {number}"
        );
    }

    let mut container = node.sleeper("unknown");
    security(&mut container).run_as_username = "mallory".into();
    let error = node.refusal(&pod, &container, &config).await;
    assert!(error.message().contains("mallory"), "{error}");
    let mut container = node.sleeper("group");
    security(&mut container).run_as_group = id(7);
    let error = node.refusal(&pod, &container, &config).await;
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("run_as_group"), "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn no_new_privileges_keeps_set_user_id_programs_from_working() {
    let node = Stand::start().await;
    let probe = Path::new(env!("CARGO_BIN_EXE_probe"));
    let binary = std::fs::read(probe).unwrap();
    let image = node.image("setuid", |image| {
        image.program(probe).file("bin/setuid", 0o4755, &binary)
    });
    let image = image.await;
    let config = node.pod_config("nnp");
    let pod = node.client.run_pod(&config).await;
    for (name, no_new_privs, wanted) in [("with", true, "1000"), ("without", false, "0")] {
        let mut container = node.sleeper(name);
        container.image.as_mut().unwrap().image.clone_from(&image);
        let context = security(&mut container);
        context.run_as_user = id(1000);
        context.no_new_privs = no_new_privs;
        let id = node.client.run(&pod, &container, &config).await;
        let (seen, err, _) = node.client.exec(&id, &["/bin/setuid", "user"]).await;
        assert_eq!(seen.trim(), wanted, "{name} {err}");
        let status = node.client.exec(&id, &["cat", "/proc/1/status"]).await.0;
        let flag = u8::from(no_new_privs).to_string();
        assert_eq!(fields(&status)["NoNewPrivs"], flag, "{name}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

/// busybox and `probe`, which makes any system call.
async fn probe_image(node: &Stand) -> String {
    let probe = Path::new(env!("CARGO_BIN_EXE_probe"));
    node.image("probe", |image| image.program(probe)).await
}

/// The errors of system calls in a container.
async fn errnos<const N: usize>(node: &Stand, id: &str, calls: [i64; N]) -> [i32; N] {
    let mut found = [-1; N];
    for (found, call) in found.iter_mut().zip(calls) {
        let (seen, err, _) = node
            .client
            .exec(id, &["probe", "errno", &call.to_string()])
            .await;
        *found = seen
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{call}: {seen} {err}"));
    }
    found
}

/// Allows what the loader, busybox and `probe` need, and nothing that came after `openat2`.
const OLD_PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [{ "action": "SCMP_ACT_ALLOW", "names": [
        "access", "arch_prctl", "brk", "clock_nanosleep", "clone", "close", "execve", "exit",
        "exit_group", "faccessat", "fcntl", "fstat", "futex", "getcwd", "getegid", "geteuid",
        "getgid", "getpid", "getppid", "getrandom", "getuid", "ioctl", "lseek", "lstat", "madvise",
        "mmap", "mprotect", "mremap", "munmap", "nanosleep", "newfstatat", "open", "openat",
        "openat2", "poll", "ppoll", "prctl", "pread64", "prlimit64", "read", "readlink",
        "readlinkat", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn",
        "sched_getaffinity", "set_robust_list", "set_tid_address", "sigaltstack", "stat", "statx",
        "sysinfo", "uname", "wait4", "write", "writev"
    ] }]
}"#;

/// Several errnos on top of "allowed".
const ERRNO_PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        { "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
        { "names": ["getpriority", "umount2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 },
        { "names": ["swapon"], "action": "SCMP_ACT_ERRNO" }
    ]
}"#;

#[tokio::test]
async fn a_local_seccomp_profile_gives_its_errnos_to_every_process_for_good() {
    let node = Stand::start().await;
    let image = probe_image(&node).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("errnos.json");
    std::fs::write(&file, ERRNO_PROFILE).unwrap();
    let config = node.pod_config("seccomp");
    let pod = node.client.run_pod(&config).await;
    let calls = [
        libc::SYS_sethostname,
        libc::SYS_getpriority,
        libc::SYS_umount2,
        libc::SYS_swapon,
        libc::SYS_getpid,
    ];
    let wanted = [28, 13, 13, 1, 0];
    for no_new_privs in [false, true] {
        let mut container = node.container(&format!("c{no_new_privs}"), &["sleep", "1000"]);
        container.image.as_mut().unwrap().image.clone_from(&image);
        let context = security(&mut container);
        context.no_new_privs = no_new_privs;
        context.seccomp = Some(profile(ProfileType::Localhost, &file.to_string_lossy()));
        let id = node.client.create(&pod, &container, &config).await.unwrap();
        // What was asked for at creation holds, whatever becomes of the file.
        std::fs::remove_file(&file).unwrap();
        node.client.start(&id).await.unwrap();
        assert_eq!(errnos(&node, &id, calls).await, wanted);
        let status = node.client.exec(&id, &["cat", "/proc/1/status"]).await.0;
        assert_eq!(fields(&status)["Seccomp"], "2");
        std::fs::write(&file, ERRNO_PROFILE).unwrap();
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn system_calls_newer_than_a_profile_do_not_exist_for_it() {
    let node = Stand::start().await;
    let image = probe_image(&node).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.json");
    std::fs::write(&file, OLD_PROFILE).unwrap();
    let config = node.pod_config("newer");
    let pod = node.client.run_pod(&config).await;
    let local = profile(ProfileType::Localhost, &file.to_string_lossy());
    let default = profile(ProfileType::RuntimeDefault, "");
    const UNKNOWN: i64 = 1000;
    let cases = [
        // faccessat2 came after openat2; swapon before, and is not listed.
        (
            local,
            [libc::SYS_swapon, libc::SYS_faccessat2, UNKNOWN],
            [1, 38, 38],
        ),
        (
            default,
            [libc::SYS_swapon, libc::SYS_open_by_handle_at, UNKNOWN],
            [1, 1, 38],
        ),
    ];
    for (number, (profile, calls, wanted)) in cases.into_iter().enumerate() {
        let mut container = node.sleeper(&format!("c{number}"));
        container.image.as_mut().unwrap().image.clone_from(&image);
        let context = security(&mut container);
        // The filter is the last thing that is set up: it need not allow the set-up.
        context.no_new_privs = true;
        context.seccomp = Some(profile);
        let id = node.client.run(&pod, &container, &config).await;
        assert_eq!(errnos(&node, &id, calls).await, wanted, "case {number}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn unconfined_and_privileged_containers_have_no_filter_and_bad_profiles_are_named() {
    let node = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (pod, config) = privileged_pod(&node, "filters").await;
    let good = folder.path().join("good.json");
    std::fs::write(&good, ERRNO_PROFILE).unwrap();
    let local = |path: &Path| Some(profile(ProfileType::Localhost, &path.to_string_lossy()));
    let cases = [
        (None, false, "0"),
        (Some(profile(ProfileType::Unconfined, "")), false, "0"),
        (Some(profile(ProfileType::RuntimeDefault, "")), false, "2"),
        (local(&good), false, "2"),
        (local(&good), true, "0"),
    ];
    for (number, (seccomp, privileged, wanted)) in cases.into_iter().enumerate() {
        let mut container = node.container(&format!("c{number}"), &["cat", "/proc/self/status"]);
        let context = security(&mut container);
        context.seccomp = seccomp;
        context.privileged = privileged;
        let (status, _) = node.run_to_end(&pod, &container, &config).await;
        assert_eq!(fields(&status)["Seccomp"], wanted, "case {number}");
    }

    let notify = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mount"], "action": "SCMP_ACT_NOTIFY" } ] }"#;
    for (name, text, said) in [
        ("notify.json", notify, "SCMP_ACT_NOTIFY"),
        ("broken.json", "{", "broken.json"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
        let mut container = node.sleeper(name);
        security(&mut container).seccomp = local(&folder.path().join(name));
        let error = node
            .client
            .create(&pod, &container, &config)
            .await
            .unwrap_err();
        assert!(error.message().contains(said), "{error}");
    }
    for path in [folder.path().join("missing.json"), "/dev/zero".into()] {
        let mut container = node.sleeper("wrong");
        security(&mut container).seccomp = local(&path);
        let error = node
            .client
            .create(&pod, &container, &config)
            .await
            .unwrap_err();
        assert!(
            error.message().contains(&*path.to_string_lossy()),
            "{error}"
        );
        assert_ne!(error.code(), Code::NotFound, "the pod is there: {error}");
    }

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn masked_and_read_only_paths_hold_in_volumes_too() {
    let node = Stand::start().await;
    let image = node
        .image("masks", |image| {
            image.file("secret/file", 0o644, b"secret");
            image.file("key", 0o644, b"secret");
            image.symlink("link", "key2");
            image.file("key2", 0o644, b"secret")
        })
        .await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    for folder in ["hidden", "kept", "open"] {
        std::fs::create_dir(volume.path().join(folder)).unwrap();
        std::fs::write(volume.path().join(folder).join("file"), "secret").unwrap();
    }
    let (pod, config) = privileged_pod(&node, "masks").await;
    let look = "cat /secret/file /key /key2 /v/hidden/file 2>/dev/null; ls -A /secret /v/hidden; \
                for f in /v/kept/new /v/open/new /bin/new; do \
                echo x 2>/dev/null >$f && echo wrote $f; done 2>/dev/null; \
                cat /v/kept/file; /bin/true && echo runs";
    for (privileged, wanted) in [
        (
            false,
            "/secret:\n\n/v/hidden:\nwrote /v/open/new\nsecretruns\n",
        ),
        (
            true,
            "secretsecretsecretsecret/secret:\nfile\n\n/v/hidden:\nfile\nwrote /v/kept/new\n\
             wrote /v/open/new\nwrote /bin/new\nsecretruns\n",
        ),
    ] {
        let mut container = node.container(&format!("c{privileged}"), &["sleep", "1000"]);
        container.image.as_mut().unwrap().image.clone_from(&image);
        container.mounts = vec![bind(volume.path(), "/v")];
        let context = security(&mut container);
        context.privileged = privileged;
        context.masked_paths = words(&["/secret", "/key", "/link", "/v/hidden", "/missing/file"]);
        context.readonly_paths = words(&["/v/kept", "/bin", "/missing"]);
        let id = node.client.run(&pod, &container, &config).await;
        let (seen, err, _) = node.client.exec(&id, &["sh", "-c", look]).await;
        assert_eq!(seen, wanted, "{err}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_read_only_root_leaves_volumes_and_memory_writable() {
    let node = Stand::start().await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = node.pod_config("readonly");
    let pod = node.client.run_pod(&config).await;
    let script = "for f in /new /etc/new /tmp/new /etc/hosts /dev/shm/new /dev/new /v/new; do \
                  echo x 2>/dev/null >$f && echo $f; done 2>/dev/null; true";
    let mut container = node.container("main", &["sh", "-c", script]);
    container.mounts = vec![bind(volume.path(), "/v")];
    security(&mut container).readonly_rootfs = true;
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "/dev/shm/new\n/dev/new\n/v/new\n");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_privileged_container_has_the_nodes_devices_and_nothing_masked() {
    let node = Stand::start().await;
    let (pod, config) = privileged_pod(&node, "privileged").await;
    let look = "test -c /dev/kmsg && echo devices; test -r /dev/kmsg && echo read; \
                mount | grep -q ' /sys type sysfs (rw' && echo sys; \
                mount | grep -q ' /proc/' || echo unmasked";
    let script = ["sh", "-c", look];
    for (privileged, wanted) in [(true, "devices\nread\nsys\nunmasked\n"), (false, "")] {
        let mut container = node.container(&format!("c{privileged}"), &script);
        let context = security(&mut container);
        context.privileged = privileged;
        context.masked_paths = words(&["/proc/keys"]);
        let (seen, _) = node.run_to_end(&pod, &container, &config).await;
        assert_eq!(seen, wanted);
    }
    let plain = node.pod_config("plain");
    let plain_pod = node.client.run_pod(&plain).await;
    let mut container = node.sleeper("main");
    security(&mut container).privileged = true;
    let error = node.refusal(&plain_pod, &container, &plain).await;
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");

    node.client.remove_pod(&plain_pod).await;
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

fn has_apparmor() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|it| it.starts_with(b"Y"))
}

#[tokio::test]
async fn labels_that_the_kernel_can_not_give_are_refused_and_the_defaults_pass() {
    let node = Stand::start().await;
    let config = node.pod_config("labels");
    let pod = node.client.run_pod(&config).await;
    for kind in [ProfileType::RuntimeDefault, ProfileType::Unconfined] {
        let mut container = node.container(kind.as_str_name(), &["true"]);
        let context = security(&mut container);
        context.apparmor = Some(profile(kind, ""));
        context.selinux_options = Some(SeLinuxOption::default());
        assert_eq!(node.run_to_end(&pod, &container, &config).await.1, 0);
    }
    let label = SeLinuxOption {
        level: "s0:c1,c2".into(),
        ..Default::default()
    };
    let local = profile(ProfileType::Localhost, "no-such-profile");
    let mut refused = Vec::new();
    let mut container = node.sleeper("selinux");
    security(&mut container).selinux_options = Some(label.clone());
    refused.push((node.refusal(&pod, &container, &config).await, "SELinux"));
    let mut wrong = node.pod_config("selinux");
    pod_security(&mut wrong).selinux_options = Some(label);
    refused.push((pod_refusal(&node, wrong).await, "SELinux"));
    let mut container = node.sleeper("apparmor");
    security(&mut container).apparmor = Some(local.clone());
    refused.push((
        node.refusal(&pod, &container, &config).await,
        "no-such-profile",
    ));
    let (privileged, privileged_config) = privileged_pod(&node, "privileged").await;
    security(&mut container).privileged = true;
    let error = node
        .refusal(&privileged, &container, &privileged_config)
        .await;
    refused.push((error, "no-such-profile"));
    node.client.remove_pod(&privileged).await;
    let mut wrong = node.pod_config("apparmor");
    pod_security(&mut wrong).apparmor = Some(local);
    refused.push((pod_refusal(&node, wrong).await, "no-such-profile"));
    for (error, named) in refused {
        assert!(error.message().contains(named), "{error}");
        let code = if has_apparmor() && named != "SELinux" {
            Code::InvalidArgument
        } else {
            Code::FailedPrecondition
        };
        assert_eq!(error.code(), code, "{error}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

async fn pod_refusal(node: &Stand, config: PodSandboxConfig) -> tonic::Status {
    let request = RunPodSandboxRequest {
        config: Some(config),
        ..Default::default()
    };
    let reply = node.client.runtime().run_pod_sandbox(request).await;
    reply.unwrap_err()
}

#[tokio::test]
async fn sysctls_that_lead_out_of_the_pod_are_refused_by_name() {
    let node = Stand::start().await;
    let panic = || std::fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    let before = panic();
    for name in [
        "net/../kernel/panic",
        "net/ipv4/../../kernel/panic",
        "net..kernel.panic",
        "net./kernel/panic",
        "/kernel/panic",
        "net.",
        "kernel.panic",
        "kernel.hostname",
        "kernel.shm/../panic",
        "fs.file-max",
        "",
    ] {
        let mut config = node.pod_config("bad");
        let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
        sysctls.insert(name.into(), "77".into());
        let error = pod_refusal(&node, config).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{name}: {error}");
        assert!(error.message().contains(name), "{error}");
    }
    // In the node's namespaces even a namespaced one is the node's.
    let mut config = node.pod_config("host");
    config.hostname = String::new();
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    pod_security(&mut config).namespace_options = Some(options);
    for name in ["net.ipv4.ip_forward", "kernel.shm_rmid_forced"] {
        let mut config = config.clone();
        let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
        sysctls.insert(name.into(), "1".into());
        let error = pod_refusal(&node, config).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{name}: {error}");
        assert!(error.message().contains(name), "{error}");
    }
    assert_eq!(panic(), before);
    node.assert_clean().await;
}

#[tokio::test]
async fn the_files_of_a_pod_with_mapped_ids_belong_to_its_root() {
    let node = Stand::start().await;
    let mapping = vec![IdMapping {
        host_id: 300_000,
        container_id: 0,
        length: 65_536,
    }];
    let mapped = UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: mapping.clone(),
        gids: mapping,
    };
    let mut config = node.pod_config("mapped");
    let options = pod_security(&mut config).namespace_options.as_mut();
    options.unwrap().userns_options = Some(mapped.clone());
    let pod = node.client.run_pod(&config).await;
    let script = "cd /etc; stat -c '%n %u:%g %a' hosts hostname resolv.conf; \
                  for f in hosts hostname resolv.conf; do echo '# x' >>$f || exit 1; done; \
                  ls -A /masked; cat /proc/1/status";
    let image = node
        .image("mapped", |image| image.file("masked/file", 0o644, b""))
        .await;
    let mut container = node.container("main", &["sh", "-c", script]);
    container.image.as_mut().unwrap().image = image;
    namespaces(&mut container).userns_options = Some(mapped);
    let context = security(&mut container);
    context.masked_paths = words(&["/masked", "/proc/keys"]);
    context.readonly_paths = words(&["/proc/sys"]);
    context.seccomp = Some(profile(ProfileType::RuntimeDefault, ""));
    let (seen, code) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(code, 0, "{seen}");
    let files = "hosts 0:0 644\nhostname 0:0 644\nresolv.conf 0:0 644\n";
    let status = seen.strip_prefix(files).unwrap_or_else(|| panic!("{seen}"));
    assert!(status.starts_with("Name:"), "{status}");
    assert_eq!(capability_sets(status), [0, DEFAULT, DEFAULT, DEFAULT, 0]);
    assert_eq!(fields(status)["Seccomp"], "2");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
