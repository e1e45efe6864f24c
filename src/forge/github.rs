//! GitHub, or a server that speaks its API.
//!
//! Owns: credentials ([`Credentials`]), the calls and the limits they obey ([`Github`]), what a look into a source
//! finds ([`Github::discover`]), fetching a commit to run ([`Github::checkout`]), the jobs that wait for a runner
//! ([`Github::active_jobs`]) and the runners registered for them ([`Github::configure_runner`]). Promises: one call covers up to
//! 100 repositories, and only files that are new are read; GraphQL and REST stand in for each other; what a token has
//! left is never used up, a fifth is its owner's; a token is sent to its own host alone and shown to nobody; every wait
//! ends. Leaves keeping [`Memory`] to the caller, and who looks when to the kernel.

mod api;
mod credentials;
mod cycle;
mod graphql;
mod jobs;
mod limits;
mod memory;
mod proxy;
mod rest;
mod runners;
mod runs;
mod scale_set;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::io::{RepositoryMark, SourceKey};
use crate::kernel::known::Known;
use crate::kernel::task::{Repository, Workload};

use api::Api;
pub use api::{Endpoint, Tally};
pub use credentials::{Credentials, CredentialsError, Lookup, Secret};
pub use jobs::{Job, JobMemory, JobState, LONGEST_JOB_S, LONGEST_WAIT_S};
pub use limits::Limits;
pub use memory::Memory;
pub use proxy::Proxy;
pub use runners::{Jit, Registered, Removal, RunnerError, RunnerMemory, Scope};
pub use scale_set::{Agent, JobWord, Message, ScaleSet, ScaleSetError, Service, Session, Statistics, Word};

use super::git::{self, GitError};
use super::{Asked, Findings, Head, Manner, Spec};

/// Which repositories of a source are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only those whose `owner/name`, or name where the pattern has no `/`, matches one of these; all where there is
    /// none. `*` and `?` stand for anything and for one character.
    pub include: Vec<String>,
    /// Not those that match one of these.
    pub exclude: Vec<String>,
    /// Forks too.
    pub forks: bool,
    /// Jobs of pull requests from forks too: anybody may open one, and its code would run on this host.
    pub fork_pull_requests: bool,
    /// Only those pushed to within so many days.
    pub since_days: Option<u32>,
}

/// An owner or one repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub owner: String,
    /// One repository of the owner's; all where it is absent.
    pub repository: Option<String>,
}

impl Target {
    /// What a source names; nothing for what is not GitHub's, and for `github:*`, which only [`Github::owners`] resolves.
    pub fn of(spec: &Spec) -> Option<Self> {
        match spec {
            Spec::GithubOwner { owner } => Some(Self { owner: owner.clone(), repository: None }),
            Spec::GithubRepository { owner, repository } => {
                Some(Self { owner: owner.clone(), repository: Some(repository.clone()) })
            }
            Spec::GithubAll | Spec::Git(_) => None,
        }
    }
}

/// What one look into a source took and changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cycle {
    pub calls: u64,
    /// What GitHub charged for them.
    pub points: u64,
    /// Of answers' bodies.
    pub bytes: u64,
    pub milliseconds: u64,
    pub repositories: u64,
    /// Workflow files that were not there before, that changed, and that are gone.
    pub new: u64,
    pub changed: u64,
    pub gone: u64,
}

/// What a look starts from.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// What the mesh has of its repositories, by their ids.
    pub known: &'a BTreeMap<String, Known>,
    /// The present one, in minutes since 1970.
    pub minute: u64,
    /// Repositories that others look into.
    pub except: &'a BTreeSet<RepositoryMark>,
    pub manner: Manner,
    /// Is told how many of how many repositories or files have been read.
    pub progress: &'a (dyn Fn(usize, usize) + Send + Sync),
}

/// A look into a source.
#[derive(Debug)]
pub struct Looked {
    /// To be handed to the next look; also after a failure.
    pub memory: Memory,
    pub cycle: Cycle,
    pub outcome: Result<Findings, GithubError>,
}

/// What went wrong with GitHub.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GithubError {
    #[error("`{0}` is no API address: write https://HOST or https://HOST/api/v3; http only for this machine itself")]
    Endpoint(String),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("make a client for {host}: {why}")]
    Client { host: String, why: String },
    #[error(
        "{what}: GitHub does not accept the token (401): it may have expired; give a new one in GITHUB_TOKEN, or run `gh auth login`"
    )]
    Unauthorized { what: String },
    #[error("{what}: GitHub refuses it (403): {message}; the token needs read access to contents and metadata")]
    Forbidden { what: String, message: String },
    #[error("{what}: GitHub shows no such thing to this token (404): check the name, and that the token may see it")]
    NotFound { what: String },
    #[error("{what}: {limit}, until {}", limits::clock(*until))]
    Limited {
        what: String,
        limit: limits::Reason,
        /// Seconds since 1970.
        until: u64,
    },
    #[error("{what}: {why}; it is tried again at the next look")]
    Unreachable { what: String, why: String },
    #[error("{what}: GitHub answers with status {status}; it is tried again at the next look")]
    Server { what: String, status: u16 },
    #[error("{what}: an answer that cannot be read: {why}")]
    Answer { what: String, why: String },
    #[error("submit {workflow} of {repository}: {why}")]
    Refused { repository: String, workflow: String, why: String },
    #[error(
        "commit {commit} is not on {branch} of {repository}: this host runs only what stands on a branch of a repository \
         that it lists"
    )]
    Elsewhere { commit: String, branch: String, repository: String },
    #[error("{0}")]
    Git(Arc<GitError>),
}

impl GithubError {
    /// Until when it will not get better, in seconds since 1970.
    pub const fn until(&self) -> Option<u64> {
        if let Self::Limited { until, .. } = self { Some(*until) } else { None }
    }
}

/// The way to one GitHub with one set of credentials. A copy is the same way.
#[derive(Debug, Clone)]
pub struct Github {
    api: Arc<Api>,
    selection: Arc<Selection>,
}

impl Github {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When the key of an app cannot be read, or the system has no certificates. Must be called within a runtime.
    pub fn new(endpoint: Endpoint, credentials: Credentials, selection: Selection) -> Result<Self, GithubError> {
        Self::through(Proxy::from_environment(), endpoint, credentials, selection)
    }

    /// The same with a proxy that is none of the environment's.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn through(
        proxy: Proxy,
        endpoint: Endpoint,
        credentials: Credentials,
        selection: Selection,
    ) -> Result<Self, GithubError> {
        Ok(Self { api: Arc::new(Api::new(endpoint, proxy, credentials)?), selection: Arc::new(selection) })
    }

    /// What stands in [`Repository::host`] for all its repositories.
    pub fn host(&self) -> &str {
        &self.api.endpoint.host
    }

    /// What all nodes call the source.
    pub fn key(&self, target: &Target) -> SourceKey {
        let owner = target.owner.to_ascii_lowercase();
        match &target.repository {
            None => format!("{}/{owner}", self.host()),
            Some(repository) => format!("{}/{owner}/{}", self.host(), repository.to_ascii_lowercase()),
        }
    }

    /// What the tokens have left, as far as their answers have told.
    pub fn limits(&self) -> Vec<Limits> {
        self.api.known().iter().map(|client| client.limits()).collect()
    }

    /// The owners of all repositories that the credentials reach: those of the account, those it works on, those of its
    /// organisations, or those that the app is installed for.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn owners(&self, memory: &mut Memory, tally: &Tally) -> Result<Vec<String>, GithubError> {
        self.api.owners(memory, tally).await
    }

    /// Whether the credentials reach a source: one or two small questions.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn reach(&self, target: &Target) -> Result<(), GithubError> {
        let client = self.api.client(&target.owner).await?;
        rest::look_for(&client, target, &Tally::default()).await
    }

    /// Looks for the workflows of a source.
    pub async fn discover(&self, target: &Target, memory: Memory, terms: Terms<'_>) -> Looked {
        let began = std::time::Instant::now();
        let tally = Tally::default();
        let key = self.key(target);
        let mut look = cycle::Look { github: self, target, key, memory, tally: &tally, cycle: Cycle::default() };
        let outcome = look.run(terms).await;
        let (memory, mut cycle) = (look.memory, look.cycle);
        (cycle.calls, cycle.points, cycle.bytes) = tally.sums();
        cycle.milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Looked { memory, cycle, outcome }
    }

    /// The task of a person's or program's request to run a workflow file of `OWNER/NAME`, at the head of its default
    /// branch. `path` may leave the folder `.github/workflows/` out.
    ///
    /// # Errors
    /// [`GithubError::Refused`] says why it cannot run; else what went wrong.
    pub async fn manual(&self, repository: &str, path: &str, asked: &Asked) -> Result<Workload, GithubError> {
        let (owner, _) = repository.split_once('/').unwrap_or((repository, ""));
        let client = self.api.client(owner).await?;
        let path = git::full_path(path);
        let refused =
            |why: String| GithubError::Refused { repository: repository.to_owned(), workflow: path.clone(), why };
        let tally = Tally::default();
        let (found, head) = rest::repository(&client, repository, &tally).await?;
        let head = head.ok_or_else(|| refused("the repository has no commits yet".to_owned()))?;
        if !git::is_workflow(&path) {
            return Err(refused("only .github/workflows/*.yml and *.yaml are workflow files".to_owned()));
        }
        let bytes =
            rest::file(&client, &found.name, &path, &head.commit, &tally).await.map_err(|error| match error {
                GithubError::NotFound { .. } => refused("there is no such file at its default branch".to_owned()),
                error => error,
            })?;
        let workflow = git::read(&path, bytes).await;
        let repository =
            Repository { host: self.host().to_owned(), id: found.id.to_string(), name: found.name.clone() };
        let site = super::decide::Site { source: "", repository: &repository, head: &head };
        site.manual(&path, &workflow, asked).map_err(refused)
    }

    /// Fetches the commit of a task, without its history, into an empty folder.
    ///
    /// # Errors
    /// [`GithubError::Elsewhere`] when the commit is not on the branch that the task names; what GitHub or git says; why
    /// there is no token.
    pub async fn checkout(&self, workload: &Workload, into: &Path) -> Result<(), GithubError> {
        use base64::Engine as _;
        let name = &workload.repository.name;
        let client = self.api.client(name.split('/').next().unwrap_or_default()).await?;
        // Whoever introduced the task may be a member that lies, and GitHub hands out commits of forks by their ids too.
        let Workload { commit, r#ref, .. } = workload;
        let on_branch = match r#ref.strip_prefix("refs/heads/") {
            Some(branch) => rest::is_on_branch(&client, name, branch, commit, &Tally::default()).await?,
            None => false,
        };
        if !on_branch {
            let (commit, branch, repository) = (commit.clone(), r#ref.clone(), name.clone());
            return Err(GithubError::Elsewhere { commit, branch, repository });
        }
        let url = format!("{}/{name}.git", self.api.endpoint.web);
        let token = client.token().await?;
        let pair = format!("x-access-token:{}", token.expose());
        let authorization = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        let fetched = git::fetch(&url, Some(&authorization), &workload.commit, &workload.r#ref, into).await;
        fetched.map_err(|error| GithubError::Git(Arc::new(error)))
    }
}

/// A repository as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    id: u64,
    /// `owner/name`
    name: String,
    archived: bool,
    disabled: bool,
    fork: bool,
    /// RFC 3339, UTC.
    pushed_at: String,
    /// The default branch, without `refs/heads/`.
    branch: String,
    /// Where it stands; nothing where the list does not tell.
    state: Option<Standing>,
}

/// What a repository has at its head.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    /// Nothing in a repository without commits.
    head: Option<Head>,
    files: Vec<File>,
}

/// A file in the workflows' folder.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct File {
    path: String,
    blob: String,
    size: usize,
}

/// Locks what is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
