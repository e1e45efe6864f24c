//! What runs upload: kept on the host that ran them, by its content and by its task.

use std::io;
use std::path::{Path, PathBuf};

use super::Daemon;
use crate::control::{Refusal, TaskName};
use crate::kernel::id::TaskId;
use crate::kernel::task::{Artifact, MAX_ARTIFACTS, State, is_artifact_name};
use crate::store::Blobs;

impl Daemon {
    /// The folder that a run's artifacts are moved to.
    pub(super) fn artifacts_path(&self, task: &TaskId, attempt: u32) -> PathBuf {
        self.blobs.artifacts(&format!("{task}-{attempt}"))
    }

    /// Where an artifact of a task is on this host.
    pub(super) fn artifact(&self, name: &TaskName, artifact: &str) -> Result<PathBuf, Refusal> {
        let task = self.find(name)?;
        let none = |why: &str| Refusal::NotFound(format!("task {} {why}", task.short()));
        let folded = self.node.task(&task).ok_or_else(|| none("is not known here any more"))?;
        let State::Completed { holder, fence, .. } = &folded.state else { return Err(none("has not been completed")) };
        let mut recorded = folded.products.artifacts.iter();
        let recorded = recorded.find(|recorded| recorded.name == artifact);
        let recorded = recorded.ok_or_else(|| none(&format!("has no artifact `{artifact}`")))?;
        let named = self.artifacts_path(&task, fence.attempt).join(artifact);
        let found = Some(named).filter(|path| is_artifact_name(artifact) && path.exists());
        found.or_else(|| self.blobs.find(&recorded.blob.id)).ok_or_else(|| {
            if *holder == self.node.peer() {
                none(&format!("had an artifact `{artifact}`, which was removed since"))
            } else {
                let task = task.short();
                Refusal::NotNow(format!(
                    "the artifacts of task {task} are at {holder}, which ran it: ask for them there"
                ))
            }
        })
    }
}

/// Keeps what a run has uploaded by its content; what is recorded of it.
pub(super) fn keep(blobs: &Blobs, folder: &Path) -> io::Result<Vec<Artifact>> {
    let kept = blobs.keep_all(folder)?.into_iter().filter(|(name, _)| is_artifact_name(name));
    Ok(kept.take(MAX_ARTIFACTS).map(|(name, blob)| Artifact { name, blob }).collect())
}
