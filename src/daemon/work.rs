//! How work begins here: checkouts and orders.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Daemon;
use super::sources::Place;
use crate::control::Writing;
use crate::forge::git::{self, History};
use crate::kernel::id::TaskId;
use crate::kernel::task::{Fence, Workload};
use crate::runner::{Order, Outcome, Plan, PlannedJob, RunnerNews, Work, Workflow};
use crate::workflow::{self, Job};

impl Daemon {
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
        self.logs.insert((task, fence.attempt), watch::Sender::new(Writing::Going));
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
