//! Who may write: the admissions among the entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::shelf::Rights;
use super::{Mark, Order, Said};
use crate::kernel::entry::{Admit, Right};
use crate::kernel::id::{Cid, MeshId, PeerId};

/// One admission of a peer, by an entry that counts.
#[derive(Debug, Clone)]
struct Admission {
    peer: PeerId,
    mark: Arc<Mark>,
    by: PeerId,
    right: Right,
    wall_ms: u64,
}

/// A member as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub peer: PeerId,
    /// Who wrote the admission; a founder wrote its own.
    pub by: PeerId,
    /// The admission's label of time, milliseconds since 1970.
    pub since_ms: u64,
    /// The mesh key itself named it.
    pub founder: bool,
}

/// A member at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberBase {
    pub peer: PeerId,
    pub by: PeerId,
    pub since_ms: u64,
    /// What it was admitted by, the first first. No ticket among them admits anybody else.
    pub rights: Vec<Right>,
    /// The greatest number of rules that it had declared.
    pub rules: u32,
    /// It stayed away, and nobody waits for it before it is back.
    pub retired: bool,
}

/// All admissions that were given a right by the mesh key, and which of them hold.
///
/// A ticket is the right of one peer: of several admissions by it the first in the order (height, id) says whose, and
/// all of that peer's hold (a newcomer that got no answer asks another member). That order, unlike the least id alone,
/// needs no second look at what already counts, so two tickets can never decide over each other in a circle.
#[derive(Debug, Clone, Default)]
pub struct Members {
    admissions: BTreeMap<PeerId, Vec<Admission>>,
    tickets: BTreeMap<u64, (Order, PeerId)>,
    /// Which rules each has declared to know, and by which entries.
    declared: BTreeMap<PeerId, Vec<(u32, Arc<Mark>)>>,
    /// The greatest number that anybody has declared.
    highest_rules: u32,
    /// Whether any ticket limits what labels are offered.
    limits_labels: bool,
    /// Who was revoked, and which entries say so. What they wrote before still counts.
    revoked: BTreeMap<PeerId, Vec<Mark>>,
}

impl Members {
    /// The members at a checkpoint, every admission known to whatever stands above its cut.
    pub(super) fn restored(members: &[MemberBase], cut: &Arc<Mark>) -> Self {
        let mut restored = Self::default();
        for member in members {
            for right in &member.rights {
                if let Right::Ticket { ticket } = right {
                    restored.limits_labels |= ticket.labels.is_some();
                    restored.tickets.insert(ticket.id, ((0, cut.cid), member.peer));
                }
            }
            let admission = |right: &Right| Admission {
                peer: member.peer,
                mark: cut.clone(),
                by: member.by,
                right: right.clone(),
                wall_ms: member.since_ms,
            };
            restored.admissions.insert(member.peer, member.rights.iter().map(admission).collect());
            restored.declare(member.peer, member.rules, cut);
        }
        restored
    }

    /// The members as a checkpoint keeps them, by peer id.
    pub(super) fn condensed(&self, is_away: impl Fn(&PeerId) -> bool) -> Vec<MemberBase> {
        let kept = self.admitted_ones().map(|member| {
            let mut admissions: Vec<&Admission> = self.admissions[&member.peer].iter().collect();
            admissions.retain(|admission| self.holds(admission));
            // Those of a former checkpoint are in their order already, and come first.
            admissions.sort_by_key(|admission| admission.mark.order());
            let mut rights: Vec<Right> = Vec::new();
            for admission in admissions {
                if !rights.contains(&admission.right) {
                    rights.push(admission.right.clone());
                }
            }
            let Member { peer, by, since_ms, .. } = member;
            MemberBase { peer, by, since_ms, rights, rules: self.declared(&peer), retired: is_away(&peer) }
        });
        kept.collect()
    }

    /// Whoever an entry admits that one entry does not know and another does, whether or not the admission holds.
    pub(super) fn admitted_between(&self, below: &Mark, above: &[&Mark]) -> BTreeSet<PeerId> {
        let all = self.admissions.values().flatten();
        let between = all.filter(|admission| {
            !below.reaches(&admission.mark) && above.iter().any(|mark| mark.reaches(&admission.mark))
        });
        between.map(|admission| admission.peer).collect()
    }

    /// Whether an entry above this one by the peer counts: one of its admissions is known to `mark`, or is it.
    pub(super) fn admitted(&self, peer: &PeerId, mark: &Mark) -> bool {
        self.admissions
            .get(peer)
            .is_some_and(|all| all.iter().any(|admission| self.holds(admission) && mark.reaches(&admission.mark)))
    }

    /// Takes note of what an entry that counts says. `Err` as in [`Self::add`].
    pub(super) fn hear(&mut self, rights: Rights<'_>, mark: &Arc<Mark>, by: PeerId, said: &[Said]) -> Result<(), ()> {
        let mut again = Ok(());
        for (at, said) in said.iter().enumerate() {
            match said {
                Said::Admit(admit, wall_ms) if rights.admit(admit, (mark.cid, at)) => {
                    again = again.and(self.add(mark, by, admit, *wall_ms));
                }
                Said::Declare(rules) => self.declare(by, *rules, mark),
                Said::Admit(..) | Said::Retire(_) | Said::Acknowledge(_) | Said::Revoke(_) => {}
            }
        }
        again
    }

    /// Takes note of an admission by an entry that counts and a right that the mesh key gave. `Err` when an admission that was taken to hold is not the
    /// first by its ticket after all, so that everything has to be counted again.
    fn add(&mut self, mark: &Arc<Mark>, by: PeerId, admit: &Admit, wall_ms: u64) -> Result<(), ()> {
        let mut again = Ok(());
        if let Right::Ticket { ticket } = &admit.right {
            self.limits_labels |= ticket.labels.is_some();
            let mine = (mark.order(), admit.peer);
            match self.tickets.get(&ticket.id) {
                Some(first) if *first <= mine => {}
                Some((_, other)) => {
                    if *other != admit.peer {
                        again = Err(());
                    }
                    self.tickets.insert(ticket.id, mine);
                }
                None => {
                    self.tickets.insert(ticket.id, mine);
                }
            }
        }
        let admission = Admission { peer: admit.peer, mark: mark.clone(), by, right: admit.right.clone(), wall_ms };
        let admissions = self.admissions.entry(admit.peer).or_default();
        // Most peers have one.
        admissions.reserve_exact(1);
        admissions.push(admission);
        again
    }

    /// Takes note that a peer's version knows the rules up to this number.
    fn declare(&mut self, peer: PeerId, rules: u32, mark: &Arc<Mark>) {
        self.highest_rules = self.highest_rules.max(rules);
        let declared = self.declared.entry(peer).or_default();
        declared.reserve_exact(1);
        declared.push((rules, mark.clone()));
    }

    /// The greatest number of rules that the peer has declared; 0 before it has.
    pub fn declared(&self, peer: &PeerId) -> u32 {
        self.declared.get(peer).into_iter().flatten().map(|(rules, _)| *rules).max().unwrap_or(0)
    }

    /// The same, as far as an entry knows.
    pub(super) fn declared_below(&self, peer: &PeerId, mark: &Mark) -> u32 {
        let all = self.declared.get(peer).into_iter().flatten();
        all.filter(|(_, by)| mark.reaches(by)).map(|(rules, _)| *rules).max().unwrap_or(0)
    }

    /// The greatest number of rules that any member has declared.
    pub const fn highest_rules(&self) -> u32 {
        self.highest_rules
    }

    /// Whoever is a member as far as an entry knows.
    pub(super) fn known_to(&self, mark: &Mark) -> BTreeSet<PeerId> {
        let all = self.admissions.values().flatten();
        let known = all.filter(|admission| self.holds(admission) && mark.reaches(&admission.mark));
        known.map(|held| held.peer).filter(|peer| !self.revoked_below(peer, mark)).collect()
    }

    /// Whether a founder's own admission stands in this event of its entry.
    pub(super) fn founds(mesh: &MeshId, author: &PeerId, admit: &Admit) -> bool {
        admit.peer == *author && matches!(admit.right, Right::Founder { .. }) && admit.right.admits(mesh, author)
    }

    /// Whether the peer is a member by what is known now.
    pub fn contains(&self, peer: &PeerId) -> bool {
        !self.revoked.contains_key(peer) && self.was_admitted(peer)
    }

    /// The only labels that the peer may offer, by the tickets that admitted it; `None` when it may offer all.
    pub fn labels_of(&self, peer: &PeerId) -> Option<BTreeSet<&String>> {
        if !self.limits_labels {
            return None;
        }
        let mut labels = BTreeSet::new();
        for admission in self.admissions.get(peer).into_iter().flatten().filter(|one| self.holds(one)) {
            match &admission.right {
                Right::Ticket { ticket } => labels.extend(ticket.labels.as_ref()?),
                Right::Founder { .. } => return None,
            }
        }
        Some(labels)
    }

    /// The entries by which a member may prove its membership, its own admission first, each by the one that the next
    /// admits; as far as they are here.
    pub(super) fn chain_of(&self, peer: &PeerId, most: usize) -> Vec<Cid> {
        let (mut chain, mut at) = (Vec::new(), *peer);
        while chain.len() < most {
            let all = self.admissions.get(&at).into_iter().flatten().filter(|admission| self.holds(admission));
            let Some(first) = all.min_by_key(|admission| admission.mark.order()) else { break };
            chain.push(first.mark.cid);
            if first.by == at {
                break;
            }
            at = first.by;
        }
        chain
    }

    /// Whether the peer was admitted by a ticket that has admitted another before, and by nothing else.
    pub fn was_refused(&self, peer: &PeerId) -> bool {
        self.admissions.contains_key(peer) && !self.was_admitted(peer)
    }

    /// Takes note that an entry revokes the peer.
    pub(super) fn revoke(&mut self, peer: PeerId, mark: &Mark) {
        self.revoked.entry(peer).or_default().push(mark.clone());
    }

    fn revoked_below(&self, peer: &PeerId, mark: &Mark) -> bool {
        self.revoked.get(peer).is_some_and(|by| by.iter().any(|by| mark.reaches(by)))
    }

    fn was_admitted(&self, peer: &PeerId) -> bool {
        self.admissions.get(peer).is_some_and(|all| all.iter().any(|admission| self.holds(admission)))
    }

    /// The peer that a ticket has admitted.
    pub fn user_of(&self, ticket: u64) -> Option<PeerId> {
        self.tickets.get(&ticket).map(|(_, peer)| *peer)
    }

    /// The peers that are members, by id.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        let holds = |(_, all): &(&PeerId, &Vec<Admission>)| all.iter().any(|admission| self.holds(admission));
        self.admissions.iter().filter(holds).map(|(peer, _)| peer)
    }

    /// All members, by peer id.
    pub fn all(&self) -> impl Iterator<Item = Member> {
        self.admitted_ones().filter(|member| !self.revoked.contains_key(&member.peer))
    }

    /// The same with those that were revoked.
    fn admitted_ones(&self) -> impl Iterator<Item = Member> {
        self.admissions.iter().filter_map(|(peer, all)| {
            let first = all.iter().filter(|admission| self.holds(admission)).min_by_key(|a| a.mark.order())?;
            Some(Member {
                peer: *peer,
                by: first.by,
                since_ms: first.wall_ms,
                founder: matches!(first.right, Right::Founder { .. }),
            })
        })
    }

    fn holds(&self, admission: &Admission) -> bool {
        match &admission.right {
            Right::Founder { .. } => true,
            Right::Ticket { ticket } => self.tickets.get(&ticket.id).is_some_and(|(_, peer)| *peer == admission.peer),
        }
    }
}
