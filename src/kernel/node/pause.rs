//! The stop button: while the mesh is paused no node claims anything; what runs goes on.

use super::Node;
use super::custody::shortened;
use crate::kernel::entry::{Event, Pause, Resume};
use crate::kernel::io::{Notice, Token};
use crate::kernel::ledger::Paused;

impl Node {
    pub(super) fn on_pause(&mut self, token: Token, why: String) {
        let answer = self.writes_now().map(|()| {
            self.events.push(Event::Pause(Pause { why: shortened(&why) }));
            None
        });
        self.answer(token, answer);
    }

    pub(super) fn on_resume(&mut self, token: Token) {
        let answer = match (self.writes_now(), &self.paused) {
            (Err(why), _) => Err(why),
            (Ok(()), None) => Err("the mesh is not paused".to_owned()),
            (Ok(()), Some(_)) => {
                self.events.push(Event::Resume(Resume {}));
                Ok(None)
            }
        };
        self.answer(token, answer);
    }

    /// Why no node claims anything now, as far as is known here.
    pub const fn paused(&self) -> Option<&Paused> {
        self.paused.as_ref()
    }

    /// To be called when what the ledger knows of pauses, or which entries count, may be another than before.
    pub(super) fn look_at_pause(&mut self) {
        let paused = self.ledger.paused(|cid, rules| self.clock.counts_under(cid, rules));
        if paused == self.paused {
            return;
        }
        match &paused {
            Some(paused) => self.notice(Notice::Paused { by: paused.by, why: paused.why.clone() }),
            None => self.notice(Notice::Resumed),
        }
        self.paused = paused;
        self.claims.look_again();
    }
}
