//! The runner room with real act, real bubblewrap and real processes.

#![expect(clippy::unwrap_used, reason = "a test's way to fail")]

#[path = "runner/artifacts.rs"]
mod artifacts;
#[path = "runner/command.rs"]
mod command;
#[path = "runner/engine.rs"]
mod engine;
#[path = "runner/family.rs"]
mod family;
#[path = "runner/github.rs"]
mod github;
#[path = "runner/images.rs"]
mod images;
#[path = "runner/ledger.rs"]
mod ledger;
#[path = "runner/podman.rs"]
mod podman;
#[path = "runner/registry.rs"]
mod registry;
#[path = "runner/rig.rs"]
mod rig;

use std::time::Duration;

use rig::{BOTH, Rig, files, need, one, order, plan, script};
use runmesh::kernel::id::TaskId;
use runmesh::kernel::io::Report;
use runmesh::kernel::task::Conclusion;
use runmesh::runner::{Checkout, Isolation, Network, Phase, Plan, PlannedJob, Secret, Work};
use tokio::time::timeout;

/// What every backend promises to a job (src/runner/backend.rs).
#[tokio::test]
async fn each_backend_keeps_the_contract() {
    for isolation in BOTH {
        let mut rig = Rig::new().await;
        need(&rig.handle);
        let text = script(
            "set -e\n\
             cat committed.log\n\
             echo x > $HOME/file; echo x > $TMPDIR/file; echo x > file\n\
             echo \"repo=$GITHUB_REPOSITORY sha=$GITHUB_SHA ref=$GITHUB_REF event=$GITHUB_EVENT_NAME\"\n\
             echo \"input=$COLOUR branch=${{ github.event.repository.default_branch }}\"\n\
             echo \"leaks: [$LEAK] [$CARGO_PKG_NAME] [$USER]\"\n\
             echo \"home: $(ls -A $HOME | grep -v -e cache -e config | tr '\\n' ' ')\"\n\
             mkdir -p $HOME/deep; echo x > $HOME/deep/file; chmod 500 $HOME/deep",
        );
        let text = text.replace("jobs:", "env: {COLOUR: \"${{ inputs.colour }}\"}\njobs:");
        let (conclusion, note) = rig.finish(isolation, &text, one()).await;
        let log = rig.log(1);
        assert_eq!((conclusion, note.as_str()), (Conclusion::Success, ""), "{log}");
        let commit = "ab".repeat(20);
        assert!(log.contains("] kept\n"), "a committed file that .gitignore names is there: {log}");
        assert!(
            log.contains(&format!("repo=lab/tools sha={commit} ref=refs/heads/main event=workflow_dispatch")),
            "{log}"
        );
        assert!(log.contains("input=a 'blue' $one branch=main"), "{log}");
        assert!(log.contains("leaks: [] [] []"), "{log}");
        assert!(log.contains("home: file "), "{log}");
        assert!(log.contains("runmesh: success after "), "{log}");
        rig.close().await;
    }
}

#[tokio::test]
async fn the_sandbox_hides_the_node_and_the_host() {
    let mut rig = Rig::with(|settings| {
        // The whole scratch directory is shown, and in it the node's data must still be invisible.
        let data = settings.work_root.parent().unwrap().to_owned();
        settings.binds = vec![data.parent().unwrap().to_owned()];
        settings.hidden = vec![data];
        settings.network = Network::None;
        settings.env = [("OPERATOR".to_owned(), "says".to_owned())].into();
    })
    .await;
    need(&rig.handle);
    let scratch = rig.scratch.path().to_str().unwrap().to_owned();
    std::fs::write(rig.scratch.path().join("tool"), "shown").unwrap();
    std::fs::write(rig.scratch.path().join("data/key"), "secret").unwrap();
    let text = script(&format!(
        "echo \"tool $(cat {scratch}/tool) $OPERATOR\"\n\
         echo \"data [$(ls -A {scratch}/data)]\"\n\
         echo \"roots $(ls -A / | tr '\\n' ' ')\"\n\
         echo \"who $(id -u) $(whoami) $(pwd)\"\n\
         cat /proc/*/environ | tr '\\0' '\\n' | grep -c -e ^CARGO -e ^RUNMESH || true\n\
         touch /usr/x {scratch}/x /runmesh/checkout/x || true\n\
         echo \"interfaces $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n')\"\n\
         echo \"capabilities $(grep CapEff /proc/self/status | cut -f2)\"\n\
         echo \"processes $(ls /proc | grep -c '^[0-9]')\""
    ));
    let (conclusion, note) = rig.finish(Isolation::Bwrap, &text, one()).await;
    let log = rig.log(1);
    assert_eq!((conclusion, note.as_str()), (Conclusion::Success, ""), "{log}");
    for expected in [
        "tool shown says\n",
        "data []\n",
        "who 1000 runner /home/runner/",
        "] 0\n",
        "interfaces lo\n",
        "capabilities 0000000000000000\n",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert_eq!(log.matches("Read-only file system").count(), 3, "{log}");
    let roots = log.split("] roots ").nth(1).unwrap().lines().next().unwrap();
    assert!(!roots.contains("work") && !roots.contains("root") && !roots.contains("var"), "{roots}");
    let processes: u32 = log.split("] processes ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(processes < 20, "{processes}");
    rig.close().await;
}

#[tokio::test]
async fn failures_are_named_and_matrix_legs_counted() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let jobs = "jobs:\n  m:\n    runs-on: linux\n    strategy: {matrix: {n: [1, 2]}}\n    steps:\n      \
                - name: check it\n        run: test ${{ matrix.n }} = 1\n  \
                never:\n    if: false\n    runs-on: linux\n    steps: [{run: echo}]\n  \
                after:\n    needs: m\n    runs-on: linux\n    steps: [{run: echo}]\n";
    let expected = plan(&[("m", Some(2)), ("never", Some(1)), ("after", Some(1))]);
    let (conclusion, note) = rig.finish(Isolation::Bwrap, jobs, expected).await;
    assert_eq!(conclusion, Conclusion::Failure, "{}", rig.log(1));
    assert!(note.contains("job `m-2` failed in step `check it`: exit status 1"), "{note}");
    let log = rig.log(1);
    assert!(log.contains("[never] Skipping job 'never'"), "{log}");

    // All is well, but for a leg that the plan knows of and nobody reports.
    let jobs = jobs.replace("test ${{ matrix.n }} = 1", "true");
    let (conclusion, note) = rig.finish(Isolation::Bwrap, &jobs, plan(&[("m", Some(3))])).await;
    assert_eq!(
        (conclusion, note.as_str()),
        (Conclusion::Failure, "job `m` reported 2 results where its matrix makes 3")
    );
    let all = plan(&[("m", Some(2)), ("never", Some(1)), ("after", None)]);
    assert_eq!(rig.finish(Isolation::Bwrap, &jobs, all).await, (Conclusion::Success, String::new()));
    rig.close().await;
}

#[tokio::test]
async fn a_false_condition_is_skipped_and_an_unmapped_label_that_only_the_run_knows_is_a_failure() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let jobs = "jobs:\n  a:\n    if: github.ref == 'refs/heads/other'\n    runs-on: linux\n    steps: [{run: echo}]\n";
    assert_eq!(rig.finish(Isolation::Bwrap, jobs, one()).await.0, Conclusion::Skipped, "{}", rig.log(1));
    let jobs = "jobs:\n  a:\n    runs-on: ${{ format('{0}', 'moon') }}\n    steps: [{run: echo}]\n";
    let mut expected = one();
    expected.jobs[0].labels = vec!["${{ format('{0}', 'moon') }}".to_owned()];
    let (conclusion, note) = rig.finish(Isolation::Bwrap, jobs, expected).await;
    assert_eq!(conclusion, Conclusion::Failure, "act itself ends with 0 here");
    assert!(note.contains("job `a` reported no result") && note.contains("moon"), "{note}");
    rig.close().await;
}

#[tokio::test]
async fn a_called_workflow_of_the_repository_runs_and_answers() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let jobs = "jobs:\n  call:\n    uses: ./.github/workflows/inner.yml\n";
    let inner = "on: workflow_call\njobs:\n  in:\n    runs-on: linux\n    steps: [{run: echo from-inside}]\n";
    let mut expected = plan(&[("call", Some(1))]);
    expected.jobs[0].labels.clear();
    expected.jobs[0].uses = Some("./.github/workflows/inner.yml".to_owned());
    let outer = files(jobs, expected);
    let both: Checkout = Box::new(move |directory| {
        Box::pin(async move {
            let plan = outer(directory.clone()).await?;
            std::fs::write(directory.join(".github/workflows/inner.yml"), inner).map_err(|error| error.to_string())?;
            Ok(plan)
        })
    });
    rig.order(order(1, Isolation::Bwrap, &rig.log_path(1), both)).await;
    let report = rig.report().await;
    assert!(matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }), "{report:?}");
    assert!(rig.log(1).contains("from-inside"));
    rig.close().await;
}

#[tokio::test]
async fn what_act_cannot_run_fails_in_acts_words() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let unknown = "jobs:\n  a:\n    runs-on: linux\n    stepz: []\n";
    let (conclusion, note) = rig.finish(Isolation::Bwrap, unknown, one()).await;
    assert_eq!(conclusion, Conclusion::Failure);
    assert!(note.contains("workflow is not valid") && note.contains("Unknown Property stepz"), "{note}");
    assert!(rig.log(1).contains("Unknown Property stepz"));
    let (conclusion, note) = rig.finish(Isolation::None, "jobs: [", Plan::default()).await;
    assert_eq!(conclusion, Conclusion::Failure);
    assert!(note.contains("workflow is not valid"), "{note}");
    rig.close().await;
}

#[tokio::test]
async fn the_node_enforces_the_times_that_act_does_not() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let nap = rig::nap(1);
    let text = script(&format!("setsid -f sleep {nap}\nexec sleep {nap}"));
    let mut expected = one();
    expected.jobs[0].timeout = Some(Duration::from_secs(1));
    let (conclusion, note) = rig.finish(Isolation::None, &text, expected).await;
    assert_eq!(conclusion, Conclusion::TimedOut);
    assert!(note.contains("job `a` ran longer than its timeout-minutes (1 s)"), "{note}");
    let mut limited = order(2, Isolation::Bwrap, &rig.log_path(2), files(&text, one()));
    limited.time_limit = Duration::from_secs(1);
    rig.order(limited).await;
    let report = rig.report().await;
    let Report::Finished { conclusion: Conclusion::TimedOut, note, duration_ms } = &report else {
        panic!("{report:?}")
    };
    assert!(note.contains("time limit of 1 s") && *duration_ms >= 1000, "{report:?}");
    assert_eq!(rig::processes(&nap), [0; 0]);
    rig.close().await;
}

#[tokio::test]
async fn what_fails_before_the_first_step_is_not_started_or_declined() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let why = |report: Report| match report {
        Report::NotStarted { why } => why,
        other => panic!("{other:?}"),
    };
    let no: Checkout = Box::new(|_| Box::pin(async { Err("no such commit".to_owned()) }));
    rig.order(order(1, Isolation::Bwrap, &rig.log_path(1), no)).await;
    assert_eq!(why(rig.report().await), "checking out: no such commit");

    let with = |job: PlannedJob| Plan { jobs: vec![PlannedJob { id: "a".to_owned(), ..job }], ..Plan::default() };
    let declined = |report: Report| match report {
        Report::Declined { why } => why,
        other => panic!("{other:?}"),
    };
    let services = with(PlannedJob { services: true, ..PlannedJob::default() });
    assert!(declined(rig.run(Isolation::Bwrap, &script("echo ran"), services).await).contains("`services:`"));
    let moon = with(PlannedJob { labels: vec!["moon".to_owned()], ..PlannedJob::default() });
    assert!(declined(rig.run(Isolation::Bwrap, &script("echo ran"), moon).await).contains("runs on `moon`"));
    assert!(!rig.log(1).contains("] ran"));
    rig.close().await;

    let mut rig = Rig::with(|settings| settings.program = "/bin/false".into()).await;
    assert!(why(rig.run(Isolation::None, &script("echo ran"), one()).await).starts_with("starting act: "));
    rig.close().await;
    let mut rig = Rig::with(|settings| settings.path = "/nonexistent".to_owned()).await;
    assert!(why(rig.run(Isolation::Bwrap, &script("echo ran"), one()).await).contains("install bubblewrap"));
    rig.close().await;
}

#[tokio::test]
async fn a_checkout_that_hangs_can_be_stopped_and_has_the_time_limit() {
    let mut rig = Rig::new().await;
    let hang = || -> Checkout { Box::new(|_| Box::pin(std::future::pending())) };
    let stopped = order(1, Isolation::None, &rig.log_path(1), hang());
    let (task, fence) = (stopped.task, stopped.fence);
    rig.order(stopped).await;
    rig.handle.stop(task, fence).await.unwrap();
    assert_eq!(rig.report().await, Report::Stopped);
    let mut late = order(2, Isolation::None, &rig.log_path(2), hang());
    late.time_limit = Duration::from_millis(50);
    rig.order(late).await;
    let report = rig.report().await;
    assert!(matches!(&report, Report::NotStarted { why } if why.contains("checkout took longer")), "{report:?}");
    rig.close().await;
}

#[tokio::test]
async fn a_flood_of_output_costs_neither_memory_nor_disk() {
    let mut rig = Rig::with(|settings| settings.log_cap = 20_000).await;
    need(&rig.handle);
    let text = script("head -c 3000000 /dev/zero | tr '\\0' x; echo; seq 1 20000; printf '\\033]0;title\\007ok\\n'");
    let (conclusion, note) = rig.finish(Isolation::None, &text, one()).await;
    assert_eq!((conclusion, note.as_str()), (Conclusion::Success, ""));
    let log = rig.log(1);
    assert!(log.len() < 21_000, "{}", log.len());
    assert!(
        log.contains("longer than") && log.contains("limit of 20000 bytes") && log.contains("success after"),
        "{log}"
    );
    rig.close().await;
}

#[tokio::test]
async fn secrets_reach_their_steps_and_neither_the_log_nor_an_argument() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    let look = "cat /proc/*/cmdline | tr '\\0' '\\n' | grep -c '[h]unter2' || true";
    let text = script(&format!("printf '%s' \"$KEY\" | wc -c; echo \"says $KEY\"\n{look}"));
    let text = text.replace("jobs:", "env: {KEY: \"${{ secrets.KEY }}\"}\njobs:");
    let order = |isolation, secrets: &[&str], log: &std::path::Path| {
        let plan = Plan { secrets: ["KEY".to_owned()].into(), ..one() };
        let mut order = order(1, isolation, log, files(&text, plan));
        let Work::Workflow(work) = &mut order.work else { unreachable!("made so by the rig") };
        let secret = Ok(Secret::new("hunter2 \"x\"\nline'2".to_owned()));
        work.secrets = secrets.iter().map(|name| ((*name).to_owned(), secret.clone())).collect();
        order
    };
    for isolation in BOTH {
        rig.order(order(isolation, &["KEY"], &rig.log_path(1))).await;
        let report = rig.report().await;
        let log = rig.log(1);
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }), "{report:?} {log}");
        assert!(log.contains("] 18\n") && log.contains("] says ***") && log.contains("] 0\n"), "{log}");
        assert!(!log.contains("hunter2") && !log.contains("line'2"), "{log}");
    }
    rig.order(order(Isolation::Bwrap, &["OTHER"], &rig.log_path(1))).await;
    let expected = Report::Declined { why: "this host has no secret `KEY` for lab/tools".to_owned() };
    assert_eq!(rig.report().await, expected);
    // One that cannot be read is missed by those that cannot do without it.
    let broken = |name: &str, log: &std::path::Path| {
        let mut order = order(Isolation::Bwrap, &["KEY"], log);
        let Work::Workflow(work) = &mut order.work else { unreachable!("made so by the rig") };
        work.secrets.insert(name.to_owned(), Err("no such file".to_owned()));
        order
    };
    rig.order(broken("KEY", &rig.log_path(1))).await;
    let why = "this host cannot read its secret `KEY` for lab/tools: no such file".to_owned();
    assert_eq!(rig.report().await, Report::Declined { why });
    rig.order(broken("OTHER", &rig.log_path(1))).await;
    assert!(matches!(rig.report().await, Report::Finished { conclusion: Conclusion::Success, .. }));
    assert!(rig.log(1).contains("without the secret `OTHER`: no such file"), "{}", rig.log(1));
    rig.close().await;
}

#[tokio::test]
async fn what_runs_here_can_be_seen_and_a_second_order_for_it_is_ignored() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    assert!(rig.handle.running().await.unwrap().is_empty());
    let text = script(&format!("echo begun; exec sleep {}", rig::nap(2)));
    rig.start(7, Isolation::Bwrap, &text, one()).await;
    rig.start(7, Isolation::Bwrap, &text, one()).await;
    let log = rig.log_path(7);
    rig::wait("the step begins", || std::fs::read_to_string(&log).unwrap_or_default().contains("] begun")).await;
    let running = rig.handle.running().await.unwrap();
    assert_eq!(running.len(), 1);
    assert_eq!((running[0].repository.as_str(), running[0].phase), ("lab/tools", Phase::Running));
    assert!(running[0].step.as_ref().is_some_and(|step| step.starts_with("a/echo begun")), "{running:?}");
    let (task, fence) = (running[0].task, running[0].fence);
    rig.handle.stop(task, fence).await.unwrap();
    assert_eq!(rig.report().await, Report::Stopped);
    rig.handle.stop(task, fence).await.unwrap();
    assert_eq!(rig.report().await, Report::Stopped, "nothing of it is here, so that is true");
    rig.close().await;
}

/// As when the daemon's disk refuses, and it reads no report until it does not.
#[tokio::test]
async fn while_nobody_reads_reports_words_are_taken_and_answered_and_it_shuts_down_once_nobody_will() {
    let rig = Rig::new().await;
    let fence = order(1, Isolation::None, &rig.log_path(1), files("", one())).fence;
    let words = async {
        // More than there is room for: nothing of them is here, so each is answered with a report at once.
        for _ in 0..1000 {
            rig.handle.stop(TaskId([1; 32]), fence).await.unwrap();
        }
        rig.handle.running().await.unwrap()
    };
    let running = timeout(rig::PATIENCE, words).await.expect("an answer in time");
    assert!(running.is_empty(), "{running:?}");
    drop(rig.reports);
    assert!(rig.supervisor.shutdown(rig::PATIENCE).await, "it does not wait for a reader");
}
