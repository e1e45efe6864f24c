//! Which jobs a run is expected to report, and whether this host can honour them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Capabilities, Isolation, Network};

/// The jobs of a workflow file. Empty when they are not known, as for a file that is not a workflow: then act says what
/// is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub jobs: Vec<PlannedJob>,
    /// The secrets that it cannot do without, upper case.
    pub secrets: BTreeSet<String>,
}

/// One job of a workflow file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedJob {
    pub id: String,
    /// The job's `name:`, which may hold expressions; its id where it has none.
    pub name: String,
    /// How many jobs its matrix makes; `None` when only the run can tell. 1 without a matrix.
    pub legs: Option<u32>,
    /// The labels of `runs-on`, lower case; one with an expression in it is left to the run.
    pub labels: Vec<String>,
    /// Its `timeout-minutes`.
    pub timeout: Option<Duration>,
    /// Whether it asks for `container:`.
    pub container: bool,
    /// Whether it asks for `services:`.
    pub services: bool,
    /// The reusable workflow that it calls.
    pub uses: Option<String>,
}

/// Why this host does not run such a workflow, if it does not: one sentence. A host that refuses should not claim.
pub fn refuse(plan: &Plan, host: &Capabilities, isolation: Isolation) -> Option<String> {
    plan.jobs.iter().find_map(|job| refuse_job(job, host, isolation))
}

fn refuse_job(job: &PlannedJob, host: &Capabilities, isolation: Isolation) -> Option<String> {
    let id = &job.id;
    if job.services && isolation != Isolation::Container {
        return Some(format!("job `{id}` asks for `services:`, and this host runs no containers"));
    }
    if job.container && isolation != Isolation::Container {
        return Some(format!("job `{id}` asks for a `container:`, and this host runs no containers"));
    }
    if let Some(called) = &job.uses {
        let remote = !called.starts_with("./");
        return (remote && host.network == Network::None).then(|| {
            format!("job `{id}` calls the workflow `{called}` of another repository, and jobs here have no network")
        });
    }
    let foreign = |label: &&String| !is_expression(label) && !host.labels.contains(&label.to_lowercase());
    let label = job.labels.iter().find(foreign)?;
    let offered: Vec<&str> = host.labels.iter().map(String::as_str).collect();
    Some(format!("job `{id}` runs on `{label}`, and this host offers only {}", offered.join(", ")))
}

/// Whether a value is only known once the run evaluates it.
pub(crate) fn is_expression(text: &str) -> bool {
    text.contains("${{")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(network: Network) -> Capabilities {
        Capabilities {
            act: Err("unused".to_owned()),
            bwrap: Err("unused".to_owned()),
            runner: Err("unused".to_owned()),
            cgroup: Err("unused".to_owned()),
            engine: Err("unused".to_owned()),
            labels: ["linux", "self-hosted"].map(str::to_owned).into(),
            network,
        }
    }

    fn plan(job: PlannedJob) -> Plan {
        Plan { jobs: vec![PlannedJob { id: "build".to_owned(), ..job }], ..Plan::default() }
    }

    #[test]
    fn mapped_labels_and_expressions_are_taken() {
        let labels = ["Linux", "self-hosted", "${{ matrix.os }}"].map(str::to_owned).to_vec();
        assert_eq!(
            refuse(&plan(PlannedJob { labels, ..Default::default() }), &host(Network::Host), Isolation::Bwrap),
            None
        );
        assert_eq!(refuse(&Plan::default(), &host(Network::Host), Isolation::Bwrap), None);
    }

    #[test]
    fn what_the_host_cannot_honour_is_refused_with_its_name() {
        let no = |job| refuse(&plan(job), &host(Network::None), Isolation::Bwrap).expect("refused");
        let windows = vec!["linux".to_owned(), "windows-latest".to_owned()];
        assert!(no(PlannedJob { labels: windows, ..Default::default() }).contains("`windows-latest`"));
        assert!(no(PlannedJob { services: true, ..Default::default() }).contains("services"));
        assert!(no(PlannedJob { container: true, ..Default::default() }).contains("container"));
        let remote = Some("octo/repo/.github/workflows/x.yml@v1".to_owned());
        assert!(no(PlannedJob { uses: remote.clone(), ..Default::default() }).contains("octo/repo"));
        let job = PlannedJob { uses: remote, ..Default::default() };
        assert_eq!(refuse(&plan(job), &host(Network::Host), Isolation::Bwrap), None);
        let local = Some("./.github/workflows/x.yml".to_owned());
        assert_eq!(
            refuse(&plan(PlannedJob { uses: local, ..Default::default() }), &host(Network::None), Isolation::Bwrap),
            None
        );
    }
}
