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
    /// Members about whom somebody has changed their mind since the tasks were looked at.
    pub(super) opinions: BTreeSet<PeerId>,
    /// Others than before are heard since then.
    pub(super) others: bool,
}

impl Tally {
    /// Somebody that said one thing says another; nothing where it is not heard.
    pub(super) fn count(&mut self, peer: PeerId, before: Option<&Presence>, after: Option<&Presence>) {
        let says = |presence: Option<&Presence>, what: fn(&Presence) -> bool| usize::from(presence.is_some_and(what));
        self.heard = self.heard + usize::from(after.is_some()) - usize::from(before.is_some());
        self.attentive = self.attentive + says(after, |one| one.attentive) - says(before, |one| one.attentive);
        self.others |= before.is_some() != after.is_some();
        let nobody = BTreeSet::new();
        let [was, is] = [before, after].map(|presence| presence.map_or(&nobody, |presence| &presence.unheard));
        if was != is {
            self.opinions.extend(was.symmetric_difference(is));
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
