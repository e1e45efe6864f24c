//! Whether others agree that a holder is lost: a few of them are asked, whom everybody draws alike.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Peer, Peers};
use crate::kernel::election::Place;
use crate::kernel::id::PeerId;
use crate::kernel::node::Timings;

/// How many are asked at most whether a holder is there. Own choice: would all others have to say so, each loss would cost a
/// large mesh as many presences as it has nodes; whether most of 32 drawn by hash hear it tells as well whether most do.
const JURY: usize = 32;

/// Of how many peers it is remembered who is asked, a thousand bytes for each. Few are doubted at a time, but for a mesh
/// that falls apart.
const MAX_JURIES: usize = 1024;

/// Who was drawn for whom, as long as no other draw would come of it: a doubted one is asked about at every input.
#[derive(Debug, Default)]
pub(super) struct Juries(RefCell<BTreeMap<PeerId, Drawn>>);

#[derive(Debug)]
pub(super) struct Drawn {
    centre: Place,
    /// By peer id.
    pub(super) jury: Arc<[PeerId]>,
    /// Whom a further one must be nearer than to be drawn too; `None` when there is room for any.
    farthest: Option<(u32, PeerId)>,
}

impl Juries {
    /// A peer is known that was not before.
    pub(super) fn make_room_for(&mut self, newcomer: &Place) {
        let is_drawn =
            |drawn: &Drawn| drawn.farthest.is_none_or(|most| (drawn.centre.distance(newcomer), newcomer.peer()) < most);
        self.0.get_mut().retain(|_, drawn| !is_drawn(drawn));
    }

    /// A peer is known no more.
    pub(super) fn forget(&mut self, gone: &PeerId) {
        self.0.get_mut().retain(|of, drawn| of != gone && drawn.jury.binary_search(gone).is_err());
    }
}

impl Peers {
    /// Who is asked whether a peer is there, by peer id: the members nearest to it, this node perhaps among them.
    pub(super) fn jury(&self, of: &PeerId, me: &Place) -> Arc<[PeerId]> {
        let mut drawn = self.juries.0.borrow_mut();
        if drawn.len() >= MAX_JURIES && !drawn.contains_key(of) {
            drawn.clear();
        }
        Arc::clone(&drawn.entry(*of).or_insert_with(|| self.draw_jury(of, me)).jury)
    }

    pub(super) fn draw_jury(&self, of: &PeerId, me: &Place) -> Drawn {
        let centre = self.peers.get(of).map_or_else(|| Place::of(*of), |peer| peer.place);
        let others = self.peers.values().map(|peer| &peer.place).chain([me]).filter(|place| place.peer() != *of);
        let mut all = Vec::with_capacity(self.peers.len() + 1);
        all.extend(others.map(|place| (centre.distance(place), place.peer())));
        if all.len() > JURY {
            all.select_nth_unstable(JURY);
            all.truncate(JURY);
        }
        let farthest = all.iter().max().copied().filter(|_| all.len() == JURY);
        let mut jury: Vec<PeerId> = all.into_iter().map(|(_, peer)| peer).collect();
        jury.sort_unstable();
        Drawn { centre, jury: jury.into(), farthest }
    }

    /// Whether this node is one of those who are asked.
    pub(super) fn judges(&self, of: &PeerId, me: &Place) -> bool {
        self.is_asked(&me.peer(), of, me)
    }

    /// Whether somebody is one of those who are asked.
    pub(in super::super) fn is_asked(&self, who: &PeerId, of: &PeerId, me: &Place) -> bool {
        self.peers.len() < JURY || self.jury(of, me).binary_search(who).is_ok()
    }

    /// Whether those who are asked and heard agree that the peer is not there: more than half of them, where they are
    /// more than one. `doubted` is when it should have been heard here at the latest. An idle node says seldom whom it
    /// hears, so who hears a doubted one says so at once (`Node::on_presence`), and a beat later whoever has said nothing
    /// since is not counted: it is cut off as well, or nearly so.
    pub(in super::super) fn others_agree_on_loss(
        &self,
        of: &PeerId,
        me: &Place,
        doubted: u64,
        now: u64,
        timings: &Timings,
    ) -> bool {
        let jury = self.jury(of, me);
        let others: Vec<&Peer> =
            jury.iter().filter_map(|peer| self.peers.get(peer)).filter(|peer| peer.heard).collect();
        let missing = others.iter().filter(|other| other.misses(of)).count();
        let agree = |others: usize| others <= 1 || missing * 2 > others;
        let spoken = || others.iter().filter(|other| other.has_spoken(of, doubted)).count();
        agree(others.len()) || (now >= doubted + timings.beat && agree(spoken()))
    }

    /// Those of the jury who say nothing of a doubted holder within a beat are not heard either: the task that it held
    /// shall not wait for their turn.
    pub(in super::super) fn doubt_the_silent(&mut self, of: PeerId, doubted: u64, timings: &Timings) {
        self.doubts.insert(of, doubted);
        self.next_watch = self.next_watch.min(doubted + timings.beat);
    }

    pub(super) fn take_doubts(&mut self, me: &Place, now: u64, timings: &Timings) {
        let (due, later) = std::mem::take(&mut self.doubts).into_iter().partition(|(_, at)| at + timings.beat <= now);
        self.doubts = later;
        let due: BTreeMap<PeerId, u64> = due;
        for (of, doubted) in due {
            for juror in self.jury(&of, me).iter() {
                if let Some(other) = self.peers.get_mut(juror).filter(|other| other.heard)
                    && !other.has_spoken(&of, doubted)
                {
                    other.last = 0;
                }
            }
        }
    }
}
