//! GitHub's own runs of commits, as `GET /repos/{owner}/{repo}/actions/runs?head_sha=` tells of them.

use serde_json::{Value, json};

use super::rest::page;
use super::server::{Answer, Asked};
use super::world::{Repository, timestamp};
use super::{State, shapes};

/// A run of a workflow at a commit.
#[derive(Debug, Clone)]
pub(crate) struct CommitRun {
    pub(crate) id: u64,
    /// `owner/name`
    pub(crate) repository: String,
    pub(crate) path: String,
    pub(crate) commit: String,
    pub(crate) status: &'static str,
    pub(crate) conclusion: Option<&'static str>,
}

/// The page of runs of the commit that is asked for.
pub(crate) fn of_commit(state: &State, asked: &Asked, repository: &Repository) -> Answer {
    let commit = asked.parameter("head_sha").unwrap_or_default();
    let name = repository.full_name();
    let mine = state.commit_runs.iter().filter(|run| run.repository == name && run.commit == commit);
    let all: Vec<Value> = mine.map(|run| shape(state, repository, run)).collect();
    let total = all.len();
    page(state, asked, &all, |part| json!({ "total_count": total, "workflow_runs": part }))
}

fn shape(state: &State, repository: &Repository, run: &CommitRun) -> Value {
    let (base, name) = (&state.base, repository.full_name());
    let url = format!("{base}/repos/{name}/actions/runs/{}", run.id);
    let mut minimal = shapes::repository(base, &state.world, repository);
    for key in ["license", "permissions"] {
        minimal.as_object_mut().expect("an object").remove(key);
    }
    let head = repository.find_commit(&run.commit);
    let time = timestamp(head.map_or(0, |head| head.time));
    let who = json!({ "name": "Octo Cat", "email": "octo@example.org" });
    json!({
        "id": run.id, "name": "ci", "node_id": format!("WFR_{}", run.id), "check_suite_id": run.id, "check_suite_node_id": "CS",
        "head_branch": repository.branch, "head_sha": run.commit, "path": run.path, "display_title": "a change",
        "run_number": 1, "event": "push", "status": run.status, "conclusion": run.conclusion, "workflow_id": 1, "url": url,
        "html_url": url, "pull_requests": [], "created_at": time, "updated_at": time, "run_attempt": 1, "run_started_at": time,
        "jobs_url": format!("{url}/jobs"), "logs_url": format!("{url}/logs"), "check_suite_url": format!("{url}/suite"),
        "artifacts_url": format!("{url}/artifacts"), "cancel_url": format!("{url}/cancel"), "rerun_url": format!("{url}/rerun"),
        "previous_attempt_url": null, "workflow_url": format!("{base}/repos/{name}/actions/workflows/1"),
        "head_commit": head.map(|head| json!({
            "id": head.oid, "tree_id": head.tree, "message": head.message, "timestamp": time, "author": who, "committer": who,
        })),
        "repository": minimal, "head_repository": minimal,
    })
}
