//! The one task that owns the swarm.
//!
//! It never waits for anybody but the swarm: what its owner is too slow to take is dropped, refused or kept, as
//! [`super::outbox`] says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use libp2p::futures::StreamExt as _;
use libp2p::gossipsub::{MessageAcceptance, PublishError};
use libp2p::identity::Keypair;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, Swarm};
use tokio::sync::mpsc;

use super::backoff::Jitter;
use super::behaviour::{Behaviour, swarm_config};
use super::book::Book;
use super::bootstrap::{Bootstrap, Notice};
use super::client::{COMMANDS, Client, Command, Events, Papers};
use super::crowd::Shown;
use super::event::{Event, GossipToken, RequestId, Topic, Verdict, Why};
use super::names::{Names, kernel_peer, strip_peer, swarm_peer, with_peer};
use super::outbox::{Outbox, Tallies};
use super::relays::Relays;
use super::roster::{Rate, Roster};
use super::{NetError, Settings, Timings, transport};
use crate::kernel::id::{MeshId, PeerId};
use answers::Answers;
use asked::Asked;
use dials::Dial;
use door::Again;

mod answers;
mod asked;
mod dials;
mod door;
mod heard;
mod reach;

/// It is looked at what is due (dials, deadlines) when the first of it is, but within these bounds. Nothing that is said
/// waits for it.
const LEAST_TICK: Duration = Duration::from_millis(20);
const MOST_TICK: Duration = Duration::from_secs(2);
/// The longest that closing all connections may take.
const CLOSING: Duration = Duration::from_secs(1);

/// How much all peers together may show at the door in a second, and at once: judging one may take milliseconds.
const DOOR_RATE: f64 = 20.0;
const DOOR_BURST: f64 = 100.0;
/// The most peers that are told to whoever keeps them for the next life.
const KNOWN: usize = 64;

pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    names: Names,
    me: PeerId,
    mesh: MeshId,
    /// Wanted connections.
    connections: usize,
    announce: Vec<Multiaddr>,
    timings: Timings,
    commands: mpsc::Receiver<Command>,
    outbox: Outbox,
    tallies: Tallies,
    roster: Roster,
    book: Book,
    bootstrap: Bootstrap,
    relays: Relays,
    /// Addresses of this node at which members have come in.
    served: BTreeSet<Multiaddr>,
    /// Who says on the LAN that it is there, and where.
    neighbours: BTreeMap<PeerId, BTreeSet<Multiaddr>>,
    /// A swarm key hides this node, so it speaks no QUIC.
    hidden: bool,
    /// When everybody was tried again because this host got another address.
    hurried: Instant,
    dials: HashMap<ConnectionId, Dial>,
    asked: Asked,
    answers: Answers,
    papers: Papers,
    /// To whom this node has shown its papers and who has not answered yet.
    shown: HashMap<OutboundRequestId, PeerId>,
    again: HashMap<PeerId, Again>,
    /// When connections were made once more, of late.
    met: HashMap<PeerId, Instant>,
    /// How much all together may show at the door.
    door_rate: Rate,
    /// And how much those of one place.
    shown_from: Shown,
    jitter: Jitter,
    next_exchange: Instant,
    next_tick: Instant,
}

impl Task {
    pub(super) fn start(settings: Settings) -> Result<(Client, Events), NetError> {
        let key = Keypair::ed25519_from_bytes(settings.key).map_err(|error| NetError::Setup(error.to_string()))?;
        let names = Names::of(&settings.mesh)?;
        let (carrier, relayed) = transport::build(settings.transport, &key, settings.swarm_key, settings.timings.dial)?;
        let behaviour = Behaviour::new(&settings, &names, &key, relayed)?;
        let id = key.public().to_peer_id();
        let me = kernel_peer(&id).ok_or_else(|| NetError::Setup(format!("{id} is not the name of an Ed25519 key")))?;
        let mut swarm = Swarm::new(carrier, behaviour, id, swarm_config());
        let hidden = settings.swarm_key.is_some();
        let Settings { mesh, listen, announce, bootstrap: places, known, papers, connections, timings, .. } = settings;
        for address in listen {
            let failed = |why| NetError::Listen { address: address.clone(), why };
            if hidden {
                transport::hides(&address).map_err(failed)?;
            }
            transport::probe(&address).map_err(|error| failed(transport::why_deaf(&address, &error)))?;
            swarm.listen_on(address.clone()).map_err(|error| failed(dials::root_cause(&error)))?;
        }
        let announce: Vec<_> = announce.iter().map(|address| strip_peer(address).0).collect();
        for address in &announce {
            swarm.add_external_address(address.clone());
        }

        let found = !announce.is_empty();
        let now = Instant::now();
        let mut bootstrap = Bootstrap::new();
        for address in places {
            bootstrap.add(address, &me, now);
        }
        let mut book = Book::new(me);
        for address in known {
            if let Some(peer) = strip_peer(&address).1.as_ref().and_then(kernel_peer) {
                book.remembered(peer, &address, now);
            }
        }
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (outbox, events) = Outbox::new();
        let tallies = Tallies::default();
        let task = Self {
            swarm,
            names,
            me,
            mesh,
            connections,
            announce,
            next_exchange: now + timings.exchange,
            next_tick: now,
            timings,
            commands: receiver,
            outbox,
            tallies: Tallies::clone(&tallies),
            roster: Roster::new(),
            book,
            bootstrap,
            relays: Relays::new(found),
            served: BTreeSet::new(),
            neighbours: BTreeMap::new(),
            hidden,
            hurried: now,
            dials: HashMap::new(),
            asked: Asked::new(),
            answers: Answers::default(),
            papers,
            shown: HashMap::new(),
            again: HashMap::new(),
            met: HashMap::new(),
            door_rate: Rate::new(DOOR_RATE, DOOR_BURST, now),
            shown_from: Shown::default(),
            jitter: Jitter::new()?,
        };
        let task = tokio::spawn(task.run());
        Ok((Client { commands, tallies, peer: me }, Events { receiver: events, task }))
    }

    async fn run(mut self) {
        loop {
            // Each arm in its turn: neither a flood from the network nor one of commands may starve the other.
            tokio::select! {
                event = self.swarm.select_next_some(), if !self.outbox.is_full() => self.on_swarm(event),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.on_command(command),
                },
                owned = self.outbox.flush() => if !owned {
                    return;
                },
                () = tokio::time::sleep_until(self.next_tick.into()) => self.on_tick(Instant::now()),
            }
        }
        self.wind_down().await;
    }

    /// Lets what was said last leave, then closes all connections, so that the others need not guess.
    async fn wind_down(mut self) {
        let linger = tokio::time::sleep(self.timings.linger);
        tokio::pin!(linger);
        loop {
            tokio::select! {
                _ = self.swarm.select_next_some() => {}
                () = &mut linger => break,
            }
        }
        for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
            // It may have left just now.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSING, closed).await.is_err() {
            tracing::debug!("not all connections were closed in time");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish { topic, bytes } => self.publish(topic, bytes),
            Command::Judge { token, verdict } => self.judge(token, verdict),
            Command::Ask { to, id, bytes } => self.ask(to, id, bytes),
            Command::Respond { token, bytes } => self.respond(token, bytes),
            Command::Dial { address, answer } => self.dial_asked(address, answer),
            Command::Remember { address } => {
                self.bootstrap.add(address, &self.me, Instant::now());
                self.dial_bootstrap(Instant::now());
            }
            Command::Disconnect { peer } => {
                // It may have left just now.
                let _ = self.swarm.disconnect_peer_id(swarm_peer(&peer));
            }
            Command::KeepAway { peer, time } => self.keep_away(&peer, time),
            Command::Welcome { peers } => self.welcome(peers),
            Command::Papers { papers } => self.take_papers(papers),
            // Whoever asked may have gone.
            Command::Peers { answer } => drop(answer.send(self.roster.snapshot(Instant::now()))),
            Command::Known { answer } => {
                let known = self.book.all().into_iter().take(KNOWN);
                let known = known.flat_map(|(peer, places)| {
                    places.into_iter().map(move |place| with_peer(&place, &peer)).collect::<Vec<_>>()
                });
                drop(answer.send(known.collect()));
            }
            Command::Addresses { answer } => {
                let addresses = self.own_addresses();
                drop(answer.send(addresses.iter().map(|address| with_peer(address, &self.me)).collect()));
            }
            Command::Shutdown => unreachable!("the loop ends with it"),
        }
    }

    fn on_tick(&mut self, now: Instant) {
        for (id, from) in self.asked.expired(now) {
            self.outbox.must(Event::Unanswered { id, from, why: Why::Timeout });
        }
        for peer in self.roster.silent(now, self.timings.prove) {
            self.turn_away(&peer, "it has not shown in time that it belongs to this mesh".to_owned());
        }
        self.leave_relays(now);
        self.ask_relays(now);
        for (peer, dropped) in self.roster.floods(now) {
            // Said again with the next that is dropped.
            let _ = self.outbox.may(Event::Flood { peer, dropped });
        }
        self.dial_bootstrap(now);
        self.book.forget(now, &self.timings);
        self.dial_known(now);
        if now >= self.next_exchange {
            self.next_exchange = now + self.jitter.around(self.timings.exchange);
            self.exchange_with_anybody();
        }
        let wanted = self.wanted();
        let due = [
            self.asked.next(),
            self.roster.next(self.timings.prove),
            self.bootstrap.next(),
            self.book.next().filter(|_| wanted > 0),
            Some(self.next_exchange),
        ];
        let next = due.into_iter().flatten().min().unwrap_or(now);
        self.next_tick = next.clamp(now + LEAST_TICK, now + MOST_TICK);
    }

    /// Something may be due earlier than it was when that was looked at last.
    fn tick_soon(&mut self) {
        self.next_tick = self.next_tick.min(Instant::now() + LEAST_TICK);
    }

    /// How many more connections are wanted.
    fn wanted(&self) -> usize {
        self.connections.saturating_sub(self.roster.wanted())
    }

    fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        let gossip = &mut self.swarm.behaviour_mut().inside.inner.gossip;
        match gossip.publish(self.names.topic(topic).hash(), bytes) {
            Ok(_) => self.tallies.published.add(1),
            Err(PublishError::NoPeersSubscribedToTopic) => self.tallies.unheard.add(1),
            // The same bytes were said, or heard, just now.
            Err(PublishError::Duplicate) => {}
            // Said many times where it is said at all; the counter tells.
            Err(error) => {
                self.tallies.unpublished.add(1);
                tracing::debug!(?topic, %error, "a message was not published");
            }
        }
    }

    fn judge(&mut self, token: GossipToken, verdict: Verdict) {
        if verdict == Verdict::Reject {
            self.tallies.gossip_rejected.add(1);
        }
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        // A message that waited for seconds is out of the cache, and the neighbours have it from others.
        self.swarm.behaviour_mut().inside.inner.gossip.report_message_validation_result(
            &token.message,
            &token.from,
            acceptance,
        );
    }

    fn ask(&mut self, to: PeerId, id: RequestId, bytes: Vec<u8>) {
        let peer = swarm_peer(&to);
        let why = if !self.roster.is_proven(&to) {
            Why::NotConnected
        } else if self.asked.is_full() {
            Why::Busy
        } else {
            let sent = self.swarm.behaviour_mut().inside.inner.ask.send_request(&peer, bytes);
            self.asked.sent(sent, id, to, Instant::now() + self.timings.request);
            return self.tick_soon();
        };
        self.outbox.must(Event::Unanswered { id, from: to, why });
    }

    fn tell(&mut self, notices: impl IntoIterator<Item = Notice>) {
        for (address, error) in notices {
            match &error {
                Some(error) => tracing::debug!(%address, %error, "a bootstrap peer does not answer; trying on"),
                None => tracing::debug!(%address, "a bootstrap peer answers now"),
            }
            self.outbox.must(Event::Bootstrap { address, error });
        }
    }
}
