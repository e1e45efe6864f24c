//! Who gets in, and what whoever does not gets to see.

use runmesh::kernel::id::PeerId;
use runmesh::net::{Papers, RequestId, Settings, Topic, Transport};
use runmesh::wire::response;

use crate::node::{Node, Seen, eventually, memory, pair, peer, settings};

/// A node that nobody knows, with these papers.
fn stranger(seed: u8, papers: &[u8]) -> Settings {
    let papers = Papers { chain: Some(papers.to_vec()).filter(|papers| !papers.is_empty()), ticket: None };
    Settings { papers, ..settings(seed) }
}

#[tokio::test]
async fn whoever_shows_good_papers_gets_in_and_hears_what_members_hear() {
    let (mut first, mut second) = pair().await;
    let address = first.client.addresses().await.expect("runs").remove(0);
    let mut newcomer = Node::start(Settings { bootstrap: vec![address], ..stranger(100, b"papers of mine") });
    newcomer.connected(first.peer()).await;
    first.connected(newcomer.peer()).await;
    second.publish(b"to all").await;
    newcomer.gossip(b"to all").await;
    assert_eq!(newcomer.ask(first.peer(), 1, b"echo").await, Ok(b"echo".to_vec()));
    assert_eq!(first.ask(newcomer.peer(), 1, b"echo").await, Ok(b"echo".to_vec()));
    // What was only for the door is closed.
    let one = |infos: Vec<runmesh::net::PeerInfo>, of: PeerId| {
        infos.into_iter().find(|info| info.peer == of).is_some_and(|info| info.addresses.len() == 1)
    };
    eventually("one connection", async || one(first.client.peers().await.expect("runs"), newcomer.peer())).await;
    second.until("nothing wrong", |_| Some(())).await;
}

#[tokio::test]
async fn whoever_shows_bad_papers_or_none_hears_nothing_and_is_turned_away() {
    let (mut first, second) = pair().await;
    let address = first.client.addresses().await.expect("runs").remove(0);
    let mut liar = Node::start(Settings { bootstrap: vec![address.clone()], ..stranger(100, b"forged") });
    let (from, why) = liar
        .until("refusal", |seen| match seen {
            Seen::Denied { peer, bytes } => Some((*peer, bytes.clone())),
            Seen::Connected(peer) => panic!("connected with {peer}"),
            _ => None,
        })
        .await;
    assert_eq!((from, why), (first.peer(), response::seal_refused("these are no papers")));
    let mute = Node::start(Settings { bootstrap: vec![address], ..stranger(101, b"") });
    let turned_away = first.client.counters().turned_away;
    second.publish(b"secret").await;
    first.gossip(b"secret").await;
    // Nor does it get anywhere by just asking.
    mute.client.request(first.peer(), RequestId(1), b"echo".to_vec()).await.expect("runs");
    mute.client.publish(Topic::Entries, b"spam".to_vec()).await.expect("runs");
    eventually("the silent one is turned away", async || first.client.counters().turned_away > turned_away).await;
    for node in [&first, &second] {
        assert!(node.peers().await.iter().all(|one| [first.peer(), second.peer()].contains(one)));
    }
    assert!(mute.peers().await.is_empty() && liar.peers().await.is_empty());
    first.publish(b"end").await;
    let mut ended = second;
    ended
        .until("the end", |seen| {
            assert!(!matches!(seen, Seen::Gossip { bytes, .. } if bytes == b"spam"), "{seen:?}");
            matches!(seen, Seen::Gossip { bytes, .. } if bytes == b"end").then_some(())
        })
        .await;
}

#[tokio::test]
async fn whoever_does_not_know_the_other_waits_for_its_papers_too() {
    // Neither knows the other; whoever dials shows first.
    let mut first = Node::start(Settings { welcome: [].into(), ..stranger(100, b"papers of the first") });
    let bootstrap = vec![first.address().await];
    let mut second = Node::start(Settings { bootstrap, welcome: [].into(), ..stranger(101, b"papers of the second") });
    first.connected(second.peer()).await;
    second.connected(first.peer()).await;
    assert_eq!(second.ask(first.peer(), 1, b"echo").await, Ok(b"echo".to_vec()));
}

#[tokio::test]
async fn a_ticket_is_shown_to_nobody_who_is_not_known() {
    let mut first = Node::start(settings(1));
    let address = first.address().await;
    let papers = || Papers { chain: None, ticket: Some(b"papers: a ticket".to_vec()) };
    let newcomer = |welcome: &[PeerId]| Settings {
        papers: papers(),
        welcome: welcome.iter().copied().collect(),
        bootstrap: vec![address.clone()],
        ..settings(102)
    };
    let wary = Node::start(newcomer(&[]));
    eventually("it is turned away", async || first.client.counters().turned_away > 0).await;
    drop(wary);
    let mut trusting = Node::start(newcomer(&[peer(1)]));
    trusting.connected(first.peer()).await;
    let mut shown = 0;
    first
        .until("the newcomer", |seen| {
            shown += usize::from(matches!(seen, Seen::Papers { .. }));
            (*seen == Seen::Connected(peer(102))).then_some(())
        })
        .await;
    assert_eq!(shown, 1, "to the one that was known");
}

#[tokio::test]
async fn whoever_is_welcome_no_more_is_put_out_at_once() {
    let (mut first, mut second) = pair().await;
    let welcome = crate::node::members().into_iter().filter(|one| *one != second.peer()).collect();
    first.client.welcome(welcome).await.expect("runs");
    first.disconnected(second.peer()).await;
    second.disconnected(first.peer()).await;
    assert!(first.peers().await.is_empty());
}

#[tokio::test]
async fn within_one_process_it_is_the_same() {
    let mut first = Node::start(memory(1));
    let bootstrap = vec![first.address().await];
    let papers = stranger(103, b"papers").papers;
    let mut second = Node::start(Settings { bootstrap, papers, transport: Transport::Memory, ..memory(103) });
    second.connected(first.peer()).await;
    first.connected(second.peer()).await;
}
