//! What messages do not tell: how a job ended whose listener went with the news, and registrations that nobody stands behind.
//!
//! Both are asked for by whoever listens, for the whole mesh, and in calls that cost little: of a job only when its runner
//! has ended here or elsewhere and nothing was heard of it, of registrations by a list with its ETag.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::News;
use crate::daemon::Daemon;
use crate::daemon::scale::pool::Pool;
use crate::forge::github::{JobState, Registered, Removal, RunnerMemory, Tally};
use crate::kernel::id::PeerId;
use crate::kernel::io::SourceKey;
use crate::kernel::task::{State, Trigger};
use crate::wire::scale_set::EndedRunner;

/// How long a message may be late that tells of a job's end.
const LATE: Duration = Duration::from_secs(2);
/// Before GitHub is asked again about the same job.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// The most jobs that are asked about at once.
const AT_ONCE: usize = 16;
/// Between two looks at the registrations, at least, and how long one must have been nobody's.
const LOOK: Duration = Duration::from_secs(5);
const STRAY: Duration = Duration::from_secs(4);

/// What is watched of a set's jobs and registrations.
#[derive(Default)]
pub(super) struct Strays {
    /// Jobs whose runner has ended, when that was heard first, and when GitHub was asked.
    jobs: BTreeMap<u64, (Instant, Option<Instant>)>,
    /// Away while they are listed.
    memory: Option<RunnerMemory>,
    listed: Option<Instant>,
    /// Registrations that nobody seems to stand behind, and since when.
    registrations: BTreeMap<u64, Instant>,
}

impl Daemon {
    /// Runners have ended of which a job is not known to be over: asks GitHub, if no message comes.
    pub(super) fn look_for_ends(&mut self, key: &SourceKey, from: PeerId, ended: Vec<EndedRunner>) {
        let (now, Some(github)) = (Instant::now(), self.sources.github()) else { return };
        let prefix = Pool::prefix_of(&from.to_string());
        for EndedRunner { job, runner, repository, run } in ended.into_iter().take(AT_ONCE) {
            let is_held = self.node.tasks().any(|(_, folded)| {
                let of_it = matches!(folded.workload.trigger, Trigger::GithubJob { job: of, .. } if of == job);
                of_it && matches!(&folded.state, State::Claimed { holder, .. } if *holder == from)
            });
            let Some(set) = self.scale.sets.all.get_mut(key) else { return };
            let is_in =
                crate::kernel::task::Repository { host: set.host.clone(), id: String::new(), name: repository.clone() };
            let of = key.trim_start_matches("scale-set:").rsplit_once('#').map_or("", |(of, _)| of);
            let fits = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
            let is_sound = run > 0 && repository.matches('/').count() == 1 && repository.chars().all(fits);
            if !is_held
                || !is_sound
                || !is_in.is_of(of)
                || !runner.starts_with(&prefix)
                || set.table.is_known(job, &runner)
            {
                continue;
            }
            if set.strays.jobs.len() > AT_ONCE * 64 {
                set.strays.jobs.clear();
            }
            let (since, asked) = set.strays.jobs.entry(job).or_insert((now, None));
            if *since + LATE > now || asked.is_some_and(|asked| asked + ASK_AGAIN > now) {
                continue;
            }
            *asked = Some(now);
            let (github, find, key) = (github.clone(), self.find.clone(), key.clone());
            self.scale.helpers.spawn(async move {
                match github.job_on_runner(&repository, run, &runner, &Tally::default()).await {
                    Ok(Some(state)) => {
                        let _ = find.send(News::Ended { key, job, runner, state }.into()).await;
                    }
                    Ok(None) => tracing::debug!("GitHub shows no job of {runner} in {repository}"),
                    Err(error) => tracing::debug!("{error}"),
                }
            });
        }
    }

    /// GitHub lists the job that a runner has had.
    pub(in crate::daemon) fn on_ended_elsewhere(&mut self, key: &str, job: u64, runner: &str, state: JobState) {
        if let Some(set) = self.scale.sets.all.get_mut(key) {
            set.table.learn(job, runner, state);
            self.scale.sets.soon();
        }
    }

    /// Looks, now and then, which registrations there are in this mesh's names.
    pub(super) fn look_for_strays(&mut self, key: &SourceKey) {
        let (now, Some(github)) = (Instant::now(), self.sources.github()) else { return };
        let interval = self.scale.interval().max(LOOK);
        let Some(set) = self.scale.sets.all.get_mut(key).filter(|set| set.listener.is_some() && set.is_well) else {
            return;
        };
        let strays = &mut set.strays;
        if strays.listed.is_some_and(|listed| listed + interval > now) {
            return;
        }
        strays.listed = Some(now);
        let (of, mut memory) = (set.of.clone(), strays.memory.take().unwrap_or_default());
        let (find, key) = (self.find.clone(), key.clone());
        self.scale.helpers.spawn(async move {
            let listed = github.runners(&of, Pool::mark(), &mut memory, &Tally::default()).await;
            let listed = listed.unwrap_or_else(|error| {
                tracing::debug!("{error}");
                Vec::new()
            });
            let _ = find.send(News::Registered { key, listed, memory: Box::new(memory) }.into()).await;
        });
    }

    /// Those are registered: what is of this mesh and of the set, not there, and of no claim that holds, is removed.
    pub(in crate::daemon) fn on_registered(&mut self, key: &str, listed: Vec<Registered>, memory: RunnerMemory) {
        let prefixes: Vec<String> =
            self.node.members().map(|member| Pool::prefix_of(&member.peer.to_string())).collect();
        let held: BTreeSet<String> = self
            .node
            .tasks()
            .filter_map(|(_, folded)| match &folded.state {
                State::Claimed { fence, .. } => Some(fence.claim.short()),
                _ => None,
            })
            .collect();
        let is_stray = |one: &Registered| {
            let rest = prefixes.iter().find_map(|prefix| one.name.strip_prefix(prefix.as_str()));
            let claim = rest.and_then(|rest| rest.rsplit_once('-')).map(|(claim, _)| claim);
            one.status != "online" && !one.busy && claim.is_some_and(|claim| !held.contains(claim))
        };
        let Some(set) = self.scale.sets.all.get_mut(key) else { return };
        set.strays.memory = Some(memory);
        let (now, Some(way)) = (Instant::now(), set.way.clone()) else { return };
        let strays: BTreeMap<u64, String> = listed.into_iter().filter(is_stray).map(|one| (one.id, one.name)).collect();
        let seen = &mut set.strays.registrations;
        seen.retain(|id, _| strays.contains_key(id));
        for (id, name) in strays {
            if seen.entry(id).or_insert(now).elapsed() < STRAY {
                continue;
            }
            let way = way.clone();
            self.scale.helpers.spawn(async move {
                let Ok(set) = way.set().await else { return };
                // Registrations of other kinds are looked after by those who made them.
                let found = way.service.runner(id).await;
                if found.is_ok_and(|found| found.is_some_and(|one| one.runner_scale_set_id == set.id)) {
                    match way.service.remove(id).await {
                        Ok(Removal::Gone) => {
                            tracing::info!("the registration of {name}, which is not there, is removed")
                        }
                        Ok(Removal::Busy) => {}
                        Err(error) => tracing::debug!("{error}"),
                    }
                }
            });
        }
    }
}
