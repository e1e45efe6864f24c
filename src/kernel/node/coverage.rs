//! Repositories that the node on duty cannot see: who else looks into them.
//!
//! Every node on duty tells in its presence which repositories it looks into ([`Presence::covers`]). The others that list
//! the source take a census in turn, one of them in [`CENSUS_INTERVALS`] intervals however many they are: a look that
//! leaves out what others cover. Who finds something goes on looking into it at every interval, and tells so; of several
//! that can see it the first in the order of their distance from the source's name does.
//!
//! [`Presence::covers`]: crate::kernel::io::Presence::covers

use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use super::duty::STALE_INTERVALS;
use crate::kernel::id::{Digest, PeerId};
use crate::kernel::io::{RepositoryMark, SourceKey};
use crate::kernel::scale_set;
use crate::kernel::task::LOCAL_HOST;

/// One node takes a census of a source in so many intervals: what a source costs grows by so little. Own choice.
const CENSUS_INTERVALS: u64 = 30;
/// The first node takes its first one after so many intervals: by then the one on duty has looked and told.
const FIRST_CENSUS: u64 = 3;

/// What this node looks into of a source.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    seen: BTreeSet<RepositoryMark>,
    /// When it looked last.
    at: Option<u64>,
    /// Since when it is not on duty, and when its next census is due once it has taken one.
    since: Option<u64>,
    census: Option<u64>,
    /// It is not on duty, and looks into what others cannot see.
    besides: bool,
}

impl Coverage {
    /// Takes note of a look. `besides` when it was none of the duty's.
    pub(super) fn note(&mut self, seen: BTreeSet<RepositoryMark>, besides: bool, now: u64) {
        self.besides = besides && !seen.is_empty();
        self.at = (!besides || self.besides).then_some(now);
        self.seen = seen;
    }

    /// A look at what others cannot see has failed.
    pub(super) fn failed(&mut self) {
        (self.besides, self.at) = (false, None);
    }
}

impl Node {
    /// Those that list a source, this node included, by their distance from its name.
    fn listing(&self, key: &SourceKey) -> Vec<PeerId> {
        let name = Digest::of(&[key.as_bytes()]);
        let others = self.peers.heard().filter(|peer| peer.presence().offer.sources.contains(key));
        let mut all: Vec<_> = others
            .map(|peer| peer.place)
            .chain([self.me])
            .map(|place| (name.hamming(&place.peer().place()), place.peer()))
            .collect();
        all.sort();
        all.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Whether this node, which is not on duty for a source, looks into it now; and what of it others cover.
    pub(super) fn looks_besides(&mut self, key: &SourceKey) -> Option<BTreeSet<RepositoryMark>> {
        if key.starts_with(&format!("{LOCAL_HOST}:")) || scale_set::is_source(key) {
            return None;
        }
        let (now, interval) = (self.now.mono, self.settings.timings.discovery);
        let listing = self.listing(key);
        let on_duty = self.on_duty(key);
        let before: Vec<PeerId> =
            listing.iter().take_while(|peer| **peer != self.me.peer()).chain([&on_duty]).copied().collect();
        let others = listing.len() as u64 - 1;
        let coverage = &mut self.duty.source(key)?.coverage;
        let rank = listing.iter().filter(|peer| **peer != on_duty).position(|peer| *peer == self.me.peer())?;
        // The place of the first is asked for anew each time: while a mesh forms, many see few others before them.
        let since = *coverage.since.get_or_insert(now);
        let first = since + (FIRST_CENSUS + CENSUS_INTERVALS * rank as u64) * interval;
        let due = coverage.census.unwrap_or(first);
        if now < due && !coverage.besides {
            return None;
        }
        if now >= due {
            coverage.census = Some(now + CENSUS_INTERVALS * others.max(1) * interval);
        }
        // What is not told is not known: without a word of the one on duty, all of it would seem to be hidden.
        let told =
            |peer: &PeerId| self.peers.heard().find(|heard| heard.place.peer() == *peer)?.presence().covers.get(key);
        told(&on_duty)?;
        Some(before.iter().filter_map(told).flatten().copied().collect())
    }

    /// What this node tells of what it looks into, where others list the source too.
    pub(super) fn covers(&self) -> BTreeMap<SourceKey, BTreeSet<RepositoryMark>> {
        let (now, interval) = (self.now.mono, self.settings.timings.discovery);
        let shared = |key: &SourceKey| self.peers.heard().any(|peer| peer.presence().offer.sources.contains(key));
        let covered = self.duty.sources().filter_map(|(key, source)| {
            let coverage = &source.coverage;
            let fresh = now - coverage.at? <= STALE_INTERVALS * interval;
            (fresh && !coverage.seen.is_empty() && shared(key)).then(|| (key.clone(), coverage.seen.clone()))
        });
        covered.collect()
    }
}
