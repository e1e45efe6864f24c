//! A workflow of the mesh, run by act: checkout, act, conclusion.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::pending;
use std::process::ExitStatus;

use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::act::{self, Inside, JobLine, Leg, Platform, Said};
use super::artifacts::{Served, TOKEN};
use super::backend::{self, Confined, Mount};
use super::engine::{Door, Engine, Rules};
use super::follow::{self, Cut, Ear, Source, Stage, told};
use super::lines::Line;
use super::places::Places;
use super::plan::Plan;
use super::run::Phase;
use super::tally::{Change, Tally, clip};
use super::{Capabilities, Devices, Isolation, Network, Workflow, payload, reaper, refuse};
use crate::kernel::entry::MAX_NOTE;
use crate::kernel::id::TaskId;
use crate::kernel::io::Report;
use crate::kernel::task::{Conclusion, Fence};

pub(crate) fn not_started(why: impl AsRef<str>) -> Report {
    Report::NotStarted { why: clip(why.as_ref(), MAX_NOTE) }
}

/// Runs it to its end, after which none of its processes is left.
pub(crate) async fn run(
    stage: &mut Stage,
    (task, fence): (TaskId, Fence),
    isolation: Isolation,
    work: Workflow,
    places: &Places,
    mark: &str,
) -> Report {
    let Workflow { workload, checkout, secrets, artifacts } = work;
    stage.log.mask(secrets.values().flatten());
    let host = stage.host.clone();
    if let Some(missing) = host.capabilities.missing(isolation).first() {
        return not_started(missing);
    }
    let checkout = checkout(places.checkout.clone());
    let plan = tokio::select! {
        biased;
        () = told(&mut stage.stop) => return Report::Stopped,
        () = sleep_until(stage.deadline) => {
            return not_started(format!("the checkout took longer than the time limit, {}", stage.limit));
        }
        made = checkout => match made {
            Ok(plan) => plan,
            Err(why) => return not_started(format!("checking out: {why}")),
        },
    };
    if let Some(why) = refuse(&plan, &host.capabilities, isolation) {
        return Report::Declined { why: clip(&why, MAX_NOTE) };
    }
    let repository = &workload.repository.name;
    for name in &plan.secrets {
        let why = match secrets.get(name) {
            Some(Ok(_)) => continue,
            Some(Err(why)) => format!("this host cannot read its secret `{name}` for {repository}: {why}"),
            None => format!("this host has no secret `{name}` for {repository}"),
        };
        return Report::Declined { why: clip(&why, MAX_NOTE) };
    }
    for (name, why) in secrets.iter().filter_map(|(name, secret)| Some((name, secret.as_ref().err()?))) {
        stage.log.note(&format!("without the secret `{name}`: {why}")).await;
    }
    let Ok(program) = &host.capabilities.act else { return Report::Declined { why: "act is missing".to_owned() } };
    let event = payload::event(&workload).to_string();
    if let Err(error) = tokio::fs::write(&places.event, event).await {
        return not_started(format!("writing the event: {error}"));
    }
    // JSON is YAML, which act reads by the file's ending; the other form it knows has no lines in its values.
    let secrets: BTreeMap<&String, &str> =
        secrets.iter().filter_map(|(name, secret)| Some((name, secret.as_ref().ok()?.expose()))).collect();
    let secrets = Zeroizing::new(serde_json::to_string(&secrets).unwrap_or_default());
    if let Err(error) = tokio::fs::write(&places.secrets, secrets.as_bytes()).await {
        return not_started(format!("writing the secrets: {error}"));
    }
    let engine = match isolation {
        Isolation::Container => host.capabilities.engine.as_ref().ok(),
        Isolation::Bwrap | Isolation::None => None,
    };
    let served = tokio::select! {
        biased;
        () = told(&mut stage.stop) => return Report::Stopped,
        served = Served::open(&host, isolation, engine, places, mark) => served,
    };
    if let Some(problem) = &served.problem {
        stage.log.note(problem).await;
    }
    let variables = served.variables();
    stage.log.mask(variables.get(TOKEN).into_iter());
    let variables: BTreeMap<&str, &str> = variables.iter().map(|(name, value)| (*name, value.expose())).collect();
    let variables = Zeroizing::new(serde_json::to_string(&variables).unwrap_or_default());
    if let Err(error) = tokio::fs::write(&places.variables, variables.as_bytes()).await {
        return not_started(format!("writing the variables: {error}"));
    }
    let door = match engine.map(|engine| open(stage, engine, mark, places, &served)) {
        None => None,
        Some(Ok(door)) => Some(door),
        Some(Err(error)) => return not_started(format!("opening a way to the container engine: {error}")),
    };
    if let Some(engine) = engine
        && plan.jobs.iter().any(|job| !job.container)
    {
        let there = tokio::select! {
            biased;
            () = told(&mut stage.stop) => return Report::Stopped,
            there = engine.has_image(&host.settings.image, host.settings.pull, &host.images) => there,
        };
        if let Err(why) = there {
            return not_started(why);
        }
    }
    let backend = backend::of(walls(isolation, &host.capabilities));
    let mut mounts = vec![
        Mount::read_only(&program.path, "/runmesh/act"),
        Mount::read_only(&places.checkout, "/runmesh/checkout"),
        Mount::read_only(&places.event, "/runmesh/event.json"),
        Mount::read_only(&places.empty, "/runmesh/empty"),
        Mount::read_only(&places.secrets, "/runmesh/secrets.yml"),
        Mount::read_only(&places.variables, "/runmesh/variables.yml"),
    ];
    let [act, checkout, event, empty, secrets, variables] =
        [0, 1, 2, 3, 4, 5].map(|at: usize| backend.seen(&mounts[at]));
    let mut environment = BTreeMap::new();
    if door.is_some() {
        let socket = Mount::writable(&places.door, "/runmesh/engine");
        let host: OsString = format!("unix://{}", backend.seen(&socket).display()).into();
        environment.insert("DOCKER_HOST".into(), host);
        mounts.push(socket);
    }
    let platform = Platform { labels: &host.capabilities.labels, image: engine.map(|_| host.settings.image.as_str()) };
    let inside = Inside { checkout, event, empty, secrets, variables };
    let confined = Confined {
        program: act,
        arguments: act::arguments(&inside, &workload, &task, &fence, platform),
        environment,
        mounts,
        directory: None,
        devices: Devices::are_asked_for(&workload.labels),
        input: None,
    };
    let invocation = backend.confine(&host.settings, places, &confined);
    let mut run = Run {
        plan: &plan,
        tally: Tally::new(&workload, &plan),
        timers: BTreeMap::new(),
        stepped: false,
        last_words: String::new(),
    };
    stage.phase(Phase::Running);
    let followed = follow::start(stage, &mut run, &invocation, None).await;
    let no_image = door.as_ref().and_then(Door::refused_image);
    drop(door);
    let (cut, status) = match followed {
        Ok((cut, Ok(status))) => (cut, status),
        Ok((_, Err(error))) => return not_started(format!("waiting for the reaper: {error}")),
        Err(error) => return not_started(format!("starting the reaper: {error}")),
    };
    let duration_ms = stage.elapsed_ms();
    let report = match cut {
        Some(Cut::Stopped | Cut::Retired(_)) => Report::Stopped,
        Some(Cut::TimedOut(note)) => Report::Finished { conclusion: Conclusion::TimedOut, duration_ms, note },
        None => match no_image {
            Some(image) if !run.stepped => not_started(format!(
                "the image {image} is not on this host, and its settings do not allow to fetch any"
            )),
            _ => run.conclude(status, duration_ms),
        },
    };
    if matches!(report, Report::Finished { .. }) {
        served.gather(&mut stage.log, artifacts).await;
    }
    report
}

/// What stands between act and the host.
fn walls(isolation: Isolation, host: &Capabilities) -> Isolation {
    match isolation {
        // In this case act runs nothing itself, it only asks for containers.
        Isolation::Container if host.bwrap.is_err() => Isolation::None,
        Isolation::Container => Isolation::Bwrap,
        other => other,
    }
}

fn open(stage: &Stage, engine: &Engine, mark: &str, places: &Places, served: &Served) -> std::io::Result<Door> {
    let settings = &stage.host.settings;
    let rules = Rules {
        mark: mark.to_owned(),
        node: stage.host.mark.clone(),
        limits: settings.limits,
        network: settings.network == Network::Host,
        pull: settings.pull,
        lane: served.lane.clone(),
    };
    let images = stage.host.images.clone();
    Door::open(&places.door, engine.clone(), rules, served.service.clone(), images)
}

/// What is known of a running act.
struct Run<'a> {
    plan: &'a Plan,
    tally: Tally,
    /// When each running job with a `timeout-minutes` has had its time, and what to say then.
    timers: BTreeMap<Leg, (Instant, String)>,
    /// Whether a step has run.
    stepped: bool,
    /// The last plain line on standard error: the reaper's or bwrap's, if act never spoke.
    last_words: String,
}

impl Ear for Run<'_> {
    type Other = ();

    async fn hear(&mut self, stage: &mut Stage, line: Line, source: Source) {
        if line.cut {
            let limit = act::LINE;
            stage.log.line(&format!("act: a line longer than {limit} bytes is not shown")).await;
            return;
        }
        match act::hear(&line.bytes) {
            Said::Debug => self.tally.own("", false),
            Said::Job(job) => {
                self.note(&job);
                // act's own step, in which it makes the containers, is none of the workflow's.
                self.stepped |= job.step_result.is_some() && job.step.as_deref() != Some("Set up job");
                if !job.debug || job.job_result.is_some() {
                    let step = job.step.as_deref().map(|step| format!("/{step}")).unwrap_or_default();
                    let at = stage.log.masked(&format!("{}{step}", job.leg.short()));
                    stage.log.line(&format!("[{at}] {}", job.text)).await;
                    stage.progress.send_if_modified(|progress| {
                        let changed = progress.step.as_ref() != Some(&at);
                        progress.step = Some(at);
                        changed
                    });
                }
            }
            Said::Own { text, severe } => {
                self.tally.own(&text, severe);
                // True of every run here, and no news: there is no engine, and what needs one was refused.
                if !text.starts_with("Couldn't get a valid docker connection") {
                    stage.log.line(&format!("act: {text}")).await;
                }
            }
            Said::Plain(text) => {
                if source == Source::Errors {
                    self.tally.plain(&text);
                    self.last_words = clip(&text, MAX_NOTE);
                }
                stage.log.line(&format!("act: {text}")).await;
            }
        }
    }

    /// When the first job's time is over.
    fn limit(&self) -> Option<(Instant, Cut)> {
        let first = self.timers.values().min_by_key(|(when, _)| *when);
        first.map(|(when, why)| (*when, Cut::TimedOut(why.clone())))
    }

    async fn other(&mut self) {
        pending().await
    }

    async fn on_other(&mut self, _: &mut Stage, (): ()) -> Option<Cut> {
        None
    }
}

impl Run<'_> {
    /// act does not enforce a job's `timeout-minutes`, so the node does, from the moment the job begins.
    fn note(&mut self, line: &JobLine) {
        match self.tally.job(line) {
            Some(Change::Began(leg)) if self.tally.is_own(&leg) => {
                let timeout = self.plan.jobs.iter().find(|job| job.id == leg.id).and_then(|job| job.timeout);
                if let Some(timeout) = timeout {
                    let (name, seconds) = (leg.short(), timeout.as_secs_f32());
                    let why = format!("job `{name}` ran longer than its timeout-minutes ({seconds} s)");
                    self.timers.insert(leg, (Instant::now() + timeout, why));
                }
            }
            Some(Change::Ended(leg)) => drop(self.timers.remove(&leg)),
            Some(Change::Began(_)) | None => (),
        }
    }

    fn conclude(&self, status: ExitStatus, duration_ms: u64) -> Report {
        // Without a code the reaper itself was killed, and with it all that it held.
        let Some(code) = status.code().and_then(|code| u8::try_from(code).ok()) else {
            return not_started("somebody killed the task's reaper");
        };
        if code == reaper::STOPPED {
            return not_started("somebody told the task's reaper to stop");
        }
        if !self.tally.spoke() {
            let words = if self.last_words.is_empty() { "it did not say why" } else { &self.last_words };
            return not_started(format!("starting act: {words} (status {code})"));
        }
        let (conclusion, note) = self.tally.conclude(self.plan, code);
        Report::Finished { conclusion, duration_ms, note }
    }
}
