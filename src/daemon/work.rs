//! How work begins here: checkouts and orders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Daemon;
use super::sources::Place;
use crate::forge::git::{self, History};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::task::{Fence, Workload};
use crate::runner::{
    Checkout, Command, ImageKeeping, Limits, Order, Outcome, Plan, PlannedJob, RunnerNews, Secret, SecretSource, Work,
    Workflow,
};
use crate::workflow::{self, Job};

/// How this host executes work, as its operator says.
#[derive(Debug, Clone, Default)]
pub struct WorkSettings {
    /// The operator's own program, which executes tasks in place of act; none where empty.
    pub command: Vec<String>,
    /// Below which tasks have their directories; the data directory where not given.
    pub work_dir: Option<PathBuf>,
    /// Bytes of disk below which nothing is claimed; where not given a tenth of the disk, 5 GiB at most.
    pub min_free: Option<u64>,
    /// Bytes that a run may upload as artifacts; the usual limit where not given.
    pub artifacts_limit: Option<u64>,
    /// The container engine's socket; looked for where not given.
    pub engine: Option<PathBuf>,
    /// The image of jobs that name none.
    pub image: Option<String>,
    /// Whether images may be fetched.
    pub pull: bool,
    /// How much of what was fetched is kept.
    pub images: ImageKeeping,
    pub limits: Limits,
    /// By the repository's name, lower case, and the secret's, upper case.
    pub secrets: BTreeMap<String, BTreeMap<String, SecretSource>>,
}

impl WorkSettings {
    /// The directory that is this node's alone to work in: several nodes of a host may share a `work_dir`.
    pub(super) fn root(&self, data_dir: &Path, peer: &PeerId) -> PathBuf {
        match &self.work_dir {
            None => data_dir.join("work"),
            Some(dir) => {
                let peer = peer.to_string();
                dir.join(format!("runmesh-{}", &peer[peer.len().saturating_sub(10)..]))
            }
        }
    }
}

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
        let checkout: Checkout = Box::new(move |into| {
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
        });
        let work = if self.settings.work.command.is_empty() {
            let secrets = self.secrets_of(&workload);
            let artifacts = self.artifacts_path(&task, fence.attempt);
            Work::Workflow(Workflow { workload: workload.clone(), checkout, secrets, artifacts })
        } else {
            let shown = self.node.task(&task).map(|folded| self.task(&task, folded));
            let shown = serde_json::to_value(shown).map_err(|error| format!("showing the task: {error}"))?;
            let program = self.settings.work.command.clone();
            Work::Command(Command { workload: workload.clone(), task: shown, program, checkout })
        };
        let order = Order {
            task,
            fence,
            repository: workload.repository.name.clone(),
            path: workload.path.clone(),
            isolation: self.settings.isolation,
            log,
            time_limit: Duration::from_secs(workload.time_limit_s.into()),
            work,
        };
        self.logs.begins(task, fence.attempt);
        self.runner.start(order).await.map_err(|error| error.to_string())
    }

    /// The secrets that this host's settings name for the task's repository.
    fn secrets_of(&self, workload: &Workload) -> BTreeMap<String, Result<Secret, String>> {
        let named = self.settings.work.secrets.get(&workload.repository.name.to_lowercase());
        named.into_iter().flatten().map(|(name, source)| (name.clone(), source.read())).collect()
    }

    /// What the runner room says. Of GitHub's runners nothing is the kernel's to know by itself.
    pub(super) fn on_ran(&mut self, task: TaskId, fence: Fence, outcome: Outcome) {
        match outcome {
            Outcome::Task(report) => self.on_report(task, fence, report),
            Outcome::News(RunnerNews::JobStarted(job)) => {
                tracing::info!("a runner here begins job {} of {}", job.job, job.repository);
                self.on_runner_begins(task, fence, &job.repository);
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
    Ok(Plan { jobs: read.jobs.iter().map(planned).collect(), secrets: workflow::secrets(&bytes) })
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
