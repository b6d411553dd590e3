//! Limits on the command line.

use clap::Args as ClapArgs;
use joey_proto::api::{DeviceThrottle, DeviceWeight, HugepageLimit, Limits, device_throttle};

use crate::parse;

/// The limits that a container can have; 0 is no limit.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Memory limit, such as 512m; 0: none
    #[arg(short, long, value_name = "SIZE", value_parser = parse::size)]
    pub memory: Option<i64>,
    /// Memory that stays the container's when the node is short of it
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together, -1: as much swap as there is [default: no swap]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse::size_or_none)]
    pub memory_swap: Option<i64>,
    /// CPU limit, such as 1.5; 0: none
    #[arg(long, value_name = "NUMBER", value_parser = parse::cpus)]
    pub cpus: Option<i64>,
    /// Share of CPU time under load, 1024 being usual
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..=262_144))]
    pub cpu_shares: Option<i64>,
    /// Period of the CPU limit in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// CPU time per period in µs; 0: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time in µs that can be saved up and used beyond the limit
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Processors, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as 0,1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Most processes and threads; 0: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Share of disk time, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub blkio_weight: Option<u32>,
    /// The same for one device
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = parse::device_rate)]
    pub blkio_weight_device: Vec<(String, u64)>,
    /// Bytes read from a device per second, such as /dev/sda:1m; 0: no limit
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = parse::device_rate)]
    pub device_read_bps: Vec<(String, u64)>,
    /// Bytes written to a device per second
    #[arg(long, value_name = "DEVICE:SIZE", value_parser = parse::device_rate)]
    pub device_write_bps: Vec<(String, u64)>,
    /// Reads from a device per second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = parse::device_rate)]
    pub device_read_iops: Vec<(String, u64)>,
    /// Writes to a device per second
    #[arg(long, value_name = "DEVICE:NUMBER", value_parser = parse::device_rate)]
    pub device_write_iops: Vec<(String, u64)>,
    /// Memory in huge pages of one size, such as 2MB=64m; 0: no limit
    #[arg(long, value_name = "PAGE=SIZE", value_parser = parse::hugepages)]
    pub hugetlb_limit: Vec<(String, u64)>,
    /// Devices to allow, such as 'c 10:229 rwm'; with - in front, to deny
    #[arg(long, value_name = "RULE", allow_hyphen_values = true)]
    pub device_cgroup_rule: Vec<String>,
}

impl LimitArgs {
    /// For the daemon.
    pub fn to_request(&self) -> Limits {
        use device_throttle::Kind;
        let throttles = [
            (Kind::ReadBps, &self.device_read_bps),
            (Kind::WriteBps, &self.device_write_bps),
            (Kind::ReadIops, &self.device_read_iops),
            (Kind::WriteIops, &self.device_write_iops),
        ];
        let throttle = |kind: Kind, (path, rate): &(String, u64)| DeviceThrottle {
            path: path.clone(),
            kind: kind.into(),
            rate: *rate,
        };
        let weight = |(path, weight): &(String, u64)| DeviceWeight {
            path: path.clone(),
            weight: u32::try_from(*weight).unwrap_or(u32::MAX),
        };
        let pages = |(page_size, limit): &(String, u64)| HugepageLimit {
            page_size: page_size.clone(),
            limit: *limit,
        };
        Limits {
            memory: self.memory,
            memory_reservation: self.memory_reservation,
            memory_swap: self.memory_swap,
            nano_cpus: self.cpus,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_burst: self.cpu_burst,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_limit: self.pids_limit,
            blkio_weight: self.blkio_weight,
            blkio_weight_devices: self.blkio_weight_device.iter().map(weight).collect(),
            throttles: throttles
                .iter()
                .flat_map(|(kind, given)| given.iter().map(|device| throttle(*kind, device)))
                .collect(),
            hugepages: self.hugetlb_limit.iter().map(pages).collect(),
            device_rules: self.device_cgroup_rule.clone(),
        }
    }
}
