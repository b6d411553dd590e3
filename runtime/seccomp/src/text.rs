//! The JSON of a profile as it is written. Fields that concern a notification listener are ignored.

use serde::Deserialize;

/// Go writes an empty list as `null` too.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Text {
    pub(crate) default_action: String,
    #[serde(rename = "defaultErrnoRet")]
    pub(crate) default_errno: Option<u32>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) architectures: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) arch_map: Vec<ArchText>,
    pub(crate) flags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) syscalls: Vec<SyscallText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArchText {
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "list")]
    pub(crate) sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct SyscallText {
    #[serde(default, deserialize_with = "list")]
    pub(crate) names: Vec<String>,
    pub(crate) name: Option<String>,
    pub(crate) action: String,
    #[serde(rename = "errnoRet")]
    pub(crate) errno: Option<u32>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) args: Vec<ArgText>,
    pub(crate) includes: Option<FilterText>,
    pub(crate) excludes: Option<FilterText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArgText {
    pub(crate) index: u32,
    pub(crate) value: u64,
    #[serde(default)]
    pub(crate) value_two: u64,
    pub(crate) op: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FilterText {
    #[serde(default, deserialize_with = "list")]
    pub(crate) caps: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    pub(crate) arches: Vec<String>,
    pub(crate) min_kernel: Option<String>,
}
