//! Profiles: the JSON that moby, containerd and the OCI specification share.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::arch::Arch;
use crate::text::{FilterText, SyscallText, Text};

const RUNTIME_DEFAULT: &str = include_str!("runtime_default.json");
/// The usual default profile has 20 KiB.
const MAX_BYTES: usize = 1 << 20;
/// Names, over all rules.
const MAX_NAMES: usize = 50_000;
/// The kernel's own limit of what SECCOMP_RET_DATA gives as an errno.
const MAX_ERRNO: u32 = 4095;

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Far larger than any sound profile.
    #[error("the seccomp profile has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// Not the JSON of a profile.
    #[error("parse the seccomp profile")]
    Json(#[from] serde_json::Error),
    /// More names than system calls many times over.
    #[error("the seccomp profile names {0} system calls, more than {MAX_NAMES}")]
    TooManyNames(usize),
    /// Something is no action.
    #[error("unknown seccomp action {0:?}")]
    UnknownAction(String),
    /// Needs a listener that nobody runs.
    #[error("seccomp action SCMP_ACT_NOTIFY is not supported: there is no agent to notify")]
    Notify,
    /// Something is no comparison.
    #[error("unknown seccomp comparison {0:?}")]
    UnknownOperator(String),
    /// Something is no architecture.
    #[error("unknown seccomp architecture {0:?}")]
    UnknownArchitecture(String),
    /// Something is no flag.
    #[error("unknown seccomp filter flag {0:?}")]
    UnknownFlag(String),
    /// A system call has six arguments.
    #[error("system call {name:?} has no argument with index {index}")]
    BadArgument {
        /// The system call.
        name: String,
        /// Counted from 0.
        index: u32,
    },
    /// The kernel would give another one.
    #[error("errno {0} is above 4095")]
    BadErrno(u32),
    /// Not `4.8`.
    #[error("{0:?} is not a kernel version")]
    BadKernel(String),
}

/// A checked profile.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Of the JSON text.
    pub(crate) digest: [u8; 32],
    pub(crate) default: Action,
    /// Empty: the native one alone.
    pub(crate) architectures: Vec<Architectures>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
    pub(crate) rules: Vec<Rule>,
}

/// Architectures that belong together: the first is the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Architectures {
    /// None: known to others, not to this crate.
    pub(crate) main: Option<Arch>,
    /// Of `archMap`, which applies only where `main` is the native one.
    pub(crate) sub: Option<Vec<Arch>>,
}

/// What the kernel does: the value that a program returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Action(pub(crate) u32);

impl Action {
    pub(crate) const KILL_PROCESS: Self = Self(0x8000_0000);
    const KILL_THREAD: Self = Self(0);
    const TRAP: u32 = 0x0003_0000;
    const ERRNO: u32 = 0x0005_0000;
    const TRACE: u32 = 0x7ff0_0000;
    const LOG: Self = Self(0x7ffc_0000);
    pub(crate) const ALLOW: Self = Self(0x7fff_0000);
    const EPERM: u32 = 1;
    pub(crate) const ENOSYS: Self = Self::errno(38);

    pub(crate) const fn errno(number: u32) -> Self {
        Self(Self::ERRNO | number)
    }

    /// Lets the call be made, or leaves it to a tracer.
    pub(crate) fn is_permissive(self) -> bool {
        self == Self::ALLOW || self == Self::LOG || self.0 & 0xffff_0000 == Self::TRACE
    }

    fn parse(name: &str, errno: Option<u32>) -> Result<Self, ParseError> {
        let data = errno.unwrap_or(Self::EPERM);
        if data > MAX_ERRNO {
            return Err(ParseError::BadErrno(data));
        }
        Ok(match name {
            "SCMP_ACT_ALLOW" => Self::ALLOW,
            "SCMP_ACT_ERRNO" => Self::errno(data),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KILL_THREAD,
            "SCMP_ACT_KILL_PROCESS" => Self::KILL_PROCESS,
            "SCMP_ACT_TRAP" => Self(Self::TRAP),
            "SCMP_ACT_TRACE" => Self(Self::TRACE | data),
            "SCMP_ACT_LOG" => Self::LOG,
            "SCMP_ACT_NOTIFY" => return Err(ParseError::Notify),
            other => return Err(ParseError::UnknownAction(other.to_owned())),
        })
    }
}

/// Names, an action, and when they apply.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) includes: Filter,
    pub(crate) excludes: Filter,
}

/// A comparison with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// 0 … 5.
    pub(crate) index: u32,
    pub(crate) operator: Operator,
    /// The mask of [`Operator::MaskedEqual`].
    pub(crate) value: u64,
    pub(crate) value_two: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

impl Operator {
    fn parse(name: &str) -> Result<Self, ParseError> {
        Ok(match name {
            "SCMP_CMP_NE" => Self::NotEqual,
            "SCMP_CMP_LT" => Self::Less,
            "SCMP_CMP_LE" => Self::LessOrEqual,
            "SCMP_CMP_EQ" => Self::Equal,
            "SCMP_CMP_GE" => Self::GreaterOrEqual,
            "SCMP_CMP_GT" => Self::Greater,
            "SCMP_CMP_MASKED_EQ" => Self::MaskedEqual,
            other => return Err(ParseError::UnknownOperator(other.to_owned())),
        })
    }
}

/// On which containers and hosts a rule is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// With their prefix.
    pub(crate) caps: Vec<String>,
    /// Go's names.
    pub(crate) arches: Vec<String>,
    pub(crate) min_kernel: Option<(u32, u32)>,
}

impl Profile {
    /// Reads a profile: moby's format (`archMap`, `includes`, `excludes`) or the OCI
    /// specification's (`architectures`).
    ///
    /// # Errors
    /// What is wrong with it, by its name. System calls nobody knows are no error.
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        if json.len() > MAX_BYTES {
            return Err(ParseError::TooLarge(json.len()));
        }
        let text: Text = serde_json::from_slice(json)?;
        let default = Action::parse(&text.default_action, text.default_errno)?;
        let names = text.syscalls.iter().map(|s| s.names.len() + 1).sum();
        if names > MAX_NAMES {
            return Err(ParseError::TooManyNames(names));
        }
        let rules: Result<Vec<Rule>, ParseError> =
            text.syscalls.iter().map(Rule::from_text).collect();
        Ok(Self {
            digest: Sha256::digest(json).into(),
            default,
            architectures: architectures(&text)?,
            flags: flags(&text.flags)?,
            rules: rules?,
        })
    }

    /// What a container gets that asks for `RuntimeDefault`.
    #[must_use]
    pub fn runtime_default() -> &'static Self {
        static PARSED: LazyLock<Profile> = LazyLock::new(|| {
            #[allow(
                clippy::expect_used,
                reason = "the text is a constant of this crate, parsed by its tests"
            )]
            Profile::parse(RUNTIME_DEFAULT.as_bytes()).expect("the built-in profile is sound")
        });
        &PARSED
    }
}

fn architectures(text: &Text) -> Result<Vec<Architectures>, ParseError> {
    let mut all = Vec::new();
    for name in &text.architectures {
        all.push(Architectures {
            main: architecture(name)?,
            sub: None,
        });
    }
    for map in &text.arch_map {
        let sub: Result<Vec<Option<Arch>>, ParseError> = map
            .sub_architectures
            .iter()
            .map(|name| architecture(name))
            .collect();
        all.push(Architectures {
            main: architecture(&map.architecture)?,
            sub: Some(sub?.into_iter().flatten().collect()),
        });
    }
    Ok(all)
}

/// Ok(None): a sound name of an architecture that this crate has no numbers of.
fn architecture(name: &str) -> Result<Option<Arch>, ParseError> {
    const OTHERS: [&str; 15] = [
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
    ];
    let known = Arch::from_profile(name);
    let other = || {
        name.strip_prefix("SCMP_ARCH_")
            .is_some_and(|n| OTHERS.contains(&n))
    };
    if known.is_none() && name != "SCMP_ARCH_NATIVE" && !other() {
        return Err(ParseError::UnknownArchitecture(name.to_owned()));
    }
    Ok(known.or_else(|| Arch::native().filter(|_| name == "SCMP_ARCH_NATIVE")))
}

/// Without the field, speculation is left as it is: a filter that turns the mitigations on makes
/// every container of an older kernel slower.
fn flags(names: &Option<Vec<String>>) -> Result<u32, ParseError> {
    const SPEC_ALLOW: u32 = 1 << 2;
    let Some(names) = names else {
        return Ok(SPEC_ALLOW);
    };
    let mut all = 0;
    for name in names {
        all |= match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => 1,
            "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            // Means something only with a listener.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            other => return Err(ParseError::UnknownFlag(other.to_owned())),
        };
    }
    Ok(all)
}

impl Rule {
    fn from_text(text: &SyscallText) -> Result<Self, ParseError> {
        let mut names = text.names.clone();
        names.extend(text.name.clone());
        let first = || names.first().cloned().unwrap_or_default();
        let mut conditions = Vec::new();
        for arg in &text.args {
            if arg.index > 5 {
                return Err(ParseError::BadArgument {
                    name: first(),
                    index: arg.index,
                });
            }
            conditions.push(Condition {
                index: arg.index,
                operator: Operator::parse(&arg.op)?,
                value: arg.value,
                value_two: arg.value_two,
            });
        }
        Ok(Self {
            action: Action::parse(&text.action, text.errno)?,
            conditions,
            includes: Filter::from_text(text.includes.as_ref())?,
            excludes: Filter::from_text(text.excludes.as_ref())?,
            names,
        })
    }
}

impl Filter {
    fn from_text(text: Option<&FilterText>) -> Result<Self, ParseError> {
        let Some(text) = text else {
            return Ok(Self::default());
        };
        let bad = |version: &str| ParseError::BadKernel(version.to_owned());
        let min_kernel = match &text.min_kernel {
            None => None,
            Some(version) => Some(kernel_version(version).ok_or_else(|| bad(version))?),
        };
        Ok(Self {
            caps: text.caps.iter().map(|c| capability(c)).collect(),
            arches: text.arches.clone(),
            min_kernel,
        })
    }
}

/// Upper case, with its prefix.
pub(crate) fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name.starts_with("CAP_") {
        name
    } else {
        format!("CAP_{name}")
    }
}

/// `6.1` or `6.1.0-18-amd64`: the first two numbers.
pub(crate) fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    let minor = &rest[..end.unwrap_or(rest.len())];
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(json: &str) -> String {
        Profile::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_profile_is_sound() {
        let profile = Profile::runtime_default();
        assert_eq!(profile.default, Action::errno(1));
        assert!(profile.rules.len() > 20);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let default = r#""defaultAction":"SCMP_ACT_ERRNO""#;
        for (json, message) in [
            (
                r#"{"defaultAction":"SCMP_ACT_NO"}"#.to_owned(),
                "SCMP_ACT_NO",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(),
                "NOTIFY",
            ),
            (format!(r#"{{{default},"flags":["X"]}}"#), "\"X\""),
            (
                format!(r#"{{{default},"architectures":["SCMP_ARCH_Z"]}}"#),
                "SCMP_ARCH_Z",
            ),
            (format!(r#"{{{default},"defaultErrnoRet":5000}}"#), "5000"),
            (
                format!(
                    r#"{{{default},"syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":6,"value":0,"op":"SCMP_CMP_EQ"}}]}}]}}"#
                ),
                "index 6",
            ),
            (
                format!(
                    r#"{{{default},"syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "includes":{{"minKernel":"x"}}}}]}}"#
                ),
                "\"x\"",
            ),
        ] {
            assert!(error_of(&json).contains(message), "{}", error_of(&json));
        }
        Profile::parse(b"{}").unwrap_err();
        Profile::parse(b"[").unwrap_err();
    }

    #[test]
    fn hostile_sizes_are_refused() {
        assert!(matches!(
            Profile::parse(&vec![b' '; MAX_BYTES + 1]),
            Err(ParseError::TooLarge(_))
        ));
        let names = vec!["\"x\""; MAX_NAMES + 1].join(",");
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":[{names}],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        assert!(matches!(
            Profile::parse(json.as_bytes()),
            Err(ParseError::TooManyNames(_))
        ));
        let deep = "[".repeat(100_000);
        Profile::parse(deep.as_bytes()).unwrap_err();
    }

    #[test]
    fn kernel_versions_are_read_with_their_suffix() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("4.8"), Some((4, 8)));
        assert_eq!(kernel_version("6.18-rc1"), Some((6, 18)));
        assert_eq!(kernel_version("6"), None);
    }
}
