//! What the control API asks of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{broadcast, oneshot, watch};
use tonic::Status;

use crate::kernel::entry::MAX_NOTE;
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::task::{Conclusion, Priority};

use super::proto;
use super::words::STATES;

/// The most characters of a sentence that goes back to a caller; it travels in a header of limited size.
const MAX_SENTENCE: usize = 2000;
/// The most bytes of any word a caller sends: a path, a repository, an input, a reason.
const MAX_WORD: usize = 16 * 1024;
/// The longest that a worker may wait for a task.
const MOST_WAIT: Duration = Duration::from_secs(86_400);
/// The longest that a node may take to finish what runs.
const MOST_DRAIN: Duration = Duration::from_secs(365 * 86_400);
/// The most inputs of a task; GitHub allows 25 of `workflow_dispatch`.
const MAX_INPUTS: usize = 100;

/// Why the daemon does not do what it was asked; each holds a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing here.
    NotFound(String),
    /// What was asked makes no sense.
    Invalid(String),
    /// It makes sense, but not as things stand.
    NotNow(String),
    /// The node is going away or overloaded.
    Unavailable(String),
    /// What was waited for has not come about in the time that was given.
    TooLate(String),
    /// It was tried and failed.
    Failed(String),
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let cut = |sentence: String| sentence.chars().take(MAX_SENTENCE).collect::<String>();
        match refusal {
            Refusal::NotFound(sentence) => Self::not_found(cut(sentence)),
            Refusal::Invalid(sentence) => Self::invalid_argument(cut(sentence)),
            Refusal::NotNow(sentence) => Self::failed_precondition(cut(sentence)),
            Refusal::Unavailable(sentence) => Self::unavailable(cut(sentence)),
            Refusal::TooLate(sentence) => Self::deadline_exceeded(cut(sentence)),
            Refusal::Failed(sentence) => Self::internal(cut(sentence)),
        }
    }
}

/// The place for one answer. Dropped without one, the caller hears that the node went away.
pub struct Answer<T>(oneshot::Sender<Result<T, Refusal>>);

impl<T> Answer<T> {
    pub(super) fn new() -> (Self, oneshot::Receiver<Result<T, Refusal>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. A caller that has left meanwhile is nobody's concern.
    pub fn send(self, answer: Result<T, Refusal>) {
        let _ = self.0.send(answer);
    }

    /// Whether anybody still waits for it.
    pub fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// One question or command, with the place for its answer. What is in it has been checked for form.
#[derive(Debug)]
pub enum Query {
    Status {
        answer: Answer<proto::Status>,
    },
    Peers {
        answer: Answer<Vec<proto::Peer>>,
    },
    /// Oldest first.
    Tasks {
        filter: TaskFilter,
        answer: Answer<Vec<proto::Task>>,
    },
    /// The next first.
    Queue {
        answer: Answer<Vec<proto::Queued>>,
    },
    /// With at most `last` of the latest entries, the newest first.
    Clock {
        last: usize,
        answer: Answer<proto::Clock>,
    },
    Runners {
        answer: Answer<Vec<proto::Runner>>,
    },
    Sources {
        answer: Answer<Vec<proto::Source>>,
    },
    Members {
        answer: Answer<Vec<proto::Member>>,
    },
    /// At most `last` of the latest events, and those to come.
    Events {
        last: usize,
        answer: Answer<EventFeed>,
    },
    /// Look into these sources now, or into all.
    Discover {
        sources: Vec<String>,
        answer: Answer<proto::DiscoverResponse>,
    },
    /// The new task's id, or that of the one that the same request made before.
    Submit {
        submit: Box<SubmitQuery>,
        answer: Answer<TaskId>,
    },
    Cancel {
        task: TaskName,
        why: String,
        answer: Answer<TaskId>,
    },
    /// The next task for a worker that executes it itself.
    Next {
        next: NextQuery,
        answer: Answer<proto::Assignment>,
    },
    /// The worker of a task lives. Answered with when its lease ends, in milliseconds since 1970.
    Keep {
        task: TaskName,
        claim: Option<Cid>,
        answer: Answer<proto::Lease>,
    },
    /// The worker of a task is done with it.
    Complete {
        complete: Box<CompleteQuery>,
        answer: Answer<TaskId>,
    },
    /// The log of an attempt (that whose result holds, or the latest, when `None`).
    Log {
        /// What is printed later is wanted too.
        follow: bool,
        task: TaskName,
        attempt: Option<u32>,
        answer: Answer<LogFile>,
    },
    /// Where an artifact of the run whose result holds is on this host.
    Artifact {
        task: TaskName,
        name: String,
        answer: Answer<PathBuf>,
    },
    Invite {
        answer: Answer<proto::Invite>,
    },
    /// What is to be signed to revoke this peer, as text.
    Cut {
        peer: PeerId,
        answer: Answer<String>,
    },
    /// A signed revocation, as text; answered with who was revoked.
    Revoke {
        text: String,
        answer: Answer<PeerId>,
    },
    /// Let no node of the mesh claim anything, for this reason, or, without one, let them claim again.
    Pause {
        why: Option<String>,
        answer: Answer<()>,
    },
    /// Let this node claim nothing, for this reason, or, without one, let it claim again. Answered with how many tasks
    /// still run here.
    Cordon {
        why: Option<String>,
        answer: Answer<u32>,
    },
    /// Finish what runs within this time (that of the settings when `None`), then end; at once, when it does so already.
    Drain {
        limit: Option<Duration>,
        answer: Answer<proto::DrainResponse>,
    },
    /// End; answered when the node has begun to.
    Shutdown {
        drain: bool,
        answer: Answer<()>,
    },
}

/// Which tasks are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// What the id begins with, lower case; empty for all.
    id: String,
    /// Words of [`STATES`]; empty for all.
    states: BTreeSet<String>,
}

impl TaskFilter {
    /// Whether a task with this id in this state is among them.
    pub fn admits(&self, id: &TaskId, state: &str) -> bool {
        (self.states.is_empty() || self.states.contains(state))
            && (self.id.is_empty() || id.to_string().starts_with(&self.id))
    }

    pub(super) fn read(request: proto::ListTasksRequest) -> Result<Self, Refusal> {
        let proto::ListTasksRequest { id, states } = request;
        if let Some(unknown) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
            let unknown: String = unknown.chars().take(40).collect();
            return Err(Refusal::Invalid(format!("`{unknown}` is not a state: choose from {}", STATES.join(", "))));
        }
        Ok(Self { id: digits(&id)?, states: states.into_iter().collect() })
    }
}

/// How a person names one task: its id, or the beginning of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName(String);

impl TaskName {
    /// Whether the task is meant. The daemon sees to it that no other is.
    pub fn means(&self, id: &TaskId) -> bool {
        id.to_string().starts_with(&self.0)
    }

    /// The one task that is meant among these.
    ///
    /// # Errors
    /// A refusal that says that there is none, or that there are several.
    pub fn find<'a>(&self, ids: impl IntoIterator<Item = &'a TaskId>) -> Result<TaskId, Refusal> {
        let mut meant = ids.into_iter().filter(|id| self.means(id));
        match (meant.next(), meant.next()) {
            (Some(id), None) => Ok(*id),
            (None, _) => Err(Refusal::NotFound(format!(
                "no task's id begins with {self}: `runmesh inspect tasks` shows those this node knows"
            ))),
            (Some(one), Some(other)) => {
                Err(Refusal::Invalid(format!("{self} may mean {one} or {other}: give more digits of the task's id")))
            }
        }
    }

    pub(super) fn read(id: &str) -> Result<Self, Refusal> {
        let id = digits(id)?;
        if id.is_empty() {
            return Err(Refusal::Invalid("no task is named: give its id, or the beginning of it".to_owned()));
        }
        Ok(Self(id))
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A worker that wants something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextQuery {
    /// How long it waits for a task.
    pub wait: Duration,
    /// How long it may be silent while it has one; the task's time limit when `None`.
    pub lease: Option<Duration>,
}

impl NextQuery {
    pub(super) fn read(request: proto::NextRequest) -> Self {
        let lease = Duration::from_millis(request.lease_ms);
        Self { wait: Duration::from_millis(request.wait_ms).min(MOST_WAIT), lease: (!lease.is_zero()).then_some(lease) }
    }
}

/// What a worker has made of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteQuery {
    pub task: TaskName,
    /// The claim that the worker was given, if it says.
    pub claim: Option<Cid>,
    pub conclusion: Conclusion,
    pub note: String,
}

impl CompleteQuery {
    pub(super) fn read(request: proto::CompleteRequest) -> Result<Self, Refusal> {
        let proto::CompleteRequest { id, claim, conclusion, note } = request;
        let conclusion = conclusion.parse().map_err(|()| {
            let words: Vec<&str> = Conclusion::ALL.iter().map(|conclusion| conclusion.word()).collect();
            let conclusion: String = conclusion.chars().take(40).collect();
            Refusal::Invalid(format!("`{conclusion}` is not a conclusion: choose from {}", words.join(", ")))
        })?;
        Ok(Self { task: TaskName::read(&id)?, claim: claimed(&claim)?, conclusion, note: reason(note)? })
    }
}

/// The claim that a worker names, if it names one.
pub(super) fn claimed(claim: &str) -> Result<Option<Cid>, Refusal> {
    if claim.is_empty() {
        return Ok(None);
    }
    let wrong = || Refusal::Invalid("the claim is not the id of an entry: give it as `next` answered it".to_owned());
    claim.parse().map(Some).map_err(|_| wrong())
}

/// A task that somebody wants run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitQuery {
    pub repository: String,
    pub path: String,
    pub inputs: BTreeMap<String, String>,
    /// By the workflow's tags when `None`.
    pub priority: Option<Priority>,
    /// The caller's own id of this request, if it gave one.
    pub request: Option<String>,
}

impl SubmitQuery {
    pub(super) fn read(request: proto::SubmitRequest) -> Result<Self, Refusal> {
        let proto::SubmitRequest { repository, path, inputs, priority, request } = request;
        for (word, name) in [(&repository, "repository"), (&path, "path of the workflow file")] {
            if word.is_empty() || word.contains('\0') {
                return Err(Refusal::Invalid(format!("the {name} is missing")));
            }
        }
        if inputs.len() > MAX_INPUTS {
            return Err(Refusal::Invalid(format!("{} inputs are given, at most {MAX_INPUTS} are taken", inputs.len())));
        }
        let given = inputs.iter().flat_map(|(name, value)| [name, value]);
        if given.chain([&repository, &path, &request]).any(|word| word.len() > MAX_WORD) {
            return Err(Refusal::Invalid(format!("a repository, path or input is longer than {MAX_WORD} bytes")));
        }
        let priority = priority
            .map(|number| u8::try_from(number).map_err(|_| number.to_string()).and_then(Priority::new))
            .transpose()
            .map_err(|_| {
                Refusal::Invalid(format!("priority {} is not within 1 to 10", priority.unwrap_or_default()))
            })?;
        let request = (!request.is_empty()).then_some(request);
        Ok(Self { repository, path, inputs, priority, request })
    }
}

/// A reason that a caller gives.
pub(super) fn reason(why: String) -> Result<String, Refusal> {
    if why.len() > MAX_WORD {
        return Err(Refusal::Invalid(format!("the reason is longer than {MAX_WORD} bytes")));
    }
    Ok(why)
}

/// A reason that is kept and shown with every status.
pub(super) fn short_reason(why: String) -> Result<String, Refusal> {
    if why.len() > MAX_NOTE {
        return Err(Refusal::Invalid(format!("the reason is longer than {MAX_NOTE} bytes")));
    }
    Ok(why)
}

/// How long what runs may take to finish.
pub(super) fn drain_limit(ms: u64) -> Result<Duration, Refusal> {
    let limit = Duration::from_millis(ms);
    if limit > MOST_DRAIN {
        return Err(Refusal::Invalid(format!("the limit is longer than {} days", MOST_DRAIN.as_secs() / 86_400)));
    }
    Ok(limit)
}

/// Names of sources that a caller gives.
pub(super) fn names(names: Vec<String>) -> Result<Vec<String>, Refusal> {
    if names.len() > MAX_INPUTS || names.iter().any(|name| name.len() > MAX_WORD) {
        return Err(Refusal::Invalid(format!(
            "more than {MAX_INPUTS} sources are named, or one is longer than {MAX_WORD} bytes"
        )));
    }
    Ok(names)
}

/// The beginning of a task's id.
fn digits(id: &str) -> Result<String, Refusal> {
    if id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let shown: String = id.chars().take(80).collect();
        return Err(Refusal::Invalid(format!(
            "`{shown}` is not a task's id or the beginning of one: expected up to 64 hexadecimal digits"
        )));
    }
    Ok(id.to_ascii_lowercase())
}

/// What happened lately, and what happens.
#[derive(Debug)]
pub struct EventFeed {
    /// The oldest first.
    pub past: Vec<proto::Event>,
    /// All that came after the last of `past`. It ends with the node.
    pub live: broadcast::Receiver<proto::Event>,
}

/// Where a task's log is.
#[derive(Debug)]
pub struct LogFile {
    /// It may not be there yet.
    pub path: PathBuf,
    /// Not [`Writing::Going`], or gone, once nothing more will be written.
    pub writing: watch::Receiver<Writing>,
    /// It is on its way here: a caller that does not follow waits for its end too.
    pub arriving: bool,
}

/// Whether a log is still written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writing {
    Going,
    Ended,
    /// What is there is not the whole log, or not the right one; why, as a sentence for a person.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_by_the_beginning_of_its_id() {
        let (one, other) = (TaskId([0xab; 32]), TaskId([0xac; 32]));
        let ids = [one, other];
        assert_eq!(TaskName::read("ABAB").and_then(|name| name.find(&ids)), Ok(one));
        assert_eq!(TaskName::read("ac").and_then(|name| name.find(&ids)), Ok(other));
        assert!(matches!(TaskName::read("a").and_then(|name| name.find(&ids)), Err(Refusal::Invalid(_))));
        assert_eq!(TaskName::read(&other.to_string()).and_then(|name| name.find(&ids)), Ok(other));
        assert!(matches!(TaskName::read("abcd").and_then(|name| name.find(&ids)), Err(Refusal::NotFound(_))));
        let alike = [one, TaskId([0xab; 32].map(|byte| byte)), other];
        assert!(matches!(TaskName::read("abab").and_then(|name| name.find(&alike)), Err(Refusal::Invalid(_))));
        for bad in ["", "xyz1", "ab ab", &"a".repeat(65), "äöü"] {
            assert!(matches!(TaskName::read(bad), Err(Refusal::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn a_filter_admits_by_id_and_state() {
        let id = TaskId([0x12; 32]);
        let filter = |id: &str, states: &[&str]| {
            let states = states.iter().map(|state| (*state).to_owned()).collect();
            TaskFilter::read(proto::ListTasksRequest { id: id.to_owned(), states })
        };
        assert!(filter("", &[]).expect("fits").admits(&id, "lost"));
        assert!(filter("121", &["lost", "pending"]).expect("fits").admits(&id, "lost"));
        assert!(!filter("121", &["pending"]).expect("fits").admits(&id, "lost"));
        assert!(!filter("122", &[]).expect("fits").admits(&id, "lost"));
        assert!(filter("", &["done"]).is_err() && filter("q", &[]).is_err());
    }

    #[test]
    fn a_submission_is_checked_for_form() {
        let good = proto::SubmitRequest {
            repository: "a/b".to_owned(),
            path: ".github/workflows/ci.yml".to_owned(),
            inputs: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            priority: Some(10),
            request: String::new(),
        };
        let read = SubmitQuery::read(good.clone()).expect("fits");
        assert_eq!((read.priority, read.request), (Some(Priority::MOST), None));
        let bad = [
            proto::SubmitRequest { repository: String::new(), ..good.clone() },
            proto::SubmitRequest { path: String::new(), ..good.clone() },
            proto::SubmitRequest { priority: Some(0), ..good.clone() },
            proto::SubmitRequest { priority: Some(11), ..good.clone() },
            proto::SubmitRequest { priority: Some(257), ..good.clone() },
            proto::SubmitRequest { path: "x".repeat(MAX_WORD + 1), ..good.clone() },
            proto::SubmitRequest { inputs: (0..101).map(|n| (n.to_string(), String::new())).collect(), ..good },
        ];
        for request in bad {
            let answer = SubmitQuery::read(request);
            assert!(matches!(answer, Err(Refusal::Invalid(_))), "{answer:?}");
        }
    }
}
