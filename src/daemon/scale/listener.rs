//! Listening to one scale set: one session after the other, one question for messages after the other, until told to stop.
//!
//! Promises that a message is acknowledged only when the loop has said that what follows from it is on disk, that the
//! session is closed when listening stops, and that whatever GitHub answers it is asked again after a pause that grows.
//! Leaves to the loop what messages mean, and to the kernel who listens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::daemon::chronicle::wall_ms;
use crate::daemon::found::Found;
use crate::daemon::scale::sets::News;
use crate::forge::github::{Jit, Message, ScaleSet, ScaleSetError, Service, Session, Statistics, Word};
use crate::kernel::io::SourceKey;

/// Before GitHub is asked again after a failure: at first, and at most; it doubles. While another session is open too.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Failures in a row after which this node says that it cannot reach the scale set.
const STRIKES: u32 = 4;
/// How long the loop may take to keep what follows from a message; then GitHub tells it again.
const KEEPING: Duration = Duration::from_secs(30);
/// How long closing the session may hold up whoever waits for it.
const FAREWELL: Duration = Duration::from_secs(3);

/// The way to one scale set. A copy is the same way.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) service: Service,
    name: String,
    group: Option<String>,
    found: Arc<Mutex<Option<ScaleSet>>>,
}

impl Way {
    pub(super) fn new(service: Service, name: &str, group: Option<String>) -> Self {
        Self { service, name: name.to_owned(), group, found: Arc::default() }
    }

    /// The scale set, found or made by the first who asks.
    pub(super) async fn set(&self) -> Result<ScaleSet, ScaleSetError> {
        let mut found = self.found.lock().await;
        if let Some(set) = found.as_ref() {
            return Ok(set.clone());
        }
        let set = self.service.scale_set(&self.name, self.group.as_deref()).await?;
        *found = Some(set.clone());
        Ok(set)
    }

    async fn forget(&self) {
        *self.found.lock().await = None;
    }

    /// Registers a runner for one job.
    pub(super) async fn configure(&self, runner: &str) -> Result<Jit, ScaleSetError> {
        let set = self.set().await?;
        match self.service.configure(&set, runner).await {
            Err(ScaleSetError::Gone { .. }) => {
                self.forget().await;
                let set = self.set().await?;
                self.service.configure(&set, runner).await
            }
            answer => answer,
        }
    }
}

/// What a listener says to the loop.
pub(in crate::daemon) enum Said {
    /// A session of that name is open, to the set of that number.
    Open { statistics: Statistics, set: u64, session: String },
    /// Another has one.
    Waits { why: String },
    /// To be answered when what follows from it is on disk.
    Message { message: Box<Message>, taken: oneshot::Sender<()> },
    /// GitHub had nothing to say for as long as it keeps a question open.
    Quiet,
    /// The scale set cannot be reached from here, and will not be until then, in milliseconds, where that was told.
    Failed { why: String, wait_ms: Option<u64> },
}

/// A listener at work.
pub(super) struct Listener {
    stop: watch::Sender<bool>,
    capacity: watch::Sender<u32>,
    former: watch::Sender<Former>,
    task: JoinHandle<()>,
}

/// The set's number and the session of one that listened and is there no more.
type Former = Option<(u64, String)>;

impl Listener {
    /// Begins to listen. What it says comes under the scale set's name and this number of its life.
    pub(super) fn start(way: Way, key: SourceKey, life: u64, owner: String, find: mpsc::Sender<Found>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (capacity, most) = watch::channel(0);
        let line = watch::Sender::new(Line::default());
        let (former, left) = watch::channel(None);
        let ear = Ear { way, owner, capacity: most, former: left, line, strikes: 0, say: Speaker { key, life, find } };
        Self { stop, capacity, former, task: tokio::spawn(listen(ear, stopped)) }
    }

    /// How many runners the scale set may have in all.
    pub(super) fn announce(&self, capacity: u32) {
        self.capacity.send_if_modified(|now| std::mem::replace(now, capacity) != capacity);
    }

    /// Who listened before is there no more: its session may be closed.
    pub(super) fn succeed(&self, former: &Former) {
        self.former.send_if_modified(|now| {
            let is_news = now != former;
            now.clone_from(former);
            is_news
        });
    }

    /// Ends it, and its session with it.
    pub(super) async fn end(mut self) {
        self.stop.send_replace(true);
        if timeout(FAREWELL * 2, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

struct Speaker {
    key: SourceKey,
    life: u64,
    find: mpsc::Sender<Found>,
}

impl Speaker {
    async fn say(&self, said: Said) {
        let news = News::Said { key: self.key.clone(), life: self.life, said };
        let _ = self.find.send(news.into()).await;
    }
}

/// The session, and whether one is being asked for.
#[derive(Default)]
struct Line {
    session: Option<Session>,
    opening: bool,
}

struct Ear {
    way: Way,
    owner: String,
    capacity: watch::Receiver<u32>,
    former: watch::Receiver<Former>,
    line: watch::Sender<Line>,
    /// Failures since GitHub last did as it was asked.
    strikes: u32,
    say: Speaker,
}

async fn listen(mut ear: Ear, mut stopped: watch::Receiver<bool>) {
    let (service, mut line) = (ear.way.service.clone(), ear.line.subscribe());
    {
        let mut work = std::pin::pin!(ear.go_on());
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => {}
            () = &mut work => {}
        }
        // One that is opened just now would be nobody's.
        let opened = async {
            let _ = line.wait_for(|line| !line.opening).await;
        };
        tokio::select! {
            _ = timeout(FAREWELL, opened) => {}
            () = &mut work => {}
        }
    }
    let session = line.borrow_and_update().session.clone();
    if let Some(session) = session {
        match timeout(FAREWELL, service.close(&session)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("{error}"),
            Err(_) => tracing::debug!("closing the session of a scale set took too long"),
        }
    }
}

impl Ear {
    /// Never ends.
    async fn go_on(&mut self) {
        loop {
            let Err(error) = self.listen_once().await;
            self.strikes = self.strikes.saturating_add(1);
            tracing::debug!("{error}");
            let wait_ms = error.until().map(|until| (until * 1_000).saturating_sub(wall_ms()));
            if matches!(error, ScaleSetError::Taken { .. }) {
                self.say.say(Said::Waits { why: error.to_string() }).await;
            } else if error.is_final() || wait_ms.is_some() || self.strikes >= STRIKES {
                self.say.say(Said::Failed { why: error.to_string(), wait_ms }).await;
            }
            let pause = if error.is_final() { LONGEST_PAUSE } else { pause(self.strikes) };
            let pause = wait_ms.map_or(pause, |wait| pause.max(Duration::from_millis(wait)));
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = self.former.changed(), if wait_ms.is_none() => {}
            }
        }
    }

    /// Listens until something is wrong.
    async fn listen_once(&mut self) -> Result<std::convert::Infallible, ScaleSetError> {
        let kept = self.line.borrow().session.clone();
        let mut session = match kept {
            Some(session) => session,
            None => self.open().await?,
        };
        let mut last = 0;
        loop {
            let most = *self.capacity.borrow_and_update();
            let asked = self.way.service.message(&session, last, most);
            let answer = tokio::select! {
                answer = asked => answer,
                // A question that is open goes on with what it was asked with.
                _ = self.capacity.wait_for(|now| *now != most) => continue,
            };
            match answer {
                Ok(None) => {
                    self.strikes = 0;
                    self.say.say(Said::Quiet).await;
                }
                Ok(Some(message)) => {
                    self.strikes = 0;
                    let id = message.id;
                    if self.take(&mut session, message).await? {
                        last = last.max(id);
                    }
                }
                Err(ScaleSetError::Stale { .. }) => {
                    self.strikes += 1;
                    if self.strikes > 1 {
                        sleep(pause(self.strikes)).await;
                    }
                    session = self.renew(&session).await?;
                }
                Err(error) => {
                    if matches!(error, ScaleSetError::Gone { .. } | ScaleSetError::Taken { .. }) {
                        self.lose().await;
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Session, ScaleSetError> {
        let set = self.way.set().await?;
        self.line.send_modify(|line| line.opening = true);
        let mut opened = self.way.service.open(&set, &self.owner).await;
        let former = self.former.borrow_and_update().clone();
        if let (Err(ScaleSetError::Taken { .. }), Some((of, session))) = (&opened, former)
            && of == set.id
            && self.way.service.close_named(of, &session).await.is_ok()
        {
            opened = self.way.service.open(&set, &self.owner).await;
        }
        self.line.send_modify(|line| {
            line.opening = false;
            line.session = opened.as_ref().ok().cloned();
        });
        if matches!(opened, Err(ScaleSetError::Gone { .. })) {
            self.way.forget().await;
        }
        let session = opened?;
        let (statistics, name) = (session.statistics, session.id.clone());
        self.say.say(Said::Open { statistics, set: set.id, session: name }).await;
        Ok(session)
    }

    /// What GitHub does not know any more is asked for anew.
    async fn lose(&mut self) {
        let mut lost = None;
        self.line.send_modify(|line| lost = line.session.take());
        if let Some(session) = lost {
            // In case GitHub has it after all: another is not opened beside it.
            let _ = timeout(FAREWELL, self.way.service.close(&session)).await;
        }
        self.way.forget().await;
    }

    async fn renew(&mut self, session: &Session) -> Result<Session, ScaleSetError> {
        match self.way.service.renew(session).await {
            Ok(renewed) => {
                self.line.send_modify(|line| line.session = Some(renewed.clone()));
                Ok(renewed)
            }
            Err(error) => {
                // Without a queue it is as good as none.
                if matches!(
                    error,
                    ScaleSetError::Gone { .. } | ScaleSetError::Taken { .. } | ScaleSetError::NoQueue { .. }
                ) {
                    self.lose().await;
                }
                Err(error)
            }
        }
    }

    /// Hands a message over, and acknowledges it once it is taken care of; `false` when it is not.
    async fn take(&mut self, session: &mut Session, message: Message) -> Result<bool, ScaleSetError> {
        let id = message.id;
        let available = message.words.iter().filter(|word| word.word == Word::Available && word.request > 0);
        let most = usize::try_from(*self.capacity.borrow()).unwrap_or(usize::MAX);
        let available: Vec<u64> = available.map(|word| word.request).take(most).collect();
        let (taken, is_taken) = oneshot::channel();
        self.say.say(Said::Message { message: Box::new(message), taken }).await;
        if timeout(KEEPING, is_taken).await.is_ok_and(|taken| taken.is_ok()) {
            if !available.is_empty()
                && let Err(error) = self.way.service.acquire(session, &available).await
            {
                // They are offered again.
                tracing::debug!("{error}");
            }
            if let Err(ScaleSetError::Stale { .. }) = self.way.service.acknowledge(session, id).await {
                *session = self.renew(session).await?;
                self.way.service.acknowledge(session, id).await?;
            }
            return Ok(true);
        }
        sleep(PAUSE).await;
        Ok(false)
    }
}

/// Before the next try, after so many failures: a random part, at least half, of what doubles.
fn pause(strikes: u32) -> Duration {
    let most = (PAUSE * 2_u32.saturating_pow(strikes.saturating_sub(1).min(8))).min(LONGEST_PAUSE);
    let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    most.mul_f64(0.5 + share / 2.0)
}
