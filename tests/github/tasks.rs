//! What tasks a look comes to.

use crate::*;

#[tokio::test]
async fn tasks_are_named_by_host_and_number_and_say_what_to_run() {
    let mut world = World::new();
    world.repository(
        "Octo/One",
        &[
            (format!("{W}ci.yml").as_str(), &tagged("ci")),
            (format!("{W}by-hand.yml").as_str(), &on("hand", "workflow_dispatch")),
        ],
    );
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    let (id, head) = {
        let state = fake.state();
        let one = state.world.find("octo/one").expect("there");
        (one.id, one.head().expect("a commit").oid.clone())
    };
    let [hand, ci] = findings.workloads.as_slice() else { panic!("{findings:#?}") };
    assert_eq!((ci.repository.host.as_str(), ci.repository.id.clone()), (github.host(), id.to_string()));
    assert_eq!(ci.repository.name, "Octo/One");
    assert_eq!(ci.trigger, Trigger::Push { r#ref: "refs/heads/main".to_owned(), commit: head.clone() });
    assert_eq!((ci.commit.as_str(), ci.event, ci.priority.number()), (head.as_str(), RunEvent::Push, 8));
    assert!(matches!(&hand.trigger, Trigger::Revision { blob } if blob.len() == 40), "{hand:?}");
    // By the name of its owner and by its own it is the same source's.
    let one = Target { owner: "octo".to_owned(), repository: Some("ONE".to_owned()) };
    assert_eq!(github.key(&one), format!("{}/octo/one", github.host()));
    assert!(
        ci.repository.sources().contains(&github.key(&one)) && ci.repository.sources().contains(&github.key(&octo()))
    );
    let (by_name, _) = good(look(&github, &one, Memory::default()).await);
    assert_eq!(
        by_name.workloads.iter().map(Workload::id).collect::<Vec<_>>(),
        findings.workloads.iter().map(Workload::id).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn schedules_tick_and_what_is_deleted_or_untagged_is_gone() {
    let mut world = World::new();
    let nightly = on("nightly", "{schedule: [{cron: '30 * * * *'}, {cron: 'nonsense'}], workflow_dispatch: }");
    world.repository(
        "octo/r",
        &[
            (format!("{W}nightly.yml").as_str(), &nightly),
            (format!("{W}ci.yml").as_str(), &tagged("ci")),
            (format!("{W}old.yml").as_str(), &tagged("old")),
        ],
    );
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let (findings, memory) = good(look(&github, &octo(), Memory::default()).await);
    assert_eq!(findings.workloads.len(), 3, "no tick is made up of a workflow that was never seen");
    assert!(findings.warnings.iter().any(|warning| warning.contains("never ticks")), "{:?}", findings.warnings);
    let id = findings.workloads[0].repository.id.clone();
    let mut known = Known::default();
    for workload in &findings.workloads {
        let pending = [workload.commit.clone()].into();
        let workflow = KnownWorkflow { since: Some(MINUTE - 60), pending, ..KnownWorkflow::default() };
        known.workflows.insert(workload.path.clone(), workflow);
    }
    let known = BTreeMap::from([(id, known)]);
    let (findings, memory) = good(look_knowing(&github, &octo(), memory, &known).await);
    let ticks: Vec<u64> = findings
        .workloads
        .iter()
        .filter_map(|workload| match workload.trigger {
            Trigger::Schedule { minute, .. } => Some(minute),
            _ => None,
        })
        .collect();
    assert_eq!(ticks, [MINUTE - (MINUTE - 30) % 60]);
    assert!(findings.gone.is_empty());
    fake.commit(
        "octo/r",
        &[(format!("{W}old.yml").as_str(), None), (format!("{W}ci.yml").as_str(), Some("on: push\njobs: {}\n"))],
    );
    let (findings, _) = good(look_knowing(&github, &octo(), memory, &known).await);
    let gone: Vec<&str> = findings.gone.iter().map(|gone| gone.path.as_str()).collect();
    assert_eq!(gone, [format!("{W}ci.yml"), format!("{W}old.yml")]);
}

#[tokio::test]
async fn a_person_submits_with_inputs() {
    let mut world = World::new();
    let deploy =
        on("deploy", "{workflow_dispatch: {inputs: {where: {required: true, type: choice, options: [a, b]}}}}");
    world.repository("octo/r", &[(format!("{W}deploy.yml").as_str(), &deploy)]);
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let submit = async |path: &str, pairs: &[(&str, &str)]| {
        let inputs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let asked = Asked { inputs, request: "r1".to_owned(), priority: Some(Priority::MOST) };
        github.manual("octo/r", path, &asked).await
    };
    let workload = submit("deploy.yml", &[("where", "b")]).await.expect("a task");
    assert_eq!((workload.event, workload.priority), (RunEvent::WorkflowDispatch, Priority::MOST));
    assert_eq!(workload.inputs, BTreeMap::from([("where".to_owned(), "b".to_owned())]));
    for (path, inputs, word) in [
        ("deploy.yml", &[][..], "required"),
        ("deploy.yml", &[("where", "c")], "one of a, b"),
        ("deploy.yml", &[("where", "a"), ("x", "y")], "no input"),
        ("gone.yml", &[], "no such file"),
        ("../x", &[], "workflow files"),
    ] {
        let error = submit(path, inputs).await.expect_err("refused").to_string();
        assert!(error.contains(word), "{path}: {error}");
    }
}

/// What the mesh would know once it has taken these.
fn knowing(workloads: &[Workload]) -> BTreeMap<String, Known> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for workload in workloads {
        let repository = known.entry(workload.repository.id.clone()).or_default();
        let workflow = repository.workflows.entry(workload.path.clone()).or_default();
        match &workload.trigger {
            Trigger::Push { commit, .. } => workflow.pushed = Some(commit.clone()),
            Trigger::Revision { blob } => drop(workflow.revisions.insert(blob.clone())),
            other => panic!("{other:?}"),
        }
    }
    known
}

#[tokio::test]
async fn what_github_runs_itself_is_left_to_it_unless_the_source_allows_both() {
    let eligible = tagged("ci").replace("p2p-only", "p2p-eligible");
    let by_hand = on("hand", "workflow_dispatch").replace("p2p-only", "p2p-eligible");
    let mut world = World::new();
    world.repository(
        "octo/r",
        &[
            (format!("{W}ci.yml").as_str(), &eligible),
            (format!("{W}hand.yml").as_str(), &by_hand),
            (format!("{W}only.yml").as_str(), &tagged("only")),
        ],
    );
    let fake = Fake::start(world);
    let github = github(&fake, "t");
    let none = BTreeMap::new();
    let names = |findings: &Findings| findings.workloads.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let asked = || fake.take_calls().into_iter().filter(|call| call.path.contains("/actions/runs")).collect::<Vec<_>>();

    // GitHub has none yet: it runs here, and is asked for no more once the mesh has it.
    let (findings, memory) = good(look(&github, &octo(), Memory::default()).await);
    assert_eq!(names(&findings), ["ci", "hand", "only"]);
    assert!(
        findings.warnings.iter().any(|text| text.contains("ci.yml") && text.contains("duplicate")),
        "{findings:#?}"
    );
    assert_eq!(asked().len(), 1, "one workflow that GitHub could start, of one commit");
    let (_, memory) = good(look_knowing(&github, &octo(), memory, &knowing(&findings.workloads)).await);
    assert_eq!(asked().len(), 0);

    // Of the next commit it has one, which waits, runs and ends.
    let commit = fake.commit("octo/r", &[("src/a", Some("1"))]);
    let known = knowing(&findings.workloads);
    let run = CommitRun {
        id: 77,
        repository: "octo/r".to_owned(),
        path: format!("{W}ci.yml"),
        commit,
        status: "queued",
        conclusion: None,
    };
    fake.state().commit_runs.push(run);
    let (findings, memory) = good(look_knowing(&github, &octo(), memory, &known).await);
    assert!(!names(&findings).contains(&"ci".to_owned()), "{findings:#?}");
    let why = findings.workflows.iter().find(|found| found.name == "ci").and_then(|found| found.why_not.clone());
    assert_eq!(why.as_deref(), Some("GitHub's run 77 of it is queued"));
    let (_, memory) = good(look_knowing(&github, &octo(), memory, &known).await);
    let calls = asked();
    assert_eq!(calls.iter().map(|call| (call.status, call.cost)).collect::<Vec<_>>(), [(200, 1), (304, 0)]);
    (fake.state().commit_runs[0].status, fake.state().commit_runs[0].conclusion) = ("completed", Some("failure"));
    let (findings, memory) = good(look_knowing(&github, &octo(), memory, &known).await);
    assert!(!names(&findings).contains(&"ci".to_owned()), "it has run there");
    let (_, memory) = good(look_knowing(&github, &octo(), memory, &known).await);
    assert_eq!(asked().len(), 1, "what has ended is not asked for again");

    // One that was called off has run nothing; and who allows both is not asked.
    fake.state().commit_runs[0].conclusion = Some("cancelled");
    let (findings, _) = good(look_knowing(&github, &octo(), Memory::default(), &known).await);
    assert!(names(&findings).contains(&"ci".to_owned()));
    fake.state().commit_runs[0].conclusion = Some("success");
    fake.take_calls();
    let allow = Manner { duplicate: Duplicate::Allow, ..Manner::default() };
    let (findings, _) = good(look_so(&github, &octo(), memory, &none, allow).await);
    assert!(names(&findings).contains(&"ci".to_owned()) && asked().is_empty());

    // A token that may not read runs is no reason to run nothing.
    fake.fail("/repos/octo/r/actions/runs", 3, Fault::Status(403));
    let (findings, _) = good(look(&github, &octo(), Memory::default()).await);
    assert!(names(&findings).contains(&"ci".to_owned()));
    assert!(findings.warnings.iter().any(|text| text.contains("whether GitHub runs it too is not known")));
}

#[tokio::test]
async fn what_is_there_before_the_first_look_may_be_only_taken_note_of() {
    let fake = Fake::start(world(2));
    let github = github(&fake, "t");
    let record = Manner { first_scan: FirstScan::Record, ..Manner::default() };
    let (findings, memory) = good(look_so(&github, &octo(), Memory::default(), &BTreeMap::new(), record).await);
    assert!(findings.workloads.is_empty() && findings.recorded.len() == 2, "{findings:#?}");
    let tagged: Vec<_> = findings.workflows.iter().filter(|found| !found.tags.is_empty()).collect();
    assert!(tagged.iter().all(|found| found.why_not.as_ref().is_some_and(|why| why.contains("before the first look"))));
    let known = knowing(&findings.recorded);
    let head = fake.commit("octo/r0001", &[("src/a", Some("1"))]);
    let (findings, _) = good(look_so(&github, &octo(), memory, &known, record).await);
    assert!(findings.recorded.is_empty());
    assert!(findings.workloads.iter().any(|one| one.commit == head), "what comes later runs");
}

#[tokio::test]
async fn concurrency_goes_into_the_task_and_what_cannot_be_told_is_reported() {
    let ci =
        tagged("ci") + "concurrency:\n  group: ${{ github.workflow }}-${{ github.ref }}\n  cancel-in-progress: true\n";
    let odd = tagged("odd") + "concurrency: ${{ vars.GROUP }}\n";
    let mut world = World::new();
    world.repository("octo/r", &[(format!("{W}ci.yml").as_str(), &ci), (format!("{W}odd.yml").as_str(), &odd)]);
    let fake = Fake::start(world);
    let (findings, _) = good(look(&github(&fake, "t"), &octo(), Memory::default()).await);
    let [ci, odd] = findings.workloads.as_slice() else { panic!("{findings:#?}") };
    let expected = Concurrency { group: "ci-refs/heads/main".to_owned(), cancel_in_progress: true };
    assert_eq!((ci.concurrency.as_ref(), odd.concurrency.as_ref()), (Some(&expected), None));
    assert!(
        findings.warnings.iter().any(|text| text.contains("odd.yml") && text.contains("`vars.group`")),
        "{findings:#?}"
    );
}
