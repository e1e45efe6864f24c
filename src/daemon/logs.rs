//! What runs print: kept by its content at the end, told to whoever asks, fetched from the host that ran it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use tokio::sync::watch;
use tokio::time::Instant;

use super::effects::TOO_BUSY;
use super::found::Found;
use super::{Daemon, SWEEP, artifacts};
use crate::control::{Answer, LogFile, Refusal, TaskName, Writing};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::{Input, Report};
use crate::kernel::task::{Fence, Products, State};
use crate::net::ReplyToken;
use crate::wire::limits::MAX_LOG_PIECE;
use crate::wire::request::LogPart;
use crate::wire::response::{self, LogPiece};

/// Why there is no log of what a worker has run.
const BY_WORKER: &str = "an external worker ran it, and of what that printed none is kept";
/// What another host hears of a log that is not here, and where workers run what there is.
const NO_MORE: &str = "it has no log of that attempt, or not any more";
const NOT_THEIRS: &str = "it has none: an external worker ran the task, and of what that printed none is kept";

mod fetch;

pub(super) use fetch::{Fetcher, dial};

/// How many tasks are remembered whose logs others' runners have written. Results name the logs by their content.
const MOST_SHARED: usize = 1_024;

/// The logs of this host.
#[derive(Default)]
pub(super) struct Logs {
    /// Those that are written now, by task and attempt.
    written: BTreeMap<(TaskId, u32), watch::Sender<Writing>>,
    /// Whose log tells of a task whose runner was started for something else.
    shared: VecDeque<((TaskId, u32), (TaskId, u32))>,
}

impl Logs {
    /// One begins.
    pub(super) fn begins(&mut self, task: TaskId, attempt: u32) {
        self.written.insert((task, attempt), watch::Sender::new(Writing::Going));
    }

    /// Nothing more is written into it.
    pub(super) fn ends(&mut self, task: TaskId, attempt: u32) {
        if let Some(writing) = self.written.remove(&(task, attempt)) {
            writing.send_replace(Writing::Ended);
        }
    }

    /// What is printed under that order tells of this one.
    fn share(&mut self, order: (TaskId, u32), of: (TaskId, u32)) {
        self.shared.retain(|(known, _)| *known != of);
        if self.shared.len() >= MOST_SHARED {
            self.shared.pop_front();
        }
        self.shared.push_back((of, order));
    }

    /// Under which order that is printed which tells of a task: mostly its own.
    fn order_of(&self, task: TaskId, attempt: u32) -> (TaskId, u32) {
        let shared = self.shared.iter().find(|(of, _)| *of == (task, attempt));
        shared.map_or((task, attempt), |(_, order)| *order)
    }

    fn writing(&self, task: TaskId, attempt: u32) -> Option<&watch::Sender<Writing>> {
        self.written.get(&self.order_of(task, attempt))
    }
}

impl Daemon {
    pub(super) fn log_path(&self, task: &TaskId, attempt: u32) -> PathBuf {
        self.blobs.log(&format!("{task}-{attempt}.log"))
    }

    /// The file into which an attempt's log is written here.
    fn written_log(&self, task: &TaskId, attempt: u32) -> PathBuf {
        let (task, attempt) = self.logs.order_of(*task, attempt);
        self.log_path(&task, attempt)
    }

    /// What the runner of an order prints tells of another task too.
    pub(super) fn share_log(&mut self, (order, fence): (TaskId, Fence), (task, its): (TaskId, Fence)) {
        self.logs.share((order, fence.attempt), (task, its.attempt));
        // Also for a later life of the node. Where there is a file of that name, its runner had some other job.
        let (log, name) = (self.log_path(&order, fence.attempt), self.log_path(&task, its.attempt));
        if let Err(error) = std::fs::hard_link(log, name) {
            tracing::debug!("a second name for the log of task {}: {error}", task.short());
        }
    }

    /// Where the log of an attempt is, if anywhere here: by what its holder has recorded, or where it was written.
    fn kept_log(&self, task: &TaskId, attempt: u32) -> PathBuf {
        let recorded = self.node.task(task).and_then(|folded| match &folded.state {
            State::Completed { fence, .. } if fence.attempt == attempt => folded.products.log,
            _ => None,
        });
        let kept = recorded.and_then(|blob| self.blobs.find(&blob.id));
        kept.unwrap_or_else(|| self.written_log(task, attempt))
    }

    /// The runner room has no more to do with a task. What it left behind is kept before its result is told.
    pub(super) fn on_report(&mut self, task: TaskId, fence: Fence, report: Report) {
        self.logs.ends(task, fence.attempt);
        if !matches!(report, Report::Finished { .. }) {
            return self.on_kept(task, fence, report, Products::default());
        }
        let (log, artifacts) = (self.written_log(&task, fence.attempt), self.artifacts_path(&task, fence.attempt));
        let (blobs, find) = (self.blobs.clone(), self.find.clone());
        tokio::spawn(async move {
            let keep = move || (blobs.keep(&log), artifacts::keep(&blobs, &artifacts));
            let kept = tokio::task::spawn_blocking(keep).await;
            let (log, artifacts) =
                kept.unwrap_or_else(|fault| (Err(io::Error::other(fault.to_string())), Err(io::Error::other(fault))));
            let log = log.inspect_err(|error| tracing::warn!("keeping the log of task {}: {error}", task.short()));
            let artifacts = artifacts
                .inspect_err(|error| tracing::warn!("keeping the artifacts of task {}: {error}", task.short()));
            let products = Products { log: log.ok(), artifacts: artifacts.unwrap_or_default() };
            let _ = find.send(Found::Kept { task, fence, report, products }).await;
        });
    }

    /// GitHub, or nobody any more, tells of a task's end. The log is kept with the result if a runner here has written it
    /// and has ended.
    pub(super) fn on_told_report(&mut self, task: TaskId, fence: Fence, report: Report) {
        let writes = self.logs.writing(task, fence.attempt).is_some();
        if !writes && self.written_log(&task, fence.attempt).exists() {
            self.on_report(task, fence, report);
        } else {
            self.on_kept(task, fence, report, Products::default());
        }
    }

    pub(super) fn on_kept(&mut self, task: TaskId, fence: Fence, report: Report, products: Products) {
        self.feed(Input::Ran { task, fence, report, products });
        self.sweep_soon();
    }

    /// Removes old logs and artifacts, beside the loop and not too often.
    pub(super) fn sweep_soon(&mut self) {
        let now = Instant::now();
        if self.swept.is_some_and(|swept| now < swept + SWEEP) {
            return;
        }
        self.swept = Some(now);
        let written: Vec<PathBuf> =
            self.logs.written.keys().map(|(task, attempt)| self.log_path(task, *attempt)).collect();
        let (blobs, keeping) = (self.blobs.clone(), self.settings.keeping);
        self.serving.spawn_blocking(move || match blobs.sweep(&keeping, &written) {
            Ok(swept) if swept.files > 0 => {
                tracing::info!("removed {} old logs and artifacts, {} bytes", swept.files, swept.bytes);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("removing old logs: {error}"),
        });
    }

    /// A member asks for a part of a log.
    pub(super) async fn on_log_part(&mut self, from: PeerId, part: LogPart, place: ReplyToken) {
        let refused = if !self.node.is_member(&from) {
            Some("only members of the mesh are told what tasks print")
        } else {
            self.is_too_busy().then_some(TOO_BUSY)
        };
        if let Some(why) = refused {
            let _ = self.net.respond(place, response::seal_refused(why)).await;
            return;
        }
        let (path, net) = (self.kept_log(&part.task, part.attempt), self.net.clone());
        // Looked at before the file: what was written before the end is then read to its last byte.
        let ended = self.logs.writing(part.task, part.attempt).is_none();
        let missing = if self.leaves_work_to_workers() { NOT_THEIRS } else { NO_MORE };
        self.serving.spawn(async move {
            let read = tokio::task::spawn_blocking(move || read(&path, part.offset)).await;
            let bytes = match read.map_err(io::Error::other).flatten() {
                Ok(bytes) => {
                    let ended = ended && bytes.len() < MAX_LOG_PIECE;
                    response::seal_log(LogPiece { bytes, ended })
                }
                // It has begun, and printed nothing yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !ended => {
                    response::seal_log(LogPiece { bytes: Vec::new(), ended })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => response::seal_refused(missing),
                Err(error) => response::seal_refused(&format!("reading the log: {error}")),
            };
            let _ = net.respond(place, bytes).await;
        });
    }

    /// Answers where a task's log can be read; fetches it if it is on another host.
    pub(super) fn on_log(&mut self, name: &TaskName, attempt: Option<u32>, follow: bool, answer: Answer<LogFile>) {
        match self.whose_log(name, attempt) {
            Ok(Whose::Here(path, writing)) => answer.send(Ok(LogFile { path, writing, arriving: false })),
            Ok(Whose::Theirs(wanted)) => self.fetcher.fetch(&self.blobs, wanted, follow, answer),
            Err(refusal) => answer.send(Err(refusal)),
        }
    }

    fn whose_log(&self, name: &TaskName, attempt: Option<u32>) -> Result<Whose, Refusal> {
        let task = self.find(name)?;
        let none = |why: String| Refusal::NotFound(format!("task {} has no log: {why}", task.short()));
        let folded = self.node.task(&task).ok_or_else(|| none("it is not known here any more".to_owned()))?;
        let accepted = match &folded.state {
            State::Completed { holder, fence, .. } => Some((*holder, fence.attempt)),
            State::Claimed { holder, fence } => Some((*holder, fence.attempt)),
            _ => None,
        };
        let of_claims = folded.claims.iter().rev().map(|claim| (claim.author.peer, claim.fence.attempt));
        let mut runs = accepted.into_iter().chain(of_claims);
        let wanted = runs.find(|(_, number)| attempt.is_none_or(|attempt| attempt == *number));
        let Some((holder, number)) = wanted else {
            let why = match (attempt, &folded.state) {
                (Some(attempt), _) => format!("no host made attempt {attempt}"),
                (None, State::Cancelled) => "it was cancelled before it ran".to_owned(),
                (None, State::LeftToGithub) => "it was left to GitHub".to_owned(),
                (None, _) => "it has not run yet".to_owned(),
            };
            return Err(none(why));
        };
        let path = self.kept_log(&task, number);
        let blob = folded.products.log.filter(|_| accepted == Some((holder, number)));
        let writing = self.logs.writing(task, number).map(watch::Sender::subscribe);
        let is_here = writing.is_some() || path.exists();
        if is_here || holder == self.node.peer() {
            let writing = writing.unwrap_or_else(|| watch::channel(Writing::Ended).1);
            return match is_here {
                true => Ok(Whose::Here(path, writing)),
                false if self.leaves_work_to_workers() => Err(none(BY_WORKER.to_owned())),
                false => Err(none(format!("what attempt {number} printed here was removed since"))),
            };
        }
        Ok(Whose::Theirs(fetch::Wanted { task, attempt: number, holder, blob }))
    }
}

enum Whose {
    Here(PathBuf, watch::Receiver<Writing>),
    Theirs(fetch::Wanted),
}

/// What stands in a file from a byte on, at most a piece.
fn read(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG_PIECE as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
