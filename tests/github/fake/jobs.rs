//! GitHub Actions' runs and jobs: what waits for a runner, what one runs, what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::State;
use super::rest::page;
use super::runners::Runners;
use super::scale_sets::ScaleSets;
use super::server::{Answer, Asked};
use super::shapes;
use super::world::{Repository, World, now, timestamp};

/// A run of a workflow.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) repository: u64,
    pub(crate) path: String,
    pub(crate) jobs: Vec<u64>,
    pub(crate) created: u64,
    pub(crate) updated: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Queued,
    InProgress,
    Completed,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// A job of a run, and what will come of it once a runner has it.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) run: u64,
    pub(crate) repository: u64,
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
    pub(crate) status: Status,
    /// Id and name.
    pub(crate) runner: Option<(u64, String)>,
    pub(crate) conclusion: Option<String>,
    pub(crate) created: u64,
    pub(crate) started: Option<u64>,
    pub(crate) completed: Option<u64>,
    /// How long it takes, and how it ends then.
    pub(crate) takes: Duration,
    pub(crate) ends: String,
    /// When it was queued and when its runner began, by a clock that tests measure with.
    pub(crate) queued_at: Instant,
    pub(crate) started_at: Option<Instant>,
}

/// What GitHub Actions has.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub(crate) runs: BTreeMap<u64, Run>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) runners: Runners,
    pub(crate) scale_sets: ScaleSets,
    next_id: u64,
}

impl Actions {
    pub(crate) fn id(&mut self) -> u64 {
        self.next_id = self.next_id.max(9_000_000) + 1;
        self.next_id
    }

    /// Queues a run with so many jobs of these labels. Gives the jobs.
    pub(crate) fn queue(&mut self, world: &World, repository: &str, labels: &[&str], count: usize) -> Vec<u64> {
        let repository = world.find(repository).expect("a repository").id;
        let (run, time) = (self.id(), now());
        let path = ".github/workflows/ci.yml".to_owned();
        self.runs.insert(run, Run { id: run, repository, path, jobs: Vec::new(), created: time, updated: time });
        for n in 0..count {
            let id = self.id();
            self.jobs.insert(
                id,
                Job {
                    id,
                    run,
                    repository,
                    name: format!("job {n}"),
                    labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                    status: Status::Queued,
                    runner: None,
                    conclusion: None,
                    created: time,
                    started: None,
                    completed: None,
                    takes: Duration::from_millis(300),
                    ends: "success".to_owned(),
                    queued_at: Instant::now(),
                    started_at: None,
                },
            );
            self.runs.get_mut(&run).expect("just made").jobs.push(id);
        }
        self.bind();
        self.runs[&run].jobs.clone()
    }

    pub(crate) fn start(&mut self, job: u64, runner: (u64, String)) {
        let job = self.jobs.get_mut(&job).expect("a job");
        job.status = Status::InProgress;
        job.runner = Some(runner);
        job.started = Some(now());
        job.started_at = Some(Instant::now());
        self.runs.get_mut(&job.run).expect("its run").updated = now();
    }

    pub(crate) fn complete(&mut self, job: u64, conclusion: &str) {
        let Some(job) = self.jobs.get_mut(&job).filter(|job| job.status != Status::Completed) else { return };
        job.status = Status::Completed;
        job.conclusion = Some(conclusion.to_owned());
        job.completed = Some(now());
        self.runs.get_mut(&job.run).expect("its run").updated = now();
        self.runners.bell.notify_waiters();
    }

    fn status(&self, run: &Run) -> Status {
        let is = |status: Status| run.jobs.iter().filter(|job| self.jobs[*job].status == status).count();
        if is(Status::Completed) == run.jobs.len() {
            Status::Completed
        } else if is(Status::Queued) == run.jobs.len() {
            Status::Queued
        } else {
            Status::InProgress
        }
    }
}

pub(crate) fn answer(state: &State, asked: &Asked, repository: &Repository, rest: &[&str]) -> Answer {
    let actions = &state.actions;
    match rest {
        ["runs"] => {
            let wanted = asked.parameter("status");
            let mine = actions.runs.values().rev().filter(|run| run.repository == repository.id);
            let mine = mine.filter(|run| wanted.is_none_or(|wanted| actions.status(run).word() == wanted));
            let all: Vec<Value> = mine.map(|run| shape_of_run(state, repository, run)).collect();
            let total = all.len();
            page(state, asked, &all, |part| json!({ "total_count": total, "workflow_runs": part }))
        }
        ["runs", id, "jobs"] => {
            let run = id.parse().ok().and_then(|id: u64| actions.runs.get(&id));
            let Some(run) = run.filter(|run| run.repository == repository.id) else {
                return Answer::error(404, "Not Found");
            };
            let all: Vec<Value> =
                run.jobs.iter().map(|job| shape_of_job(state, repository, &actions.jobs[job])).collect();
            let total = all.len();
            page(state, asked, &all, |part| json!({ "total_count": total, "jobs": part }))
        }
        ["jobs", id] => {
            let job = id.parse().ok().and_then(|id: u64| actions.jobs.get(&id));
            match job.filter(|job| job.repository == repository.id) {
                Some(job) => Answer::ok(shape_of_job(state, repository, job)),
                None => Answer::error(404, "Not Found"),
            }
        }
        _ => Answer::error(404, "Not Found"),
    }
}

fn shape_of_run(state: &State, repository: &Repository, run: &Run) -> Value {
    let (base, status) = (&state.base, state.actions.status(run));
    let name = repository.full_name();
    let url = format!("{base}/repos/{name}/actions/runs/{}", run.id);
    let head = repository.head();
    let sha = head.map_or_else(String::new, |head| head.oid.clone());
    let mut minimal = shapes::repository(base, &state.world, repository);
    for key in ["license", "permissions"] {
        minimal.as_object_mut().expect("an object").remove(key);
    }
    let who = json!({ "name": "Octo Cat", "email": "octo@example.org" });
    json!({
        "id": run.id, "name": "ci", "node_id": format!("WFR_{}", run.id), "check_suite_id": run.id, "check_suite_node_id": "CS",
        "head_branch": repository.branch, "head_sha": sha, "path": run.path, "display_title": "a change", "run_number": 1,
        "event": "push", "status": status.word(), "conclusion": (status == Status::Completed).then_some("success"),
        "workflow_id": 1, "url": url, "html_url": url, "pull_requests": [], "created_at": timestamp(run.created),
        "updated_at": timestamp(run.updated), "run_attempt": 1, "run_started_at": timestamp(run.created),
        "jobs_url": format!("{url}/jobs"), "logs_url": format!("{url}/logs"), "check_suite_url": format!("{url}/suite"),
        "artifacts_url": format!("{url}/artifacts"), "cancel_url": format!("{url}/cancel"), "rerun_url": format!("{url}/rerun"),
        "previous_attempt_url": null, "workflow_url": format!("{base}/repos/{name}/actions/workflows/1"),
        "head_commit": head.map(|head| json!({
            "id": head.oid, "tree_id": head.tree, "message": head.message, "timestamp": timestamp(head.time), "author": who, "committer": who,
        })),
        "repository": minimal, "head_repository": minimal,
    })
}

fn shape_of_job(state: &State, repository: &Repository, job: &Job) -> Value {
    let base = format!("{}/repos/{}/actions", state.base, repository.full_name());
    let (runner, runner_name) = job.runner.clone().unzip();
    json!({
        "id": job.id, "run_id": job.run, "run_url": format!("{base}/runs/{}", job.run), "run_attempt": 1,
        "node_id": format!("CR_{}", job.id), "head_sha": repository.head().map(|head| &head.oid),
        "url": format!("{base}/jobs/{}", job.id), "html_url": format!("{base}/jobs/{}", job.id), "status": job.status.word(),
        "conclusion": job.conclusion, "created_at": timestamp(job.created),
        "started_at": timestamp(job.started.unwrap_or(job.created)), "completed_at": job.completed.map(timestamp), "name": job.name,
        "steps": [], "check_run_url": format!("{base}/check-runs/{}", job.id), "labels": job.labels, "runner_id": runner,
        "runner_name": runner_name, "runner_group_id": runner.map(|_| 1), "runner_group_name": runner.map(|_| "Default"),
        "workflow_name": "ci", "head_branch": repository.branch,
    })
}
