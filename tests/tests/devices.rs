//! Device nodes and what may be done with them.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use joey_proto::cri::*;
use joey_tests::{Stand, namespaces, pod_security};
use tonic::Code;

/// Opens a file for reading, then for writing.
fn open(path: &str) -> String {
    format!(
        "(exec 3<{path}) 2>&1 | sed 's/.*: //'; echo read; (exec 3>{path}) 2>&1 | sed 's/.*: //'; \
         echo write"
    )
}

fn device(host: &str, container: &str, permissions: &str) -> Device {
    Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
    }
}

#[tokio::test]
async fn devices_are_there_with_their_permissions_and_no_others() {
    let node = Stand::start().await;
    let config = node.pod_config("devices");
    let pod = node.client.run_pod(&config).await;
    let fuse = rustix::fs::stat("/dev/fuse").unwrap().st_rdev;
    let (major, minor) = (rustix::fs::major(fuse), rustix::fs::minor(fuse));
    let refused = "Operation not permitted\n";
    let cases = [
        ("rw", "/dev/fuse", "read\nwrite\n".to_owned()),
        ("r", "/dev/mine", format!("read\n{refused}write\n")),
        ("w", "/dev/deep/mine", format!("{refused}read\nwrite\n")),
        ("rwm", "/opt/mine", "read\nwrite\n".to_owned()),
    ];
    for (permissions, path, wanted) in cases {
        let mut container = node.container(permissions, &["sh", "-c", &open(path)]);
        container.devices = vec![device("/dev/fuse", path, permissions)];
        let (seen, _) = node.run_to_end(&pod, &container, &config).await;
        assert_eq!(seen, wanted, "{permissions}");
    }
    let script = format!(
        "ls /dev/fuse 2>/dev/null; mknod /dev/fuse c {major} {minor} && {}",
        open("/dev/fuse")
    );
    let container = node.container("none", &["sh", "-c", &script]);
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, format!("{refused}read\n{refused}write\n"));

    // A folder stands for every device in it.
    let mut container = node.container("folder", &["ls", "/dev/all"]);
    container.devices = vec![device("/dev/net", "/dev/all", "")];
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "tun\n");

    for (wrong, named) in [
        (
            device("/dev/no-such-device", "/dev/x", "r"),
            "/dev/no-such-device",
        ),
        (device("/etc/passwd", "/dev/x", "r"), "/etc/passwd"),
        (device("/dev/fuse", "/dev/x", "rx"), "'x'"),
        (device("", "/dev/x", "r"), "host_path"),
    ] {
        let mut container = node.sleeper("wrong");
        container.devices = vec![wrong];
        let error = node
            .client
            .create(&pod, &container, &config)
            .await
            .unwrap_err();
        assert!(error.message().contains(named), "{error}");
        assert_ne!(error.code(), Code::NotFound, "{error}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn devices_of_a_pod_with_mapped_ids_are_the_ones_asked_for() {
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
    // The name inside is another device's outside.
    let script = "stat -c %t:%T /dev/full2 /dev/random; head -c 1 /dev/random | wc -c";
    let mut container = node.container("main", &["sh", "-c", script]);
    namespaces(&mut container).userns_options = Some(mapped);
    container.devices = vec![
        device("/dev/full", "/dev/full2", "rw"),
        device("/dev/zero", "/dev/random", "rw"),
    ];
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "1:7\n1:5\n1\n");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

/// A file in a folder that the whole node watches; gone with the test.
struct Described(PathBuf);

impl Described {
    fn new(name: &str, text: &str) -> Self {
        let folder = Path::new("/var/run/cdi");
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test]
async fn described_devices_bring_their_edits() {
    let node = Stand::start().await;
    let config = node.pod_config("cdi");
    let pod = node.client.run_pod(&config).await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(volume.path().join("driver"), "driver").unwrap();
    let kind = format!("joey{}.test/card", std::process::id());
    let spec = serde_json::json!({
        "cdiVersion": "0.6.0",
        "kind": kind,
        "containerEdits": { "env": ["ALL_CARDS=yes"] },
        "devices": [
            { "name": "0", "containerEdits": {
                "env": ["CARD=0"],
                "deviceNodes": [
                    { "path": "/dev/card0", "hostPath": "/dev/fuse", "permissions": "r" }
                ],
                "mounts": [{
                    "hostPath": volume.path(), "containerPath": "/driver", "options": ["ro"],
                }],
                "additionalGids": [4321],
                "hooks": [{
                    "hookName": "createContainer", "path": "/bin/sh",
                    "args": ["sh", "-c", format!("touch {}/hooked", volume.path().display())],
                }],
            } },
            { "name": "1", "containerEdits": { "env": ["SECOND=1"] } },
        ],
    });
    let file = format!("joey-{}.json", std::process::id());
    let described = Described::new(&file, &spec.to_string());
    let _broken = Described::new(&format!("broken-{file}"), "{");
    let script = format!(
        "{}; echo $ALL_CARDS $CARD $SECOND; cat /driver/driver; echo; id -G; \
         echo x 2>/dev/null >/driver/new || echo readonly",
        open("/dev/card0")
    );
    let mut container = node.container("main", &["sh", "-c", &script]);
    container.cdi_devices = vec![CdiDevice {
        name: format!("{kind}=0"),
    }];
    let annotated = ("cdi.k8s.io/second".to_owned(), format!("{kind}=1"));
    container.annotations.extend([annotated]);
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(
        seen,
        "read\nOperation not permitted\nwrite\nyes 0 1\ndriver\n0 4321\nreadonly\n"
    );
    assert!(volume.path().join("hooked").exists());

    for (name, code) in [
        (format!("{kind}=7"), Code::InvalidArgument),
        ("card=0".to_owned(), Code::InvalidArgument),
    ] {
        let mut container = node.sleeper("unknown");
        container.cdi_devices = vec![CdiDevice { name: name.clone() }];
        let error = node
            .client
            .create(&pod, &container, &config)
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(&name), "{error}");
    }
    // What is added later is seen, what is taken away is missed.
    drop(described);
    container.metadata.as_mut().unwrap().name = "late".into();
    let error = node
        .client
        .create(&pod, &container, &config)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
