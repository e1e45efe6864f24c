//! Requests of this node that wait for answers.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use libp2p::request_response::OutboundRequestId;

use crate::kernel::id::PeerId;
use crate::net::event::RequestId;

/// The most requests that wait at once.
const MOST: usize = 1024;

/// libp2p's own timeout begins only when a stream stands; this one begins with the request, so none waits longer.
pub(super) struct Asked {
    waiting: HashMap<OutboundRequestId, (RequestId, PeerId)>,
    /// All requests have the same time, so the first here is due first. Answered ones stay until then.
    deadlines: VecDeque<(Instant, OutboundRequestId)>,
}

impl Asked {
    pub(super) fn new() -> Self {
        Self { waiting: HashMap::new(), deadlines: VecDeque::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    pub(super) fn sent(&mut self, sent: OutboundRequestId, id: RequestId, to: PeerId, deadline: Instant) {
        self.waiting.insert(sent, (id, to));
        self.deadlines.push_back((deadline, sent));
    }

    /// The request has its end; `None` when it had one before.
    pub(super) fn ended(&mut self, sent: OutboundRequestId) -> Option<(RequestId, PeerId)> {
        self.waiting.remove(&sent)
    }

    /// When the first of them is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline).filter(|_| !self.waiting.is_empty())
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<(RequestId, PeerId)> {
        let mut expired = Vec::new();
        while let Some((deadline, sent)) = self.deadlines.front()
            && *deadline <= now
        {
            expired.extend(self.waiting.remove(sent));
            self.deadlines.pop_front();
        }
        expired
    }
}
