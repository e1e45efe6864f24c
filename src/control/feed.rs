//! The endless answers: events as they happen, a log as it grows.
//!
//! Nothing here runs by itself: each stream goes on when its caller has read what came before, and holds no more than
//! one piece of it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use tonic::Status;

use super::proto::{ArtifactChunk, Event, LogChunk};
use super::query::{EventFeed, LogFile, Writing};

/// The most bytes of a log in one message.
const CHUNK: usize = 64 * 1024;
/// How often a log that is being written is looked at.
const POLL: Duration = Duration::from_millis(200);

/// The past, then, if asked, what happens until the node ends or `closing` turns true.
pub(super) fn events(
    feed: EventFeed,
    follow: bool,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Event, Status>> + Send + 'static {
    let EventFeed { past, live } = feed;
    let last_ms = past.last().map_or(0, |event| event.time_ms);
    let live = stream::unfold((live, last_ms), |(mut live, last_ms)| async move {
        let event = match live.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Closed) => return None,
            Err(broadcast::error::RecvError::Lagged(missed)) => Event {
                time_ms: last_ms,
                kind: "missed-events".to_owned(),
                text: format!("{missed} events were not read in time and are not shown"),
                ..Event::default()
            },
        };
        let last_ms = event.time_ms;
        Some((event, (live, last_ms)))
    });
    let live = live.take(if follow { usize::MAX } else { 0 }).take_until(closed(closing));
    stream::iter(past).chain(live).map(Ok)
}

/// The log's bytes; with `follow`, also those that are written until its task has ended or `closing` turns true.
pub(super) fn log(
    log: LogFile,
    follow: bool,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = Result<LogChunk, Status>> + Send + 'static {
    let follow = follow || log.arriving;
    let reader = LogReader { path: log.path, writing: log.writing, follow, file: None, read: 0, up_to: u64::MAX };
    let chunks = stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(data) if data.is_empty() => None,
            Ok(data) => Some((Ok(LogChunk { data }), Some(reader))),
            Err(status) => Some((Err(status), None)),
        }
    });
    chunks.take_until(closed(closing))
}

/// A file's bytes as they are now.
pub(super) fn artifact(
    path: PathBuf,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = Result<ArtifactChunk, Status>> + Send + 'static {
    let writing = watch::channel(Writing::Ended).1;
    let file = LogFile { path, writing, arriving: false };
    log(file, false, closing).map(|chunk| chunk.map(|LogChunk { data }| ArtifactChunk { data }))
}

async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

struct LogReader {
    path: PathBuf,
    writing: watch::Receiver<Writing>,
    follow: bool,
    file: Option<File>,
    /// Bytes given so far.
    read: u64,
    /// Bytes to give at most: without `follow`, what was there at the start.
    up_to: u64,
}

impl LogReader {
    /// The next piece; empty at the end.
    async fn next(&mut self) -> Result<Vec<u8>, Status> {
        loop {
            // Looked at before the file: what a task wrote before it ended is then read to its last byte.
            let ended = self.has_ended();
            let data = self.read().await.map_err(|error| self.failed(&error))?;
            match data {
                Some(data) if !data.is_empty() => return Ok(data),
                None if ended || !self.follow => {
                    return Err(Status::not_found("it is not here any more"));
                }
                _ if ended && let Writing::Failed(why) = &*self.writing.borrow() => {
                    return Err(Status::data_loss(why.clone()));
                }
                _ if ended || !self.follow => return Ok(Vec::new()),
                _ => {}
            }
            // Either the task ends or the time is up; both mean to look again.
            let _ = timeout(POLL, self.writing.wait_for(|writing| *writing != Writing::Going)).await;
        }
    }

    fn has_ended(&self) -> bool {
        *self.writing.borrow() != Writing::Going || self.writing.has_changed().is_err()
    }

    /// What can be read now; `None` when there is no file yet.
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(&self.path).await {
                Ok(file) => {
                    if !self.follow {
                        self.up_to = file.metadata().await?.len();
                    }
                    self.file.insert(file)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let most = usize::try_from(self.up_to - self.read).unwrap_or(CHUNK).min(CHUNK);
        let mut data = vec![0; most];
        let length = file.read(&mut data).await?;
        data.truncate(length);
        self.read += length as u64;
        if length == 0 && file.metadata().await?.len() < self.read {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it was cut while it was read"));
        }
        Ok(Some(data))
    }

    fn failed(&self, error: &io::Error) -> Status {
        Status::internal(format!("reading {}: {error}", self.path.display()))
    }
}
