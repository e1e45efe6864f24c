//! What concurrency groups promise, held against what ran in a whole run of the simulation.

use std::collections::BTreeMap;

use runmesh::kernel::entry::Event;
use runmesh::kernel::id::TaskId;
use runmesh::kernel::task::State;

use super::world::{RunEnd, RunRecord, World};

/// What came of the groups of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Starts while another task of the group ran.
    pub(crate) beside: usize,
    /// Claims given back because an older task of the group was held elsewhere.
    pub(crate) yielded: usize,
    /// Groups of which it is sure which task is the newest.
    pub(crate) sure: usize,
    /// Tasks that ended unrun because a newer one took their place.
    pub(crate) superseded: usize,
    /// Cancelled tasks that somebody had begun.
    pub(crate) interrupted: usize,
}

impl World<'_> {
    /// What came of the groups, once the mesh rests.
    ///
    /// # Errors
    /// A group whose newest task did not run.
    pub(crate) fn groups(&self) -> Result<Groups, String> {
        let mut all: BTreeMap<&str, Vec<TaskId>> = BTreeMap::new();
        for job in &self.jobs {
            if let Some(concurrency) = &job.workload.concurrency {
                all.entry(&concurrency.group).or_default().push(job.id);
            }
        }
        let (_, kernel) = self.kernels().next().ok_or("no host is up")?;
        let mut found = Groups::default();
        for (group, tasks) in all {
            let runs: Vec<&RunRecord> = self.runs.iter().filter(|run| tasks.contains(&run.task)).collect();
            let ended = |run: &RunRecord| run.end.map_or(u64::MAX, |(end, _)| end);
            for (number, run) in runs.iter().enumerate() {
                let beside = |other: &&&RunRecord| other.task != run.task && ended(other) > run.since;
                found.beside += usize::from(runs[..number].iter().any(|other| beside(&other)));
            }
            // Where two nodes introduced a task at different times, which of them is its time depends on what is known.
            let sure = tasks.iter().all(|task| self.introductions_of(task) < 2);
            found.sure += usize::from(sure);
            let newest = tasks.iter().filter_map(|task| Some((kernel.task(task)?.introduced, *task))).max();
            for task in &tasks {
                let state = kernel.task(task).map(|folded| &folded.state);
                let began =
                    runs.iter().any(|run| run.task == *task && !matches!(run.end, Some((_, RunEnd::NotStarted))));
                if state == Some(&State::Cancelled) {
                    found.superseded += usize::from(!began);
                    found.interrupted += usize::from(began);
                    if sure && newest.map(|(_, newest)| newest) == Some(*task) {
                        return Err(format!("{group}: the newest task {task} was cancelled"));
                    }
                }
            }
        }
        let events = self.written.values().flat_map(|entry| &entry.body().events);
        let yields =
            |event: &&Event| matches!(event, Event::Release(release) if release.note.contains("concurrency group"));
        found.yielded = events.filter(yields).count();
        Ok(found)
    }

    fn introductions_of(&self, task: &TaskId) -> usize {
        let events = self.written.values().flat_map(|entry| &entry.body().events);
        events.filter(|event| matches!(event, Event::Introduce(introduce) if introduce.workload.id() == *task)).count()
    }
}
