//! A node of its own for each test: network and mount namespaces that end with the test.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

pub mod cni;

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use joey_network::{
    AttachRequest, Attachment, DetachRequest, Mode, NetworkConfig, PortMapping, Protocol, netns,
};
use rustix::mount::MountPropagationFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The node's address towards the world, and the world's.
pub const NODE: &str = "192.0.2.1";
pub const WORLD: &str = "192.0.2.2";
pub const NODE6: &str = "2001:db8::1";
pub const WORLD6: &str = "2001:db8::2";

pub struct Node {
    pub folder: tempfile::TempDir,
}

/// Runs `test` on a fresh node.
pub fn on_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: descriptors stay shared with the other threads.
        let new =
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) };
        new.expect("the right to make namespaces");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        let node = Node {
            folder: tempfile::tempdir().unwrap(),
        };
        node.connect_to_world();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(node));
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command on the node; its output.
pub fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

impl Node {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect_to_world(&self) {
        let world = self.netns("world");
        run("ip link set lo up");
        run("ip link add ext0 type veth peer name ext1");
        run(&format!("ip link set ext1 netns {}", self.pid_of(&world)));
        run(&format!(
            "ip addr add {NODE}/24 dev ext0 && ip link set ext0 up"
        ));
        run(&format!(
            "ip -6 addr add {NODE6}/64 dev ext0 nodad && ip route add default via {WORLD}"
        ));
        let inside = format!("nsenter --net={}", world.display());
        run(&format!(
            "{inside} ip addr add {WORLD}/24 dev ext1 && {inside} ip link set ext1 up"
        ));
        run(&format!(
            "{inside} ip -6 addr add {WORLD6}/64 dev ext1 nodad"
        ));
    }

    /// `ip link set … netns` wants a name or a process: the namespace is bound where names are.
    fn pid_of(&self, path: &Path) -> String {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::create_dir_all("/run/netns").unwrap();
        rustix::mount::mount(
            "none",
            "/run/netns",
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let link = Path::new("/run/netns").join(&name);
        let target = File::open(path).unwrap();
        netns::pin(target.as_fd(), &link).unwrap();
        name
    }

    /// Makes a namespace.
    pub fn netns(&self, name: &str) -> PathBuf {
        let path = self.path("netns").join(name);
        netns::make(&path).unwrap();
        path
    }

    pub fn world(&self) -> PathBuf {
        self.path("netns/world")
    }

    pub fn config(&self) -> NetworkConfig {
        NetworkConfig {
            mode: Mode::Builtin,
            state_dir: self.path("state"),
            run_dir: self.path("run"),
            cni_conf_dir: self.path("net.d"),
            subnets: vec![
                "10.88.0.0/16".parse().unwrap(),
                "fd00:88::/64".parse().unwrap(),
            ],
            ..NetworkConfig::default()
        }
    }

    /// A request for a pod with a new namespace.
    pub fn pod(&self, id: &str) -> AttachRequest {
        AttachRequest {
            pod_id: id.to_owned(),
            pod_name: format!("name-{id}"),
            pod_namespace: "default".to_owned(),
            pod_uid: format!("uid-{id}"),
            netns: self.netns(id),
            ..AttachRequest::default()
        }
    }
}

pub fn detach_request(pod: &AttachRequest, attachment: &Attachment) -> DetachRequest {
    DetachRequest {
        pod_id: pod.pod_id.clone(),
        netns: Some(pod.netns.clone()),
        attachment: Some(attachment.clone()),
    }
}

pub fn port(protocol: Protocol, host_port: u16, container_port: u16) -> PortMapping {
    PortMapping {
        protocol,
        container_port,
        host_port,
        host_ip: None,
    }
}

/// Runs `work` inside a namespace.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let target = File::open(path).unwrap();
            move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Serves TCP in a namespace: each caller is told the address it is seen from.
pub fn serve_tcp(path: &Path, port: u16) {
    let listener = inside(path, || TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            drop(stream.write_all(peer.to_string().as_bytes()));
        }
    });
}

/// The same for UDP.
pub fn serve_udp(path: &Path, port: u16) {
    let socket = inside(path, || UdpSocket::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer));
        }
    });
}

/// Calls a server; the address it saw.
pub fn call_tcp(address: IpAddr, port: u16) -> Result<IpAddr, std::io::Error> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.parse().map_err(std::io::Error::other)
}

pub fn call_udp(address: IpAddr, port: u16) -> Result<IpAddr, std::io::Error> {
    let any = if address.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect((address, port))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    text.parse().map_err(std::io::Error::other)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Tries until it holds, at most five seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..100 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within five seconds");
}
