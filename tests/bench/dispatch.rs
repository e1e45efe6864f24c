//! From a submission on one node to the claim on another, beside two queues with a server in the middle.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;
use super::measure::quantile;
use super::processes::{Mesh, PATIENCE, Process, free_port};
use super::report::{Goal, Row};

const NODES: usize = 5;
/// Tasks that are dispatched, one after the other.
const TASKS: usize = 150;
/// The same for the rivals, which are faster.
const MESSAGES: usize = 1_000;
/// Between two messages, so that each meets idle receivers, as each task does.
const PAUSE: Duration = Duration::from_millis(2);

/// What was measured, in milliseconds: one number a task.
#[derive(Default)]
struct Taken {
    /// From the call of Submit, with the look into the repository, to the claim: on the holder's disk, and told here.
    call: Vec<f64>,
    /// From the news that the task is on the submitter's disk to the same claim.
    introduced: Vec<f64>,
}

pub(crate) fn latency() -> Outcome<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ours = runtime.block_on(ours())?;
    let dir = tempfile::tempdir()?;
    let nats = nats(dir.path());
    let redis = redis(dir.path());
    let mut rows = Vec::new();
    for (name, goal, share) in [("dispatch_p50_ms", 2.0, 0.5), ("dispatch_p99_ms", 10.0, 0.99)] {
        let own = quantile(ours.introduced.clone(), share);
        for (rival, taken) in
            [("NATS queue group, in memory", &nats), ("Redis list, BLMOVE, append-only file synced always", &redis)]
        {
            let row = Row::alone(name, "ms", Goal::AtMost(goal), own);
            rows.push(match taken {
                Ok(taken) => row.against(rival, quantile(taken.clone(), share)),
                Err(error) => row.without(&format!("{rival}: {error}")),
            });
        }
        let name = name.replace("dispatch", "dispatch_with_look_into_git");
        rows.push(Row::alone(&name, "ms", Goal::None, quantile(ours.call.clone(), share)));
    }
    Ok(rows)
}

async fn ours() -> Outcome<Taken> {
    let mut mesh = Mesh::of(NODES, 0).await?;
    let mut taken = Taken::default();
    let mut n = 0;
    while taken.call.len() < TASKS {
        let submitter = n % NODES;
        n += 1;
        let called = Instant::now();
        let task = mesh.submit(submitter, format!("dispatch-{n}")).await?;
        let peers: Vec<String> = mesh.nodes.iter().map(|node| node.peer.clone()).collect();
        let (mut introduced, mut held, mut ended) = (None, None, false);
        let all = mesh.next("the claim and the end", |seen| {
            if seen.node == submitter && seen.is("introduced", &task) {
                introduced = Some(seen.at);
            }
            // What its holder itself says: the claim is on its disk then.
            if seen.is("held", &task) && seen.event.peer.as_ref() == Some(&peers[seen.node]) {
                held = Some((seen.node, seen.at));
            }
            ended |= seen.node == submitter && seen.is("ended", &task);
            introduced.is_some() && held.is_some() && ended
        });
        all.await?;
        if let (Some(introduced), Some((holder, held))) = (introduced, held)
            && holder != submitter
        {
            taken.call.push((held - called).as_secs_f64() * 1000.0);
            taken.introduced.push(held.saturating_duration_since(introduced).as_secs_f64() * 1000.0);
        }
    }
    Ok(taken)
}

/// Publishes to a queue group of as many members as we have nodes.
fn nats(dir: &Path) -> Outcome<Vec<f64>> {
    let port = free_port()?;
    let _server = Process::start("nats-server", &["-a", "127.0.0.1", "-p", &port.to_string()], &dir.join("nats.log"))?;
    let (told, hear) = mpsc::channel();
    for _ in 0..NODES {
        let (mut stream, mut lines) = connect(port)?;
        stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB tasks workers 1\r\nPING\r\n")?;
        expect(&mut lines, "PONG")?;
        let told = told.clone();
        // Ends when its connection does.
        thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                if line.starts_with("MSG") {
                    let _ = told.send(Instant::now());
                }
                line.clear();
            }
        });
    }
    let (mut stream, mut lines) = connect(port)?;
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
    expect(&mut lines, "PONG")?;
    timed(&hear, || {
        Ok(stream.write_all(b"PUB tasks 64\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n")?)
    })
}

/// Pushes to a list from which as many workers as we have nodes take, each into a list of its own.
fn redis(dir: &Path) -> Outcome<Vec<f64>> {
    let port = free_port()?;
    let folder = dir.to_string_lossy();
    let arguments = [
        "--bind",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--dir",
        &folder,
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
    ];
    let _server = Process::start("redis-server", &arguments, &dir.join("redis.log"))?;
    let (told, hear) = mpsc::channel();
    for n in 0..NODES {
        let (mut stream, mut lines) = connect(port)?;
        let told = told.clone();
        thread::spawn(move || {
            let (ask, mut line) = (format!("BLMOVE tasks taken:{n} RIGHT LEFT 0\r\n"), String::new());
            // The answer is a length, then the value; it comes when the move is on disk.
            while stream.write_all(ask.as_bytes()).is_ok() && lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                if lines.read_line(&mut line).is_err() {
                    return;
                }
                let _ = told.send(Instant::now());
                line.clear();
            }
        });
    }
    let (mut stream, mut lines) = connect(port)?;
    timed(&hear, || {
        stream.write_all(b"LPUSH tasks 0123456789012345678901234567890123456789012345678901234567890123\r\n")?;
        expect(&mut lines, ":")
    })
}

/// How long each message takes to be received, in milliseconds.
fn timed(hear: &mpsc::Receiver<Instant>, mut send: impl FnMut() -> Outcome<()>) -> Outcome<Vec<f64>> {
    let mut taken = Vec::new();
    for _ in 0..MESSAGES {
        let sent = Instant::now();
        send()?;
        let heard = hear.recv_timeout(PATIENCE)?;
        taken.push(heard.saturating_duration_since(sent).as_secs_f64() * 1000.0);
        thread::sleep(PAUSE);
    }
    Ok(taken)
}

fn connect(port: u16) -> Outcome<(TcpStream, BufReader<TcpStream>)> {
    let began = Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let lines = BufReader::new(stream.try_clone()?);
                return Ok((stream, lines));
            }
            Err(error) if began.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Reads lines up to one that begins so.
fn expect(lines: &mut BufReader<TcpStream>, word: &str) -> Outcome<()> {
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if line.starts_with(word) {
            return Ok(());
        }
        line.clear();
    }
    Err(format!("the connection ended before `{word}`").into())
}
