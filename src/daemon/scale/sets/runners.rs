//! Runners of scale sets on this host: configured and removed by this host's own credentials, or by a member's that has some.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::super::asking::Asker;
use super::super::listener::Way;
use super::super::{AGAIN, ASKING, Heard};
use super::News;
use super::doubt::Need;
use crate::daemon::Daemon;
use crate::daemon::chronicle::wall_ms;
use crate::daemon::found::Found;
use crate::forge::github::{GithubError, Jit, Removal, ScaleSetError, Scope, Secret};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::SourceKey;
use crate::kernel::node::Node;
use crate::kernel::task::Fence;
use crate::wire::scale_set::{SetAsk, SetQuestion, SetTold};

/// Ages of a discovery from here on mean that a member cannot reach a set: nobody's is so old.
const NEVER: u64 = 30 * 86_400_000;

/// The most members that may refuse, or be out of reach, before the task is given back.
const MOST_REFUSALS: usize = 8;
/// The longest pause between two tries, and the least that GitHub's limit costs, in milliseconds.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const PAUSE_MS: u64 = 500;

/// Why there is no configuration.
pub(in crate::daemon) enum NoRunner {
    /// That runner has the job.
    Taken {
        runner: String,
    },
    Failed {
        why: String,
        is_final: bool,
    },
}

/// The members besides this node that can reach the set, whoever is on duty first.
pub(super) fn candidates(node: &Node, key: &SourceKey) -> Vec<PeerId> {
    let on_duty = node.on_duty(key);
    let can = node.presences().filter(|(presence, _, heard)| {
        *heard && presence.offer.sources.contains(key) && presence.discovered.get(key).is_none_or(|age| *age < NEVER)
    });
    let mut all: Vec<PeerId> = can.map(|(presence, ..)| presence.peer).filter(|peer| *peer != node.peer()).collect();
    all.sort_by_key(|peer| (*peer != on_duty, *peer));
    all
}

/// All by which a set can be asked.
struct Ways {
    own: Option<Way>,
    asker: Asker,
    members: Vec<PeerId>,
    key: SourceKey,
    turns: Arc<Semaphore>,
    find: mpsc::Sender<Found>,
}

impl Daemon {
    fn ways(&self, scope: &Scope) -> Option<Ways> {
        let (key, set) = self.scale.sets.by_scope(scope)?;
        let (own, asker) = (set.way.clone(), self.scale.asker.clone());
        let (members, turns) = (self.reachers(key), self.scale.asking.clone());
        Some(Ways { own, asker, members, key: key.clone(), turns, find: self.find.clone() })
    }

    /// Has a runner registered for a task that this node holds.
    pub(in crate::daemon) fn configure_in_set(
        &mut self,
        runner: String,
        scope: &Scope,
        (task, fence): (TaskId, Fence),
    ) {
        let (Some(ways), find) = (self.ways(scope), self.find.clone()) else { return };
        self.scale.helpers.spawn(async move {
            let answer = ways.configure(task, fence, &runner).await;
            let _ = find.send(News::Configured { name: runner, answer }.into()).await;
        });
    }

    /// Has a runner's registration taken back.
    pub(in crate::daemon) fn remove_in_set(&mut self, name: String, scope: &Scope, registration: u64) {
        let (Some(ways), find) = (self.ways(scope), self.find.clone()) else { return };
        self.scale.helpers.spawn(async move {
            let answer = ways
                .remove(&name, registration)
                .await
                .map_err(|why| GithubError::Unreachable { what: format!("remove the runner {name}"), why });
            let _ = find.send(Found::Scale(Heard::Removed { name, answer })).await;
        });
    }
}

impl Ways {
    async fn configure(&self, task: TaskId, fence: Fence, runner: &str) -> Result<Jit, NoRunner> {
        let what = SetQuestion::Configure { task, fence, runner: runner.to_owned() };
        let ask = SetAsk { set: self.key.clone(), what };
        let (until, mut pause) = (Instant::now() + ASKING, AGAIN);
        loop {
            let (mut whys, mut wait) = (Vec::new(), Duration::ZERO);
            // Whether some runner has the job already, as it may after a loss, only the one who listens knows.
            let (need, members) = self.need(task, fence).await;
            let (may, asks) = match &need {
                Need::Runner => (true, true),
                Need::Perhaps => (false, true),
                Need::Taken { runner } => return Err(NoRunner::Taken { runner: runner.clone() }),
                Need::Unsure { why, elsewhere } => {
                    whys.push(why.clone());
                    (false, *elsewhere)
                }
            };
            let (mut refused, mut is_later) = (0, false);
            // Its own credentials first: then it has to believe nobody.
            if let Some(way) = self.own.as_ref().filter(|_| may) {
                match self.configure_by(way, runner).await? {
                    Ok(jit) => return Ok(jit),
                    Err((why, until)) => {
                        whys.push(why);
                        refused += 1;
                        wait = until;
                    }
                }
            }
            for member in members.iter().filter(|_| asks) {
                match self.asker.ask(*member, &ask).await {
                    Ok(SetTold::Configured { registration, configuration }) => {
                        let configuration = Secret::new(configuration.expose());
                        return Ok(Jit { registration, configuration });
                    }
                    Ok(SetTold::Taken { runner }) => return Err(NoRunner::Taken { runner }),
                    Ok(SetTold::Later { why }) => {
                        is_later = true;
                        whys.push(why);
                        break;
                    }
                    Ok(_) => whys.push("it answered something else".to_owned()),
                    Err(why) => {
                        refused += 1;
                        whys.push(why);
                    }
                }
            }
            let may = matches!(need, Need::Perhaps) && !is_later;
            if let Some(way) = self.own.as_ref().filter(|_| may) {
                match self.configure_by(way, runner).await? {
                    Ok(jit) => return Ok(jit),
                    Err((why, until)) => {
                        whys.push(why);
                        wait = until;
                    }
                }
            }
            let why = match whys.is_empty() {
                true => "no member is heard that can reach the scale set".to_owned(),
                false => whys.join("; "),
            };
            tracing::debug!("configuring {runner}: {why}");
            if Instant::now() + pause.max(wait) >= until || refused > MOST_REFUSALS {
                return Err(NoRunner::Failed { why: format!("no runner of {}: {why}", self.key), is_final: false });
            }
            if wait.is_zero() {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                sleep(wait).await;
            }
        }
    }

    /// What the job needs, as far as is known here, and who may be asked.
    async fn need(&self, task: TaskId, fence: Fence) -> (Need, Vec<PeerId>) {
        if fence.attempt == 1 {
            return (Need::Runner, self.members.clone());
        }
        let (answer, answered) = oneshot::channel();
        let _ = self.find.send(News::Asked { key: self.key.clone(), claim: (task, fence), answer }.into()).await;
        let ends = |_| (Need::Unsure { why: "this node ends".to_owned(), elsewhere: false }, Vec::new());
        answered.await.unwrap_or_else(ends)
    }

    /// By this host's own credentials, in its turn. Within: why not now, and how long GitHub asks to wait.
    async fn configure_by(&self, way: &Way, runner: &str) -> Result<Result<Jit, (String, Duration)>, NoRunner> {
        let turn = self.turns.acquire().await;
        let answer = way.configure(runner).await;
        drop(turn);
        match answer {
            // An answer that was lost: that registration is nobody's.
            Err(error @ ScaleSetError::Taken { .. }) => {
                Err(NoRunner::Failed { why: error.to_string(), is_final: false })
            }
            Err(error) => {
                let until = error.until().map(|until| (until * 1_000).saturating_sub(wall_ms()).max(PAUSE_MS));
                Ok(Err((error.to_string(), Duration::from_millis(until.unwrap_or_default()))))
            }
            Ok(jit) => Ok(Ok(jit)),
        }
    }

    /// # Errors
    /// What was said instead.
    pub(super) async fn remove(&self, runner: &str, registration: u64) -> Result<Removal, String> {
        let mut why = "no member is heard that can reach the scale set".to_owned();
        if let Some(way) = &self.own {
            match way.service.remove(registration).await {
                Ok(removal) => return Ok(removal),
                Err(ScaleSetError::Gone { .. }) => return Ok(Removal::Gone),
                Err(error) => why = error.to_string(),
            }
        }
        let what = SetQuestion::Remove { registration, runner: runner.to_owned() };
        let ask = SetAsk { set: self.key.clone(), what };
        for member in &self.members {
            match self.asker.ask(*member, &ask).await {
                Ok(SetTold::Removed { gone: true }) => return Ok(Removal::Gone),
                Ok(SetTold::Removed { gone: false }) => return Ok(Removal::Busy),
                Ok(SetTold::Later { why: later }) | Err(later) => why = later,
                Ok(_) => why = "it answered something else".to_owned(),
            }
        }
        Err(why)
    }
}

impl Daemon {
    /// Takes back the registrations of this host's runners in scale sets, for the end of the node.
    pub(in crate::daemon) async fn take_back_in_sets(&self, patience: Duration) {
        let mut removals = tokio::task::JoinSet::new();
        for (scope, registration, name) in self.scale.pool.registrations_in_sets() {
            if let Some(ways) = self.ways(&scope) {
                removals.spawn(async move {
                    if let Err(why) = ways.remove(&name, registration).await {
                        tracing::warn!("taking the registration of {name} back: {why}");
                    }
                });
            }
        }
        if tokio::time::timeout(patience, removals.join_all()).await.is_err() {
            tracing::warn!("some runners' registrations could not be taken back");
        }
    }
}
