//! The tasks of a run: when each comes up, how, and how it must end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use runmesh::kernel::id::TaskId;
use runmesh::kernel::io::Offer;
use runmesh::kernel::task::{Conclusion, Concurrency, Fence, Priority, Repository, RunEvent, Tag, Trigger, Workload};

use super::chance::Chance;
use super::scenario::{Scenario, Work};

/// The one source of all tasks.
pub(crate) const SOURCE: &str = "git:sim";
/// A label that some hosts offer.
const RARE: &str = "gpu";
/// A label that no host offers.
const NOWHERE: &str = "quantum";

/// Longer than any run of the simulation.
const FOR_EVER: u64 = 1 << 40;

/// How a task must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With one result on all nodes.
    Runs,
    /// As a run, or cancelled.
    RunsOrIsCancelled,
    /// Never: no host can run it, and GitHub must not.
    Waits,
    LeftToGithub,
    /// With what was found out by those who could not run it.
    Declined,
}

/// How the mesh learns of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Submitted,
    /// It is in the source from its time on.
    Discovered,
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) at: u64,
    pub(crate) id: TaskId,
    pub(crate) workload: Arc<Workload>,
    pub(crate) origin: Origin,
    pub(crate) cancel_at: Option<u64>,
    pub(crate) fate: Fate,
}

/// What comes of one start of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) takes: u64,
    /// Nothing: it fails before the workflow's first step.
    pub(crate) conclusion: Option<Conclusion>,
}

/// All tasks of a run, by the time they come up.
pub(crate) fn jobs(scenario: &Scenario, seed: u64) -> Vec<Job> {
    let (work, mut chance) = (&scenario.work, Chance::new(seed, "work"));
    let mut jobs: Vec<_> = (0..work.tasks).map(|number| job(work, number, &mut chance)).collect();
    if work.impossible {
        for (tag, fate) in [(Tag::P2pOnly, Fate::Waits), (Tag::P2pEligible, Fate::LeftToGithub)] {
            let labels = [NOWHERE.to_owned()].into();
            let workload = Workload { fallback_s: 15, ..workload(jobs.len(), tag, labels, &mut chance) };
            let at = work.between.0;
            jobs.push(Job {
                at,
                id: workload.id(),
                workload: Arc::new(workload),
                origin: Origin::Submitted,
                cancel_at: None,
                fate,
            });
        }
    }
    if let Some((_, time_limit_s)) = work.hangs {
        jobs.iter_mut().for_each(|job| Arc::make_mut(&mut job.workload).time_limit_s = time_limit_s);
    }
    for job in jobs.iter_mut().filter(|job| job.fate == Fate::Runs) {
        let mut candidates = (0..scenario.nodes).filter(|host| {
            let offer = offer(scenario, seed, *host);
            job.workload.labels.is_subset(&offer.labels) && !offer.sources.is_empty()
        });
        if work.unable > 0 && candidates.all(|host| is_unable(scenario, seed, &job.id, host)) {
            job.fate = Fate::Declined;
            Arc::make_mut(&mut job.workload).fallback_s = 15;
        }
    }
    jobs.sort_by_key(|job| (job.at, job.id));
    jobs
}

fn job(work: &Work, number: usize, chance: &mut Chance) -> Job {
    let tag = if chance.permille(work.eligible) { Tag::P2pEligible } else { Tag::P2pOnly };
    let labels = if chance.permille(work.labelled) { [RARE.to_owned()].into() } else { BTreeSet::new() };
    let workload = workload(number, tag, labels, chance);
    let at = chance.within(work.between);
    let workload = match work.groups {
        (0, _) => workload,
        (groups, cancelling) => {
            let group = format!("group {}", number % groups);
            let concurrency = Concurrency { group, cancel_in_progress: chance.permille(cancelling) };
            Workload { concurrency: Some(concurrency), ..workload }
        }
    };
    let cancel_at = chance.permille(work.cancelled).then(|| at + chance.within((0, 2 * work.takes.1)));
    let origin = if chance.permille(work.discovered) { Origin::Discovered } else { Origin::Submitted };
    let fate = if cancel_at.is_some() || work.groups.0 > 0 { Fate::RunsOrIsCancelled } else { Fate::Runs };
    Job { at, id: workload.id(), workload: Arc::new(workload), origin, cancel_at, fate }
}

fn workload(number: usize, tag: Tag, labels: BTreeSet<String>, chance: &mut Chance) -> Workload {
    let tags = BTreeSet::from([tag]);
    Workload {
        repository: Repository { host: "git".to_owned(), id: "sim".to_owned(), name: "sim".to_owned() },
        path: format!(".github/workflows/{number}.yml"),
        trigger: Trigger::Revision { blob: hex::encode(&chance.bytes()[..20]) },
        commit: hex::encode(&chance.bytes()[..20]),
        r#ref: "refs/heads/main".to_owned(),
        event: RunEvent::Push,
        name: format!("job {number}"),
        priority: Priority::of(&tags),
        tags,
        labels,
        inputs: BTreeMap::new(),
        time_limit_s: 3600,
        fallback_s: 3600,
        concurrency: None,
    }
}

/// What a host offers: most of them reach the source, some have the rare label.
pub(crate) fn offer(scenario: &Scenario, seed: u64, host: usize) -> Offer {
    let mut chance = Chance::new(seed ^ host as u64, "offer");
    let mut labels = BTreeSet::from(["self-hosted".to_owned(), "linux".to_owned()]);
    if host % 3 == 1 {
        labels.insert(RARE.to_owned());
    }
    let reaches = host < 2 || chance.permille(800);
    let sources = reaches.then(|| SOURCE.to_owned()).into_iter().collect();
    Offer { slots: chance.within(scenario.slots) as u32, labels, sources }
}

/// Whether a host will find out that it cannot run a task.
pub(crate) fn is_unable(scenario: &Scenario, seed: u64, task: &TaskId, host: usize) -> bool {
    Chance::new(seed ^ host as u64, &format!("unable {task}")).permille(scenario.work.unable)
}

/// What will come of a start, the same whoever does it and whenever.
pub(crate) fn course(scenario: &Scenario, seed: u64, task: &TaskId, fence: &Fence) -> Course {
    let mut chance = Chance::new(seed ^ u64::from(fence.attempt), &format!("{task} {}", fence.claim));
    if chance.permille(scenario.work.not_started) {
        return Course { takes: 20, conclusion: None };
    }
    if fence.attempt == 1 && scenario.work.hangs.is_some_and(|(share, _)| chance.permille(share)) {
        return Course { takes: FOR_EVER, conclusion: None };
    }
    let conclusion = if chance.permille(200) { Conclusion::Failure } else { Conclusion::Success };
    Course { takes: chance.within(scenario.work.takes), conclusion: Some(conclusion) }
}
