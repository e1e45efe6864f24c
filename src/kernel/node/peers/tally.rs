//! What the peers that are heard say, summed up, so that nobody has to ask each of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::Presence;

/// What those heard say, summed up.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) heard: usize,
    /// How many of them are attentive.
    pub(super) attentive: usize,
    /// What they say they run, and in which attempt.
    pub(super) running: BTreeMap<TaskId, BTreeMap<PeerId, u32>>,
    pub(super) news: News,
}

/// What may have changed who agrees that somebody is lost, since the tasks were looked at.
#[derive(Debug, Default)]
pub(in super::super) struct News {
    /// Who has changed their mind, and about whom.
    pub(in super::super) opinions: Vec<(PeerId, PeerId)>,
    /// Who is heard and was not before, or the other way round.
    pub(in super::super) turned: Vec<PeerId>,
}

impl Tally {
    /// Somebody that said one thing says another; nothing where it is not heard.
    pub(super) fn count(&mut self, peer: PeerId, before: Option<&Presence>, after: Option<&Presence>) {
        let says = |presence: Option<&Presence>, what: fn(&Presence) -> bool| usize::from(presence.is_some_and(what));
        self.heard = self.heard + usize::from(after.is_some()) - usize::from(before.is_some());
        self.attentive = self.attentive + says(after, |one| one.attentive) - says(before, |one| one.attentive);
        if before.is_some() != after.is_some() {
            self.news.turned.push(peer);
        }
        let nobody = BTreeSet::new();
        let [was, is] = [before, after].map(|presence| presence.map_or(&nobody, |presence| &presence.unheard));
        if was != is {
            self.news.opinions.extend(was.symmetric_difference(is).map(|of| (peer, *of)));
        }
        let nothing = BTreeMap::new();
        let [was, is] = [before, after].map(|presence| presence.map_or(&nothing, |presence| &presence.running));
        if was != is {
            for task in was.keys() {
                if let Some(by) = self.running.get_mut(task) {
                    by.remove(&peer);
                    if by.is_empty() {
                        self.running.remove(task);
                    }
                }
            }
            for (task, fence) in is {
                self.running.entry(*task).or_default().insert(peer, fence.attempt);
            }
        }
    }
}
