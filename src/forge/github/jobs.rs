//! Jobs that wait at GitHub for a runner, and what becomes of them.
//!
//! Jobs are counted, not runs: a matrix is many jobs. Every list is asked for with its ETag, so one that is as it was
//! costs nothing of the token's limit.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::kernel::task::{Conclusion, GITHUB_RUNNER, Priority, Repository, RunEvent, Trigger, Workload};

use super::api::{Client, Tally, read};
use super::cycle::seconds;
use super::memory::Memory;
use super::{Github, GithubError, Target, graphql, limits, rest};

/// How long GitHub lets a job of a self-hosted runner run, in seconds: 5 days ("Usage limits" of its documentation). It
/// ends jobs at their own, shorter, `timeout-minutes` itself.
pub const LONGEST_JOB_S: u32 = 5 * 86_400;
/// How long GitHub lets a job wait for a self-hosted runner, in seconds: 24 hours (the same page).
pub const LONGEST_WAIT_S: u32 = 86_400;
/// Lists that are asked for at once.
const AT_ONCE: usize = 8;
/// The most pages of one list: ten thousand runs or jobs.
const MAX_PAGES: usize = 100;
/// The beginnings of labels that mean runners of GitHub's own.
const HOSTED: [&str; 3] = ["ubuntu-", "windows-", "macos-"];

/// A job of a workflow run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: u64,
    pub run_attempt: u32,
    pub repository: Repository,
    /// Of the workflow file; empty where GitHub does not tell.
    pub path: String,
    pub name: String,
    pub commit: String,
    pub branch: String,
    /// Lower case.
    pub labels: BTreeSet<String>,
    pub state: JobState,
    /// The name of the runner that has it.
    pub runner: Option<String>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It waits for something else than a runner: an approval, another run.
    Held,
    /// It waits for a runner.
    Queued,
    InProgress,
    Completed {
        conclusion: Conclusion,
        /// In milliseconds, of whole seconds.
        duration_ms: u64,
    },
}

impl Job {
    /// Whether it wants a runner of one's own: what asks for a machine of GitHub's does not, unless it says
    /// `self-hosted` as well.
    pub fn is_for_own_runners(&self) -> bool {
        let hosted = |label: &String| HOSTED.iter().any(|begin| label.starts_with(begin));
        self.labels.contains("self-hosted") || !(self.labels.is_empty() || self.labels.iter().any(hosted))
    }

    /// The mesh's task of it.
    pub fn workload(&self) -> Workload {
        let mut labels = self.labels.clone();
        labels.insert(GITHUB_RUNNER.to_owned());
        Workload {
            repository: self.repository.clone(),
            path: self.path.clone(),
            trigger: Trigger::GithubJob { job: self.id, run_attempt: self.run_attempt },
            commit: self.commit.clone(),
            r#ref: format!("refs/heads/{}", self.branch),
            event: RunEvent::WorkflowDispatch,
            name: self.name.clone(),
            tags: BTreeSet::new(),
            priority: Priority::of(&BTreeSet::new()),
            labels,
            inputs: BTreeMap::new(),
            time_limit_s: LONGEST_JOB_S,
            fallback_s: LONGEST_WAIT_S,
            concurrency: None,
        }
    }
}

/// What is remembered of a repository's runs and jobs from one look to the next. Losing it costs calls.
#[derive(Debug, Clone, Default)]
pub struct JobMemory {
    runs: BTreeMap<String, Kept<Run>>,
    jobs: BTreeMap<String, Kept<Raw>>,
}

#[derive(Debug, Clone)]
struct Kept<T> {
    etag: String,
    next: Option<String>,
    items: Vec<T>,
}

#[derive(Debug, Clone, Deserialize)]
struct Run {
    id: u64,
    #[serde(default)]
    path: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Raw {
    id: u64,
    #[serde(default = "first")]
    run_attempt: u32,
    head_sha: String,
    head_branch: Option<String>,
    status: String,
    conclusion: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
    name: String,
    #[serde(default)]
    labels: Vec<String>,
    runner_name: Option<String>,
}

const fn first() -> u32 {
    1
}

#[derive(Deserialize)]
struct Runs {
    workflow_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Raw>,
}

impl From<Runs> for Vec<Run> {
    fn from(page: Runs) -> Self {
        page.workflow_runs
    }
}

impl From<Jobs> for Vec<Raw> {
    fn from(page: Jobs) -> Self {
        page.jobs
    }
}

impl Raw {
    fn job(&self, repository: &Repository, path: &str) -> Job {
        let time = |text: &Option<String>| text.as_deref().and_then(seconds);
        let took = time(&self.completed_at).zip(time(&self.started_at)).map(|(end, start)| end.saturating_sub(start));
        let state = match self.status.as_str() {
            "queued" => JobState::Queued,
            "in_progress" => JobState::InProgress,
            "completed" => JobState::Completed {
                conclusion: conclusion(self.conclusion.as_deref().unwrap_or_default()),
                duration_ms: took.unwrap_or_default() * 1_000,
            },
            _ => JobState::Held,
        };
        Job {
            id: self.id,
            run_attempt: self.run_attempt,
            repository: repository.clone(),
            path: path.split('@').next().unwrap_or_default().to_owned(),
            name: self.name.clone(),
            commit: self.head_sha.clone(),
            branch: self.head_branch.clone().unwrap_or_default(),
            labels: self.labels.iter().map(|label| label.to_lowercase()).collect(),
            state,
            runner: self.runner_name.clone().filter(|name| !name.is_empty()),
        }
    }
}

/// GitHub has more words for an end than a task has.
fn conclusion(word: &str) -> Conclusion {
    match word {
        "neutral" => Conclusion::Success,
        word => word.parse().unwrap_or(Conclusion::Failure),
    }
}

impl Github {
    /// The repositories of a source that are looked at, as [`Github::discover`] selects them.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn repositories(
        &self,
        target: &Target,
        memory: &mut Memory,
        tally: &Tally,
    ) -> Result<Vec<Repository>, GithubError> {
        let client = self.api.client(&target.owner).await?;
        let listed = match graphql::list(&client, target, self.selection.forks, tally).await {
            Err(error @ GithubError::Unauthorized { .. }) => return Err(error),
            Err(_) => rest::list(&client, target, memory, tally).await?,
            Ok(listed) => listed,
        };
        let now = limits::now();
        let listed = listed.into_iter().filter(|one| self.selection.admits(one, now));
        let repository = |id: u64, name: String| Repository { host: self.host().to_owned(), id: id.to_string(), name };
        Ok(listed.map(|one| repository(one.id, one.name)).collect())
    }

    /// All jobs of a repository's runs that are queued or in progress, by id; and those of `asked` that are not among
    /// them, one by one. Of those a job that GitHub does not show any more is left out.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn active_jobs(
        &self,
        repository: &Repository,
        asked: &BTreeSet<u64>,
        memory: &mut JobMemory,
        tally: &Tally,
    ) -> Result<BTreeMap<u64, Job>, GithubError> {
        let name = &repository.name;
        let client = self.api.client(name.split('/').next().unwrap_or_default()).await?;
        let what = format!("look for the jobs of {name}");
        let (mut runs, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for status in ["queued", "in_progress"] {
            let first = format!("/repos/{name}/actions/runs?status={status}&per_page=100");
            let (found, pages) = list::<Run, Runs>(&client, first, &memory.runs, &what, tally).await?;
            runs.extend(found.into_iter().map(|run| (run.id, run.path)));
            seen.extend(pages.keys().cloned());
            memory.runs.extend(pages);
        }
        memory.runs.retain(|address, _| seen.contains(address));
        let mut lists = Vec::new();
        for (id, path) in runs {
            let first = format!("/repos/{name}/actions/runs/{id}/jobs?filter=latest&per_page=100");
            let (client, kept, what) = (&client, &memory.jobs, &what);
            lists.push(async move {
                Ok::<_, GithubError>((path, list::<Raw, Jobs>(client, first, kept, what, tally).await?))
            });
        }
        let lists: Vec<_> = stream::iter(lists).buffered(AT_ONCE).collect().await;
        let (mut jobs, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for list in lists {
            let (path, (found, pages)) = list?;
            jobs.extend(found.iter().map(|raw| (raw.id, raw.job(repository, &path))));
            kept.extend(pages);
        }
        memory.jobs = kept;
        let mut missing = Vec::new();
        for id in asked {
            if !jobs.contains_key(id) {
                missing.push(self.job(&client, repository, *id, tally));
            }
        }
        let missing: Vec<_> = stream::iter(missing).buffered(AT_ONCE).collect().await;
        for job in missing {
            jobs.extend(job?.map(|job| (job.id, job)));
        }
        Ok(jobs)
    }

    /// How the job stands that this runner has had in a run of `OWNER/NAME`; nothing where GitHub shows none.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn job_on_runner(
        &self,
        repository: &str,
        run: u64,
        runner: &str,
        tally: &Tally,
    ) -> Result<Option<JobState>, GithubError> {
        let client = self.api.client(repository.split('/').next().unwrap_or_default()).await?;
        let what = format!("look for the job of {runner} in {repository}");
        let first = format!("/repos/{repository}/actions/runs/{run}/jobs?filter=all&per_page=100");
        let (found, _) = list::<Raw, Jobs>(&client, first, &BTreeMap::new(), &what, tally).await?;
        let of_it = found.iter().find(|raw| raw.runner_name.as_deref() == Some(runner));
        let somewhere = Repository { host: self.host().to_owned(), id: String::new(), name: repository.to_owned() };
        Ok(of_it.map(|raw| raw.job(&somewhere, "").state))
    }

    async fn job(
        &self,
        client: &Client,
        repository: &Repository,
        id: u64,
        tally: &Tally,
    ) -> Result<Option<Job>, GithubError> {
        let what = format!("look for job {id} of {}", repository.name);
        match client.get(&format!("/repos/{}/actions/jobs/{id}", repository.name), None, &what, tally).await {
            Ok(got) => Ok(Some(read::<Raw>(&what, &got.bytes)?.job(repository, ""))),
            Err(GithubError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The items of a list, and its pages by their address.
type Listing<T> = (Vec<T>, BTreeMap<String, Kept<T>>);

/// All pages of a list. What is as it was is not sent again.
async fn list<T: Clone, P: DeserializeOwned + Into<Vec<T>>>(
    client: &Client,
    first: String,
    known: &BTreeMap<String, Kept<T>>,
    what: &str,
    tally: &Tally,
) -> Result<Listing<T>, GithubError> {
    let (mut items, mut pages, mut at) = (Vec::new(), BTreeMap::new(), Some(first));
    while let Some(address) = at.filter(|_| pages.len() < MAX_PAGES) {
        let before = known.get(&address);
        let got = client.get(&address, before.map(|page| page.etag.as_str()), what, tally).await?;
        let page = match (got.unchanged, before) {
            (true, Some(before)) => before.clone(),
            (true, None) => {
                let why = "unchanged, though nothing was known".to_owned();
                return Err(GithubError::Answer { what: what.to_owned(), why });
            }
            (false, _) => {
                let items = read::<P>(what, &got.bytes)?.into();
                Kept { etag: got.etag.unwrap_or_default(), next: got.next, items }
            }
        };
        items.extend(page.items.iter().cloned());
        at = page.next.clone();
        pages.insert(address, page);
    }
    Ok((items, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(labels: &[&str]) -> Job {
        let raw = Raw {
            id: 7,
            run_attempt: 2,
            head_sha: "c".repeat(40),
            head_branch: Some("main".to_owned()),
            status: "queued".to_owned(),
            conclusion: None,
            started_at: None,
            completed_at: None,
            name: "build".to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            runner_name: Some(String::new()),
        };
        let repository = Repository { host: "h".to_owned(), id: "1".to_owned(), name: "o/r".to_owned() };
        raw.job(&repository, ".github/workflows/ci.yml@main")
    }

    #[test]
    fn what_asks_for_githubs_own_machines_is_no_demand() {
        for labels in [&["self-hosted", "Linux"][..], &["gpu"], &["self-hosted", "ubuntu-22.04"]] {
            assert!(job(labels).is_for_own_runners(), "{labels:?}");
        }
        for labels in [&["ubuntu-latest"][..], &["Windows-2022"], &["macos-14", "gpu"], &[]] {
            assert!(!job(labels).is_for_own_runners(), "{labels:?}");
        }
    }

    #[test]
    fn a_job_becomes_a_task_that_the_mesh_alone_may_run() {
        use crate::kernel::task::Policy;
        let one = job(&["Self-Hosted", "X64"]);
        assert_eq!((one.runner.as_ref(), one.path.as_str()), (None, ".github/workflows/ci.yml"));
        let workload = one.workload();
        assert_eq!(workload.trigger, Trigger::GithubJob { job: 7, run_attempt: 2 });
        assert_eq!(workload.policy(), Policy::MeshOnly);
        assert!(workload.labels.iter().eq([GITHUB_RUNNER, "self-hosted", "x64"]), "{:?}", workload.labels);
        crate::wire::entry::check_workload(&workload).expect("other nodes take it");
    }

    #[test]
    fn every_word_for_an_end_is_understood() {
        assert_eq!(conclusion("success"), Conclusion::Success);
        assert_eq!(conclusion("neutral"), Conclusion::Success);
        assert_eq!(conclusion("cancelled"), Conclusion::Cancelled);
        assert_eq!(conclusion("action_required"), Conclusion::Failure);
    }
}
