//! What helpers of the scale sets come back with, and who takes it.

use tokio::sync::oneshot;

use super::super::SOON;
use super::super::listener::Said;
use super::doubt::Need;
use super::runners::NoRunner;
use crate::daemon::Daemon;
use crate::daemon::found::Found;
use crate::daemon::scale::Heard;
use crate::forge::github::{Jit, JobState, Registered, RunnerMemory};
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::io::SourceKey;
use crate::kernel::task::Fence;
use crate::wire::scale_set::JobTold;

pub(in crate::daemon) enum News {
    /// A listener says something, in that life of it.
    Said {
        key: SourceKey,
        life: u64,
        said: Said,
    },
    Configured {
        name: String,
        answer: Result<Jit, NoRunner>,
    },
    /// Does the job of a task that is held here need a runner?
    Asked {
        key: SourceKey,
        claim: (TaskId, Fence),
        answer: oneshot::Sender<(Need, Vec<PeerId>)>,
    },
    /// How jobs stand.
    Told {
        key: SourceKey,
        asked: u64,
        answer: Result<Vec<JobTold>, String>,
    },
    /// How a job stands that a runner has had, as GitHub lists it.
    Ended {
        key: SourceKey,
        job: u64,
        runner: String,
        state: JobState,
    },
    /// What a former listener knows of jobs.
    Table {
        key: SourceKey,
        told: Vec<JobTold>,
    },
    /// The registrations in this mesh's names.
    Registered {
        key: SourceKey,
        listed: Vec<Registered>,
        memory: Box<RunnerMemory>,
    },
    /// A member got no configuration for its claim.
    NotGiven {
        key: SourceKey,
        claim: (Cid, TaskId),
    },
}

impl From<News> for Found {
    fn from(news: News) -> Self {
        Self::Scale(Heard::Set(news))
    }
}

impl Daemon {
    pub(in crate::daemon) async fn on_set_news(&mut self, news: News) {
        match news {
            News::Said { key, life, said } => self.on_set_said(key, life, said),
            News::Told { key, asked, answer } => self.on_told(key, asked, answer),
            News::Ended { key, job, runner, state } => self.on_ended_elsewhere(&key, job, &runner, state),
            News::Table { key, told } => self.on_table(&key, told),
            News::Registered { key, listed, memory } => self.on_registered(&key, listed, *memory),
            News::Asked { key, claim: (task, fence), answer } => {
                let _ = answer.send(self.own_need_of(&key, task, fence));
            }
            News::NotGiven { key, claim } => self.on_not_given(&key, &claim),
            News::Configured { name, answer: Ok(jit) } => self.on_configured(name, jit).await,
            News::Configured { name, answer: Err(NoRunner::Taken { runner }) } => {
                tracing::debug!("no runner is started for a job that {runner} has");
                let now = self.now().mono;
                self.scale.pool.taken(now, &name);
                self.tell_slots();
                self.scale.soon(SOON);
            }
            News::Configured { name, answer: Err(NoRunner::Failed { why, is_final }) } => {
                self.say_once(why.clone());
                let now = self.now().mono;
                let deeds = self.scale.pool.refused(now, &name, why, is_final);
                self.carry_out_deeds(deeds);
            }
        }
    }
}
