//! Members that stay away for long: proposing that they be waited for no longer, and agreeing to it.
//!
//! Who is away is each node's own judgement, by its own clocks; that more than half agree makes it hold, so that one
//! clock that has jumped retires nobody. A member that is heard, however idle, is not away.

use super::{Node, RANK_PARTS};
use crate::kernel::entry::{Acknowledge, Event, Retire};
use crate::kernel::id::{Cid, PeerId};

impl Node {
    /// Proposes to retire whoever has been away for long, and agrees to what others propose.
    pub(super) fn consider_retirements(&mut self) {
        let me = self.me.peer();
        let proposed = self.clock.proposed_retirements();
        let votes = proposed.iter().filter(|(_, peer, voters)| !voters.contains(&me) && self.is_long_away(peer));
        let votes: Vec<Cid> = votes.map(|(cid, _, _)| *cid).collect();
        self.events.extend(votes.into_iter().map(|proposal| Event::Acknowledge(Acknowledge { proposal })));
        let away: Vec<PeerId> = self
            .clock
            .members()
            .all()
            .map(|member| member.peer)
            .filter(|peer| !proposed.iter().any(|(_, proposed, _)| proposed == peer) && self.is_long_away(peer))
            .collect();
        if away.is_empty() {
            self.history.away_since = None;
            return;
        }
        let (now, part) = (self.now.mono, self.settings.timings.checkpoint / RANK_PARTS);
        let due = *self.history.away_since.get_or_insert(now) + self.rank_among_heard(b"runmesh retirement") * part;
        if now >= due {
            self.history.away_since = None;
            self.events.extend(away.into_iter().map(|peer| Event::Retire(Retire { peer })));
        }
    }

    /// Whether a member has written nothing for the time after which it is retired, and this node has not heard of it
    /// for as long as it takes to come back after a power cut that everybody had. Where the label of what it wrote last
    /// lies in the future, it is as old as this node's own first entry since.
    fn is_long_away(&self, peer: &PeerId) -> bool {
        let timings = &self.settings.timings;
        let wall = self.now.wall;
        let written = Some(self.clock.last_written(peer)).filter(|written| *written <= wall);
        // A clock that is ahead would make its owner wait for ever, and everybody for it.
        let written = written.or_else(|| self.clock.known_since(peer, &self.me.peer(), wall));
        let heard = self.peers.get(peer).map_or(self.history.started, |peer| peer.last.max(self.history.started));
        *peer != self.me.peer()
            && !self.peers.hears(peer)
            && !self.clock.is_retired(peer)
            && heard.saturating_add(timings.checkpoint) <= self.now.mono
            && written.is_some_and(|written| written.saturating_add(timings.retire) <= wall)
    }
}
