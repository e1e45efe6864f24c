//! Looking for work: for each source, one live member does it.
//!
//! On duty is the first by Hamming rank for the source's name among those that list it, unless its last good discovery
//! is too old; then the next. `coverage` says who looks into what the one on duty cannot see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Node;
use super::coverage::Coverage;
use crate::kernel::election::Place;
use crate::kernel::entry::{Event, Introduce, MAX_EVENTS, Withdraw};
use crate::kernel::id::{Digest, PeerId, TaskId};
use crate::kernel::io::{Discovery, Notice, Offer, Output, SourceKey};
use crate::kernel::rules::GROUPS;
use crate::kernel::task::{Policy, State, Trigger, Workload};

/// Intervals without a good discovery after which the next node takes over (DESIGN.md section 5).
pub(super) const STALE_INTERVALS: u64 = 2;
/// Intervals for which a node that could not discover a source leaves it to the others, where GitHub has told no time.
const FAILED_INTERVALS: u64 = 10;
/// The age that is told of a source that this node cannot read, in milliseconds: a year.
pub(super) const NEVER: u64 = 365 * 86_400_000;

#[derive(Debug, Default)]
pub(super) struct Source {
    /// When this node last discovered it well.
    good: Option<u64>,
    /// When this node looks next, if it is on duty then.
    next: u64,
    /// Until when others do it, since a discovery by this node has failed.
    failing_until: Option<u64>,
    /// A discovery is under way.
    busy: bool,
    /// It is none of this node's duty.
    besides: bool,
    pub(super) coverage: Coverage,
    /// Since when this node lists it.
    since: u64,
}

impl Source {
    /// How long ago this node discovered it well; [`NEVER`] while it cannot.
    fn age(&self, now: u64) -> Option<u64> {
        if self.failing_until.is_some_and(|until| now < until) { Some(NEVER) } else { Some(now - self.good?) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Duty {
    sources: BTreeMap<SourceKey, Source>,
}

impl Duty {
    pub(super) fn next_wake(&self) -> u64 {
        self.sources.values().filter(|source| !source.busy).map(|source| source.next).min().unwrap_or(u64::MAX)
    }

    /// This node looks no more.
    pub(super) fn rest(&mut self) {
        for source in self.sources.values_mut() {
            source.next = u64::MAX;
        }
    }

    /// How long ago each source was last discovered well by this node, in milliseconds.
    pub(super) fn ages(&self, now: u64) -> BTreeMap<SourceKey, u64> {
        self.sources.iter().filter_map(|(key, source)| Some((key.clone(), now - source.good?))).collect()
    }

    /// As [`Self::ages`], for the others to choose by: a source that this node cannot read now counts as never read.
    pub(super) fn told(&self, now: u64) -> BTreeMap<SourceKey, u64> {
        self.sources.iter().filter_map(|(key, source)| Some((key.clone(), source.age(now)?))).collect()
    }

    pub(super) fn source(&mut self, key: &SourceKey) -> Option<&mut Source> {
        self.sources.get_mut(key)
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = (&SourceKey, &Source)> {
        self.sources.iter()
    }
}

impl Node {
    pub(super) fn on_offer(&mut self, offer: Offer) {
        let now = self.now.mono;
        self.offered = offer.clone();
        let offer = self.within_rights(offer);
        self.duty.sources.retain(|key, _| offer.sources.contains(key));
        for key in &offer.sources {
            self.duty.sources.entry(key.clone()).or_insert(Source { next: now, since: now, ..Source::default() });
        }
        if offer.slots > self.offer.slots {
            self.custody.slots_have_grown(now);
        }
        self.offer = offer;
        self.peers.changed(now, &self.settings.timings);
        // Which tasks may run here is another question now.
        let open: Vec<_> = self.ledger.open().iter().copied().collect();
        for task in open {
            self.enqueue(&task);
        }
    }

    /// Starts a discovery of each source that is due and this node's duty.
    pub(super) fn look_for_work(&mut self) {
        let (now, interval) = (self.now.mono, self.settings.timings.discovery);
        if !self.may_write() || self.custody.draining() || now < self.duty.next_wake() {
            return;
        }
        let due = self.duty.sources.iter().filter(|(_, source)| !source.busy && source.next <= now);
        let due: Vec<SourceKey> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            let mine = self.on_duty(&key) == self.me.peer();
            let except = if mine { Some(BTreeSet::new()) } else { self.looks_besides(&key) };
            let Some(source) = self.duty.sources.get_mut(&key) else { continue };
            // One that is not on duty looks often enough to step in without a gap.
            source.next = if except.is_some() { now + interval } else { now + (interval / 4).max(1) };
            if let Some(except) = except {
                (source.busy, source.besides) = (true, !mine);
                self.outbox.push(Output::Discover { source: key, except });
            }
        }
    }

    /// The member whose duty the source is, as far as this node can tell: of those that list it, in the order of their
    /// distance from its name, the first whose last good discovery is not too old. Where all are too old, somebody has
    /// failed on duty: the first that never was is next, then the first that does not say that it cannot.
    pub fn on_duty(&self, key: &SourceKey) -> PeerId {
        let now = self.now.mono;
        let interval = self.settings.timings.discovery;
        let name = Digest::of(&[key.as_bytes()]);
        let mine = self.duty.sources.get(key).map(|source| (self.me, source.age(now), source.since));
        let others =
            self.peers.heard().filter(|peer| !peer.presence().draining && peer.presence().offer.sources.contains(key));
        let others = others.map(|peer| {
            let told = peer.presence().discovered.get(key).map(|age| age.saturating_add(now - peer.last));
            (peer.place, told, peer.since)
        });
        let mut all: Vec<(u32, Place, Option<u64>, u64)> = others
            .chain(mine)
            .map(|(place, told, since)| (name.hamming(&place.peer().place()), place, told, since))
            .collect();
        all.sort_by_key(|(distance, place, ..)| (*distance, place.peer()));
        let find = |which: &dyn Fn(Option<u64>, u64) -> bool| {
            all.iter().find(|(.., told, since)| which(*told, *since)).map(|(_, place, ..)| place.peer())
        };
        find(&|told, since| told.unwrap_or(now - since) <= STALE_INTERVALS * interval)
            .or_else(|| find(&|told, _| told.is_none()))
            .or_else(|| find(&|told, _| told.is_some_and(|age| age < NEVER)))
            .or_else(|| find(&|_, _| true))
            .unwrap_or(self.me.peer())
    }

    /// A discovery came to its end: introduces what is not known yet.
    pub(super) fn on_discovered(&mut self, key: &SourceKey, found: Discovery) {
        let Discovery { workloads, recorded, gone, seen } = found;
        if let Some(source) = self.duty.sources.get_mut(key) {
            let besides = std::mem::take(&mut source.besides);
            source.busy = false;
            if !besides {
                source.good = Some(self.now.mono);
                source.failing_until = None;
            }
            source.coverage.note(seen, besides, self.now.mono);
        }
        if !self.may_write() {
            return;
        }
        let mut seen = BTreeSet::new();
        for workload in workloads {
            if workload.policy() != Policy::GithubOnly && seen.insert(workload.id()) {
                self.supersede(&workload);
                self.introduce(workload);
            }
        }
        self.record(recorded);
        for gone in &gone {
            let is_gone = |workload: &Workload| {
                gone.host == workload.repository.host
                    && gone.id == workload.repository.id
                    && gone.path == workload.path
                    && gone.commits.contains(&workload.commit)
            };
            self.cancel_pending(is_gone, "its workflow was deleted, or has no tags any more");
        }
    }

    /// Introduces tasks and withdraws each in the same entry, so that nobody ever claims one. While a member does not
    /// know withdrawals nothing is written: the next look finds the same.
    fn record(&mut self, workloads: Vec<Workload>) {
        if workloads.is_empty() || self.clock.rules() < GROUPS {
            return;
        }
        // What waits is written first, so that what belongs together is not parted.
        self.write();
        let mut events = Vec::new();
        for workload in workloads {
            if self.ledger.was_submitted(&workload) {
                continue;
            }
            let (task, why) = (workload.id(), "it was there before the first look into its source".to_owned());
            let workload = Arc::new(self.understood(workload));
            events.push(Event::Introduce(Introduce { workload }));
            events.push(Event::Withdraw(Withdraw { task, why }));
            // One alone may fill half of an entry.
            if events.len() == MAX_EVENTS || super::size_of(&events) > super::MAX_EVENT_BYTES / 2 {
                self.append(std::mem::take(&mut events));
            }
        }
        if !events.is_empty() {
            self.append(events);
        }
    }

    /// Cancels what nobody holds of an older push of the same workflow and branch. What runs goes on.
    fn supersede(&mut self, newer: &Workload) {
        let Trigger::Push { r#ref, commit } = &newer.trigger else { return };
        if self.ledger.get(&newer.id()).is_some() {
            return;
        }
        let older = |workload: &Workload| {
            let same = |a: &Workload, b: &Workload| {
                (&a.repository.host, &a.repository.id, &a.path) == (&b.repository.host, &b.repository.id, &b.path)
            };
            let of_branch = matches!(&workload.trigger, Trigger::Push { r#ref: other, .. } if other == r#ref);
            of_branch && same(workload, newer)
        };
        let short: String = commit.chars().take(12).collect();
        self.cancel_pending(older, &format!("superseded by the push of {short}"));
    }

    fn cancel_pending(&mut self, which: impl Fn(&Workload) -> bool, why: &str) {
        let pending = |task: &&TaskId| {
            let folded = self.ledger.get(task);
            folded.is_some_and(|folded| {
                let by_hand = matches!(folded.workload.trigger, Trigger::Manual { .. } | Trigger::GithubJob { .. });
                folded.state == State::Pending && !by_hand && which(&folded.workload)
            })
        };
        let cancelled: Vec<TaskId> = self.ledger.open().iter().filter(pending).copied().collect();
        for task in cancelled {
            let withdrawal = self.withdrawal(task, why.to_owned());
            self.events.push(withdrawal);
        }
    }

    pub(super) fn on_undiscovered(&mut self, key: &SourceKey, wait_ms: Option<u64>) {
        let (now, interval) = (self.now.mono, self.settings.timings.discovery);
        if let Some(source) = self.duty.sources.get_mut(key) {
            source.busy = false;
            source.coverage.failed();
            if std::mem::take(&mut source.besides) {
                return;
            }
            source.failing_until = Some(now.saturating_add(wait_ms.unwrap_or(FAILED_INTERVALS * interval)));
            self.peers.changed(self.now.mono, &self.settings.timings);
        }
    }

    /// Introduces a task, unless it is known.
    pub(super) fn introduce(&mut self, workload: Workload) {
        let task = workload.id();
        if !self.ledger.was_submitted(&workload) {
            let workload = Arc::new(self.understood(workload));
            self.notice(Notice::Introduced { task, workload: workload.clone() });
            self.events.push(Event::Introduce(Introduce { workload }));
        }
    }
}
