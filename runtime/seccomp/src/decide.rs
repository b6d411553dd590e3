//! What a profile means on one architecture, for one set of capabilities.

use std::collections::BTreeMap;

use crate::arch::{Arch, PRIVATE, X32_BIT, multiplexed};
use crate::profile::{Action, Condition, Filter, Operator, Profile, Rule};

/// What rules depend on besides the system call.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) native: Arch,
    /// With their prefix, sorted.
    pub(crate) caps: Vec<String>,
    pub(crate) kernel: (u32, u32),
}

/// What happens on a system call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Call {
    /// In the profile's order; the first whose conditions all hold decides.
    pub(crate) conditional: Vec<(Vec<Condition>, Action)>,
    /// When none holds; None: the default.
    pub(crate) otherwise: Option<Action>,
}

/// An architecture's system calls by number.
#[derive(Debug, Clone)]
pub(crate) struct Decisions {
    pub(crate) calls: BTreeMap<u32, Call>,
    default: Action,
    /// The newest number the profile speaks about at all.
    newest: Option<u32>,
}

impl Decisions {
    pub(crate) fn of(profile: &Profile, arch: Arch, context: &Context) -> Self {
        let mut decisions = Self {
            calls: BTreeMap::new(),
            default: profile.default,
            newest: None,
        };
        for rule in &profile.rules {
            let applies = context.applies(rule);
            for name in &rule.names {
                decisions.name(arch, name, rule, applies);
            }
        }
        decisions
    }

    fn name(&mut self, arch: Arch, name: &str, rule: &Rule, applies: bool) {
        if let Some(number) = arch.number(name) {
            let ordinary = number & !X32_BIT < PRIVATE;
            self.newest = self.newest.max(Some(number).filter(|_| ordinary));
            if applies {
                self.add(number, &rule.conditions, rule.action);
            }
        }
        if arch == Arch::X86
            && applies
            && rule.conditions.is_empty()
            && let Some((way, which)) = multiplexed(name)
            && let Some(number) = arch.number(way)
        {
            let condition = Condition {
                index: 0,
                operator: Operator::Equal,
                value: which,
                value_two: 0,
            };
            self.add(number, &[condition], rule.action);
        }
    }

    /// Conditions on different arguments must all hold; of several on one argument any is enough,
    /// as this format has always been read.
    fn add(&mut self, number: u32, conditions: &[Condition], action: Action) {
        let call = self.calls.entry(number).or_default();
        if conditions.is_empty() {
            call.otherwise.get_or_insert(action);
            return;
        }
        let repeated = (0..6).any(|i| conditions.iter().filter(|c| c.index == i).count() > 1);
        let mut push = |conditions: Vec<Condition>| {
            let rule = (conditions, action);
            if !call.conditional.contains(&rule) {
                call.conditional.push(rule);
            }
        };
        if repeated {
            conditions.iter().for_each(|c| push(vec![*c]));
        } else {
            push(conditions.to_vec());
        }
    }

    /// For a number that no rule is about. A program that probes for a new system call must learn
    /// that it is not there, and EPERM does not say so; but a profile that mostly allows, allows.
    pub(crate) fn unnamed(&self, number: u32) -> Action {
        match self.newest {
            Some(newest) if number > newest && !self.default.is_permissive() => Action::ENOSYS,
            _ => self.default,
        }
    }

    /// Where [`Decisions::unnamed`] changes.
    pub(crate) fn first_newer(&self) -> Option<u32> {
        self.newest.map(|newest| newest + 1)
    }

    pub(crate) fn default(&self) -> Action {
        self.default
    }
}

impl Context {
    pub(crate) fn applies(&self, rule: &Rule) -> bool {
        let has = |cap: &String| self.caps.binary_search(cap).is_ok();
        let here = |filter: &Filter| {
            let native = self.native.go_name();
            filter.arches.iter().any(|arch| arch == native)
        };
        let includes = &rule.includes;
        let excludes = &rule.excludes;
        includes.caps.iter().all(has)
            && (includes.arches.is_empty() || here(includes))
            && includes.min_kernel.is_none_or(|least| self.kernel >= least)
            && !excludes.caps.iter().any(has)
            && !here(excludes)
            && excludes.min_kernel.is_none_or(|least| self.kernel < least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(caps: &[&str]) -> Context {
        let mut caps: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
        caps.sort();
        Context {
            native: Arch::X86_64,
            caps,
            kernel: (6, 1),
        }
    }

    fn default_profile(arch: Arch, caps: &[&str]) -> Decisions {
        Decisions::of(Profile::runtime_default(), arch, &context(caps))
    }

    fn allowed(decisions: &Decisions, arch: Arch, name: &str) -> bool {
        let number = arch.number(name).unwrap();
        let call = decisions.calls.get(&number);
        call.is_some_and(|c| c.otherwise == Some(Action::ALLOW))
    }

    #[test]
    fn capabilities_open_their_calls_and_no_others() {
        let arch = Arch::X86_64;
        for (cap, name) in [
            ("CAP_SYS_CHROOT", "chroot"),
            ("CAP_SYS_ADMIN", "mount"),
            ("CAP_SYS_ADMIN", "clone3"),
            ("CAP_SYS_MODULE", "init_module"),
            ("CAP_SYS_TIME", "settimeofday"),
            ("CAP_BPF", "bpf"),
            ("CAP_PERFMON", "perf_event_open"),
            ("CAP_SYSLOG", "syslog"),
        ] {
            assert!(!allowed(&default_profile(arch, &[]), arch, name), "{name}");
            assert!(
                allowed(&default_profile(arch, &[cap]), arch, name),
                "{name}"
            );
        }
        for name in [
            "keyctl",
            "kexec_load",
            "userfaultfd",
            "io_uring_setup",
            "pivot_root",
        ] {
            let all = default_profile(arch, &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]);
            assert!(!allowed(&all, arch, name), "{name}");
        }
    }

    #[test]
    fn calls_newer_than_the_profile_are_not_there() {
        let decisions = default_profile(Arch::X86_64, &[]);
        assert_eq!(decisions.unnamed(9999), Action::ENOSYS);
        let keyctl = Arch::X86_64.number("keyctl").unwrap();
        assert_eq!(decisions.unnamed(keyctl), Action::errno(1));
        let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let permissive = Profile::parse(json).unwrap();
        let decisions = Decisions::of(&permissive, Arch::X86_64, &context(&[]));
        assert_eq!(decisions.unnamed(9999), Action::ALLOW);
    }

    #[test]
    fn denying_sockets_denies_the_other_way_of_i386_too() {
        let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["socket"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let profile = Profile::parse(json).unwrap();
        let decisions = Decisions::of(&profile, Arch::X86, &context(&[]));
        let call = &decisions.calls[&Arch::X86.number("socketcall").unwrap()];
        assert_eq!(call.conditional[0].0[0].value, 1);
        assert_eq!(call.conditional[0].1, Action::errno(1));
    }

    #[test]
    fn several_conditions_on_one_argument_are_alternatives() {
        let json = br#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
        let profile = Profile::parse(json).unwrap();
        let decisions = Decisions::of(&profile, Arch::X86_64, &context(&[]));
        let call = &decisions.calls[&Arch::X86_64.number("socket").unwrap()];
        assert_eq!(call.conditional.len(), 2);
    }
}
