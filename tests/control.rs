//! The control API over its real socket, with a daemon that is a few lines long.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use runmesh::control::{
    Answer, Client, ControlError, EventFeed, LogFile, Query, Refusal, Server, Writing, counts_by_state, proto, serve,
};
use runmesh::kernel::id::{Cid, Digest, TaskId};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Code;

/// Longer than anything here should take.
const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_millis(200);

fn known() -> [TaskId; 3] {
    [TaskId([0x11; 32]), TaskId([0x12; 32]), TaskId([0x22; 32])]
}

fn event(number: u64) -> proto::Event {
    proto::Event { time_ms: number, kind: "warning".to_owned(), text: format!("event {number}"), ..Default::default() }
}

/// A node's data directory and what the daemon below knows.
struct Node {
    dir: tempfile::TempDir,
    events: broadcast::Sender<proto::Event>,
    log_writing: watch::Sender<Writing>,
    server: Server,
    daemon: JoinHandle<()>,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let (queries, asked) = mpsc::channel(8);
        let (events, _) = broadcast::channel(4);
        let (log_writing, writing) = watch::channel(Writing::Going);
        let server = serve(dir.path(), queries).await.expect("served");
        let log = dir.path().join("task.log");
        let daemon = tokio::spawn(daemon(asked, events.clone(), log, writing));
        Self { dir, events, log_writing, server, daemon }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    fn log(&self) -> PathBuf {
        self.path().join("task.log")
    }

    async fn client(&self) -> Client {
        Client::connect(self.path()).await.expect("connected")
    }

    async fn stop(self) {
        let began = Instant::now();
        self.server.stop(GRACE).await;
        assert!(began.elapsed() < GRACE + Duration::from_secs(3), "{:?}", began.elapsed());
        // The server was the only one that asked.
        timeout(PATIENCE, self.daemon).await.expect("the daemon's queue ends with the server").expect("no panic");
    }
}

async fn daemon(
    mut asked: mpsc::Receiver<Query>,
    events: broadcast::Sender<proto::Event>,
    log: PathBuf,
    writing: watch::Receiver<Writing>,
) {
    let mut held = Vec::new();
    while let Some(query) = asked.recv().await {
        match query {
            Query::Status { answer } => answer.send(Ok(status())),
            Query::Peers { answer } => {
                answer.send(Ok(vec![proto::Peer { peer_id: "p".to_owned(), ..Default::default() }]));
            }
            Query::Tasks { filter, answer } => {
                let states = ["pending", "running", "completed"];
                let known = known();
                let tasks = known.iter().zip(states).filter(|(id, state)| filter.admits(id, state));
                let task = |(id, state): (&TaskId, &str)| proto::Task {
                    id: id.to_string(),
                    state: state.to_owned(),
                    ..Default::default()
                };
                answer.send(Ok(tasks.map(task).collect()));
            }
            Query::Queue { answer } => answer.send(Ok(vec![proto::Queued { position: 1, ..Default::default() }])),
            Query::Clock { last, answer } => {
                let latest =
                    (0..last.min(2000)).map(|n| proto::ClockEntry { sequence: n as u64, ..Default::default() });
                answer.send(Ok(proto::Clock { latest: latest.collect(), ..Default::default() }));
            }
            Query::Runners { answer } => answer.send(Ok(Vec::new())),
            Query::Sources { answer } => answer.send(Err(Refusal::Unavailable("not today: „später“ ☃".to_owned()))),
            Query::Members { answer } => {
                answer.send(Ok(vec![proto::Member { right: "founder".to_owned(), ..Default::default() }]));
            }
            Query::Events { last, answer } => {
                let past = (0..10).map(event).skip(10_usize.saturating_sub(last)).collect();
                answer.send(Ok(EventFeed { past, live: events.subscribe() }));
            }
            Query::Submit { submit, answer } => match submit.repository.as_str() {
                "a/b" => answer.send(Ok(known()[0])),
                // Neither answered nor refused for as long as the daemon lives.
                "a/hangs" => held.push(answer),
                "a/dropped" => drop(answer),
                other => answer.send(Err(Refusal::NotFound(format!("no source contains the repository {other}")))),
            },
            Query::Discover { sources, answer } => {
                answer.send(Ok(proto::DiscoverResponse { submitted: 3, problems: sources, ..Default::default() }));
            }
            Query::Cancel { task, answer, why } => {
                assert_eq!(why, "enough");
                answer.send(task.find(&known()));
            }
            Query::Next { next, answer } => answer.send(match next.lease {
                None => Err(Refusal::TooLate(format!("nothing within {} s", next.wait.as_secs()))),
                Some(lease) => Ok(proto::Assignment {
                    claim: "c".to_owned(),
                    lease_for_ms: u64::try_from(lease.as_millis()).expect("short"),
                    ..Default::default()
                }),
            }),
            Query::Keep { task, claim, answer } => answer.send(
                task.find(&known()).map(|id| proto::Lease { id: id.to_string(), until_ms: u64::from(claim.is_some()) }),
            ),
            Query::Complete { complete, answer } => {
                assert_eq!((complete.conclusion.word(), complete.note.as_str()), ("timed_out", "slow"));
                answer.send(complete.task.find(&known()));
            }
            Query::Log { task, attempt, follow: _, answer } => answer.send(task.find(&known()).map(|_| LogFile {
                path: if attempt == Some(9) { log.with_extension("none") } else { log.clone() },
                writing: writing.clone(),
                arriving: false,
            })),
            Query::Artifact { task, name, answer } => {
                let found = task.find(&known()).map(|_| log.with_file_name(&name));
                let none = || Refusal::NotNow("it is at another host".to_owned());
                answer.send(found.and_then(|path| Some(path).filter(|_| name != "elsewhere").ok_or_else(none)));
            }
            Query::Invite { answer } => {
                answer
                    .send(Ok(proto::Invite { mesh_id: "m".to_owned(), addresses: vec!["/ip4/127.0.0.1".to_owned()] }));
            }
            Query::Cut { peer, answer } => answer.send(Ok(format!("cut of {peer}"))),
            Query::Revoke { text, answer } => {
                answer.send(text.parse().map_err(|_| Refusal::Invalid("no peer".to_owned())))
            }
            Query::Pause { why, answer } => answer.send(match why.as_deref() {
                Some("a fire") => Ok(()),
                Some(other) => Err(Refusal::Failed(other.to_owned())),
                None => Err(Refusal::NotNow("the mesh is not paused".to_owned())),
            }),
            Query::Cordon { why, answer } => answer.send(Ok(if why.is_some() { 2 } else { 0 })),
            Query::Drain { limit, answer } => answer.send(Ok(proto::DrainResponse {
                running: 2,
                limit_ms: limit.map_or(7, |limit| limit.as_millis() as u64),
                pid: std::process::id(),
            })),
            Query::Shutdown { drain, answer } => {
                answer.send(if drain { Ok(()) } else { Err(Refusal::NotNow("say --drain".to_owned())) });
            }
        }
        held.retain(Answer::is_wanted);
    }
}

fn status() -> proto::Status {
    proto::Status {
        peer_id: "12D3".to_owned(),
        tasks: counts_by_state(["pending", "left-to-github"]),
        runners: Some(proto::RunnerCounts { max: 2, running: 1, free: 1 }),
        heads: vec!["bafy".to_owned()],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_reaches_the_daemon_and_its_answer_comes_back() {
    let node = Node::start().await;
    let client = node.client().await;
    assert_eq!(client.status().await.expect("answered"), status());
    assert_eq!(client.peers().await.expect("answered")[0].peer_id, "p");
    assert_eq!(client.tasks("", &[]).await.expect("answered").len(), 3);
    assert_eq!(client.tasks("11", &[]).await.expect("answered")[0].id, known()[0].to_string());
    let running = client.tasks("1", &["running".to_owned(), "lost".to_owned()]).await.expect("answered");
    assert_eq!(running.iter().map(|task| &task.id).collect::<Vec<_>>(), [&known()[1].to_string()]);
    assert_eq!(client.queue().await.expect("answered")[0].position, 1);
    assert_eq!(client.clock(7).await.expect("answered").latest.len(), 7);
    assert_eq!(client.clock(1_000_000).await.expect("answered").latest.len(), 1000);
    assert!(client.runners().await.expect("answered").is_empty());
    assert_eq!(client.members().await.expect("answered")[0].right, "founder");
    assert_eq!(client.submit(submission("a/b")).await.expect("answered"), known()[0].to_string());
    let looked = client.discover(&["github:octo".to_owned()]).await.expect("answered");
    assert_eq!((looked.submitted, looked.problems), (3, vec!["github:octo".to_owned()]));
    assert_eq!(client.cancel("2222", "enough").await.expect("answered"), known()[2].to_string());
    let lease = Some(Duration::from_millis(1500));
    assert_eq!(client.next_task(Duration::ZERO, lease).await.expect("answered").lease_for_ms, 1500);
    let claim = Cid::of(b"claim").to_string();
    assert_eq!(client.keep("2222", &claim).await.expect("answered").until_ms, 1);
    assert_eq!(client.complete(completion("timed_out")).await.expect("answered"), known()[2].to_string());
    assert_eq!(client.invite().await.expect("answered").addresses.len(), 1);
    assert_eq!(client.drain(None).await.expect("answered").running, 2);
    assert_eq!(client.drain(Some(Duration::from_millis(1500))).await.expect("answered").limit_ms, 1500);
    assert_eq!(client.cordon("a new disk").await.expect("answered"), 2);
    client.uncordon().await.expect("answered");
    client.pause("a fire").await.expect("paused");
    assert_eq!(refused(client.pause("a flood").await), (Code::Internal, "a flood".to_owned()));
    assert_eq!(refused(client.resume().await), (Code::FailedPrecondition, "the mesh is not paused".to_owned()));
    assert_eq!(client.shutdown(true).await.expect("answered"), std::process::id());
    node.stop().await;
}

fn completion(conclusion: &str) -> proto::CompleteRequest {
    proto::CompleteRequest {
        id: "22".repeat(32),
        conclusion: conclusion.to_owned(),
        note: "slow".to_owned(),
        ..Default::default()
    }
}

fn submission(repository: &str) -> proto::SubmitRequest {
    proto::SubmitRequest {
        repository: repository.to_owned(),
        path: "ci.yml".to_owned(),
        inputs: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_status_prints_with_the_documented_names() {
    let json = serde_json::to_value(status()).expect("prints");
    for name in ["peer_id", "mesh_id", "listen", "peers", "heads", "entries", "state_hash", "tasks", "runners"] {
        assert!(json.get(name).is_some(), "{name} in {json}");
    }
    assert_eq!((&json["tasks"]["left-to-github"], &json["tasks"]["lost"]), (&1.into(), &0.into()));
    assert_eq!(json["runners"]["max"], 2);
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ControlError>) -> (Code, String) {
    match answer {
        Err(ControlError::Refused { code, sentence }) => (code, sentence),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_back_as_the_daemons_sentence() {
    let node = Node::start().await;
    let client = node.client().await;
    assert_eq!(refused(client.sources().await), (Code::Unavailable, "not today: „später“ ☃".to_owned()));
    let (code, sentence) = refused(client.submit(submission("a/c")).await);
    assert_eq!((code, sentence.as_str()), (Code::NotFound, "no source contains the repository a/c"));
    assert_eq!(refused(client.shutdown(false).await).0, Code::FailedPrecondition);
    let (code, sentence) = refused(client.cancel("3333", "enough").await);
    assert!(code == Code::NotFound && sentence.contains("3333"), "{sentence}");
    let (code, sentence) = refused(client.submit(submission("a/dropped")).await);
    assert!(code == Code::Unavailable && sentence.contains("going away"), "{sentence}");
    // What makes no sense never reaches the daemon, which would fail on these.
    for (code, sentence) in [
        refused(client.cancel("no task", "why").await),
        refused(client.cancel("", "why").await),
        refused(client.tasks("", &["done".to_owned()]).await),
        refused(client.submit(submission("")).await),
        refused(client.cordon(&"ä".repeat(251)).await),
        refused(client.drain(Some(Duration::MAX)).await),
        refused(client.submit(proto::SubmitRequest { priority: Some(11), ..submission("a/b") }).await),
    ] {
        assert_eq!(code, Code::InvalidArgument, "{sentence}");
    }
    // A sentence without end still fits.
    let (code, sentence) = refused(client.submit(submission(&"ä".repeat(8000))).await);
    assert!(code == Code::NotFound && sentence.chars().count() == 2000, "{code:?} {}", sentence.len());
    assert_eq!(client.drain(None).await.expect("the connection stands").running, 2);
    node.stop().await;
}

#[tokio::test]
async fn where_no_node_answers_the_error_says_how_to_start_one() {
    let dir = tempfile::tempdir().expect("directory");
    let missing = dir.path().join("none");
    let stale = dir.path().join("stale");
    fs::create_dir(&stale).expect("made");
    drop(StdListener::bind(stale.join("control.sock")).expect("bound"));
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    for path in [dir.path(), &missing, &stale, &file] {
        let error = Client::connect(path).await.expect_err("no node");
        assert!(matches!(error, ControlError::NoNode { .. }), "{error:?}");
        let shown = path.display();
        let expected = format!("no node answers at {shown}: start one with `runmesh node run --data-dir {shown}`");
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_private_and_goes_with_the_server() {
    let node = Node::start().await;
    let found = fs::symlink_metadata(node.socket()).expect("there");
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    assert!(!node.path().join("control.new").exists());
    let (dir, socket) = (node.path().to_owned(), node.socket());
    node.stop().await;
    assert!(!socket.exists());
    assert!(matches!(Client::connect(&dir).await, Err(ControlError::NoNode { .. })));

    // Dropped without a word, it ends too.
    let node = Node::start().await;
    let (socket, client) = (node.socket(), node.client().await);
    drop(node.server);
    assert!(!socket.exists());
    let error = timeout(PATIENCE, client.status()).await.expect("soon").expect_err("gone");
    assert!(matches!(error, ControlError::Gone { .. }), "{error:?}");
    timeout(PATIENCE, node.daemon).await.expect("ends").expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_socket_is_replaced_and_nothing_else() {
    let (queries, _asked) = mpsc::channel(1);
    let node = Node::start().await;
    let second = serve(node.path(), queries.clone()).await;
    assert!(matches!(second, Err(ControlError::Taken { .. })), "{second:?}");
    assert_eq!(node.client().await.drain(None).await.expect("the first goes on").running, 2);
    node.stop().await;

    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("control.sock");
    drop(StdListener::bind(&socket).expect("bound"));
    drop(StdListener::bind(dir.path().join("control.new")).expect("bound"));
    let first = serve(dir.path(), queries.clone()).await.expect("replaced");
    // A socket that somebody else has put there meanwhile stays.
    fs::remove_file(&socket).expect("removed");
    let other = StdListener::bind(&socket).expect("bound");
    first.stop(GRACE).await;
    assert!(socket.exists());
    drop(other);

    fs::remove_file(&socket).expect("removed");
    fs::write(&socket, "mine").expect("written");
    let refused = serve(dir.path(), queries.clone()).await;
    assert!(matches!(refused, Err(ControlError::NotASocket { .. })), "{refused:?}");
    assert_eq!(fs::read(&socket).expect("there"), b"mine");
    let missing = serve(&dir.path().join("none"), queries).await;
    assert!(matches!(missing, Err(ControlError::Socket { .. })), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_with_a_long_path_serves_too() {
    let dir = tempfile::tempdir().expect("directory");
    let long = dir.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&long).expect("made");
    assert!(matches!(Client::connect(&long).await, Err(ControlError::NoNode { .. })));
    assert!(matches!(Client::connect(&long.join("none")).await, Err(ControlError::NoNode { .. })));
    let (queries, asked) = mpsc::channel(8);
    let server = serve(&long, queries).await.expect("served");
    assert!(fs::symlink_metadata(long.join("control.sock")).expect("there").file_type().is_socket());
    let (events, _) = broadcast::channel(4);
    let (_log_writing, writing) = watch::channel(Writing::Going);
    let daemon = tokio::spawn(daemon(asked, events, long.join("log"), writing));
    let client = Client::connect(&long).await.expect("connected");
    assert_eq!(client.drain(None).await.expect("answered").running, 2);
    let (second, _) = mpsc::channel(1);
    assert!(matches!(serve(&long, second).await, Err(ControlError::Taken { .. })));
    server.stop(GRACE).await;
    assert!(!long.join("control.sock").exists());
    timeout(PATIENCE, daemon).await.expect("ends").expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_begin_with_the_latest_and_go_on_until_the_node_ends() {
    let node = Node::start().await;
    let client = node.client().await;
    let past: Vec<_> = client.events(3, false).await.expect("answered").try_collect().await.expect("ends");
    assert_eq!(past, [event(7), event(8), event(9)]);

    let mut live = client.events(1, true).await.expect("answered");
    assert_eq!(live.next().await.expect("past").expect("event"), event(9));
    for number in 10..13 {
        node.events.send(event(number)).expect("heard");
        let next = timeout(PATIENCE, live.next()).await.expect("soon").expect("one").expect("event");
        assert_eq!(next, event(number));
    }
    node.stop().await;
    let rest: Vec<_> = timeout(PATIENCE, live.collect()).await.expect("it ends with the node");
    assert!(rest.iter().all(Result::is_ok), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_events_too_slowly_is_told_how_many_were_missed() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut live = client.events(0, true).await.expect("answered");
    // Far more than the connection's windows and the channel hold.
    let long = "x".repeat(100_000);
    for number in 0..500 {
        node.events.send(proto::Event { text: long.clone(), ..event(number) }).expect("heard");
        tokio::task::yield_now().await;
    }
    node.events.send(event(1000)).expect("heard");
    let (mut missed, mut seen) = (0, 0);
    loop {
        let next = timeout(PATIENCE, live.next()).await.expect("soon").expect("one").expect("event");
        match next.kind.as_str() {
            "missed-events" => {
                missed += next.text.split(' ').next().expect("a word").parse::<u32>().expect("a number");
            }
            _ if next.time_ms == 1000 => break,
            _ => seen += 1,
        }
    }
    assert_eq!(missed + seen, 500, "{missed} missed, {seen} seen");
    assert!(missed > 0);
    node.stop().await;
}

async fn read_all(client: &Client, follow: bool) -> Result<Vec<u8>, ControlError> {
    let chunks = client.log("1111", 0, follow).await?;
    timeout(PATIENCE, chunks.try_concat()).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_comes_whole_and_without_follow_as_it_stands() {
    let node = Node::start().await;
    let client = node.client().await;
    let (code, sentence) = refused(read_all(&client, false).await);
    assert!(code == Code::NotFound && sentence.contains("not here any more"), "{sentence}");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(node.log(), &bytes).expect("written");
    assert!(read_all(&client, false).await.expect("read") == bytes);
    fs::write(node.log(), "").expect("written");
    assert_eq!(read_all(&client, false).await.expect("read"), b"");
    let (code, _) = refused(client.log("9999", 0, false).await.map(|_| ()));
    assert_eq!(code, Code::NotFound);
    node.log_writing.send_replace(Writing::Ended);
    let none: Result<Vec<_>, _> = client.log("1111", 9, true).await.expect("answered").try_collect().await;
    assert_eq!(refused(none).0, Code::NotFound, "ended without a log");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_comes_whole_or_with_the_reason_why_not() {
    let node = Node::start().await;
    let client = node.client().await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(node.log().with_file_name("site"), &bytes).expect("written");
    let whole = client.artifact("1111", "site").await.expect("answered").try_concat();
    assert!(timeout(PATIENCE, whole).await.expect("it ends").expect("read") == bytes);
    let none: Result<Vec<_>, _> = client.artifact("1111", "gone").await.expect("answered").try_collect().await;
    assert_eq!(refused(none).0, Code::NotFound);
    let (code, sentence) = refused(client.artifact("1111", "elsewhere").await.map(|_| ()));
    assert_eq!((code, sentence.as_str()), (Code::FailedPrecondition, "it is at another host"));
    assert_eq!(refused(client.artifact("9999", "site").await.map(|_| ())).0, Code::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_followed_log_comes_as_it_grows_and_ends_with_its_task() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut chunks = client.log("1111", 0, true).await.expect("before there is a file");
    let mut file = fs::File::create(node.log()).expect("made");
    let mut read = Vec::new();
    let mut written = Vec::new();
    for line in 0..5 {
        let line = format!("line {line} ä\n");
        file.write_all(line.as_bytes()).expect("written");
        written.extend_from_slice(line.as_bytes());
        while read.len() < written.len() {
            read.extend(timeout(PATIENCE, chunks.next()).await.expect("soon").expect("more").expect("read"));
        }
        assert_eq!(read, written, "no more than was written");
    }
    file.write_all(b"the end").expect("written");
    node.log_writing.send_replace(Writing::Ended);
    let rest = timeout(PATIENCE, chunks.try_concat()).await.expect("ends").expect("read");
    assert_eq!(rest, b"the end");

    // One that is cut meanwhile is not read as if nothing had happened.
    node.log_writing.send_replace(Writing::Going);
    let mut chunks = client.log("1111", 0, true).await.expect("answered");
    timeout(PATIENCE, chunks.next()).await.expect("soon").expect("more").expect("read");
    file.set_len(3).expect("cut");
    let error = timeout(PATIENCE, chunks.next()).await.expect("soon").expect("more");
    assert_eq!(refused(error).0, Code::Internal);

    // A task that ends with its daemon, without a word.
    let chunks = client.log("1111", 0, true).await.expect("answered");
    node.stop().await;
    timeout(PATIENCE, chunks.collect::<Vec<_>>()).await.expect("it ends with the node");
}

/// Memory of this process that is in RAM, in MiB.
fn resident_mib() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096 / (1024 * 1024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_does_no_harm() {
    let node = Node::start().await;
    // A log of a gigabyte that takes no room.
    fs::File::create(node.log()).and_then(|file| file.set_len(1 << 30)).expect("made");
    let client = node.client().await;
    let before = resident_mib();
    let mut idle = Vec::new();
    for _ in 0..20 {
        // Says nothing; says nonsense; begins to talk and stops.
        idle.push(StdStream::connect(node.socket()).expect("connected"));
        let mut nonsense = StdStream::connect(node.socket()).expect("connected");
        nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n\0\0\0").expect("sent");
        idle.push(nonsense);
        let mut half = StdStream::connect(node.socket()).expect("connected");
        half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        idle.push(half);
    }
    let mut unread = Vec::new();
    for _ in 0..20 {
        let reader = node.client().await;
        unread.push(reader.log("1111", 0, true).await.expect("answered"));
        unread.push(reader.log("1111", 0, false).await.expect("answered"));
    }
    // Waits for an answer that never comes.
    let waiting = tokio::spawn({
        let client = node.client().await;
        async move { client.submit(submission("a/hangs")).await }
    });
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(client.drain(None).await.expect("answered").running, 2);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let grown = resident_mib().saturating_sub(before);
    assert!(grown < 200, "{grown} MiB for 40 unread gigabytes");
    node.stop().await;
    let answer = timeout(PATIENCE, waiting).await.expect("soon").expect("no panic");
    assert!(matches!(answer, Err(ControlError::Gone { .. } | ControlError::Refused { .. })), "{answer:?}");
    // Every connection is closed from the node's side.
    for mut stream in idle {
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        assert!(closed.is_ok() || closed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_callers_than_seats_wait_for_one() {
    let node = Node::start().await;
    let mut seats: Vec<_> = (0..128).map(|_| StdStream::connect(node.socket()).expect("connected")).collect();
    let (path, mut late) =
        (node.path().to_owned(), tokio::net::UnixStream::connect(node.socket()).await.expect("queued"));
    late.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    let mut waiting = tokio::spawn(async move { Client::connect(&path).await?.drain(None).await });
    let early = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "no seat is free: {early:?}");
    seats.truncate(100);
    let answer = timeout(PATIENCE, waiting).await.expect("soon").expect("no panic");
    assert_eq!(answer.expect("answered").running, 2);
    drop(late);
    node.stop().await;
}

/// Greets as HTTP/2 does and prints how many bytes come back.
const GREET: &str = r"
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
try:
    s.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + b'\0\0\0\4\0\0\0\0\0')
    print(len(s.recv(100)))
except (ConnectionResetError, BrokenPipeError):
    print(0)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_user_is_not_heard() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can be two users.
    }
    let node = Node::start().await;
    // As if the file's mode and the directory's did not protect it.
    fs::set_permissions(node.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(node.socket(), fs::Permissions::from_mode(0o666)).expect("chmod");
    let greet = |user: u32| {
        let mut command = Command::new("python3");
        command.arg("-c").arg(GREET).arg(node.socket()).uid(user).gid(user).current_dir("/").stdin(Stdio::null());
        let output = command.output().expect("ran");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        out.trim().parse::<u32>().unwrap_or_else(|_| panic!("{out}{err}"))
    };
    assert!(greet(0) > 0, "root is heard");
    assert_eq!(greet(65534), 0, "nobody is not");
    node.stop().await;
}

#[tokio::test]
async fn any_bytes_at_the_socket_are_answered_or_refused_and_the_next_caller_is_served() {
    use tokio::io::AsyncReadExt as _;

    let node = Node::start().await;
    let (began, mut draw) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(30) {
        draw += 1;
        let digest = |n: u64| Digest::of(&[b"socket", &draw.to_be_bytes(), &n.to_be_bytes()]).0;
        let noise: Vec<u8> = (0..u64::from(digest(0)[0])).flat_map(|n| digest(n + 1)).collect();
        // Nothing at all of HTTP/2, its preface and then noise, and frames of each kind with noise in them.
        let bytes = match draw % 3 {
            0 => noise,
            1 => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &noise].concat(),
            _ => {
                let frames = noise.chunks(100).zip(0_u8..).flat_map(|(part, n)| {
                    [&[0, 0, part.len() as u8, n % 10, part[0] & 0x2d, 0, 0, 0, n % 4], part].concat()
                });
                [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), frames.collect()].concat()
            }
        };
        let mut stream = tokio::net::UnixStream::connect(node.socket()).await.expect("connects");
        // It may be closed before all is written.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
        if draw.is_multiple_of(50) {
            node.client().await.status().await.expect("answered");
        }
    }
    assert!(draw > 50, "{draw}");
    node.client().await.status().await.expect("answered");
    node.stop().await;
}
