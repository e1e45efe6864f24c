//! The ledger of starts: what was under way when a node was killed is found by its records, wherever the next life would
//! look by its settings, and nothing of it is left.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use runmesh::kernel::id::{MeshId, PeerId};
use runmesh::kernel::io::Report;
use runmesh::runner::{Book, Isolation, Ledger, Phase, Plan, PlannedJob, Start, Supervisor};
use runmesh::store::{self, DataDir, Owner, Store};

use crate::podman::Podman;
use crate::rig::{PATIENCE, Rig, files, nap, one, order, processes, script, settings, wait};

/// A real database.
struct OnDisk {
    store: Store,
    /// What happens once a record is entered.
    then: Then,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    /// Nothing more in this process's life.
    Halt,
}

impl OnDisk {
    fn open(dir: &Path, then: Then) -> Arc<Self> {
        let owner = Owner { mesh: MeshId([1; 32]), peer: PeerId::from_public_key([2; 32]) };
        let held = DataDir::create(dir).unwrap().hold().unwrap();
        Arc::new(Self { store: Store::open(held, owner).unwrap(), then })
    }

    fn starts(&self) -> Vec<Start> {
        let records = self.records(Book::Starts).unwrap();
        records.iter().map(|(_, record)| Start::read(record).unwrap()).collect()
    }
}

const fn book(book: Book) -> store::Book {
    match book {
        Book::Starts => store::Book::Starts,
        Book::Images => store::Book::Images,
    }
}

impl Ledger for OnDisk {
    fn enter(&self, of: Book, name: &str, record: &[u8]) -> Result<(), String> {
        self.store.enter(book(of), name, record).map_err(|error| error.to_string())?;
        if self.then == Then::Halt {
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }

    fn strike(&self, of: Book, name: &str) -> Result<(), String> {
        self.store.strike(book(of), &[name]).map_err(|error| error.to_string())
    }

    fn records(&self, of: Book) -> Result<Vec<(String, Vec<u8>)>, String> {
        self.store.records(book(of)).map_err(|error| error.to_string())
    }
}

/// What the node process below is told by its environment.
const DIRECTORY: &str = "RUNMESH_TEST_LEDGER";
const SOCKET: &str = "RUNMESH_TEST_LEDGER_SOCKET";
const NAP: &str = "RUNMESH_TEST_LEDGER_NAP";

/// Not a test of its own: the node that the others kill.
#[tokio::test]
async fn ledger_node_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let socket = std::env::var_os(SOCKET).map(PathBuf::from);
    let mut settings = settings(&directory.join("work"));
    let then = if socket.is_some() { Then::GoOn } else { Then::Halt };
    settings.ledger = OnDisk::open(&directory.join("data"), then);
    let isolation = if socket.is_some() { Isolation::Container } else { Isolation::Bwrap };
    settings.engine = socket;
    settings.image = crate::podman::IMAGE.to_owned();
    let (supervisor, _reports) = Supervisor::open(settings).await.unwrap();
    let brood = std::env::var(NAP).unwrap();
    let text = script(&format!("(setsid sleep {brood} &); sleep {brood}"));
    let plan = Plan {
        jobs: one().jobs.into_iter().map(|job| PlannedJob { container: true, ..job }).collect(),
        ..Plan::default()
    };
    supervisor.handle().start(order(1, isolation, &directory.join("log"), files(&text, plan))).await.unwrap();
    tokio::time::sleep(PATIENCE).await;
}

/// A process that does not outlive its test.
struct Mortal(Child);

impl Mortal {
    fn start(directory: &Path, socket: Option<&Path>, brood: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "ledger::ledger_node_process"]).env(DIRECTORY, directory).env(NAP, brood);
        if let Some(socket) = socket {
            command.env(SOCKET, socket);
        }
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// With SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    // act and the probe of its version keep settings in the home they are given.
    names.filter(|name| name != ".config" && name != ".cache").collect()
}

/// A node with a container at work, killed.
async fn killed_at_work(engine: &Podman, directory: &Path, brood: &str) {
    let node = Mortal::start(directory, Some(&engine.socket()), brood);
    wait("two sleepers", || processes(&format!("sleep\0{brood}")).len() >= 2).await;
    node.kill();
    assert_ne!(engine.left(), [""; 0], "there is something to clear");
}

#[tokio::test]
async fn a_killed_nodes_work_is_found_with_another_engine_and_another_work_directory_in_the_settings() {
    let engine = Podman::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let brood = nap(400);
    killed_at_work(&engine, scratch.path(), &brood).await;
    assert_eq!(entries(&scratch.path().join("work")).len(), 1);

    let ledger = OnDisk::open(&scratch.path().join("data"), Then::GoOn);
    assert_eq!(ledger.starts().len(), 1, "it was on disk");
    let mut elsewhere = settings(&scratch.path().join("other"));
    elsewhere.ledger = ledger.clone();
    elsewhere.engine = Some("/nonexistent/socket".into());
    let (next, _reports) = Supervisor::open(elsewhere).await.unwrap();
    let [earlier] = next.earlier() else { panic!("{:?}", next.earlier()) };
    assert_eq!((earlier.start.repository.as_str(), earlier.left.len()), ("lab/tools", 0), "{earlier:?}");
    assert_eq!((earlier.start.executor.as_str(), earlier.start.isolation), ("act", Isolation::Container));
    assert_eq!(engine.left(), [""; 0]);
    assert_eq!(processes(&format!("sleep\0{brood}")), [0; 0]);
    assert_eq!(entries(&scratch.path().join("work")), [""; 0]);
    assert_eq!(ledger.starts(), []);
    assert!(next.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn what_an_engine_that_is_off_still_has_is_said_and_goes_when_it_answers() {
    let mut engine = Podman::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let brood = nap(410);
    killed_at_work(&engine, scratch.path(), &brood).await;
    engine.fall_silent();

    let ledger = OnDisk::open(&scratch.path().join("data"), Then::GoOn);
    let mut again = settings(&scratch.path().join("work"));
    again.ledger = ledger.clone();
    again.engine = Some(engine.socket());
    again.round = Duration::from_millis(200);
    let (next, _reports) = Supervisor::open(again).await.unwrap();
    assert!(next.earlier()[0].left[0].contains("does not answer"), "{:?}", next.earlier());
    let shown = next.handle().running().await.unwrap();
    assert!(shown[0].phase == Phase::Left && shown[0].left[0].contains("does not answer"), "{shown:?}");
    assert_eq!(ledger.starts().len(), 1, "not forgotten");
    engine.answer_again().await;
    wait("nothing owed", || ledger.starts().is_empty()).await;
    assert_eq!(engine.left(), [""; 0]);
    assert_eq!(processes(&format!("sleep\0{brood}")), [0; 0]);
    let deadline = std::time::Instant::now() + PATIENCE;
    while !next.handle().running().await.unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "it is shown no more");
    }
    assert!(next.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn a_kill_between_the_record_and_the_start_leaves_a_record_that_is_struck_out() {
    let scratch = tempfile::tempdir().unwrap();
    let node = Mortal::start(scratch.path(), None, &nap(420));
    // Its log is made after the record.
    let database = scratch.path().join("data/runmesh.redb");
    let work = scratch.path().join("work");
    let entered = || std::fs::read(&database).is_ok_and(|bytes| bytes.windows(9).any(|part| part == b"lab/tools"));
    wait("the record is on disk", entered).await;
    node.kill();
    assert_eq!((entries(&work), scratch.path().join("log").exists()), (Vec::new(), false), "nothing was started");

    let ledger = OnDisk::open(&scratch.path().join("data"), Then::GoOn);
    assert_eq!(ledger.starts().len(), 1);
    let mut again = settings(&work);
    again.ledger = ledger.clone();
    let (next, _reports) = Supervisor::open(again).await.unwrap();
    assert_eq!((next.earlier().len(), &next.earlier()[0].left), (1, &Vec::new()));
    assert_eq!(ledger.starts(), []);
    assert!(next.shutdown(PATIENCE).await);
}

/// A ledger whose disk is full.
struct Full;

impl Ledger for Full {
    fn enter(&self, _: Book, _: &str, _: &[u8]) -> Result<(), String> {
        Err("no room".to_owned())
    }

    fn strike(&self, _: Book, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn records(&self, _: Book) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn what_cannot_be_put_on_disk_is_not_started() {
    let mut rig = Rig::with(|settings| settings.ledger = Arc::new(Full)).await;
    let report = rig.run(Isolation::None, &script("echo ran"), one()).await;
    assert_eq!(report, Report::NotStarted { why: "noting what is to be started: no room".to_owned() });
    assert!(!rig.log_path(1).exists());
    rig.close().await;
}

#[tokio::test]
async fn an_order_is_in_the_ledger_while_it_is_here_and_no_longer() {
    let scratch = tempfile::tempdir().unwrap();
    let ledger = OnDisk::open(&scratch.path().join("data"), Then::GoOn);
    let its = ledger.clone();
    let mut rig = Rig::with(|settings| settings.ledger = its).await;
    let log = rig.log_path(1);
    rig.start(1, Isolation::None, &script(&format!("echo begun; exec sleep {}", nap(430))), one()).await;
    wait("the step begins", || std::fs::read_to_string(&log).unwrap_or_default().contains("] begun")).await;
    let starts = ledger.starts();
    assert!(starts.len() == 1 && starts[0].directory.is_dir() && starts[0].engine.is_none(), "{starts:?}");
    if rig.handle.capabilities().cgroup.is_ok() {
        assert!(starts[0].cgroup.as_ref().is_some_and(|group| group.is_dir()), "{starts:?}");
    }
    rig.handle.stop(starts[0].task, starts[0].fence).await.unwrap();
    assert_eq!(rig.report().await, Report::Stopped);
    assert_eq!(ledger.starts(), []);
    rig.close().await;
}
