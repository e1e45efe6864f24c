//! What the daemon's helper tasks come back with, and who takes it.

use super::scale::Heard;
use super::sources::{Failed, Resolution};
use super::{Asker, Daemon};
use crate::control::{Answer, Refusal};
use crate::forge::Findings;
use crate::forge::github::{Cycle, Memory};
use crate::kernel::id::TaskId;
use crate::kernel::io::{Input, Report, SourceKey};
use crate::kernel::task::{Fence, Products, Workload};
use crate::wire;

/// What a helper task has found.
pub(super) enum Found {
    Places(Box<Resolution>),
    Looked {
        source: SourceKey,
        found: Box<Result<Findings, Failed>>,
        /// What a look at GitHub leaves behind.
        remembered: Option<(Box<Memory>, Cycle)>,
    },
    /// A task's run has ended, and what it left behind is kept.
    Kept {
        task: TaskId,
        fence: Fence,
        report: Report,
        products: Products,
    },
    /// Of the autoscaler.
    Scale(Heard),
    Submission {
        workload: Box<Result<Workload, String>>,
        answer: Answer<TaskId>,
    },
}

impl Daemon {
    pub(super) async fn on_found(&mut self, found: Found) {
        match found {
            Found::Places(resolution) => self.on_places(*resolution),
            Found::Scale(heard) => self.on_heard(heard).await,
            Found::Looked { source, found, remembered } => self.on_looked(source, *found, remembered),
            Found::Kept { task, fence, report, products } => self.on_kept(task, fence, report, products),
            Found::Submission { workload, answer } => match workload.and_then(|workload| {
                wire::entry::check_workload(&workload).map_err(|error| error.to_string())?;
                Ok(workload)
            }) {
                Ok(_) if self.unwritten.is_some() => {
                    let why = "the disk takes nothing now: try again".to_owned();
                    answer.send(Err(self.disk_refuses().unwrap_or(Refusal::Unavailable(why))));
                }
                Ok(workload) => {
                    let token = self.token();
                    self.commands.insert(token, Asker::Task(answer));
                    self.feed(Input::Submit { token, workload: Box::new(workload) });
                }
                Err(why) => answer.send(Err(Refusal::Invalid(why))),
            },
        }
    }
}
