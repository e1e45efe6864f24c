//! How work begins and ends here: checkouts, logs, reports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Daemon;
use super::sources::Place;
use crate::forge::git::{self, History};
use crate::kernel::id::TaskId;
use crate::kernel::io::{Input, Report};
use crate::kernel::task::{Fence, Workload};
use crate::runner::{Order, Outcome, Plan, PlannedJob, RunnerNews, Work, Workflow};
use crate::workflow::{self, Job};

impl Daemon {
    pub(super) fn log_path(&self, task: &TaskId, attempt: u32) -> PathBuf {
        self.settings.data_dir.join("logs").join(format!("{task}-{attempt}.log"))
    }

    /// The log of the latest attempt that ran here.
    pub(super) fn latest_log(&self, task: &TaskId) -> Option<PathBuf> {
        let attempts = self.node.task(task)?.claims.iter().filter(|claim| claim.author.peer == self.node.peer());
        let mut attempts: Vec<u32> = attempts.map(|claim| claim.fence.attempt).collect();
        attempts.sort_unstable();
        let mut paths = attempts.iter().rev().map(|attempt| self.log_path(task, *attempt));
        paths.find(|path| path.exists() || self.logs.contains_key(task))
    }

    /// Gives a task to the runner room.
    pub(super) async fn start_work(
        &mut self,
        task: TaskId,
        fence: Fence,
        workload: Arc<Workload>,
    ) -> Result<(), String> {
        let place = self.sources.place_of(&workload).cloned();
        let place = place.ok_or("this host does not list the task's repository any more")?;
        let log = self.log_path(&task, fence.attempt);
        if let Some(folder) = log.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|error| format!("making {}: {error}", folder.display()))?;
        }
        let of_checkout = workload.clone();
        let order = Order {
            task,
            fence,
            repository: workload.repository.name.clone(),
            path: workload.path.clone(),
            isolation: self.settings.isolation,
            log,
            time_limit: Duration::from_secs(workload.time_limit_s.into()),
            work: Work::Workflow(Workflow {
                checkout: Box::new(move |into| {
                    Box::pin(async move {
                        let Workload { commit, r#ref, path, .. } = &*of_checkout;
                        match place {
                            Place::Local(repository) => {
                                let copied = git::checkout(&repository, commit, r#ref, &into, History::Full).await;
                                copied.map_err(|error| error.to_string())?;
                            }
                            Place::Github(github, _) => {
                                let fetched = github.checkout(&of_checkout, &into).await;
                                fetched.map_err(|error| error.to_string())?;
                            }
                        }
                        plan(&into, path).await
                    })
                }),
                workload,
            }),
        };
        self.logs.insert(task, watch::Sender::new(false));
        self.runner.start(order).await.map_err(|error| error.to_string())
    }

    /// What the runner room says. Of GitHub's runners nothing is the kernel's to know by itself.
    pub(super) fn on_ran(&mut self, task: TaskId, fence: Fence, outcome: Outcome) {
        match outcome {
            Outcome::Task(report) => self.on_report(task, fence, report),
            Outcome::News(RunnerNews::JobStarted(job)) => {
                tracing::info!("a runner here begins job {} of {}", job.job, job.repository);
                self.on_runner_begins();
            }
            Outcome::News(RunnerNews::Started | RunnerNews::JobCompleted) => (),
            Outcome::Runner(end) => self.on_runner_end(task, fence, &end),
        }
    }

    fn on_report(&mut self, task: TaskId, fence: Fence, report: Report) {
        if let Some(log) = self.logs.remove(&task) {
            log.send_replace(true);
        }
        self.feed(Input::Ran { task, fence, report });
    }
}

/// The jobs that the checked-out workflow file promises.
async fn plan(checkout: &Path, path: &str) -> Result<Plan, String> {
    let file = checkout.join(path);
    let bytes = tokio::fs::read(&file).await.map_err(|error| format!("reading {path} of the checkout: {error}"))?;
    let read = workflow::read(path, &bytes);
    Ok(Plan { jobs: read.jobs.iter().map(planned).collect() })
}

fn planned(job: &Job) -> PlannedJob {
    PlannedJob {
        id: job.id.clone(),
        name: job.name.clone().unwrap_or_else(|| job.id.clone()),
        legs: job.legs.count().and_then(|legs| u32::try_from(legs).ok()),
        labels: job.runs_on.labels.clone(),
        timeout: job.timeout_s.map(|seconds| Duration::from_secs(seconds.into())),
        container: job.container,
        services: job.services,
        uses: job.uses.clone(),
    }
}
