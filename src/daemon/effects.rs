//! Doing what the kernel asks for: first the disk, then everything else in its order.

use std::time::Duration;

use tokio::time::Instant;

use super::{DISK_RETRY, Daemon, Unwritten};
use crate::control::Refusal;
use crate::kernel::id::PeerId;
use crate::kernel::io::{Input, Output, Reply, Report, Request, Token};
use crate::kernel::node::Standing;
use crate::net::{RequestId, Topic};
use crate::wire::limits::{MAX_PAGE, MAX_PAGE_ENTRIES};
use crate::wire::{gossip, presence, request, response};

impl Daemon {
    /// Carries out all outputs and the inputs that follow from them, until nothing is left or the disk refuses.
    pub(super) async fn carry_out(&mut self) {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                self.feed(input);
            }
            let outputs = std::mem::take(&mut self.outputs);
            if outputs.is_empty() && self.unwritten.is_none() {
                break;
            }
            if !self.write(outputs) {
                return;
            }
            let Some(written) = self.unwritten.take() else { break };
            for output in written.outputs {
                self.perform(output).await;
            }
        }
        if self.membership.ticket.is_some() && self.node.standing() == Standing::Active {
            self.use_up_ticket();
        }
    }

    /// Puts the entries among the outputs on disk. The rest waits in `unwritten`; `false` while the disk refuses.
    fn write(&mut self, outputs: Vec<Output>) -> bool {
        let mut unwritten = self.unwritten.take().unwrap_or_else(|| Unwritten {
            entries: Vec::new(),
            outputs: Vec::new(),
            retry: Instant::now(),
        });
        for output in outputs {
            match output {
                Output::Persist(entries) => unwritten.entries.extend(entries),
                other => unwritten.outputs.push(other),
            }
        }
        if unwritten.retry > Instant::now() {
            self.unwritten = Some(unwritten);
            return false;
        }
        let written = if unwritten.entries.is_empty() {
            Ok(0)
        } else {
            let began = Instant::now();
            let written = tokio::task::block_in_place(|| self.store.append(&unwritten.entries));
            if began.elapsed() > Duration::from_secs(1) {
                tracing::warn!(
                    "the disk took {:.1} s to keep {} entries",
                    began.elapsed().as_secs_f64(),
                    unwritten.entries.len()
                );
            }
            written
        };
        match written {
            Ok(_) => {
                unwritten.entries.clear();
                self.unwritten = Some(unwritten);
                true
            }
            Err(error) => {
                let text = format!(
                    "{error}; nothing is published or started until it can be written, which is tried again every second"
                );
                if !self.chronicle.warnings().contains(&text) {
                    self.chronicle.warn(text);
                }
                unwritten.retry = Instant::now() + DISK_RETRY;
                self.unwritten = Some(unwritten);
                false
            }
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Persist(_) => unreachable!("entries were put aside to be written"),
            Output::Publish(entries) => {
                for bytes in gossip::seal_entries(&entries) {
                    self.publish(Topic::Entries, bytes).await;
                }
            }
            Output::Announce(announced) => {
                let bytes = presence::seal(&announced, &self.key, &self.mesh);
                self.publish(Topic::Presence, bytes).await;
            }
            Output::Request { to, token, request } => self.ask(to, token, &request).await,
            Output::Reply { to, token, reply } => self.reply(to, token, reply).await,
            Output::Start { task, fence, workload } => {
                if let Err(why) = self.start_work(task, fence, workload).await {
                    self.inputs.push_back(Input::Ran { task, fence, report: Report::NotStarted { why } });
                }
            }
            Output::Stop { task, fence, .. } => {
                if self.runner.stop(task, fence).await.is_err() {
                    self.inputs.push_back(Input::Ran { task, fence, report: Report::Stopped });
                }
            }
            Output::Discover { source } => self.discover(source),
            Output::Answer { token, answer } => {
                if let Some(place) = self.commands.remove(&token) {
                    place.send(answer.map_err(Refusal::NotNow));
                }
            }
            Output::Condense { snapshot, dropped } => {
                let kept = tokio::task::block_in_place(|| self.store.condense(&snapshot, &dropped));
                if let Err(error) = kept {
                    // Nothing is lost: the next start finds the checkpoint among the entries again.
                    self.chronicle.warn(format!("dropping what lies beneath a checkpoint: {error}"));
                }
            }
            Output::Notice(notice) => self.chronicle.note(&notice),
        }
    }

    async fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        if let Err(error) = self.net.publish(topic, bytes).await {
            tracing::debug!("publishing: {error}");
        }
    }

    async fn ask(&mut self, to: PeerId, token: Token, asked: &Request) {
        let sent = match request::seal(asked) {
            Ok(bytes) => self.net.request(to, RequestId(token.0), bytes).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = sent {
            tracing::debug!("asking {}: {why}", to.short());
            self.inputs.push_back(Input::Unanswered { from: to, token });
        }
    }

    async fn reply(&mut self, to: PeerId, token: Token, reply: Reply) {
        let Some(place) = self.asking.remove(&token) else { return };
        let bytes = match reply {
            Reply::Page { cids, more } => match self.page(&cids, more) {
                Ok(bytes) => bytes,
                Err(why) => response::seal_refused(&why),
            },
            Reply::Turn { mine } => response::seal_turn(&mine),
            Reply::Admitted => response::seal_admitted(),
            Reply::Beneath { hash, parts } => response::seal_beneath(&hash, parts),
            Reply::Part { bytes, parts } => response::seal_part(bytes, parts),
            Reply::Refused { why } => response::seal_refused(&why),
        };
        if let Err(error) = self.net.respond(place, bytes).await {
            tracing::debug!("answering {}: {error}", to.short());
        }
    }

    fn page(&self, cids: &[crate::kernel::id::Cid], more: bool) -> Result<Vec<u8>, String> {
        let listed = cids.len().min(MAX_PAGE_ENTRIES);
        let entries = self.store.page(&cids[..listed], MAX_PAGE).map_err(|error| {
            tracing::warn!("{error}");
            "this node cannot read its database now".to_owned()
        })?;
        let more = more || entries.len() < cids.len();
        Ok(response::seal_page(entries, more).bytes)
    }

    fn use_up_ticket(&mut self) {
        self.membership.ticket = None;
        if let Err(error) = self.store.dir().keep_membership(&self.membership) {
            tracing::warn!("forgetting the used ticket: {error}");
        }
    }
}
