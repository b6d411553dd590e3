//! AppArmor.

/// The profile of containers that ask for the runtime's default.
pub(crate) const DEFAULT_PROFILE: &str = "joey-default";
