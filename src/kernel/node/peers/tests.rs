//! Who is heard, by whose rhythm, and when a node had better doubt itself.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;

use super::*;
use crate::kernel::entry::{Right, Ticket};
use crate::kernel::id::MeshId;
use crate::kernel::io::{Input, Now, Offer, Request, Token};
use crate::kernel::node::{Entrance, Settings};

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn peer(number: u8) -> PeerId {
    PeerId::from_public_key(key(number).verifying_key().to_bytes())
}

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

/// A founder that has admitted so many peers, numbered from 1.
fn founder(peers: u8) -> Node {
    let mesh_key = key(200);
    let settings = Settings {
        key: key(100),
        mesh: MeshId(mesh_key.verifying_key().to_bytes()),
        entrance: Entrance::Founder(Right::founder(&mesh_key, &peer(100))),
        seed: 1,
        timings: Timings::default(),
        attempts: 3,
        version: String::new(),
    };
    let (mut node, _) = Node::new(at(1), settings, Vec::new());
    for number in 1..=peers {
        let ticket = Ticket::sign(&mesh_key, u64::from(number), u64::MAX);
        let (from, token) = (peer(number), Token(u64::from(number)));
        node.handle(at(2), Input::Connected(from));
        node.handle(at(3), Input::Request { from, token, request: Request::Join { ticket } });
    }
    node
}

fn presence(number: u8, beat: u64, every: u32) -> Input {
    presence_of(number, 1, beat, every)
}

fn presence_of(number: u8, life: u64, beat: u64, every: u32) -> Input {
    let presence = Presence {
        peer: peer(number),
        life,
        beat,
        every,
        attentive: false,
        heads: BTreeSet::new(),
        offer: Offer::default(),
        free: 0,
        draining: false,
        cordoned: false,
        running: BTreeMap::new(),
        unheard: BTreeSet::new(),
        discovered: BTreeMap::new(),
        covers: BTreeMap::new(),
        version: String::new(),
    };
    Input::Presence(Arc::new(Signed { presence, bytes: Box::default() }))
}

/// What a node does by itself, and when.
#[derive(Default)]
struct Did {
    lost: Vec<(u64, PeerId)>,
    /// The intervals that it said.
    said: Vec<(u64, u32)>,
}

/// Wakes the node whenever it wants to be, up to a time.
fn wake_until(node: &mut Node, from: u64, until: u64) -> Did {
    let (mut now, mut did) = (from, Did::default());
    loop {
        now = node.next_wake().max(now + 1);
        if now > until {
            return did;
        }
        for output in node.handle(at(now), Input::Wake) {
            match output {
                Output::Notice(Notice::PeerLost { peer }) => did.lost.push((now, peer)),
                Output::Announce(presence) => did.said.push((now, presence.every)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_peer_is_waited_for_by_its_own_rhythm() {
    for (every, silence) in [(0, 3_000), (1_000, 3_000), (4_000, 12_000), (u32::MAX, 30_000)] {
        let mut node = founder(1);
        node.handle(at(100), presence(1, 1, every));
        let Did { lost, .. } = wake_until(&mut node, 100, 60_000);
        assert_eq!(lost, [(100 + silence, peer(1))], "{every}");
    }
}

fn life_heard(node: &Node, number: u8) -> Option<u64> {
    node.peers.get(&peer(number)).filter(|peer| peer.heard).map(|peer| peer.presence().life)
}

#[test]
fn a_peer_that_was_started_again_unnoticed_is_heard_when_its_former_life_has_not_beaten_on() {
    let mut node = founder(1);
    node.handle(at(100), presence_of(1, 1, 1, 4_000));
    // Its connection closes and is there again, and a late beat of its former life comes by another way.
    node.handle(at(200), Input::Disconnected(peer(1)));
    node.handle(at(210), Input::Connected(peer(1)));
    node.handle(at(220), presence_of(1, 1, 2, 4_000));
    node.handle(at(300), presence_of(1, 2, 1, 4_000));
    node.handle(at(1_300), presence_of(1, 2, 2, 4_000));
    assert_eq!(life_heard(&node, 1), Some(1));
    let due = 220 + 4_000 + LATE;
    let Did { lost, .. } = wake_until(&mut node, 1_300, due);
    assert_eq!((lost, life_heard(&node, 1)), (vec![(due, peer(1))], Some(2)), "not after three lost beats");
    // A replay of the former life shows nothing, and takes nothing from the patience with this one.
    node.handle(at(due + 10), presence_of(1, 1, 2, 4_000));
    let Did { lost, .. } = wake_until(&mut node, due + 10, 60_000);
    assert_eq!(lost, [(1_300 + 12_000, peer(1))]);
}

#[test]
fn a_former_life_that_others_tell_of_late_does_not_keep_the_present_one_from_being_heard() {
    let mut node = founder(1);
    node.handle(at(100), presence_of(1, 2, 4, 1_000));
    wake_until(&mut node, 100, 5_000);
    assert_eq!(life_heard(&node, 1), None);
    // A stopped node has come back, and takes the last beats of the former life for new.
    let Input::Presence(said) = presence_of(1, 1, 23, 1_000) else { unreachable!() };
    node.take_relayed(said, 1_000);
    assert_eq!(life_heard(&node, 1), Some(1));
    node.handle(at(5_100), presence_of(1, 2, 6, 10_000));
    let due = 4_000 + 1_000 + LATE;
    wake_until(&mut node, 5_100, due);
    assert_eq!(life_heard(&node, 1), Some(2), "it has spoken, and need not speak again");
}

#[test]
fn a_late_word_of_a_former_life_does_not_keep_the_present_one_from_being_heard() {
    let mut node = founder(1);
    node.handle(at(100), presence_of(1, 1, 3, 1_000));
    wake_until(&mut node, 100, 4_000);
    node.handle(at(4_000), presence_of(1, 2, 4, 1_000));
    wake_until(&mut node, 4_000, 8_000);
    assert_eq!(life_heard(&node, 1), None);
    node.handle(at(8_000), presence_of(1, 1, 5, 10_000));
    node.handle(at(8_100), presence_of(1, 2, 9, 10_000));
    assert_eq!(life_heard(&node, 1), Some(1));
    wake_until(&mut node, 8_100, 8_000 + 10_000 + LATE);
    assert_eq!(life_heard(&node, 1), Some(2), "not after three lost beats of the other");
}

#[test]
fn a_replay_of_a_life_that_was_not_heard_here_puts_out_nobody_who_beats_on() {
    let mut node = founder(1);
    node.handle(at(100), presence_of(1, 2, 1, 4_000));
    node.handle(at(200), presence_of(1, 1, 9, 4_000));
    for beat in 2..10 {
        let now = 100 + 4_000 * (beat - 1);
        let Did { lost, .. } = wake_until(&mut node, now - 4_000, now - 1);
        assert_eq!((lost, life_heard(&node, 1)), (vec![], Some(2)));
        node.handle(at(now), presence_of(1, 2, beat, 4_000));
    }
}

#[test]
fn a_node_that_was_not_there_itself_waits_a_beat_before_it_judges() {
    let mut node = founder(2);
    node.handle(at(100), presence(1, 1, 0));
    node.handle(at(100), presence(2, 1, 4_000));
    // Stopped for a minute. What waits for it is heard first, and is no reason to take the rest to be lost.
    let lost =
        |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Notice(Notice::PeerLost { .. })));
    assert!(!lost(&node.handle(at(60_100), presence(2, 2, 4_000))));
    let Did { lost, .. } = wake_until(&mut node, 60_100, 80_000);
    let after = 60_100 + Timings::default().beat + LATE;
    assert_eq!(lost, [(after, peer(1)), (72_100, peer(2))]);
}

#[test]
fn an_idle_node_beats_the_more_slowly_the_more_it_hears_and_says_so() {
    for (peers, every) in [(1, 1_000), (5, 1_000), (19, 3_800), (60, 10_000)] {
        let mut node = founder(peers);
        for number in 1..=peers {
            node.handle(at(100), presence(number, 1, u32::MAX));
        }
        let Did { said, .. } = wake_until(&mut node, 100, 30_000);
        let said_last = said.last().expect("it beats");
        assert_eq!(u64::from(said_last.1), every, "{peers}");
        // What it says of its next beat holds.
        for pair in said.windows(2) {
            assert!(pair[1].0 - pair[0].0 <= u64::from(pair[0].1), "{pair:?}");
        }
    }
}

#[test]
fn who_is_asked_of_whom_is_the_same_however_the_peers_came_and_went() {
    let me = Place::of(peer(100));
    let name = |number: u8| PeerId::from_public_key([number; 32]);
    let said = |number: u8| match presence(number, 1, 0) {
        Input::Presence(said) => said,
        _ => unreachable!(),
    };
    let mut peers = Peers::new(0);
    // Beyond 32 most newcomers are drawn for nobody; some of those who leave were.
    for number in 1..=120 {
        let place = Place::of(name(number));
        let peer = Peer { place, said: said(1), last: 0, since: 0, heard: true, past: Vec::new(), rival: None };
        peers.put(name(number), peer);
        if number % 5 == 0 {
            peers.expel(&name(number / 2));
        }
        for of in [1, 2, 61, 62, 119].map(name) {
            assert_eq!(peers.jury(&of, &me), peers.draw_jury(&of, &me).jury, "{number}");
        }
    }
}
