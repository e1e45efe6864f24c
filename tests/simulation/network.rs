//! The network: who can talk to whom, who knows it, and what messages suffer on their way.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use runmesh::kernel::id::PeerId;
use runmesh::kernel::io::{Input, Request, Response, Token};

use super::chance::Chance;
use super::host::Death;
use super::scenario::Scenario;
use super::world::{Event, Message, World};

/// How long it takes to open a connection.
const DIAL: (u64, u64) = (20, 300);
/// How long it takes to hear that a peer's system has closed a connection.
const CLOSE: (u64, u64) = (1, 20);
/// How long it takes until hosts find each other again after a partition.
const REUNION: (u64, u64) = (100, 3_000);

/// Which hosts each may connect to: all, or a ring with random chords.
pub(crate) fn links(scenario: &Scenario, seed: u64) -> Vec<Vec<usize>> {
    let (nodes, mut chance) = (scenario.nodes, Chance::new(seed, "links"));
    if scenario.links == 0 || scenario.links + 1 >= nodes {
        let mut others = |host| {
            let mut others: Vec<usize> = (0..nodes).filter(|other| *other != host).collect();
            chance.shuffle(&mut others);
            others
        };
        return (0..nodes).map(&mut others).collect();
    }
    let mut sets = vec![BTreeSet::new(); nodes];
    for host in 0..nodes {
        let chords = (1..scenario.links / 2).map(|_| chance.below(nodes)).filter(|other| *other != host);
        for other in [(host + 1) % nodes].into_iter().chain(chords) {
            sets[host].insert(other);
            sets[other].insert(host);
        }
    }
    sets.into_iter().map(|set| set.into_iter().collect()).collect()
}

/// Whom each host passes gossip on to: a few of its connected peers by chance, and whoever has chosen it.
///
/// Gossipsub also tells a few others of what it has (IHAVE); this overlay does not. So one that a partition has split
/// can stay split after it is healed, where nobody lacks a neighbour: entries still come by sync, presences do not. It
/// grows together as hosts come and go: all runs seen of `Scenario::at_large` with 100 nodes and more did, of eight with
/// 40 nodes two.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    chosen: Vec<Vec<usize>>,
    chosen_by: Vec<BTreeSet<usize>>,
}

impl Overlay {
    pub(crate) fn of(hosts: usize) -> Self {
        Self { chosen: vec![Vec::new(); hosts], chosen_by: vec![BTreeSet::new(); hosts] }
    }

    fn neighbours(&self, host: usize) -> impl Iterator<Item = usize> {
        let chosen = &self.chosen[host];
        let others = self.chosen_by[host].iter().filter(|other| !chosen.contains(other));
        chosen.iter().chain(others).copied()
    }

    fn choose(&mut self, host: usize, peer: usize) {
        if !self.chosen[host].contains(&peer) {
            self.chosen[host].push(peer);
            self.chosen_by[peer].insert(host);
        }
    }

    fn drop(&mut self, host: usize, peer: usize) {
        self.chosen[host].retain(|chosen| *chosen != peer);
        self.chosen_by[peer].remove(&host);
    }
}

/// A message on its way to all.
#[derive(Debug)]
pub(crate) struct Flood {
    message: Message,
    /// By time.
    arrivals: Vec<Arrival>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: u64,
    to: usize,
    via: usize,
}

impl World<'_> {
    /// Two hosts have found out how they stand with each other.
    fn relink(&mut self, host: usize, peer: usize) {
        for (host, peer) in [(host, peer), (peer, host)] {
            if !self.is_connected(host, peer) {
                if self.overlay.chosen[host].contains(&peer) {
                    self.overlay.drop(host, peer);
                    self.choose_others(host);
                }
            } else if self.overlay.chosen[host].len() < self.scenario.network.fan {
                self.overlay.choose(host, peer);
            }
        }
    }

    /// A host has gone down.
    pub(crate) fn unlink(&mut self, host: usize) {
        for peer in self.overlay.chosen[host].clone() {
            self.overlay.drop(host, peer);
        }
        for other in self.overlay.chosen_by[host].clone() {
            self.overlay.drop(other, host);
            self.choose_others(other);
        }
    }

    fn relink_all(&mut self) {
        for host in 0..self.hosts.len() {
            for peer in self.overlay.chosen[host].clone() {
                if !self.is_connected(host, peer) {
                    self.overlay.drop(host, peer);
                }
            }
            self.choose_others(host);
        }
    }

    /// Fills up whom a host passes gossip on to. Its peers stand in an order by chance.
    fn choose_others(&mut self, host: usize) {
        let fan = self.scenario.network.fan;
        let mut at = 0;
        while self.overlay.chosen[host].len() < fan
            && let Some(peer) = self.links[host].get(at).copied()
        {
            if self.is_connected(host, peer) {
                self.overlay.choose(host, peer);
            }
            at += 1;
        }
    }

    /// Whether two hosts could exchange a message now.
    fn is_reachable(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.hosts[a], &self.hosts[b]);
        a.part == b.part && a.process.is_some() && b.process.is_some()
    }

    /// Whether each of the two takes itself to be connected to the other, and rightly.
    fn is_connected(&self, a: usize, b: usize) -> bool {
        let knows = |a: usize, b: usize| {
            let seen = self.hosts[a].process.as_ref().and_then(|process| process.seen.get(&b));
            seen.is_some() && seen.copied() == self.boot_of(b)
        };
        self.is_reachable(a, b) && knows(a, b) && knows(b, a)
    }

    fn delay(&mut self) -> u64 {
        let delay = self.chance.within(self.scenario.network.delay);
        if self.is_rough && self.chance.permille(self.scenario.network.late) { 20 * delay } else { delay }
    }

    fn is_lost(&mut self) -> bool {
        self.is_rough && self.chance.permille(self.scenario.network.lost)
    }

    fn is_unheard(&mut self) -> bool {
        let unheard = self.scenario.network.unheard;
        self.is_lost() || (unheard > 0 && self.is_rough && self.chance.permille(unheard))
    }

    fn look_within(&mut self, host: usize, peer: usize, range: (u64, u64)) {
        let at = self.now + self.chance.within(range);
        self.plan(at, Event::Look(host, peer));
    }

    /// A host that has come up is found by the others, and finds them.
    pub(crate) fn reach_out(&mut self, host: usize) {
        for peer in self.links[host].clone() {
            self.look_within(host, peer, DIAL);
            self.look_within(peer, host, DIAL);
        }
    }

    /// A host that has gone down is missed by the others.
    pub(crate) fn be_missed(&mut self, host: usize, death: Death) {
        let range = if death == Death::Killed { CLOSE } else { self.scenario.network.silence };
        for peer in self.links[host].clone() {
            self.look_within(peer, host, range);
        }
    }

    /// Puts hosts into parts of the network.
    pub(crate) fn repart(&mut self, part: impl Fn(usize) -> u8) {
        let before: Vec<_> = self.hosts.iter().map(|host| host.part).collect();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            host.part = part(number);
        }
        self.relink_all();
        for host in 0..self.hosts.len() {
            for peer in self.links[host].clone() {
                let (was, is) = (before[host] == before[peer], self.hosts[host].part == self.hosts[peer].part);
                match (was, is) {
                    (true, false) => self.look_within(host, peer, self.scenario.network.silence),
                    (false, true) => self.look_within(host, peer, REUNION),
                    _ => {}
                }
            }
        }
    }

    /// A host finds out how it stands with another, and its node is told what has changed.
    pub(crate) fn on_look(&mut self, host: usize, peer: usize) {
        let there = self.boot_of(peer).filter(|_| self.is_reachable(host, peer));
        let id = self.hosts[peer].peer;
        let Some(process) = &mut self.hosts[host].process else { return };
        let (boot, seen) = (process.boot, process.seen.get(&peer).copied());
        if seen == there {
            return;
        }
        match there {
            Some(there) => process.seen.insert(peer, there),
            None => process.seen.remove(&peer),
        };
        let unanswered: Vec<Token> =
            process.asked.iter().filter(|(_, asked)| **asked == peer).map(|(token, _)| *token).collect();
        self.relink(host, peer);
        if seen.is_some() {
            self.give(host, boot, Input::Disconnected(id));
            for token in unanswered {
                self.on_give_up(host, boot, token);
            }
        }
        if there.is_some() {
            self.give(host, boot, Input::Connected(id));
            // A connection opens for both at once; only its end is noticed by each for itself.
            self.plan(self.now, Event::Look(peer, host));
        }
    }

    /// Spreads a message from a host through the mesh: each passes it on once, to a few of its peers.
    pub(crate) fn flood(&mut self, from: usize, at: u64, message: Message) {
        let overlay = std::mem::take(&mut self.overlay);
        let mut reached = vec![false; self.hosts.len()];
        let mut ahead = BinaryHeap::from([Reverse((at, from, from))]);
        let (mut arrivals, mut again) = (Vec::with_capacity(self.hosts.len()), Vec::new());
        while let Some(Reverse((at, host, via))) = ahead.pop() {
            if std::mem::replace(&mut reached[host], true) {
                continue;
            }
            if host != from {
                // A slow reader loses messages after all hops are done.
                if !self.is_unheard() {
                    arrivals.push(Arrival { at, to: host, via });
                }
                if self.is_rough && self.chance.permille(self.scenario.network.doubled) {
                    again.push(Arrival { at: at + 20 * self.delay(), to: host, via });
                }
            }
            for peer in overlay.neighbours(host) {
                if !reached[peer] && !self.is_unheard() {
                    ahead.push(Reverse((at + self.delay(), peer, host)));
                }
            }
        }
        self.overlay = overlay;
        arrivals.append(&mut again);
        arrivals.sort_by_key(|arrival| arrival.at);
        self.let_arrive(Flood { message, arrivals, next: 0 });
    }

    /// One event for a whole flood, at the time of its next arrival: a thousand in the queue for each would be most of it.
    fn let_arrive(&mut self, flood: Flood) {
        if let Some(next) = flood.arrivals.get(flood.next) {
            self.plan(next.at, Event::Gossip(Box::new(flood)));
        }
    }

    pub(crate) fn on_arrival(&mut self, mut flood: Flood) {
        let now = self.now;
        while let Some(Arrival { at, to, via }) = flood.arrivals.get(flood.next).copied()
            && at <= now
        {
            flood.next += 1;
            let message = flood.message.clone();
            self.on_gossip(to, via, message);
        }
        self.let_arrive(flood);
    }

    fn on_gossip(&mut self, to: usize, via: usize, message: Message) {
        if !self.is_reachable(to, via) {
            return;
        }
        let Some(boot) = self.boot_of(to) else { return };
        self.counts.gossiped += 1;
        let from = self.hosts[via].peer;
        let input = match message {
            Message::Entries(entries) => Input::Entries { from, entries: entries.to_vec() },
            Message::Presence(presence) => Input::Presence(presence),
        };
        self.give(to, boot, input);
    }

    /// A node asks another.
    pub(crate) fn ask(&mut self, from: usize, at: u64, to: PeerId, token: Token, request: Request) {
        let peer = self.by_peer.get(&to).copied();
        let give_up = self.scenario.network.give_up;
        let Some(process) = &mut self.hosts[from].process else { return };
        let boot = process.boot;
        let Some(peer) = peer.filter(|peer| process.seen.contains_key(peer)) else {
            // The transport refuses: there is no connection.
            let input = Input::Unanswered { from: to, token };
            return self.plan(at, Event::Input(from, boot, Box::new(input)));
        };
        let stands = process.seen.get(&peer).copied();
        process.asked.insert(token, peer);
        self.counts.requests += 1;
        if stands == self.boot_of(peer) && self.is_reachable(from, peer) && !self.is_lost() {
            let arrives = at + self.delay();
            self.plan(arrives, Event::Request { to: peer, from, boot, token, request });
        }
        self.plan(at + give_up, Event::GiveUp(from, boot, token));
    }

    pub(crate) fn on_request(&mut self, to: usize, asker: (usize, u64, Token), request: Request) {
        if !self.is_reachable(to, asker.0) {
            return;
        }
        let from = self.hosts[asker.0].peer;
        let Some(process) = &mut self.hosts[to].process else { return };
        process.next_token += 1;
        let token = Token(process.next_token);
        process.serving.insert(token, asker);
        let boot = process.boot;
        self.give(to, boot, Input::Request { from, token, request });
    }

    /// A node has answered.
    pub(crate) fn respond(&mut self, from: usize, at: u64, (to, boot, token): (usize, u64, Token), response: Response) {
        if !self.is_lost() {
            let arrives = at + self.delay();
            self.plan(arrives, Event::Response { to, boot, from, token, response });
        }
    }

    pub(crate) fn on_response(&mut self, (to, boot, token): (usize, u64, Token), from: usize, response: Response) {
        if !self.is_reachable(to, from) {
            return;
        }
        let peer = self.hosts[from].peer;
        let Some(process) = self.process(to, boot) else { return };
        if process.asked.remove(&token).is_some() {
            self.give(to, boot, Input::Response { from: peer, token, response });
        }
    }

    pub(crate) fn on_give_up(&mut self, host: usize, boot: u64, token: Token) {
        let Some(process) = self.process(host, boot) else { return };
        if let Some(peer) = process.asked.remove(&token) {
            let from = self.hosts[peer].peer;
            self.give(host, boot, Input::Unanswered { from, token });
        }
    }
}
