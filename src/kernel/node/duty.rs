//! Looking for work: for each source, one live member does it.
//!
//! On duty is the first by Hamming rank for the source's name among those that list it, unless its last good discovery
//! is too old; then the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Node;
use crate::kernel::election::Place;
use crate::kernel::entry::{Event, Introduce};
use crate::kernel::id::{Digest, PeerId};
use crate::kernel::io::{Notice, Offer, Output, SourceKey};
use crate::kernel::task::{Policy, Workload};

/// Intervals without a good discovery after which the next node takes over (DESIGN.md section 5).
const STALE_INTERVALS: u64 = 2;

#[derive(Debug, Default, Clone, Copy)]
struct Source {
    /// When this node last discovered it well.
    good: Option<u64>,
    /// When this node looks next, if it is on duty then.
    next: u64,
    /// A discovery is under way.
    busy: bool,
    /// Since when this node lists it.
    since: u64,
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
}

impl Node {
    pub(super) fn on_offer(&mut self, offer: Offer) {
        let now = self.now.mono;
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
            let Some(source) = self.duty.sources.get_mut(&key) else { continue };
            // One that is not on duty looks often enough to step in without a gap.
            source.next = if mine { now + interval } else { now + (interval / 4).max(1) };
            if mine {
                source.busy = true;
                self.outbox.push(Output::Discover { source: key });
            }
        }
    }

    /// The member whose duty the source is, as far as this node can tell.
    pub(super) fn on_duty(&self, key: &SourceKey) -> PeerId {
        let now = self.now.mono;
        let stale_after = STALE_INTERVALS * self.settings.timings.discovery;
        let name = Digest::of(&[key.as_bytes()]);
        let mine = self.duty.sources.get(key).map(|source| now - source.good.unwrap_or(source.since));
        let others =
            self.peers.heard().filter(|peer| !peer.presence.draining && peer.presence.offer.sources.contains(key));
        let others = others.map(|peer| {
            let told = peer.presence.discovered.get(key).map(|age| age + (now - peer.last));
            (peer.place, told.unwrap_or(now - peer.since))
        });
        let mut all: Vec<(u32, Place, u64)> = others
            .chain(mine.map(|age| (self.me, age)))
            .map(|(place, age)| (name.hamming(&place.peer().place()), place, age))
            .collect();
        all.sort_by_key(|(distance, place, _)| (*distance, place.peer()));
        let fresh = all.iter().find(|(_, _, age)| *age <= stale_after);
        fresh.or(all.first()).map_or(self.me.peer(), |(_, place, _)| place.peer())
    }

    /// A discovery came to its end: introduces what is not known yet.
    pub(super) fn on_discovered(&mut self, key: SourceKey, workloads: Vec<Workload>) {
        if let Some(source) = self.duty.sources.get_mut(&key) {
            source.busy = false;
            source.good = Some(self.now.mono);
        }
        if !self.may_write() {
            return;
        }
        let mut seen = BTreeSet::new();
        for workload in workloads {
            if workload.policy() != Policy::GithubOnly && seen.insert(workload.id()) {
                self.introduce(workload);
            }
        }
    }

    pub(super) fn on_undiscovered(&mut self, key: &SourceKey) {
        if let Some(source) = self.duty.sources.get_mut(key) {
            source.busy = false;
        }
    }

    /// Introduces a task, unless it is known.
    pub(super) fn introduce(&mut self, workload: Workload) {
        let task = workload.id();
        if !self.ledger.was_submitted(&workload) {
            let workload = Arc::new(workload);
            self.notice(Notice::Introduced { task, workload: workload.clone() });
            self.events.push(Event::Introduce(Introduce { workload }));
        }
    }
}
