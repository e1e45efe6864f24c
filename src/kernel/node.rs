//! One node: clock, ledger, election and custody composed into a state machine.
//!
//! [`Node::handle`] takes what happened and gives back what is to be done; [`Node::next_wake`] says when to come back
//! with [`Input::Wake`] at the latest. There is no other way to drive it. Persist comes before publish, publish before
//! start: every entry that a call has added stands in one [`Output::Persist`] ahead of all else it asks for.

mod catchup;
mod claims;
mod commands;
mod coverage;
mod custody;
mod duty;
mod greeting;
mod groups;
mod history;
mod jobs;
mod pause;
mod peers;
mod proof;
mod quorum;
mod revoke;
mod sync;
mod view;
mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;

use super::clock::{Clock, Effects, Placing, Shelf};
use super::election::Place;
use super::entry::{Admit, Entry, Event, MAX_EVENTS, Right, Ticket};
use super::id::{Author, Cid, Digest, Incarnation, MeshId, PeerId, TaskId};
use super::io::{Input, Notice, Now, Offer, Output, Token};
use super::ledger::{Ledger, Paused};
use super::quarantine::Quarantine;
use super::queue::Queue;
use super::snapshot::Sealed;
use super::task::State;
pub use super::timings::Timings;
pub use jobs::{Allocation, Split};
pub use view::{Standing, Status};

/// The most bytes of events that this node puts into one entry; well below what the wire lets through.
const MAX_EVENT_BYTES: usize = 32 << 10;
/// How often one call may find more to do after having written an entry. Two or three rounds are usual.
const MAX_ROUNDS: usize = 16;

/// How this node becomes a member of its mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entrance {
    /// It is the first member: the mesh key named it.
    Founder(Right),
    /// It was invited.
    Ticket(Ticket),
    /// It is a member already, or cannot become one.
    None,
}

/// What a node is made with.
pub struct Settings {
    pub key: SigningKey,
    pub mesh: MeshId,
    pub entrance: Entrance,
    /// Random, new at every start: new incarnations are named from it.
    pub seed: u64,
    pub timings: Timings,
    /// Attempts that are lost before a task counts as lost, from 1.
    pub attempts: u32,
    /// The program's version, for people.
    pub version: String,
}

/// Whether this node may write entries yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is not a member as far as it knows.
    Joining,
    /// It learns what the others have, its own chain included, until this time.
    Learning { until: u64 },
    /// It takes part.
    Active,
}

/// The kernel of one node.
pub struct Node {
    settings: Settings,
    me: Place,
    author: Author,
    incarnations: u64,
    stage: Stage,
    now: Now,
    /// What this host offers, and what of it this node's right lets it offer.
    offered: Offer,
    offer: Offer,
    clock: Clock,
    shelf: Shelf,
    ledger: Ledger,
    quarantine: Quarantine,
    queue: Queue,
    jobs: jobs::Jobs,
    peers: peers::Peers,
    sync: sync::Sync,
    custody: custody::Custody,
    claims: claims::Claims,
    duty: duty::Duty,
    groups: groups::Groups,
    history: history::History,
    catchup: catchup::CatchUp,
    vouched: proof::Vouched,
    vouchings: u64,
    /// The changes of membership that everything is in line with.
    members_seen: u64,
    /// How often somebody may have ceased to be one when that was looked at last.
    departures_seen: u64,
    told_revoked: BTreeSet<PeerId>,
    /// How often each peer has answered nothing since it last did.
    refusals: BTreeMap<PeerId, u32>,
    /// The mesh key has put this node out, as it has heard.
    revoked: bool,
    /// Why no node claims anything now.
    paused: Option<Paused>,
    /// Tasks whose state changed and that nobody has looked at yet.
    touched: BTreeSet<TaskId>,
    /// Events that go into the next entry.
    events: Vec<Event>,
    /// Entries added by the present call.
    added: Vec<Arc<Entry>>,
    outbox: Vec<Output>,
    next_token: u64,
}

impl Node {
    /// A node that has these entries on disk, in the order in which they were kept.
    pub fn new(now: Now, settings: Settings, kept: Vec<Arc<Entry>>) -> (Self, Vec<Output>) {
        Self::restore(now, settings, None, kept)
    }

    /// A node that has this snapshot and these entries on disk, in the order in which they were kept.
    pub fn restore(
        now: Now,
        settings: Settings,
        snapshot: Option<Sealed>,
        kept: Vec<Arc<Entry>>,
    ) -> (Self, Vec<Output>) {
        Self::restore_beside(now, settings, snapshot, kept, Shelf::default())
    }

    /// The same of a node that shares what it can with the others that have this shelf.
    pub fn restore_beside(
        now: Now,
        settings: Settings,
        snapshot: Option<Sealed>,
        kept: Vec<Arc<Entry>>,
        shelf: Shelf,
    ) -> (Self, Vec<Output>) {
        let peer = PeerId::from_public_key(settings.key.verifying_key().to_bytes());
        let author = Author { peer, incarnation: incarnation(settings.seed, 0) };
        let mut node = Self {
            me: Place::of(peer),
            author,
            incarnations: 0,
            stage: Stage::Joining,
            now,
            offered: Offer::default(),
            offer: Offer::default(),
            clock: Clock::beside(settings.mesh, shelf.clone()),
            shelf,
            ledger: Ledger::default(),
            quarantine: Quarantine::default(),
            queue: Queue::new(),
            jobs: jobs::Jobs::default(),
            peers: peers::Peers::new(now.mono),
            sync: sync::Sync::default(),
            custody: custody::Custody::default(),
            claims: claims::Claims::default(),
            duty: duty::Duty::default(),
            groups: groups::Groups::default(),
            history: history::History::new(now.mono, &settings.timings),
            catchup: catchup::CatchUp::default(),
            vouched: proof::Vouched::default(),
            vouchings: 0,
            members_seen: 0,
            departures_seen: 0,
            told_revoked: BTreeSet::new(),
            refusals: BTreeMap::new(),
            revoked: false,
            paused: None,
            touched: BTreeSet::new(),
            events: Vec::new(),
            added: Vec::new(),
            outbox: Vec::new(),
            next_token: 0,
            settings,
        };
        if let Some(sealed) = snapshot {
            node.stand_on(sealed);
        }
        let mut stale = Vec::new();
        for entry in kept {
            // What was kept once is kept, void or not: another entry may stand on it.
            let (placing, effects) = node.clock.place(&entry, true);
            match placing {
                Placing::Placed { .. } => node.digest(&entry, &effects),
                Placing::Known => stale.push(entry.cid()),
                Placing::Missing(_) | Placing::Refused(_) if node.clock.cut().is_some() => stale.push(entry.cid()),
                Placing::Missing(_) | Placing::Refused(_) => {}
            }
        }
        node.drop_stale(stale);
        // What has ended before is no news; the open tasks are looked at below.
        node.touched.clear();
        if let Some(last) = node.clock.last_incarnation(&peer) {
            node.author = last;
        }
        node.begin();
        node.settle();
        let outputs = node.finish();
        (node, outputs)
    }

    /// Takes what happened at `now`, gives back what is to be done, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        let due = self.next_wake();
        // A clock that goes backward would make waits endless.
        self.now = Now { mono: now.mono.max(self.now.mono), wall: now.wall };
        self.allow_for_lateness(due);
        match input {
            Input::Wake => {}
            Input::Connected(peer) => self.on_connected(peer),
            Input::Disconnected(peer) => self.on_disconnected(peer),
            Input::Entries { from, entries } => self.on_entries(from, entries),
            Input::Presence(said) => self.on_presence(said),
            Input::Request { from, token, request } => self.on_request(from, token, request),
            Input::Response { from, token, response } => self.on_response(from, token, response),
            Input::Unanswered { from, token } => self.on_unanswered(from, token),
            Input::Offer(offer) => self.on_offer(offer),
            Input::Careful(sources) => self.on_careful(sources),
            Input::Discovered { source, found } => self.on_discovered(&source, found),
            Input::Split(split) => self.on_split(split),
            Input::Jobs { queued, over } => self.on_jobs(queued, over),
            Input::Serves(workload) => self.on_serves(*workload),
            Input::Undiscovered { source, wait_ms } => self.on_undiscovered(&source, wait_ms),
            Input::Submit { token, workload } => self.on_submit(token, *workload),
            Input::Cancel { token, task, why } => self.on_cancel(token, task, why),
            Input::Revoke { token, revoke } => self.on_revoke(token, *revoke),
            Input::Pause { token, why } => self.on_pause(token, why),
            Input::Resume { token } => self.on_resume(token),
            Input::Ran { task, fence, report, products } => self.on_ran(task, fence, report, products),
            Input::Cordon => self.on_cordon(),
            Input::Uncordon => self.on_uncordon(),
            Input::Drain { hand_over } => self.on_drain(hand_over),
        }
        self.settle();
        self.finish()
    }

    /// When [`Input::Wake`] is due at the latest, in milliseconds of the forward clock.
    pub fn next_wake(&self) -> u64 {
        let start = match self.stage {
            Stage::Learning { until } => until,
            Stage::Joining | Stage::Active => u64::MAX,
        };
        // What needs an entry waits until entries may be written.
        let writing = if self.may_write() {
            self.claims.next_wake().min(self.duty.next_wake()).min(self.history.next_wake())
        } else {
            u64::MAX
        };
        let waits = [start, self.peers.next_wake(), self.sync.next_wake(), self.custody.next_wake(), writing];
        waits.into_iter().min().unwrap_or(u64::MAX).max(self.now.mono + 1)
    }

    /// Everything that follows from what has just been learnt, until nothing does.
    fn settle(&mut self) {
        for _ in 0..MAX_ROUNDS {
            self.mind_members();
            self.take_stage();
            self.declare_rules();
            self.take_history();
            self.watch_peers();
            self.take_custody();
            self.mind_groups();
            self.watch_tasks();
            self.claim_what_is_served();
            self.mind_majority();
            self.consider_claims();
            self.look_for_work();
            if self.events.is_empty() {
                break;
            }
            self.write();
        }
        self.pull();
        self.announce();
        self.ask_around();
    }

    fn finish(&mut self) -> Vec<Output> {
        if self.added.is_empty() {
            return std::mem::take(&mut self.outbox);
        }
        let mut outputs = Vec::with_capacity(self.outbox.len() + 1);
        outputs.push(Output::Persist(std::mem::take(&mut self.added)));
        outputs.append(&mut self.outbox);
        outputs
    }

    /// Puts the waiting events into entries, as many as one holds at a time.
    fn write(&mut self) {
        if !self.may_write() {
            self.events.clear();
            return;
        }
        let mut waiting = std::mem::take(&mut self.events).into_iter().peekable();
        while waiting.peek().is_some() {
            let (mut events, mut bytes) = (Vec::new(), 0);
            while let Some(event) = waiting.peek() {
                let size = size_of(std::slice::from_ref(event));
                if !events.is_empty() && (bytes + size > MAX_EVENT_BYTES || events.len() == MAX_EVENTS) {
                    break;
                }
                bytes += size;
                events.extend(waiting.next());
            }
            self.append(events);
        }
    }

    fn append(&mut self, events: Vec<Event>) {
        let body =
            self.clock.next_body(self.author, self.now.wall, events, |head| self.history.avoids(&self.me.peer(), head));
        let entry = Arc::new(Entry::seal(body, &self.settings.key));
        let (placing, effects) = self.clock.place(&entry, false);
        if let Placing::Placed { counts: true } = placing {
            self.custody.wrote(&entry);
            self.added.push(entry.clone());
            self.outbox.push(Output::Publish(vec![entry.clone()]));
            self.digest(&entry, &effects);
            self.peers.heads_changed(self.now.mono, &self.settings.timings);
        } else {
            let text = format!(
                "this node's own entry was not taken ({placing:?}); it writes nothing more before it is restarted"
            );
            self.outbox.push(Output::Notice(Notice::Warning { text }));
            self.stage = Stage::Joining;
        }
    }

    /// Takes over what a newly placed entry says.
    fn digest(&mut self, entry: &Entry, effects: &Effects) {
        let Some(mark) = self.clock.mark(&entry.cid()).cloned() else { return };
        if entry.author() == self.author && self.clock.counts(&entry.cid()) {
            for event in &entry.body().events {
                if let Event::Admit(admit) = event {
                    self.notice(Notice::Admitted { peer: admit.peer, by: entry.author().peer });
                }
            }
        }
        self.note_history(entry);
        let mut tasks = self.ledger.add(entry, &mark);
        if effects.recounted {
            self.history.may_have_to_declare();
            tasks.extend(self.ledger.named());
        }
        if effects.recounted
            || entry.body().events.iter().any(|event| matches!(event, Event::Pause(_) | Event::Resume(_)))
        {
            self.look_at_pause();
        }
        for task in tasks {
            let counts = |cid: &Cid, rules| match rules {
                0 => self.clock.counts_here(cid),
                rules => self.clock.counts_under(cid, rules),
            };
            if self.ledger.fold(&task, counts) {
                self.touched.insert(task);
            }
        }
    }

    fn begin(&mut self) {
        let member = self.clock.members().contains(&self.me.peer());
        let revoked = self.clock.is_revoked(&self.me.peer());
        let alone = self.clock.members().all().all(|member| member.peer == self.me.peer());
        self.stage = match (&self.settings.entrance, member) {
            (Entrance::Founder(right), false) if !revoked => {
                let right = right.clone();
                self.events.push(Event::Admit(Admit { peer: self.me.peer(), right }));
                Stage::Active
            }
            (_, true) if alone => Stage::Active,
            (_, true) => Stage::Learning { until: self.now.mono + self.settings.timings.start },
            (_, false) => Stage::Joining,
        };
        // Writing begins only once `settle` runs, so all tasks are looked at first.
        self.touched.extend(self.ledger.open().iter().copied());
    }

    /// Moves on from joining and learning when the time or the entries say so.
    fn take_stage(&mut self) {
        if self.revoked || self.clock.is_whole() || self.clock.is_revoked(&self.me.peer()) {
            // The usual case: nobody's chain is cut, this node's neither. Of one that was revoked no incarnation counts.
        } else if self.clock.fork_of(&self.author).is_some() {
            self.renew_incarnation("its chain was found forked, as after a disk was restored from an old copy");
        } else if self.clock.is_cut(&self.author) {
            self.renew_incarnation("the others have retired it, having heard nothing of it for long");
        }
        match self.stage {
            Stage::Joining if !self.revoked && self.clock.members().contains(&self.me.peer()) => {
                self.stage = Stage::Learning { until: self.now.mono + self.settings.timings.start };
            }
            _ => {}
        }
        match self.stage {
            Stage::Learning { .. } if self.sync.complete() => self.activate(),
            Stage::Learning { until } if self.now.mono >= until => {
                // The others may know more of this chain than this disk does.
                if self.clock.written_by(&self.author) > 0 {
                    self.renew_incarnation("no peer was reached that could tell how far the present one has got");
                }
                self.activate();
            }
            _ => {}
        }
    }

    /// A peer is telling what it has: however long that takes, this node writes nothing before it knows it all.
    fn go_on_learning(&mut self) {
        if let Stage::Learning { until } = &mut self.stage {
            *until = self.now.mono + self.settings.timings.start;
        }
    }

    fn activate(&mut self) {
        self.stage = Stage::Active;
        // What could not be written before is looked at again.
        self.members_seen = u64::MAX;
        self.touched.extend(self.ledger.open().iter().copied());
        self.claims.look_again();
        self.peers.changed(self.now.mono, &self.settings.timings);
        // Now it knows whom it does not hear.
        self.peers.ask_by(self.now.mono);
    }

    fn renew_incarnation(&mut self, why: &str) {
        self.incarnations += 1;
        self.author.incarnation = incarnation(self.settings.seed, self.incarnations);
        let text = format!("this node writes under a new incarnation: {why}");
        self.outbox.push(Output::Notice(Notice::Warning { text }));
    }

    fn may_write(&self) -> bool {
        self.stage == Stage::Active
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn notice(&mut self, notice: Notice) {
        self.outbox.push(Output::Notice(notice));
    }
}

/// How many bytes of an entry events take, but for a few.
fn size_of(events: &[Event]) -> usize {
    events.iter().map(|event| serde_cbor::to_vec(event).map_or(0, |bytes| bytes.len())).sum()
}

/// The n-th incarnation that is named from a start's seed.
fn incarnation(seed: u64, n: u64) -> Incarnation {
    let digest = Digest::of(&[b"runmesh incarnation", &seed.to_be_bytes(), &n.to_be_bytes()]);
    let bytes: [u8; 8] = std::array::from_fn(|i| digest.0[i]);
    Incarnation(u64::from_be_bytes(bytes))
}

/// The state of a task as the ledger has it, for matching.
fn claimed_by(state: &State) -> Option<(PeerId, super::task::Fence)> {
    match state {
        State::Claimed { holder, fence } => Some((*holder, *fence)),
        _ => None,
    }
}
