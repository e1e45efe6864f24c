//! The runner scale sets of this host's sources: who listens, what is wanted, how the jobs held here stand.
//!
//! Of each set one member of the mesh listens, found as the one on duty for a source is. It makes tasks of assigned jobs
//! ([`table`]), says how many runners the mesh has room for, and tells the others how their jobs stand ([`answers`]).
//! Whoever holds such a task has its runner registered with its own credentials, or where it has none by a member that
//! has ([`runners`]).

mod answers;
mod capacity;
mod doubt;
mod news;
mod runners;
mod strays;
mod succession;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::capacity::Capacity;
use self::doubt::Doubts;
pub(super) use self::news::News;
use self::runners::candidates;
use self::strays::Strays;
use self::table::Table;
use super::SOON;
use super::listener::{Listener, Said, Way};
use crate::daemon::{Daemon, Leaving};
use crate::forge::Spec;
use crate::forge::github::{Job, JobState, Scope, Statistics};
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::io::{Discovery, Input, SourceKey};
use crate::kernel::node::Standing;
use crate::kernel::scale_set;
use crate::kernel::task::{GITHUB_RUNNER, State, Trigger, Workload};
use crate::runner::RunnerEnd;
use crate::wire::limits::MAX_SOURCE;
use crate::wire::scale_set::{EndedRunner, JobTold, SetAsk, SetQuestion, SetTold, Stands};

/// Between two looks at who listens.
const LOOK: Duration = Duration::from_millis(250);
/// How long nothing must have been heard before what was not named is made up for: messages come one after the other.
const QUIET: Duration = Duration::from_millis(300);
/// The same before what is too much is cancelled.
const SURPLUS: Duration = Duration::from_secs(5);
/// After news of a runner: how often at most, and after how long, it is asked again what became of its job.
const ASKS: u32 = 20;
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The most claims that are remembered of a set; the oldest were over long ago.
const MOST_GIVEN: usize = 16_384;
/// Why a node that has no credentials will not listen, in milliseconds: not in this life.
const NEVER_MS: u64 = 365 * 86_400_000;

/// What is wrong where a scale set is named and none can be.
pub const NO_SCALE_SET: &str = "scale_set is set, and no source names an organisation or a repository at GitHub: name one, such as \
                           github:my-org";

/// All of them.
pub(in crate::daemon) struct Sets {
    all: BTreeMap<SourceKey, Set>,
    pub(in crate::daemon) problem: Option<String>,
    next: Instant,
    /// When those who listen are asked about the jobs held here.
    ask: Instant,
    asks: u32,
    lives: u64,
    /// Messages whose consequences are not on disk yet.
    taken: Vec<oneshot::Sender<()>>,
    /// Listeners that end.
    farewells: JoinSet<()>,
}

/// One of them.
struct Set {
    name: String,
    /// What its runners are registered with, apart from it.
    of: Scope,
    scope: Scope,
    host: String,
    group: Option<String>,
    /// Where this host has credentials.
    way: Option<Way>,
    /// What the kernel has been told of that.
    told: Option<bool>,
    listener: Option<Listener>,
    life: u64,
    /// GitHub has answered as it should since the listener began.
    is_well: bool,
    problem: Option<String>,
    /// How many runners are wanted and have jobs, as was told last, and when something was told.
    statistics: Option<Statistics>,
    heard: Instant,
    table: Table,
    /// Claims for which a configuration was given; one entry may claim several tasks.
    given: BTreeSet<(Cid, TaskId)>,
    /// Those that wait until it is known whether their job needs a runner, and when the session was opened.
    doubts: Doubts,
    opened: Option<Instant>,
    capacity: Capacity,
    /// Who said last that it listens, to which set, and in which session.
    former: Option<(PeerId, u64, String)>,
    /// The set's number and the session, while this node listens; and whom that was told since when.
    session: Option<(u64, String)>,
    told_to: (Instant, BTreeSet<PeerId>),
    strays: Strays,
    /// Runners of this host that have ended, by the job that they had.
    ended: BTreeMap<u64, EndedRunner>,
    /// A question about the jobs held here is on its way.
    is_asking: bool,
}

impl Sets {
    /// A set of that name for each source that names an owner or a repository at GitHub.
    pub(in crate::daemon) fn new(name: Option<&str>, group: Option<&str>, sources: &[Spec], host: &str) -> Self {
        let (mut all, mut problem) = (BTreeMap::new(), None);
        for spec in sources.iter().filter(|_| name.is_some()) {
            let name = name.unwrap_or_default();
            let Some(of) = Scope::of(spec) else { continue };
            let key = scale_set::source(&format!("{host}/{of}"), name);
            if key.len() > MAX_SOURCE {
                problem = Some(format!("the scale set {name} of {of} has too long a name: {MAX_SOURCE} bytes in all"));
                continue;
            }
            let group = group.filter(|_| matches!(of, Scope::Organization(_))).map(str::to_owned);
            let scope = Scope::ScaleSet { of: Box::new(of.clone()), name: name.to_ascii_lowercase() };
            all.insert(key, Set::new(name, of, scope, host, group));
        }
        if name.is_some() && all.is_empty() && problem.is_none() {
            problem = Some(NO_SCALE_SET.to_owned());
        }
        let now = Instant::now();
        Self { all, problem, next: now, ask: now, asks: 0, lives: 0, taken: Vec::new(), farewells: JoinSet::new() }
    }

    pub(in crate::daemon) fn keys(&self) -> impl Iterator<Item = &SourceKey> {
        self.all.keys()
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = String> {
        self.all.values().map(|set| scale_set::label(&set.name))
    }

    /// When to look after them; nothing where there are none.
    pub(in crate::daemon) fn next_look(&self) -> Option<Instant> {
        (!self.all.is_empty()).then(|| self.next.min(self.ask))
    }

    /// The set that a task's job was assigned to.
    fn of(&self, workload: &Workload) -> Option<(&SourceKey, &Set)> {
        let reaches = |key: &str| scale_set::reaches(key, &workload.labels, &workload.repository);
        self.all.iter().find(|(key, _)| scale_set::serves(workload) && reaches(key))
    }

    pub(super) fn scope_of(&self, workload: &Workload) -> Option<Scope> {
        self.of(workload).map(|(_, set)| set.scope.clone())
    }

    fn by_scope(&self, scope: &Scope) -> Option<(&SourceKey, &Set)> {
        self.all.iter().find(|(_, set)| set.scope == *scope)
    }

    /// Whether, as was told here, some runner has the job.
    pub(super) fn is_taken(&self, workload: &Workload) -> bool {
        let Trigger::GithubJob { job, .. } = workload.trigger else { return false };
        let told = self.of(workload).and_then(|(_, set)| set.table.told(job));
        told.is_some_and(|told| told.stands != Stands::Waiting)
    }

    /// Whether it may be that some runner has a job that was taken over: nothing was told of it, and as many jobs of its
    /// set have runners as there are.
    pub(super) fn may_be_taken(&self, workload: &Workload) -> bool {
        let Trigger::GithubJob { job, .. } = workload.trigger else { return false };
        let set = self.of(workload).map(|(_, set)| set).filter(|set| set.listener.is_some());
        set.is_some_and(|set| set.table.told(job).is_none() && set.all_have_runners())
    }

    /// There is news of a runner here: what became of its job is asked soon.
    pub(super) fn soon(&mut self) {
        self.asks = ASKS;
        self.ask = self.ask.min(Instant::now() + SOON);
    }

    /// What the messages have brought is on disk.
    pub(in crate::daemon) fn release(&mut self) {
        for taken in self.taken.drain(..) {
            let _ = taken.send(());
        }
    }
}

impl Set {
    fn new(name: &str, of: Scope, scope: Scope, host: &str, group: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            of,
            scope,
            host: host.to_owned(),
            group,
            way: None,
            told: None,
            listener: None,
            life: 0,
            is_well: false,
            problem: None,
            statistics: None,
            heard: Instant::now(),
            table: Table::default(),
            given: BTreeSet::new(),
            doubts: Doubts::default(),
            opened: None,
            capacity: Capacity::default(),
            former: None,
            session: None,
            told_to: (Instant::now(), BTreeSet::new()),
            strays: Strays::default(),
            ended: BTreeMap::new(),
            is_asking: false,
        }
    }
}

impl Set {
    fn all_have_runners(&self) -> bool {
        self.statistics.is_some_and(|told| told.total_assigned_jobs <= told.total_running_jobs)
    }

    /// Remembers that a configuration is given for a claim; `false` if one was.
    fn give(&mut self, claim: (Cid, TaskId)) -> bool {
        if self.given.len() >= MOST_GIVEN {
            self.given.pop_first();
        }
        self.given.insert(claim)
    }
}

impl Daemon {
    /// Whether a workload's job, seen in GitHub's list, is left to a scale set of the mesh.
    pub(super) fn is_left_to_a_set(&self, workload: &Workload) -> bool {
        let leaves = |key: &str| scale_set::leaves(key, &workload.labels, &workload.repository);
        let heard = self.node.presences().filter(|(_, _, heard)| *heard);
        self.scale.sets.keys().any(|key| leaves(key))
            || heard.into_iter().any(|(presence, ..)| presence.offer.sources.iter().any(|key| leaves(key)))
    }

    /// Looks after all sets: who listens, how much room there is, what is wanted and what is too much, and how the jobs
    /// held here stand.
    pub(in crate::daemon) fn look_after_sets(&mut self) {
        let now = Instant::now();
        self.scale.sets.next = now + LOOK;
        let keys: Vec<SourceKey> = self.scale.sets.keys().cloned().collect();
        let asks = self.scale.sets.ask <= now;
        if asks {
            let again = if self.scale.sets.asks > 0 { ASK_AGAIN } else { self.scale.interval() };
            self.scale.sets.asks = self.scale.sets.asks.saturating_sub(1);
            self.scale.sets.ask = now + again;
        }
        for key in keys {
            self.mind_listener(&key);
            self.level_out(&key);
            self.look_for_strays(&key);
            if asks {
                self.ask_about_jobs(&key);
            }
        }
    }

    /// Begins or stops to listen, as duty says, and announces how many runners the mesh has room for.
    fn mind_listener(&mut self, key: &SourceKey) {
        let github = self.sources.github();
        let is_active = self.node.standing() == Standing::Active && self.leaving == Leaving::No;
        let is_mine = self.node.on_duty(key) == self.node.peer();
        let listens = self.scale.sets.all.get(key).is_some_and(|set| set.listener.is_some());
        let capacity = if listens { self.capacity_of(key) } else { 0 };
        let (me, find, now) = (self.node.peer(), self.find.clone(), Instant::now());
        let sets = &mut self.scale.sets;
        let Some(set) = sets.all.get_mut(key) else { return };
        if set.way.is_none()
            && let Some(github) = github
        {
            match github.scale_sets(set.of.clone()) {
                Ok(service) => set.way = Some(Way::new(service, &set.name, set.group.clone())),
                Err(error) => set.problem = Some(error.to_string()),
            }
        }
        let has_way = set.way.is_some();
        if set.told.replace(has_way) != Some(has_way) {
            let found = Discovery::default();
            self.inputs.push_back(match has_way {
                true => Input::Discovered { source: key.clone(), found },
                false => Input::Undiscovered { source: key.clone(), wait_ms: Some(NEVER_MS) },
            });
            return;
        }
        match (&set.listener, set.way.clone().filter(|_| is_active && is_mine)) {
            (None, Some(way)) => {
                sets.lives += 1;
                tracing::info!("this node listens for jobs of the scale set {} of {}", set.name, set.of);
                (set.life, set.is_well, set.statistics, set.heard) = (sets.lives, false, None, Instant::now());
                set.opened = None;
                set.listener = Some(Listener::start(way, key.clone(), set.life, me.to_string(), find));
            }
            (Some(_), None) => {
                tracing::info!("this node listens no more for jobs of the scale set {} of {}", set.name, set.of);
                set.session = None;
                // What is known of its jobs is kept: whoever follows asks for it.
                (set.statistics, set.problem) = (None, None);
                if let Some(listener) = set.listener.take() {
                    sets.farewells.spawn(listener.end());
                }
                while sets.farewells.try_join_next().is_some() {}
            }
            _ => {}
        }
        let former = self.scale.sets.all.get(key).and_then(|set| set.former.clone());
        let is_heard =
            |peer: &PeerId| self.node.presences().any(|(presence, _, heard)| heard && presence.peer == *peer);
        let former = former.filter(|(peer, ..)| !is_heard(peer)).map(|(_, set, session)| (set, session));
        let steady = self.scale.sets.all.get_mut(key).map_or(0, |set| set.capacity.steady(capacity, now));
        if listens && let Some(listener) = self.scale.sets.all.get(key).and_then(|set| set.listener.as_ref()) {
            listener.announce(steady);
            listener.succeed(&former);
            self.tell_of_session(key);
        }
    }

    /// Ends all listeners, and their sessions with them.
    pub(in crate::daemon) async fn end_listeners(&mut self, patience: Duration) {
        let sets = &mut self.scale.sets;
        for listener in sets.all.values_mut().filter_map(|set| set.listener.take()) {
            sets.farewells.spawn(listener.end());
        }
        let _ = timeout(patience, async { while sets.farewells.join_next().await.is_some() {} }).await;
    }

    /// How many runners the mesh can have for the set: as many as run, and as many as there are free slots for.
    fn capacity_of(&self, key: &SourceKey) -> u32 {
        let Some(set) = self.scale.sets.all.get(key) else { return 0 };
        let label = scale_set::label(&set.name);
        let heard = self.node.presences().filter(|(presence, _, heard)| *heard && !presence.draining);
        let others = heard
            .filter(|(presence, ..)| presence.offer.sources.contains(key) && presence.offer.labels.contains(&label));
        let others: u32 = others.map(|(presence, ..)| presence.free).fold(0, u32::saturating_add);
        let is_open = self.node.standing() == Standing::Active && !self.node.is_cordoned() && self.starts_runners();
        let running = u32::try_from(self.node.running().count()).unwrap_or(u32::MAX);
        let own = if is_open { self.node.slots().saturating_sub(running) } else { 0 };
        let is_held = |(_, folded): &(_, &crate::kernel::ledger::Folded)| {
            matches!(folded.state, State::Claimed { .. })
                && self.scale.sets.of(&folded.workload).is_some_and(|(of, _)| of == key)
        };
        let held = u32::try_from(self.node.tasks().filter(is_held).count()).unwrap_or(u32::MAX);
        others.saturating_add(own).saturating_add(held)
    }

    /// The kernel wants to know whether the set can be reached.
    pub(in crate::daemon) fn on_set_discover(&mut self, key: SourceKey) {
        let set = self.scale.sets.all.get(&key);
        if set.is_some_and(|set| set.is_well || set.listener.is_none() && set.way.is_some()) {
            self.inputs.push_back(Input::Discovered { source: key, found: Discovery::default() });
        } else if set.is_none_or(|set| set.way.is_none()) {
            self.inputs.push_back(Input::Undiscovered { source: key, wait_ms: Some(NEVER_MS) });
        }
        // Else it is being found out, and said then.
    }

    pub(super) fn on_set_said(&mut self, key: SourceKey, life: u64, said: Said) {
        let Some(set) = self.scale.sets.all.get_mut(&key) else { return };
        if set.life != life || set.listener.is_none() {
            return;
        }
        match said {
            Said::Open { statistics, set: number, session } => {
                (set.statistics, set.heard) = (Some(statistics), Instant::now());
                set.opened = set.opened.or(Some(Instant::now()));
                set.session = Some((number, session));
                set.told_to.1.clear();
                self.ask_for_tables(&key);
                self.tell_of_session(&key);
                self.set_is_well(key);
            }
            Said::Quiet => self.set_is_well(key),
            Said::Waits { why } => {
                set.problem = Some(why);
                set.is_well = true;
                self.feed(Input::Discovered { source: key, found: Discovery::default() });
            }
            Said::Failed { why, wait_ms } => {
                set.is_well = false;
                set.problem = Some(why.clone());
                self.say_once(why);
                self.feed(Input::Undiscovered { source: key, wait_ms });
            }
            Said::Message { message, taken } => {
                set.statistics = message.statistics.or(set.statistics);
                set.heard = Instant::now();
                self.take_words(&key, &message.words);
                self.scale.sets.taken.push(taken);
                self.set_is_well(key);
            }
        }
    }

    fn set_is_well(&mut self, key: SourceKey) {
        if let Some(set) = self.scale.sets.all.get_mut(&key) {
            (set.is_well, set.problem) = (true, None);
        }
        self.feed(Input::Discovered { source: key, found: Discovery::default() });
    }

    /// Asks whoever listens how the jobs stand whose tasks are held here.
    fn ask_about_jobs(&mut self, key: &SourceKey) {
        let (asked, on_duty, me) = (self.now().mono, self.node.on_duty(key), self.node.peer());
        let Some(set) = self.scale.sets.all.get_mut(key).filter(|set| !set.is_asking) else { return };
        let Some(jobs) = self.scale.pool.jobs_of(key, &set.scope) else { return };
        let prefix = self.scale.pool.prefix().to_owned();
        set.ended.retain(|job, _| jobs.contains(job));
        let ended: Vec<EndedRunner> = set.ended.values().cloned().collect();
        if on_duty == me {
            if set.listener.is_some() {
                let told = set.table.answer(&jobs, &prefix);
                self.look_for_ends(key, me, ended);
                self.on_told(key.clone(), asked, Ok(told));
            }
            return;
        }
        let ask = SetAsk { set: key.clone(), what: SetQuestion::Jobs { jobs, prefix, ended } };
        let (asker, find, key) = (self.scale.asker.clone(), self.find.clone(), key.clone());
        if let Some(set) = self.scale.sets.all.get_mut(&key) {
            set.is_asking = true;
        }
        self.scale.helpers.spawn(async move {
            let answer = match asker.ask(on_duty, &ask).await {
                Ok(SetTold::Jobs(jobs)) => Ok(jobs),
                Ok(_) => Err("it answered something else".to_owned()),
                Err(why) => Err(why),
            };
            let _ = find.send(News::Told { key, asked, answer }.into()).await;
        });
    }

    /// How the jobs stand whose tasks are held here.
    pub(super) fn on_told(&mut self, key: SourceKey, asked: u64, answer: Result<Vec<JobTold>, String>) {
        let Some(set) = self.scale.sets.all.get_mut(&key) else { return };
        set.is_asking = false;
        let (scope, ended) = (set.scope.clone(), set.ended.keys().copied().collect::<BTreeSet<u64>>());
        let told = answer.unwrap_or_else(|why| {
            tracing::debug!("asking how the jobs of {key} stand: {why}");
            Vec::new()
        });
        let mut jobs = BTreeMap::new();
        for told in told {
            // A runner here has had it: whoever says that it waits has not heard of that yet.
            if told.stands == Stands::Waiting && ended.contains(&told.job) {
                continue;
            }
            let Some(workload) = self.workload_of_job(&key, told.job) else { continue };
            jobs.insert(told.job, job_of(&workload, &told));
        }
        let (now, draining) = (self.now().mono, self.starts_nothing_new());
        let mut deeds = self.scale.pool.told(now, asked, &key, &jobs, draining);
        deeds.extend(self.scale.pool.thin_out(now, draining));
        self.carry_out_deeds(deeds);
        if !self.scale.pool.is_curious(&scope) {
            self.scale.sets.asks = 0;
        } else if self.scale.pool.is_unsettled() || draining {
            self.scale.sets.asks = self.scale.sets.asks.max(1);
            self.scale.sets.ask = self.scale.sets.ask.min(Instant::now() + super::NOT_YET);
        }
    }

    /// A runner of this host has ended that had a job.
    pub(super) fn runner_of_set_ended(&mut self, scope: &Scope, job: u64, end: &RunnerEnd) {
        let set = self.scale.sets.all.values_mut().find(|set| set.scope == *scope);
        if let (Some(set), Some(seen)) = (set, &end.job) {
            let (runner, repository, run) = (end.name.clone(), seen.repository.clone(), seen.run_id);
            set.ended.insert(job, EndedRunner { job, runner, repository, run });
        }
    }

    /// The latest task of a set's job.
    fn workload_of_job(&self, key: &str, job: u64) -> Option<std::sync::Arc<Workload>> {
        let attempt = |workload: &Workload| match workload.trigger {
            Trigger::GithubJob { job: of, run_attempt } if of == job => Some(run_attempt),
            _ => None,
        };
        let tasks = self.node.tasks().map(|(_, folded)| &folded.workload);
        let of_it = tasks.filter(|workload| scale_set::serves(workload) && attempt(workload).is_some());
        let of_it = of_it.filter(|workload| scale_set::reaches(key, &workload.labels, &workload.repository));
        of_it.max_by_key(|workload| attempt(workload)).cloned()
    }

    /// Who can reach the set besides this node, whoever listens first.
    fn reachers(&self, key: &SourceKey) -> Vec<PeerId> {
        candidates(&self.node, key)
    }

    pub(in crate::daemon) fn set_list(&self) -> Vec<crate::control::proto::Source> {
        let (duties, now) = (self.node.duties(), self.now().mono);
        let shown = self.scale.sets.all.iter().map(|(key, set)| crate::control::proto::Source {
            spec: format!("scale set {} of {}", set.name, set.of),
            key: key.clone(),
            duty: duties.get(key).map(ToString::to_string),
            discovered_ago_ms: self.node.discovered_ago(key, now),
            when_cut_off: "keep".to_owned(),
            problem: set.problem.clone(),
            ..crate::control::proto::Source::default()
        });
        shown.collect()
    }
}

/// A job in the words of what GitHub lists.
fn job_of(workload: &Workload, told: &JobTold) -> Job {
    let (id, run_attempt) = match workload.trigger {
        Trigger::GithubJob { job, run_attempt } => (job, run_attempt),
        _ => (told.job, 1),
    };
    let mut labels = workload.labels.clone();
    labels.remove(GITHUB_RUNNER);
    Job {
        id,
        run_attempt,
        repository: workload.repository.clone(),
        path: workload.path.clone(),
        name: workload.name.clone(),
        commit: workload.commit.clone(),
        branch: workload.r#ref.trim_start_matches("refs/heads/").to_owned(),
        labels,
        state: match told.stands {
            Stands::Waiting => JobState::Queued,
            Stands::Running => JobState::InProgress,
            Stands::Over { conclusion, duration_ms } => JobState::Completed { conclusion, duration_ms },
        },
        runner: told.runner.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_at_github_has_a_set_and_no_other_has() {
        let specs: Vec<Spec> = ["github:octo", "github:acme/One", "github:*", "git:/srv/one"]
            .iter()
            .map(|spec| spec.parse().expect("a source"))
            .collect();
        let sets = Sets::new(Some("Lab"), Some("group"), &specs, "h");
        let keys: Vec<&str> = sets.keys().map(String::as_str).collect();
        assert_eq!(keys, ["scale-set:h/acme/one#lab", "scale-set:h/octo#lab"]);
        let groups: Vec<Option<&str>> = sets.all.values().map(|set| set.group.as_deref()).collect();
        assert_eq!(groups, [None, Some("group")], "only organisations have groups");
        assert!(sets.problem.is_none() && Sets::new(None, None, &specs, "h").all.is_empty());
        assert!(Sets::new(Some("Lab"), None, &specs[2..], "h").problem.is_some());
        let long = [format!("github:{}/{}", "o".repeat(39), "r".repeat(100)).parse().expect("a source")];
        assert!(Sets::new(Some(&"n".repeat(64)), None, &long, "api.github.com").problem.is_some());
    }
}
