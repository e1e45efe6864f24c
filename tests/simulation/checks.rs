//! Whether a run came to rest, and whether what it came to is right.

use std::collections::{BTreeMap, BTreeSet};

use runmesh::kernel::id::{PeerId, TaskId};
use runmesh::kernel::node::Timings;
use runmesh::kernel::task::State;

use super::adapter::{ATTEMPTS, Kernel};
use super::groups::Groups;
use super::scenario::Scenario;
use super::work::Fate;
use super::world::{Counts, RunEnd, RunRecord, Sabotage, World};

/// How often it is looked whether the mesh has come to rest.
const LOOK: u64 = 1_000;
/// How exactly it is measured when all disks have the same, in virtual milliseconds.
const STEP: u64 = 10;
/// How many orders of candidates are compared, about.
const RANKINGS: usize = 25_000;
/// How many disks are tried, at most.
const DISKS: usize = 100;
/// How long it must stay at rest: long enough for an idle node's next presence in the largest mesh.
const CALM: u64 = 12_000;

/// What there is to say of a run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// When all nodes first took part, in virtual milliseconds; nothing where that was only after the last trouble.
    pub(crate) formed_at: Option<u64>,
    /// When the mesh came to rest, after how long since the last trouble, in virtual milliseconds.
    pub(crate) rested_at: u64,
    pub(crate) rested_after: u64,
    /// After how long since the last trouble all hosts were up and none of them held up, in virtual milliseconds: who was
    /// asked to go at the end goes and comes back.
    pub(crate) whole_after: u64,
    pub(crate) converged: Converged,
    pub(crate) entries: usize,
    pub(crate) starts: usize,
    /// Starts of tasks that had been started before.
    pub(crate) again: usize,
    /// Of these, starts while a former one still ran somewhere.
    pub(crate) doubled: usize,
    /// Runs on a host that a partition had cut off from most of the others for longer than the failure time.
    pub(crate) kept_alone: usize,
    pub(crate) lost: usize,
    pub(crate) cancelled: usize,
    pub(crate) groups: Groups,
    pub(crate) counts: Counts,
    /// Wakes of all nodes in the calm at the end, a second of virtual time.
    pub(crate) calm_wakes: u64,
    pub(crate) fingerprint: u64,
}

/// After how long, since all hosts were up again, the disks of so many of them had every entry that anybody knew then, in
/// virtual milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Converged {
    pub(crate) half: u64,
    /// All but one in a hundred.
    pub(crate) most: u64,
    pub(crate) all: u64,
}

/// Runs a scenario by a seed, checks everything, and gives back the world as it stands in the end.
///
/// # Errors
/// What is wrong, in words for whoever has to find out why.
pub(crate) fn run(scenario: &Scenario, seed: u64) -> Result<(Outcome, World<'_>), String> {
    run_with(scenario, seed, None)
}

/// The same, with something done wrong on purpose.
pub(crate) fn run_with(
    scenario: &Scenario,
    seed: u64,
    sabotage: Option<Sabotage>,
) -> Result<(Outcome, World<'_>), String> {
    run_watched(scenario, seed, sabotage, &mut |_| {})
}

/// The same, with somebody who looks at it each virtual second.
pub(crate) fn run_watched<'a>(
    scenario: &'a Scenario,
    seed: u64,
    sabotage: Option<Sabotage>,
    watch: &mut dyn FnMut(&World<'_>),
) -> Result<(Outcome, World<'a>), String> {
    let mut world = World::new(scenario, seed);
    world.sabotage = sabotage;
    let deadline = world.last_trouble + scenario.rest_within;
    while world.formed_at.is_none() && world.now < world.last_trouble && world.violations.is_empty() {
        world.run_until((world.now + LOOK / 10).min(world.last_trouble));
        let all_active = world.kernels().filter(|(_, kernel)| kernel.is_active()).count() == world.hosts.len();
        world.formed_at = all_active.then_some(world.now);
        watch(&world);
    }
    while world.now < world.last_trouble && world.violations.is_empty() {
        world.run_until((world.now + LOOK).min(world.last_trouble));
        watch(&world);
    }
    while !world.is_whole() && world.now < deadline && world.violations.is_empty() {
        world.run_until(world.now + STEP);
    }
    // Something that never must happen may have ended it sooner.
    let whole_after = world.now.saturating_sub(world.last_trouble);
    let converged = world.converge(deadline, watch);
    let mut unrest = world.unrest();
    while unrest.is_some() && world.now < deadline && world.violations.is_empty() {
        world.run_until(world.now + LOOK);
        watch(&world);
        unrest = world.unrest();
    }
    let (rested_at, wakes) = (world.now, world.counts.wakes);
    if unrest.is_none() {
        // Who is heard is the same everywhere only where presences arrive.
        world.is_rough = false;
        let before = world.hosts[0].process.as_ref().map(|process| process.kernel.heads());
        world.run_until(world.now + CALM);
        let after = world.hosts[0].process.as_ref().map(|process| process.kernel.heads());
        unrest = world.unrest().or_else(|| (before != after).then(|| "entries are still written".to_owned()));
    }
    if let Some(violation) = world.violations.first() {
        return Err(violation.clone());
    }
    if let Some(unrest) = unrest {
        return Err(format!(
            "no rest {} ms after the last trouble: {unrest}\n{}",
            world.now - world.last_trouble,
            world.statuses()
        ));
    }
    world.check_fates()?;
    world.check_rankings()?;
    world.check_disks()?;
    let mut outcome = world.outcome(whole_after, converged, rested_at, (world.counts.wakes - wakes) * 1000 / CALM);
    outcome.groups = world.groups()?;
    Ok((outcome, world))
}

impl World<'_> {
    pub(crate) fn kernels(&self) -> impl Iterator<Item = (usize, &Kernel)> {
        let up = |(number, host): (usize, &'_ super::host::Host)| host.process.is_some().then_some(number);
        let up: Vec<usize> = self.hosts.iter().enumerate().filter_map(up).collect();
        up.into_iter().filter_map(|number| Some((number, &self.hosts[number].process.as_ref()?.kernel)))
    }

    /// Whether every host is up, is to stay so, and takes in what comes.
    fn is_whole(&self) -> bool {
        let longest = self.now + self.scenario.hosts.disk.1;
        self.hosts.iter().all(|host| host.process.as_ref().is_some_and(|process| process.is_well(longest)))
    }

    /// Lets time go on until every host has all that was written by now, or until the deadline.
    fn converge(&mut self, deadline: u64, watch: &mut dyn FnMut(&World<'_>)) -> Converged {
        let heads: BTreeSet<_> = self.kernels().flat_map(|(_, kernel)| kernel.heads()).collect();
        let (from, all) = (self.now, self.hosts.len());
        let mut behind: Vec<usize> = (0..all).collect();
        let mut converged = Converged::default();
        loop {
            behind.retain(|host| !heads.iter().all(|head| self.hosts[*host].disk.get(head).is_some()));
            let took = self.now - from;
            for (share, at) in
                [(all / 2, &mut converged.half), (all / 100, &mut converged.most), (0, &mut converged.all)]
            {
                if behind.len() > share {
                    *at = took + STEP;
                }
            }
            if behind.is_empty() || self.now >= deadline || !self.violations.is_empty() {
                return converged;
            }
            if took.is_multiple_of(LOOK) {
                watch(self);
                self.tell(behind[0], || format!("is one of {} that lack something", behind.len()));
            }
            self.run_until(self.now + STEP);
        }
    }

    /// What still has to happen before the mesh is at rest.
    fn unrest(&self) -> Option<String> {
        if let Some(down) = self.hosts.iter().position(|host| host.process.is_none()) {
            return Some(format!("host {down} is down"));
        }
        if let Some((number, _)) = self.kernels().find(|(_, kernel)| !kernel.is_active()) {
            return Some(format!("host {number} is not active"));
        }
        let (_, first) = self.kernels().next()?;
        let (heads, state) = (first.heads(), first.state_hash());
        for (number, kernel) in self.kernels() {
            if kernel.heads() != heads {
                return Some(format!("hosts 0 and {number} have other heads: {heads:?}, {:?}", kernel.heads()));
            }
            if kernel.state_hash() != state {
                return Some(format!("hosts 0 and {number} have the same heads {heads:?} and other states"));
            }
        }
        for (number, job) in self.jobs.iter().enumerate() {
            let Some(folded) = first.task(&job.id) else {
                return Some(format!("job {number} ({:?}, {:?}) is not known", job.id, job.origin));
            };
            if folded.state.is_open() != (job.fate == Fate::Waits) {
                return Some(format!(
                    "job {number} ({:?}, {:?}) is {:?}; runs {:?}",
                    job.id,
                    job.fate,
                    folded.state,
                    self.runs.iter().filter(|run| run.task == job.id).collect::<Vec<_>>()
                ));
            }
        }
        let busy = |(_, host): &(usize, &super::host::Host)| {
            host.process.as_ref().is_some_and(|process| !process.running.is_empty())
        };
        self.hosts.iter().enumerate().find(busy).map(|(number, _)| format!("host {number} still runs something"))
    }

    /// Each acknowledged or discovered task ended as it must, alike on all nodes, with the one result of a run that
    /// really took place.
    fn check_fates(&self) -> Result<(), String> {
        let mut known = BTreeSet::new();
        for (number, job) in self.jobs.iter().enumerate() {
            known.insert(job.id);
            let mut states = BTreeMap::new();
            for (host, kernel) in self.kernels() {
                let state = kernel.task(&job.id).map(|folded| folded.state.clone());
                states.insert(host, state);
            }
            let Some(Some(state)) = states.get(&0).cloned() else {
                return Err(format!("job {number} is lost: host 0 does not know {:?}", job.id));
            };
            if let Some((host, other)) = states.iter().find(|(_, other)| other.as_ref() != Some(&state)) {
                return Err(format!("job {number} is {state:?} on host 0 and {other:?} on host {host}"));
            }
            self.check_fate(number, &state)?;
        }
        for (host, kernel) in self.kernels() {
            let stray: Vec<TaskId> = kernel.task_ids().filter(|task| !known.contains(task)).collect();
            if !stray.is_empty() {
                return Err(format!("host {host} knows tasks that nobody asked for: {stray:?}"));
            }
        }
        Ok(())
    }

    fn check_fate(&self, number: usize, state: &State) -> Result<(), String> {
        let job = &self.jobs[number];
        let runs: Vec<_> = self.runs.iter().filter(|run| run.task == job.id).collect();
        let right = match (job.fate, state) {
            (Fate::Runs | Fate::RunsOrIsCancelled, State::Completed { holder, fence, conclusion, .. }) => {
                // The result is that of a run that took place there and came to that end.
                runs.iter().any(|run| {
                    run.fence == *fence
                        && self.hosts[run.host].peer == *holder
                        && matches!(run.end, Some((_, RunEnd::Finished(end))) if end == *conclusion)
                })
            }
            (Fate::RunsOrIsCancelled, State::Cancelled) => true,
            // Every attempt that there may be was begun and came to nothing.
            (Fate::Runs | Fate::RunsOrIsCancelled, State::Lost) => {
                let mut attempts: BTreeSet<u32> = self.claims_of(&job.id);
                // Who declines does not use an attempt up.
                for run in runs.iter().filter(|run| matches!(run.end, Some((_, RunEnd::Declined)))) {
                    attempts.remove(&run.fence.attempt);
                }
                attempts.len() >= ATTEMPTS as usize
            }
            (Fate::Declined, State::Lost | State::LeftToGithub) => {
                runs.iter().all(|run| matches!(run.end, Some((_, RunEnd::Declined | RunEnd::Killed | RunEnd::Stopped))))
            }
            (Fate::Waits, State::Pending) | (Fate::LeftToGithub, State::LeftToGithub) => runs.is_empty(),
            _ => false,
        };
        if right {
            Ok(())
        } else {
            Err(format!("job {number} must end by {:?} and is {state:?}; runs {runs:?}", job.fate))
        }
    }

    /// The attempts of a task for which somebody wrote a claim.
    fn claims_of(&self, task: &TaskId) -> BTreeSet<u32> {
        let events = self.written.values().flat_map(|entry| &entry.body().events);
        let attempts = events.filter_map(|event| match event {
            runmesh::kernel::entry::Event::Claim(claim) if claim.task == *task => Some(claim.attempt),
            _ => None,
        });
        attempts.collect()
    }

    /// All live nodes put the candidates of each task into the same order. In a large mesh not each task is looked at,
    /// but some of them on all nodes: that the nodes agree on all else that an order depends on is checked for each.
    fn check_rankings(&self) -> Result<(), String> {
        let step = (self.jobs.len() * self.hosts.len() / RANKINGS).max(1);
        for job in self.jobs.iter().step_by(step) {
            let mut rankings = self.kernels().map(|(host, kernel)| (host, kernel.ranking(&job.id)));
            let Some((_, first)) = rankings.next() else { return Ok(()) };
            if let Some((host, other)) = rankings.find(|(_, other)| *other != first) {
                let only = |a: &[(PeerId, u32)], b: &[(PeerId, u32)]| -> Vec<PeerId> {
                    a.iter().filter(|one| !b.contains(one)).map(|(peer, _)| *peer).collect()
                };
                return Err(format!(
                    "hosts 0 and {host} rank for {:?} otherwise: only the first counts {:?}, only the other {:?}",
                    job.id,
                    only(&first, &other),
                    only(&other, &first)
                ));
            }
            if first.is_empty() != matches!(job.fate, Fate::Waits | Fate::LeftToGithub) {
                return Err(format!("{:?} ({:?}) has the candidates {first:?}", job.id, job.fate));
            }
        }
        Ok(())
    }

    /// A node that starts from any of the disks knows what that disk's node knew. In a large mesh some are tried.
    fn check_disks(&mut self) -> Result<(), String> {
        let seed = self.chance.next();
        let step = self.hosts.len().div_ceil(DISKS);
        for (number, host) in self.hosts.iter().enumerate().step_by(step) {
            let Some(process) = &host.process else { continue };
            let identity = (host.key.clone(), host.mesh, host.entrance.clone());
            let (again, _) = Kernel::open(
                host.clocks.read(self.now),
                identity,
                seed,
                (host.disk.snapshot.clone(), host.disk.kept.clone()),
                &self.shelf,
            );
            if again.heads() != process.kernel.heads() || again.state_hash() != process.kernel.state_hash() {
                return Err(format!(
                    "host {number} would be another after a restart: {} and {}",
                    process.kernel.status(),
                    again.status()
                ));
            }
        }
        Ok(())
    }

    fn outcome(&self, whole_after: u64, converged: Converged, rested_at: u64, calm_wakes: u64) -> Outcome {
        let (mut again, mut doubled) = (0, 0);
        for (number, run) in self.runs.iter().enumerate() {
            let mut before = self.runs[..number].iter().filter(|other| other.task == run.task).peekable();
            again += usize::from(before.peek().is_some());
            doubled += usize::from(before.any(|other| other.end.is_none_or(|(end, _)| end > run.since)));
        }
        let count = |wanted: &State| {
            let state = |id: &TaskId| self.kernels().next().and_then(|(_, kernel)| Some(&kernel.task(id)?.state));
            self.jobs.iter().filter(|job| state(&job.id) == Some(wanted)).count()
        };
        Outcome {
            formed_at: self.formed_at,
            rested_at,
            rested_after: rested_at - self.last_trouble,
            whole_after,
            converged,
            entries: self.written.len(),
            starts: self.runs.len(),
            again,
            doubled,
            kept_alone: self.kept_alone(),
            lost: count(&State::Lost),
            cancelled: count(&State::Cancelled),
            groups: Groups::default(),
            counts: self.counts.clone(),
            calm_wakes,
            fingerprint: self.fingerprint,
        }
    }

    fn kept_alone(&self) -> usize {
        let after = Timings::default().failure;
        let alone = |run: &&RunRecord| {
            let ended = run.end.map_or(u64::MAX, |(end, _)| end);
            let mut cuts = self.cuts.iter().filter(|cut| cut.isolates(run.host));
            cuts.any(|cut| {
                run.since < cut.to && ended > cut.from.max(run.since) && ended.min(cut.to) > cut.from + after
            })
        };
        self.runs.iter().filter(alone).count()
    }

    fn statuses(&self) -> String {
        let status = |(host, kernel): (usize, &Kernel)| format!("host {host}: {}", kernel.status());
        self.kernels().map(status).collect::<Vec<_>>().join("\n")
    }
}
