//! Which of an index's entries this machine can run.

use std::fmt;

use serde::Deserialize;

/// A platform as an index entry or an image config names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's naming.
    #[serde(default)]
    pub architecture: String,
    /// Operating system in Go's naming.
    #[serde(default)]
    pub os: String,
    /// CPU variant, e.g. `v8`.
    #[serde(default)]
    pub variant: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// The platforms a machine can run, best first.
#[derive(Debug, Clone)]
pub struct HostPlatform {
    architecture: &'static str,
    /// Acceptable variants, best first; an empty one stands for "none given".
    variants: Vec<&'static str>,
}

impl HostPlatform {
    /// This machine's.
    #[must_use]
    pub fn detect() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::new("amd64", amd64_variants()),
            "aarch64" => Self::new("arm64", vec!["v8", ""]),
            "arm" => Self::new("arm", vec!["v7", "", "v6", "v5"]),
            "x86" => Self::new("386", vec![""]),
            "powerpc64" => Self::new("ppc64le", vec![""]),
            other => Self::new(other, vec![""]),
        }
    }

    fn new(architecture: &'static str, variants: Vec<&'static str>) -> Self {
        Self {
            architecture,
            variants,
        }
    }

    /// How well `platform` fits: 0 is best, `None` means it cannot run here.
    #[must_use]
    pub fn rank(&self, platform: &Platform) -> Option<usize> {
        if platform.os != "linux" || platform.architecture != self.architecture {
            return None;
        }
        self.variants.iter().position(|v| *v == platform.variant)
    }

    /// Whether a config without an index around it may be for this machine: fields left empty match.
    #[must_use]
    pub fn accepts_config(&self, platform: &Platform) -> bool {
        (platform.os.is_empty() || platform.os == "linux")
            && (platform.architecture.is_empty() || platform.architecture == self.architecture)
    }
}

impl fmt::Display for HostPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture)
    }
}

/// Plain amd64 first; the microarchitecture levels only where the CPU has them.
#[cfg(target_arch = "x86_64")]
fn amd64_variants() -> Vec<&'static str> {
    let v2 = std::arch::is_x86_feature_detected!("sse4.2")
        && std::arch::is_x86_feature_detected!("popcnt")
        && std::arch::is_x86_feature_detected!("ssse3");
    let v3 = v2
        && std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("fma");
    let mut variants = vec!["", "v1"];
    if v2 {
        variants.push("v2");
    }
    if v3 {
        variants.push("v3");
    }
    variants
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_variants() -> Vec<&'static str> {
    vec!["", "v1"]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform {
            architecture: architecture.into(),
            os: os.into(),
            variant: variant.into(),
        }
    }

    #[test]
    fn arm_falls_back_to_lower_variants_and_never_up() {
        let v7 = HostPlatform::new("arm", vec!["v7", "", "v6", "v5"]);
        assert_eq!(v7.rank(&platform("linux", "arm", "v7")), Some(0));
        assert!(
            v7.rank(&platform("linux", "arm", "v6")) > v7.rank(&platform("linux", "arm", "v7"))
        );
        assert_eq!(v7.rank(&platform("linux", "arm", "v8")), None);
        assert_eq!(v7.rank(&platform("windows", "arm", "v7")), None);
        assert_eq!(v7.rank(&platform("unknown", "unknown", "")), None);
    }

    #[test]
    fn a_config_may_leave_its_platform_out_but_not_name_another() {
        let host = HostPlatform::new("amd64", vec![""]);
        assert!(host.accepts_config(&Platform::default()));
        assert!(host.accepts_config(&platform("linux", "amd64", "v9")));
        assert!(!host.accepts_config(&platform("linux", "arm64", "")));
        assert!(!host.accepts_config(&platform("windows", "amd64", "")));
    }
}
