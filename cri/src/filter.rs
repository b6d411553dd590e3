//! Filters of the list RPCs: every field given has to match.

use std::collections::{BTreeMap, HashMap};

use joey_proto::cri;
use joey_runtime::model::{ContainerRecord, ContainerState, PodRecord};

use crate::reply::{container_state, pod_state};

fn labels_match(selector: &HashMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// An empty id in a filter is no condition; a short one is a prefix, as crictl's users type it.
fn id_matches(wanted: &str, id: &str) -> bool {
    id.starts_with(wanted)
}

/// Whether a pod passes the filter.
pub(crate) fn pod(filter: &cri::PodSandboxFilter, pod: &PodRecord) -> bool {
    id_matches(&filter.id, &pod.id)
        && filter
            .state
            .is_none_or(|wanted| wanted.state == pod_state(pod.state) as i32)
        && labels_match(&filter.label_selector, &pod.config.labels)
}

/// Whether a pod's stats pass the filter.
pub(crate) fn pod_stats(filter: &cri::PodSandboxStatsFilter, pod: &PodRecord) -> bool {
    id_matches(&filter.id, &pod.id) && labels_match(&filter.label_selector, &pod.config.labels)
}

/// Whether a container passes the filter.
pub(crate) fn container(
    filter: &cri::ContainerFilter,
    container: &ContainerRecord,
    state: ContainerState,
) -> bool {
    id_matches(&filter.id, &container.id)
        && id_matches(&filter.pod_sandbox_id, &container.pod_id)
        && filter
            .state
            .is_none_or(|wanted| wanted.state == container_state(state) as i32)
        && labels_match(&filter.label_selector, &container.config.labels)
}

/// Whether a container's stats pass the filter.
pub(crate) fn container_stats(
    filter: &cri::ContainerStatsFilter,
    container: &ContainerRecord,
) -> bool {
    id_matches(&filter.id, &container.id)
        && id_matches(&filter.pod_sandbox_id, &container.pod_id)
        && labels_match(&filter.label_selector, &container.config.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{container_record, pod_record};

    fn labels(key: &str, value: &str) -> HashMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn every_field_of_a_pod_filter_has_to_match() {
        let filter = cri::PodSandboxFilter::default;
        let state = |state| Some(cri::PodSandboxStateValue { state });
        let cases = [
            (filter(), true),
            (
                cri::PodSandboxFilter {
                    id: "abc".into(),
                    ..filter()
                },
                true,
            ),
            (
                cri::PodSandboxFilter {
                    id: "a".into(),
                    ..filter()
                },
                true,
            ),
            (
                cri::PodSandboxFilter {
                    id: "b".into(),
                    ..filter()
                },
                false,
            ),
            (
                cri::PodSandboxFilter {
                    state: state(0),
                    ..filter()
                },
                true,
            ),
            (
                cri::PodSandboxFilter {
                    state: state(1),
                    ..filter()
                },
                false,
            ),
            (
                cri::PodSandboxFilter {
                    label_selector: labels("app", "web"),
                    ..filter()
                },
                true,
            ),
            (
                cri::PodSandboxFilter {
                    label_selector: labels("app", "db"),
                    ..filter()
                },
                false,
            ),
            (
                cri::PodSandboxFilter {
                    label_selector: labels("tier", "web"),
                    ..filter()
                },
                false,
            ),
            (
                cri::PodSandboxFilter {
                    id: "abc".into(),
                    state: state(1),
                    label_selector: labels("app", "web"),
                },
                false,
            ),
        ];
        for (filter, wanted) in cases {
            assert_eq!(pod(&filter, &pod_record()), wanted, "{filter:?}");
        }
    }

    #[test]
    fn every_field_of_a_container_filter_has_to_match() {
        let filter = cri::ContainerFilter::default;
        let state = |state| Some(cri::ContainerStateValue { state });
        let cases = [
            (filter(), true),
            (
                cri::ContainerFilter {
                    id: "c".into(),
                    ..filter()
                },
                true,
            ),
            (
                cri::ContainerFilter {
                    id: "x".into(),
                    ..filter()
                },
                false,
            ),
            (
                cri::ContainerFilter {
                    pod_sandbox_id: "p".into(),
                    ..filter()
                },
                true,
            ),
            (
                cri::ContainerFilter {
                    pod_sandbox_id: "c".into(),
                    ..filter()
                },
                false,
            ),
            (
                cri::ContainerFilter {
                    state: state(1),
                    ..filter()
                },
                true,
            ),
            (
                cri::ContainerFilter {
                    state: state(2),
                    ..filter()
                },
                false,
            ),
            (
                cri::ContainerFilter {
                    label_selector: labels("app", "web"),
                    ..filter()
                },
                true,
            ),
            (
                cri::ContainerFilter {
                    label_selector: labels("app", ""),
                    ..filter()
                },
                false,
            ),
        ];
        for (filter, wanted) in cases {
            let passed = container(&filter, &container_record(), ContainerState::Running);
            assert_eq!(passed, wanted, "{filter:?}");
        }
    }

    #[test]
    fn stats_filters_match_alike() {
        let filter = cri::PodSandboxStatsFilter {
            id: "ab".into(),
            ..Default::default()
        };
        assert!(pod_stats(&filter, &pod_record()));
        let filter = cri::PodSandboxStatsFilter {
            label_selector: labels("app", "db"),
            ..Default::default()
        };
        assert!(!pod_stats(&filter, &pod_record()));
        let filter = cri::ContainerStatsFilter {
            pod_sandbox_id: "p1".into(),
            ..Default::default()
        };
        assert!(container_stats(&filter, &container_record()));
        let filter = cri::ContainerStatsFilter {
            id: "p1".into(),
            ..Default::default()
        };
        assert!(!container_stats(&filter, &container_record()));
    }
}
