//! Answering members that ask about a scale set.
//!
//! Promises that a configuration goes to nobody but a member that holds the task it is for, once a claim, over the stream
//! on which it asked, and into no log; and that a member's runner is removed for that member alone.

use std::time::Duration;

use tokio::time::timeout;

use super::super::listener::Way;
use super::News;
use super::doubt::Need;
use crate::daemon::Daemon;
use crate::daemon::scale::pool::Pool;
use crate::forge::github::{Removal, ScaleSetError};
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::task::{Fence, State, Trigger};
use crate::net::ReplyToken;
use crate::wire::limits::MAX_CONFIGURATION;
use crate::wire::response;
use crate::wire::scale_set::{Configuration, SetAsk, SetQuestion, SetTold, seal_told};

/// How long a member may wait here: less than the network lets it.
const PATIENCE: Duration = Duration::from_secs(8);
/// The most members' questions that wait for GitHub at once.
const MOST_WAITING: usize = 256;

impl Daemon {
    /// A member asks about a scale set.
    pub(in crate::daemon) async fn on_set_ask(&mut self, from: PeerId, ask: SetAsk, place: ReplyToken) {
        while self.scale.answers.try_join_next().is_some() {}
        let SetAsk { set: key, what } = ask;
        let checked = if !self.node.is_member(&from) {
            Err("only members of the mesh are told".to_owned())
        } else if self.scale.answers.len() >= MOST_WAITING {
            Ok(Next::Told(SetTold::Later { why: "too many others are being answered".to_owned() }))
        } else {
            self.check_set_ask(from, &key, what)
        };
        let net = self.net.clone();
        match checked {
            Err(why) => {
                let _ = net.respond(place, response::seal_refused(&why)).await;
            }
            Ok(Next::Told(told)) => {
                let _ = net.respond(place, seal_told(told)).await;
            }
            Ok(Next::Configure { way, claim, runner }) => {
                let (find, turns) = (self.find.clone(), self.scale.asking.clone());
                self.scale.answers.spawn(async move {
                    let asked = async {
                        let _turn = turns.acquire().await;
                        way.configure(&runner).await
                    };
                    let (bytes, given) = match timeout(PATIENCE, asked).await {
                        Ok(Ok(jit)) if jit.configuration.expose().len() <= MAX_CONFIGURATION => {
                            let configuration = Configuration::new(jit.configuration.expose());
                            let told = SetTold::Configured { registration: jit.registration, configuration };
                            (seal_told(told), Some(jit.registration))
                        }
                        Ok(Ok(_)) => (response::seal_refused("GitHub's configuration is too long"), None),
                        Ok(Err(error)) if error.is_final() => (response::seal_refused(&error.to_string()), None),
                        Ok(Err(error)) => (seal_told(SetTold::Later { why: error.to_string() }), None),
                        Err(_) => (seal_told(SetTold::Later { why: "GitHub takes its time".to_owned() }), None),
                    };
                    let is_sent = net.respond(place, bytes).await.is_ok();
                    if given.is_none() {
                        let _ = find.send(News::NotGiven { key, claim }.into()).await;
                    } else if !is_sent && let Some(registration) = given {
                        let _ = way.service.remove(registration).await;
                    }
                });
            }
            Ok(Next::Remove { way, registration, runner }) => {
                self.scale.answers.spawn(async move {
                    let removed = timeout(PATIENCE, remove(&way, registration, &runner)).await;
                    let bytes = match removed {
                        Ok(Ok(removal)) => seal_told(SetTold::Removed { gone: removal == Removal::Gone }),
                        Ok(Err(why)) => response::seal_refused(&why),
                        Err(_) => seal_told(SetTold::Later { why: "GitHub takes its time".to_owned() }),
                    };
                    let _ = net.respond(place, bytes).await;
                });
            }
        }
    }

    fn check_set_ask(&mut self, from: PeerId, key: &str, what: SetQuestion) -> Result<Next, String> {
        let set = self.scale.sets.all.get(key).ok_or("this node has no such scale set")?;
        let reach = || set.way.clone().ok_or("this node has no credentials for the scale set");
        match what {
            SetQuestion::Jobs { jobs, prefix, ended } => {
                // Also one that listens no more: whoever follows asks for what it knew.
                // What runners of others have is not for it to know.
                let prefix = if prefix == Pool::prefix_of(&from.to_string()) { prefix } else { String::new() };
                let told = set.table.answer(&jobs, &prefix);
                self.look_for_ends(&key.to_owned(), from, ended);
                Ok(Next::Told(SetTold::Jobs(told)))
            }
            SetQuestion::Listens { set, session } => {
                if let Some(own) = self.scale.sets.all.get_mut(key) {
                    let by = from.short();
                    tracing::debug!("{by} listens for jobs of the scale set {} in its session {session}", own.name);
                    own.former = Some((from, set, session));
                }
                Ok(Next::Told(SetTold::Removed { gone: false }))
            }
            SetQuestion::Remove { registration, runner } => {
                if !runner.starts_with(&Pool::prefix_of(&from.to_string())) {
                    return Err("that runner is not the asker's".to_owned());
                }
                Ok(Next::Remove { way: reach()?, registration, runner })
            }
            SetQuestion::Configure { task, fence, runner } => {
                let way = reach()?;
                let job = self.job_held_by(from, key, task, fence)?;
                if !runner.starts_with(&Pool::prefix_of(&from.to_string())) {
                    return Err("that name is not one of the asker's".to_owned());
                }
                match self.need_of(&key.to_owned(), job, task, fence) {
                    Need::Runner | Need::Perhaps => {}
                    Need::Taken { runner } => return Ok(Next::Told(SetTold::Taken { runner })),
                    Need::Unsure { why, .. } => return Ok(Next::Told(SetTold::Later { why })),
                }
                let set = self.scale.sets.all.get_mut(key).ok_or("it is gone")?;
                if !set.give((fence.claim, task)) {
                    return Err("a configuration was given for this claim already".to_owned());
                }
                Ok(Next::Configure { way, claim: (fence.claim, task), runner })
            }
        }
    }

    /// The job of a task of the set that this member holds under this claim.
    fn job_held_by(&self, from: PeerId, key: &str, task: TaskId, fence: Fence) -> Result<u64, String> {
        let folded = self.node.task(&task).ok_or("that task is not known here yet")?;
        let is_of_it = self.scale.sets.of(&folded.workload).is_some_and(|(of, _)| of == key);
        let is_held =
            matches!(&folded.state, State::Claimed { holder, fence: held } if *holder == from && *held == fence);
        match (&folded.workload.trigger, is_of_it, is_held) {
            (Trigger::GithubJob { job, .. }, true, true) => Ok(*job),
            (_, false, _) => Err("that task is none of the scale set".to_owned()),
            _ => Err("the asker does not hold that task, as far as is known here".to_owned()),
        }
    }

    /// No configuration was given after all.
    pub(in crate::daemon) fn on_not_given(&mut self, key: &str, claim: &(Cid, TaskId)) {
        if let Some(set) = self.scale.sets.all.get_mut(key) {
            set.given.remove(claim);
        }
    }
}

/// What follows from a question.
enum Next {
    Told(SetTold),
    Configure { way: Way, claim: (Cid, TaskId), runner: String },
    Remove { way: Way, registration: u64, runner: String },
}

/// Removes a runner's registration, if it is that runner's.
async fn remove(way: &Way, registration: u64, runner: &str) -> Result<Removal, String> {
    let found = way.service.runner(registration).await.map_err(|error| error.to_string())?;
    match found {
        None => return Ok(Removal::Gone),
        Some(found) if found.name != runner => return Err("that registration is another runner's".to_owned()),
        Some(_) => {}
    }
    match way.service.remove(registration).await {
        Err(ScaleSetError::Gone { .. }) => Ok(Removal::Gone),
        answer => answer.map_err(|error| error.to_string()),
    }
}
