//! The stage: the nodes, what they report, and the waiting for what must happen next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::failure::Failure;
use super::super::screen::{Paint, Screen, now_ms, say};
use super::crew::Crew;
use super::story::{Story, letter};
use crate::control::proto::{Event, Status, Task};
use crate::control::{Client, ControlError};

/// Events that wait to be told.
const EVENTS: usize = 256;
/// How long a node may take until its control API answers.
const START: Duration = Duration::from_secs(20);
/// Between two looks at what the nodes know.
const LOOK: Duration = Duration::from_millis(150);

/// What a node reports.
type Report = (usize, Event);

/// An awaited moment: by when, and in words what.
pub(super) struct Wait {
    until: Instant,
    what: String,
}

/// The nodes and the story of what they do.
pub(super) struct Stage {
    screen: Screen,
    pub(super) crew: Crew,
    story: Story,
    began: Instant,
    /// The same moment in milliseconds since 1970.
    began_ms: u64,
    interrupt: Signal,
    terminate: Signal,
    reports: mpsc::Receiver<Report>,
    report: mpsc::Sender<Report>,
    watchers: BTreeMap<usize, JoinHandle<()>>,
    nodes: BTreeMap<usize, Client>,
    /// Repository and path of the tasks that were found.
    found: BTreeMap<String, (String, String)>,
    /// When since the beginning each node took each task last.
    taken: BTreeMap<(String, usize), Duration>,
    /// When something was found last.
    latest: Duration,
}

impl Stage {
    /// An empty stage.
    pub(super) fn open(screen: Screen, crew: Crew, story: Story) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed("cannot listen for signals").because(&error));
        let (report, reports) = mpsc::channel(EVENTS);
        Ok(Self {
            screen,
            crew,
            story,
            began: Instant::now(),
            began_ms: now_ms(),
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            reports,
            report,
            watchers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            found: BTreeMap::new(),
            taken: BTreeMap::new(),
            latest: Duration::ZERO,
        })
    }

    /// Since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Shows text. The play goes on when nobody reads it.
    pub(super) fn say(&self, text: &str) {
        let _ = say(&format!("{text}\n"));
    }

    /// Begins an act, when the last one has been told.
    pub(super) async fn act(&mut self, title: &str) -> Result<(), Failure> {
        self.settle().await?;
        self.say(&format!("\n{}", self.screen.paint(Paint::Strong, title)));
        Ok(())
    }

    /// Tells what has been reported.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        if self.watchers.is_empty() {
            return Ok(());
        }
        let wait = self.wait(START, "the reports of the nodes");
        self.watch(&wait).await
    }

    /// From now on this peer is called by that node's letter.
    pub(super) fn introduce(&mut self, node: usize, peer_id: &str) {
        self.story.introduce(node, peer_id);
    }

    /// Shows what a node does that it does not report itself.
    pub(super) fn tell(&self, node: usize, text: &str) {
        self.say(&self.story.line(self.elapsed(), node, text));
    }

    /// The nodes by their peer ids.
    pub(super) fn names(&self) -> BTreeMap<String, usize> {
        self.story.names().clone()
    }

    /// Starts a node and waits until it answers; from then on its reports are told.
    pub(super) async fn start(&mut self, node: usize, listen: &[String]) -> Result<Status, Failure> {
        self.crew.start(node, listen)?;
        let wait = self.wait(START, format!("node {} to answer", letter(node)));
        let data_dir = self.crew.data_dir(node);
        let client = loop {
            match Client::connect(&data_dir).await {
                Ok(client) => break client,
                Err(ControlError::NoNode { .. }) => self.watch(&wait).await?,
                Err(error) => return Err(error.into()),
            }
        };
        let status = client.status().await?;
        let (events, report) = (client.clone(), self.report.clone());
        let watcher = tokio::spawn(async move {
            let Ok(mut events) = events.events(1000, true).await else { return };
            // An error is the end of the node, which whoever waits for something of it notices.
            while let Some(Ok(event)) = events.next().await {
                if report.send((node, event)).await.is_err() {
                    return;
                }
            }
        });
        self.watchers.insert(node, watcher);
        self.nodes.insert(node, client);
        Ok(status)
    }

    /// Kills a node.
    pub(super) async fn kill(&mut self, node: usize) -> Result<(), Failure> {
        self.crew.kill(node)?;
        self.nodes.remove(&node);
        if let Some(watcher) = self.watchers.remove(&node) {
            watcher.abort();
            let _ = watcher.await;
        }
        Ok(())
    }

    /// Stops all nodes in good order, and what listens to them.
    pub(super) async fn close(&mut self) -> Result<(), Failure> {
        self.nodes.clear();
        for (_, watcher) in std::mem::take(&mut self.watchers) {
            watcher.abort();
            let _ = watcher.await;
        }
        self.crew.stop().await
    }

    /// From now on something is awaited for this long.
    pub(super) fn wait(&self, within: Duration, what: impl Into<String>) -> Wait {
        Wait { until: Instant::now() + within, what: what.into() }
    }

    /// Tells what is reported for a moment, until it is time to look again.
    ///
    /// # Errors
    /// Exit status 1 when the wait is over, a signal came, or a node has ended by itself.
    pub(super) async fn watch(&mut self, wait: &Wait) -> Result<(), Failure> {
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => return Err(Failure::failed("interrupted; all nodes are stopped")),
                _ = self.terminate.recv() => return Err(Failure::failed("terminated; all nodes are stopped")),
                Some((node, event)) = self.reports.recv() => self.on_report(node, event).await?,
                () = &mut look => break,
            }
        }
        self.crew.check()?;
        if Instant::now() > wait.until {
            return Err(Failure::failed(format!("waited in vain for {}", wait.what))
                .hint("`runmesh demo --keep` leaves the nodes' logs to read"));
        }
        Ok(())
    }

    /// What each live node says of itself, in the order of their letters.
    pub(super) async fn statuses(&self) -> Result<Vec<(usize, Status)>, Failure> {
        let mut statuses = Vec::new();
        for (node, client) in &self.nodes {
            statuses.push((*node, client.status().await?));
        }
        Ok(statuses)
    }

    /// The tasks as one of the live nodes knows them, oldest first.
    pub(super) async fn tasks(&self) -> Result<Vec<Task>, Failure> {
        match self.nodes.values().next() {
            Some(client) => Ok(client.tasks("", &[]).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Whether every source of every live node has been looked into.
    pub(super) async fn all_discovered(&self) -> Result<bool, Failure> {
        for client in self.nodes.values() {
            let sources = client.sources().await?;
            let looked =
                |source: &crate::control::proto::Source| source.discovered_ago_ms.is_some() || source.problem.is_some();
            if sources.is_empty() || !sources.iter().all(looked) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The task that was taken at least this long ago and that its taker still runs, if there is one.
    pub(super) async fn caught(
        &self,
        long: Duration,
        wanted: impl Fn(&Task) -> bool,
    ) -> Result<Option<(Task, usize)>, Failure> {
        for ((id, node), at) in &self.taken {
            let Some(client) = self.nodes.get(node).filter(|_| self.elapsed() >= *at + long) else { continue };
            let task = client.tasks(id, &["running".to_owned()]).await?.pop();
            let held =
                |task: &Task| task.holder.as_ref().and_then(|holder| self.story.names().get(holder)) == Some(node);
            if let Some(task) = task.filter(|task| wanted(task) && held(task)) {
                return Ok(Some((task, *node)));
            }
        }
        Ok(None)
    }

    /// How long nothing new has been found or taken.
    pub(super) fn quiet(&self) -> Duration {
        self.elapsed().saturating_sub(self.latest)
    }

    async fn on_report(&mut self, node: usize, mut event: Event) -> Result<(), Failure> {
        let at = Duration::from_millis(event.time_ms.saturating_sub(self.began_ms));
        if let (Some(task), Some(repository), Some(path)) = (&event.task, &event.repository, &event.path) {
            self.found.insert(task.clone(), (repository.clone(), path.clone()));
        } else if let Some(id) = event.task.clone() {
            // Most reports name only the task, and its finder's may come later.
            let known = match self.found.get(&id) {
                Some(known) => Some(known.clone()),
                None => self.look_up(node, &id).await,
            };
            if let Some((repository, path)) = known {
                self.found.insert(id, (repository.clone(), path.clone()));
                (event.repository, event.path) = (Some(repository), Some(path));
            }
        }
        match (event.kind.as_str(), &event.task) {
            ("introduced", _) => self.latest = self.elapsed(),
            ("elected", Some(task)) => {
                self.taken.insert((task.clone(), node), at);
                self.latest = self.elapsed();
            }
            _ => {}
        }
        if let Some(line) = self.story.tell(at, node, &event) {
            self.say(&line);
        }
        Ok(())
    }

    /// What a task is, as the node knows it; a node that is just being killed need not answer.
    async fn look_up(&self, node: usize, id: &str) -> Option<(String, String)> {
        let task = self.nodes.get(&node)?.tasks(id, &[]).await.ok()?.pop()?;
        Some((task.repository, task.path))
    }
}
