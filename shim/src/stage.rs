//! The final process stage, the same for a container's init and for an exec: from a privileged
//! process in the container's namespaces to the container's program.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use joey_proto::shim::{Process, Rlimit};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::{set_keep_capabilities, set_no_new_privs};

use crate::error::{Failure, Result, Step};
use crate::inside::{self, CgroupTrees};
use crate::masks::{self, Masks};
use crate::privileges::{self, Sets};
use crate::report::{Report, Reporter};
use crate::rootfs::Volume;
use crate::sys;
use crate::user::{self, Resolved};

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_UMASK: u32 = 0o022;

/// What only a container's init does.
#[derive(Debug)]
pub struct Init {
    /// Mounts to attach, in this order.
    pub volumes: Vec<Volume>,
    /// The cgroups to show.
    pub cgroups: Option<CgroupTrees>,
    /// What is hidden of it all.
    pub masks: Masks,
    /// The root is made read-only.
    pub read_only: bool,
}

/// Everything the stage needs; made before the process enters the container.
#[derive(Debug)]
pub struct Stage {
    /// What to run.
    pub process: Process,
    /// Where the outcome goes.
    pub reporter: Reporter,
    /// For a container's init.
    pub init: Option<Init>,
    /// The size of the terminal, columns and rows.
    pub size: Option<(u16, u16)>,
}

impl Stage {
    /// Becomes the container's program; returns only on failure.
    pub fn run(&self) -> Result<Infallible> {
        let process = &self.process;
        self.close_others();
        if let Some(init) = &self.init {
            let null = masks::open_null()?;
            init.volumes.iter().try_for_each(inside::attach_volume)?;
            if let Some(cgroups) = &init.cgroups {
                inside::attach_cgroups(cgroups).step("mount the container's cgroups")?;
            }
            init.masks.apply(&null)?;
        }
        if process.terminal {
            self.open_terminal()?;
        }
        if self.init.as_ref().is_some_and(|init| init.read_only) {
            inside::read_only_root()?;
        }
        let user = user::resolve(&process.user.clone().unwrap_or_default())?;
        let program = Program::new(process, &user)?;
        let sets = Sets::parse(process.capabilities.as_ref())?;
        for limit in &process.rlimits {
            set_rlimit(limit)?;
        }
        own_stdio(user.uid);
        let entered = enter_cwd(&process.cwd);
        new_session_keyring();
        self.set_labels()?;
        let umask = if process.umask == 0 {
            DEFAULT_UMASK
        } else {
            process.umask
        };
        rustix::process::umask(Mode::from_raw_mode(umask));
        switch_user(&user, &sets)?;
        if entered.is_err() {
            // A folder that only this user may enter, as on NFS with squashed root.
            enter_cwd(&process.cwd)?;
        }
        verify_cwd()?;
        self.reporter.send(&Report::User {
            pid: 0,
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
        });
        sys::reset_signals();
        sys::cloexec_all();
        if process.no_new_privileges {
            set_no_new_privs(true).step("set no_new_privs")?;
            sets.apply()?;
            self.load_seccomp()?;
        } else {
            // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go.
            self.load_seccomp()?;
            sets.apply()?;
        }
        Err(program.execute())
    }

    /// From here on paths are the container's: none may lead through a descriptor that a worker or
    /// libcontainer holds, such as that of a cgroup (CVE-2024-21626). Close-on-exec comes too late
    /// for the program's own path.
    fn close_others(&self) {
        let mut keep = vec![self.reporter.fd().as_raw_fd()];
        if let Some(init) = &self.init {
            let volumes = init.volumes.iter().map(|volume| &volume.tree);
            let cgroups = init.cgroups.iter().flat_map(|cgroups| &cgroups.trees);
            let trees = volumes.chain(cgroups.map(|(_, tree)| tree));
            keep.extend(trees.map(AsRawFd::as_raw_fd));
        }
        sys::close_all_but(&mut keep);
    }

    /// Tells the shim why the stage ended.
    pub fn fail(&self, failure: Failure) {
        self.reporter.send(&Report::Failed(failure));
    }

    fn open_terminal(&self) -> Result<()> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = openat(CWD, "/dev/pts/ptmx", flags, Mode::empty()).step("open a terminal")?;
        rustix::pty::unlockpt(&master).step("unlock the terminal")?;
        let slave = sys::pty_slave(master.as_fd()).step("open the terminal's other end")?;
        if let Some((columns, rows)) = self.size {
            sys::resize(master.as_fd(), columns, rows).step("set the terminal's size")?;
        }
        if self.init.is_some() {
            inside::mount_console(&slave)?;
        }
        self.reporter.send_fds(&Report::Fds, &[master.as_fd()])?;
        use_as_stdio(&slave)?;
        rustix::process::ioctl_tiocsctty(&slave).step("take the terminal")
    }

    fn load_seccomp(&self) -> Result<()> {
        for program in &self.process.seccomp {
            sys::seccomp_load(program, self.process.seccomp_flags)
                .step("load the seccomp filter")?;
        }
        Ok(())
    }

    fn set_labels(&self) -> Result<()> {
        let Process {
            apparmor_profile,
            selinux_label,
            ..
        } = &self.process;
        if !apparmor_profile.is_empty() {
            let text = format!("exec {apparmor_profile}");
            write_label("thread-self/attr/apparmor/exec", &text)
                .or_else(|_| write_label("thread-self/attr/exec", &text))
                .step_with(|| format!("apply the AppArmor profile {apparmor_profile}"))?;
        }
        if !selinux_label.is_empty() {
            write_label("thread-self/attr/exec", selinux_label)
                .step_with(|| format!("apply the SELinux label {selinux_label}"))?;
        }
        Ok(())
    }
}

fn write_label(path: &str, text: &str) -> Result<()> {
    let file = inside::open_proc(path, OFlags::WRONLY)?;
    std::fs::File::from(file).write_all(text.as_bytes())?;
    Ok(())
}

/// Makes a descriptor the standard three.
pub fn use_as_stdio(fd: &OwnedFd) -> Result<()> {
    rustix::stdio::dup2_stdin(fd).step("set up stdin")?;
    rustix::stdio::dup2_stdout(fd).step("set up stdout")?;
    rustix::stdio::dup2_stderr(fd).step("set up stderr")
}

/// Lets the user reopen its pipes and terminal by name; not everything can be owned.
fn own_stdio(uid: u32) {
    for fd in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let Ok(stat) = rustix::fs::fstat(fd) else {
            continue;
        };
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if kind.is_fifo() || kind.is_socket() || rustix::termios::isatty(fd) {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None).ok();
        }
    }
}

fn enter_cwd(cwd: &str) -> Result<()> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    match rustix::process::chdir(cwd) {
        Err(rustix::io::Errno::NOENT) => drop(inside::make_dirs(cwd)?),
        other => return other.step_with(|| format!("enter the working directory {cwd}")),
    }
    rustix::process::chdir(cwd).step_with(|| format!("enter the working directory {cwd}"))
}

/// The working directory must be inside the root (CVE-2024-21626).
fn verify_cwd() -> Result<()> {
    let cwd = rustix::process::getcwd(Vec::new()).step("find the working directory")?;
    if cwd.as_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(Failure::with_errno(
        libc::EPERM,
        "the working directory is outside of the container",
    ))
}

/// Keys of the daemon's session are not the container's.
fn new_session_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring. A kernel without keys has none to share.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
}

fn switch_user(user: &Resolved, sets: &Sets) -> Result<()> {
    sets.limit_bounding()?;
    let groups: Vec<_> = user
        .groups
        .iter()
        .map(|&gid| rustix::fs::Gid::from_raw(gid))
        .collect();
    rustix::thread::set_thread_groups(&groups).step("set the supplementary groups")?;
    set_keep_capabilities(true).step("keep the capabilities")?;
    let gid = rustix::fs::Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .step_with(|| format!("set the group {}", user.gid))?;
    let uid = rustix::fs::Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .step_with(|| format!("set the user {}", user.uid))?;
    set_keep_capabilities(false).step("stop keeping the capabilities")?;
    privileges::raise_effective()
}

/// The number of an rlimit.
pub fn rlimit_number(limit: &Rlimit) -> Result<u32> {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    limit
        .r#type
        .strip_prefix("RLIMIT_")
        .and_then(|name| NAMES.iter().position(|other| *other == name))
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| {
            Failure::with_errno(libc::EINVAL, format!("unknown rlimit {:?}", limit.r#type))
        })
}

/// The worker has raised the hard limit as far as it may; a limit above that stays at it.
fn set_rlimit(limit: &Rlimit) -> Result<()> {
    let number = rlimit_number(limit)?;
    match sys::set_rlimit(number, limit.soft, limit.hard) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let (_, hard) = sys::get_rlimit(number)?;
            sys::set_rlimit(number, limit.soft.min(hard), hard)
        }
        other => other,
    }
    .step_with(|| format!("set {}", limit.r#type))
}

/// The program, its arguments and environment, ready for execve.
struct Program {
    args: Vec<CString>,
    env: Vec<CString>,
    candidates: Vec<CString>,
    searched: bool,
}

fn c_string(bytes: Vec<u8>, what: &str) -> Result<CString> {
    CString::new(bytes)
        .map_err(|_| Failure::with_errno(libc::EINVAL, format!("{what} holds a NUL byte")))
}

fn find_env<'a>(env: &'a [Vec<u8>], key: &[u8]) -> Option<&'a [u8]> {
    env.iter()
        .rev()
        .find_map(|entry| entry.strip_prefix(key)?.strip_prefix(b"="))
}

impl Program {
    fn new(process: &Process, user: &Resolved) -> Result<Self> {
        let Some(name) = process.args.first().filter(|name| !name.is_empty()) else {
            return Err(Failure::with_errno(libc::EINVAL, "no command specified"));
        };
        let mut env = process.env.clone();
        if find_env(&env, b"HOME").is_none_or(<[u8]>::is_empty) {
            env.retain(|entry| !entry.starts_with(b"HOME="));
            env.push([b"HOME=", user.home.as_bytes()].concat());
        }
        let searched = !name.contains(&b'/');
        let candidates = if searched {
            let path = find_env(&env, b"PATH").unwrap_or(DEFAULT_PATH);
            path.split(|&byte| byte == b':')
                .filter(|dir| dir.starts_with(b"/"))
                .map(|dir| c_string([dir, b"/", name].concat(), "the command"))
                .collect::<Result<Vec<_>>>()?
        } else {
            vec![c_string(name.clone(), "the command")?]
        };
        let args = process
            .args
            .iter()
            .map(|arg| c_string(arg.clone(), "an argument"))
            .collect::<Result<Vec<_>>>()?;
        let env = env
            .into_iter()
            .map(|entry| c_string(entry, "the environment"))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            args,
            env,
            candidates,
            searched,
        })
    }

    /// Tries every candidate, as a shell does; returns why none could be executed.
    fn execute(&self) -> Failure {
        let mut denied = false;
        for candidate in &self.candidates {
            let error = sys::execve(candidate, &self.args, &self.env);
            match error.raw_os_error() {
                Some(libc::EACCES) => denied = true,
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                errno => {
                    let Failure { message, .. } = Failure::from(error);
                    return self.failure(errno.unwrap_or(0), &message);
                }
            }
        }
        if denied {
            return self.failure(libc::EACCES, "permission denied");
        }
        if self.searched {
            return self.failure(libc::ENOENT, "executable file not found in $PATH");
        }
        let path = String::from_utf8_lossy(self.args[0].as_bytes()).into_owned();
        self.failure(
            libc::ENOENT,
            &format!("stat {path}: no such file or directory"),
        )
    }

    fn failure(&self, errno: i32, why: &str) -> Failure {
        let name = String::from_utf8_lossy(self.args[0].as_bytes()).into_owned();
        Failure::with_errno(errno, format!("exec: {name:?}: {why}"))
    }
}

/// The stage as libcontainer's executor.
#[derive(Debug, Clone)]
pub struct Final(pub Rc<Stage>);

impl Executor for Final {
    fn exec(&self, _: &Spec) -> std::result::Result<(), ExecutorError> {
        let failure = match self.0.run() {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let error = ExecutorError::Other(failure.to_string());
        self.0.fail(failure);
        Err(error)
    }

    fn validate(&self, _: &Spec) -> std::result::Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> std::result::Result<(), ExecutorSetEnvsError> {
        // The environment is the execve's own.
        Ok(())
    }
}
