//! The rules by which the events of one task become its state (DESIGN.md section 4).
//!
//! One pass over the facts in the clock's order (height, id), which never puts an entry before an ancestor. Whether a
//! fact stands depends only on facts it knows, so that one pass is enough; what concurrent facts then decide between
//! themselves is settled at the end by an order that all nodes share.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Fact;
use crate::kernel::clock::Mark;
use crate::kernel::election::{Place, Seed};
use crate::kernel::entry::{Event, Hlc};
use crate::kernel::id::{Author, Cid, Digest, PeerId, TaskId};
use crate::kernel::task::{Fence, Policy, ReleaseReason, State, Workload};

/// A claim that stands: it was made as the rules ask. It may hold, have held, or have lost to a nearer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    pub author: Author,
    pub fence: Fence,
    /// Bits between the claimer and the seed it ranked by, 0 to 256.
    pub distance: u32,
    pub released: Option<ReleaseReason>,
}

/// What the entries say of one introduced task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    pub workload: Arc<Workload>,
    /// The introduction that elections are pinned to.
    pub anchor: Cid,
    /// The label of time of the anchor.
    pub introduced: Hlc,
    /// The peer that introduced it.
    pub introduced_by: PeerId,
    pub state: State,
    /// The entry that ended it.
    pub ended_by: Option<Cid>,
    /// Whether several concurrent endings were weighed against each other.
    pub contested: bool,
    /// Claims that stand, by (attempt, distance).
    pub claims: Vec<HeldClaim>,
    /// The highest attempt among them, 0 before the first.
    pub attempt: u32,
    /// Attempts that count against the limit: those not given back because their host went away in order.
    pub spent: u32,
    /// Peers that said that they cannot run it.
    pub declined: BTreeSet<PeerId>,
    /// Peers that declined the task or had it and gave it back or lost it: they rank last.
    pub last: BTreeSet<PeerId>,
    /// What the ending or the last release says to people.
    pub note: String,
}

impl Folded {
    /// A hash of everything that nodes must agree on.
    pub(super) fn digest(&self, task: &TaskId) -> Digest {
        let held = self.claims.iter().map(|claim| (claim.fence, claim.released));
        let held: Vec<_> = held.collect();
        let summary = (task, self.anchor, self.state.word(), self.ended_by, self.attempt, held, &self.last);
        match serde_cbor::to_vec(&summary) {
            Ok(bytes) => Digest::of(&[&bytes]),
            Err(error) => unreachable!("ids and numbers always encode: {error}"),
        }
    }

    /// The claim with this fence.
    pub fn claim(&self, fence: &Fence) -> Option<&HeldClaim> {
        self.claims.iter().find(|claim| claim.fence == *fence)
    }
}

/// A claim while the pass is under way.
struct Standing<'a> {
    mark: &'a Mark,
    /// How it is weighed against another of the same attempt: distance, tie hash, id.
    weight: (u32, Digest, Cid),
    claim: HeldClaim,
}

/// An ending that stands.
struct Ending<'a> {
    fact: &'a Fact,
    /// Lower wins: results before cancel before left-to-github before lost; among results by attempt and weight.
    rank: (u8, u32, Option<(u32, Digest, Cid)>, Cid),
}

/// The state that these facts give, or nothing when none of them introduces the task.
pub(super) fn fold<'a>(task: &TaskId, facts: impl Iterator<Item = &'a Fact>) -> Option<Folded> {
    let mut facts: Vec<&Fact> = facts.collect();
    facts.sort_by_key(|fact| fact.mark.order());
    let mut pass = Pass {
        task: *task,
        introductions: Vec::new(),
        claims: Vec::new(),
        endings: Vec::new(),
        declined: BTreeSet::new(),
        note: String::new(),
    };
    for fact in facts {
        pass.take(fact);
    }
    pass.settle()
}

struct Pass<'a> {
    task: TaskId,
    introductions: Vec<(&'a Fact, &'a Arc<Workload>)>,
    claims: Vec<Standing<'a>>,
    endings: Vec<Ending<'a>>,
    declined: BTreeSet<PeerId>,
    note: String,
}

impl<'a> Pass<'a> {
    fn take(&mut self, fact: &'a Fact) {
        let known_introduction = self.introductions.iter().any(|(known, _)| fact.mark.knows(&known.mark));
        if let Event::Introduce(introduce) = &fact.event {
            // Two introductions in one entry are one.
            if !known_introduction && !self.introductions.iter().any(|(known, _)| known.mark.cid == fact.mark.cid) {
                self.introductions.push((fact, &introduce.workload));
            }
            return;
        }
        let knows_ending = self.endings.iter().any(|ending| fact.mark.reaches(&ending.fact.mark));
        if knows_ending {
            return;
        }
        match &fact.event {
            Event::Claim(claim) => {
                let anchored = self
                    .introductions
                    .iter()
                    .any(|(known, _)| known.mark.cid == claim.anchor && fact.mark.knows(&known.mark));
                let highest = self.known_claims(fact).map(|known| known.claim.fence.attempt).max().unwrap_or(0);
                let twice = self.claims.iter().any(|known| known.mark.cid == fact.mark.cid);
                if anchored && !twice && claim.attempt == highest + 1 {
                    let seed = Seed::of(&claim.anchor, &self.task);
                    let place = Place::of(fact.author.peer);
                    let distance = seed.distance(&place);
                    let fence = Fence { attempt: claim.attempt, claim: fact.mark.cid };
                    self.claims.push(Standing {
                        mark: &fact.mark,
                        weight: (distance, seed.tie(&place), fact.mark.cid),
                        claim: HeldClaim { author: fact.author, fence, distance, released: None },
                    });
                }
            }
            Event::Release(release) => {
                if let Some(at) = self.own_claim(fact, &release.fence) {
                    self.claims[at].claim.released.get_or_insert(release.reason);
                    self.note.clone_from(&release.note);
                }
            }
            Event::Decline(decline) if known_introduction => {
                self.declined.insert(fact.author.peer);
                self.note.clone_from(&decline.why);
            }
            Event::Finish(finish) => {
                if let Some(at) = self.own_claim(fact, &finish.fence) {
                    let rank = (0, finish.fence.attempt, Some(self.claims[at].weight), fact.mark.cid);
                    self.endings.push(Ending { fact, rank });
                }
            }
            Event::Cancel(_) if known_introduction => {
                self.endings.push(Ending { fact, rank: (1, 0, None, fact.mark.cid) });
            }
            Event::Leave(_) if known_introduction => {
                let held = self.known_claims(fact).any(|known| known.claim.released.is_none());
                let may_leave = self
                    .introductions
                    .iter()
                    .any(|(known, workload)| fact.mark.knows(&known.mark) && workload.policy() == Policy::MeshFirst);
                if may_leave && !held {
                    self.endings.push(Ending { fact, rank: (2, 0, None, fact.mark.cid) });
                }
            }
            Event::Lose(lose) => {
                let highest = self.known_claims(fact).map(|known| known.claim.fence.attempt).max();
                if highest == Some(lose.attempt) {
                    self.endings.push(Ending { fact, rank: (3, 0, None, fact.mark.cid) });
                }
            }
            _ => {}
        }
    }

    fn known_claims(&self, fact: &'a Fact) -> impl Iterator<Item = &Standing<'a>> {
        self.claims.iter().filter(|known| fact.mark.knows(known.mark))
    }

    /// The standing claim with this fence, if the fact's own author made it and the fact knows it.
    fn own_claim(&self, fact: &Fact, fence: &Fence) -> Option<usize> {
        self.claims.iter().position(|known| {
            known.claim.fence == *fence && known.claim.author.peer == fact.author.peer && fact.mark.knows(known.mark)
        })
    }

    fn settle(mut self) -> Option<Folded> {
        let (first, workload) = *self.introductions.iter().min_by_key(|(fact, _)| fact.mark.cid)?;
        self.claims.sort_by_key(|standing| (standing.claim.fence.attempt, standing.weight));
        let attempt = self.claims.last().map_or(0, |standing| standing.claim.fence.attempt);
        let winner = self.endings.iter().min_by_key(|ending| ending.rank);
        let mut note = self.note;
        let state = match winner.map(|ending| &ending.fact.event) {
            Some(Event::Finish(finish)) => {
                note.clone_from(&finish.note);
                let holder = winner.map_or(first.author.peer, |ending| ending.fact.author.peer);
                State::Completed {
                    holder,
                    fence: finish.fence,
                    conclusion: finish.conclusion,
                    duration_ms: finish.duration_ms,
                }
            }
            Some(Event::Cancel(cancel)) => {
                note.clone_from(&cancel.why);
                State::Cancelled
            }
            Some(Event::Leave(_)) => State::LeftToGithub,
            Some(_) => State::Lost,
            None => {
                let holding =
                    self.claims.iter().find(|s| s.claim.fence.attempt == attempt && s.claim.released.is_none());
                holding.map_or(State::Pending, |s| State::Claimed { holder: s.claim.author.peer, fence: s.claim.fence })
            }
        };
        let claims: Vec<HeldClaim> = self.claims.iter().map(|standing| standing.claim.clone()).collect();
        let mut last = self.declined.clone();
        let gone = |claim: &&HeldClaim| claim.released.is_some() || claim.fence.attempt < attempt;
        last.extend(claims.iter().filter(gone).map(|claim| claim.author.peer));
        Some(Folded {
            workload: workload.clone(),
            anchor: first.mark.cid,
            introduced: first.time,
            introduced_by: first.author.peer,
            state,
            ended_by: winner.map(|ending| ending.fact.mark.cid),
            contested: self.endings.len() > 1,
            spent: spent(&claims),
            claims,
            attempt,
            declined: self.declined,
            last,
            note,
        })
    }
}

/// Attempts of which no claim was given back by a host that went away in order, or had stopped for a nearer one.
fn spent(claims: &[HeldClaim]) -> u32 {
    let attempts: BTreeSet<u32> = claims.iter().map(|claim| claim.fence.attempt).collect();
    let handed_over = |attempt: &&u32| {
        let mut of_it = claims.iter().filter(|claim| claim.fence.attempt == **attempt);
        !of_it.any(|claim| claim.released == Some(ReleaseReason::Draining))
    };
    attempts.iter().filter(handed_over).count() as u32
}
