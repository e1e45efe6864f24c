//! What hostile peers can do to a mesh of real processes: nothing. Each test says what the honest nodes must show while
//! it is tried: they go on agreeing, go on taking tasks, keep their memory bounded, and name the attacker.
//!
//! Needs git; the tasks are executed by a worker, so neither act nor a sandbox.

#[path = "adversary/peer.rs"]
mod peer;
#[allow(dead_code, reason = "tests/mesh.rs uses the rest")]
#[path = "mesh/rig.rs"]
mod rig;
#[path = "adversary/sloth.rs"]
mod sloth;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use runmesh::kernel::election::{Place, Seed};
use runmesh::kernel::entry::{Body, Cancel, Claim, Entry, Event, Finish, Ticket};
use runmesh::kernel::id::{Cid, Digest, TaskId};
use runmesh::kernel::io::{Offer, Presence, Request, Response};
use runmesh::kernel::task::{Conclusion, Fence, Products};
use runmesh::net::Topic;
use runmesh::store::Secret;
use runmesh::wire::ticket::Invitation;
use runmesh::wire::{gossip, presence, request};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use peer::{Peer, Seen, by_bytes, by_ticket, peer_of};
use rig::{Mesh, Node, Repository};

const ANY: &str =
    "# P2P: p2p-only\non: workflow_dispatch\njobs:\n  a:\n    runs-on: self-hosted\n    steps:\n      - run: echo\n";
/// The most memory that an attacked node may take: four times what the limits on what waits add up to.
const RSS_MIB: u64 = 300;

/// Two honest nodes whose tasks a worker executes.
fn mesh() -> (Mesh, Repository) {
    let repository = Repository::with(&[("any.yml", &ANY.replace("# P2P: p2p-only\n", ""))]);
    let mesh = Mesh::with(2, std::slice::from_ref(&repository), &["--executor", "none"]);
    for node in mesh.nodes() {
        node.wait_for("the source", |node| {
            node.json(&["inspect", "sources"]).as_array().is_some_and(|sources| !sources.is_empty())
        });
    }
    (mesh, repository)
}

fn invite(node: &Node) -> Invitation {
    let ticket = node.json(&["mesh", "invite"])["ticket"].as_str().expect("a ticket").to_owned();
    ticket.parse().expect("a ticket")
}

fn mesh_key(mesh: &Mesh) -> SigningKey {
    Secret::read(&mesh.data_dir(0).join("mesh.key")).expect("the founder's").signing_key()
}

fn submit(node: &Node, repository: &Repository) -> String {
    node.json(&["p2p-workflow", "submit", repository.path(), "any.yml"])["id"].as_str().expect("an id").to_owned()
}

/// A worker at that node takes the next task, which must be that one, and ends it. Returns its attempt.
fn work(node: &Node, id: &str) -> u64 {
    let assignment = node.json(&["p2p-workflow", "next", "--wait", "60s"]);
    assert_eq!(assignment["task"]["id"], id, "{assignment:#}");
    assert_eq!(node.run(&["p2p-workflow", "complete", id]).status, 0);
    assignment["task"]["attempt"].as_u64().expect("a number")
}

/// The honest nodes still agree, answer at once, take and end a task, and have not grown beyond bounds.
fn still_works(mesh: &Mesh, repository: &Repository) {
    for node in mesh.nodes() {
        let asked = Instant::now();
        node.json(&["inspect", "status"]);
        assert!(asked.elapsed() < Duration::from_secs(10), "it answers: {:?}", asked.elapsed());
    }
    let [one, two] = [0, 1].map(|number| mesh.nodes().nth(number).expect("two"));
    let id = submit(one, repository);
    work(two, &id);
    for node in mesh.nodes() {
        node.wait_for("the task's end", |node| node.json(&["inspect", "tasks", &id])["state"] == "completed");
        let rss = rss_mib(node);
        assert!(rss < RSS_MIB, "{rss} MiB");
    }
    mesh.wait_for_agreement();
}

fn rss_mib(node: &Node) -> u64 {
    memory_mib(node, "VmRSS:")
}

fn memory_mib(node: &Node, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a size");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") / 1024
}

/// What a node says against a peer.
fn faults(node: &Node, peer: &str) -> String {
    let peers = node.json(&["inspect", "peers"]);
    let found = peers.as_array().expect("a list").iter().find(|one| one["peer_id"] == peer);
    found.map_or_else(String::new, |one| one["faults"].to_string())
}

/// What a node has told of the peer under that kind of event.
fn told(node: &Node, kind: &str, peer: &str) -> Vec<String> {
    let events = node.json(&["inspect", "events", "--last", "1000"]);
    let of_it = |event: &&Value| event["kind"] == kind && event["peer"] == peer;
    let events = events.as_array().expect("a list").iter().filter(of_it);
    events.map(|event| event["text"].as_str().expect("a text").to_owned()).collect()
}

fn warnings(node: &Node) -> String {
    node.json(&["inspect", "status"])["warnings"].to_string()
}

fn members(node: &Node) -> Vec<String> {
    let members = node.json(&["mesh", "members"]);
    let id = |member: &Value| member["peer_id"].as_str().expect("an id").to_owned();
    members.as_array().expect("a list").iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_prove_membership_gets_nowhere() {
    let (mesh, repository) = mesh();
    let one = mesh.nodes().next().expect("a node");
    let invitation = invite(one);
    let key = mesh_key(&mesh);

    let expired = Ticket::sign(&key, 5, 1_000);
    let why = Peer::start([40; 32], &invitation, by_ticket(&expired)).denied().await;
    assert!(why.contains("expired"), "{why}");
    let foreign = Ticket::sign(&SigningKey::from_bytes(&[7; 32]), 6, u64::MAX);
    let why = Peer::start([41; 32], &invitation, by_ticket(&foreign)).denied().await;
    assert!(why.contains("not signed by this mesh's key"), "{why}");
    // What a member has shown is of no use to another: the transport proves whose key it is.
    let member = Peer::join([42; 32], &invitation).await;
    let admits = |entry: &&Arc<Entry>| entry.body().events.iter().any(|event| matches!(event, Event::Admit(_)));
    let mut chain: Vec<Arc<Entry>> = member.entries.iter().filter(admits).cloned().collect();
    chain.reverse();
    let shown = request::seal(&Request::Prove { chain }).expect("seals");
    let why = Peer::start([43; 32], &invitation, by_bytes(shown)).denied().await;
    assert!(why.contains("has not shown"), "{why}");
    // A ticket that was used.
    let why = Peer::start([44; 32], &invitation, by_ticket(&invitation.ticket)).denied().await;
    assert!(why.contains("admitted another peer already"), "{why}");
    // Asking at the door for what members get.
    let sync = request::seal(&Request::Sync { vector: Default::default(), want: Default::default() }).expect("seals");
    let why = Peer::start([45; 32], &invitation, by_bytes(sync)).denied().await;
    assert!(why.contains("show first"), "{why}");
    // Garbage, and the one who sends it is named.
    let mut garbler = Peer::start([46; 32], &invitation, by_bytes(vec![0xff; 5000]));
    garbler.denied().await;
    one.wait_for("the garbler's name", |node| faults(node, &garbler.peer().to_string()).contains("bad messages"));
    // Nothing at all, until it is turned away.
    let mut mute = Peer::start([47; 32], &invitation, runmesh::net::Papers::default());
    mute.say(Topic::Entries, b"spam".to_vec()).await;
    mute.until("being turned away", |seen| match seen {
        Seen::Kept => Some(()),
        Seen::Connected => panic!("it was let in"),
        _ => None,
    })
    .await;
    assert_eq!(members(one).len(), 3, "the two and the one with the ticket");
    drop(member);
    still_works(&mesh, &repository);
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_member_is_dropped_everywhere_at_once_and_stays_out() {
    let (mesh, repository) = mesh();
    let [one, two] = [0, 1].map(|number| mesh.nodes().nth(number).expect("two"));
    let invitation = invite(one);
    let mut attacker = Peer::join([50; 32], &invitation).await;
    let name = attacker.peer().to_string();
    for node in mesh.nodes() {
        node.wait_for("its admission", |node| members(node).contains(&name));
    }
    // The key is on a machine that no network reaches: what is signed there is handed in at any node.
    let key_file = mesh.data_dir(0).join("mesh.key");
    let asked = two.run(&["mesh", "revoke", &name, "--unsigned"]);
    assert_eq!(asked.status, 0, "{asked:?}");
    let unsigned = two.run(&["mesh", "revoke", asked.stdout.trim()]);
    assert_ne!(unsigned.status, 0, "no key is here: {unsigned:?}");
    let signed = two.run(&["mesh", "revoke", asked.stdout.trim(), "--mesh-key", key_file.to_str().expect("UTF-8")]);
    assert_eq!(signed.status, 0, "{signed:?}");
    let began = Instant::now();
    let done = two.run(&["mesh", "revoke", signed.stdout.trim()]);
    assert_eq!(done.status, 0, "{done:?}");
    for node in mesh.nodes() {
        node.wait_for("its end", |node| !members(node).contains(&name));
    }
    let again = two.run(&["mesh", "revoke", &name, "--mesh-key", key_file.to_str().expect("UTF-8")]);
    assert!(again.status == 1 && again.stderr.contains("is revoked already"), "{again:?}");
    attacker.until("being dropped", |seen| matches!(seen, Seen::Disconnected).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // It comes back, with its ticket and with its chain, and is shown the mesh key's word against it.
    let why = attacker.denied().await;
    assert!(why.contains("Revoke"), "{why}");
    let before = one.json(&["inspect", "status"])["entries"].clone();
    attacker.write(vec![cancel(1)]).await;
    still_works(&mesh, &repository);
    let clock = one.json(&["inspect", "clock"]);
    let chain = clock["vector"].as_array().expect("a list").iter().find(|chain| chain["peer_id"] == name.as_str());
    assert!(chain.is_none(), "nothing of it counts: {chain:?} after {before}");
    mesh.stop();
}

fn cancel(number: u64) -> Event {
    Event::Cancel(Cancel { task: TaskId(Digest::of(&[&number.to_be_bytes()]).0), why: "w".repeat(400) })
}

/// An entry's bytes as a message of the entries topic.
fn message(entry: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x0a];
    let mut length = entry.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(entry);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_sends_what_is_provably_bad_is_named_and_kept_away() {
    let (mesh, repository) = mesh();
    let one = mesh.nodes().next().expect("a node");
    let mut attacker = Peer::join([60; 32], &invite(one)).await;
    let name = attacker.peer().to_string();
    // What it is asked it answers with a megabyte of garbage.
    attacker.rude.store(true, std::sync::atomic::Ordering::Relaxed);
    let honest = attacker.entries[0].clone();
    // Entries in another's name, with too many parents, nested too deeply, and no entries at all.
    let mut bad: Vec<Vec<u8>> = Vec::new();
    for n in 0..4 {
        let mut forged = honest.bytes().to_vec();
        let last = forged.len() - 1 - n;
        forged[last] ^= 1;
        bad.push(forged);
    }
    let mut many = attacker.sign(vec![cancel(1)]).body().clone();
    many.parents = (0..1500_u32).map(|n| Cid::of(&n.to_be_bytes())).collect();
    many.parents.sort_unstable();
    bad.push(Entry::seal(Body { ..many }, &attacker.key).bytes().to_vec());
    bad.extend((0..4).map(|n| vec![0x81; 60_000 + n]));
    bad.extend((0..4).map(|n| vec![n; 50_000]));
    for entry in bad {
        attacker.say(Topic::Entries, message(&entry)).await;
    }
    attacker.until("being kept away", |seen| matches!(seen, Seen::Disconnected).then_some(())).await;
    assert!(faults(one, &name).contains("kept away"), "{}", faults(one, &name));
    assert!(warnings(one).contains(&name), "{}", warnings(one));
    still_works(&mesh, &repository);
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_signs_two_entries_of_one_number_is_shown_and_what_it_writes_later_does_not_count() {
    let (mesh, repository) = mesh();
    let one = mesh.nodes().next().expect("a node");
    let mut attacker = Peer::join([61; 32], &invite(one)).await;
    let name = attacker.peer().to_string();
    let id = submit(one, &repository);
    let other = attacker.sign(vec![cancel(1)]);
    let first = attacker.write(vec![cancel(2)]).await;
    attacker.publish(&other).await;
    let both = [first.cid().to_string(), other.cid().to_string()];
    for node in mesh.nodes() {
        node.wait_for("the fork in inspect events", |node| {
            let told = told(node, "equivocation", &name);
            told.len() == 1 && both.iter().all(|cid| told[0].contains(cid.as_str()))
        });
    }
    let task = id.parse().expect("a task's id");
    let later = attacker.write(vec![Event::Cancel(Cancel { task, why: "called off".to_owned() })]).await;
    assert_eq!(later.sequence(), first.sequence() + 1);
    let began = Instant::now();
    let wanted = Request::Sync { vector: attacker.clock.vector(), want: [later.cid()].into() };
    while !matches!(attacker.ask(&wanted).await, Some(Response::Page { entries, .. }) if !entries.is_empty()) {
        assert!(began.elapsed() < Duration::from_secs(60), "the later entry does not come\n{}", one.log());
    }
    assert_eq!(one.json(&["inspect", "tasks", &id])["state"], "pending");
    work(mesh.nodes().nth(1).expect("two"), &id);
    still_works(&mesh, &repository);
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_floods_is_told_of_and_holds_up_nobody() {
    let (mesh, repository) = mesh();
    let one = mesh.nodes().next().expect("a node");
    let mut attacker = Peer::join([70; 32], &invite(one)).await;
    let name = attacker.peer().to_string();
    let (client, target) = (attacker.client.clone(), attacker.target);
    // The whole history, asked for again and again.
    let sync = request::seal(&Request::Sync { vector: Default::default(), want: Default::default() }).expect("seals");
    let asking = tokio::spawn(async move {
        for n in 1_000_000..1_004_000 {
            if client.request(target, runmesh::net::RequestId(n), sync.clone()).await.is_err() {
                return;
            }
        }
    });
    // Beats without end, and valid entries as large as they may be.
    let mut beat = Presence {
        peer: attacker.peer(),
        life: 1,
        beat: 0,
        every: 0,
        attentive: true,
        heads: Default::default(),
        offer: Offer { slots: 1_000_000, labels: (0..64).map(|n| format!("{n:090}")).collect(), ..Offer::default() },
        free: 1_000_000,
        draining: false,
        cordoned: false,
        running: Default::default(),
        unheard: Default::default(),
        discovered: Default::default(),
        covers: Default::default(),
        version: "hostile".to_owned(),
    };
    let (began, mut round) = (Instant::now(), 0);
    while !faults(one, &name).contains("beyond its share") {
        assert!(began.elapsed() < Duration::from_secs(60), "the flood is not told of\n{}", one.log());
        for _ in 0..500 {
            beat.beat += 1;
            attacker.say(Topic::Presence, presence::seal(&beat, &attacker.key, &attacker.mesh())).await;
        }
        // As many as an honest node would not write in a day.
        for _ in 0..if round < 10 { 20 } else { 0 } {
            round += 1;
            attacker.write((0..60).map(|n| cancel(round * 100 + n)).collect()).await;
        }
        round += 1;
    }
    asking.await.expect("ends");
    assert!(warnings(one).contains(&name), "{}", warnings(one));
    still_works(&mesh, &repository);
    mesh.stop();
}

/// The most memory that a node has taken so far.
fn peak_mib(node: &Node) -> u64 {
    memory_mib(node, "VmHWM:")
}

/// Connections that never come to anything: each proposes what nobody speaks, without end, and reads no refusal.
async fn propose_for_ever(at: String) {
    let proposal = b"\x07/nope0\n".repeat(1000);
    loop {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(&at).await {
            let _ = stream.write_all(b"\x13/multistream/1.0.0\n").await;
            while stream.write_all(&proposal).await.is_ok() {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_or_never_ends_what_it_says_takes_its_share_and_no_more() {
    let (mesh, repository) = mesh();
    let [one, two] = [0, 1].map(|number| mesh.nodes().nth(number).expect("two"));
    let invitation = invite(one);
    // A member, and a history of which an answer is a full page.
    let mut member = Peer::join([80; 32], &invitation).await;
    let name = member.peer().to_string();
    for round in 0..50 {
        member.write((0..60).map(|n| cancel(round * 100 + n)).collect()).await;
    }
    for node in mesh.nodes() {
        node.wait_for("the history", |node| node.json(&["inspect", "status"])["entries"].as_u64() > Some(50));
    }
    let written = member.written.clone();
    drop(member);
    let sloth = sloth::begin([80; 32], &invitation);
    // Another says what all know, in ever new frames of the greatest size, without a pause.
    let loud = Peer::join([81; 32], &invite(one)).await;
    let (client, loud_name) = (loud.client.clone(), loud.peer().to_string());
    let speaking = tokio::spawn(async move {
        for n in 0.. {
            let some = [0, 1, 2, 3].map(|k| written[(n / 50_usize.pow(k) + n) % 50].clone());
            for frame in gossip::seal_entries(&some) {
                if client.publish(Topic::Entries, frame).await.is_err() {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    });
    let port = invitation.addresses[0].split('/').nth(4).expect("a port").to_owned();
    let strangers: Vec<_> = (0..100).map(|_| tokio::spawn(propose_for_ever(format!("127.0.0.1:{port}")))).collect();
    one.wait_for("the name of who does not read", |node| faults(node, &name).contains("beyond its share"));
    one.wait_for("the name of who is loud", |node| faults(node, &loud_name).contains("beyond its share"));
    // While all of it goes on, for longer than anything may wait.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(15) {
        still_works(&mesh, &repository);
    }
    for (node, speaks) in [(one, &name), (two, &loud_name)] {
        assert!(peak_mib(node) < RSS_MIB, "{} MiB while {speaks} went on", peak_mib(node));
    }
    assert!(!sloth.is_finished() && !speaking.is_finished());
    sloth.abort();
    speaking.abort();
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
    // An invited one gets in at once again.
    let last = Peer::join([82; 32], &invite(one)).await;
    drop((last, loud));
    still_works(&mesh, &repository);
    mesh.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_a_ground_key_that_takes_what_it_does_not_run_loses_it_and_its_lies_count_for_nothing() {
    let (mesh, repository) = mesh();
    let [one, two] = [0, 1].map(|number| mesh.nodes().nth(number).expect("two"));
    let id = submit(one, &repository);
    let shown = one.json(&["inspect", "tasks", &id]);
    let anchor: Cid = shown["anchor"].as_str().expect("an anchor").parse().expect("a CID");
    let task: TaskId = id.parse().expect("an id");
    // Of a thousand keys the one that is nearest to the task.
    let seed = Seed::of(&anchor, &task);
    let ground = (0..1000_u32)
        .map(|n| Digest::of(&[b"ground", &n.to_be_bytes()]).0)
        .min_by_key(|secret| seed.distance(&Place::of(peer_of(&SigningKey::from_bytes(secret)))));
    let mut attacker = Peer::join(ground.expect("a thousand"), &invite(one)).await;
    let name = attacker.peer().to_string();
    attacker.write(vec![Event::Claim(Claim { task, attempt: 1, anchor })]).await;
    one.wait_for("its claim", |node| node.json(&["inspect", "tasks", &id])["holder"] == name.as_str());
    // It does not run it, as everybody hears: the next one takes it.
    let taken = two.json(&["p2p-workflow", "next", "--wait", "60s"]);
    assert_eq!((&taken["task"]["id"], &taken["task"]["attempt"]), (&id.as_str().into(), &2.into()), "{taken:#}");
    // A result under the claim of another.
    attacker.learn().await;
    let claim: Cid = taken["claim"].as_str().expect("a claim").parse().expect("a CID");
    let lie = |fence| {
        let (conclusion, note) = (Conclusion::Success, "a lie".to_owned());
        Event::Finish(Finish { task, fence, conclusion, duration_ms: 1, note, products: Products::default() })
    };
    let written = attacker.write(vec![lie(Fence { attempt: 2, claim })]).await;
    one.wait_for("the lie", |node| {
        node.json(&["inspect", "clock"])["heads"].to_string().contains(&written.cid().to_string())
    });
    assert_ne!(one.json(&["inspect", "tasks", &id])["state"], "completed");
    assert_eq!(two.run(&["p2p-workflow", "complete", &id, "--conclusion", "failure"]).status, 0);
    for node in mesh.nodes() {
        node.wait_for("the true result", |node| {
            let shown = node.json(&["inspect", "tasks", &id]);
            shown["state"] == "completed" && shown["conclusion"] == "failure" && shown["holder"] == two.peer.as_str()
        });
    }
    // Two entries with one number: the proof of it reaches everybody, and names it.
    attacker.learn().await;
    let [first, second] = [cancel(1), cancel(2)].map(|event| attacker.sign(vec![event]));
    attacker.publish(&first).await;
    attacker.publish(&second).await;
    for node in mesh.nodes() {
        node.wait_for("the proof", |node| warnings(node).contains("two entries with number"));
    }
    still_works(&mesh, &repository);
    mesh.stop();
}
