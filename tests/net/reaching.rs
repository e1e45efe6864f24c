//! Reaching each other by other ways than a plain connection: hidden by a swarm key, by IPv6, through a relay.

use std::collections::BTreeSet;

use runmesh::net::{Multiaddr, NetError, Papers, Settings, SwarmKey, Timings, with_peer};

use crate::node::{Node, PATIENCE, Seen, any_quic, eventually, members, peer, settings, timings};

/// Which tests here take for no member.
const STRANGER: u8 = 99;

fn key(digit: &str) -> Option<SwarmKey> {
    Some(format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digit.repeat(64)).parse().expect("a key"))
}

/// A node that nobody can dial.
fn unreachable(seed: u8, bootstrap: &Multiaddr) -> Settings {
    Settings { listen: Vec::new(), bootstrap: vec![bootstrap.clone()], ..settings(seed) }
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.to_string().contains("/p2p-circuit")
}

#[tokio::test]
async fn with_another_swarm_key_or_none_nobody_connects() {
    let mut hidden = Node::start(Settings { swarm_key: key("5"), ..settings(1) });
    let address = hidden.address().await;
    let other = Node::start(Settings { swarm_key: key("6"), ..settings(2) });
    let mut open = Node::start(settings(3));
    for node in [&other, &open] {
        assert!(matches!(node.client.dial(address.clone()).await, Err(NetError::Dial { .. })));
    }
    let theirs = open.address().await;
    assert!(matches!(hidden.client.dial(theirs).await, Err(NetError::Dial { .. })));
    assert!(hidden.peers().await.is_empty());
    let friend = Node::start(Settings { swarm_key: key("5"), ..settings(4) });
    assert_eq!(friend.client.dial(address).await.expect("dials"), hidden.peer());
    hidden.connected(friend.peer()).await;
    assert_eq!(hidden.peers().await, [friend.peer()]);
}

#[tokio::test]
async fn what_a_swarm_key_does_not_cover_is_refused() {
    let covered = |listen| Settings { swarm_key: key("5"), listen, ..settings(1) };
    let Err(error) = runmesh::net::start(covered(vec![any_quic()])) else { panic!("started") };
    assert!(matches!(error, NetError::Listen { .. }) && error.to_string().contains("TCP only"), "{error}");
    let node = Node::start(covered(Vec::new()));
    let quic = "/ip4/127.0.0.1/udp/4/quic-v1".parse().expect("an address");
    let Err(NetError::Dial { why, .. }) = node.client.dial(quic).await else { panic!("dialed") };
    assert!(why.contains("TCP only"), "{why}");
}

#[tokio::test]
async fn ipv6_carries_tcp_and_quic() {
    let listen = ["/ip6/::1/tcp/0", "/ip6/::1/udp/0/quic-v1"].map(|text| text.parse().expect("an address")).to_vec();
    let mut first = Node::start(Settings { listen, ..settings(1) });
    for seed in [2, 3] {
        let address = first.address().await;
        assert!(address.to_string().starts_with("/ip6/::1/"), "{address}");
        let second = Node::start(Settings { connections: 0, listen: Vec::new(), ..settings(seed) });
        assert_eq!(second.client.dial(address.clone()).await.expect("dials"), first.peer());
        assert_eq!(second.client.peers().await.expect("runs")[0].addresses, [address]);
    }
    // The same port by both, as a node listens by default.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").port();
    let both = ["/ip4/127.0.0.1", "/ip6/::1"].map(|ip| format!("{ip}/tcp/{port}").parse().expect("an address"));
    let mut both = Node::start(Settings { listen: both.to_vec(), ..settings(4) });
    for _ in 0..2 {
        let address = both.address().await;
        assert_eq!(first.client.dial(address).await.expect("dials"), both.peer());
    }
}

#[tokio::test]
async fn who_cannot_dial_each_other_are_connected_by_a_member_that_relays() {
    let mut relay = Node::start(settings(1));
    let address = relay.address().await;
    let mut left = Node::start(unreachable(2, &address));
    let mut right = Node::start(unreachable(3, &address));
    left.connected(right.peer()).await;
    right.connected(left.peer()).await;
    for (node, other) in [(&left, &right), (&right, &left)] {
        let peers = node.client.peers().await.expect("runs");
        let info = peers.iter().find(|info| info.peer == other.peer()).expect("connected");
        assert!(info.addresses.iter().all(is_relayed), "{info:?}");
    }
    assert_eq!(left.ask(right.peer(), 1, b"through").await, Ok(b"through".to_vec()));
    let told = left.client.addresses().await.expect("runs");
    assert!(told.len() == 1 && is_relayed(&told[0]) && told[0].to_string().contains(&relay.peer().to_string()));
    // Whoever can be dialed needs no relay.
    assert!(!relay.client.addresses().await.expect("runs").iter().any(is_relayed));

    let peer = right.peer();
    drop(relay);
    left.disconnected(peer).await;
}

#[tokio::test]
async fn a_member_that_does_not_relay_is_no_relay() {
    let mut relay = Node::start(Settings { relay: false, ..settings(1) });
    let address = relay.address().await;
    let left = Node::start(unreachable(2, &address));
    let right = Node::start(unreachable(3, &address));
    eventually("both are there", async || relay.peers().await.len() == 2).await;
    let way: Multiaddr = format!("{address}/p2p-circuit/p2p/{}", right.peer()).parse().expect("an address");
    eventually("the relay is known", async || left.peers().await == [relay.peer()]).await;
    assert!(matches!(left.client.dial(way).await, Err(NetError::Dial { .. })));
    assert_eq!(left.client.addresses().await.expect("runs"), []);
}

#[tokio::test]
async fn a_relay_brings_strangers_no_further_than_the_door() {
    // It takes somebody for a member whom nobody else does.
    let stranger = peer(STRANGER);
    let welcome: BTreeSet<_> = members().into_iter().chain([stranger]).collect();
    let mut relay = Node::start(Settings { welcome, ..settings(1) });
    let address = relay.address().await;
    let mut target = Node::start(unreachable(2, &address));
    let member = Node::start(unreachable(3, &address));
    target.connected(member.peer()).await;
    let way: Multiaddr = format!("{address}/p2p-circuit/p2p/{}", target.peer()).parse().expect("an address");

    let alone = |papers| Settings { connections: 0, papers, ..unreachable(STRANGER, &address) };
    // It is patient, so that it is the other end that ends it.
    let patient = Timings { prove: PATIENCE, ..timings() };
    let mut foreign = Node::start(Settings { timings: patient, ..alone(Papers::default()) });
    foreign.connected(relay.peer()).await;
    let turned_away = target.client.counters().turned_away;
    assert!(matches!(foreign.client.dial(way.clone()).await, Err(NetError::Dial { .. })));
    assert!(target.client.counters().turned_away > turned_away, "it came as far as the door");
    assert!(!target.peers().await.contains(&stranger));
    drop(foreign);

    // And with papers it comes in, as by any other way.
    let papers = Papers { chain: Some(b"papers".to_vec()), ..Papers::default() };
    let mut welcome = Node::start(alone(papers));
    welcome.connected(relay.peer()).await;
    assert_eq!(welcome.client.dial(way).await.expect("let in"), target.peer());
    target
        .until("papers, and the connection", {
            let mut shown = false;
            move |seen| {
                shown |= matches!(seen, Seen::Papers { from, .. } if *from == stranger);
                (shown && *seen == Seen::Connected(stranger)).then_some(())
            }
        })
        .await;
}

#[tokio::test]
async fn through_a_relay_that_is_not_connected_nobody_is_dialed() {
    let node = Node::start(settings(2));
    let way = with_peer(&format!("/ip4/127.0.0.1/tcp/4/p2p/{}/p2p-circuit", peer(1)).parse().expect("one"), &peer(3));
    let Err(NetError::Dial { why, .. }) = node.client.dial(way).await else { panic!("dialed") };
    assert!(why.contains("not connected"), "{why}");
}
