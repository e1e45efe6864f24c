//! Doing what the kernel asks for: first the disk, then everything else in its order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::scale::is_job;
use super::{DISK_RETRY, Daemon, Unwritten};
use crate::control::Refusal;
use crate::kernel::entry::Entry;
use crate::kernel::id::{Cid, PeerId, TaskId};
use crate::kernel::io::{Input, Output, Reply, Report, Request, Token};
use crate::kernel::node::{Standing, Timings};
use crate::kernel::task::{Fence, Products};
use crate::net::{ReplyToken, RequestId, Topic};
use crate::store::{Store, StoreError};
use crate::wire::limits::{MAX_PAGE, MAX_PAGE_ENTRIES};
use crate::wire::{WireError, gossip, presence, request, response};

/// Pages that are read and sent at once; each takes a few megabytes.
const SERVING: usize = 8;
/// What whoever asks for more hears meanwhile.
pub(super) const TOO_BUSY: &str = "too many others are being answered; ask again";
/// How long entries of others may wait to be written, and how many of them, so that they share a sync of the disk. Own
/// choice: a tenth of what a lost gossip message costs, and no more than a page.
const POSTPONE: Duration = Duration::from_millis(100);
const MAX_POSTPONED: usize = 512;

/// Entries of others that wait for the next sync of the disk.
///
/// They are on their authors' disks already, or they would not have come, so losing them in a crash costs a question
/// to a peer. What this node does because of them is an entry of its own or a start, and comes after them on the disk;
/// nor does it serve them to others before.
#[derive(Default)]
pub(super) struct Postponed {
    entries: Vec<Arc<Entry>>,
    by: Option<Instant>,
}

impl Postponed {
    /// When they are written at the latest.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.by
    }

    fn is_due(&self) -> bool {
        self.by.is_some_and(|by| by <= Instant::now())
    }
}

/// Whether it may be done before the entries of others that came before it are on disk.
const fn may_precede(output: &Output) -> bool {
    matches!(
        output,
        Output::Notice(_)
            | Output::Announce(_)
            | Output::Request { .. }
            | Output::Discover { .. }
            | Output::Stop { .. }
            | Output::Reply { reply: Reply::Turn { .. } | Reply::Refused { .. }, .. }
    )
}

impl Daemon {
    /// Carries out all outputs and the inputs that follow from them, until nothing is left or the disk refuses.
    pub(super) async fn carry_out(&mut self) {
        loop {
            while let Some(input) = self.inputs.pop_front() {
                self.feed(input);
            }
            let outputs = std::mem::take(&mut self.outputs);
            if outputs.is_empty() && self.unwritten.is_none() && !self.postponed.is_due() {
                break;
            }
            if !self.write(outputs) {
                return self.stop_meanwhile().await;
            }
            let Some(written) = self.unwritten.take() else { break };
            // The whole mesh waits for what is published: it goes before telling, answering and starting.
            let (first, rest): (Vec<_>, Vec<_>) =
                written.outputs.into_iter().partition(|output| matches!(output, Output::Publish(_)));
            for output in first.into_iter().chain(rest) {
                self.perform(output).await;
            }
        }
        self.scale.sets.release();
        self.keep_gate().await;
        if self.membership.ticket.is_some() && self.node.standing() == Standing::Active {
            self.use_up_ticket();
        }
    }

    /// Puts the entries among the outputs on disk. The rest waits in `unwritten`; `false` while the disk refuses.
    fn write(&mut self, outputs: Vec<Output>) -> bool {
        let mut unwritten = self.unwritten.take().unwrap_or_else(|| Unwritten {
            entries: std::mem::take(&mut self.postponed.entries),
            outputs: Vec::new(),
            retry: Instant::now(),
            why: None,
            cut_off: None,
        });
        for output in outputs {
            match output {
                Output::Persist(entries) => {
                    let me = self.node.peer();
                    self.note_authors(entries.iter().map(|entry| entry.author().peer).filter(|author| *author != me));
                    unwritten.entries.extend(entries);
                }
                other => unwritten.outputs.push(other),
            }
        }
        if unwritten.retry > Instant::now() {
            self.unwritten = Some(unwritten);
            return false;
        }
        let me = self.node.peer();
        if !self.postponed.is_due()
            && unwritten.entries.len() <= MAX_POSTPONED
            && unwritten.entries.iter().all(|entry| entry.author().peer != me)
            && unwritten.outputs.iter().all(may_precede)
        {
            self.postponed.entries = std::mem::take(&mut unwritten.entries);
            if !self.postponed.entries.is_empty() {
                self.postponed.by.get_or_insert_with(|| Instant::now() + POSTPONE);
            }
            self.unwritten = Some(unwritten);
            return true;
        }
        self.postponed.by = None;
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
                if let Some(why) = unwritten.why.take() {
                    tracing::info!("the disk takes entries again");
                    self.chronicle.is_over(&why);
                }
                unwritten.cut_off = None;
                self.unwritten = Some(unwritten);
                true
            }
            Err(error) => {
                let text = format!(
                    "{error}; nothing is published or started until it can be written, which is tried again every second"
                );
                if !self.chronicle.warnings().contains(&text) {
                    self.chronicle.warn(text.clone());
                }
                for output in &unwritten.outputs {
                    if let Output::Answer { token, answer: Ok(task) } = output
                        && let Some(place) = self.commands.remove(token)
                    {
                        let task = task.map(|task| format!("task {}: ", task.short())).unwrap_or_default();
                        place.send(Err(Refusal::Unavailable(format!(
                            "{task}{error}; this is tried again every second, so it may still come about"
                        ))));
                    }
                }
                if unwritten.why.is_none() {
                    unwritten.cut_off = Some(Instant::now() + Duration::from_millis(Timings::default().failure / 2));
                }
                unwritten.why = Some(text);
                unwritten.retry = Instant::now() + DISK_RETRY;
                self.unwritten = Some(unwritten);
                false
            }
        }
    }

    /// Why nothing new can be kept now, if so: what is asked to be written is refused while the disk refuses.
    pub(super) fn disk_refuses(&self) -> Option<Refusal> {
        let why = self.unwritten.as_ref()?.why.clone()?;
        Some(Refusal::Unavailable(format!("nothing new is taken: {why}")))
    }

    /// Writes what waits to be written.
    pub(super) fn write_what_waits(&mut self) {
        self.postponed.by = Some(Instant::now());
        // What the disk refuses is tried again by the loop, as always.
        self.write(Vec::new());
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
            Output::Start { task, fence, workload } if is_job(&workload) => self.start_job(task, fence, workload),
            Output::Start { task, fence, workload } if self.settings.max_runners == 0 => {
                self.give_to_worker(task, fence, workload);
            }
            Output::Start { task, fence, workload } => {
                if let Err(why) = self.start_work(task, fence, workload).await {
                    self.inputs.push_back(Input::Ran {
                        task,
                        fence,
                        report: Report::NotStarted { why },
                        products: Products::default(),
                    });
                }
            }
            Output::Stop { task, fence, .. } => self.stop(task, fence).await,
            Output::Discover { source, except } => self.discover(source, except),
            Output::Answer { token, answer } => {
                if let Some(place) = self.commands.remove(&token) {
                    place.send(answer.map_err(Refusal::NotNow));
                }
            }
            Output::Revoked { token, answer } => {
                if let Some(place) = self.revoking.remove(&token) {
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

    async fn stop(&mut self, task: TaskId, fence: Fence) {
        if !self.stop_job(task, fence)
            && !self.take_from_worker(task, fence)
            && self.runner.stop(task, fence).await.is_err()
        {
            let (report, products) = (Report::Stopped, Products::default());
            self.inputs.push_back(Input::Ran { task, fence, report, products });
        }
    }

    /// While the disk refuses: stops what the kernel wants stopped, since nothing that is kept comes before that.
    async fn stop_meanwhile(&mut self) {
        let held_up = self.held_up();
        let Some(unwritten) = &mut self.unwritten else { return };
        let is_due = |output: &mut Output| match output {
            Output::Stop { task, fence, .. } => !held_up.contains(&(*task, *fence)),
            _ => false,
        };
        let stops: Vec<Output> = unwritten.outputs.extract_if(.., is_due).collect();
        for output in stops {
            self.perform(output).await;
        }
    }

    /// The disk has refused for so long that the others, who hear nothing of this node meanwhile, are about to take its
    /// tasks over: stops those of sources that say `stop_when_cut_off`, where there are others. The kernel hears of it
    /// with the reports, once what follows from them can be kept.
    pub(super) async fn stop_what_is_cut_off(&mut self) {
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.cut_off = None;
        }
        if self.node.members().count() < 2 {
            return;
        }
        let (held_up, careful) = (self.held_up(), self.careful_sources());
        let is_careful = |source: &String| careful.contains(source);
        let running = self.node.running().filter(|(task, fence, workload)| {
            !held_up.contains(&(*task, *fence)) && workload.repository.sources().iter().any(is_careful)
        });
        let running: Vec<(TaskId, Fence)> = running.map(|(task, fence, _)| (task, fence)).collect();
        for (task, fence) in running {
            tracing::warn!("stopping task {}: this node can tell the others nothing", task.short());
            self.stop(task, fence).await;
        }
    }

    /// What is to start once the disk lets it: a stop of it comes after that.
    fn held_up(&self) -> BTreeSet<(TaskId, Fence)> {
        let outputs = self.unwritten.iter().flat_map(|unwritten| &unwritten.outputs);
        let starts = outputs.filter_map(|output| match output {
            Output::Start { task, fence, .. } => Some((*task, *fence)),
            _ => None,
        });
        starts.collect()
    }

    async fn publish(&mut self, topic: Topic, bytes: Vec<u8>) {
        if let Err(error) = self.net.publish(topic, bytes).await {
            tracing::debug!("publishing: {error}");
        }
    }

    async fn ask(&mut self, to: PeerId, token: Token, asked: &Request) {
        let sent = match request::seal(asked) {
            Ok(bytes) => self.net.request(to, RequestId(token.0), bytes).await.map_err(|error| error.to_string()),
            Err(error) => {
                // The kernel will ask again, in vain, so people have to know.
                if matches!(error, WireError::TooMany { .. }) {
                    self.on_too_many_chains();
                }
                Err(error.to_string())
            }
        };
        if let Err(why) = sent {
            tracing::debug!("asking {}: {why}", to.short());
            self.inputs.push_back(Input::Unanswered { from: to, token });
        }
    }

    async fn reply(&mut self, to: PeerId, token: Token, reply: Reply) {
        let Some(mut place) = self.asking.remove(&token) else { return };
        let bytes = match reply {
            Reply::Page { cids, more } => match self.serve(to, cids, more, place) {
                Ok(()) => return,
                Err((again, why)) => {
                    place = again;
                    response::seal_refused(why)
                }
            },
            Reply::Turn { mine } => response::seal_turn(&mine),
            Reply::Admitted => {
                // Whoever hears that it is let in comes at once.
                self.keep_gate().await;
                response::seal_admitted()
            }
            Reply::Beneath { hash, parts } => response::seal_beneath(&hash, parts),
            Reply::Part { bytes, parts } => response::seal_part(bytes, parts),
            Reply::Presences { own, heard } => {
                let own = own.map(|own| presence::seal(&own, &self.key, &self.mesh));
                let own = own.iter().map(|bytes| (bytes.as_slice(), 0));
                response::seal_presences(own.chain(heard.iter().map(|(signed, ago)| (&*signed.bytes, *ago))))
            }
            Reply::Refused { why } => response::seal_refused(&why),
        };
        if let Err(error) = self.net.respond(place, bytes).await {
            tracing::debug!("answering {}: {error}", to.short());
        }
    }

    /// Whether so much is read for others that no more is taken on.
    pub(super) fn is_too_busy(&mut self) -> bool {
        while self.serving.try_join_next().is_some() {}
        self.serving.len() >= SERVING
    }

    /// Reads a page and sends it, beside the loop: a megabyte takes tens of milliseconds, and who asks for many may not
    /// hold up this node.
    fn serve(
        &mut self,
        to: PeerId,
        cids: Vec<Cid>,
        more: bool,
        place: ReplyToken,
    ) -> Result<(), (ReplyToken, &'static str)> {
        if self.is_too_busy() {
            return Err((place, TOO_BUSY));
        }
        let (store, net) = (Arc::clone(&self.store), self.net.clone());
        self.serving.spawn(async move {
            let page = tokio::task::spawn_blocking(move || page(&store, &cids, more)).await;
            let bytes = match page {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => {
                    tracing::warn!("{error}");
                    response::seal_refused("this node cannot read its database now")
                }
                Err(error) => response::seal_refused(&error.to_string()),
            };
            if let Err(error) = net.respond(place, bytes).await {
                tracing::debug!("answering {}: {error}", to.short());
            }
        });
        Ok(())
    }

    fn use_up_ticket(&mut self) {
        self.membership.ticket = None;
        if let Err(error) = self.store.dir().keep_membership(&self.membership) {
            tracing::warn!("forgetting the used ticket: {error}");
        }
    }
}

/// The entries of a page as they are on disk, as many as it holds.
fn page(store: &Store, cids: &[Cid], more: bool) -> Result<Vec<u8>, StoreError> {
    let listed = cids.len().min(MAX_PAGE_ENTRIES);
    let entries = store.page(&cids[..listed], MAX_PAGE)?;
    let more = more || entries.len() < cids.len();
    Ok(response::seal_page(entries, more).bytes)
}
