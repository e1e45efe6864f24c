//! GitHub's own runner: ephemeral, configured just in time, in a fresh directory each time.
//!
//! Promises
//! - One runner takes one job at most, in a directory that was made for it and goes with it. Of an installation only
//!   programs are taken over, never its credentials or what a job left there.
//! - The configuration reaches it by its environment (`ACTIONS_RUNNER_INPUT_JITCONFIG`), which it clears for its jobs.
//! - Its hooks (<https://docs.github.com/actions/how-tos/manage-runners/self-hosted-runners/run-scripts>) say when a job
//!   begins and ends. From the beginning on, neither the idle time nor [`Retire`] ends it: only a stop and the limit do.
//! - GitHub may give a runner another job than the one it was started for. One of a fork's pull request is failed by
//!   the first hook, before any step of it, unless the settings let such jobs run.
//!
//! `bin/Runner.Listener` is started itself, not `run.sh`, which turns every exit status into 0 (`run-helper.sh` of the
//! runner). A status that says "again" is followed as that script does: after five seconds, a few times.
//!
//! Leaves to the daemon: what GitHub lists. Who wants a runner gone deletes its registration first, which GitHub refuses
//! for a busy one, and then says retire: so a job that was just given to it is not lost.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::backend::{self, Confined, Mount};
use super::engine::Boxed;
use super::follow::{self, Cut, Ear, Source, Stage, told};
use super::install;
use super::lines::{Line, Lines};
use super::places::Places;
use super::process::Invocation;
use super::run::Phase;
use super::tally::clip;
use super::{
    GithubRunner, Isolation, Outcome, Ran, Retire, RunnerEnd, RunnerEnding, RunnerExit, RunnerNews, SeenJob, reaper,
};
use crate::kernel::entry::MAX_NOTE;
use crate::kernel::id::TaskId;
use crate::kernel::task::Fence;

/// How often a runner that says "again" is started again, and after how long (`run-helper.sh` waits as long).
const AGAIN: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);
/// The most bytes of a hook's word.
const WORD: usize = 1024;
/// Where the runner, its hooks and their pipe are in a sandbox.
const ROOT: &str = "/runmesh/runner";
const HOOKS: &str = "/runmesh/hooks";
const NEWS: &str = "/runmesh/news";

/// Says what a runner does to whoever wants to know.
pub(crate) struct Herald {
    name: (TaskId, Fence),
    news: mpsc::Sender<Ran>,
}

impl Herald {
    pub(crate) fn new(name: (TaskId, Fence), news: mpsc::Sender<Ran>) -> Self {
        Self { name, news }
    }

    async fn say(&self, news: RunnerNews) {
        let (task, fence) = self.name;
        // Nobody listens only when everything ends.
        let _ = self.news.send((task, fence, Outcome::News(news))).await;
    }
}

/// Runs it to its end, after which none of its processes is left.
pub(crate) async fn run(
    stage: &mut Stage,
    isolation: Isolation,
    work: GithubRunner,
    places: &Places,
    retire: mpsc::Receiver<oneshot::Sender<Retire>>,
    herald: Herald,
    mark: &str,
) -> RunnerEnd {
    let mut end = RunnerEnd {
        name: work.name.clone(),
        how: RunnerEnding::NotStarted,
        job: None,
        job_completed: false,
        duration_ms: 0,
        note: String::new(),
    };
    let idle = Instant::now() + work.idle;
    match prepare(stage, isolation, &work, places, mark).await {
        Err(why) => end.note = why,
        Ok((what, boxed, news)) => {
            let watch = Watch {
                retire,
                herald,
                idle,
                news: Lines::new(news, WORD),
                pipe: places.news.clone(),
                job: None,
                completed: false,
                begun: false,
                said: String::new(),
            };
            let (watch, how, note) = watch.follow(stage, &what, boxed.as_ref()).await;
            end = RunnerEnd { how, note, job: watch.job, job_completed: watch.completed, ..end };
        }
    }
    end.duration_ms = stage.elapsed_ms();
    end
}

/// Makes the runner's directory and hooks.
async fn prepare(
    stage: &Stage,
    isolation: Isolation,
    work: &GithubRunner,
    places: &Places,
    mark: &str,
) -> Result<(Invocation, Option<Boxed>, pipe::Receiver), String> {
    let host = stage.host.clone();
    let installed = host.capabilities.runner.as_ref().map_err(Clone::clone)?;
    if let Some(missing) = host.capabilities.walls(isolation) {
        return Err(missing.to_owned());
    }
    if let (Isolation::Container, Ok(engine)) = (isolation, &host.capabilities.engine) {
        engine.has_image(&host.settings.image, host.settings.pull, &host.images).await?;
    }
    let backend = backend::of(isolation);
    let (root, hooks, pipe) = (places.runner.clone(), places.hooks.clone(), places.news.clone());
    let (from, shares, forks) = (installed.root.clone(), !backend.mounts(), host.settings.fork_pull_requests);
    let made = spawn_blocking(move || {
        make_hooks(&hooks, &pipe, forks)?;
        install::populate(&from, &root, shares)
    });
    made.await
        .map_err(io::Error::other)
        .flatten()
        .map_err(|error| format!("making the runner's directory: {error}"))?;
    let news = pipe::OpenOptions::new().read_write(true).open_receiver(&places.news);
    let news = news.map_err(|error| format!("opening the hooks' pipe: {error}"))?;
    let mut mounts = vec![
        Mount::writable(&places.runner, ROOT),
        Mount::read_only(&places.hooks, HOOKS),
        Mount::writable(&places.news, NEWS),
    ];
    let [root, hooks, pipe] = [0, 1, 2].map(|at: usize| backend.seen(&mounts[at]));
    if backend.mounts() {
        let programs = install::PROGRAMS.map(|part| (installed.root.join(part), Path::new(ROOT).join(part)));
        let there = programs.iter().filter(|(outside, _)| outside.is_dir());
        mounts.extend(there.map(|(outside, inside)| Mount::read_only(outside, inside)));
    }
    let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: OsString| drop(environment.insert(name.into(), value));
    set("ACTIONS_RUNNER_INPUT_JITCONFIG", work.jit.expose().into());
    set("ACTIONS_RUNNER_HOOK_JOB_STARTED", hooks.join("started.sh").into());
    set("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", hooks.join("completed.sh").into());
    set("RUNMESH_NEWS", pipe.into());
    set("RUNMESH_RUNNER", root.clone().into());
    let is_root = rustix::process::getuid().is_root();
    if isolation == Isolation::Container || (isolation == Isolation::None && is_root) {
        set("RUNNER_ALLOW_RUNASROOT", "1".into());
    }
    let confined = Confined {
        program: root.join(install::LISTENER),
        arguments: vec!["run".into()],
        environment,
        mounts,
        directory: Some(root),
        devices: work.devices,
        input: None,
    };
    let boxed = backend::boxed(&host, isolation, places, &confined, mark);
    Ok((backend.confine(&host.settings, places, &confined), boxed, news))
}

/// Scripts that say what the runner does into the pipe. They never fail: a hook that does fails the job. But for the one
/// that is meant to.
fn make_hooks(hooks: &Path, pipe: &Path, fork_pull_requests: bool) -> io::Result<()> {
    let started = "printf 'started %s %s %s %s\\n' \"$GITHUB_REPOSITORY\" \"${GITHUB_RUN_ID:-0}\" \
                   \"${GITHUB_RUN_ATTEMPT:-0}\" \"$GITHUB_JOB\" >>\"$RUNMESH_NEWS\" || true\n";
    let guard = if fork_pull_requests { "" } else { GUARD };
    let scripts = [
        ("started.sh", format!("#!/bin/sh\n{started}{guard}")),
        ("completed.sh", "#!/bin/sh\nprintf 'completed\\n' >>\"$RUNMESH_NEWS\" || true\n".to_owned()),
    ];
    for (name, text) in scripts {
        let path = hooks.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o555))?;
    }
    mknodat(CWD, pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    Ok(())
}

/// Fails a job of a pull request whose code is not the repository's own. The event is JSON that strangers have written
/// parts of, so it is read as such, by the node that every runner brings along; where that is missing, by nobody.
const GUARD: &str = r#"case $GITHUB_EVENT_NAME in
pull_request*)
    for node in "$RUNMESH_RUNNER"/externals/node*/bin/node; do [ -x "$node" ] && break; done
    "$node" -e '
        const event = JSON.parse(require("fs").readFileSync(process.env.GITHUB_EVENT_PATH, "utf8"));
        const head = event.pull_request && event.pull_request.head && event.pull_request.head.repo;
        process.exit(head && event.repository && head.id === event.repository.id ? 0 : 1);
    ' || {
        echo "runmesh: this host runs no pull requests from forks (fork_pull_requests)" >&2
        exit 1
    }
    ;;
esac
"#;

/// What is known of a running runner.
struct Watch {
    retire: mpsc::Receiver<oneshot::Sender<Retire>>,
    herald: Herald,
    /// When it is retired if it has no job.
    idle: Instant,
    news: Lines<pipe::Receiver>,
    /// The path of that pipe.
    pipe: PathBuf,
    job: Option<SeenJob>,
    completed: bool,
    begun: bool,
    /// Its last line on standard error.
    said: String,
}

/// What happens besides lines.
enum Other {
    /// A hook's word.
    Word(Option<Line>),
    /// Somebody wants it gone if it has no job.
    Retire(Option<oneshot::Sender<Retire>>),
}

impl Watch {
    /// Starts it, again where it says so, and stays to the end.
    async fn follow(
        mut self,
        stage: &mut Stage,
        what: &Invocation,
        boxed: Option<&Boxed>,
    ) -> (Self, RunnerEnding, String) {
        stage.phase(Phase::Waiting);
        for tries in 0.. {
            let (how, note) = self.follow_once(stage, what, boxed).await;
            let again = how == RunnerEnding::Exited(RunnerExit::Retryable) && self.job.is_none() && tries < AGAIN;
            if !again {
                return (self, how, note);
            }
            stage.log.note("the runner says that another try may help; it is started again").await;
            stage.log.flush().await;
            tokio::select! {
                () = sleep(PAUSE) => (),
                () = told(&mut stage.stop) => return (self, RunnerEnding::Stopped, String::new()),
                () = sleep_until(stage.deadline) => return (self, RunnerEnding::TimedOut, stage.limit.clone()),
            }
        }
        unreachable!("the loop has no other end")
    }

    async fn follow_once(
        &mut self,
        stage: &mut Stage,
        what: &Invocation,
        boxed: Option<&Boxed>,
    ) -> (RunnerEnding, String) {
        let (cut, status) = match follow::start(stage, self, what, boxed).await {
            Err(error) => return (RunnerEnding::NotStarted, format!("starting the reaper: {error}")),
            Ok((_, Err(error))) => return (RunnerEnding::NotStarted, format!("waiting for the reaper: {error}")),
            Ok((cut, Ok(status))) => (cut, status),
        };
        match cut {
            Some(Cut::Stopped) => return (RunnerEnding::Stopped, String::new()),
            Some(Cut::TimedOut(why)) => return (RunnerEnding::TimedOut, why),
            Some(Cut::Retired(why)) => return (RunnerEnding::Retired, why),
            None => (),
        }
        self.last_words(stage).await;
        let exit = match status.code().and_then(|code| u8::try_from(code).ok()) {
            None | Some(reaper::STOPPED) => RunnerExit::Killed,
            Some(reaper::UNABLE) => return (RunnerEnding::NotStarted, std::mem::take(&mut self.said)),
            Some(code) => RunnerExit::of(code),
        };
        let note = if exit == RunnerExit::Done { String::new() } else { std::mem::take(&mut self.said) };
        (RunnerEnding::Exited(exit), note)
    }

    /// Reads what hooks have said when nobody is left to say more: up to a word of its own.
    async fn last_words(&mut self, stage: &mut Stage) {
        let pipe = self.pipe.clone();
        let said = pipe::OpenOptions::new().open_sender(pipe).and_then(|end| end.try_write(b"\nend\n"));
        if said.is_err() {
            return;
        }
        let read = async {
            while let Some(line) = self.news.next().await {
                if line.bytes == b"end" {
                    break;
                }
                self.word(stage, &line.bytes).await;
            }
        };
        // A job that fills the pipe may keep its secrets.
        let _ = timeout(PAUSE, read).await;
    }

    async fn word(&mut self, stage: &mut Stage, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["started", repository, run, attempt, job] if self.job.is_none() => {
                let job = SeenJob {
                    repository: repository.to_owned(),
                    run_id: run.parse().unwrap_or_default(),
                    run_attempt: attempt.parse().unwrap_or_default(),
                    job: job.to_owned(),
                };
                stage.log.note(&format!("job {} of {} run {} begins", job.job, job.repository, job.run_id)).await;
                stage.progress.send_modify(|progress| {
                    progress.phase = Phase::Running;
                    progress.step = Some(format!("{}/{}", job.repository, job.job));
                });
                self.job = Some(job.clone());
                self.herald.say(RunnerNews::JobStarted(job)).await;
            }
            ["completed"] if self.job.is_some() && !self.completed => {
                self.completed = true;
                stage.log.note("the job is done").await;
                self.herald.say(RunnerNews::JobCompleted).await;
            }
            _ => (),
        }
    }
}

impl Ear for Watch {
    type Other = Other;

    async fn begun(&mut self) {
        if !self.begun {
            self.begun = true;
            self.herald.say(RunnerNews::Started).await;
        }
    }

    async fn hear(&mut self, stage: &mut Stage, line: Line, source: Source) {
        let text = String::from_utf8_lossy(&line.bytes);
        let more = if line.cut { " … (line cut)" } else { "" };
        stage.log.line(&format!("runner: {}{more}", text.trim_end())).await;
        if source == Source::Errors && !text.trim().is_empty() {
            self.said = clip(text.trim(), MAX_NOTE);
        }
    }

    fn limit(&self) -> Option<(Instant, Cut)> {
        self.job.is_none().then(|| (self.idle, Cut::Retired("it had no job in its time".to_owned())))
    }

    async fn other(&mut self) -> Other {
        tokio::select! {
            biased;
            line = self.news.next() => Other::Word(line),
            ask = self.retire.recv() => Other::Retire(ask),
        }
    }

    async fn on_other(&mut self, stage: &mut Stage, other: Other) -> Option<Cut> {
        match other {
            Other::Word(Some(line)) => self.word(stage, &line.bytes).await,
            Other::Retire(Some(ask)) => {
                let busy = self.job.is_some();
                // Who asked and went does not want to know.
                let _ = ask.send(if busy { Retire::Busy } else { Retire::Going });
                return (!busy).then(|| Cut::Retired("it was asked to, and had no job".to_owned()));
            }
            // It cannot end, being open for writing here too; and nobody can ask any more when the supervisor goes.
            Other::Word(None) | Other::Retire(None) => return Some(Cut::Stopped),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Stands for node, which a host of tests need not have: it reads the event that the guard names, and judges alike.
    const NODE: &str = r#"#!/usr/bin/env python3
import json, os, sys
assert sys.argv[1] == "-e" and "head.id === event.repository.id" in sys.argv[2]
event = json.load(open(os.environ["GITHUB_EVENT_PATH"]))
head = event.get("pull_request", {}).get("head", {}).get("repo")
sys.exit(0 if head and head["id"] == event["repository"]["id"] else 1)
"#;

    /// How the hook that runs before a job ends, and what it has said.
    fn begin(event: &str, text: &str, fork_pull_requests: bool, has_node: bool) -> (bool, String) {
        let place = tempfile::tempdir().expect("a directory");
        let (hooks, root) = (place.path().join("hooks"), place.path().join("runner"));
        fs::create_dir(&hooks).expect("a directory");
        if has_node {
            let node = root.join("externals/node20/bin/node");
            fs::create_dir_all(node.parent().expect("a folder")).expect("made");
            fs::write(&node, NODE).expect("written");
            fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).expect("made");
        }
        fs::write(place.path().join("event.json"), text).expect("written");
        make_hooks(&hooks, &place.path().join("pipe"), fork_pull_requests).expect("made");
        let mut hook = Command::new(hooks.join("started.sh"));
        hook.env("GITHUB_EVENT_NAME", event).env("GITHUB_EVENT_PATH", place.path().join("event.json"));
        hook.env("GITHUB_REPOSITORY", "o/r").env("GITHUB_JOB", "a").env("RUNMESH_RUNNER", &root);
        let news = place.path().join("news");
        let ended = hook.env("RUNMESH_NEWS", &news).output().expect("it runs");
        (ended.status.success(), fs::read_to_string(news).expect("said"))
    }

    #[test]
    fn a_job_of_a_forks_pull_request_fails_before_its_first_step_unless_a_setting_lets_it_run() {
        let own = r#"{"repository": {"id": 7}, "pull_request": {"head": {"repo": {"id": 7}}}}"#;
        let fork = r#"{"repository": {"id": 7}, "pull_request": {"head": {"repo": {"id": 8}}}}"#;
        let gone = r#"{"repository": {"id": 7}, "pull_request": {"head": {"repo": null}}}"#;
        for (event, text, fork_pull_requests, has_node, runs) in [
            ("push", "{}", false, false, true),
            ("pull_request", own, false, true, true),
            ("pull_request", fork, false, true, false),
            ("pull_request_target", fork, false, true, false),
            ("pull_request", gone, false, true, false),
            ("pull_request", "no JSON", false, true, false),
            ("pull_request", own, false, false, false),
            ("pull_request", fork, true, false, true),
        ] {
            let (went_on, said) = begin(event, text, fork_pull_requests, has_node);
            assert_eq!(went_on, runs, "{event} {text} {fork_pull_requests} {has_node}");
            assert_eq!(said, "started o/r 0 0 a\n", "who has the job is said in any case");
        }
    }
}
