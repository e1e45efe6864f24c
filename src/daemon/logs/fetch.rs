//! Fetching a log from the host that ran the task.
//!
//! Promises that a log whose content its holder has recorded in an entry is shown whole and verified, or with an error
//! at its end; that bytes are held on disk, not in memory, and no more of them than a log may have; that a fetch nobody
//! reads ends.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::control::{Answer, LogFile, Refusal, Writing};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::task::Blob;
use crate::net::{Client, RequestId, with_peer};
use crate::store::Blobs;
use crate::wire::request::{self, LogPart};
use crate::wire::response::LogPiece;

/// Numbers of these questions; the kernel's are below.
const FIRST: u64 = 1 << 63;
/// Logs that are fetched at once.
const MOST: u64 = 16;
/// Between two questions for what a task has printed since.
const AGAIN: Duration = Duration::from_millis(500);
/// Before a holder that could not answer is asked again, and how often that is done.
const RETRY: Duration = Duration::from_secs(1);
const RETRIES: u32 = 3;
/// The most bytes of a log, whatever its holder says of it. The runner's own limit is a fourth of it.
const MOST_BYTES: u64 = 256 << 20;

/// Which log is wanted, and of whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    pub(super) holder: PeerId,
    /// What the holder has recorded of it.
    pub(super) blob: Option<Blob>,
}

impl Wanted {
    /// The most bytes that it may have: as many as its holder has recorded, who may be hostile.
    fn most(&self) -> u64 {
        self.blob.map_or(MOST_BYTES, |blob| blob.bytes.min(MOST_BYTES))
    }
}

type Waiting = HashMap<u64, oneshot::Sender<Result<LogPiece, String>>>;

/// Asks other nodes for logs. Clones ask for the same node.
#[derive(Clone)]
pub(in crate::daemon) struct Fetcher {
    net: Client,
    next: Arc<AtomicU64>,
    going: Arc<AtomicU64>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Fetcher {
    pub(in crate::daemon) fn new(net: Client) -> Self {
        let next = Arc::new(AtomicU64::new(FIRST));
        Self { net, next, going: Arc::default(), waiting: Arc::default() }
    }

    /// Whether a question of that number was asked here, and not by the kernel.
    pub(in crate::daemon) const fn asked(number: u64) -> bool {
        number >= FIRST
    }

    /// Passes an answer to whoever asked.
    pub(in crate::daemon) fn answered(&self, number: u64, answer: Result<LogPiece, String>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// Begins to fetch a log; the answer names the file that it arrives in.
    pub(super) fn fetch(&self, blobs: &Blobs, wanted: Wanted, follow: bool, answer: Answer<LogFile>) {
        let going = Going::begin(&self.going);
        if going.0.load(Ordering::Relaxed) > MOST {
            return answer.send(Err(Refusal::Unavailable("too many logs are being fetched: try again".to_owned())));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = blobs.arriving(&format!("{}-{number}", wanted.task.short()));
        let (asker, blobs) = (self.clone(), blobs.clone());
        tokio::spawn(async move {
            let _going = going;
            asker.bring(blobs, wanted, follow, path.clone(), answer).await;
            let _ = tokio::fs::remove_file(&path).await;
        });
    }

    async fn bring(&self, blobs: Blobs, wanted: Wanted, follow: bool, path: PathBuf, answer: Answer<LogFile>) {
        // The first piece tells whether there is anything to read at all.
        let first = match self.piece(&wanted, 0).await {
            Ok(piece) => piece,
            Err(why) => return answer.send(Err(Refusal::Unavailable(unfetched(&wanted, &why)))),
        };
        let mut file = match File::options().write(true).create_new(true).mode(0o600).open(&path).await {
            Ok(file) => file,
            Err(error) => {
                return answer.send(Err(Refusal::Failed(format!("writing {}: {error}", path.display()))));
            }
        };
        let (writing, shown) = watch::channel(Writing::Going);
        answer.send(Ok(LogFile { path: path.clone(), writing: shown, arriving: true }));
        let arrived = tokio::select! {
            arrived = self.rest(&wanted, follow, first, &mut file) => arrived,
            () = writing.closed() => return,
        };
        let end = match arrived {
            Ok(true) => verify(blobs, wanted, path).await,
            // What a task that still runs has printed until now.
            Ok(false) => Ok(()),
            Err(why) => Err(why),
        };
        writing.send_replace(end.map_or_else(|why| Writing::Failed(unfetched(&wanted, &why)), |()| Writing::Ended));
        // Whoever reads it may not have opened it yet.
        writing.closed().await;
    }

    /// Writes the pieces one after the other; says whether the log had ended.
    async fn rest(&self, wanted: &Wanted, follow: bool, first: LogPiece, file: &mut File) -> Result<bool, String> {
        let most = wanted.most();
        let (mut piece, mut offset) = (first, 0);
        loop {
            offset += piece.bytes.len() as u64;
            if offset > most {
                return Err(format!("it is longer than the {most} bytes that it may have"));
            }
            let written = async {
                file.write_all(&piece.bytes).await?;
                file.flush().await
            };
            written.await.map_err(|error| format!("keeping it here: {error}"))?;
            if piece.ended {
                return Ok(true);
            }
            if piece.bytes.is_empty() {
                if !follow {
                    return Ok(false);
                }
                sleep(AGAIN).await;
            }
            piece = self.piece(wanted, offset).await?;
        }
    }

    /// Asks for a piece until it comes, or the holder has failed to answer too often.
    async fn piece(&self, wanted: &Wanted, offset: u64) -> Result<LogPiece, String> {
        let part = LogPart { task: wanted.task, attempt: wanted.attempt, offset };
        for _ in 0..RETRIES {
            match self.ask(wanted.holder, &part).await {
                Err(Unasked::Away) if dial(&self.net, wanted.holder).await => {}
                Err(Unasked::Away) => return Err("it cannot be reached now".to_owned()),
                Err(Unasked::Failed(why)) => {
                    tracing::debug!("asking {} for a log: {why}", wanted.holder.short());
                    sleep(RETRY).await;
                }
                Ok(answer) => return answer,
            }
        }
        Err("it does not answer".to_owned())
    }

    async fn ask(&self, holder: PeerId, part: &LogPart) -> Result<Result<LogPiece, String>, Unasked> {
        let connected = self.net.peers().await.map_err(|error| Unasked::Failed(error.to_string()))?;
        if !connected.iter().any(|info| info.peer == holder) {
            return Err(Unasked::Away);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        let sent = self.net.request(holder, RequestId(number), request::seal_log(part)).await;
        if let Err(error) = sent {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            return Err(Unasked::Failed(error.to_string()));
        }
        answered.await.map_err(|_| Unasked::Failed("no answer".to_owned()))
    }
}

/// Connects with a peer at an address where it was known; not every member of a large mesh is connected with every
/// other.
pub(in crate::daemon) async fn dial(net: &Client, peer: PeerId) -> bool {
    let Ok(known) = net.known().await else { return false };
    let ending = with_peer(&crate::net::Multiaddr::empty(), &peer);
    for address in known.into_iter().filter(|address| address.ends_with(&ending)) {
        if net.dial(address).await.is_ok_and(|found| found == peer) {
            return true;
        }
    }
    false
}

/// Why a question was not answered.
enum Unasked {
    /// The peer is not connected.
    Away,
    Failed(String),
}

/// One of the fetches that are going on.
struct Going(Arc<AtomicU64>);

impl Going {
    fn begin(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn unfetched(wanted: &Wanted, why: &str) -> String {
    format!("the log of task {} is at {}, and {why}", wanted.task.short(), wanted.holder)
}

/// Holds a whole log against what its holder has recorded of it, and keeps it here.
async fn verify(blobs: Blobs, wanted: Wanted, path: PathBuf) -> Result<(), String> {
    let Some(recorded) = wanted.blob else { return Ok(()) };
    let kept = tokio::task::spawn_blocking(move || blobs.keep_if(&path, &recorded)).await;
    match kept.map_err(std::io::Error::other).flatten() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("what it sent is not what it recorded: the content {} was promised", recorded.id)),
        Err(error) => Err(format!("checking it here failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::id::BlobId;

    #[test]
    fn a_log_is_no_longer_than_a_log_may_be_whatever_its_holder_recorded() {
        let most = |bytes: Option<u64>| {
            let blob = bytes.map(|bytes| Blob { id: BlobId::of(b"a log"), bytes });
            Wanted { task: TaskId([2; 32]), attempt: 1, holder: PeerId::from_public_key([3; 32]), blob }.most()
        };
        assert_eq!((most(None), most(Some(7)), most(Some(u64::MAX))), (MOST_BYTES, 7, MOST_BYTES));
    }
}
