//! GitHub's own runner, by a stub that behaves as it does (tests/runner/stub).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use runmesh::kernel::id::{Cid, TaskId};
use runmesh::kernel::io::Report;
use runmesh::kernel::task::Fence;
use runmesh::runner::{
    GithubRunner, Isolation, Order, Outcome, Retire, RunnerEnd, RunnerEnding, RunnerExit, RunnerNews, Secret, SeenJob,
    Supervisor, Work,
};

use crate::podman::Podman;
use crate::rig::{BOTH, PATIENCE, Rig, nap, processes, settings, wait};

fn order(rig: &Rig, number: u8, isolation: Isolation, script: &str) -> Order {
    let jit = base64::engine::general_purpose::STANDARD.encode(script);
    Order {
        task: TaskId([number; 32]),
        fence: Fence { attempt: 1, claim: Cid::of(&[number]) },
        repository: "octo/lab".to_owned(),
        path: "build".to_owned(),
        isolation,
        log: rig.log_path(number),
        time_limit: PATIENCE,
        work: Work::GithubRunner(GithubRunner {
            name: format!("lab-{number}"),
            jit: Secret::new(jit),
            idle: PATIENCE,
            devices: false,
        }),
    }
}

fn idle(order: Order, idle: Duration) -> Order {
    let Work::GithubRunner(runner) = order.work else { unreachable!("made so above") };
    Order { work: Work::GithubRunner(GithubRunner { idle, ..runner }), ..order }
}

/// Everything that is said of it, to its end.
async fn all(rig: &mut Rig) -> (Vec<RunnerNews>, RunnerEnd) {
    let mut news = Vec::new();
    loop {
        match rig.outcome().await {
            Outcome::News(one) => news.push(one),
            Outcome::Runner(end) => return (news, end),
            Outcome::Task(report) => panic!("{report:?}"),
        }
    }
}

async fn started(rig: &mut Rig) {
    assert_eq!(rig.outcome().await, Outcome::News(RunnerNews::Started));
}

fn seen() -> SeenJob {
    SeenJob { repository: "octo/lab".to_owned(), run_id: 77, run_attempt: 2, job: "build".to_owned() }
}

#[tokio::test]
async fn a_runner_takes_its_job_and_goes() {
    let mut rig = Rig::new().await;
    assert_eq!(rig.handle.capabilities().runner.as_ref().map(|runner| runner.version.as_str()), Ok("2.999.0"));
    for (number, isolation) in (1..).zip(BOTH) {
        let brood = nap(100 + u32::from(number));
        let script = format!(
            "job octo/lab 77 2 build\n\
             step echo \"at $PWD home $HOME\"; ls -a ..; echo x >file; env | grep -c JITCONFIG\n\
             step setsid -f sleep {brood}\n\
             step (setsid -f sh -c 'sleep {brood}; true' &)\n\
             done"
        );
        rig.order(order(&rig, number, isolation, &script)).await;
        let (news, end) = all(&mut rig).await;
        let log = rig.log(number);
        assert_eq!(news, [RunnerNews::Started, RunnerNews::JobStarted(seen()), RunnerNews::JobCompleted], "{log}");
        assert_eq!((end.how, end.note.as_str()), (RunnerEnding::Exited(RunnerExit::Done), ""), "{log}");
        assert_eq!((end.name, end.job, end.job_completed), (format!("lab-{number}"), Some(seen()), true));
        assert!(log.contains("runner: Listening for Jobs\n") && log.contains("runner: 0\n"), "{log}");
        assert_eq!(processes(&brood), [0; 0], "{isolation}");
        if isolation == Isolation::Bwrap {
            assert!(log.contains("at /runmesh/runner/_work home /home/runner"), "{log}");
        }
    }
    rig.close().await;
}

#[tokio::test]
async fn a_runner_works_in_a_container() {
    let engine = Podman::start().await;
    let mut rig = Rig::with(|settings| engine.set(settings)).await;
    let brood = nap(105);
    let script = format!("job octo/lab 77 2 build\nstep id -u; pwd; (setsid sleep {brood} &)\ndone");
    rig.order(order(&rig, 1, Isolation::Container, &script)).await;
    let (news, end) = all(&mut rig).await;
    let log = rig.log(1);
    assert_eq!(news, [RunnerNews::Started, RunnerNews::JobStarted(seen()), RunnerNews::JobCompleted], "{end:?} {log}");
    assert_eq!((end.how, end.job), (RunnerEnding::Exited(RunnerExit::Done), Some(seen())), "{log}");
    assert!(log.contains("runner: /runmesh/runner/_work\n"), "{log}");
    let waits = order(&rig, 2, Isolation::Container, &format!("step sleep {brood}"));
    let (task, fence) = (waits.task, waits.fence);
    rig.order(waits).await;
    started(&mut rig).await;
    assert_eq!(rig.handle.retire(task, fence).await.unwrap(), Retire::Going);
    assert_eq!(all(&mut rig).await.1.how, RunnerEnding::Retired);
    assert_eq!(processes(&format!("sleep\0{brood}")), [0; 0]);
    assert_eq!(engine.left(), [""; 0]);
    rig.close().await;
}

#[tokio::test]
async fn each_exit_status_is_understood() {
    let mut rig = Rig::new().await;
    let statuses = [
        (1, RunnerExit::Terminated),
        (3, RunnerExit::Updating),
        (4, RunnerExit::Updating),
        (5, RunnerExit::Conflict),
        (7, RunnerExit::TooOld),
        (9, RunnerExit::Status(9)),
    ];
    for (status, exit) in statuses {
        rig.order(order(&rig, status, Isolation::None, &format!("exit {status}"))).await;
        let (_, end) = all(&mut rig).await;
        assert_eq!((end.how, end.job), (RunnerEnding::Exited(exit), None));
        assert_eq!(end.note, format!("Exiting with {status}"));
    }
    // One that says "again" is started again.
    rig.order(order(&rig, 20, Isolation::None, "again 1\njob octo/lab 77 2 build\ndone")).await;
    let (news, end) = all(&mut rig).await;
    assert_eq!(news.iter().filter(|news| **news == RunnerNews::Started).count(), 1);
    assert_eq!((end.how, end.job), (RunnerEnding::Exited(RunnerExit::Done), Some(seen())));
    rig.close().await;
}

#[tokio::test]
async fn one_without_a_job_is_retired_and_a_busy_one_is_not() {
    let mut rig = Rig::new().await;
    for (number, isolation) in (1..).zip(BOTH) {
        let brood = nap(110 + u32::from(number));
        let waits = format!("step sleep {brood}");
        rig.order(idle(order(&rig, number, isolation, &waits), Duration::from_millis(300))).await;
        let (_, end) = all(&mut rig).await;
        assert_eq!((end.how, end.note.as_str()), (RunnerEnding::Retired, "it had no job in its time"));
        assert_eq!(processes(&brood), [0; 0], "{isolation}");

        let asked = order(&rig, number, isolation, &waits);
        let (task, fence) = (asked.task, asked.fence);
        rig.order(asked).await;
        started(&mut rig).await;
        assert_eq!(rig.handle.retire(task, fence).await.unwrap(), Retire::Going);
        assert_eq!(all(&mut rig).await.1.how, RunnerEnding::Retired);
        assert_eq!(rig.handle.retire(task, fence).await.unwrap(), Retire::Unknown);

        let busy = idle(order(&rig, number, isolation, &format!("job octo/lab 77 2 build\n{waits}")), PATIENCE);
        rig.order(busy).await;
        started(&mut rig).await;
        assert_eq!(rig.outcome().await, Outcome::News(RunnerNews::JobStarted(seen())));
        assert_eq!(rig.handle.retire(task, fence).await.unwrap(), Retire::Busy);
        assert_eq!(rig.handle.running().await.unwrap()[0].phase.word(), "running");
        rig.handle.stop(task, fence).await.unwrap();
        let (_, end) = all(&mut rig).await;
        assert_eq!((end.how, end.job, end.job_completed), (RunnerEnding::Stopped, Some(seen()), false));
        assert_eq!(processes(&brood), [0; 0], "{isolation}");
    }
    rig.close().await;
}

#[tokio::test]
async fn a_stuck_one_meets_its_limit_and_one_that_vanishes_is_seen() {
    let mut rig = Rig::new().await;
    let brood = nap(120);
    let mut stuck = order(&rig, 1, Isolation::Bwrap, &format!("job octo/lab 77 2 build\nstep sleep {brood}"));
    stuck.time_limit = Duration::from_secs(2);
    rig.order(stuck).await;
    let (_, end) = all(&mut rig).await;
    assert_eq!((end.how, end.job), (RunnerEnding::TimedOut, Some(seen())));
    assert!(end.note.contains("time limit of 2 s"), "{}", end.note);
    rig.order(order(&rig, 2, Isolation::None, "step kill -9 $PPID")).await;
    assert_eq!(all(&mut rig).await.1.how, RunnerEnding::Exited(RunnerExit::Status(137)));
    rig.close().await;
}

#[tokio::test]
async fn the_configuration_is_in_no_argument() {
    let mut rig = Rig::new().await;
    for (number, isolation) in (1..).zip(BOTH) {
        let brood = nap(130 + u32::from(number));
        let script = format!("job octo/lab 77 2 build\nstep sleep {brood}");
        let order = order(&rig, number, isolation, &script);
        let (task, fence) = (order.task, order.fence);
        assert!(!format!("{order:?}").contains("am9i"), "what base64 makes of `job`");
        rig.order(order).await;
        wait("the job runs", || processes(&format!("sleep\0{brood}")).len() == 1).await;
        let jit = base64::engine::general_purpose::STANDARD.encode(&script);
        let holds = |file: &str| {
            let all = std::fs::read_dir("/proc")
                .unwrap()
                .filter_map(|entry| std::fs::read(entry.ok()?.path().join(file)).ok());
            all.filter(|bytes| bytes.windows(jit.len()).any(|part| part == jit.as_bytes())).count()
        };
        assert_eq!(holds("cmdline"), 0, "{isolation}");
        assert_ne!(holds("environ"), 0, "{isolation}");
        assert!(!rig.log(number).contains(&jit));
        rig.handle.stop(task, fence).await.unwrap();
        all(&mut rig).await;
    }
    rig.close().await;
}

#[tokio::test]
async fn an_archive_is_unpacked_once_and_a_directory_that_is_none_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let archive = scratch.path().join("actions-runner.tar.gz");
    let stub = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runner/stub");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file"]).arg(&archive).arg("--directory").arg(stub).arg(".");
    let made = tar.status().unwrap();
    assert!(made.success());
    let work = scratch.path().join("work");
    let open = async || {
        let mut settings = settings(&work);
        settings.actions_runner = Some(archive.clone());
        Supervisor::open(settings).await.unwrap()
    };
    let (first, _) = open().await;
    let runner = first.handle().capabilities().runner.clone().unwrap();
    assert_eq!(runner.version, "2.999.0");
    assert!(first.shutdown(PATIENCE).await);
    let (mut second, mut reports) = open().await;
    assert_eq!(second.handle().capabilities().runner, Ok(runner));
    assert_eq!(std::fs::read_dir(work.join(".actions-runner")).unwrap().count(), 1);
    let rig = Rig::new().await;
    second.handle().start(order(&rig, 1, Isolation::Bwrap, "job octo/lab 77 2 build\ndone")).await.unwrap();
    loop {
        if let Outcome::Runner(end) = reports.recv().await.unwrap().2 {
            assert_eq!(end.how, RunnerEnding::Exited(RunnerExit::Done), "{}", rig.log(1));
            break;
        }
    }
    assert!(second.shutdown(PATIENCE).await);

    std::fs::write(&archive, "no archive").unwrap();
    (second, _) = open().await;
    let why = second.handle().capabilities().runner.clone().unwrap_err();
    assert!(why.contains("unpacking") && why.contains("actions-runner.tar.gz"), "{why}");
    assert!(second.shutdown(PATIENCE).await);
    rig.close().await;

    let mut rig = Rig::with(|settings| settings.actions_runner = Some("/usr".into())).await;
    rig.order(order(&rig, 1, Isolation::None, "done")).await;
    let (news, end) = all(&mut rig).await;
    assert_eq!((news, end.how), (vec![], RunnerEnding::NotStarted));
    assert!(end.note.contains("name the runner as GitHub gives it away"), "{}", end.note);
    rig.handle.stop(TaskId([9; 32]), Fence { attempt: 1, claim: Cid::of(b"x") }).await.unwrap();
    assert_eq!(rig.outcome().await, Outcome::Task(Report::Stopped), "nothing of it is here");
    rig.close().await;
}
