//! One member, as its presences tell of it.

use std::sync::Arc;

use super::{LATE, Timings};
use crate::kernel::election::Place;
use crate::kernel::id::PeerId;
use crate::kernel::io::{Presence, Signed};

/// Beats that may be lost before their peer is taken to be lost: those that fit into the failure time.
const LOST_BEATS: u64 = 3;

/// How many former lives of a peer are remembered.
const MAX_PAST: usize = 16;

/// A member whose presence has been heard.
#[derive(Debug, Clone)]
pub(in super::super) struct Peer {
    pub(in super::super) place: Place,
    pub(super) said: Arc<Signed>,
    /// When the latest presence came.
    pub(in super::super) last: u64,
    /// Since when it has been heard without a break.
    pub(in super::super) since: u64,
    pub(super) heard: bool,
    /// Former lives and the last beat heard of each, the latest last.
    pub(super) past: Vec<(u64, u64)>,
    pub(super) rival: Option<Rival>,
}

/// What another life of a peer said while this one was heard, and when.
#[derive(Debug, Clone)]
pub(super) struct Rival {
    pub(super) said: Arc<Signed>,
    pub(super) at: u64,
}

impl Peer {
    /// What it said last.
    pub(in super::super) fn presence(&self) -> &Presence {
        &self.said.presence
    }

    /// The same with the bytes by which it can be passed on.
    pub(in super::super) const fn said(&self) -> &Arc<Signed> {
        &self.said
    }

    /// How long it may be silent before it is taken to be lost.
    pub(super) fn patience(&self, timings: &Timings) -> u64 {
        patience(self.presence(), timings)
    }

    /// After how long at most it said that its next presence follows.
    pub(super) fn beat(&self, timings: &Timings) -> u64 {
        u64::from(self.presence().every).min(timings.idle_beat).max(timings.beat)
    }

    /// Whether this is one more beat of the same life, and of what others act on only the heads are others.
    pub(super) fn says_nothing_new(&self, next: &Presence) -> bool {
        let Presence { life, every, attentive, offer, free, draining, cordoned, running, unheard, .. } =
            self.presence();
        (*life, *every, *attentive, *free, *draining, *cordoned)
            == (next.life, next.every, next.attentive, next.free, next.draining, next.cordoned)
            && *running == next.running
            && *unheard == next.unheard
            && *offer == next.offer
    }

    /// It said one more thing of that kind.
    pub(super) fn beats_on(&mut self, said: Arc<Signed>, at: u64) {
        (self.last, self.said, self.rival) = (at, said, None);
    }

    pub(super) fn misses(&self, of: &PeerId) -> bool {
        self.presence().unheard.contains(of)
    }

    /// Whether it has said how it stands with a peer that is doubted since then.
    pub(super) fn has_spoken(&self, of: &PeerId, doubted: u64) -> bool {
        self.misses(of) || self.last >= doubted
    }

    pub(super) fn last_beat_of(&self, life: u64) -> Option<u64> {
        self.past.iter().find(|(past, _)| *past == life).map(|(_, beat)| *beat)
    }

    /// Its former lives once it has said this.
    pub(super) fn past_before(&self, next: &Presence) -> Vec<(u64, u64)> {
        let (mut past, said) = (self.past.clone(), self.presence());
        if said.life != next.life {
            past.retain(|(life, _)| *life != next.life);
            past.push((said.life, said.beat));
            past.drain(..past.len().saturating_sub(MAX_PAST));
        }
        past
    }

    /// Whether another life says this that was not heard before. One that was heard before this one may well be the later of
    /// the two: what a dead life has said can come late, by a slow network or over a node that was stopped for a while.
    pub(super) fn may_be_over(&self, other: &Presence) -> bool {
        other.life != self.presence().life && self.last_beat_of(other.life).is_none_or(|beat| beat < other.beat)
    }

    /// When it is taken to be lost because another life of it speaks: once it has not beaten on as it said.
    pub(super) fn overtaken_at(&self, timings: &Timings) -> u64 {
        if self.rival.is_some() { self.last + self.beat(timings) + LATE } else { u64::MAX }
    }
}

/// How long who says this may be silent before it is taken to be lost.
pub(super) fn patience(presence: &Presence, timings: &Timings) -> u64 {
    (LOST_BEATS * u64::from(presence.every).min(timings.idle_beat)).max(timings.failure)
}
