//! Answers that are being written: who asks and does not read keeps its share of them, and gets no more than that.

use std::collections::HashMap;

use libp2p::request_response::InboundRequestId;
use tokio::sync::OwnedSemaphorePermit;

use super::Task;
use crate::net::event::{ReplyToken, Share};

/// The room that they take, by the requests that they answer. libp2p reports the end of each, be it that its connection
/// was lost.
#[derive(Default)]
pub(super) struct Answers {
    writing: HashMap<InboundRequestId, (OwnedSemaphorePermit, Share)>,
}

impl Answers {
    /// It has been written, or never will be.
    pub(super) fn ended(&mut self, number: InboundRequestId) {
        self.writing.remove(&number);
    }
}

impl Task {
    pub(super) fn respond(&mut self, token: ReplyToken, bytes: Vec<u8>) {
        let ReplyToken { channel, at_door, from, number, share } = token;
        let behaviour = self.swarm.behaviour_mut();
        let sent = if at_door {
            behaviour.door.send_response(channel, bytes)
        } else {
            let Some(room) = self.roster.answer_room(&from, bytes.len()) else {
                // Dropping the channel refuses.
                return self.tallies.requests_refused.add(1);
            };
            self.answers.writing.insert(number, (room, share));
            behaviour.inside.inner.ask.send_response(channel, bytes)
        };
        if sent.is_err() {
            self.answers.ended(number);
            self.tallies.responses_late.add(1);
        }
    }
}
