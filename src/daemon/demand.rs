//! Looking which jobs wait at GitHub, and which runners of this host GitHub knows.
//!
//! One look ([`Round`]) asks for the jobs of the repositories of those sources whose duty is this node's, and of those whose
//! jobs this host holds, in a task of its own; what it finds comes back as [`Seen`]. Every list is asked for with its ETag.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use tokio::time::{Duration, Instant};

use crate::forge::github::{Github, Job, JobMemory, JobState, Memory, Registered, RunnerMemory, Scope, Tally, Target};
use crate::kernel::io::SourceKey;
use crate::kernel::task::Repository;

/// Repositories that are asked about at once.
const AT_ONCE: usize = 8;
/// Before a source's repositories are listed again; it costs calls.
const LIST_AGAIN: Duration = Duration::from_secs(300);
/// The most repositories that one look asks about; the next goes on behind them.
const MOST: usize = 500;

/// What is known from earlier looks.
#[derive(Default)]
pub(super) struct Known {
    /// Of the sources, and when they were listed.
    repositories: BTreeMap<SourceKey, (Instant, Vec<Repository>)>,
    lists: BTreeMap<SourceKey, Memory>,
    /// By repository id.
    jobs: BTreeMap<String, JobMemory>,
    runners: BTreeMap<Scope, RunnerMemory>,
    /// Where the next look of many repositories begins.
    from: usize,
}

/// A look to be made.
pub(super) struct Round {
    pub(super) github: Github,
    pub(super) asked: u64,
    /// Those on duty here.
    pub(super) sources: Vec<(SourceKey, Target)>,
    /// The names of repositories of which a runner here may have been given a job that nobody knows of yet.
    pub(super) waited_at: BTreeSet<String>,
    /// The jobs that one wants to know of, by repository; its other jobs come along.
    pub(super) jobs: BTreeMap<Repository, BTreeSet<u64>>,
    /// Where runners of this host may be registered, and what their names begin with.
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) prefix: String,
    pub(super) known: Known,
}

/// What a look has found.
pub(super) struct Seen {
    pub(super) asked: u64,
    /// Each with whether its source's duty is this node's.
    pub(super) jobs: Vec<(Repository, bool, BTreeMap<u64, Job>)>,
    pub(super) runners: Vec<(Scope, Vec<Registered>)>,
    /// What went wrong, and where.
    pub(super) problems: Vec<String>,
    pub(super) calls: u64,
    pub(super) known: Known,
}

impl Round {
    pub(super) async fn look(self) -> Seen {
        let Self { github, asked, sources, waited_at, jobs, scopes, prefix, mut known } = self;
        let (tally, mut problems) = (Tally::default(), Vec::new());
        let mut wanted: BTreeMap<String, (Repository, bool, BTreeSet<u64>)> = BTreeMap::new();
        for (key, target) in sources {
            match known.of_source(&github, &key, &target, &tally).await {
                Ok(repositories) => {
                    wanted.extend(repositories.into_iter().map(|one| (one.id.clone(), (one, true, BTreeSet::new()))))
                }
                Err(why) => problems.push(why),
            }
        }
        let mut own = BTreeSet::new();
        for name in waited_at {
            let Some((owner, repository)) = name.split_once('/') else { continue };
            let target = Target { owner: owner.to_owned(), repository: Some(repository.to_owned()) };
            match known.of_source(&github, &github.key(&target), &target, &tally).await {
                Ok(repositories) => {
                    for one in repositories {
                        own.insert(one.id.clone());
                        wanted.entry(one.id.clone()).or_insert((one, false, BTreeSet::new()));
                    }
                }
                Err(why) => problems.push(why),
            }
        }
        for (repository, ids) in jobs {
            own.insert(repository.id.clone());
            wanted.entry(repository.id.clone()).or_insert((repository, false, BTreeSet::new())).2.extend(ids);
        }
        let looked = known.turn(wanted, &own);
        let looks = looked.into_values().map(|(repository, on_duty, ids)| {
            let mut memory = known.jobs.remove(&repository.id).unwrap_or_default();
            let (github, tally) = (&github, &tally);
            async move {
                let found = github.active_jobs(&repository, &ids, &mut memory, tally).await;
                (repository, on_duty, memory, found)
            }
        });
        let looks: Vec<_> = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
        let mut jobs = Vec::new();
        for (repository, on_duty, memory, found) in looks {
            known.jobs.insert(repository.id.clone(), memory);
            match found {
                Ok(found) => jobs.push((repository, on_duty, found)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let mut runners = Vec::new();
        for scope in scopes {
            let mut memory = known.runners.remove(&scope).unwrap_or_default();
            match github.runners(&scope, &prefix, &mut memory, &tally).await {
                Ok(listed) => runners.push((scope.clone(), listed)),
                Err(error) => problems.push(error.to_string()),
            }
            known.runners.insert(scope, memory);
        }
        problems.sort();
        problems.dedup();
        Seen { asked, jobs, runners, problems, calls: tally.sums().0, known }
    }
}

impl Known {
    async fn of_source(
        &mut self,
        github: &Github,
        key: &SourceKey,
        target: &Target,
        tally: &Tally,
    ) -> Result<Vec<Repository>, String> {
        if let Some((at, repositories)) = self.repositories.get(key)
            && at.elapsed() < LIST_AGAIN
        {
            return Ok(repositories.clone());
        }
        let memory = self.lists.entry(key.clone()).or_default();
        let listed = github.repositories(target, memory, tally).await.map_err(|error| error.to_string())?;
        self.repositories.insert(key.clone(), (Instant::now(), listed.clone()));
        Ok(listed)
    }

    /// Which repositories it is the turn of: those of which something runs here, and of the others no more than one look
    /// may cost.
    fn turn<T>(&mut self, mut wanted: BTreeMap<String, T>, own: &BTreeSet<String>) -> BTreeMap<String, T> {
        if wanted.len() <= MOST {
            return wanted;
        }
        let others: Vec<String> = wanted.keys().filter(|id| !own.contains(*id)).cloned().collect();
        let from = self.from % others.len().max(1);
        self.from = from + MOST;
        let chosen: BTreeSet<&String> = others.iter().cycle().skip(from).take(MOST.min(others.len())).collect();
        wanted.retain(|id, _| own.contains(id) || chosen.contains(id));
        wanted
    }
}

/// What became of a job whose task nobody holds, when it is over for the mesh.
pub(super) fn over(job: Option<&Job>, is_of_a_mesh: impl Fn(&str) -> bool) -> Option<String> {
    let Some(job) = job else { return Some("GitHub shows its job no more".to_owned()) };
    let by = job.runner.as_deref();
    match (job.state, by) {
        (JobState::Completed { conclusion, .. }, None) => {
            Some(format!("GitHub says of its job: {}", conclusion.word()))
        }
        (JobState::Completed { conclusion, .. }, Some(runner)) => {
            Some(format!("GitHub says of its job: {}, on {runner}", conclusion.word()))
        }
        (JobState::InProgress, Some(runner)) if !is_of_a_mesh(runner) => {
            Some(format!("runner {runner}, which is not of this mesh, has its job"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_repositories_come_in_turn_and_own_ones_every_time() {
        let mut known = Known::default();
        let all = || (0..1_200).map(|n| (format!("{n:04}"), ())).collect::<BTreeMap<_, _>>();
        let own = BTreeSet::from(["0007".to_owned()]);
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let turn = known.turn(all(), &own);
            assert!(turn.len() <= MOST + 1 && turn.contains_key("0007"));
            seen.extend(turn.into_keys());
        }
        assert_eq!(seen.len(), 1_200);
        assert_eq!(known.turn(BTreeMap::from([("1".to_owned(), ())]), &own).len(), 1);
    }
}
