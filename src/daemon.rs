//! The only place where the rooms meet: one loop that turns what happens into kernel inputs, and kernel outputs into
//! deeds.
//!
//! Owns the order persist -> publish -> start: whatever the kernel asked for is done only after the entries of the same
//! round are on disk. While the disk refuses them the node does nothing but say so and try again. Leaves every decision
//! to the kernel, every protocol to its room.

mod answers;
mod artifacts;
mod capacity;
mod chronicle;
mod cordon;
mod demand;
mod disk;
mod effects;
mod found;
mod home;
mod intake;
mod kept;
mod leaving;
mod ledger;
mod logs;
mod membership;
mod scale;
mod settings;
mod sources;
mod suspects;
mod work;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

pub use home::{Home, HomeError};
pub use scale::{NO_SCALE_SET, Settings as AutoscalerSettings, WarmSet};
pub use settings::{GithubSettings, Reach, Settings};
pub use work::WorkSettings;

use self::chronicle::{Chronicle, wall_ms};
use self::cordon::Cordon;
use self::disk::Disk;
use self::found::Found;
use self::intake::Intake;
use self::leaving::{HAND_OVER, Leaving};
use self::membership::Gate;
use self::sources::Sources;
use self::suspects::Suspects;
use self::workers::Workers;
use crate::control::{self, Answer, ControlError, Query, Refusal};
use crate::kernel::entry::Entry;
use crate::kernel::id::{MeshId, PeerId, TaskId};
use crate::kernel::io::{Input, Now, Offer, Output, Token};
use crate::kernel::node::{Node, Settings as KernelSettings, Standing, Timings};
use crate::kernel::requests::Amounts;
use crate::kernel::task::CONTAINER_ENGINE;
use crate::net::{self, Multiaddr, NetError};
use crate::runner::{self, Isolation};
use crate::store::{Blobs, Owner, Store, StoreError};

/// Questions of the control API that wait.
const QUERIES: usize = 64;
/// Results of the daemon's own helpers that wait.
const FOUND: usize = 64;
/// The most happenings that are taken before what follows from them is carried out: they share one sync of the disk.
const ROUND: usize = 64;
/// After a connection came about, before the peers' addresses are kept: most have told theirs by then.
const REMEMBER: Duration = Duration::from_millis(100);
/// Before that is done again, where there was something new, and where there was nothing.
const REMEMBER_NEWS: Duration = Duration::from_secs(2);
const REMEMBER_AGAIN: Duration = Duration::from_secs(300);
/// Before the disk is tried again.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// How long callers of the control API may take to hear the end of their answers.
const CONTROL_GRACE: Duration = Duration::from_secs(1);
/// The least time between two looks at what runs left behind.
const SWEEP: Duration = Duration::from_secs(60);
/// Attempts of a task that are lost before it counts as lost (DESIGN.md section 4).
const ATTEMPTS: u32 = 3;

/// Why a node could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Runner(#[from] runner::OpenError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(
        "entry {at} of the database does not read back as it was written ({why}); the disk or the file is damaged: \
         move the data directory's runmesh.redb away, and the node fetches its history from its peers"
    )]
    Damaged { at: u64, why: String },
    #[error(
        "the database's snapshot of dropped history does not read back as it was written ({0}); the disk or the file is \
         damaged: move the data directory's runmesh.redb away, and the node fetches its history from its peers"
    )]
    DamagedSnapshot(String),
    #[error(
        "a later version of runmesh has written to the database what this one cannot read ({0}): start that version, or a \
         later one, again; all that the database holds is as it was"
    )]
    Later(String),
    #[error("listening for signals: {0}")]
    Signals(std::io::Error),
    #[error("asking the system for random bytes: {0}")]
    Entropy(getrandom::Error),
    #[error("the bootstrap address `{address}` kept in the data directory: {why}; run `runmesh mesh join` again")]
    Bootstrap { address: String, why: String },
}

/// What a person who starts a node wants to know at once.
#[derive(Debug, Clone)]
pub struct Started {
    pub peer: String,
    pub mesh: MeshId,
    pub listen: Vec<Multiaddr>,
    /// The node has just made its mesh.
    pub founded: bool,
    /// The node is no member yet and waits for one to admit it.
    pub joining: bool,
    /// Why this host runs no tasks although it was told to, one sentence each.
    pub impediments: Vec<String>,
}

/// Runs a node until a signal or the control API ends it. `started` is called once, when it listens.
///
/// # Errors
/// [`DaemonError`] says what kept the node from starting. Once it has started it does not fail: what goes wrong then is
/// said and tried again.
pub async fn run(settings: Settings, started: impl FnOnce(&Started)) -> Result<(), DaemonError> {
    hide_memory();
    let home = Home::open(&settings.data_dir)?;
    let (mut daemon, mut doors) = Daemon::open(settings, home).await?;
    started(&daemon.started().await);
    daemon.work(&mut doors).await;
    daemon.write_what_waits();
    daemon.close(doors).await;
    Ok(())
}

/// Keys and tokens are in this process's memory: no core dump is made of it, and what runs as the same user cannot look
/// into it. Programs that it starts are as they always are.
fn hide_memory() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("this process's memory is not hidden from core dumps: {error}");
    }
}

/// Everything through which something can happen to the node.
struct Doors {
    signals: Signals,
    queries: mpsc::Receiver<Query>,
    events: Intake,
    reports: mpsc::Receiver<runner::Ran>,
    found: mpsc::Receiver<Found>,
    server: control::Server,
    supervisor: runner::Supervisor,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What could not be done yet because the disk does not take the entries it follows from.
struct Unwritten {
    entries: Vec<Arc<Entry>>,
    outputs: Vec<Output>,
    retry: Instant,
    /// What the disk said, once it has refused.
    why: Option<String>,
    /// When, should it go on refusing, what stops where this node is cut off is stopped.
    cut_off: Option<Instant>,
}

struct Daemon {
    settings: Settings,
    mesh: MeshId,
    key: SigningKey,
    home_founded: bool,
    start: Instant,
    started_ms: u64,
    node: Node,
    store: Arc<Store>,
    /// Pages on their way to peers.
    serving: JoinSet<()>,
    membership: crate::store::Membership,
    net: net::Client,
    runner: runner::Handle,
    chronicle: Chronicle,
    sources: Sources,
    workers: Workers,
    disk: Disk,
    scale: scale::Scale,
    /// What there is of processors, memory and the like.
    has: Amounts,
    find: mpsc::Sender<Found>,
    /// Inputs that followed from outputs.
    inputs: VecDeque<Input>,
    outputs: Vec<Output>,
    unwritten: Option<Unwritten>,
    postponed: effects::Postponed,
    leaving: Leaving,
    /// Why nothing new is taken for now.
    cordon: Option<Cordon>,
    next_token: u64,
    asking: BTreeMap<Token, net::ReplyToken>,
    commands: BTreeMap<Token, Asker>,
    revoking: BTreeMap<Token, Answer<PeerId>>,
    gate: Gate,
    suspects: Suspects,
    /// When to keep where the peers are.
    keep_peers: Option<Instant>,
    kept_peers: Vec<String>,
    logs: logs::Logs,
    blobs: Blobs,
    fetcher: logs::Fetcher,
    /// When old logs and artifacts were removed last.
    swept: Option<Instant>,
}

/// Who waits for the end of a command.
enum Asker {
    /// He is told which task it concerns.
    Task(Answer<TaskId>),
    /// He is told that it is done.
    Plain(Answer<()>),
}

impl Asker {
    fn send(self, answer: Result<Option<TaskId>, Refusal>) {
        match self {
            Self::Plain(place) => place.send(answer.map(drop)),
            Self::Task(place) => {
                let none = || Refusal::Failed("the node named no task".to_owned());
                place.send(answer.and_then(|task| task.ok_or_else(none)));
            }
        }
    }
}

impl Daemon {
    async fn open(settings: Settings, home: Home) -> Result<(Self, Doors), DaemonError> {
        let mut bootstrap = settings.bootstrap.clone();
        for address in &home.membership.bootstrap {
            let bad = |why: String| DaemonError::Bootstrap { address: address.clone(), why };
            bootstrap
                .push(address.parse().map_err(|error: <Multiaddr as std::str::FromStr>::Err| bad(error.to_string()))?);
        }
        let entrance = home.entrance()?;
        let (mesh, peer, key) = (home.membership.mesh, home.peer(), home.identity.signing_key());
        let (founded, secret, membership) = (home.founded, *home.identity.expose(), home.membership.clone());
        let store = Arc::new(Store::open(home.dir, Owner { mesh, peer })?);
        let blobs = Blobs::open(store.dir())?;
        let (snapshot, kept) = kept::history(&store, &mesh)?;
        let cordon = Cordon::kept(&store)?;
        let work_root = settings.work.root(&settings.data_dir, &peer);
        let mut runner_settings = runner::Settings::new(work_root.clone());
        runner_settings.ledger = Arc::new(ledger::OnDisk(store.clone()));
        runner_settings.act.clone_from(&settings.act);
        runner_settings.actions_runner.clone_from(&settings.actions_runner);
        runner_settings.engine.clone_from(&settings.work.engine);
        runner_settings.pull = settings.work.pull;
        runner_settings.fork_pull_requests = settings.github.selection.fork_pull_requests;
        runner_settings.images = settings.work.images;
        runner_settings.limits = settings.work.limits;
        if let Some(image) = &settings.work.image {
            runner_settings.image.clone_from(image);
        }
        runner_settings.artifacts.floor = settings.work.min_free;
        if let Some(limit) = settings.work.artifacts_limit {
            runner_settings.artifacts.bytes = limit;
        }
        runner_settings.labels.clone_from(&settings.labels);
        runner_settings.hidden = vec![settings.data_dir.clone(), work_root];
        let (supervisor, reports) = runner::Supervisor::open(runner_settings).await?;
        let start = Instant::now();
        let timings = Timings {
            discovery: u64::try_from(settings.discovery_interval.as_millis()).unwrap_or(u64::MAX),
            ..Timings::default()
        }
        .keeping(u64::try_from(settings.retention.as_millis()).unwrap_or(u64::MAX));
        let kernel_settings = KernelSettings {
            key: key.clone(),
            mesh,
            entrance,
            seed: getrandom::u64().map_err(DaemonError::Entropy)?,
            timings,
            attempts: ATTEMPTS,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let now = Now { mono: 1, wall: wall_ms() };
        let (node, outputs) = Node::restore(now, kernel_settings, snapshot, kept);
        let mut net_settings = net::Settings::new(secret, mesh);
        net_settings.listen.clone_from(&settings.listen);
        net_settings.bootstrap = bootstrap;
        net_settings.announce.clone_from(&settings.reach.announce);
        net_settings.swarm_key = settings.reach.swarm_key;
        net_settings.mdns = settings.reach.mdns;
        net_settings.relay = settings.reach.relay;
        net_settings.known = remembered(&store);
        let gate = Gate::of(&membership, &settings.bootstrap);
        net_settings.welcome = gate.welcome(&node);
        net_settings.papers = gate.papers(&node, &store);
        let (net, events) = net::start(net_settings)?;
        let events = Intake::start(events, mesh);
        let fetcher = logs::Fetcher::new(net.clone());
        let (ask, queries) = mpsc::channel(QUERIES);
        let server = control::serve(&settings.data_dir, ask).await?;
        let (find, found) = mpsc::channel(FOUND);
        let signals = Signals::listen().map_err(DaemonError::Signals)?;
        let sources = Sources::new(&settings.sources);
        let disk = Disk::look(&settings.data_dir, &settings.work);
        let github = (settings.sources.as_slice(), settings.github.endpoint.host.as_str());
        let scale = scale::Scale::new(settings.autoscaler.clone(), &peer.to_string(), github, net.clone());
        let mut daemon = Self {
            mesh,
            key,
            home_founded: founded,
            start,
            started_ms: wall_ms(),
            node,
            store,
            serving: JoinSet::new(),
            membership,
            net,
            runner: supervisor.handle(),
            chronicle: Chronicle::new(),
            sources,
            workers: Workers::default(),
            disk,
            scale,
            has: capacity::of_host(&settings.data_dir, &settings.labels),
            find,
            inputs: VecDeque::new(),
            outputs,
            unwritten: None,
            postponed: effects::Postponed::default(),
            leaving: Leaving::No,
            cordon,
            next_token: 0,
            asking: BTreeMap::new(),
            commands: BTreeMap::new(),
            revoking: BTreeMap::new(),
            gate,
            suspects: Suspects::default(),
            keep_peers: None,
            kept_peers: Vec::new(),
            logs: logs::Logs::default(),
            blobs,
            fetcher,
            swept: None,
            settings,
        };
        daemon.tell_of_earlier(supervisor.earlier());
        daemon.begin_cordoned();
        daemon.take_up_registrations();
        daemon.begin_to_scale();
        daemon.sweep_soon();
        daemon.inputs.push_back(Input::Offer(daemon.offer()));
        daemon.resolve_sources();
        Ok((daemon, Doors { signals, queries, events, reports, found, server, supervisor }))
    }

    async fn started(&self) -> Started {
        Started {
            peer: self.node.peer().to_string(),
            mesh: self.mesh,
            listen: self.net.addresses().await.unwrap_or_default(),
            founded: self.home_founded,
            joining: self.node.standing() == Standing::Joining && !self.home_founded,
            impediments: self.impediments(),
        }
    }

    /// Why this host can run nothing although it should.
    fn impediments(&self) -> Vec<String> {
        let of_act = if self.takes_mesh() { self.impediments_of_act() } else { Vec::new() };
        let sets = self.scale.sets.problem.clone();
        of_act.into_iter().chain(self.no_runners()).chain(self.disk.low.clone()).chain(sets).collect()
    }

    /// Whether this host is to run the mesh's own tasks.
    fn takes_mesh(&self) -> bool {
        self.settings.autoscaler.as_ref().is_none_or(|autoscaler| autoscaler.split.mesh)
    }

    /// Why this host cannot run the mesh's own tasks although it should.
    fn impediments_of_act(&self) -> Vec<String> {
        if self.settings.max_runners == 0 {
            return Vec::new();
        }
        let (has, isolation) = (self.runner.capabilities(), self.settings.isolation);
        if !self.settings.work.command.is_empty() {
            return has.walls(isolation).map(str::to_owned).into_iter().collect();
        }
        has.missing(isolation).into_iter().map(str::to_owned).collect()
    }

    /// What this host offers the mesh.
    fn offer(&self) -> Offer {
        let runs = self.impediments_of_act().is_empty() && self.takes_mesh() || self.starts_runners();
        let slots = if runs && self.disk.low.is_none() { self.scale.slots(self.settings.max_runners) } else { 0 };
        let slots = slots + self.workers.slots();
        let mut labels = &self.settings.labels | &self.has.labels();
        labels.extend(self.scale_labels());
        if self.settings.isolation == Isolation::Container && self.runner.capabilities().engine.is_ok() {
            labels.insert(CONTAINER_ENGINE.to_owned());
        }
        let mut sources = self.sources.keys();
        sources.extend(self.scale.sets.keys().cloned());
        Offer { slots, labels, sources }
    }

    fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { mono: mono + 1, wall: wall_ms() }
    }

    /// The loop. Each turn takes what has happened, then carries out all that follows from it.
    async fn work(&mut self, doors: &mut Doors) {
        loop {
            self.carry_out().await;
            if self.may_end() {
                return;
            }
            if self.unwritten.is_some() {
                self.wait_for_disk(doors).await;
                continue;
            }
            let wake = Instant::now() + until_wake(self.now(), self.node.next_wake());
            let end = self.leaving.due().unwrap_or(self.start + Duration::from_secs(u64::from(u32::MAX)));
            let resolve = self.sources.next_resolve();
            let keep_peers = self.keep_peers.unwrap_or(end);
            let workers = self.workers.next_look();
            let jobs = self.scale.next_look();
            let sets = self.scale.sets.next_look();
            // What is due is carried out at the loop's top.
            let write = self.postponed.due().unwrap_or(end);
            tokio::select! {
                biased;
                () = doors.signals.next() => self.on_signal(),
                // What this node has begun itself goes before what others may bring without end.
                Some((task, fence, outcome)) = doors.reports.recv() => self.on_ran(task, fence, outcome),
                Some(found) = doors.found.recv() => self.on_found(found).await,
                () = sleep_until(resolve) => self.resolve_sources(),
                () = sleep_until(keep_peers), if self.keep_peers.is_some() => self.remember_peers().await,
                () = sleep_until(workers.unwrap_or(end)), if workers.is_some() => self.look_at_workers(),
                () = sleep_until(jobs.unwrap_or(end)), if jobs.is_some() => self.look_for_jobs(),
                () = sleep_until(sets.unwrap_or(end)), if sets.is_some() => self.look_after_sets(),
                () = sleep_until(self.disk.look) => self.look_at_disk(),
                () = sleep_until(write), if self.postponed.due().is_some() => {}
                () = sleep_until(end) => self.leave_further(),
                () = sleep_until(wake) => self.feed(Input::Wake),
                Some(query) = doors.queries.recv() => self.on_query(query).await,
                Some(arrived) = doors.events.recv() => self.on_arrived(arrived).await,
            }
            // Whatever went first, each turn takes of these too.
            if let Ok(query) = doors.queries.try_recv() {
                self.carry_out().await;
                self.on_query(query).await;
            }
            for _ in 0..ROUND {
                let Some(arrived) = doors.events.try_recv() else { break };
                self.on_arrived(arrived).await;
            }
        }
    }

    /// Keeps where the peers are, for the next start of this node.
    async fn remember_peers(&mut self) {
        let known: Vec<String> = self.net.known().await.unwrap_or_default().iter().map(ToString::to_string).collect();
        let news = !known.is_empty() && known != self.kept_peers;
        self.keep_peers = Some(Instant::now() + if news { REMEMBER_NEWS } else { REMEMBER_AGAIN });
        if !news {
            return;
        }
        match tokio::task::block_in_place(|| self.store.dir().keep_addresses(&known)) {
            Ok(()) => self.kept_peers = known,
            Err(error) => tracing::warn!("{error}"),
        }
    }

    /// While the disk takes nothing: answers questions, leaves if it was told to, and tries again.
    async fn wait_for_disk(&mut self, doors: &mut Doors) {
        let Some(Unwritten { retry, cut_off, .. }) = self.unwritten else { return };
        let leave = self.leaving.due();
        tokio::select! {
            biased;
            () = doors.signals.next() => self.leaving = Leaving::Now,
            Some(query) = doors.queries.recv() => self.on_query(query).await,
            () = sleep_until(leave.unwrap_or(retry)), if leave.is_some() => self.leave_further(),
            () = sleep_until(cut_off.unwrap_or(retry)), if cut_off.is_some() => self.stop_what_is_cut_off().await,
            Some(found) = doors.found.recv() => self.on_found(found).await,
            () = sleep_until(retry) => {}
        }
    }

    /// Hands an input to the kernel and keeps what it asks for.
    fn feed(&mut self, input: Input) {
        let now = self.now();
        let mut outputs = self.node.handle(now, input);
        self.outputs.append(&mut outputs);
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// Ends what is left: work, connections, callers.
    async fn close(mut self, doors: Doors) {
        let Doors { mut signals, mut events, reports, server, supervisor, .. } = doors;
        // The supervisor waits for whoever could still read them.
        drop(reports);
        let ending = async {
            if !supervisor.shutdown(HAND_OVER).await {
                tracing::warn!("some of the work here did not end in time; the next start clears it away");
            }
            self.take_back_registrations().await;
            if self.net.shutdown().await.is_ok() {
                while events.recv().await.is_some() {}
            }
            server.stop(CONTROL_GRACE).await;
        };
        tokio::select! {
            () = ending => {}
            // Whoever insists is obeyed; the reapers end the work when this process is gone.
            () = async { signals.next().await; sleep(CONTROL_GRACE).await } => {}
        }
        tracing::info!("the node has ended");
    }
}

/// How long the kernel may sleep that wants to be woken at that time of its own clock. Not longer than a timer holds.
fn until_wake(now: Now, wake: u64) -> Duration {
    Duration::from_millis(wake.saturating_sub(now.mono).min(u64::from(u32::MAX)))
}

/// Where an earlier life of this node has reached its peers.
fn remembered(store: &Store) -> Vec<Multiaddr> {
    let kept = store.dir().addresses().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    kept.iter().filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_run_for_longer_than_a_timer_holds_still_sleeps() {
        let days = |days: u64| days * 86_400_000;
        for mono in [1, days(49), days(50), days(5_000)] {
            let now = Now { mono, wall: 0 };
            assert_eq!(until_wake(now, mono + 250), Duration::from_millis(250));
            assert_eq!(until_wake(now, mono.saturating_sub(1)), Duration::ZERO);
            assert!(until_wake(now, u64::MAX) > Duration::from_secs(86_400));
        }
    }
}
