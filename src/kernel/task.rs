//! What a task is: the words that all nodes use for one thing to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::{BlobId, Cid, Digest, PeerId, TaskId};

/// A word in a workflow file that says how it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tag {
    P2pOnly,
    P2pEligible,
    GithubApi,
    UnitTest,
    CodeGeneration,
    WebScraping,
    DataProcessing,
}

impl Tag {
    /// All tags there are, in the order of DESIGN.md section 1.
    pub const ALL: [Self; 7] = [
        Self::P2pOnly,
        Self::P2pEligible,
        Self::GithubApi,
        Self::UnitTest,
        Self::CodeGeneration,
        Self::WebScraping,
        Self::DataProcessing,
    ];

    /// The word as it stands in a workflow file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::P2pOnly => "p2p-only",
            Self::P2pEligible => "p2p-eligible",
            Self::GithubApi => "github-api",
            Self::UnitTest => "unit-test",
            Self::CodeGeneration => "code-generation",
            Self::WebScraping => "web-scraping",
            Self::DataProcessing => "data-processing",
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Tag {
    type Err = ();

    /// Reads a word, case folded. Anything outside the list is `Err(())`.
    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|tag| tag.word().eq_ignore_ascii_case(word)).ok_or(())
    }
}

/// Who may run a workflow, as its tags say (DESIGN.md section 4, the source system's rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The mesh or nobody.
    MeshOnly,
    /// The mesh first, GitHub when nobody claims it in time.
    MeshFirst,
    /// Never taken by the mesh.
    GithubOnly,
}

impl Policy {
    /// The policy of a workflow with these tags: `p2p-only` beats all; `github-api` and `unit-test` with no other
    /// tag beside them are GitHub's; any other tag makes it eligible.
    pub fn of(tags: &BTreeSet<Tag>) -> Self {
        let githubs = |tag: &Tag| matches!(tag, Tag::GithubApi | Tag::UnitTest);
        if tags.contains(&Tag::P2pOnly) {
            Self::MeshOnly
        } else if tags.iter().all(githubs) {
            Self::GithubOnly
        } else {
            Self::MeshFirst
        }
    }
}

/// How urgent a task is: 1 (least) to 10 (most).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    pub const LEAST: Self = Self(1);
    pub const MOST: Self = Self(10);

    /// # Errors
    /// A sentence when the number is not within 1 to 10.
    pub fn new(number: u8) -> Result<Self, String> {
        if (1..=10).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("priority {number} is not within 1 to 10"))
        }
    }

    /// The priority that tags give: 8 for `p2p-only`, 6 for `p2p-eligible`, else 5.
    pub fn of(tags: &BTreeSet<Tag>) -> Self {
        if tags.contains(&Tag::P2pOnly) {
            Self(8)
        } else if tags.contains(&Tag::P2pEligible) {
            Self(6)
        } else {
            Self(5)
        }
    }

    pub const fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Priority {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Self::new(number)
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

/// A repository by the name that all discoverers give it, never by the SPEC it was found through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Repository {
    /// The API host (`api.github.com`), or `git` for a local repository.
    pub host: String,
    /// GitHub's numeric id in decimal; for a local repository the operator's name for it, else its root commit.
    pub id: String,
    /// What people call it (`owner/name`, or the folder's name). Not part of its identity.
    pub name: String,
}

impl Repository {
    /// The sources through which a node can reach it: a local repository by its own name; one at GitHub by its owner's
    /// or by its own.
    pub fn sources(&self) -> Vec<String> {
        if self.host == LOCAL_HOST {
            return vec![format!("{LOCAL_HOST}:{}", self.id)];
        }
        // GitHub folds the case of names.
        let name = self.name.to_ascii_lowercase();
        let owner = name.split('/').next().unwrap_or_default();
        vec![format!("{}/{owner}", self.host), format!("{}/{name}", self.host)]
    }

    /// Whether this is one of its [`Self::sources`]. Asked for every task and peer, so it makes no text.
    pub fn is_of(&self, source: &str) -> bool {
        let below = |mark: char| source.strip_prefix(self.host.as_str())?.strip_prefix(mark);
        if self.host == LOCAL_HOST {
            return below(':') == Some(self.id.as_str());
        }
        let owner = self.name.split('/').next().unwrap_or_default();
        below('/').is_some_and(|name| name.eq_ignore_ascii_case(owner) || name.eq_ignore_ascii_case(&self.name))
    }
}

/// The host of local repositories.
pub const LOCAL_HOST: &str = "git";

/// The label of a host that can run what a job asks for with `container:` or `services:`. No `runs-on` needs to say it.
pub const CONTAINER_ENGINE: &str = "container-engine";

/// What a host offers that starts GitHub's runners, and every task of a job queued there asks for. No host's operator can
/// write it, and no `runs-on` needs to say it.
pub const GITHUB_RUNNER: &str = "runner:github";

/// What made a task come about; with repository and path it is the task's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// A new revision of the workflow file; the file's blob id in hexadecimal.
    Revision { blob: String },
    /// A new head commit of a branch.
    Push { r#ref: String, commit: String },
    /// A tick of `on: schedule`: the cron line, and the UTC minute since 1970.
    Schedule { cron: String, minute: u64 },
    /// A person's or a program's request, by its own id.
    Manual { request: String },
    /// A job queued at GitHub for a self-hosted runner.
    GithubJob { job: u64, run_attempt: u32 },
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |oid: &String| oid.chars().take(12).collect::<String>();
        match self {
            Self::Revision { blob } => write!(f, "revision {}", short(blob)),
            Self::Push { r#ref, commit } => write!(f, "push {} {}", r#ref, short(commit)),
            Self::Schedule { cron, minute } => write!(f, "schedule `{cron}` minute {minute}"),
            Self::Manual { request } => write!(f, "manual {request}"),
            Self::GithubJob { job, run_attempt } => write!(f, "github-job {job} attempt {run_attempt}"),
        }
    }
}

/// The event that the run sees in `github.event_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEvent {
    Push,
    WorkflowDispatch,
    Schedule,
}

impl RunEvent {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::WorkflowDispatch => "workflow_dispatch",
            Self::Schedule => "schedule",
        }
    }
}

/// A group of a repository's tasks of which one runs at a time (GitHub's `concurrency:`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Its name within the repository; case does not matter, as at GitHub.
    pub group: String,
    /// Whether this task also cancels what of its group is older and runs.
    pub cancel_in_progress: bool,
}

/// One thing to run, as its introduction describes it to every node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub repository: Repository,
    /// Path of the workflow file inside the repository, with `/`.
    pub path: String,
    pub trigger: Trigger,
    /// The commit that runs, 40 or 64 hexadecimal digits.
    pub commit: String,
    /// The full name of the branch the commit was found on, such as `refs/heads/main`.
    pub r#ref: String,
    pub event: RunEvent,
    /// The workflow's `name:`, else its path.
    pub name: String,
    pub tags: BTreeSet<Tag>,
    pub priority: Priority,
    /// The labels a host must offer: the union of all jobs' `runs-on`, lower case.
    pub labels: BTreeSet<String>,
    /// `workflow_dispatch` inputs.
    pub inputs: BTreeMap<String, String>,
    /// The longest it may run, in seconds, 1 to 604,800.
    pub time_limit_s: u32,
    /// For [`Policy::MeshFirst`]: how long the mesh may leave it unclaimed before GitHub keeps it, in seconds.
    pub fallback_s: u32,
    /// The group that it belongs to. Absent in what earlier versions wrote; written only once every member has declared
    /// [`super::rules::GROUPS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

impl Workload {
    /// The task's id: SHA-256 of the DAG-CBOR list of (host, repository id, path, trigger), nothing else, so that two
    /// nodes that discover the same thing name it alike.
    pub fn id(&self) -> TaskId {
        let identity = (&self.repository.host, &self.repository.id, &self.path, &self.trigger);
        match serde_cbor::to_vec(&identity) {
            Ok(bytes) => TaskId(Digest::of(&[&bytes]).0),
            Err(error) => unreachable!("text and numbers always encode: {error}"),
        }
    }

    /// Who may run it. A person's own request for a workflow without tags, or with eligible ones, is the mesh's alone:
    /// GitHub would never start it. So is a job that GitHub has queued: it waits for a runner, whatever tags say.
    pub fn policy(&self) -> Policy {
        match (Policy::of(&self.tags), &self.trigger) {
            (_, Trigger::GithubJob { .. }) => Policy::MeshOnly,
            (Policy::MeshFirst, Trigger::Manual { .. }) => Policy::MeshOnly,
            (Policy::GithubOnly, Trigger::Manual { .. }) if self.tags.is_empty() => Policy::MeshOnly,
            (policy, _) => policy,
        }
    }
}

/// The fencing token of an attempt: results and stops name it, so that a former holder's words cannot be taken for
/// the present one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The entry that holds the claim.
    pub claim: Cid,
}

/// GitHub's words for how a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    Success,
    Failure,
    Cancelled,
    TimedOut,
    Skipped,
}

impl Conclusion {
    pub const ALL: [Self; 5] = [Self::Success, Self::Failure, Self::Cancelled, Self::TimedOut, Self::Skipped];

    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
        }
    }
}

impl FromStr for Conclusion {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|conclusion| conclusion.word() == word).ok_or(())
    }
}

/// Bytes that a run left behind, named by their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    pub id: BlobId,
    /// How many there are.
    pub bytes: u64,
}

/// A file that a workflow uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// As the workflow names it, at most [`MAX_ARTIFACT_NAME`] bytes.
    pub name: String,
    pub blob: Blob,
}

/// What a run left behind in its holder's data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Products {
    /// Everything it printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Blob>,
    /// At most [`MAX_ARTIFACTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

impl Products {
    pub const fn is_empty(&self) -> bool {
        self.log.is_none() && self.artifacts.is_empty()
    }
}

/// The most artifacts of a run that are recorded; so many fit into an entry with room to spare.
pub const MAX_ARTIFACTS: usize = 64;
/// The most bytes of an artifact's name. GitHub allows 256 characters.
pub const MAX_ARTIFACT_NAME: usize = 256;

/// Whether a text may name an artifact, and so a file: GitHub's rules (actions/toolkit,
/// `path-and-artifact-name-validation.ts`), and what a file system and a terminal want besides.
pub fn is_artifact_name(name: &str) -> bool {
    let fits = |char: char| !char.is_control() && !"\":<>|*?\\/".contains(char);
    // File systems take 255 bytes.
    (1..MAX_ARTIFACT_NAME).contains(&name.len()) && name.chars().all(fits) && name != "." && name != ".."
}

/// Why a holder gives a claim back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseReason {
    /// Given back in order: the host drains, shuts down, is cut off or cannot run it; the attempt does not count.
    Draining,
    /// The ledger names this node as holder and nothing runs here: it restarted, or had stopped as a loser.
    NotRunning,
    /// It failed before the workflow's first step: checkout, image, registration.
    NotStarted,
}

/// Where a task stands, as the set of entries says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nobody holds it.
    Pending,
    /// Held under this fence. Whether it already runs, the holder's presence says.
    Claimed {
        holder: PeerId,
        fence: Fence,
    },
    /// Ended with an accepted result.
    Completed {
        holder: PeerId,
        fence: Fence,
        conclusion: Conclusion,
        duration_ms: u64,
    },
    Cancelled,
    Lost,
    LeftToGithub,
}

impl State {
    /// Whether anything may still happen to it.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Pending | Self::Claimed { .. })
    }

    /// The word of DESIGN.md section 9; `running` is `claimed` with the holder's presence showing it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Claimed { .. } => "claimed",
            Self::Completed { .. } => "completed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::LeftToGithub => "left-to-github",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_of_its_sources_and_of_no_other() {
        let of = |host: &str, id: &str, name: &str| Repository {
            host: host.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
        };
        let all = [of("git", "lab", "lab"), of("git", "lab2", "lab"), of("api.github.com", "7", "octo/lab")];
        for (number, repository) in all.iter().enumerate() {
            assert!(repository.sources().iter().all(|source| repository.is_of(source)), "{repository:?}");
            let others = all.iter().enumerate().filter(|(other, _)| *other != number);
            assert!(!others.flat_map(|(_, other)| other.sources()).any(|source| repository.is_of(&source)));
        }
        for source in ["", "git", "git:", "api.github.com", "api.github.com/", "api.github.com/oct", "git/lab"] {
            assert!(!all.iter().any(|repository| repository.is_of(source)), "{source}");
        }
    }
}
