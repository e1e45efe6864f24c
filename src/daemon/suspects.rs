//! Peers that do what no honest node does: counted, named to people, and kept away for a while when it goes on.
//!
//! Only what the peer itself is to blame for counts: bytes that everybody can see are bad, answers that were not asked
//! for, more than its share. What a peer passed on in good faith does not.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Daemon;
use crate::kernel::id::PeerId;
use crate::kernel::io::Vector;
use crate::wire::limits::{MAX_CUTS, MAX_SYNC_AUTHORS};

/// The most peers of which faults are remembered; the one with the oldest fault is forgotten for another.
const MOST: usize = 256;
/// So many provably bad messages, less those that time forgives, and the peer is kept away.
const TOLERATED: f64 = 10.0;
/// So many are forgiven in a second.
const FORGIVEN: f64 = 0.1;
/// How long a peer is kept away the first time; each further time twice as long, up to the most.
const AWAY_FIRST: Duration = Duration::from_secs(30);
const AWAY_MOST: Duration = Duration::from_secs(3600);
/// An author that writes more entries than this within a minute is told of. Own choice: a mesh that runs 20,000 tasks
/// an hour writes a tenth of it, all members together.
const ENTRIES_A_MINUTE: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);
/// From so many chains on it is said that there are many: half of those with which a node can still ask.
const MANY_CHAINS: usize = MAX_SYNC_AUTHORS / 2;
/// Between two lines in the log that say that there are too many.
const SAY_AGAIN: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Suspect {
    bad: u64,
    /// What the last bad message was.
    why: String,
    score: f64,
    since: Instant,
    /// How often it was kept away.
    away: u32,
    /// Messages beyond its share that were dropped.
    flooded: u64,
    /// The most entries that it wrote within a minute, where that was too many.
    wrote: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    peers: BTreeMap<PeerId, Suspect>,
    /// How many entries each author wrote since when.
    writing: BTreeMap<PeerId, u64>,
    writing_since: Option<Instant>,
    /// When it was last said that there are too many chains.
    said_chains: Option<Instant>,
}

impl Suspects {
    fn of(&mut self, peer: PeerId, now: Instant) -> &mut Suspect {
        if !self.peers.contains_key(&peer)
            && self.peers.len() >= MOST
            && let Some(oldest) = self.peers.iter().min_by_key(|(_, suspect)| suspect.since).map(|(id, _)| *id)
        {
            self.peers.remove(&oldest);
        }
        self.peers.entry(peer).or_insert_with(|| Suspect {
            bad: 0,
            why: String::new(),
            score: 0.0,
            since: now,
            away: 0,
            flooded: 0,
            wrote: 0,
        })
    }

    /// A peer sent what everybody can see is bad. Returns how long it is to be kept away, if now is the time for it.
    fn bad(&mut self, peer: PeerId, why: String, now: Instant) -> Option<Duration> {
        let suspect = self.of(peer, now);
        suspect.score = (suspect.score - now.duration_since(suspect.since).as_secs_f64() * FORGIVEN).max(0.0) + 1.0;
        suspect.since = now;
        suspect.bad += 1;
        suspect.why = why;
        if suspect.score < TOLERATED {
            return None;
        }
        suspect.score = 0.0;
        suspect.away += 1;
        Some(AWAY_FIRST.saturating_mul(1 << (suspect.away - 1).min(16)).min(AWAY_MOST))
    }

    fn flooded(&mut self, peer: PeerId, dropped: u64, now: Instant) {
        let suspect = self.of(peer, now);
        suspect.flooded += dropped;
        suspect.since = now;
    }

    /// Authors' entries have come. Returns those of whom there were too many within this minute, once.
    fn wrote(&mut self, authors: impl Iterator<Item = PeerId>, now: Instant) -> Vec<PeerId> {
        if self.writing_since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            self.writing_since = Some(now);
            self.writing.clear();
        }
        let mut many = Vec::new();
        for author in authors {
            let count = self.writing.entry(author).or_default();
            *count += 1;
            if *count == ENTRIES_A_MINUTE {
                many.push(author);
            }
        }
        for author in &many {
            let suspect = self.of(*author, now);
            suspect.wrote = suspect.wrote.max(ENTRIES_A_MINUTE);
            suspect.since = now;
        }
        many
    }

    /// Whether it is time to say, again, that there are too many chains.
    fn says_chains(&mut self, now: Instant) -> bool {
        let is_time = self.said_chains.is_none_or(|said| now.duration_since(said) >= SAY_AGAIN);
        if is_time {
            self.said_chains = Some(now);
        }
        is_time
    }

    /// What there is to say of a peer, for people.
    pub(super) fn faults(&self, peer: &PeerId) -> Vec<String> {
        let Some(suspect) = self.peers.get(peer) else { return Vec::new() };
        let mut faults = Vec::new();
        if suspect.bad > 0 {
            faults.push(format!("{} bad messages, the last: {}", suspect.bad, suspect.why));
        }
        if suspect.away > 0 {
            faults.push(format!("kept away {} times", suspect.away));
        }
        if suspect.flooded > 0 {
            faults.push(format!("{} messages beyond its share were dropped", suspect.flooded));
        }
        if suspect.wrote > 0 {
            faults.push(format!("wrote more than {} entries within a minute", suspect.wrote));
        }
        faults
    }

    /// All of whom there is something to say.
    pub(super) fn all(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }
}

impl Daemon {
    /// A peer sent what everybody can see is bad.
    pub(super) async fn on_bad(&mut self, from: PeerId, why: String) {
        if let Some(time) = self.suspects.bad(from, why.clone(), Instant::now()) {
            let seconds = time.as_secs();
            self.chronicle.warn(format!(
                "{from} goes on sending what no honest node sends ({why}): it is kept away for {seconds} s; if it is a \
                 member that was taken over, `runmesh mesh revoke` puts it out for good"
            ));
            if self.net.keep_away(from, time).await.is_err() {
                tracing::debug!("the network has ended");
            }
        }
    }

    /// A peer says or asks more than its share.
    pub(super) fn on_flood(&mut self, from: PeerId, dropped: u64) {
        let known = !self.suspects.faults(&from).is_empty();
        self.suspects.flooded(from, dropped, Instant::now());
        if !known {
            self.chronicle.warn(format!(
                "{from} says or asks more than its share: what is beyond it is dropped; `runmesh inspect peers` counts it"
            ));
        }
    }

    /// There are so many chains that this node cannot ask for what it lacks.
    pub(super) fn on_too_many_chains(&mut self) {
        if self.suspects.says_chains(Instant::now())
            && let Some(many) = self.many_chains()
        {
            tracing::warn!("this node can ask nobody for what it lacks: {many}");
        }
    }

    /// What is to be said of how many chains there are, if they are many.
    pub(super) fn many_chains(&self) -> Option<String> {
        many_chains(&self.node.vector())
    }

    /// Entries of these authors go to the disk.
    pub(super) fn note_authors(&mut self, authors: impl Iterator<Item = PeerId>) {
        for author in self.suspects.wrote(authors, Instant::now()) {
            self.chronicle.warn(format!(
                "{author} has written {ENTRIES_A_MINUTE} entries within a minute, and all members keep them; if that is not \
                 meant, `runmesh mesh revoke` puts it out"
            ));
        }
    }
}

fn many_chains(vector: &Vector) -> Option<String> {
    if vector.len() < MANY_CHAINS {
        return None;
    }
    let mut chains: BTreeMap<PeerId, usize> = BTreeMap::new();
    for author in vector.keys() {
        *chains.entry(author.peer).or_default() += 1;
    }
    let (peer, most) = chains.into_iter().max_by_key(|(_, count)| *count)?;
    Some(format!(
        "members have written under {} incarnations, and with more than {MAX_SYNC_AUTHORS} no node can ask another for \
         what it lacks; {peer} has {most} of them: look why it begins anew so often; if it was taken over, `runmesh mesh \
         revoke` puts it out, and no more than {MAX_CUTS} of its incarnations go on counting",
        vector.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::id::{Author, Incarnation};

    const PEER: PeerId = PeerId::from_public_key([1; 32]);

    #[test]
    fn who_goes_on_is_kept_away_for_longer_and_longer_and_time_forgives() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        let bad = |suspects: &mut Suspects, now| suspects.bad(PEER, "forged".to_owned(), now);
        for _ in 0..9 {
            assert_eq!(bad(&mut suspects, start), None);
        }
        assert_eq!(bad(&mut suspects, start), Some(AWAY_FIRST));
        for _ in 0..9 {
            assert_eq!(bad(&mut suspects, start), None);
        }
        assert_eq!(bad(&mut suspects, start), Some(AWAY_FIRST * 2));
        for n in 0..100 {
            assert_eq!(bad(&mut suspects, start + Duration::from_secs(20 * (n + 1))), None, "one in 20 s is forgiven");
        }
        assert_eq!(suspects.faults(&PEER), ["120 bad messages, the last: forged", "kept away 2 times"]);
        assert!(suspects.faults(&PeerId::from_public_key([2; 32])).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        for n in 0..2 * MOST {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(n as u64).to_le_bytes());
            let at = start + Duration::from_secs(n as u64);
            suspects.flooded(PeerId::from_public_key(key), 7, at);
        }
        assert_eq!(suspects.all().count(), MOST);
    }

    #[test]
    fn an_author_of_too_much_is_told_of_once_a_minute() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        let many = |n: u64| (0..n).map(|_| PEER);
        assert!(suspects.wrote(many(ENTRIES_A_MINUTE - 1), start).is_empty());
        assert_eq!(suspects.wrote(many(5), start), [PEER]);
        assert!(suspects.wrote(many(ENTRIES_A_MINUTE), start).is_empty());
        assert_eq!(suspects.wrote(many(ENTRIES_A_MINUTE), start + MINUTE), [PEER]);
    }

    #[test]
    fn many_chains_are_told_of_with_who_has_most_of_them_before_they_are_too_many() {
        let chain = |peer: PeerId, n: usize| (Author { peer, incarnation: Incarnation(n as u64) }, 1);
        let mut vector: Vector = (0..MANY_CHAINS - 2).map(|n| chain(PEER, n)).collect();
        vector.extend([chain(PeerId::from_public_key([2; 32]), 0)]);
        assert_eq!(many_chains(&vector), None);
        vector.extend([chain(PeerId::from_public_key([3; 32]), 0)]);
        let told = many_chains(&vector).expect("told");
        let (peer, most) = (PEER.to_string(), MANY_CHAINS - 2);
        assert!(told.contains("2048 incarnations") && told.contains(&format!("{peer} has {most} of them")), "{told}");
    }

    #[test]
    fn that_they_are_too_many_is_said_once_in_a_while() {
        let (mut suspects, start) = (Suspects::default(), Instant::now());
        assert!(suspects.says_chains(start) && !suspects.says_chains(start + SAY_AGAIN / 2));
        assert!(suspects.says_chains(start + SAY_AGAIN) && !suspects.says_chains(start + SAY_AGAIN));
    }
}
