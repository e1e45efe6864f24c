//! Whether GitHub runs a workflow itself: its runs of a commit.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::GithubError;
use super::api::{Client, Tally, read};

/// What is known of GitHub's runs from one look to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    /// By repository and commit.
    known: BTreeMap<(u64, String), Known>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    etag: Option<String>,
    /// By the workflow's path: what is said of its run.
    runs: BTreeMap<String, String>,
    /// All of them have come to their end: nothing is asked any more.
    settled: bool,
    /// It was asked for in the present look.
    wanted: bool,
}

#[derive(Deserialize)]
struct List {
    workflow_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    path: String,
    status: Option<String>,
    conclusion: Option<String>,
}

impl Run {
    /// Whether it runs, will run or has run: not one that was called off before it did anything.
    fn counts(&self) -> bool {
        let off = ["cancelled", "skipped", "stale", "startup_failure", "action_required"];
        !self.conclusion.as_deref().is_some_and(|conclusion| off.contains(&conclusion))
    }
}

impl Runs {
    /// Forgets what was not asked for since the last time.
    pub(super) fn prune(&mut self) {
        self.known.retain(|_, known| std::mem::take(&mut known.wanted));
    }

    /// What GitHub says of its own run of a workflow at a commit; nothing where it has none. One call for a commit,
    /// however many workflows are asked for; one that changes nothing costs nothing, and once they have all ended none is
    /// made.
    pub(super) async fn of(
        &mut self,
        client: &Client,
        repository: (u64, &str),
        commit: &str,
        path: &str,
        tally: &Tally,
    ) -> Result<Option<String>, GithubError> {
        let (id, name) = repository;
        let known = self.known.entry((id, commit.to_owned())).or_default();
        if !std::mem::replace(&mut known.wanted, true) && !known.settled {
            let what = format!("ask for GitHub's own runs of {name}");
            let address = format!("/repos/{name}/actions/runs?head_sha={commit}&per_page=100");
            let got = client.get(&address, known.etag.as_deref(), &what, tally).await?;
            if !got.unchanged {
                let list: List = read(&what, &got.bytes)?;
                known.etag = got.etag;
                let done = |run: &Run| run.status.as_deref() == Some("completed");
                known.settled = !list.workflow_runs.is_empty() && list.workflow_runs.iter().all(done);
                let said = list.workflow_runs.iter().filter(|run| run.counts()).map(|run| {
                    let state = run.conclusion.as_ref().or(run.status.as_ref()).map_or("unknown", String::as_str);
                    // Of a workflow that an organisation requires, the path ends with where it stands.
                    let path = run.path.split('@').next().unwrap_or_default().to_owned();
                    let state: String = state.chars().filter(|c| !c.is_control()).take(40).collect();
                    (path, format!("GitHub's run {} of it is {}", run.id, state.replace('_', " ")))
                });
                known.runs = said.collect();
            }
        }
        Ok(known.runs.get(path).cloned())
    }
}
