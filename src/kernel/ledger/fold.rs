//! The rules by which the events of one task become its state (DESIGN.md section 4).
//!
//! One pass over the facts in the clock's order (height, id), which never puts an entry before an ancestor. Whether a
//! fact stands depends only on facts it knows, so that one pass is enough; what concurrent facts then decide between
//! themselves is settled at the end by an order that all nodes share.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Fact;
use crate::kernel::clock::Mark;
use crate::kernel::election::{Place, Seed};
use crate::kernel::entry::{Cancel, Event, Hlc, Withdraw};
use crate::kernel::id::{Author, Cid, Digest, PeerId, TaskId};
use crate::kernel::task::{Fence, Policy, Products, ReleaseReason, State, Workload};

/// A claim that stands: it was made as the rules ask. It may hold, have held, or have lost to a nearer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// What the run whose result was accepted left behind at its holder's host.
    pub products: Products,
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

/// An open task as the entries beneath a checkpoint leave it: all that later ones can still refer to. Every later one
/// knows all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    introductions: Vec<KeptIntroduction>,
    /// Each with the introduction that it ranked by.
    claims: Vec<(HeldClaim, Cid)>,
    declined: BTreeSet<PeerId>,
    note: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptIntroduction {
    cid: Cid,
    by: PeerId,
    time: Hlc,
    workload: Arc<Workload>,
}

impl Kept {
    /// Whether it is of this task, and introduces it.
    pub fn is_of(&self, task: &TaskId) -> bool {
        let of_it = |introduction: &KeptIntroduction| introduction.workload.id() == *task;
        !self.introductions.is_empty() && self.introductions.iter().all(of_it)
    }
}

/// What the entries say of a task, and what a checkpoint has to keep of it.
pub(super) struct Outcome {
    pub(super) folded: Folded,
    pub(super) kept: Kept,
    /// The height of the entry that ended it.
    pub(super) ended_at: Option<u64>,
    /// The height of the introduction, unless an earlier checkpoint has it.
    pub(super) introduced_at: Option<u64>,
}

/// An introduction that stands.
struct Introduction<'a> {
    /// `None` beneath the checkpoint: every fact knows it.
    mark: Option<&'a Mark>,
    cid: Cid,
    by: PeerId,
    time: Hlc,
    workload: &'a Arc<Workload>,
}

/// A claim while the pass is under way.
struct Standing<'a> {
    /// `None` beneath the checkpoint.
    mark: Option<&'a Mark>,
    anchor: Cid,
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
pub(super) fn fold<'a>(
    task: &TaskId,
    kept: Option<&'a Kept>,
    facts: impl Iterator<Item = &'a Fact>,
) -> Option<Outcome> {
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
    if let Some(kept) = kept {
        pass.resume(kept);
    }
    for fact in facts {
        pass.take(fact);
    }
    pass.settle()
}

struct Pass<'a> {
    task: TaskId,
    introductions: Vec<Introduction<'a>>,
    claims: Vec<Standing<'a>>,
    endings: Vec<Ending<'a>>,
    declined: BTreeSet<PeerId>,
    note: String,
}

impl<'a> Pass<'a> {
    fn take(&mut self, fact: &'a Fact) {
        let known_introduction = self.introductions.iter().any(|known| knows(fact, known.mark));
        if let Event::Introduce(introduce) = fact.event() {
            // Two introductions in one entry are one.
            if !known_introduction && !self.introductions.iter().any(|known| known.cid == fact.mark.cid) {
                self.introductions.push(Introduction {
                    mark: Some(fact.mark.as_ref()),
                    cid: fact.mark.cid,
                    by: fact.author().peer,
                    time: fact.time(),
                    workload: &introduce.workload,
                });
            }
            return;
        }
        let knows_ending = self.endings.iter().any(|ending| fact.mark.reaches(&ending.fact.mark));
        if knows_ending {
            return;
        }
        match fact.event() {
            Event::Claim(claim) => {
                let anchored =
                    self.introductions.iter().any(|known| known.cid == claim.anchor && knows(fact, known.mark));
                let highest = self.known_claims(fact).map(|known| known.claim.fence.attempt).max().unwrap_or(0);
                let twice = self.claims.iter().any(|known| known.claim.fence.claim == fact.mark.cid);
                if anchored && !twice && claim.attempt == highest + 1 {
                    let seed = Seed::of(&claim.anchor, &self.task);
                    let place = Place::of(fact.author().peer);
                    let distance = seed.distance(&place);
                    let fence = Fence { attempt: claim.attempt, claim: fact.mark.cid };
                    // A withdrawal that did not know of it is void.
                    self.endings.retain(|ending| !matches!(ending.fact.event(), Event::Withdraw(_)));
                    self.claims.push(Standing {
                        mark: Some(fact.mark.as_ref()),
                        anchor: claim.anchor,
                        weight: (distance, seed.tie(&place), fact.mark.cid),
                        claim: HeldClaim { author: fact.author(), fence, distance, released: None },
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
                self.declined.insert(fact.author().peer);
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
            #[cfg(feature = "later")]
            Event::CallOff(_) if known_introduction => {
                self.endings.push(Ending { fact, rank: (1, 0, None, fact.mark.cid) });
            }
            // It may stand in the entry of the introduction itself: nobody ever claims such a task.
            Event::Withdraw(_)
                if known_introduction || self.introductions.iter().any(|one| one.cid == fact.mark.cid) =>
            {
                let highest = self.known_claims(fact).map(|known| known.claim.fence.attempt).max();
                let held =
                    |known: &Standing<'_>| known.claim.released.is_none() && Some(known.claim.fence.attempt) == highest;
                if !self.claims.iter().any(|known| !knows(fact, known.mark) || held(known)) {
                    self.endings.push(Ending { fact, rank: (1, 0, None, fact.mark.cid) });
                }
            }
            Event::Leave(_) if known_introduction => {
                let held = self.known_claims(fact).any(|known| known.claim.released.is_none());
                let may_leave = self
                    .introductions
                    .iter()
                    .any(|known| knows(fact, known.mark) && known.workload.policy() == Policy::MeshFirst);
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
        self.claims.iter().filter(|known| knows(fact, known.mark))
    }

    /// The standing claim with this fence, if the fact's own author made it and the fact knows it.
    fn own_claim(&self, fact: &Fact, fence: &Fence) -> Option<usize> {
        self.claims.iter().position(|known| {
            known.claim.fence == *fence && known.claim.author.peer == fact.author().peer && knows(fact, known.mark)
        })
    }

    fn settle(mut self) -> Option<Outcome> {
        self.introductions.sort_by_key(|introduction| introduction.cid);
        let first = self.introductions.first()?;
        self.claims.sort_by_key(|standing| (standing.claim.fence.attempt, standing.weight));
        let attempt = self.claims.last().map_or(0, |standing| standing.claim.fence.attempt);
        let winner = self.endings.iter().min_by_key(|ending| ending.rank);
        let mut note = self.note.clone();
        let mut products = Products::default();
        let state = match winner.map(|ending| ending.fact.event()) {
            Some(Event::Finish(finish)) => {
                note.clone_from(&finish.note);
                products.clone_from(&finish.products);
                let holder = winner.map_or(first.by, |ending| ending.fact.author().peer);
                State::Completed {
                    holder,
                    fence: finish.fence,
                    conclusion: finish.conclusion,
                    duration_ms: finish.duration_ms,
                }
            }
            Some(Event::Cancel(Cancel { why, .. }) | Event::Withdraw(Withdraw { why, .. })) => {
                note.clone_from(why);
                State::Cancelled
            }
            #[cfg(feature = "later")]
            Some(Event::CallOff(_)) => State::Cancelled,
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
        let ended_at = winner.map(|ending| ending.fact.mark.height);
        let introduced_at = first.mark.map(|mark| mark.height);
        let folded = Folded {
            workload: first.workload.clone(),
            anchor: first.cid,
            introduced: first.time,
            introduced_by: first.by,
            state,
            ended_by: winner.map(|ending| ending.fact.mark.cid),
            contested: self.endings.len() > 1,
            spent: spent(&claims),
            claims,
            attempt,
            declined: self.declined.clone(),
            last,
            note,
            products,
        };
        let introduction = |known: &Introduction<'_>| KeptIntroduction {
            cid: known.cid,
            by: known.by,
            time: known.time,
            workload: known.workload.clone(),
        };
        let kept = Kept {
            introductions: self.introductions.iter().map(introduction).collect(),
            claims: self.claims.iter().map(|standing| (standing.claim.clone(), standing.anchor)).collect(),
            declined: self.declined,
            note: self.note,
        };
        Some(Outcome { folded, kept, ended_at, introduced_at })
    }

    /// Goes on where the entries beneath a checkpoint have come to.
    fn resume(&mut self, kept: &'a Kept) {
        self.introductions.extend(kept.introductions.iter().map(|kept| Introduction {
            mark: None,
            cid: kept.cid,
            by: kept.by,
            time: kept.time,
            workload: &kept.workload,
        }));
        for (claim, anchor) in &kept.claims {
            let seed = Seed::of(anchor, &self.task);
            let tie = seed.tie(&Place::of(claim.author.peer));
            let weight = (claim.distance, tie, claim.fence.claim);
            self.claims.push(Standing { mark: None, anchor: *anchor, weight, claim: claim.clone() });
        }
        self.declined.clone_from(&kept.declined);
        self.note.clone_from(&kept.note);
    }
}

/// Whether a fact knows what has this mark.
fn knows(fact: &Fact, mark: Option<&Mark>) -> bool {
    mark.is_none_or(|mark| fact.mark.knows(mark))
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
