//! What runs upload, in every isolation, by an action that says what GitHub's own says.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use runmesh::kernel::io::Report;
use runmesh::kernel::task::Conclusion;
use runmesh::runner::{ArtifactLimits, Checkout, Isolation, Network, Order, Plan, PlannedJob};

use crate::podman::Podman;
use crate::rig::{BOTH, PATIENCE, Rig, files, order, plan, wait};

/// The checkout of a workflow that has the action as `./.github/actions/artifact`.
fn with_action(jobs: &str, plan: Plan) -> Checkout {
    let files = files(jobs, plan);
    Box::new(move |directory| {
        Box::pin(async move {
            let folder = directory.join(".github/actions/artifact");
            let plan = files(directory).await?;
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            for (name, text) in
                [("action.yml", include_str!("artifact/action.yml")), ("client.sh", include_str!("artifact/client.sh"))]
            {
                std::fs::write(folder.join(name), text).map_err(|error| error.to_string())?;
            }
            Ok(plan)
        })
    })
}

fn ordered(rig: &Rig, task: u8, isolation: Isolation, jobs: &str, plan: Plan) -> Order {
    order(task, isolation, &rig.log_path(task), with_action(jobs, plan))
}

/// What was gathered of the task.
fn gathered(rig: &Rig, task: u8) -> BTreeMap<String, String> {
    let folder = rig.log_path(task).with_extension("artifacts");
    let found = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
    found
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// A step of the action.
fn step(what: &str, name: &str, more: &str) -> String {
    format!("      - uses: ./.github/actions/artifact\n        with: {{do: {what}, name: {name}, {more}}}\n")
}

const CHECKOUT: &str = "    runs-on: linux\n    steps:\n      - uses: actions/checkout@v4\n";

#[tokio::test]
async fn what_a_run_uploads_is_passed_on_and_gathered_in_every_isolation() {
    let engine = Podman::start().await;
    let mut rig = Rig::with(|settings| engine.set(settings)).await;
    let jobs = [
        "jobs:\n  a:\n",
        CHECKOUT,
        "      - run: |\n          printf 'the quick brown fox' > site; echo of a > tests\n          \
         client=.github/actions/artifact/client.sh; bash $client upload tests tests\n          \
         bash $client upload gone tests; bash $client half half tests\n          echo \"token $ACTIONS_RUNTIME_TOKEN\"\n",
        &step("upload", "site", "file: site, block: 5"),
        "  b:\n    needs: a\n",
        CHECKOUT,
        "      - run: |\n          client=.github/actions/artifact/client.sh; bash $client download site > again\n          \
         grep -x 'the quick brown fox' again; bash $client delete gone\n          \
         bash $client upload late again; exit 7\n",
    ]
    .concat();
    for isolation in [Isolation::Container, Isolation::Bwrap, Isolation::None] {
        rig.order(ordered(&rig, 1, isolation, &jobs, plan(&[("a", Some(1)), ("b", Some(1))]))).await;
        let report = rig.report().await;
        let log = rig.log(1);
        // Of a run that failed too: they say why, mostly.
        assert!(matches!(&report, Report::Finished { conclusion: Conclusion::Failure, .. }), "{report:?}\n{log}");
        let expected = [("late", "the quick brown fox"), ("site", "the quick brown fox"), ("tests", "of a\n")];
        assert_eq!(gathered(&rig, 1), pairs(&expected), "{isolation}: {log}");
        assert!(log.contains("] token ***") && log.contains("3 artifacts are kept"), "{isolation}: {log}");
    }
    assert_eq!(engine.left(), [""; 0]);
    rig.close().await;
}

#[tokio::test]
async fn a_job_beside_services_uploads_too() {
    let engine = Podman::start().await;
    engine.import("localhost/web:1", "CMD [\"sleep\", \"60\"]");
    let mut rig = Rig::with(|settings| engine.set(settings)).await;
    let text = [
        "jobs:\n  a:\n    services: {web: {image: 'localhost/web:1'}}\n",
        CHECKOUT,
        "      - run: echo hello > file\n",
        &step("upload", "site", "file: file"),
    ]
    .concat();
    let services = PlannedJob { services: true, ..plan(&[("a", Some(1))]).jobs.remove(0) };
    rig.order(ordered(&rig, 1, Isolation::Container, &text, Plan { jobs: vec![services], ..Plan::default() })).await;
    let report = rig.report().await;
    assert!(matches!(&report, Report::Finished { conclusion: Conclusion::Success, .. }), "{report:?}\n{}", rig.log(1));
    assert_eq!(gathered(&rig, 1), pairs(&[("site", "hello\n")]));
    assert_eq!(engine.left(), [""; 0]);
    rig.close().await;
}

/// What a stranger hears who says this there.
fn said(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be cut off before it has said all.
    let _ = stream.write_all(request.replace('\n', "\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_not_the_token_neither_reads_nor_writes_nor_keeps_others_out() {
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let gate_port = gate.local_addr().unwrap().port();
    let mut rig = Rig::new().await;
    for (task, isolation) in [(1, BOTH[0]), (3, BOTH[1])] {
        let text = [
            "jobs:\n  a:\n",
            CHECKOUT,
            "      - run: echo secret words > file\n",
            &step("upload", "one", "file: file"),
            "      - run: |\n          echo \"at $ACTIONS_RESULTS_URL\"\n          ",
            "bash .github/actions/artifact/client.sh list\n          ",
            &format!("exec 4<>/dev/tcp/127.0.0.1/{gate_port}; read word <&4; echo $word\n"),
            &step("upload", "two", "file: file"),
        ]
        .concat();
        rig.order(ordered(&rig, task, isolation, &text, plan(&[("a", Some(1))]))).await;
        let accept = tokio::task::spawn_blocking({
            let gate = gate.try_clone().unwrap();
            move || gate.accept().unwrap().0
        });
        let mut waiting = tokio::time::timeout(PATIENCE, accept).await.expect("the first step is done").unwrap();
        wait("what it says of itself", || rig.log(task).contains("\"database_id\"")).await;
        let log = rig.log(task);
        let address = log.split("] at http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        let run = log.split("\"workflow_run_backend_id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{address}");

        let call = |method: &str, token: &str| {
            let body = format!("{{\"workflow_run_backend_id\":\"{run}\",\"name\":\"one\"}}");
            let head =
                format!("POST /twirp/github.actions.results.api.v1.ArtifactService/{method} HTTP/1.1\nHost: x\n");
            said(&address, &format!("{head}{token}Content-Length: {}\n\n{body}", body.len()))
        };
        let forged = "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzY3AiOiJBY3Rpb25zLlJlc3VsdHM6MToxIn0.AAAA\n";
        for method in ["CreateArtifact", "ListArtifacts", "GetSignedArtifactURL", "DeleteArtifact", "FinalizeArtifact"]
        {
            for token in ["", forged, "Authorization: Bearer\n", "Authorization: Basic eDp5\n"] {
                let answer = call(method, token);
                assert!(answer.starts_with("HTTP/1.1 401 "), "{method}: {answer}");
                assert!(!answer.contains("sig=") && !answer.contains("database_id"), "{answer}");
            }
        }
        for (method, path) in [
            ("GET", format!("/artifacts/{run}/1")),
            ("GET", format!("/artifacts/{run}/1?sig={}", "0".repeat(64))),
            ("PUT", format!("/artifacts/{run}/1?sig=&comp=block&blockid=YQ==")),
            ("PUT", format!("/artifacts/{run}/999?sig={}", "f".repeat(64))),
            ("GET", "/".to_owned()),
            ("DELETE", format!("/artifacts/{run}/1?sig=")),
            ("GET", "/artifacts/../../etc/passwd".to_owned()),
        ] {
            let answer = said(&address, &format!("{method} {path} HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc"));
            assert!(answer.starts_with("HTTP/1.1 403 "), "{method} {path}: {answer}");
        }
        let huge = said(&address, &format!("GET /{} HTTP/1.1\nHost: x\n\n", "x".repeat(200_000)));
        assert!(huge.is_empty() || huge.starts_with("HTTP/1.1 4"), "{huge}");

        // Another task of this host, with a token of its own.
        let other = [
            "jobs:\n  a:\n",
            CHECKOUT,
            &format!(
                "      - run: ACTIONS_RESULTS_URL=http://{address}/ bash .github/actions/artifact/client.sh list\n"
            ),
        ]
        .concat();
        rig.order(ordered(&rig, 2, Isolation::Bwrap, &other, plan(&[("a", Some(1))]))).await;
        let report = rig.report().await;
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::Failure, .. }), "{report:?}");
        assert!(rig.log(2).contains("401 Unauthorized"), "{}", rig.log(2));

        // All the connections there are, and more, by somebody who says nothing, or little.
        let mut idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
        for stream in &mut idle {
            let _ = stream.write_all(b"POST /twirp/x HTTP/1.1\r\n");
        }
        waiting.write_all(b"go\n").unwrap();
        let report = rig.report().await;
        let log = rig.log(task);
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }), "{report:?}\n{log}");
        assert_eq!(gathered(&rig, task), pairs(&[("one", "secret words\n"), ("two", "secret words\n")]), "{log}");
        assert!(TcpStream::connect(&address).is_err(), "nobody listens there after the end");
        drop(idle);
    }
    rig.close().await;
}

#[tokio::test]
async fn more_than_a_run_may_upload_is_refused_to_its_step_and_fills_nothing() {
    let limits = ArtifactLimits { bytes: 1 << 20, count: 2, floor: Some(0) };
    let mut rig = Rig::with(|settings| settings.artifacts = limits).await;
    let work = rig.scratch.path().join("data/work");
    let attempt =
        |what: &str| format!("bash .github/actions/artifact/client.sh {what} || echo \"refused $?\"\n          ");
    let text = [
        "jobs:\n  a:\n",
        CHECKOUT,
        "      - run: |\n          dd if=/dev/zero of=large bs=1M count=3 2>/dev/null; echo small > small\n          ",
        &attempt("upload large large"),
        &attempt("upload large large 300000"),
        &attempt("upload ../../../../escaped small"),
        &attempt("upload '' small"),
        &attempt("upload one small"),
        &attempt("upload one small"),
        &attempt("upload two small"),
        "\n",
    ]
    .concat();
    rig.order(ordered(&rig, 1, Isolation::Bwrap, &text, plan(&[("a", Some(1))]))).await;
    let uploads = || {
        let tasks = std::fs::read_dir(&work).into_iter().flatten().flatten();
        tasks.map(|task| size(&task.path().join("artifacts"))).sum::<u64>()
    };
    let mut most = 0;
    let report = loop {
        tokio::select! {
            report = rig.reports.recv() => break report,
            () = tokio::time::sleep(Duration::from_millis(5)) => most = most.max(uploads()),
        }
    };
    let log = rig.log(1);
    assert!(log.contains("success after"), "{report:?}\n{log}");
    assert!(most <= limits.bytes, "{most} bytes were kept at once");
    let count = |word: &str| log.matches(word).count();
    assert_eq!((count("413 Payload Too Large"), count("may upload 1048576 bytes")), (2, 2), "{log}");
    assert_eq!((count("no name for an artifact"), count("already exists"), count("] refused 1")), (2, 1, 6), "{log}");
    assert_eq!(count("may upload 2 artifacts and no more"), 1, "{log}");
    assert_eq!(gathered(&rig, 1), pairs(&[("one", "small\n")]), "{log}");
    rig.close().await;

    // A disk that is full, by the floor that the operator set.
    let full = ArtifactLimits { floor: Some(u64::MAX), ..limits };
    let mut rig = Rig::with(|settings| settings.artifacts = full).await;
    let text = ["jobs:\n  a:\n", CHECKOUT, "      - run: echo small > small\n", &step("upload", "one", "file: small")]
        .concat();
    rig.order(ordered(&rig, 1, Isolation::None, &text, plan(&[("a", Some(1))]))).await;
    let report = rig.report().await;
    let log = rig.log(1);
    assert!(matches!(report, Report::Finished { conclusion: Conclusion::Failure, .. }), "{report:?}\n{log}");
    assert!(log.contains("the disk of this host is too full for it"), "{log}");
    assert_eq!(gathered(&rig, 1), pairs(&[]));
    rig.close().await;
}

/// The bytes of all files below.
fn size(path: &Path) -> u64 {
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    if found.is_dir() {
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
    } else {
        found.len()
    }
}

#[tokio::test]
async fn a_stopped_run_and_one_without_a_network_leave_no_artifacts() {
    let mut rig = Rig::new().await;
    let text = [
        "jobs:\n  a:\n",
        CHECKOUT,
        "      - run: echo small > small\n",
        &step("upload", "one", "file: small"),
        "      - run: echo uploaded; sleep 600\n",
    ]
    .concat();
    let stopped = ordered(&rig, 1, Isolation::Bwrap, &text, plan(&[("a", Some(1))]));
    let (task, fence) = (stopped.task, stopped.fence);
    rig.order(stopped).await;
    wait("the upload", || rig.log(1).contains("] uploaded\n")).await;
    rig.handle.stop(task, fence).await.unwrap();
    assert_eq!(rig.report().await, Report::Stopped);
    assert_eq!(gathered(&rig, 1), pairs(&[]));
    rig.close().await;

    let mut rig = Rig::with(|settings| settings.network = Network::None).await;
    let text =
        "jobs:\n  a:\n    runs-on: linux\n    steps:\n      - run: env | grep ACTIONS_ || echo nothing is promised\n";
    let (conclusion, _) = rig.finish(Isolation::Bwrap, text, plan(&[("a", Some(1))])).await;
    assert_eq!(conclusion, Conclusion::Success, "{}", rig.log(1));
    assert!(rig.log(1).contains("nothing is promised"), "{}", rig.log(1));
    rig.close().await;
}
