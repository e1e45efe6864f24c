//! Runner scale sets and the service behind them, as GitHub's own client speaks to it (GITHUB's `actions/scaleset`): a
//! registration token for an address and a token, sets, one session each, a queue of messages whose question stays open
//! until there is one, configurations of runners. `tests/scaleset/schema.json` says what goes to and fro.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::State;
use super::jobs::{Actions, Status};
use super::runners::Runner;
use super::server::{Answer, Asked, lock};
use super::world::{now, timestamp};

/// What the service's paths begin with.
pub(crate) const TENANT: &str = "/tenant/";

/// All sets, and how the service treats its clients.
#[derive(Debug)]
pub(crate) struct ScaleSets {
    pub(crate) sets: BTreeMap<u64, Set>,
    /// By token: the scope that it is for.
    registrations: BTreeMap<String, String>,
    /// By token: the scope, and when it ends, in seconds since 1970.
    admins: BTreeMap<String, (String, u64)>,
    made: u64,
    /// How long a question for messages stays open.
    pub(crate) poll: Duration,
    /// How long a session of which nothing is heard goes on.
    pub(crate) session_life: Duration,
    /// How long the service's token is good for, in seconds.
    pub(crate) admin_life: u64,
    /// So many sessions are given without a queue.
    pub(crate) no_queue: usize,
    /// The most jobs that one message names.
    pub(crate) named: usize,
    /// What a message has no room for is never named.
    pub(crate) forgets: bool,
    /// Jobs are offered first, and assigned when they are taken on.
    pub(crate) offers: bool,
}

impl Default for ScaleSets {
    fn default() -> Self {
        Self {
            sets: BTreeMap::new(),
            registrations: BTreeMap::new(),
            admins: BTreeMap::new(),
            made: 0,
            poll: Duration::from_secs(50),
            session_life: Duration::from_secs(4),
            admin_life: 3_600,
            no_queue: 0,
            named: 50,
            forgets: false,
            offers: false,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) group: u64,
    scope: String,
    pub(crate) session: Option<Session>,
    /// Sessions so far, and refusals of another.
    pub(crate) sessions: u64,
    pub(crate) conflicts: u64,
    messages: BTreeMap<u64, Value>,
    next_message: u64,
    /// What its listener said last.
    pub(crate) capacity: u32,
    jobs: BTreeMap<u64, Assigned>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) owner: String,
    token: String,
    heard: Instant,
}

/// A job that is the set's.
#[derive(Debug, Default)]
struct Assigned {
    is_offered: bool,
    is_assigned: bool,
    told: [bool; 4],
}

impl ScaleSets {
    fn secret(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-planted{}Wq8Zt3", self.made)
    }

    /// The set that a job has been assigned to.
    pub(crate) fn of_job(&self, job: u64) -> Option<u64> {
        let has = |set: &&Set| set.jobs.get(&job).is_some_and(|job| job.is_assigned);
        self.sets.values().find(has).map(|set| set.id)
    }

    /// How many jobs the set has that are not over.
    fn going(&self, set: u64, jobs: &BTreeMap<u64, super::jobs::Job>) -> usize {
        let open = |(job, assigned): &(&u64, &Assigned)| assigned.is_assigned && jobs[*job].status != Status::Completed;
        self.sets[&set].jobs.iter().filter(open).count()
    }
}

/// A GUID of a number.
fn guid(number: u64) -> String {
    format!("{number:08x}-0000-4000-8000-{number:012x}")
}

impl Actions {
    /// Gives queued jobs to the sets that have room for them.
    fn assign(&mut self, names: &dyn Fn(u64) -> String) {
        let queued: Vec<u64> =
            self.jobs.values().filter(|job| job.status == Status::Queued).map(|job| job.id).collect();
        for id in queued {
            let job = &self.jobs[&id];
            let name = names(job.repository).to_lowercase();
            let fits = |set: &Set| {
                let scope = set.scope.split_once('/').map_or("", |(_, scope)| scope);
                let is_in = name == scope || name.split('/').next() == Some(scope);
                is_in && job.labels.len() == 1 && job.labels[0].eq_ignore_ascii_case(&set.name)
            };
            let Some(set) = self.scale_sets.sets.values().find(|set| fits(set)).map(|set| set.id) else { continue };
            let room = self.scale_sets.going(set, &self.jobs) < self.scale_sets.sets[&set].capacity as usize;
            let offers = self.scale_sets.offers;
            let assigned = self.scale_sets.sets.get_mut(&set).expect("found").jobs.entry(id).or_default();
            if offers {
                assigned.is_offered = true;
            } else if room {
                assigned.is_assigned = true;
            }
        }
    }
}

/// `POST …/runners/registration-token`.
pub(crate) fn registration(state: &mut State, scope: &str) -> Answer {
    let token = state.actions.scale_sets.secret("reg");
    state.actions.scale_sets.registrations.insert(token.clone(), scope.to_owned());
    Answer { status: 201, ..Answer::ok(json!({ "token": token, "expires_at": timestamp(now() + 3_600) })) }
}

fn exception(status: u16, kind: &str, message: &str) -> Answer {
    Answer {
        status,
        ..Answer::ok(json!({ "typeName": format!("GitHub.Actions.Runtime.WebApi.{kind}"), "message": message }))
    }
}

/// `POST /actions/runner-registration`.
pub(crate) fn register(state: &mut State, asked: &Asked) -> Answer {
    let sets = &mut state.actions.scale_sets;
    let scheme = asked.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(scope) = sets.registrations.get(&asked.secret).filter(|_| scheme.starts_with("RemoteAuth ")).cloned()
    else {
        return Answer::error(401, "Bad credentials");
    };
    let (_, place) = scope.split_once('/').expect("a scope");
    if asked.body["url"].as_str().map(str::to_lowercase) != Some(format!("{}/{place}", state.base)) {
        return Answer::error(404, "Not Found");
    }
    let ends = now() + sets.admin_life;
    let mark = sets.secret("admin");
    let claims = URL_SAFE_NO_PAD.encode(json!({ "exp": ends, "jti": mark }).to_string());
    let token = format!("{}.{claims}.{mark}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    sets.admins.insert(token.clone(), (scope, ends));
    Answer::ok(json!({ "url": format!("{}{TENANT}", state.base), "token": token }))
}

/// Below the service's address.
pub(crate) async fn answer(state: &Arc<Mutex<State>>, asked: &Asked) -> Answer {
    let path: Vec<&str> = asked.path.trim_start_matches(TENANT).trim_matches('/').split('/').collect();
    if let ["queue", set, session, rest @ ..] = path.as_slice() {
        return queue(state, asked, (set.parse().unwrap_or(0), session), rest).await;
    }
    let mut state = lock(state);
    let state = &mut *state;
    if asked.parameter("api-version") != Some("6.0-preview") {
        return Answer::error(400, "No api-version was supplied");
    }
    if let ["_apis", "runtime", "runnerscalesets", set, "acquirejobs"] = path.as_slice() {
        return acquire(state, asked, set.parse().unwrap_or(0));
    }
    let Some((scope, ends)) = state.actions.scale_sets.admins.get(&asked.secret).cloned() else {
        return Answer::error(401, "Bad credentials");
    };
    if ends <= now() {
        return Answer::error(401, "The token has expired");
    }
    match (asked.method.as_str(), path.as_slice()) {
        ("GET", ["_apis", "runtime", "runnergroups"]) => groups(state, asked, &scope),
        ("GET", ["_apis", "runtime", "runnerscalesets"]) => find(state, asked, &scope),
        ("POST", ["_apis", "runtime", "runnerscalesets"]) => make(state, asked, &scope),
        (method, ["_apis", "runtime", "runnerscalesets", set, "sessions", rest @ ..]) => {
            sessions(state, asked, method, set.parse().unwrap_or(0), rest)
        }
        ("POST", ["_apis", "runtime", "runnerscalesets", set, "generatejitconfig"]) => {
            configure(state, asked, set.parse().unwrap_or(0))
        }
        (method @ ("GET" | "DELETE"), ["_apis", "distributedtask", "pools", "0", "agents", id]) => {
            agent(state, method, id.parse().unwrap_or(0))
        }
        _ => Answer::error(404, "Not Found"),
    }
}

fn groups(state: &State, asked: &Asked, scope: &str) -> Answer {
    let wanted = asked.parameter("groupName").unwrap_or_default();
    let own = state.actions.runners.groups.iter().filter(|group| format!("orgs/{}", group.org) == scope);
    let all = own.map(|group| (group.id, group.name.as_str())).chain([(1, "Default")]);
    let found: Vec<Value> = all
        .filter(|(_, name)| name.eq_ignore_ascii_case(wanted))
        .map(|(id, name)| json!({ "id": id, "name": name, "size": 0, "isDefaultGroup": id == 1 }))
        .collect();
    Answer::ok(json!({ "count": found.len(), "value": found }))
}

fn shape(set: &Set) -> Value {
    json!({
        "id": set.id, "name": set.name, "runnerGroupId": set.group, "runnerGroupName": "Default",
        "labels": [{ "id": 1, "name": set.name, "type": "System" }], "RunnerSetting": { "disableUpdate": true },
        "createdOn": timestamp(1_704_067_200), "runnerJitConfigUrl": "",
    })
}

fn find(state: &State, asked: &Asked, scope: &str) -> Answer {
    let (group, name) = (asked.parameter("runnerGroupId"), asked.parameter("name").unwrap_or_default());
    let is_it = |set: &&Set| {
        set.scope == scope && set.name.eq_ignore_ascii_case(name) && group == Some(set.group.to_string().as_str())
    };
    let found: Vec<Value> = state.actions.scale_sets.sets.values().filter(is_it).map(shape).collect();
    Answer::ok(json!({ "count": found.len(), "value": found }))
}

fn make(state: &mut State, asked: &Asked, scope: &str) -> Answer {
    let name = asked.body["name"].as_str().unwrap_or_default().to_owned();
    let group = asked.body["runnerGroupId"].as_u64().unwrap_or(0);
    let taken = |set: &Set| set.scope == scope && set.group == group && set.name.eq_ignore_ascii_case(&name);
    if state.actions.scale_sets.sets.values().any(taken) {
        return exception(409, "RunnerScaleSetExistsException", "a scale set of that name exists");
    }
    let id = state.actions.id();
    let set = Set {
        id,
        name,
        group,
        scope: scope.to_owned(),
        session: None,
        sessions: 0,
        conflicts: 0,
        messages: BTreeMap::new(),
        next_message: 0,
        capacity: 0,
        jobs: BTreeMap::new(),
    };
    let shown = shape(&set);
    state.actions.scale_sets.sets.insert(id, set);
    Answer::ok(shown)
}

fn statistics(state: &State, id: u64) -> Value {
    let (actions, set) = (&state.actions, &state.actions.scale_sets.sets[&id]);
    let runners: Vec<&Runner> = actions.runners.all.values().filter(|one| one.set == Some(id)).collect();
    let busy = runners.iter().filter(|one| one.job.is_some()).count();
    let online = runners.iter().filter(|one| one.online).count();
    let running = set.jobs.keys().filter(|job| actions.jobs[*job].status == Status::InProgress).count();
    json!({
        "totalAvailableJobs": set.jobs.values().filter(|job| !job.is_assigned).count(), "totalAcquiredJobs": 0,
        "totalAssignedJobs": actions.scale_sets.going(id, &actions.jobs), "totalRunningJobs": running,
        "totalRegisteredRunners": runners.len(), "totalBusyRunners": busy, "totalIdleRunners": online - busy.min(online),
    })
}

fn sessions(state: &mut State, asked: &Asked, method: &str, id: u64, rest: &[&str]) -> Answer {
    let (base, life) = (state.base.clone(), state.actions.scale_sets.session_life);
    let token = state.actions.scale_sets.secret("queue");
    let made = guid(state.actions.id());
    let Some(set) = state.actions.scale_sets.sets.get_mut(&id) else {
        return exception(404, "RunnerScaleSetNotFoundException", "no such scale set");
    };
    let is_open = set.session.as_ref().is_some_and(|session| session.heard.elapsed() < life);
    match (method, rest) {
        ("POST", []) if is_open => {
            set.conflicts += 1;
            let message = format!("The runner scale set {} already has an active session.", set.name);
            return exception(409, "RunnerScaleSetSessionConflictException", &message);
        }
        ("POST", []) => {
            set.sessions += 1;
            set.capacity = 0;
            let owner = asked.body["ownerName"].as_str().unwrap_or_default().to_owned();
            set.session = Some(Session { id: made, owner, token, heard: Instant::now() });
        }
        ("PATCH" | "DELETE", [session]) if set.session.as_ref().is_some_and(|own| own.id == *session) => {
            if method == "DELETE" {
                set.session = None;
                return Answer { status: 204, ..Answer::ok(Value::Null) };
            }
            let own = set.session.as_mut().expect("it is there");
            (own.token, own.heard) = (token, Instant::now());
        }
        ("PATCH" | "DELETE", [_]) => {
            let message = "The session identifier is not valid.";
            return exception(404, "RunnerScaleSetSessionExpiredException", message);
        }
        _ => return Answer::error(404, "Not Found"),
    }
    let own = set.session.as_ref().expect("it is there");
    let (session, owner, token) = (own.id.clone(), own.owner.clone(), own.token.clone());
    let shown = shape(set);
    let mut queue = format!("{base}{TENANT}queue/{id}/{session}");
    if state.actions.scale_sets.no_queue > 0 {
        state.actions.scale_sets.no_queue -= 1;
        queue.clear();
    }
    Answer::ok(json!({
        "sessionId": session, "ownerName": owner, "runnerScaleSet": shown, "messageQueueUrl": queue,
        "messageQueueAccessToken": token, "statistics": statistics(state, id),
    }))
}

fn acquire(state: &mut State, asked: &Asked, id: u64) -> Answer {
    let jobs: Vec<u64> = asked.body.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let Some(set) = state.actions.scale_sets.sets.get_mut(&id) else { return Answer::error(404, "Not Found") };
    if set.session.as_ref().is_none_or(|session| session.token != asked.secret) {
        return Answer::error(401, "Bad credentials");
    }
    let mut acquired = Vec::new();
    for job in jobs {
        if let Some(assigned) = set.jobs.get_mut(&job) {
            assigned.is_assigned = true;
            acquired.push(job);
        }
    }
    state.actions.runners.bell.notify_waiters();
    Answer::ok(json!({ "count": acquired.len(), "value": acquired }))
}

fn configure(state: &mut State, asked: &Asked, id: u64) -> Answer {
    let name = asked.body["name"].as_str().unwrap_or_default().to_owned();
    let Some(set) = state.actions.scale_sets.sets.get(&id) else {
        return exception(404, "RunnerScaleSetNotFoundException", "no such scale set");
    };
    let (scope, group, label) = (set.scope.clone(), set.group, set.name.to_lowercase());
    if state.actions.runners.all.values().any(|one| one.scope == scope && one.name == name) {
        return exception(409, "AgentExistsException", "a runner of that name exists");
    }
    if let Err(seconds) = state.actions.runners.spend() {
        let mut answer = Answer::error(429, "Too many requests");
        answer.headers.push(("retry-after", seconds.to_string()));
        return answer;
    }
    let runner = state.actions.id();
    let token = state.actions.scale_sets.secret("jit");
    let made = Runner {
        id: runner,
        name: name.clone(),
        scope,
        group,
        labels: vec![label],
        token: token.clone(),
        online: false,
        job: None,
        lost: None,
        registered_at: Instant::now(),
        set: Some(id),
    };
    state.actions.runners.all.insert(runner, made);
    state.actions.runners.configured += 1;
    let encoded = STANDARD.encode(json!({ "url": state.base, "token": token }).to_string());
    Answer::ok(json!({
        "runner": { "id": runner, "name": name, "runnerScaleSetId": id }, "encodedJITConfig": encoded,
    }))
}

fn agent(state: &mut State, method: &str, id: u64) -> Answer {
    let Some(runner) = state.actions.runners.all.get(&id) else {
        return exception(404, "AgentNotFoundException", "no such runner");
    };
    if method == "GET" {
        let set = runner.set.unwrap_or_default();
        return Answer::ok(json!({ "id": id, "name": runner.name, "runnerScaleSetId": set }));
    }
    if runner.job.is_some() {
        return exception(400, "JobStillRunningException", "the runner has a job");
    }
    state.actions.runners.all.remove(&id);
    state.actions.runners.bell.notify_waiters();
    Answer { status: 204, ..Answer::ok(Value::Null) }
}

async fn queue(state: &Arc<Mutex<State>>, asked: &Asked, (id, session): (u64, &str), rest: &[&str]) -> Answer {
    let until = Instant::now() + lock(state).actions.scale_sets.poll;
    let last: u64 = asked.parameter("lastMessageId").and_then(|id| id.parse().ok()).unwrap_or(0);
    loop {
        let bell = {
            let mut state = lock(state);
            let state = &mut *state;
            let Some(set) = state.actions.scale_sets.sets.get_mut(&id) else {
                return exception(404, "RunnerScaleSetNotFoundException", "no such scale set");
            };
            let Some(own) = set.session.as_mut().filter(|own| own.id == session) else {
                return exception(404, "RunnerScaleSetSessionExpiredException", "no such session");
            };
            if own.token != asked.secret {
                return Answer::error(401, "The token has expired");
            }
            own.heard = Instant::now();
            if let ("DELETE", [message]) = (asked.method.as_str(), rest) {
                set.messages.remove(&message.parse().unwrap_or(0));
                return Answer { status: 204, ..Answer::ok(Value::Null) };
            }
            let capacity =
                asked.headers.get("x-scalesetmaxcapacity").and_then(|value| value.to_str().ok()?.parse().ok());
            let Some(capacity) = capacity else { return Answer::error(400, "no capacity was told") };
            set.capacity = capacity;
            if let Some(message) = next_message(state, id, last) {
                return Answer::ok(message);
            }
            if Instant::now() >= until {
                return Answer { status: 202, ..Answer::ok(Value::Null) };
            }
            state.actions.runners.bell.clone()
        };
        let _ = timeout(Duration::from_millis(20), bell.notified()).await;
    }
}

/// The first message behind that number, made of what was not told yet where there is none.
fn next_message(state: &mut State, id: u64, last: u64) -> Option<Value> {
    let world = &state.world;
    let names = |repository: u64| world.by_id(repository).map(|one| one.full_name()).unwrap_or_default();
    state.actions.tick();
    state.actions.assign(&names);
    state.actions.bind();
    let actions = &mut state.actions;
    let (forgets, most) = (actions.scale_sets.forgets, actions.scale_sets.named);
    let set = actions.scale_sets.sets.get_mut(&id)?;
    if let Some((_, message)) = set.messages.range(last + 1..).next() {
        return Some(message.clone());
    }
    let mut items = Vec::new();
    for (job, assigned) in &mut set.jobs {
        let of = &actions.jobs[job];
        let is_over = of.status == Status::Completed;
        let words = [
            ("JobAvailable", assigned.is_offered && !assigned.is_assigned),
            ("JobAssigned", assigned.is_assigned),
            ("JobStarted", assigned.is_assigned && of.runner.is_some()),
            ("JobCompleted", assigned.is_assigned && is_over),
        ];
        for (at, (word, is_due)) in words.into_iter().enumerate() {
            if !is_due || assigned.told[at] || items.len() >= most && !forgets {
                continue;
            }
            assigned.told[at] = true;
            if items.len() >= most {
                continue;
            }
            let name = names(of.repository);
            let (owner, repository) = name.split_once('/').unwrap_or_default();
            let result = match of.conclusion.as_deref() {
                Some("success") => "succeeded",
                Some("cancelled") => "canceled",
                Some(_) => "failed",
                None => "",
            };
            let (runner, runner_name) = of.runner.clone().unwrap_or_default();
            items.push(json!({
                "messageType": word, "runnerRequestId": if word == "JobAvailable" { *job } else { 0 }, "jobId": guid(*job),
                "ownerName": owner, "repositoryName": repository, "jobDisplayName": of.name, "workflowRunId": 0,
                "jobWorkflowRef": format!("{name}/.github/workflows/ci.yml@refs/heads/main"), "eventName": "push",
                "requestLabels": of.labels, "queueTime": timestamp(of.created), "scaleSetAssignTime": timestamp(of.created),
                "runnerAssignTime": timestamp(of.created), "finishTime": timestamp(of.created), "acquireJobUrl": "",
                "runnerId": runner, "runnerName": runner_name, "result": result,
            }));
        }
    }
    if items.is_empty() {
        return None;
    }
    set.next_message += 1;
    let number = set.next_message;
    let statistics = statistics(state, id);
    let message = json!({
        "messageId": number, "messageType": "RunnerScaleSetJobMessages", "body": Value::Array(items).to_string(),
        "statistics": statistics,
    });
    state.actions.scale_sets.sets.get_mut(&id)?.messages.insert(number, message.clone());
    Some(message)
}
