//! From one listener to the next: what the former knew of jobs, and the session that it may leave behind.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::News;
use super::table::job_number;
use crate::daemon::Daemon;
use crate::kernel::io::SourceKey;
use crate::wire::scale_set::{JobTold, SetAsk, SetQuestion, SetTold};

/// Before members are told again who listens in which session.
const TELL_AGAIN: Duration = Duration::from_secs(30);
impl Daemon {
    /// Asks those that may have listened before what they know of the jobs whose tasks are open.
    pub(super) fn ask_for_tables(&mut self, key: &SourceKey) {
        let jobs: BTreeSet<u64> =
            self.open_tasks_of(key).iter().map(|(_, folded)| job_number(&folded.workload)).collect();
        if jobs.is_empty() {
            return;
        }
        let what = SetQuestion::Jobs { jobs, prefix: String::new(), ended: Vec::new() };
        let ask = SetAsk { set: key.clone(), what };
        let heard = self.node.presences().filter(|(presence, _, heard)| *heard && presence.offer.sources.contains(key));
        for peer in heard.map(|(presence, ..)| presence.peer).filter(|peer| *peer != self.node.peer()) {
            let (asker, find, key, ask) = (self.scale.asker.clone(), self.find.clone(), key.clone(), ask.clone());
            self.scale.helpers.spawn(async move {
                if let Ok(SetTold::Jobs(told)) = asker.ask(peer, &ask).await {
                    let _ = find.send(News::Table { key, told }.into()).await;
                }
            });
        }
    }

    /// Tells the others the name of the session, so that whoever follows need not wait for its end: each at once, and again
    /// now and then, in case it was not heard.
    pub(super) fn tell_of_session(&mut self, key: &SourceKey) {
        let (members, now) = (self.reachers(key), Instant::now());
        let Some(set) = self.scale.sets.all.get_mut(key) else { return };
        let Some((number, session)) = set.session.clone() else { return };
        if set.told_to.0.elapsed() > TELL_AGAIN {
            set.told_to = (now, BTreeSet::new());
        }
        let what = SetQuestion::Listens { set: number, session };
        let ask = SetAsk { set: key.clone(), what };
        for peer in members.into_iter().filter(|peer| set.told_to.1.insert(*peer)) {
            let (asker, ask) = (self.scale.asker.clone(), ask.clone());
            // It ends within the time for an answer; nothing hangs on it.
            self.scale.helpers.spawn(async move {
                let _ = asker.ask(peer, &ask).await;
            });
        }
    }

    /// What a former listener knows.
    pub(super) fn on_table(&mut self, key: &str, told: Vec<JobTold>) {
        if let Some(set) = self.scale.sets.all.get_mut(key) {
            told.into_iter().for_each(|told| set.table.take_over(told));
            self.scale.sets.soon();
        }
    }
}
