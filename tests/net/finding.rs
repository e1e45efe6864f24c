//! How nodes find each other and come back to each other.

use std::net::TcpListener;
use std::time::Duration;

use runmesh::kernel::id::MeshId;
use runmesh::net::{Direction, Multiaddr, NetError, Settings, with_peer};

use crate::node::{Node, Seen, any_quic, any_tcp, eventually, memory, pair, settings};

/// A port where nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port()
}

fn tcp(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address")
}

#[tokio::test]
async fn those_who_know_only_one_find_each_other() {
    let mut first = Node::start(settings(1));
    let bootstrap = vec![first.address().await];
    // At the same moment, so that neither is there when the other asks.
    let mut second = Node::start(Settings { bootstrap: bootstrap.clone(), ..settings(2) });
    let mut third = Node::start(Settings { bootstrap, ..settings(3) });
    second.connected(third.peer()).await;
    third.connected(second.peer()).await;
    eventually("the first has both", async || first.peers().await.len() == 2).await;
    for node in [&first, &second, &third] {
        node.publish(&node.peer().to_bytes()).await;
    }
    let peers = [first.peer(), second.peer(), third.peer()];
    for node in [&mut first, &mut second, &mut third] {
        let others: Vec<_> = peers.iter().filter(|peer| **peer != node.peer()).collect();
        let mut missing = others.clone();
        node.until("gossip of both others", |seen| {
            if let Seen::Gossip { bytes, .. } = seen {
                missing.retain(|peer| peer.to_bytes().as_slice() != bytes);
            }
            missing.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_small_mesh_is_fully_connected_within_the_process() {
    const NODES: u8 = 12;
    let mut first = Node::start(memory(1));
    let bootstrap = vec![first.address().await];
    let mut nodes = vec![first];
    nodes.extend((2..=NODES).map(|seed| Node::start(Settings { bootstrap: bootstrap.clone(), ..memory(seed) })));
    eventually("everybody knows everybody", async || {
        for node in &nodes {
            if node.peers().await.len() != usize::from(NODES) - 1 {
                return false;
            }
        }
        true
    })
    .await;
    nodes[3].publish(b"to all").await;
    for (number, node) in nodes.iter_mut().enumerate() {
        if number != 3 {
            node.gossip(b"to all").await;
        }
    }
}

#[tokio::test]
async fn a_node_does_not_look_for_more_connections_than_it_wants() {
    let mut hub = Node::start(memory(1));
    let bootstrap = vec![hub.address().await];
    let few = |seed| Settings { bootstrap: bootstrap.clone(), connections: 1, ..memory(seed) };
    let nodes: Vec<_> = (2..6).map(|seed| Node::start(few(seed))).collect();
    eventually("the hub has all", async || hub.peers().await.len() == 4).await;
    for node in &nodes {
        node.client.publish(runmesh::net::Topic::Presence, node.peer().to_bytes().to_vec()).await.expect("runs");
    }
    // All of that has come round, and still nobody has dialed anybody else.
    for _ in 0..4 {
        hub.gossip(b"").await;
    }
    for node in &nodes {
        assert_eq!(node.peers().await, [hub.peer()]);
    }
}

#[tokio::test]
async fn a_silent_bootstrap_address_is_said_once_and_tried_until_it_answers() {
    let port = free_port();
    let place = tcp(port);
    let mut node = Node::start(Settings { bootstrap: vec![place.clone()], ..settings(1) });
    let bootstrap = |seen: &Seen| match seen {
        Seen::Bootstrap { address, error } => Some((address.clone(), error.clone())),
        _ => None,
    };
    let (address, error) = node.until("complaint", bootstrap).await;
    assert_eq!(address, place);
    assert!(error.as_ref().is_some_and(|error| error.contains("refused")), "{error:?}");

    let late = || Settings { listen: vec![place.clone()], ..settings(2) };
    let second = Node::start(late());
    let peer = second.peer();
    let mut others = 0;
    let comes = node.until("recovery", |seen| {
        others += usize::from(matches!(seen, Seen::Bootstrap { error: Some(_), .. }));
        bootstrap(seen).filter(|(_, error)| error.is_none())
    });
    assert_eq!(comes.await, (place.clone(), None));
    assert_eq!(others, 0, "it was said once");

    // Again after it was lost, also to the same identity at the same port.
    drop(second);
    node.disconnected(peer).await;
    let _second = Node::start(late());
    node.connected(peer).await;
}

#[tokio::test]
async fn an_address_without_a_node_of_this_mesh_says_why() {
    let foreign = Settings { mesh: MeshId([8; 32]), ..settings(1) };
    let mut foreign = Node::start(foreign);
    let place = foreign.address().await;
    let mut node = Node::start(Settings { bootstrap: vec![place.clone()], ..settings(2) });
    let error = node
        .until("complaint", |seen| match seen {
            Seen::Bootstrap { error, .. } => error.clone(),
            Seen::Connected(peer) => panic!("connected with {peer}"),
            _ => None,
        })
        .await;
    assert!(error.contains("another mesh"), "{error}");
    assert!(node.peers().await.is_empty());
    assert!(node.client.counters().turned_away > 0);
    // Another identity than the one that was asked for.
    let wrong = with_peer(&place, &node.peer());
    let other = Node::start(settings(3));
    let Err(NetError::Dial { why, .. }) = other.client.dial(wrong).await else { panic!("dialed") };
    assert!(why.contains("another peer"), "{why}");
}

#[tokio::test]
async fn dialing_says_who_is_there_or_why_not() {
    let mut first = Node::start(settings(1));
    let address = first.address().await;
    let mut second = Node::start(settings(2));
    let own = second.address().await;
    assert_eq!(second.client.dial(address.clone()).await.expect("dials"), first.peer());
    // Once more, now that it is connected.
    assert_eq!(second.client.dial(address.clone()).await.expect("dials"), first.peer());
    let named: Multiaddr =
        address.to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/").parse().expect("an address");
    assert_eq!(Node::start(settings(3)).client.dial(named).await.expect("dials"), first.peer());
    for (address, expected) in [(tcp(free_port()), "refused"), (own, "own")] {
        let Err(NetError::Dial { why, .. }) = second.client.dial(address).await else { panic!("dialed") };
        assert!(why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn an_address_that_is_remembered_is_kept() {
    let mut first = Node::start(settings(1));
    let mut second = Node::start(settings(2));
    let peer = first.peer();
    second.client.remember(first.address().await).await.expect("runs");
    second.connected(peer).await;
    first.client.disconnect(second.peer()).await.expect("runs");
    second.disconnected(peer).await;
    second.connected(peer).await;
}

#[tokio::test]
async fn addresses_in_use_are_refused_with_a_word() {
    let mut node = Node::start(settings(1));
    let taken = node.address().await;
    let (bare, _) = taken.to_string().split_once("/p2p/").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("named");
    let listen = vec![bare.parse().expect("an address")];
    let Err(error) = runmesh::net::start(Settings { listen, ..settings(2) }) else { panic!("started") };
    assert!(matches!(error, NetError::Listen { .. }) && error.to_string().contains("--listen"), "{error}");
    let listen = vec!["/ip4/127.0.0.1/sctp/1".parse().expect("an address")];
    let Err(error) = runmesh::net::start(Settings { listen, ..settings(2) }) else { panic!("started") };
    assert!(matches!(error, NetError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn peers_and_addresses_can_be_looked_at() {
    let (first, mut second) = pair().await;
    second.until("round trip", |seen| (*seen == Seen::Rtt(first.peer())).then_some(())).await;
    let peers = second.client.peers().await.expect("runs");
    let [info] = peers.as_slice() else { panic!("{peers:?}") };
    assert_eq!((info.peer, info.direction), (first.peer(), Direction::Outbound));
    assert!(info.rtt.is_some_and(|rtt| rtt < Duration::from_secs(1)), "{info:?}");
    assert_eq!(first.client.peers().await.expect("runs")[0].direction, Direction::Inbound);
    let addresses = first.client.addresses().await.expect("runs");
    assert!(info.addresses.iter().all(|address| addresses.contains(address)), "{info:?} {addresses:?}");
    let announce: Multiaddr = "/dns4/node.example/tcp/4001".parse().expect("an address");
    let known = Node::start(Settings { announce: vec![announce.clone()], ..settings(3) });
    let addresses = known.client.addresses().await.expect("runs");
    assert!(addresses.contains(&with_peer(&announce, &known.peer())), "{addresses:?}");
}

#[tokio::test]
async fn tcp_is_taken_where_there_is_a_choice_and_quic_where_there_is_none() {
    let both = |seed| Settings { listen: vec![any_quic(), any_tcp()], ..settings(seed) };
    let mut first = Node::start(both(1));
    let addresses = [first.address().await, first.address().await];
    let is_tcp = |address: &&Multiaddr| address.to_string().contains("/tcp/");
    // Told both, as a ticket does; the two others learn of each other from the first.
    let second = Node::start(Settings { bootstrap: addresses.to_vec(), ..both(2) });
    let third = Node::start(Settings { bootstrap: addresses.to_vec(), ..both(3) });
    eventually("all are connected", async || {
        second.peers().await.len() == 2 && third.peers().await.len() == 2 && first.peers().await.len() == 2
    })
    .await;
    for node in [&first, &second, &third] {
        for info in node.client.peers().await.expect("runs") {
            assert!(info.addresses.iter().all(|address| is_tcp(&address)), "{info:?}");
        }
    }
    let quic = addresses.iter().find(|address| !is_tcp(address)).expect("listens over QUIC");
    let mut fourth = Node::start(Settings { connections: 0, ..both(4) });
    assert_eq!(fourth.client.dial(quic.clone()).await.expect("dials"), first.peer());
    assert_eq!(fourth.ask(first.peer(), 1, b"by QUIC").await, Ok(b"by QUIC".to_vec()));
    assert_eq!(fourth.client.peers().await.expect("runs")[0].addresses, std::slice::from_ref(quic));
}

#[tokio::test]
async fn somebody_else_at_one_of_its_addresses_does_not_hide_a_peer() {
    let mut hub = Node::start(settings(1));
    let bootstrap = vec![hub.address().await];
    // Not of this mesh, and at four addresses that another one claims.
    let places = (1..=4).map(|last| format!("/ip4/127.0.0.{last}/tcp/0").parse().expect("an address")).collect();
    let mut wrong = Node::start(Settings { mesh: MeshId([8; 32]), listen: places, ..settings(2) });
    let mut announce = Vec::new();
    for _ in 0..4 {
        announce.push(wrong.address().await);
    }
    let misled = Settings { bootstrap: bootstrap.clone(), announce, connections: 1, ..settings(3) };
    let misled = Node::start(misled);
    hub.connected(misled.peer()).await;
    // It never dials; the other one must find it among five addresses.
    let mut seeker = Node::start(Settings { bootstrap, ..settings(4) });
    seeker.connected(misled.peer()).await;
}
