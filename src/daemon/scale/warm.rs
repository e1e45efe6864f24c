//! Keeping runners that wait for jobs before there are any: who wants one started within a second wants it there already.
//!
//! Owns what the operator says of them and when it is looked whether they are as many as they should be. Leaves to the
//! kernel's allocation how many slots they may have, and to the pool which of them come and go.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::Instant;

use crate::control::proto;
use crate::daemon::Daemon;
use crate::forge::github::Scope;
use crate::kernel::allocation::Warm;
use crate::kernel::id::TaskId;
use crate::kernel::node::Standing;
use crate::kernel::task::Fence;

/// Between two looks whether as many wait as should.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// The most runners that one setting may ask for. Own choice; `max_runners` bounds them besides.
const MOST: u32 = 1_000;
/// GitHub's own limit of labels of a runner.
const MOST_LABELS: usize = 100;

/// So many runners with these labels are to wait for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmSet {
    /// What they are registered with: an organisation, in the runner group of the settings if one is set there, or a
    /// repository.
    pub scope: Scope,
    pub runners: u32,
    /// Lower case; empty where they are to have those that this host offers.
    pub labels: BTreeSet<String>,
}

/// `ORG:RUNNERS`, `OWNER/REPO:RUNNERS`, and with labels `OWNER/REPO:RUNNERS:LABEL+LABEL`.
impl FromStr for WarmSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (scope, number) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 100
                && name.chars().all(|one| one.is_ascii_alphanumeric() || "-_.".contains(one))
        };
        let scope = match scope.split_once('/') {
            None if is_name(scope) => Scope::Organization(scope.to_owned()),
            Some((owner, name)) if is_name(owner) && is_name(name) => Scope::Repository(scope.to_owned()),
            _ => return Err("names neither an organisation nor a repository: say ORG:2 or OWNER/REPO:2".to_owned()),
        };
        let runners = number.parse().ok().filter(|number| (1..=MOST).contains(number));
        let runners = runners.ok_or_else(|| format!("says no number of runners from 1 to {MOST}, as ORG:2 does"))?;
        let labels = parts.next().map(|labels| labels.split('+').map(|label| label.trim().to_lowercase()));
        let labels: BTreeSet<String> = labels.into_iter().flatten().collect();
        if labels.len() > MOST_LABELS || labels.iter().any(|label| label.is_empty() || label.len() > 256) {
            return Err("has labels that are none: say OWNER/REPO:2:self-hosted+linux".to_owned());
        }
        Ok(Self { scope, runners, labels })
    }
}

impl Daemon {
    /// What the operator wants to wait, with the labels that this host offers where none are said.
    fn warm_sets(&self) -> Vec<WarmSet> {
        let sets = self.scale.settings.iter().flat_map(|settings| &settings.warm);
        let whole = |set: &WarmSet| match set.labels.is_empty() {
            true => WarmSet { labels: self.settings.labels.clone(), ..set.clone() },
            false => set.clone(),
        };
        sets.map(whole).collect()
    }

    /// Says of a runner that was started to wait which task it has by now: none that anybody knows as long as it waits.
    pub(in crate::daemon) fn name_its_work(&self, order: (TaskId, Fence), runner: &mut proto::Runner) {
        match self.scale.pool.work_of(order) {
            None => {}
            Some(None) => (runner.task, runner.attempt) = (String::new(), 0),
            Some(Some((task, fence))) => {
                (runner.task, runner.attempt) = (task.to_string(), fence.attempt);
                if let Some(folded) = self.node.task(&task) {
                    let workload = &folded.workload;
                    (runner.repository, runner.path) = (workload.repository.name.clone(), workload.path.clone());
                }
            }
        }
    }

    /// Starts runners that are to wait, and has those go whose slots are needed, when it is time to look at that.
    pub(super) fn tend_warm(&mut self) {
        if self.scale.next_tend.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.scale.next_tend = Some(Instant::now() + LOOK);
        let may = !self.starts_nothing_new() && self.node.standing() == Standing::Active && self.starts_runners();
        // At first it is not known yet how GitHub is reached.
        let sets = if may && self.sources.github().is_some() { self.warm_sets() } else { Vec::new() };
        let now = self.now().mono;
        let warm = Warm { wanted: sets.iter().map(|set| set.runners).sum(), idle: self.scale.pool.spare() };
        let warming = self.node.warming(warm);
        let age = self.scale.settings.as_ref().map_or(Duration::ZERO, |settings| settings.warm_age);
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let mut deeds = self.scale.pool.tend(now, &sets, warming, age);
        deeds.extend(self.scale.pool.thin_out(now, self.starts_nothing_new()));
        self.carry_out_deeds(deeds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_wait_is_said_in_a_word() {
        let set: WarmSet = "octo/one:2:self-hosted+Linux".parse().expect("a repository's");
        assert_eq!((set.scope, set.runners), (Scope::Repository("octo/one".to_owned()), 2));
        assert_eq!(set.labels, BTreeSet::from(["linux".to_owned(), "self-hosted".to_owned()]));
        let set: WarmSet = "octo:1".parse().expect("an organisation's");
        assert_eq!((set.scope, set.labels.len()), (Scope::Organization("octo".to_owned()), 0));
        for wrong in
            ["", "octo", "octo:0", "octo:1001", "octo:-1", "a/b/c:1", "octo/:1", "octo:1:", "octo:1:a++b", "o c:1"]
        {
            assert!(wrong.parse::<WarmSet>().is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
        assert!(format!("octo:1:{}", many.join("+")).parse::<WarmSet>().is_err());
    }
}
