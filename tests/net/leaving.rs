//! How a node leaves, and how soon the others know.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runmesh::net::{Multiaddr, NetError, Settings, Topic};

use crate::node::{Node, Seen, pair, settings};

/// Far less than any timeout that could be behind it.
const AT_ONCE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_dropped_swarm_is_noticed_at_once() {
    let (first, mut second) = pair().await;
    let peer = first.peer();
    let dropped = Instant::now();
    drop(first);
    second.disconnected(peer).await;
    assert!(dropped.elapsed() < AT_ONCE, "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn an_orderly_end_lets_the_last_words_leave() {
    let (first, mut second) = pair().await;
    let (peer, client) = (first.peer(), first.client.clone());
    first.publish(b"last words").await;
    first.shutdown().await;
    let mut heard = false;
    second
        .until("the end", |seen| {
            heard |= matches!(seen, Seen::Gossip { bytes, .. } if bytes == b"last words");
            (*seen == Seen::Disconnected(peer)).then_some(())
        })
        .await;
    assert!(heard);
    assert!(matches!(client.publish(Topic::Entries, vec![1]).await, Err(NetError::Stopped)));
    assert!(matches!(client.peers().await, Err(NetError::Stopped)));
}

/// Ends the process whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_killed_process_is_noticed_at_once() {
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "leaving::a_node_in_a_process_of_its_own", "--nocapture"])
        .env("RUNMESH_TEST_NODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut child = Killed(child);
    let output = child.0.stdout.take().expect("piped");
    let find = move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        lines.find_map(|line| line.split("listening: ").nth(1).map(str::to_owned))
    };
    let address = tokio::task::spawn_blocking(find).await.expect("read").expect("an address");
    let address: Multiaddr = address.parse().expect("an address");
    let mut node = Node::start(settings(1));
    let peer = node.client.dial(address).await.expect("dials");
    node.connected(peer).await;
    let killed = Instant::now();
    child.0.kill().expect("kills");
    node.disconnected(peer).await;
    assert!(killed.elapsed() < AT_ONCE, "{:?}", killed.elapsed());
}

/// Not a test: what the one above kills. It ends with its standard input, so that none is left behind.
#[tokio::test]
async fn a_node_in_a_process_of_its_own() {
    if std::env::var_os("RUNMESH_TEST_NODE").is_none() {
        return;
    }
    let mut node = Node::start(Settings { bootstrap: Vec::new(), ..settings(2) });
    let address = node.address().await;
    // To the test's own output, past its capturing.
    std::io::Write::write_all(&mut std::io::stdout(), format!("listening: {address}\n").as_bytes()).expect("writes");
    let ends = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    let _ = ends.await.expect("reads");
}
