//! Answering the control API from the kernel's views.

use std::collections::{BTreeMap, BTreeSet};

use super::chronicle::wall_ms;
use super::cordon::Cordon;
use super::{Asker, Daemon, Leaving};
use crate::control::{Query, Refusal, TaskName, counts_by_state, products, proto, task};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::io::{Input, Presence};
use crate::kernel::ledger::Folded;
use crate::kernel::node::Standing;
use crate::kernel::queue::Key;
use crate::kernel::rules::RULES;
use crate::kernel::task::State;
use crate::net::{PeerInfo, door_of};

impl Daemon {
    pub(super) async fn on_query(&mut self, query: Query) {
        match query {
            Query::Status { answer } => answer.send(Ok(self.status().await)),
            Query::Peers { answer } => answer.send(Ok(self.peers().await)),
            Query::Tasks { filter, answer } => {
                let mut tasks: Vec<(&TaskId, &Folded)> =
                    self.node.tasks().filter(|(id, folded)| filter.admits(id, self.node.word(id, folded))).collect();
                tasks.sort_by_key(|(id, folded)| (folded.introduced, **id));
                answer.send(Ok(tasks.into_iter().map(|(id, folded)| self.task(id, folded)).collect()));
            }
            Query::Queue { answer } => answer.send(Ok(self.queue())),
            Query::Clock { last, answer } => {
                self.write_what_waits();
                answer.send(self.clock(last));
            }
            Query::Runners { answer } => answer.send(Ok(self.runners().await)),
            Query::Sources { answer } => answer.send(Ok(self.source_list())),
            Query::Members { answer } => answer.send(Ok(self.members())),
            Query::Events { last, answer } => answer.send(Ok(self.chronicle.feed(last))),
            Query::Submit { submit, answer } => match self.disk_refuses() {
                None => self.submit(*submit, answer),
                Some(refusal) => answer.send(Err(refusal)),
            },
            Query::Discover { sources, answer } => self.discover_now(&sources, answer),
            Query::Cancel { task, why, answer } => match self.disk_refuses().map_or_else(|| self.find(&task), Err) {
                Ok(task) => {
                    let token = self.token();
                    self.commands.insert(token, Asker::Task(answer));
                    self.feed(Input::Cancel { token, task, why });
                }
                Err(refusal) => answer.send(Err(refusal)),
            },
            Query::Pause { why, answer } => match self.disk_refuses() {
                Some(refusal) => answer.send(Err(refusal)),
                None => {
                    let token = self.token();
                    self.commands.insert(token, Asker::Plain(answer));
                    self.feed(match why {
                        Some(why) => Input::Pause { token, why },
                        None => Input::Resume { token },
                    });
                }
            },
            Query::Next { next, answer } => match self.disk_refuses() {
                None => self.on_next(next, answer),
                Some(refusal) => answer.send(Err(refusal)),
            },
            Query::Keep { task, claim, answer } => self.on_keep(&task, claim, answer),
            Query::Complete { complete, answer } => match self.disk_refuses() {
                None => self.on_complete(*complete, answer),
                Some(refusal) => answer.send(Err(refusal)),
            },
            Query::Log { task, attempt, follow, answer } => self.on_log(&task, attempt, follow, answer),
            Query::Artifact { task, name, answer } => answer.send(self.artifact(&task, &name)),
            Query::Invite { answer } => {
                let addresses = self.doors().await;
                answer.send(Ok(proto::Invite { mesh_id: self.mesh.to_string(), addresses }))
            }
            Query::Cut { peer, answer } => answer.send(self.cut_of(peer)),
            Query::Revoke { text, answer } => self.revoke(&text, answer),
            Query::Cordon { why, answer } => match self.disk_refuses() {
                Some(refusal) => answer.send(Err(refusal)),
                None => answer.send(self.on_cordon(why)),
            },
            Query::Drain { limit, answer } => answer.send(Ok(self.on_drain(limit))),
            Query::Shutdown { drain, answer } => {
                match (self.leaving, drain) {
                    (Leaving::No, true) => drop(self.finish(None)),
                    (Leaving::No, false) => self.hand_over(),
                    _ => {}
                }
                answer.send(Ok(()));
            }
        }
    }

    /// Where somebody who is to join gets into the mesh.
    async fn doors(&self) -> Vec<String> {
        let mut doors: Vec<String> = Vec::new();
        for address in self.net.addresses().await.unwrap_or_default() {
            let door = door_of(&address).to_string();
            if !doors.contains(&door) {
                doors.push(door);
            }
        }
        doors
    }

    async fn addresses(&self) -> Vec<String> {
        self.net.addresses().await.unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    async fn status(&self) -> proto::Status {
        let status = self.node.status();
        let mut warnings = self.chronicle.warnings();
        warnings.extend(self.impediments());
        warnings.extend(self.many_chains());
        let standing = self.standing();
        match standing {
            "joining" => warnings
                .push("this node is not a member yet: it waits for a member that admits it by its ticket".to_owned()),
            "revoked" => warnings.push(
                "who is revoked stays out for good: to take part again, run `runmesh mesh join TICKET` with a new \
                 --data-dir"
                    .to_owned(),
            ),
            _ => {}
        }
        if let Some(rules) = status.behind_rules {
            warnings.push(format!(
                "all members know the rules of folding up to number {rules}, this version only up to {RULES}, so it may \
                 show tasks otherwise than the others do, and claims nothing: start the newer version of runmesh that \
                 ran here before, or one like the others'"
            ));
        }
        warnings.extend(status.alarm.clone().filter(|alarm| !warnings.contains(alarm)));
        let checkpoint = checkpoint(&status);
        let running = u32::try_from(self.node.running().count()).unwrap_or(u32::MAX);
        proto::Status {
            peer_id: self.node.peer().to_string(),
            mesh_id: self.mesh.to_string(),
            listen: self.addresses().await,
            peers: u32::try_from(self.node.presences().filter(|(_, _, heard)| *heard).count()).unwrap_or(u32::MAX),
            heads: status.heads.iter().map(ToString::to_string).collect(),
            entries: status.entries as u64,
            state_hash: status.state_hash.to_string(),
            tasks: counts_by_state(self.node.tasks().map(|(id, folded)| self.node.word(id, folded))),
            runners: Some(proto::RunnerCounts { max: status.offer.slots, running, free: status.free }),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: status.offer.labels.into_iter().collect(),
            draining: status.standing == Standing::Draining,
            paused: self.node.paused().map(|paused| proto::Paused {
                by: paused.by.to_string(),
                since_ms: paused.since.ms,
                why: paused.why.clone(),
            }),
            cordoned: self.cordon.as_ref().map(Cordon::shown),
            data_dir: self.settings.data_dir.display().to_string(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            members: u32::try_from(self.node.members().count()).unwrap_or(u32::MAX),
            quarantined: status.waiting_entries as u64,
            warnings,
            checkpoint,
            standing: standing.to_owned(),
        }
    }

    async fn peers(&self) -> Vec<proto::Peer> {
        let connected: BTreeMap<PeerId, PeerInfo> =
            self.net.peers().await.unwrap_or_default().into_iter().map(|info| (info.peer, info)).collect();
        let heard: BTreeMap<PeerId, (&Presence, u64)> =
            self.node.presences().map(|(presence, last, _)| (presence.peer, (presence, last))).collect();
        let now = self.now().mono;
        let others = self.node.members().map(|member| member.peer).filter(|peer| *peer != self.node.peer());
        let suspects = self.suspects.all().filter(|peer| *peer != self.node.peer());
        let others: BTreeSet<PeerId> = others.chain(connected.keys().copied()).chain(suspects).collect();
        others
            .into_iter()
            .map(|peer| {
                let (info, heard) = (connected.get(&peer), heard.get(&peer));
                let presence = heard.map(|(presence, _)| *presence);
                proto::Peer {
                    peer_id: peer.to_string(),
                    connected: info.is_some(),
                    addresses: info
                        .map(|info| info.addresses.iter().map(ToString::to_string).collect())
                        .unwrap_or_default(),
                    heard_ago_ms: heard.map(|(_, last)| now.saturating_sub(*last)),
                    round_trip_ms: info
                        .and_then(|info| info.rtt)
                        .map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
                    version: presence.map(|presence| presence.version.clone()).unwrap_or_default(),
                    labels: presence.map(|p| p.offer.labels.iter().cloned().collect()).unwrap_or_default(),
                    sources: presence.map(|p| p.offer.sources.iter().cloned().collect()).unwrap_or_default(),
                    slots: presence.map_or(0, |presence| presence.offer.slots),
                    free: presence.map_or(0, |presence| presence.free),
                    draining: presence.is_some_and(|presence| presence.draining),
                    cordoned: presence.is_some_and(|presence| presence.cordoned),
                    running: presence.map(|p| p.running.keys().map(ToString::to_string).collect()).unwrap_or_default(),
                    heads: presence.map(|p| p.heads.iter().map(ToString::to_string).collect()).unwrap_or_default(),
                    faults: self.suspects.faults(&peer),
                }
            })
            .collect()
    }

    pub(super) fn task(&self, id: &TaskId, folded: &Folded) -> proto::Task {
        let ranking = self.node.ranking(id).into_iter().map(|(peer, distance)| proto::Rank {
            peer_id: peer.to_string(),
            distance,
            last: folded.last.contains(&peer),
        });
        let open = folded.state.is_open();
        let (log, artifacts) = products(&folded.products);
        proto::Task {
            state: self.node.word(id, folded).to_owned(),
            attempt: task(&folded.workload, &folded.state).attempt.max(folded.attempt),
            anchor: folded.anchor.to_string(),
            ranking: if open { ranking.collect() } else { Vec::new() },
            note: folded.note.clone(),
            waits_for: self.node.waits_for(id).unwrap_or_default(),
            log,
            artifacts,
            ..task(&folded.workload, &folded.state)
        }
    }

    fn queue(&self) -> Vec<proto::Queued> {
        let wall = wall_ms();
        let queued = self.node.queue().enumerate().filter_map(|(at, id)| {
            let folded = self.node.task(&id)?;
            let key = Key::of(folded.workload.priority, folded.introduced, id);
            Some(proto::Queued {
                position: u32::try_from(at + 1).unwrap_or(u32::MAX),
                urgency: key.aged(wall).number().into(),
                waited_for_ms: wall.saturating_sub(folded.introduced.ms),
                task: Some(self.task(&id, folded)),
            })
        });
        // What no live host would run is not in any queue, and yet it waits.
        let here: BTreeSet<TaskId> = self.node.queue().collect();
        let stuck = self.node.tasks().filter(|(id, folded)| folded.state == State::Pending && !here.contains(id));
        let stuck = stuck.filter_map(|(id, folded)| {
            self.node.waits_for(id)?;
            let key = Key::of(folded.workload.priority, folded.introduced, *id);
            Some(proto::Queued {
                position: 0,
                urgency: key.aged(wall).number().into(),
                waited_for_ms: wall.saturating_sub(folded.introduced.ms),
                task: Some(self.task(id, folded)),
            })
        });
        queued.chain(stuck).collect()
    }

    fn clock(&self, last: usize) -> Result<proto::Clock, Refusal> {
        let status = self.node.status();
        let cids = self.node.latest(last);
        let bytes = self.store.page(&cids, usize::MAX).map_err(|error| Refusal::Failed(error.to_string()))?;
        let opened = bytes.iter().filter_map(|bytes| crate::wire::entry::open(bytes, &self.mesh).ok());
        let latest = opened.map(|entry| proto::ClockEntry {
            id: entry.cid().to_string(),
            peer_id: entry.author().peer.to_string(),
            incarnation: format!("{:016x}", entry.author().incarnation.0),
            sequence: entry.sequence(),
            parents: entry.body().parents.iter().map(ToString::to_string).collect(),
            time_ms: entry.body().time.ms,
            events: entry.body().events.iter().map(|event| event.kind().to_owned()).collect(),
            bytes: u32::try_from(entry.bytes().len()).unwrap_or(u32::MAX),
        });
        let vector = self.node.vector().into_iter().map(|(author, sequence)| proto::Chain {
            peer_id: author.peer.to_string(),
            incarnation: format!("{:016x}", author.incarnation.0),
            sequence,
        });
        Ok(proto::Clock {
            node_id: self.node.peer().to_string(),
            merkle_root: crate::kernel::merkle::vector_root(&self.node.vector()).to_string(),
            heads: status.heads.iter().map(ToString::to_string).collect(),
            entries: status.entries as u64,
            state_hash: status.state_hash.to_string(),
            vector: vector.collect(),
            quarantined: status.waiting_entries as u64,
            latest: latest.collect(),
            root: checkpoint(&status),
        })
    }

    async fn runners(&self) -> Vec<proto::Runner> {
        let now = wall_ms();
        let running = self.runner.running().await.unwrap_or_default();
        let runners = running.into_iter().map(|running| {
            let mut runner = proto::Runner {
                task: running.task.to_string(),
                repository: running.repository,
                path: running.path,
                attempt: running.fence.attempt,
                executor: running.executor,
                isolation: running.isolation.to_string(),
                pid: None,
                state: running.phase.word().to_owned(),
                started_ms: now.saturating_sub(u64::try_from(running.elapsed.as_millis()).unwrap_or(u64::MAX)),
                log: self.log_path(&running.task, running.fence.attempt).display().to_string(),
                note: running.left.join("; "),
            };
            self.name_its_work((running.task, running.fence), &mut runner);
            runner
        });
        runners.chain(self.workers_list()).collect()
    }

    pub(super) fn find(&self, name: &TaskName) -> Result<TaskId, Refusal> {
        let ids: Vec<TaskId> = self.node.tasks().map(|(id, _)| *id).collect();
        name.find(&ids)
    }
}

/// What was dropped last.
fn checkpoint(status: &crate::kernel::node::Status) -> Option<proto::Checkpoint> {
    let (hash, time_ms) = status.checkpoint?;
    Some(proto::Checkpoint { id: status.cut?.to_string(), hash: hash.to_string(), time_ms })
}
