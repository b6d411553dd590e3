//! Capabilities, no_new_privs and security bits of the calling process.

use std::str::FromStr;

use caps::Capability;
use joey_proto::shim::Capabilities;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};

use crate::error::{Failure, Result, Step};

/// Numbers of capabilities as a bit set.
fn bits(names: &[String]) -> Result<u64> {
    let mut bits = 0;
    for name in names {
        let capability = Capability::from_str(name).map_err(|_| {
            Failure::with_errno(libc::EINVAL, format!("unknown capability {name:?}"))
        })?;
        bits |= capability.bitmask();
    }
    Ok(bits)
}

/// The sets of a container's process, parsed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

impl Sets {
    /// Parses the names; no message means no capability at all.
    pub fn parse(capabilities: Option<&Capabilities>) -> Result<Self> {
        let Some(names) = capabilities else {
            return Ok(Self::default());
        };
        Ok(Self {
            bounding: bits(&names.bounding)?,
            effective: bits(&names.effective)?,
            inheritable: bits(&names.inheritable)?,
            permitted: bits(&names.permitted)?,
            ambient: bits(&names.ambient)?,
        })
    }

    /// Limits the bounding set; needs CAP_SETPCAP.
    pub fn limit_bounding(&self) -> Result<()> {
        for number in 0..64 {
            let bit = 1u64 << number;
            if self.bounding & bit != 0 {
                continue;
            }
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
                Ok(()) => {}
                // The first number that the kernel does not know.
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error).step("limit the bounding set"),
            }
        }
        Ok(())
    }

    /// Sets the other sets. What the kernel lacks or the caller never had is left out of them, as
    /// a nested runtime has less to give.
    pub fn apply(&self) -> Result<()> {
        let held = rustix::thread::capabilities(None)
            .step("read the capabilities")?
            .permitted
            .bits();
        let permitted = self.permitted & held;
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(self.effective & permitted),
            permitted: CapabilitySet::from_bits_retain(permitted),
            inheritable: CapabilitySet::from_bits_retain(self.inheritable & held),
        };
        set_capabilities(None, sets).step("set the capabilities")?;
        clear_ambient_capability_set().step("clear the ambient capabilities")?;
        for number in 0..64 {
            let bit = 1u64 << number;
            if self.ambient & permitted & self.inheritable & bit != 0 {
                configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(bit), true)
                    .step("set the ambient capabilities")?;
            }
        }
        Ok(())
    }
}

/// Makes every permitted capability effective again, after a change of user.
pub fn raise_effective() -> Result<()> {
    let mut sets = rustix::thread::capabilities(None).step("read the capabilities")?;
    sets.effective = sets.permitted;
    set_capabilities(None, sets).step("raise the effective capabilities")
}

/// Leaves nothing, for good: for the pod's init.
pub fn drop_all() -> Result<()> {
    Sets::default().limit_bounding()?;
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(locked).step("lock the security bits")?;
    Sets::default().apply()?;
    set_no_new_privs(true).step("set no_new_privs")
}
