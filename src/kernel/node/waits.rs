//! Why a task that nobody holds is not taken, in words for people.

use super::groups::Turn;
use super::{Node, Offer};
use crate::kernel::id::{PeerId, TaskId};
use crate::kernel::requests::serves;
use crate::kernel::scale_set;
use crate::kernel::task::{GITHUB_RUNNER, Policy, State, Workload};

impl Node {
    /// What keeps a task from being taken, as far as one can tell from here; nothing for one that is held, has ended, or
    /// will be taken at any moment.
    pub fn waits_for(&self, task: &TaskId) -> Option<String> {
        let folded = self.ledger.get(task).filter(|folded| folded.state == State::Pending)?;
        let workload = &folded.workload;
        if workload.policy() == Policy::GithubOnly {
            return None;
        }
        if let Some(paused) = &self.paused {
            return Some(format!("the mesh is paused by {}: {}", paused.by, paused.why));
        }
        if self.turn(task) == Turn::Later {
            return Some("another task of its concurrency group comes first".to_owned());
        }
        let hosts: Vec<Host<'_>> = self.hosts().filter(|host| lists(host.offer, workload)).collect();
        if hosts.is_empty() {
            return Some(format!("no live node lists its repository {} among its sources", workload.repository.name));
        }
        let able: Vec<&Host<'_>> = hosts.iter().filter(|host| Self::can_run(host.offer, workload)).collect();
        if able.is_empty() {
            return Some(lacking(&hosts, workload));
        }
        let willing: Vec<&&Host<'_>> = able.iter().filter(|host| !folded.declined.contains(&host.peer)).collect();
        if willing.is_empty() {
            return Some(format!("all nodes that could have declined it; the last says: {}", folded.note));
        }
        if willing.iter().all(|host| host.offer.slots == 0) {
            return Some("the nodes that could run no tasks now; see `runmesh doctor` there".to_owned());
        }
        if willing.iter().all(|host| host.draining || host.cordoned) {
            return Some(shut(&willing));
        }
        if self.is_careful(workload) && self.majority_until().is_none() {
            return Some(
                "this node does not hear more than half of the members, and the source says `stop`".to_owned(),
            );
        }
        let willing: Vec<_> = willing.into_iter().filter(|host| !host.draining && !host.cordoned).collect();
        let full = willing.iter().all(|host| host.free == 0);
        full.then(|| match willing.len() {
            1 => "the one node that can has no free slot".to_owned(),
            number => format!("none of the {number} nodes that can has a free slot"),
        })
    }

    fn hosts(&self) -> impl Iterator<Item = Host<'_>> {
        let me = Host {
            peer: self.me.peer(),
            offer: &self.offer,
            free: self.free_slots(),
            draining: self.custody.draining(),
            cordoned: self.custody.cordoned(),
        };
        let others = self.peers.heard().map(|peer| Host {
            peer: peer.place.peer(),
            offer: &peer.presence().offer,
            free: peer.presence().free,
            draining: peer.presence().draining,
            cordoned: peer.presence().cordoned,
        });
        std::iter::once(me).chain(others)
    }
}

/// A live node.
struct Host<'a> {
    peer: PeerId,
    offer: &'a Offer,
    free: u32,
    draining: bool,
    cordoned: bool,
}

/// That of the nodes that could run it none takes anything new, and what to do.
fn shut(hosts: &[&&Host<'_>]) -> String {
    if hosts.iter().all(|host| host.draining) {
        return "all nodes that could are draining".to_owned();
    }
    let cordoned: Vec<String> =
        hosts.iter().filter(|host| host.cordoned && !host.draining).map(|host| host.peer.to_string()).collect();
    let end = "`runmesh node uncordon` there ends that";
    match (hosts.len(), cordoned.len()) {
        (1, _) => format!("the one node that can is cordoned: {}; {end}", cordoned[0]),
        (all, shut) if all == shut => {
            format!("all {all} nodes that could are cordoned: {}; {end}", cordoned.join(", "))
        }
        _ => format!("all nodes that could are draining or cordoned: {}; {end}", cordoned.join(", ")),
    }
}

fn lists(offer: &Offer, workload: &Workload) -> bool {
    offer.sources.iter().any(|source| scale_set::reaches(source, &workload.labels, &workload.repository))
}

/// The labels that nobody offers, else that nobody offers together; and who comes nearest.
fn lacking(hosts: &[Host<'_>], workload: &Workload) -> String {
    let quoted = |labels: &[&String]| labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    let lacks = |host: &Host<'_>| -> Vec<&String> {
        workload.labels.iter().filter(|label| !serves(&host.offer.labels, label)).collect()
    };
    let starters: Vec<&Host<'_>> = hosts.iter().filter(|host| host.offer.labels.contains(GITHUB_RUNNER)).collect();
    if workload.labels.contains(GITHUB_RUNNER) && starters.is_empty() {
        return "no live node that lists its repository starts GitHub's runners: start one of them with --autoscaler"
            .to_owned();
    }
    let nobody = |label: &&String| !hosts.iter().any(|host| serves(&host.offer.labels, label));
    let missing: Vec<&String> = workload.labels.iter().filter(nobody).collect();
    let what = if missing.is_empty() {
        let all: Vec<&String> = workload.labels.iter().filter(|label| *label != GITHUB_RUNNER).collect();
        format!("no live node offers all of {} together", quoted(&all))
    } else {
        format!("no live node that lists its repository offers {}", quoted(&missing))
    };
    let among = if starters.is_empty() { hosts.iter().collect() } else { starters };
    let nearest =
        among.into_iter().map(|host| (lacks(host), host.peer)).min_by_key(|(lacks, peer)| (lacks.len(), *peer));
    match nearest {
        Some((lacks, peer)) if lacks.len() < workload.labels.len() => {
            format!("{what}; nearest comes {peer}, which lacks {}", quoted(&lacks))
        }
        _ => what,
    }
}
