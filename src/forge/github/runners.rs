//! This host's runners as GitHub knows them: registered by a just-in-time configuration for one job, listed, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::{Tally, read};
use super::{Github, GithubError, Secret};
use crate::forge::Spec;

/// GitHub's id of the group that every organisation and every repository has.
pub(super) const DEFAULT_GROUP: u64 = 1;
/// The most pages of a list of runners: ten thousand.
const MAX_PAGES: usize = 100;

/// What a runner is registered with, and whose jobs it may be given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// A repository, as `OWNER/NAME`.
    Repository(String),
    /// An organisation.
    Organization(String),
    /// A scale set of one of those.
    ScaleSet { of: Box<Self>, name: String },
}

impl Scope {
    pub(super) fn path(&self) -> String {
        match self {
            Self::ScaleSet { of, .. } => of.path(),
            Self::Repository(name) => format!("/repos/{name}/actions"),
            Self::Organization(name) => format!("/orgs/{name}/actions"),
        }
    }

    pub(super) fn owner(&self) -> &str {
        match self {
            Self::ScaleSet { of, .. } => of.owner(),
            Self::Repository(name) | Self::Organization(name) => name.split('/').next().unwrap_or_default(),
        }
    }
}

impl Scope {
    /// Where runners for a source's jobs are registered; nothing for what names no owner or repository at GitHub.
    pub fn of(spec: &Spec) -> Option<Self> {
        match spec {
            Spec::GithubOwner { owner } => Some(Self::Organization(owner.clone())),
            Spec::GithubRepository { owner, repository } => Some(Self::Repository(format!("{owner}/{repository}"))),
            Spec::GithubAll | Spec::Git(_) => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(name) | Self::Organization(name) => f.write_str(name),
            Self::ScaleSet { of, name } => write!(f, "{of} (scale set {name})"),
        }
    }
}

/// A configuration with which one runner takes one job.
#[derive(Debug, Clone)]
pub struct Jit {
    /// GitHub's number of the registration.
    pub registration: u64,
    /// What the runner's `--jitconfig` is given.
    pub configuration: Secret,
}

/// A runner that GitHub lists.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Registered {
    pub id: u64,
    pub name: String,
    /// It has a job now.
    pub busy: bool,
    /// `online` or `offline`.
    pub status: String,
}

/// Why there is no configuration.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunnerError {
    /// Nothing will change that but a person.
    #[error(
        "register a runner with {scope}: GitHub refuses it ({message}); the token needs to administer {scope}: `repo`, or \
         for a fine-grained token write access to Administration (of an organisation: to Self-hosted runners)"
    )]
    NotAllowed { scope: String, message: String },
    #[error(
        "register a runner with {scope}: it has no runner group `{group}`{known}; set runner_group to one that it has"
    )]
    NoGroup { scope: String, group: String, known: String },
    #[error("register a runner with {scope}: GitHub does not take the request: {message}")]
    Invalid { scope: String, message: String },
    /// Another name will do.
    #[error("register a runner with {scope}: the name {name} is taken")]
    NameTaken { scope: String, name: String },
    #[error(transparent)]
    Github(#[from] GithubError),
}

impl RunnerError {
    /// Whether trying again cannot help.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::NotAllowed { .. } | Self::NoGroup { .. } | Self::Invalid { .. })
            || matches!(self, Self::Github(GithubError::Unauthorized { .. }))
    }
}

/// What came of removing a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is there no more.
    Gone,
    /// The runner has a job: GitHub keeps it.
    Busy,
}

/// Lists of runners with their ETags.
#[derive(Debug, Clone, Default)]
pub struct RunnerMemory {
    pages: BTreeMap<String, (String, Option<String>, Vec<Registered>)>,
}

#[derive(Deserialize)]
struct Groups {
    runner_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Configured {
    runner: Registered,
    encoded_jit_config: String,
}

#[derive(Deserialize)]
struct List {
    runners: Vec<Registered>,
}

impl Github {
    /// Registers a runner for one job. `group` is the name of one of an organisation's runner groups.
    ///
    /// # Errors
    /// [`RunnerError`]
    pub async fn configure_runner(
        &self,
        scope: &Scope,
        name: &str,
        labels: &BTreeSet<String>,
        group: Option<&str>,
    ) -> Result<Jit, RunnerError> {
        let tally = Tally::default();
        let group = match (scope, group) {
            (Scope::Organization(_), Some(group)) => self.group(scope, group, &tally).await?,
            _ => DEFAULT_GROUP,
        };
        let client = self.api.client(scope.owner()).await?;
        let path = format!("{}/runners/generate-jitconfig", scope.path());
        let body = json!({ "name": name, "runner_group_id": group, "labels": labels, "work_folder": "_work" });
        let what = format!("register a runner with {scope}");
        let (status, bytes) = client.change(Method::POST, &path, Some(&body), &what, &tally).await?;
        let message = || told(&bytes);
        let scope = scope.to_string();
        match status {
            201 => {
                let configured: Configured = read(&what, &bytes)?;
                let configuration = Secret::new(&configured.encoded_jit_config);
                Ok(Jit { registration: configured.runner.id, configuration })
            }
            409 => Err(RunnerError::NameTaken { scope, name: name.to_owned() }),
            422 => Err(RunnerError::Invalid { scope, message: message() }),
            401 => Err(GithubError::Unauthorized { what }.into()),
            403 | 404 => Err(RunnerError::NotAllowed { scope, message: format!("{status}: {}", message()) }),
            status => Err(GithubError::Server { what, status }.into()),
        }
    }

    async fn group(&self, scope: &Scope, wanted: &str, tally: &Tally) -> Result<u64, RunnerError> {
        let client = self.api.client(scope.owner()).await?;
        let what = format!("look for the runner groups of {scope}");
        let path = format!("{}/runner-groups?per_page=100", scope.path());
        let got = client.get(&path, None, &what, tally).await.map_err(|error| match error {
            GithubError::Forbidden { message, .. } => {
                RunnerError::NotAllowed { scope: scope.to_string(), message: format!("403: {message}") }
            }
            GithubError::NotFound { .. } => RunnerError::NotAllowed {
                scope: scope.to_string(),
                message: "404: it shows no runner groups; only an organisation has them".to_owned(),
            },
            error => error.into(),
        })?;
        let groups: Groups = read(&what, &got.bytes)?;
        let found = groups.runner_groups.iter().find(|group| group.name.eq_ignore_ascii_case(wanted));
        found.map(|group| group.id).ok_or_else(|| {
            let names: Vec<&str> = groups.runner_groups.iter().map(|group| group.name.as_str()).collect();
            let known = if names.is_empty() { String::new() } else { format!(", only {}", names.join(", ")) };
            RunnerError::NoGroup { scope: scope.to_string(), group: wanted.to_owned(), known }
        })
    }

    /// The runners of a scope whose names begin so.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn runners(
        &self,
        scope: &Scope,
        prefix: &str,
        memory: &mut RunnerMemory,
        tally: &Tally,
    ) -> Result<Vec<Registered>, GithubError> {
        let client = self.api.client(scope.owner()).await?;
        let what = format!("list the runners of {scope}");
        let (mut found, mut pages) = (Vec::new(), BTreeMap::new());
        let mut at = Some(format!("{}/runners?per_page=100", scope.path()));
        while let Some(address) = at.filter(|_| pages.len() < MAX_PAGES) {
            let known = memory.pages.get(&address);
            let got = client.get(&address, known.map(|(etag, ..)| etag.as_str()), &what, tally).await?;
            let page = match known.filter(|_| got.unchanged) {
                Some(known) => known.clone(),
                None => (got.etag.unwrap_or_default(), got.next, read::<List>(&what, &got.bytes)?.runners),
            };
            found.extend(page.2.iter().filter(|one| one.name.starts_with(prefix)).cloned());
            at = page.1.clone();
            pages.insert(address, page);
        }
        memory.pages = pages;
        Ok(found)
    }

    /// Takes a registration back, unless its runner has a job.
    ///
    /// # Errors
    /// [`GithubError`]
    pub async fn remove_runner(&self, scope: &Scope, registration: u64) -> Result<Removal, GithubError> {
        let client = self.api.client(scope.owner()).await?;
        let what = format!("remove a runner of {scope}");
        let path = format!("{}/runners/{registration}", scope.path());
        let (status, bytes) = client.change(Method::DELETE, &path, None, &what, &Tally::default()).await?;
        match status {
            204 | 404 => Ok(Removal::Gone),
            422 => Ok(Removal::Busy),
            401 => Err(GithubError::Unauthorized { what }),
            400..=499 => Err(GithubError::Forbidden { what, message: told(&bytes) }),
            status => Err(GithubError::Server { what, status }),
        }
    }
}

/// What GitHub says to a refused request.
pub(super) fn told(bytes: &[u8]) -> String {
    let value = serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let text = value.as_ref().and_then(|value| value["message"].as_str()).unwrap_or("it does not say why");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}
