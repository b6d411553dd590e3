//! `joey ps`.

use joey_proto::api::{Container, ListContainersRequest};

use super::print;
use crate::args::Ps;
use crate::client::Client;
use crate::error::CliError;
use crate::format::{short, span};
use crate::parse::{Filter, now};
use crate::table::Table;

/// Digits of an id in the table.
const ID_DIGITS: usize = 6;
/// Of one that other commands get: it must be nobody else's.
const QUIET_DIGITS: usize = 12;
/// What the default runtime handler is called.
const DEFAULT_RUNTIME: &str = "joey";

/// Lists containers.
pub async fn run(client: &Client, args: &Ps) -> Result<(), CliError> {
    // A state that is asked for is shown without --all.
    let by_state = |filter: &Filter| matches!(filter, Filter::Status(_));
    let all = args.all || args.filter.iter().any(by_state);
    let mut containers = client
        .clone()
        .list_containers(ListContainersRequest { all })
        .await?
        .into_inner()
        .containers;
    containers.retain(|container| is_wanted(container, &args.filter));
    print(&render(&containers, args, now()))
}

/// Whether one of the filters of each kind fits; of labels, all must.
fn is_wanted(container: &Container, filters: &[Filter]) -> bool {
    let fits = |filter: &Filter| match filter {
        Filter::Id(id) => container.id.starts_with(id.as_str()),
        Filter::Name(name) => container.name.contains(name.as_str()),
        Filter::Status(state) => container.state == *state,
        Filter::Label(key, value) => match (container.labels.get(key), value) {
            (Some(found), Some(wanted)) => found == wanted,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        },
    };
    filters.iter().all(|filter| match filter {
        Filter::Label(..) => fits(filter),
        _ => {
            let kind = std::mem::discriminant(filter);
            let mut same = filters
                .iter()
                .filter(|other| std::mem::discriminant(*other) == kind);
            same.any(fits)
        }
    })
}

fn render(containers: &[Container], args: &Ps, now: i64) -> String {
    let digits = if args.quiet { QUIET_DIGITS } else { ID_DIGITS };
    let id = |container: &Container| match args.no_trunc {
        true => container.id.clone(),
        false => short(&container.id, digits).to_owned(),
    };
    if args.quiet {
        return containers
            .iter()
            .map(|container| format!("{}\n", id(container)))
            .collect();
    }
    let mut table = Table::new(&["Name", "ID", "Status", "Created", "Image", "Runtime"]);
    for container in containers {
        let runtime = if container.runtime.is_empty() {
            DEFAULT_RUNTIME
        } else {
            &container.runtime
        };
        table.row(vec![
            container.name.clone(),
            id(container),
            status(container, now),
            format!("{} ago", span(container.created_at, now)),
            container.image.clone(),
            runtime.to_owned(),
        ]);
    }
    table.to_string()
}

fn status(container: &Container, now: i64) -> String {
    match container.state.as_str() {
        "running" => format!("Up {}", span(container.started_at, now)),
        "exited" => format!(
            "Exited ({}) {}",
            container.exit_code,
            span(container.finished_at, now)
        ),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn container(name: &str, state: &str) -> Container {
        Container {
            id: format!("{name:0<64}"),
            name: name.into(),
            image: "alpine".into(),
            state: state.into(),
            started_at: 5 * MINUTE,
            finished_at: 8 * MINUTE,
            exit_code: 3,
            ..Container::default()
        }
    }

    #[test]
    fn states_are_told_with_their_age() {
        let args = Ps {
            all: true,
            filter: Vec::new(),
            quiet: false,
            no_trunc: false,
        };
        let containers = [
            container("ab", "running"),
            container("c", "exited"),
            container("d", "created"),
        ];
        let text = render(&containers, &args, 10 * MINUTE);
        assert_eq!(
            text,
            "Name   ID       Status                 Created          Image    Runtime\n\
             ab     ab0000   Up 5 minutes           10 minutes ago   alpine   joey\n\
             c      c00000   Exited (3) 2 minutes   10 minutes ago   alpine   joey\n\
             d      d00000   created                10 minutes ago   alpine   joey\n"
        );
    }

    #[test]
    fn filters_of_one_kind_are_alternatives_and_of_several_conditions() {
        let mut web = container("web", "running");
        web.labels.insert("tier".into(), "front".into());
        let wanted = |filters: &[&str]| {
            let filters: Vec<Filter> = filters
                .iter()
                .map(|text| crate::parse::filter(text).unwrap())
                .collect();
            is_wanted(&web, &filters)
        };
        assert!(wanted(&[]) && wanted(&["name=e"]) && wanted(&["id=web0", "name=x", "name=w"]));
        assert!(wanted(&["status=exited", "status=running", "label=tier"]));
        assert!(!wanted(&["name=web", "status=exited"]));
        assert!(!wanted(&["label=tier=front", "label=other"]) && !wanted(&["label=tier=back"]));
    }

    #[test]
    fn quiet_prints_ids_only() {
        let args = Ps {
            all: false,
            filter: Vec::new(),
            quiet: true,
            no_trunc: true,
        };
        let text = render(&[container("a", "running")], &args, 0);
        assert_eq!(text, format!("{:0<64}\n", "a"));
    }
}
