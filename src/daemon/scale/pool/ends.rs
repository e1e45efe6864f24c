//! What ends a runner here: nothing is meant for it, its job is over, or GitHub knows it no more. And who gets its slot.

use super::{Deed, Pool, Stage};
use crate::forge::github::{Registered, Removal, Scope};
use crate::kernel::io::Report;
use crate::kernel::task::ReleaseReason;
use crate::runner::RunnerEnding;

/// How long a runner that nothing is meant for any more may find a job of its own accord.
pub(super) const LOOSE: u64 = 10_000;
/// How long a runner may take to end after its job.
const AFTER: u64 = 60_000;
/// How long a runner may not be listed by GitHub after it was started.
pub(super) const UNLISTED: u64 = 20_000;

impl Pool {
    /// Retires the runners that nothing is meant for and that have no job, and configures those that have got their slots.
    pub(in crate::daemon::scale) fn thin_out(&mut self, now: u64, draining: bool) -> Vec<Deed> {
        let mut deeds = self.follow_up();
        for (name, hand) in &mut self.hands {
            let over = draining || hand.tired || !hand.kept && now.saturating_sub(hand.idle) >= LOOSE;
            if hand.stage == Stage::Alive
                && hand.is_loose()
                && over
                && let Some(registration) = hand.registration
            {
                hand.stage = Stage::Retiring;
                deeds.push(Deed::Retire { name: name.clone(), scope: hand.scope.clone(), registration });
            }
            if hand.stage == Stage::Alive && hand.done.is_some_and(|done| done + AFTER < now) {
                tracing::warn!("runner {name} does not end though its job has: it is ended");
                hand.stage = Stage::Ending;
                deeds.push(Deed::Stop { order: hand.order });
            }
        }
        deeds
    }

    /// Configures the runners whose slots were others' that are gone. Where such a one has found a job after all, what its
    /// successor was meant for is given back.
    fn follow_up(&mut self) -> Vec<Deed> {
        let waiting = self.hands.iter().filter_map(|(name, hand)| Some((name.clone(), hand.after.clone()?)));
        let mut deeds = Vec::new();
        for (name, after) in waiting.collect::<Vec<_>>() {
            match self.hands.get(&after).map(|hand| hand.serves.is_some()) {
                Some(false) => continue,
                Some(true) => {
                    let task = self.hands.remove(&name).and_then(|hand| hand.meant);
                    let held = task.and_then(|task| Some((task, self.held.remove(&task)?)));
                    let why = "the slot that its runner was to get has a job".to_owned();
                    let report = Report::GivenBack { reason: ReleaseReason::Draining, why };
                    deeds.extend(held.map(|(task, held)| Deed::Report { task, fence: held.fence, report }));
                }
                None => {
                    let Some(hand) = self.hands.get_mut(&name) else { continue };
                    hand.after = None;
                    let (scope, labels) = (hand.scope.clone(), hand.labels.clone());
                    if hand.meant.is_some() || hand.kept {
                        deeds.push(Deed::Configure { name, scope, labels });
                    } else {
                        self.hands.remove(&name);
                    }
                }
            }
        }
        deeds
    }

    /// What came of asking GitHub to forget a runner.
    pub(in crate::daemon::scale) fn removed(&mut self, now: u64, name: &str, removal: Option<Removal>) -> Vec<Deed> {
        let Some(hand) = self.hands.get_mut(name).filter(|hand| hand.stage == Stage::Retiring) else {
            return Vec::new();
        };
        if removal == Some(Removal::Gone) {
            hand.stage = Stage::Ending;
            return vec![Deed::Stop { order: hand.order }];
        }
        // Busy: which job it has, the next look tells.
        (hand.stage, hand.idle) = (Stage::Alive, now);
        Vec::new()
    }

    /// The runners in this host's name that GitHub lists, asked for at `asked`.
    pub(in crate::daemon::scale) fn listed(&mut self, asked: u64, scope: &Scope, listed: &[Registered]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for one in listed {
            match self.hands.get_mut(&one.name) {
                Some(hand) => hand.registration = Some(one.id),
                None => deeds.push(Deed::Remove { scope: scope.clone(), registration: one.id, name: one.name.clone() }),
            }
        }
        for (name, hand) in &mut self.hands {
            let is_listed = listed.iter().any(|one| one.name == *name);
            if hand.stage == Stage::Alive && hand.scope == *scope && !is_listed && hand.since + UNLISTED < asked {
                tracing::warn!("runner {name} lives, and GitHub knows it no more: it is ended");
                hand.stage = Stage::Ending;
                deeds.push(Deed::Stop { order: hand.order });
            }
        }
        deeds
    }
}

/// How a runner ended, in a word.
pub(in crate::daemon::scale) fn word(how: &RunnerEnding) -> String {
    match how {
        RunnerEnding::NotStarted => "it could not be started".to_owned(),
        RunnerEnding::Exited(exit) => exit.to_string(),
        RunnerEnding::Stopped => "stopped".to_owned(),
        RunnerEnding::Retired => "retired".to_owned(),
        RunnerEnding::TimedOut => "it met its time limit".to_owned(),
    }
}
