//! The way of events to the owner, who may be slow.
//!
//! What is lost when the owner does not keep up: gossip, and measurements of round trips. Requests are refused. All
//! other events are kept here until there is room, and when even that is full, the swarm rests until there is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::event::Event;

/// Events that wait for the owner to take them.
const CHANNEL: usize = 1024;
/// Events that wait behind those.
const QUEUE: usize = 4096;

pub(super) struct Outbox {
    sender: mpsc::Sender<Event>,
    queue: VecDeque<Event>,
}

impl Outbox {
    pub(super) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        (Self { sender, queue: VecDeque::new() }, receiver)
    }

    /// Sends an event that must not be lost.
    pub(super) fn must(&mut self, event: Event) {
        if let Err(event) = self.may(event) {
            self.queue.push_back(event);
        }
    }

    /// Sends an event if there is room, else gives it back.
    #[expect(clippy::result_large_err, reason = "the event is what is given back")]
    pub(super) fn may(&mut self, event: Event) -> Result<(), Event> {
        if !self.queue.is_empty() {
            return Err(event);
        }
        self.sender.try_send(event).map_err(|error| error.into_inner())
    }

    /// Whether no further event may come about.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE
    }

    /// Waits until there is room for an event that was kept back, and sends it; waits for ever when none was. Returns
    /// false when the owner is gone. Nothing is lost when this is not waited for to its end.
    pub(super) async fn flush(&mut self) -> bool {
        if self.queue.is_empty() {
            self.sender.closed().await;
            return false;
        }
        let Ok(place) = self.sender.reserve().await else { return false };
        if let Some(event) = self.queue.pop_front() {
            place.send(event);
        }
        true
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often things happened since the start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same, being counted.
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $name: Count,)*
        }

        impl Tally {
            pub(super) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Messages published to at least one peer.
    published,
    /// Messages that no peer was there to hear.
    unheard,
    /// Messages that were not published because all peers were too slow.
    unpublished,
    /// Gossiped messages given to the owner.
    gossip_in,
    /// Gossiped messages dropped: the owner was too slow, or had too many of that peer's to judge.
    gossip_dropped,
    /// Gossiped messages that the owner, or their size, condemned.
    gossip_rejected,
    /// Requests refused: the owner was too slow, or had too many of that peer's to answer.
    requests_refused,
    /// Answers that came after their time, to either side.
    responses_late,
    /// Gossiped messages that did not reach a peer because it was too slow.
    slow_peers,
    /// Connections turned away: of another mesh, of no known kind, or silent.
    turned_away,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
}

pub(super) type Tallies = Arc<Tally>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::id::PeerId;

    fn event(number: usize) -> Event {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Event::Connected(PeerId::from_public_key(key))
    }

    fn number(event: Option<Event>) -> u64 {
        match event {
            Some(Event::Connected(peer)) => u64::from_le_bytes(peer.public_key()[..8].try_into().expect("eight")),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_must_arrive_does_in_its_order_and_the_rest_is_given_back() {
        let (mut outbox, mut receiver) = Outbox::new();
        for n in 0..CHANNEL {
            assert!(outbox.may(event(n)).is_ok());
        }
        assert!(outbox.may(event(0)).is_err());
        for n in CHANNEL..CHANNEL + QUEUE {
            assert!(!outbox.is_full());
            outbox.must(event(n));
        }
        assert!(outbox.is_full());
        for n in 0..CHANNEL + QUEUE {
            assert_eq!(number(receiver.recv().await), n as u64);
            if n + CHANNEL < CHANNEL + QUEUE {
                // Nothing overtakes what waits.
                assert!(outbox.may(event(0)).is_err());
                assert!(outbox.flush().await);
            }
        }
        assert!(outbox.may(event(7)).is_ok());
        drop(receiver);
        assert!(!outbox.flush().await, "the owner is gone");
    }
}
