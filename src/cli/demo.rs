//! `runmesh demo`: three nodes on this machine discover, agree, run and survive, told as it happens.
//!
//! Promises that it succeeds only if every task reached the conclusion it should and all nodes hold the same state in the
//! end, and that it leaves neither a process nor a directory behind, however it ends. Everything it shows happens in
//! real `runmesh node run` processes that know each other only through the mesh; this process asks them through their
//! control API, as any person could.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::args::DemoArguments;
use super::failure::Failure;
use super::screen::{Paint, Screen, count, workflow};
use crate::control::proto::{Status, Task};
use crate::runner::{Capabilities, Isolation, Settings};

mod crew;
mod samples;
mod stage;
mod story;
mod verdict;
mod workplace;

use self::crew::{Crew, Outfit, settings_file};
use self::samples::{Expected, LONG, SAMPLES};
use self::stage::Stage;
use self::story::{Story, letter};
use self::verdict::{Verdict, agree, proof};
use self::workplace::{Workplace, deserted};

/// How many nodes play.
const NODES: usize = 3;
/// The most tasks at once of each.
const RUNNERS: &str = "2";
/// Seconds between two looks at a source.
const INTERVAL: &str = "2";
/// Where nodes listen: a free port of this machine only.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";
/// How long the mesh may take to form, to take over a task, and to take a node back.
const SHORT: Duration = Duration::from_secs(30);
/// How long the sample tasks may take, and tasks of given repositories.
const SAMPLES_TIME: Duration = Duration::from_secs(120);
const GIVEN_TIME: Duration = Duration::from_secs(3600);
/// How long a task has run when its node is killed, so that there is something to lose.
const CAUGHT: Duration = Duration::from_secs(3);
/// How long nothing new may be found before that counts as everything.
const QUIET: Duration = Duration::from_secs(4);

/// Plays the demo.
pub(super) async fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let screen = Screen::stdout();
    let paths = given(&arguments.paths)?;
    let isolation = isolation(arguments).await?;
    let place = Workplace::make(arguments.keep)?;
    let play = Play { screen, place, paths, act: arguments.act.clone(), isolation };
    let crew = Crew::new(play.outfit()?, NODES);
    let mut stage = Stage::open(screen, crew, Story::new(screen, play.remarks()))?;
    let played = play.play(&mut stage).await;
    let closed = stage.close().await;
    if play.place.is_kept() {
        stage.say(&format!("\nRepositories, data directories and logs are kept in {}", play.place.path().display()));
    }
    let verdict = played?;
    closed?;
    deserted(play.place.path()).await?;
    verdict.holds()?;
    stage.say(&format!("\n{}", verdict.sentence(screen, NODES, stage.elapsed())));
    Ok(())
}

/// The given paths, absolute.
fn given(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let absolute = |path: &PathBuf| match path.canonicalize() {
        Ok(folder) if folder.is_dir() => Ok(folder),
        Ok(_) => Err(Failure::usage(format!("{} is not a folder", path.display()))),
        Err(error) => Err(Failure::usage(format!("cannot use {}", path.display())).because(&error)),
    };
    paths.iter().map(absolute).collect()
}

/// What keeps tasks away from this machine. Only the demo's own samples may run without anything.
async fn isolation(arguments: &DemoArguments) -> Result<Isolation, Failure> {
    let mut settings = Settings::new(std::env::temp_dir());
    settings.act.clone_from(&arguments.act);
    let here = Capabilities::probe(&settings).await;
    here.act.map_err(|why| {
        Failure::failed("no working `act`, the program that runs workflow files")
            .because(&Sentence(why))
            .hint("scripts/demo fetches it; or install it and put it on PATH, or name it with --act")
    })?;
    match (here.bwrap, arguments.paths.is_empty()) {
        (Ok(_), _) => Ok(Isolation::Bwrap),
        (Err(_), true) => Ok(Isolation::None),
        (Err(why), false) => Err(Failure::failed("your repositories' workflows are not run without isolation")
            .because(&Sentence(why))
            .hint(
                "install bubblewrap (Debian: apt-get install bubblewrap); without PATHs the demo runs its own samples",
            )),
    }
}

/// The peer id in what `mesh init` and `mesh join` print.
fn peer_id(home: &str) -> Result<String, Failure> {
    let home: serde_json::Value = serde_json::from_str(home)
        .map_err(|error| Failure::failed("cannot read what `runmesh mesh` printed").because(&error))?;
    let peer_id = home.get("peer_id").and_then(serde_json::Value::as_str);
    peer_id.map(str::to_owned).ok_or_else(|| Failure::failed("`runmesh mesh` printed no peer_id"))
}

/// A sentence as a cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Sentence(String);

/// What is played, and where.
struct Play {
    screen: Screen,
    place: Workplace,
    /// Given by the person, absolute; empty for the samples.
    paths: Vec<PathBuf>,
    act: Option<PathBuf>,
    isolation: Isolation,
}

impl Play {
    fn samples(&self) -> bool {
        self.paths.is_empty()
    }

    fn repositories(&self) -> PathBuf {
        self.place.path().join("repositories")
    }

    /// What the nodes are started with.
    fn outfit(&self) -> Result<Outfit, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed("cannot tell where this program is").because(&error))?;
        let settings = settings_file(self.place.path());
        std::fs::write(&settings, "")
            .map_err(|error| Failure::failed(format!("cannot write {}", settings.display())).because(&error))?;
        let isolation = self.isolation.to_string();
        let fixed = ["--max-runners", RUNNERS, "--interval", INTERVAL, "--isolation", &isolation];
        let mut words: Vec<String> = fixed.map(str::to_owned).to_vec();
        let sources = if self.samples() { vec![self.repositories()] } else { self.paths.clone() };
        words.extend(sources.iter().map(|source| format!("--source=git:{}", source.display())));
        words.extend(self.act.iter().map(|act| format!("--act={}", act.display())));
        Ok(Outfit { program, folder: self.place.path().to_owned(), words })
    }

    /// What is special about the samples, for the story.
    fn remarks(&self) -> BTreeMap<String, &'static str> {
        let remark = |sample: &samples::Sample| match sample.expected {
            Expected::Conclusion(_, remark) => Some((workflow(sample.repository, &sample.path()), remark)),
            Expected::NoTask(_) => None,
        };
        if self.samples() { SAMPLES.iter().filter_map(remark).collect() } else { BTreeMap::new() }
    }

    /// All acts, in their order.
    async fn play(&self, stage: &mut Stage) -> Result<Verdict, Failure> {
        self.prologue(stage)?;
        let title = if self.samples() { "The mesh forms" } else { "The mesh forms; its first node begins at once" };
        stage.act(title).await?;
        let listen = self.gather(stage).await?;
        stage.act("Work is found, shared out and run").await?;
        let victim = self.work(stage).await?;
        let verdict = self.finish(stage).await?;
        stage.act(&format!("{} comes back and learns what it has missed", letter(victim))).await?;
        self.come_back(stage, victim, &listen[victim]).await?;
        stage.act("What came of the tasks").await?;
        stage.say(verdict.table(self.screen).trim_end());
        let left_alone = verdict.left_alone(self.screen);
        if !left_alone.is_empty() {
            stage.say(&format!("\n{}", left_alone.trim_end()));
        }
        Ok(verdict)
    }

    fn prologue(&self, stage: &Stage) -> Result<(), Failure> {
        let title = self.screen.paint(Paint::Strong, "runmesh demo");
        stage.say(&format!("{title}  three nodes on this machine, and nobody in charge\n"));
        if self.samples() {
            samples::found(&self.repositories())?;
            stage.say("Four sample git repositories wait for their first workflows.");
        } else {
            let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
            stage.say(&format!("The workflows come from {}.", paths.join(", ")));
        }
        stage.say(
            "Each node is a process of its own, with its own identity and database; there is no server.\n\
             A task goes to the node whose name is closest to the task's number, counted in bits that differ.\n\
             Every node can work that out alone, and all come to the same answer.",
        );
        if self.isolation == Isolation::None {
            let note = "bubblewrap does not work here, so the samples run without a sandbox.";
            stage.say(&self.screen.paint(Paint::Warn, note));
        }
        Ok(())
    }

    /// Makes a mesh of all nodes; answers where each listens.
    async fn gather(&self, stage: &mut Stage) -> Result<Vec<Vec<String>>, Failure> {
        let mut listen = Vec::new();
        for node in 0..NODES {
            let (home, how) = if node == 0 {
                (stage.crew.command(0, &["mesh", "init", "--output", "json"]).await?, "makes a mesh")
            } else {
                let ticket = stage.crew.command(0, &["mesh", "invite"]).await?;
                let join = ["mesh", "join", "--output", "json", &ticket];
                (stage.crew.command(node, &join).await?, "comes with a ticket from A")
            };
            let peer_id = peer_id(&home)?;
            stage.introduce(node, &peer_id);
            stage.tell(node, &format!("{how}; its name is {}", self.screen.paint(Paint::Faint, &peer_id)));
            let status = stage.start(node, &[LISTEN.to_owned()]).await?;
            // A name in an address is for those who dial it.
            let own = |address: &String| address.split("/p2p/").next().unwrap_or_default().to_owned();
            listen.push(status.listen.iter().map(own).collect());
        }
        let wait = stage.wait(SHORT, "the nodes to hear each other");
        let whole =
            |(_, status): &(usize, Status)| status.peers as usize == NODES - 1 && status.members as usize == NODES;
        while !stage.statuses().await?.iter().all(whole) {
            stage.watch(&wait).await?;
        }
        Ok(listen)
    }

    /// Lets work be found and run, and kills a node that is at it. Answers which.
    async fn work(&self, stage: &mut Stage) -> Result<usize, Failure> {
        if self.samples() {
            samples::push(&self.repositories())?;
            stage.say(&format!("  {} workflow files are pushed to the four repositories", SAMPLES.len()));
        }
        let Some((task, victim)) = self.catch(stage).await? else {
            let victim = NODES - 1;
            stage.act("A node dies").await?;
            stage.kill(victim).await?;
            stage.tell(victim, "is killed (kill -9); no task ran long enough to be caught at it");
            return Ok(victim);
        };
        let name = workflow(&task.repository, &task.path);
        stage.act("A node dies at work").await?;
        stage.kill(victim).await?;
        stage.tell(victim, &format!("is killed (kill -9) while it runs {name}"));
        let wait = stage.wait(SHORT, format!("another node to take over {name}"));
        while !stage.tasks().await?.iter().any(|now| now.id == task.id && now.attempt > task.attempt) {
            stage.watch(&wait).await?;
        }
        deserted(&stage.crew.data_dir(victim)).await?;
        Ok(victim)
    }

    /// The task during which its node is killed, and that node; none when everything ended too soon.
    async fn catch(&self, stage: &mut Stage) -> Result<Option<(Task, usize)>, Failure> {
        let samples = self.samples();
        let wanted = |task: &Task| !samples || (task.repository.as_str(), task.path.as_str()) == LONG;
        let wait = stage.wait(if samples { SHORT } else { GIVEN_TIME }, "a node to run a task");
        loop {
            if let Some(caught) = stage.caught(CAUGHT, wanted).await? {
                return Ok(Some(caught));
            }
            if !samples && stage.quiet() > QUIET && stage.all_discovered().await? {
                let tasks = stage.tasks().await?;
                if tasks.is_empty() {
                    return Err(Failure::failed("no workflow with a tag for the mesh was found in the given paths")
                        .hint("a comment `# P2P: p2p-only` in a file below .github/workflows makes it one"));
                }
                if Verdict::new(tasks, BTreeMap::new(), false).is_stuck() {
                    return Ok(None);
                }
            }
            stage.watch(&wait).await?;
        }
    }

    /// Waits until all tasks have ended and the live nodes agree on it, and shows that they do.
    async fn finish(&self, stage: &mut Stage) -> Result<Verdict, Failure> {
        let wait = stage.wait(if self.samples() { SAMPLES_TIME } else { GIVEN_TIME }, "all tasks to end");
        loop {
            let verdict = Verdict::new(stage.tasks().await?, stage.names(), self.samples());
            let statuses = stage.statuses().await?;
            let stuck = !self.samples() && verdict.is_stuck() && stage.quiet() > QUIET;
            if (verdict.is_final() || stuck) && agree(&statuses) {
                let what = if verdict.is_final() { "All tasks have ended" } else { "No node can run what is left" };
                stage.act(&format!("{what}, and the {} agree", count(statuses.len(), "live node"))).await?;
                stage.say(proof(self.screen, &statuses).trim_end());
                return Ok(verdict);
            }
            stage.watch(&wait).await?;
        }
    }

    /// Starts the killed node again, where it listened before, and waits until it has caught up.
    async fn come_back(&self, stage: &mut Stage, victim: usize, listen: &[String]) -> Result<(), Failure> {
        stage.tell(victim, "is started again, with its old data directory");
        stage.start(victim, listen).await?;
        let wait = stage.wait(SHORT, format!("node {} to catch up", letter(victim)));
        loop {
            let statuses = stage.statuses().await?;
            if statuses.len() == NODES && agree(&statuses) {
                stage.settle().await?;
                stage.say(proof(self.screen, &statuses).trim_end());
                return Ok(());
            }
            stage.watch(&wait).await?;
        }
    }
}
