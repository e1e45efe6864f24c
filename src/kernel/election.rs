//! Who takes a task: the candidates in the order of their distance from the task's seed.
//!
//! Owns the ranking of DESIGN.md section 4. Promises that it is a function of anchor, task and peers alone, so all nodes
//! that know the same candidates name the same one first, in whatever order they learnt of them; and that work spreads
//! evenly. Leaves to others who is a candidate (alive, able, willing) and when a lower rank may step in.
//!
//! The seed of a task is SHA-256(anchor's CID digest, task id), a peer's place SHA-256 of its PeerId bytes, and the
//! distance the number of bits in which the two differ. Distances of different peers are often equal (they crowd around
//! 128 with a deviation of 8), and the lesser PeerId would win all of those: so equal distances go by SHA-256(PeerId
//! bytes, task id). Those who declined or lost the task stand behind all others, in the same order among themselves.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::id::{Cid, Digest, PeerId, TaskId};

/// Bits of a digest, in words that the processor counts at once.
type Words = [u64; 4];

/// Where a task's election is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    words: Words,
    task: TaskId,
}

/// A peer and its place, hashed once and kept: elections ask for it again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    words: Words,
    peer: PeerId,
}

/// A peer and how far it is from a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranked {
    pub peer: PeerId,
    /// Bits, 0 to 256.
    pub distance: u32,
}

/// Where one candidate stands among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank {
    /// How many stand before it; 0 is the first.
    pub rank: u32,
    /// Bits, 0 to 256.
    pub distance: u32,
    /// How many there are, itself among them.
    pub candidates: u32,
}

impl Place {
    pub fn of(peer: PeerId) -> Self {
        Self { words: words(&peer.place()), peer }
    }

    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// How far another peer is from this one, in bits, 0 to 256.
    pub fn distance(&self, other: &Self) -> u32 {
        let [a, b, c, d] = std::array::from_fn(|i| (self.words[i] ^ other.words[i]).count_ones());
        a + b + c + d
    }
}

impl Seed {
    /// The seed of a task whose election is pinned to that anchor.
    pub fn of(anchor: &Cid, task: &TaskId) -> Self {
        Self { words: words(&Digest::of(&[anchor.digest(), &task.0])), task: *task }
    }

    /// How far a peer is from the seed, in bits, 0 to 256.
    pub fn distance(&self, place: &Place) -> u32 {
        let [a, b, c, d] = std::array::from_fn(|i| (self.words[i] ^ place.words[i]).count_ones());
        a + b + c + d
    }

    /// Which of two stands before the other: the nearer, and of equally near ones the one with the lesser hash.
    /// `Equal` only for one and the same peer.
    pub fn compare(&self, a: &Place, b: &Place) -> Ordering {
        let by_distance = self.distance(a).cmp(&self.distance(b));
        by_distance.then_with(|| self.tie(a).cmp(&self.tie(b)))
    }

    /// The candidate that stands first, in time proportional to their number: no allocation, and a hash only where
    /// distances are equal.
    pub fn nearest<'a>(&self, candidates: impl IntoIterator<Item = &'a Place>) -> Option<Ranked> {
        let mut candidates = candidates.into_iter();
        let mut nearest = candidates.next()?;
        let mut least = self.distance(nearest);
        // Hashed when its distance is first met again.
        let mut tie = None;
        for candidate in candidates {
            let distance = self.distance(candidate);
            if distance < least {
                (nearest, least, tie) = (candidate, distance, None);
            } else if distance == least {
                let present = *tie.get_or_insert_with(|| self.tie(nearest));
                let other = self.tie(candidate);
                if other < present {
                    (nearest, tie) = (candidate, Some(other));
                }
            }
        }
        Some(Ranked { peer: nearest.peer, distance: least })
    }

    /// Where `me` stands among the candidates, whether or not they name it; those in `last` stand behind all others.
    /// No peer may be among the candidates twice.
    pub fn rank<'a>(
        &self,
        me: &Place,
        candidates: impl IntoIterator<Item = &'a Place>,
        last: &BTreeSet<PeerId>,
    ) -> Rank {
        let (distance, mine_is_last) = (self.distance(me), last.contains(&me.peer));
        let mut my_tie = None;
        let mut rank = Rank { rank: 0, distance, candidates: 1 };
        for candidate in candidates {
            if candidate.peer == me.peer {
                continue;
            }
            rank.candidates += 1;
            let is_last = !last.is_empty() && last.contains(&candidate.peer);
            let standing = (is_last, self.distance(candidate)).cmp(&(mine_is_last, distance));
            let before = standing.then_with(|| self.tie(candidate).cmp(my_tie.get_or_insert_with(|| self.tie(me))));
            rank.rank += u32::from(before == Ordering::Less);
        }
        rank
    }

    /// Whether the other stands before `me`, where those in `last` stand behind all others.
    pub fn stands_before(&self, other: &Place, me: &Place, last: &BTreeSet<PeerId>) -> bool {
        let standing = |place: &Place| (!last.is_empty() && last.contains(&place.peer), self.distance(place));
        standing(other).cmp(&standing(me)).then_with(|| self.tie(other).cmp(&self.tie(me))) == Ordering::Less
    }

    /// All candidates, the first first; those in `last` behind all others.
    pub fn ranking<'a>(&self, candidates: impl IntoIterator<Item = &'a Place>, last: &BTreeSet<PeerId>) -> Vec<Ranked> {
        let standing = |place: &Place| (last.contains(&place.peer), self.distance(place), self.tie(place));
        let mut all: Vec<_> = candidates.into_iter().map(|place| (standing(place), place.peer)).collect();
        all.sort_unstable();
        all.into_iter().map(|((_, distance, _), peer)| Ranked { peer, distance }).collect()
    }

    /// What orders equally near peers; the lesser stands first.
    pub fn tie(&self, place: &Place) -> Digest {
        Digest::of(&[&place.peer.to_bytes(), &self.task.0])
    }
}

fn words(digest: &Digest) -> Words {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(digest.0.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn place(n: u64) -> Place {
        Place::of(PeerId::from_public_key(Digest::of(&[b"peer", &n.to_le_bytes()]).0))
    }

    fn seed(n: u64) -> Seed {
        Seed::of(&Cid::of(&n.to_le_bytes()), &TaskId(Digest::of(&[b"task", &n.to_le_bytes()]).0))
    }

    #[test]
    fn the_formula_is_the_documented_one() {
        let (anchor, task, peer) = (Cid::of(b"anchor"), TaskId([4; 32]), PeerId::from_public_key([5; 32]));
        let by_hand = Digest::of(&[anchor.digest(), &task.0]).hamming(&Digest::of(&[&peer.to_bytes()]));
        assert_eq!(Seed::of(&anchor, &task).distance(&Place::of(peer)), by_hand);
        // Another anchor, another election.
        assert_ne!(Seed::of(&Cid::of(b"other"), &task), Seed::of(&anchor, &task));
    }

    #[test]
    fn equal_distances_go_by_hash_not_by_id() {
        let places: Vec<_> = (0..200).map(place).collect();
        let (mut ties, mut lesser_id_first) = (0, 0);
        for n in 0..20 {
            let seed = seed(n);
            for (i, a) in places.iter().enumerate() {
                for b in &places[i + 1..] {
                    if seed.distance(a) == seed.distance(b) {
                        ties += 1;
                        lesser_id_first += u32::from((a.peer < b.peer) == (seed.compare(a, b) == Ordering::Less));
                    }
                }
            }
        }
        assert!(ties > 1000, "{ties} ties");
        let share = f64::from(lesser_id_first) / f64::from(ties);
        assert!((0.45..0.55).contains(&share), "the lesser id stands first in {share} of the ties");
    }

    #[test]
    fn who_declined_stands_last_but_stands() {
        let (seed, places): (_, Vec<_>) = (seed(1), (0..10).map(place).collect());
        let first = seed.nearest(&places).unwrap().peer;
        let last = BTreeSet::from([first]);
        let ranking = seed.ranking(&places, &last);
        assert_eq!(ranking.last().unwrap().peer, first);
        assert_eq!(seed.rank(&Place::of(first), &places, &last).rank, 9);
        assert_eq!(seed.rank(&Place::of(first), &[], &last).rank, 0);
    }

    #[test]
    fn nobody_is_no_candidate() {
        assert_eq!(seed(1).nearest(&[]), None);
        assert_eq!(seed(1).rank(&place(1), &[], &BTreeSet::new()).candidates, 1);
    }

    /// The promise of DESIGN.md section 10, `election_balance_100`: ties by id would give 1.35.
    #[test]
    fn ten_thousand_tasks_spread_over_a_hundred_peers() {
        let mut ratios = Vec::new();
        for mesh in 0..10 {
            let places: Vec<_> = (0..100).map(|n| place(mesh * 1000 + n)).collect();
            let mut won: BTreeMap<PeerId, u32> = BTreeMap::new();
            for task in 0..10_000 {
                *won.entry(seed(mesh * 100_000 + task).nearest(&places).unwrap().peer).or_default() += 1;
            }
            assert_eq!(won.len(), 100, "everybody gets something");
            ratios.push(f64::from(*won.values().max().unwrap()) / 100.0);
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!(mean <= 1.30, "mean of max/mean {mean}: {ratios:?}");
        assert!(ratios.iter().all(|ratio| *ratio <= 1.45), "{ratios:?}");
    }

    proptest! {
        #[test]
        fn all_ways_of_asking_agree_in_any_order(
            task in any::<u64>(),
            mut peers in prop::collection::btree_set(any::<u64>(), 1..60).prop_map(|set| set.into_iter().collect::<Vec<_>>()),
            last in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            turn in any::<prop::sample::Index>(),
        ) {
            let seed = seed(task);
            let places: Vec<_> = peers.iter().map(|n| place(*n)).collect();
            let last: BTreeSet<_> = last.iter().map(|index| places[index.index(places.len())].peer).collect();
            let ranking = seed.ranking(&places, &last);
            let middle = turn.index(peers.len());
            peers.rotate_left(middle);
            peers.reverse();
            let turned: Vec<_> = peers.iter().map(|n| place(*n)).collect();
            prop_assert_eq!(&seed.ranking(&turned, &last), &ranking);
            prop_assert_eq!(seed.nearest(&turned), seed.ranking(&places, &BTreeSet::new()).first().copied());
            for (rank, ranked) in ranking.iter().enumerate() {
                let found = seed.rank(&Place::of(ranked.peer), &turned, &last);
                prop_assert_eq!(found.rank as usize, rank);
                prop_assert_eq!(found.distance, ranked.distance);
                prop_assert_eq!(found.candidates as usize, places.len());
            }
            for other in places.iter().filter(|place| place.peer() != places[0].peer()) {
                let of = |peer: PeerId| ranking.iter().position(|ranked| ranked.peer == peer);
                let before = of(other.peer()) < of(places[0].peer());
                prop_assert_eq!(seed.stands_before(other, &places[0], &last), before);
            }
            for pair in seed.ranking(&places, &BTreeSet::new()).windows(2) {
                prop_assert_eq!(seed.compare(&Place::of(pair[0].peer), &Place::of(pair[1].peer)), Ordering::Less);
            }
        }
    }
}
