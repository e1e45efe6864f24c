//! Dialing: whom, where, and what became of it.

use std::error::Error;
use std::time::Instant;

use libp2p::Multiaddr;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use tokio::sync::oneshot;

use super::Task;
use crate::kernel::id::PeerId;
use crate::net::bootstrap;
use crate::net::names::{is_quic, is_relayed, kernel_peer, relay_of, strip_peer, swarm_peer};
use crate::net::roster::{Roster, Waiting};

/// On whose behalf an address is being dialed.
pub(super) enum Dial {
    /// The bootstrap list's.
    Bootstrap { place: usize },
    /// The address book's: the addresses that are tried now, and those that are left for when all of these fail.
    Known { peer: PeerId, now: Vec<Multiaddr>, rest: Vec<Multiaddr> },
    /// Its own, now that both ends are let in; those who wait for the peer.
    Again { peer: PeerId, waiting: Waiting },
    /// The owner's.
    Asked { answer: oneshot::Sender<Result<PeerId, String>> },
}

impl Task {
    /// Dials the bootstrap addresses that are due.
    pub(super) fn dial_bootstrap(&mut self, now: Instant) {
        let roster = &self.roster;
        let (calls, notices) = self.bootstrap.due(now, |peer| roster.is_proven(peer));
        self.tell(notices);
        for bootstrap::Call { place, address, peer } in calls {
            if let Some(why) = self.no_way(&address, now) {
                let notice = self.bootstrap.failed(place, &why, now, &mut self.jitter, &self.timings);
                self.tell(notice);
                continue;
            }
            let opts = match peer {
                Some(peer) => to_peer(&peer, vec![address]),
                None => to_anybody(address),
            };
            self.dial(opts, Dial::Bootstrap { place });
        }
    }

    /// Dials known peers while connections are wanted.
    pub(super) fn dial_known(&mut self, now: Instant) {
        let wanted = self.wanted();
        let (roster, hidden) = (&self.roster, self.hidden);
        for (peer, addresses) in self.book.due(now, wanted, |place| can_dial(place, roster, hidden), &mut self.jitter) {
            // Over QUIC a peer's death is noticed late, so it is left for when TCP and relays fail.
            let (quic, rest): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_quic);
            let (first, rest) = if rest.is_empty() { (quic, rest) } else { (rest, quic) };
            self.dial_peer(peer, first, rest);
        }
    }

    fn dial_peer(&mut self, peer: PeerId, now: Vec<Multiaddr>, rest: Vec<Multiaddr>) {
        self.dial(to_peer(&peer, now.clone()), Dial::Known { peer, now, rest });
    }

    /// Why an address cannot be dialed as things are. A relay that it goes through is looked for.
    fn no_way(&mut self, address: &Multiaddr, now: Instant) -> Option<String> {
        if can_dial(address, &self.roster, self.hidden) {
            return None;
        }
        let Some((place, relay)) = relay_of(address) else {
            return Some("it speaks QUIC, and a swarm key covers TCP only".to_owned());
        };
        self.book.told(relay, vec![place], now, &self.timings);
        Some(format!("the member that relays for it, {relay}, is not connected"))
    }

    /// Dials an address for the owner.
    pub(super) fn dial_asked(&mut self, address: Multiaddr, answer: oneshot::Sender<Result<PeerId, String>>) {
        if let Some(why) = self.no_way(&address, Instant::now()) {
            // Whoever asked may have gone.
            return drop(answer.send(Err(why)));
        }
        let opts = match strip_peer(&address).1 {
            Some(peer) => {
                if let Some(peer) = kernel_peer(&peer).filter(|peer| self.roster.is_proven(peer)) {
                    return self.roster.wait(&peer, answer);
                }
                DialOpts::peer_id(peer)
                    .condition(PeerCondition::Always)
                    .addresses(vec![address])
                    .allocate_new_port()
                    .build()
            }
            None => to_anybody(address),
        };
        self.dial(opts, Dial::Asked { answer });
    }

    pub(super) fn dial(&mut self, opts: DialOpts, dial: Dial) {
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => drop(self.dials.insert(id, dial)),
            Err(error) => self.dial_failed(dial, &error),
        }
    }

    /// A connection that this node dialed stands.
    pub(super) fn dial_succeeded(&mut self, id: ConnectionId, peer: PeerId) {
        match self.dials.remove(&id) {
            Some(Dial::Bootstrap { place }) => {
                self.bootstrap.reached(place, peer);
                if self.roster.is_proven(&peer) {
                    let notices = self.bootstrap.proven(&peer);
                    self.tell(notices);
                }
            }
            Some(Dial::Asked { answer }) => self.roster.wait(&peer, answer),
            Some(Dial::Again { waiting, .. }) => waiting.into_iter().for_each(|answer| self.roster.wait(&peer, answer)),
            Some(Dial::Known { .. }) | None => {}
        }
    }

    pub(super) fn on_dial_failed(&mut self, id: ConnectionId, error: &DialError) {
        if let Some(dial) = self.dials.remove(&id) {
            self.dial_failed(dial, error);
        }
    }

    fn dial_failed(&mut self, dial: Dial, error: &DialError) {
        self.tick_soon();
        let now = Instant::now();
        // A connection to that peer stands already, or is being made.
        let busy = matches!(error, DialError::DialPeerConditionFalse(_));
        match dial {
            Dial::Bootstrap { place } => match error {
                DialError::DialPeerConditionFalse(_) => self.bootstrap.postponed(place, now, &self.timings),
                // One list for all nodes is a sensible thing to have.
                DialError::LocalPeerId { .. } | DialError::NoAddresses => self.bootstrap.own(place),
                error => {
                    let notice = self.bootstrap.failed(place, &describe(error), now, &mut self.jitter, &self.timings);
                    self.tell(notice);
                }
            },
            Dial::Known { peer, .. } if busy => self.book.postponed(&peer, now, &self.timings),
            Dial::Known { peer, now: mut others, rest } => {
                // Sites use the same private addresses. Somebody else who answers at one must not hide the right one.
                match error {
                    DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => {
                        let (wrong, _) = strip_peer(address);
                        others.retain(|other| *other != wrong);
                    }
                    _ => others.clear(),
                }
                if !others.is_empty() {
                    self.dial_peer(peer, others, rest);
                } else if !rest.is_empty() {
                    self.dial_peer(peer, rest, Vec::new());
                } else {
                    tracing::debug!(%peer, error = %describe(error), "a known peer cannot be reached");
                    self.book.failed(&peer, now, &mut self.jitter, &self.timings);
                }
            }
            Dial::Again { peer, waiting } => {
                self.book.disconnected(&peer, now, &mut self.jitter, &self.timings);
                let why = describe(error);
                let notices = self.bootstrap.lost(&peer, &why, now, &mut self.jitter, &self.timings);
                self.tell(notices);
                for answer in waiting {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(describe(error)));
                }
            }
            // Whoever asked may have gone.
            Dial::Asked { answer } => drop(answer.send(Err(describe(error)))),
        }
    }
}

/// Whether it makes sense to dial that: of relays only those that are connected carry anything.
fn can_dial(address: &Multiaddr, roster: &Roster, hidden: bool) -> bool {
    match relay_of(address) {
        Some((_, relay)) => roster.is_proven(&relay),
        None => !(is_relayed(address) || hidden && is_quic(address)),
    }
}

// All dials use a port of their own. Dialing from the listening port helps only to get through address translation,
// and after a lost connection the same pair of ports may be blocked for a minute.

fn to_peer(peer: &PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(swarm_peer(peer))
        .condition(PeerCondition::DisconnectedAndNotDialing)
        .addresses(addresses)
        .allocate_new_port()
        .build()
}

fn to_anybody(address: Multiaddr) -> DialOpts {
    DialOpts::unknown_peer_id().address(address).allocate_new_port().build()
}

/// What a person can do something about.
pub(super) fn describe(error: &DialError) -> String {
    match error {
        DialError::Transport(attempts) => {
            let mut causes: Vec<_> = attempts.iter().map(|(_, error)| root_cause(error)).collect();
            causes.sort();
            causes.dedup();
            causes.join("; ")
        }
        DialError::WrongPeerId { obtained, .. } => format!("another peer answers there: {obtained}"),
        DialError::LocalPeerId { .. } | DialError::NoAddresses => "that is this node's own address".to_owned(),
        DialError::Denied { cause } => root_cause(cause),
        error => error.to_string(),
    }
}

/// The innermost error: what wraps it names layers of the transport.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
