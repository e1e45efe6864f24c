//! What people and joining peers ask of a node.

use super::custody::shortened;
use super::{Node, Stage};
use crate::kernel::entry::{Admit, Cancel, Event, Right, Ticket};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::{Output, Reply, Request, Token};
use crate::kernel::task::{Policy, Workload};

impl Node {
    pub(super) fn on_submit(&mut self, token: Token, workload: Workload) {
        let task = workload.id();
        let answer = if let Err(why) = self.writes_now() {
            Err(why)
        } else if workload.policy() == Policy::GithubOnly {
            Err("its tags leave it to GitHub (`github-api` or `unit-test` alone); add `p2p-eligible` or `p2p-only` to run it here".to_owned())
        } else {
            self.introduce(workload);
            Ok(task)
        };
        self.answer(token, answer.map(Some));
    }

    pub(super) fn on_cancel(&mut self, token: Token, task: TaskId, why: String) {
        let open = self.ledger.get(&task).map(|folded| folded.state.is_open());
        let answer = match (self.writes_now(), open) {
            (Err(why), _) => Err(why),
            (_, None) => Err(format!("no task {task} is known here")),
            (_, Some(false)) => Err(format!("task {} has ended already", task.short())),
            (_, Some(true)) => {
                self.events.push(self.cancellation(task, &why));
                Ok(task)
            }
        };
        self.answer(token, answer.map(Some));
    }

    fn cancellation(&self, task: TaskId, why: &str) -> Event {
        #[cfg(feature = "later")]
        if self.clock.rules() >= crate::kernel::rules::LATER {
            return Event::CallOff(crate::kernel::entry::CallOff { task });
        }
        Event::Cancel(Cancel { task, why: shortened(why) })
    }

    pub(super) fn answer(&mut self, token: Token, answer: Result<Option<TaskId>, String>) {
        self.outbox.push(Output::Answer { token, answer });
    }

    pub(super) fn writes_now(&self) -> Result<(), String> {
        match self.stage {
            Stage::Active => Ok(()),
            Stage::Learning { .. } => {
                Err("this node is still learning what its mesh has; try again in a few seconds".to_owned())
            }
            Stage::Joining => {
                Err("this node is not a member of its mesh yet: it waits for a member that admits it by its ticket"
                    .to_owned())
            }
        }
    }

    pub(super) fn on_request(&mut self, from: PeerId, token: Token, request: Request) {
        match request {
            Request::Join { ticket } => self.on_join(from, token, ticket),
            Request::Prove { chain } => self.on_prove(from, token, &chain),
            _ if !self.may_ask(&from) => self.turn_down(from, token),
            Request::Snapshot { hash, part } => self.on_snapshot_request(from, token, hash, part),
            Request::Sync { vector, want } => self.on_sync_request(from, token, &vector, &want),
            Request::Presences { of } => self.on_presences_request(from, token, &of),
            Request::Turn { tasks } => self.on_turn_request(from, token, &tasks),
        }
    }

    fn on_join(&mut self, from: PeerId, token: Token, ticket: Ticket) {
        if self.clock.members().contains(&from) {
            self.reply(from, token, Reply::Admitted);
        } else if self.clock.is_revoked(&from) {
            self.turn_down(from, token);
        } else if !self.may_write() {
            self.refuse(
                from,
                token,
                "this member cannot admit anybody yet: it is still learning what its mesh has".to_owned(),
            );
        } else if !ticket.is_of(&self.settings.mesh) {
            self.refuse(from, token, "the ticket was not signed by this mesh's key; ask for another".to_owned());
        } else if ticket.expires_ms < self.now.wall {
            self.refuse(from, token, "the ticket has expired; ask for another".to_owned());
        } else if self.clock.members().user_of(ticket.id).is_some_and(|user| user != from) {
            self.refuse(from, token, "the ticket has admitted another peer already; ask for another".to_owned());
        } else {
            let pending = self.events.iter().any(|event| matches!(event, Event::Admit(admit) if admit.peer == from));
            if !pending {
                self.events.push(Event::Admit(Admit { peer: from, right: Right::Ticket { ticket } }));
            }
            // Written before the answer leaves: the newcomer asks for entries next.
            self.write();
            self.reply(from, token, Reply::Admitted);
        }
    }

    fn refuse(&mut self, to: PeerId, token: Token, why: String) {
        self.reply(to, token, Reply::Refused { why });
    }

    pub(super) fn reply(&mut self, to: PeerId, token: Token, reply: Reply) {
        self.outbox.push(Output::Reply { to, token, reply });
    }
}
