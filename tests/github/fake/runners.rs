//! Self-hosted runners as GitHub sees them: registered by a just-in-time configuration, connected, given whatever job
//! they match, gone after it. The stub runner (tests/github/runner) connects to what is below `/_runner/`, which is
//! this fake's own: GitHub's runners speak another, undocumented protocol.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::State;
use super::jobs::{Actions, Status};
use super::rest::page;
use super::scale_sets;
use super::server::{Answer, Asked, lock};

/// The longest a runner's question stays open.
const POLL: Duration = Duration::from_secs(20);
/// How long a runner may take from being given a job to beginning it.
const BEGINNING: Duration = Duration::from_secs(15);

/// What a runner is registered with: `repos/OWNER/NAME` or `orgs/ORG`, lower case.
type Scope = String;

#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) group: u64,
    pub(crate) labels: Vec<String>,
    pub(crate) token: String,
    /// Since when it waits for a job.
    pub(crate) online: bool,
    pub(crate) job: Option<u64>,
    /// When its connection broke.
    pub(crate) lost: Option<Instant>,
    pub(crate) registered_at: Instant,
    /// The scale set that it is of, and whose jobs alone it is given.
    pub(crate) set: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: u64,
    pub(crate) org: String,
    pub(crate) name: String,
}

#[derive(Debug, Default)]
pub(crate) struct Runners {
    pub(crate) all: BTreeMap<u64, Runner>,
    pub(crate) groups: Vec<Group>,
    /// Whoever waits for a change.
    pub(crate) bell: Arc<Notify>,
    /// No runner is given a job but by [`Actions::give`].
    pub(crate) held_back: bool,
    /// How many configurations have been given out, and how many runners have ever connected.
    pub(crate) configured: u64,
    pub(crate) connected: u64,
    /// GitHub's limit of configurations, where there is to be one: so many at once, so many a minute.
    pub(crate) limit: Option<(f64, f64)>,
    tokens: Option<(f64, Instant)>,
    /// When a busy runner is heard of no more, its job fails after so long.
    pub(crate) loss: Option<Duration>,
}

impl Runners {
    /// Those whose registration is there and whose program is connected.
    pub(crate) fn online(&self) -> usize {
        self.all.values().filter(|runner| runner.online).count()
    }

    fn by_token(&mut self, token: &str) -> Option<&mut Runner> {
        self.all.values_mut().find(|runner| runner.token == token)
    }

    /// Whether one more configuration may be given out now; else after how many seconds.
    pub(crate) fn spend(&mut self) -> Result<(), u64> {
        let Some((burst, minute)) = self.limit else { return Ok(()) };
        let (left, at) = self.tokens.unwrap_or((burst, Instant::now()));
        let left = (left + at.elapsed().as_secs_f64() * minute / 60.0).min(burst);
        let enough = left >= 1.0;
        self.tokens = Some((if enough { left - 1.0 } else { left }, Instant::now()));
        if enough { Ok(()) } else { Err(1) }
    }
}

impl Actions {
    /// Gives each queued job to some idle runner that matches it: as at GitHub, whichever that is.
    pub(crate) fn bind(&mut self) {
        if self.runners.held_back {
            return;
        }
        let queued: Vec<u64> =
            self.jobs.values().filter(|job| job.status == Status::Queued).map(|job| job.id).collect();
        for job in queued {
            let wanted = &self.jobs[&job];
            let set = self.scale_sets.of_job(job);
            let fits = |runner: &&Runner| {
                runner.online
                    && runner.job.is_none()
                    && runner.set == set
                    && wanted.labels.iter().all(|label| runner.labels.contains(&label.to_lowercase()))
            };
            // The latest: most likely not the one that was meant.
            let runner = self.runners.all.values().rev().find(fits).map(|runner| runner.id);
            if let Some(runner) = runner {
                self.give(job, runner);
            }
        }
    }

    /// Gives a job to a runner.
    pub(crate) fn give(&mut self, job: u64, runner: u64) {
        let runner = self.runners.all.get_mut(&runner).expect("a runner");
        runner.job = Some(job);
        let who = (runner.id, runner.name.clone());
        self.start(job, who);
        self.runners.bell.notify_waiters();
    }

    /// A person cancels a job.
    pub(crate) fn cancel(&mut self, job: u64) {
        self.complete(job, "cancelled");
    }

    /// What time alone brings about: jobs of lost runners fail.
    pub(crate) fn tick(&mut self) {
        let loss = self.runners.loss.unwrap_or(Duration::from_secs(2));
        let lost = self.runners.all.values().filter(|one| one.lost.is_some_and(|at| at.elapsed() >= loss));
        let lost: Vec<(u64, Option<u64>)> = lost.map(|one| (one.id, one.job)).collect();
        for (id, job) in lost {
            if let Some(job) = job {
                self.complete(job, "failure");
                self.runners.all.remove(&id);
            }
        }
    }
}

/// REST: below `/repos/OWNER/NAME/actions` and `/orgs/ORG/actions`.
pub(crate) fn answer(state: &mut State, asked: &Asked, scope: &str, rest: &[&str]) -> Answer {
    state.actions.tick();
    if !state.limits.token(&asked.secret).admin {
        return Answer::error(403, "Resource not accessible by personal access token");
    }
    let scope = scope.to_ascii_lowercase();
    match (asked.method.as_str(), rest) {
        ("POST", ["runners", "generate-jitconfig"]) => configure(state, asked, &scope),
        ("POST", ["runners", "registration-token"]) => scale_sets::registration(state, &scope),
        ("GET", ["runners"]) => {
            let name = asked.parameter("name");
            let all = state.actions.runners.all.values();
            let all = all.filter(|one| one.scope == scope && name.is_none_or(|name| one.name == name));
            let all: Vec<Value> = all.map(shape).collect();
            let total = all.len();
            page(state, asked, &all, |part| json!({ "total_count": total, "runners": part }))
        }
        ("GET" | "DELETE", ["runners", id]) => {
            let id: u64 = id.parse().unwrap_or(0);
            let Some(runner) = state.actions.runners.all.get(&id).filter(|one| one.scope == scope) else {
                return Answer::error(404, "Not Found");
            };
            if asked.method == "GET" {
                return Answer::ok(shape(runner));
            }
            if runner.job.is_some() {
                return Answer::error(
                    422,
                    "Bad request - Runner \"x\" is currently running a job and cannot be deleted.",
                );
            }
            state.actions.runners.all.remove(&id);
            state.actions.runners.bell.notify_waiters();
            Answer { status: 204, ..Answer::ok(Value::Null) }
        }
        ("GET", ["runner-groups"]) if scope.starts_with("orgs/") => {
            let own = state.actions.runners.groups.iter().filter(|group| format!("orgs/{}", group.org) == scope);
            let all: Vec<Value> =
                std::iter::once((1, "Default")).chain(own.map(|group| (group.id, group.name.as_str())))
                    .map(|(id, name)| json!({
                        "id": id, "name": name, "visibility": "all", "default": id == 1, "runners_url": format!("{}/{scope}/actions/runner-groups/{id}/runners", state.base),
                        "inherited": false, "allows_public_repositories": true,
                    }))
                    .collect();
            let total = all.len();
            page(state, asked, &all, |part| json!({ "total_count": total, "runner_groups": part }))
        }
        _ => Answer::error(404, "Not Found"),
    }
}

fn configure(state: &mut State, asked: &Asked, scope: &str) -> Answer {
    let text = |key: &str| asked.body[key].as_str().unwrap_or_default().to_owned();
    let (name, labels) = (text("name"), asked.body["labels"].as_array().cloned().unwrap_or_default());
    let labels: Vec<String> = labels.iter().filter_map(|label| Some(label.as_str()?.to_lowercase())).collect();
    let Some(group) = asked.body["runner_group_id"].as_u64() else {
        return Answer::error(422, "Invalid request.\n\n\"runner_group_id\" wasn't supplied.");
    };
    if labels.is_empty() || labels.len() > 100 || name.is_empty() || name.len() > 64 {
        return Answer::error(422, "Invalid request.");
    }
    let runners = &mut state.actions.runners;
    let known = group == 1 || runners.groups.iter().any(|one| one.id == group && format!("orgs/{}", one.org) == scope);
    if !known {
        return Answer::error(404, "Not Found");
    }
    if runners.all.values().any(|one| one.scope == scope && one.name == name) {
        return Answer::error(409, "Already exists - A runner with the name already exists.");
    }
    if let Err(seconds) = runners.spend() {
        let mut answer = Answer::error(403, "You have exceeded a secondary rate limit.");
        answer.headers.push(("retry-after", seconds.to_string()));
        return answer;
    }
    let id = state.actions.id();
    let token = format!("jit-{id}-{name}");
    let runner = Runner {
        id,
        name,
        scope: scope.to_owned(),
        group,
        labels,
        token: token.clone(),
        online: false,
        job: None,
        lost: None,
        registered_at: Instant::now(),
        set: None,
    };
    let shown = shape(&runner);
    state.actions.runners.all.insert(id, runner);
    state.actions.runners.configured += 1;
    let encoded = STANDARD.encode(json!({ "url": state.base, "token": token }).to_string());
    Answer { status: 201, ..Answer::ok(json!({ "runner": shown, "encoded_jit_config": encoded })) }
}

fn shape(runner: &Runner) -> Value {
    let labels: Vec<Value> =
        runner.labels.iter().map(|label| json!({ "id": 1, "name": label, "type": "custom" })).collect();
    json!({
        "id": runner.id, "name": runner.name, "os": "linux", "status": if runner.online { "online" } else { "offline" },
        "busy": runner.job.is_some(), "runner_group_id": runner.group, "labels": labels, "ephemeral": true,
    })
}

/// What a runner's program asks: `connect`, which ends when it has a job or is to go, and `work`, which ends with the
/// job. Gives status and text: the job's id, nothing for a runner that is not wanted any more.
pub(crate) async fn serve(state: Arc<Mutex<State>>, what: &str, token: &str) -> (u16, String) {
    let line = Line { state: state.clone(), token: token.to_owned(), kept: false };
    match what {
        "connect" => line.connect().await,
        "work" => line.work().await,
        _ => (404, String::new()),
    }
}

/// A runner's open connection; when it breaks, the runner is not online any more.
struct Line {
    state: Arc<Mutex<State>>,
    token: String,
    kept: bool,
}

impl Line {
    fn look<T>(&self, look: impl FnOnce(&mut Actions, u64) -> T) -> Option<T> {
        let mut state = lock(&self.state);
        let id = state.actions.runners.by_token(&self.token)?.id;
        Some(look(&mut state.actions, id))
    }

    async fn wait(&self) {
        let bell = lock(&self.state).actions.runners.bell.clone();
        let _ = timeout(Duration::from_millis(200), bell.notified()).await;
    }

    async fn connect(mut self) -> (u16, String) {
        let began = self.look(|actions, id| {
            actions.runners.connected += 1;
            let runner = actions.runners.all.get_mut(&id).expect("it is there");
            (runner.online, runner.lost) = (true, None);
            actions.bind();
        });
        if began.is_none() {
            return (404, String::new());
        }
        let until = Instant::now() + POLL * 60;
        while Instant::now() < until {
            let given = self.look(|actions, id| {
                let job = &actions.jobs[&actions.runners.all[&id].job?];
                Some((job.id, job.run, job.repository))
            });
            match given {
                None => break,
                Some(Some((job, run, repository))) => {
                    self.kept = true;
                    // One that never begins is lost with its job, too.
                    self.look(|actions, id| {
                        actions.runners.all.get_mut(&id).expect("it is there").lost = Some(Instant::now() + BEGINNING);
                    });
                    let state = lock(&self.state);
                    let name = state.world.by_id(repository).map(|one| one.full_name()).unwrap_or_default();
                    return (200, format!("{name} {run} 1 {job}"));
                }
                Some(None) => self.wait().await,
            }
        }
        self.kept = true;
        (410, String::new())
    }

    async fn work(mut self) -> (u16, String) {
        self.look(|actions, id| actions.runners.all.get_mut(&id).expect("it is there").lost = None);
        loop {
            let looked = self.look(|actions, id| {
                let job = &actions.jobs[&actions.runners.all[&id].job?];
                let over = job.status == Status::Completed;
                let ends =
                    (!over).then(|| job.started_at.map_or(Duration::ZERO, |at| job.takes.saturating_sub(at.elapsed())));
                Some((job.id, ends))
            });
            let Some(Some((job, left))) = looked else { return (404, String::new()) };
            match left {
                Some(left) if !left.is_zero() => {
                    tokio::select! {
                        () = sleep(left) => {}
                        () = self.wait() => {}
                    }
                }
                left => {
                    let word = self.look(|actions, id| {
                        if left.is_some() {
                            let ends = actions.jobs[&job].ends.clone();
                            actions.complete(job, &ends);
                        }
                        // Ephemeral: gone with its job.
                        actions.runners.all.remove(&id);
                        actions.jobs[&job].conclusion.clone()
                    });
                    self.kept = true;
                    return (200, word.flatten().unwrap_or_default());
                }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut state = lock(&self.state);
        if let Some(runner) = state.actions.runners.by_token(&self.token) {
            (runner.online, runner.lost) = (false, Some(Instant::now()));
        }
    }
}
