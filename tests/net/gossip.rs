//! Gossip: who hears what, and what a slow owner costs.

use runmesh::net::{self, Event, NetError, RequestId, Settings, Topic, Why};
use runmesh::wire::limits::MAX_GOSSIP;

use crate::node::{Node, Seen, eventually, memory, pair, settings};

/// Three nodes in a row; the outer two are not connected.
async fn row() -> [Node; 3] {
    let mut middle = Node::start(settings(2));
    let bootstrap = vec![middle.address().await];
    let mut outer =
        [1, 3].map(|seed| Node::start(Settings { bootstrap: bootstrap.clone(), connections: 1, ..settings(seed) }));
    for node in &mut outer {
        node.connected(middle.peer()).await;
        middle.connected(node.peer()).await;
    }
    let [left, right] = outer;
    [left, middle, right]
}

#[tokio::test]
async fn only_what_was_accepted_is_passed_on() {
    let [left, mut middle, mut right] = row().await;
    // The relays form within a few heartbeats.
    let mut round = 0;
    let from = loop {
        round += 1;
        left.publish(format!("good {round}").as_bytes()).await;
        middle.gossip(b"good").await;
        let heard = tokio::time::timeout(std::time::Duration::from_millis(300), right.gossip(b"good")).await;
        if let Ok(from) = heard {
            break from;
        }
        assert!(round < 50, "nothing is passed on");
    };
    assert_eq!(from, middle.peer(), "who wrote it does not show");
    assert_eq!(right.peers().await, [middle.peer()]);

    for bytes in [b"foreign".as_slice(), b"bad"] {
        left.publish(bytes).await;
        middle.gossip(bytes).await;
    }
    assert_eq!(middle.client.counters().gossip_rejected, 1);
    // What comes after it by the same way shows that neither was on its way.
    middle.publish(b"after").await;
    right
        .until("the message after", |seen| match seen {
            Seen::Gossip { bytes, .. } if bytes == b"after" => Some(()),
            Seen::Gossip { bytes, .. } if !bytes.starts_with(b"good") => panic!("passed on: {bytes:?}"),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn who_goes_on_with_bad_messages_is_not_heard_any_more() {
    let (mut first, second) = pair().await;
    let mut sent = 0_u32;
    // Seven within a short time; a tenth of each is forgiven in a second.
    eventually("the first has heard enough", async || {
        sent += 1;
        second.publish(format!("bad {sent}").as_bytes()).await;
        second.publish(format!("good {sent}").as_bytes()).await;
        first.client.counters().gossip_rejected >= 8
    })
    .await;
    let peer = second.peer();
    // Requests are another matter. Their answers show that what was sent before them has long arrived.
    assert_eq!(first.ask(peer, 0, b"still there?").await, Ok(b"still there?".to_vec()));
    let before = first.client.counters().gossip_in;
    for id in 1..20 {
        second.publish(format!("good, but too late {id}").as_bytes()).await;
        assert_eq!(first.ask(peer, id, b"still there?").await, Ok(b"still there?".to_vec()));
    }
    assert_eq!(first.client.counters().gossip_in, before);
}

#[tokio::test]
async fn the_largest_messages_arrive_one_right_after_the_other() {
    let (first, mut second) = pair().await;
    for number in 0..10_u8 {
        let mut bytes = vec![number; MAX_GOSSIP];
        bytes[..7].copy_from_slice(b"largest");
        first.publish(&bytes).await;
    }
    let mut heard = Vec::new();
    second
        .until("all of them", |seen| {
            if let Seen::Gossip { bytes, .. } = seen {
                assert_eq!(bytes.len(), MAX_GOSSIP);
                heard.push(bytes[7]);
            }
            (heard.len() == 10).then_some(())
        })
        .await;
    heard.sort_unstable();
    assert_eq!(heard, (0..10).collect::<Vec<_>>());
    let error = first.client.publish(Topic::Presence, vec![0; MAX_GOSSIP + 1]).await;
    assert!(matches!(error, Err(NetError::TooLarge { .. })));
}

#[tokio::test]
async fn topics_are_apart_and_speaking_alone_is_no_error() {
    let alone = Node::start(memory(9));
    alone.publish(b"hello?").await;
    eventually("it was counted", async || alone.client.counters().unheard == 1).await;
    let (first, mut second) = pair().await;
    first.client.publish(Topic::Presence, b"here".to_vec()).await.expect("runs");
    let topic = second
        .until("presence", |seen| match seen {
            Seen::Gossip { topic, .. } => Some(*topic),
            _ => None,
        })
        .await;
    assert_eq!(topic, Topic::Presence);
}

#[tokio::test]
async fn a_slow_owner_loses_gossip_and_nothing_else() {
    let mut first = Node::start(memory(1));
    let address = first.address().await;
    // Nobody reads this one's events.
    let (client, mut events) = net::start(Settings { bootstrap: vec![address], ..memory(2) }).expect("starts");
    first.connected(client.peer()).await;
    let mut number = 0_u32;
    eventually("gossip is dropped", async || {
        for _ in 0..100 {
            number += 1;
            first.publish(&number.to_be_bytes()).await;
        }
        client.counters().gossip_dropped > 0
    })
    .await;
    // More requests than it takes on: the rest is refused at once, not left to time out.
    for id in 0..60 {
        first.client.request(client.peer(), RequestId(id), b"anybody?".to_vec()).await.expect("runs");
    }
    let refused = |seen: &Seen| matches!(seen, Seen::Unanswered { why: Why::Refused, .. }).then_some(());
    first.until("a refusal", refused).await;
    assert!(client.counters().requests_refused > 0);
    // Commands still work, and its own requests are still answered.
    assert_eq!(client.peers().await.expect("runs").len(), 1);
    client.request(first.peer(), RequestId(1), b"echo".to_vec()).await.expect("runs");
    // Once it reads again, everything that must not be lost is there, in order.
    let first_peer = first.peer();
    drop(first);
    let (mut connected, mut disconnected, mut ended) = (false, false, false);
    let reading = async {
        while !(disconnected && ended) {
            match events.recv().await.expect("runs") {
                Event::Connected(peer) => connected |= peer == first_peer,
                Event::Response { id: RequestId(1), .. } | Event::Unanswered { id: RequestId(1), .. } => ended = true,
                Event::Disconnected(peer) if peer == first_peer => disconnected = true,
                _ => continue,
            }
            assert!(connected, "that comes first");
        }
    };
    tokio::time::timeout(crate::node::PATIENCE, reading).await.expect("all is told");
}
