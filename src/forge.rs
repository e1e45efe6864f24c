//! Where workflows live.
//!
//! Owns: the names of sources ([`Spec`]) and what a look into one finds ([`Findings`]). Promises: a source is only read,
//! nothing of it is executed, and every wait ends. Leaves the meaning of a file to `workflow`, who looks and when to the
//! kernel, and running to `runner`.

mod decide;
pub mod git;
pub mod github;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::kernel::io::{RepositoryMark, SourceKey};
use crate::kernel::known::Gone;
use crate::kernel::task::{Policy, Priority, Repository, RunEvent, Tag, Trigger, Workload};
use crate::workflow::{Dropped, Occasion, Workflow};

/// How long the mesh may leave a `p2p-eligible` task unclaimed before GitHub keeps it, in seconds: long enough for a
/// host to finish a short task first.
pub const FALLBACK_S: u32 = 600;
/// The most labels that a task may ask for; GitHub allows as many for a runner.
pub const MAX_LABELS: usize = 100;
/// The most characters of a label, as at GitHub.
const MAX_LABEL: usize = 256;
/// The most bytes of a path or a ref that a task may have.
const MAX_PATH: usize = 1_024;

pub use decide::Head;

/// The name of a source, as an operator writes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spec {
    /// `github:*`: all repositories that the credentials reach.
    GithubAll,
    /// `github:OWNER`: all repositories of a user or an organisation.
    GithubOwner { owner: String },
    /// `github:OWNER/REPO`
    GithubRepository { owner: String, repository: String },
    /// `git:PATH` or `git:NAME=PATH`: a local repository, or a folder of them.
    Git(GitSource),
}

/// A local repository or a folder of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitSource {
    /// What all nodes call it, instead of its root commit. A repository in a folder is then called `NAME/FOLDER`.
    pub name: Option<String>,
    pub path: PathBuf,
}

/// Why a text names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("`{0}` names no source: write github:OWNER, github:OWNER/REPO, github:*, git:PATH or git:NAME=PATH")]
    Form(String),
    #[error(
        "`{0}` names no GitHub owner or repository: write github:OWNER or github:OWNER/REPO, as in the page's address, or github:* for all that the token reaches"
    )]
    Github(String),
    #[error("`{0}` gives no path: write git:PATH, such as git:/srv/repositories or git:.")]
    NoPath(String),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let shown = || text.chars().take(200).collect::<String>();
        match text.split_once(':') {
            Some(("github", name)) => {
                let bad = || SpecError::Github(shown());
                match name.split_once('/') {
                    None if name == "*" => Ok(Self::GithubAll),
                    None if is_owner(name) => Ok(Self::GithubOwner { owner: name.to_owned() }),
                    Some((owner, repository)) if is_owner(owner) && is_repository(repository) => {
                        Ok(Self::GithubRepository { owner: owner.to_owned(), repository: repository.to_owned() })
                    }
                    _ => Err(bad()),
                }
            }
            Some(("git", place)) => {
                // A path that has a `=` in its first folder's name is written `./a=b`.
                let (name, path) = match place.split_once('=') {
                    Some((name, path)) if is_repository(name) => (Some(name.to_owned()), path),
                    _ => (None, place),
                };
                if path.is_empty() || path.contains('\0') {
                    return Err(SpecError::NoPath(shown()));
                }
                Ok(Self::Git(GitSource { name, path: PathBuf::from(path) }))
            }
            _ => Err(SpecError::Form(shown())),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GithubAll => f.write_str("github:*"),
            Self::GithubOwner { owner } => write!(f, "github:{owner}"),
            Self::GithubRepository { owner, repository } => write!(f, "github:{owner}/{repository}"),
            Self::Git(GitSource { name: None, path }) => {
                let path = path.to_string_lossy();
                // So that it is read back as it is.
                let dot = path.split_once('=').is_some_and(|(before, _)| is_repository(before));
                write!(f, "git:{}{path}", if dot { "./" } else { "" })
            }
            Self::Git(GitSource { name: Some(name), path }) => write!(f, "git:{name}={}", path.display()),
        }
    }
}

/// GitHub's logins have up to 39 letters, digits and hyphens; managed users' an underscore too.
fn is_owner(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn is_repository(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=100).contains(&text.len()) && text.bytes().all(fits) && text != "." && text != ".."
}

/// What a look into a source has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// All workflow files, by path.
    pub workflows: Vec<Found>,
    /// What of them should run now.
    pub workloads: Vec<Workload>,
    /// What of them would, were it not there since before the first look: to be taken note of.
    pub recorded: Vec<Workload>,
    /// The repositories that were looked into.
    pub seen: BTreeSet<RepositoryMark>,
    /// What else an operator should know.
    pub warnings: Vec<String>,
    /// What the mesh has pending of workflows that are there no more.
    pub gone: Vec<Gone>,
}

/// How a source is treated, as its operator says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    pub first_scan: FirstScan,
    pub duplicate: Duplicate,
}

/// What becomes of what a repository holds when the mesh first looks into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FirstScan {
    /// It runs, as whatever comes later.
    #[default]
    Submit,
    /// It is only taken note of.
    Record,
}

/// Whether the mesh runs a workflow that GitHub runs too and that does not have to run here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Duplicate {
    /// Not while a run of the same file and commit is known there.
    #[default]
    Avoid,
    Allow,
}

/// A person's or program's request to run a workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `workflow_dispatch` inputs.
    pub inputs: BTreeMap<String, String>,
    /// Its own id: the same one twice is one task.
    pub request: String,
    /// By the workflow's tags when absent.
    pub priority: Option<Priority>,
}

impl Findings {
    /// Adds what was found elsewhere.
    pub fn extend(&mut self, other: Self) {
        self.workflows.extend(other.workflows);
        self.workloads.extend(other.workloads);
        self.warnings.extend(other.warnings);
        self.gone.extend(other.gone);
        self.recorded.extend(other.recorded);
        self.seen.extend(other.seen);
    }

    /// Turns what would run of the repository of this name into what is taken note of.
    pub fn record(&mut self, repository: &str) {
        let (recorded, workloads) =
            std::mem::take(&mut self.workloads).into_iter().partition(|one| one.repository.name == repository);
        self.workloads = workloads;
        for one in &recorded {
            let Workload { path, .. } = one;
            let of_it = |found: &&mut Found| found.repository == repository && found.path == *path;
            for found in self.workflows.iter_mut().filter(of_it) {
                found.why_not = Some("it is there since before the first look; it runs once it changes".to_owned());
            }
        }
        self.recorded.extend(recorded);
    }
}

/// A workflow file that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    pub source: SourceKey,
    /// What people call the repository.
    pub repository: String,
    pub path: String,
    /// The commit at which it was read.
    pub commit: String,
    /// The workflow's `name:`; its path where it has none or no tags.
    pub name: String,
    pub tags: BTreeSet<Tag>,
    pub dropped: Vec<Dropped>,
    pub priority: Priority,
    /// Why it does not run now; nothing where it does.
    pub why_not: Option<String>,
}

/// Why a workflow with these tags never runs by discovery, if so.
fn policy_forbids(tags: &BTreeSet<Tag>) -> Option<String> {
    if tags.is_empty() {
        return Some("it has no tags".to_owned());
    }
    let words: Vec<&str> = tags.iter().map(|tag| tag.word()).collect();
    (Policy::of(tags) == Policy::GithubOnly).then(|| {
        format!("{} alone stays with GitHub; add p2p-only or p2p-eligible to run it here", words.join(" and "))
    })
}

/// What is the same of all workloads of one workflow file, whatever triggers them.
struct Draft<'a> {
    workflow: &'a Workflow,
    repository: &'a Repository,
    path: &'a str,
    commit: &'a str,
    r#ref: &'a str,
}

impl Draft<'_> {
    /// The workload of one trigger.
    ///
    /// # Errors
    /// Why no host could be told to run it.
    fn workload(
        &self,
        trigger: Trigger,
        event: RunEvent,
        inputs: BTreeMap<String, String>,
        mut tell: impl FnMut(String),
    ) -> Result<Workload, String> {
        if let Some(error) = &self.workflow.error {
            return Err(error.clone());
        }
        if self.workflow.jobs.is_empty() {
            return Err("it has no jobs".to_owned());
        }
        let labels = self.workflow.needs();
        if labels.len() > MAX_LABELS || labels.iter().any(|label| label.chars().count() > MAX_LABEL) {
            return Err(format!(
                "it asks for more than {MAX_LABELS} labels, or for one of more than {MAX_LABEL} characters"
            ));
        }
        if self.path.len() > MAX_PATH || self.r#ref.len() > MAX_PATH {
            return Err(format!("its path or its branch's name is longer than {MAX_PATH} bytes"));
        }
        let mut workload = Workload {
            repository: self.repository.clone(),
            path: self.path.to_owned(),
            trigger,
            commit: self.commit.to_owned(),
            r#ref: self.r#ref.to_owned(),
            event,
            name: self.workflow.name.clone(),
            tags: self.workflow.tags.clone(),
            priority: Priority::of(&self.workflow.tags),
            labels,
            inputs,
            time_limit_s: self.workflow.time_limit_s(),
            fallback_s: FALLBACK_S,
            concurrency: None,
        };
        let occasion = Occasion {
            repository: &self.repository.name,
            path: self.path,
            r#ref: self.r#ref,
            commit: self.commit,
            event,
            inputs: &workload.inputs,
            run: &workload.id().to_string(),
        };
        workload.concurrency = self.workflow.concurrency(occasion, &mut tell);
        Ok(workload)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn git(name: Option<&str>, path: &str) -> Spec {
        Spec::Git(GitSource { name: name.map(str::to_owned), path: path.into() })
    }

    #[test]
    fn specs_are_read() {
        let owner = |owner: &str| Spec::GithubOwner { owner: owner.to_owned() };
        assert_eq!("github:octo-org".parse(), Ok(owner("octo-org")));
        let repository = Spec::GithubRepository { owner: "octo".to_owned(), repository: ".dot_x-1".to_owned() };
        assert_eq!("github:octo/.dot_x-1".parse(), Ok(repository));
        assert_eq!("git:/srv/r".parse(), Ok(git(None, "/srv/r")));
        assert_eq!("git:.".parse(), Ok(git(None, ".")));
        assert_eq!("git:C:x y".parse(), Ok(git(None, "C:x y")));
        assert_eq!("git:lab=/srv/r=1".parse(), Ok(git(Some("lab"), "/srv/r=1")));
        assert_eq!("git:./a=b".parse(), Ok(git(None, "./a=b")));
    }

    #[test]
    fn what_is_no_spec_says_what_to_write() {
        for text in ["", "x", "/srv/r", "gitlab:x", "GITHUB:x", "github"] {
            assert!(matches!(text.parse::<Spec>(), Err(SpecError::Form(_))), "{text}");
        }
        for text in [
            "github:",
            "github:a/",
            "github:/b",
            "github:a/b/c",
            "github:a b",
            "github:a/..",
            "github:https://github.com/a",
        ] {
            assert!(matches!(text.parse::<Spec>(), Err(SpecError::Github(_))), "{text}");
        }
        for text in ["git:", "git:name=", "git:a\0b"] {
            assert!(matches!(text.parse::<Spec>(), Err(SpecError::NoPath(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn specs_are_written_as_they_are_read(text in "(git|github):[a-z./=-]{0,12}") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(spec.to_string().parse(), Ok(spec));
            }
        }

        #[test]
        fn any_text_has_an_answer(text in "\\PC{0,40}") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(spec.to_string(), text);
            }
        }
    }

    #[test]
    fn tags_decide_who_runs_it() {
        assert_eq!(policy_forbids(&[Tag::UnitTest, Tag::P2pEligible].into()), None);
        assert_eq!(policy_forbids(&[Tag::WebScraping].into()), None);
        assert!(policy_forbids(&BTreeSet::new()).is_some_and(|why| why.contains("no tags")));
        assert!(
            policy_forbids(&[Tag::UnitTest, Tag::GithubApi].into())
                .is_some_and(|why| why.contains("github-api and unit-test"))
        );
    }
}
