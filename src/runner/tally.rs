//! What became of a run, from what its jobs reported. Exit 0 of act is not success.

use std::collections::BTreeMap;

use super::act::{JobLine, Leg};
use super::plan::{Plan, PlannedJob, is_expression};
use crate::kernel::entry::MAX_NOTE;
use crate::kernel::task::{Conclusion, Workload};

/// The most jobs that are kept account of: GitHub allows 256 legs a matrix. What comes beyond makes the run a failure.
const MAX_LEGS: usize = 10_000;
/// The most bytes of act's own words that are kept.
const MAX_WORDS: usize = 4 * 1024;

/// Counts what act says.
pub(crate) struct Tally {
    /// The workflow as act names it in labels: its `name:`, else its file's name.
    workflow: String,
    /// Whether the file calls other workflows; without that, every job heard of is its own.
    calls: bool,
    legs: BTreeMap<Leg, Account>,
    overflow: bool,
    /// Everything from act's first `Error:` on.
    error: String,
    /// The last serious message of act that is not of a job.
    severe: String,
    spoke: bool,
}

#[derive(Default)]
struct Account {
    result: Option<String>,
    failed_step: Option<String>,
    severe: String,
    /// Why act did not run it.
    unmapped: Option<String>,
}

/// What a line changed, for those who watch the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Began(Leg),
    Ended(Leg),
}

impl Tally {
    pub(crate) fn new(workload: &Workload, plan: &Plan) -> Self {
        let file = workload.path.rsplit('/').next().unwrap_or_default();
        let workflow = if workload.name == workload.path { file } else { &workload.name };
        Self {
            workflow: workflow.to_owned(),
            calls: plan.jobs.iter().any(|job| job.uses.is_some()),
            legs: BTreeMap::new(),
            overflow: false,
            error: String::new(),
            severe: String::new(),
            spoke: false,
        }
    }

    /// A line of a job.
    pub(crate) fn job(&mut self, line: &JobLine) -> Option<Change> {
        self.spoke = true;
        // Debug lines come for jobs that are only looked at.
        if line.debug && line.job_result.is_none() {
            return None;
        }
        let began = !self.legs.contains_key(&line.leg);
        if began && self.legs.len() >= MAX_LEGS {
            self.overflow = true;
            return None;
        }
        let account = self.legs.entry(line.leg.clone()).or_default();
        if line.step_result.as_deref() == Some("failure") {
            account.failed_step.clone_from(&line.step);
        }
        if line.severe {
            account.severe = clip(&line.text, MAX_NOTE);
        }
        if line.step.is_none() && line.text.contains("Skipping unsupported platform") {
            account.unmapped = Some(clip(&line.text, MAX_NOTE));
        }
        match &line.job_result {
            Some(result) => {
                account.result = Some(clip(result, 32));
                Some(Change::Ended(line.leg.clone()))
            }
            None => began.then(|| Change::Began(line.leg.clone())),
        }
    }

    /// A message of act that is not of a job.
    pub(crate) fn own(&mut self, text: &str, severe: bool) {
        self.spoke = true;
        if severe {
            self.severe = clip(text, MAX_NOTE);
        }
    }

    /// A line of plain text on act's standard error.
    pub(crate) fn plain(&mut self, text: &str) {
        if self.error.is_empty() && !text.starts_with("Error:") {
            return;
        }
        self.spoke = true;
        if self.error.len() < MAX_WORDS {
            let separator = if self.error.is_empty() { "" } else { " " };
            self.error.push_str(separator);
            self.error.push_str(&clip(text.trim(), MAX_NOTE));
        }
    }

    /// Whether act got as far as to say anything, which it does before it looks at the workflow.
    pub(crate) const fn spoke(&self) -> bool {
        self.spoke
    }

    /// Whether the leg is a job of the workflow file itself, not of one that it calls.
    pub(crate) fn is_own(&self, leg: &Leg) -> bool {
        !self.calls || leg.label.strip_prefix(&self.workflow).is_some_and(|rest| rest.starts_with('/'))
    }

    /// How the run ended, and what a person needs to know of it, at most [`MAX_NOTE`] bytes. `exit` is act's exit status.
    pub(crate) fn conclude(&self, plan: &Plan, exit: u8) -> (Conclusion, String) {
        let failure = |note: String| (Conclusion::Failure, clip(&note, MAX_NOTE));
        let failed: Vec<String> = self.legs.iter().filter_map(|(leg, account)| account.failure(leg)).collect();
        if !failed.is_empty() {
            return failure(failed.join("; "));
        }
        if exit != 0 {
            return failure(self.words(exit));
        }
        if self.overflow {
            return failure(format!("more than {MAX_LEGS} jobs reported, the rest was not counted"));
        }
        let silent = self.legs.iter().find(|(_, account)| account.result.is_none());
        if let Some((leg, account)) = silent {
            let why = account.unmapped.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            return failure(format!("job `{}` reported no result{why}", leg.short()));
        }
        if let Some(note) = plan.jobs.iter().find_map(|job| self.lacking(job)) {
            return failure(note);
        }
        if self.legs.is_empty() {
            return failure("no job reported a result".to_owned());
        }
        if self.legs.values().all(Account::skipped) {
            return (Conclusion::Skipped, "no job's condition was true".to_owned());
        }
        (Conclusion::Success, String::new())
    }

    /// What of this job did not report.
    fn lacking(&self, job: &PlannedJob) -> Option<String> {
        let reported: Vec<&Account> =
            self.legs.iter().filter(|(leg, _)| self.is_of(leg, job)).map(|(_, account)| account).collect();
        if reported.is_empty() {
            return Some(format!("job `{}` reported no result", job.id));
        }
        // A skipped job may be reported once for all its legs; a called workflow has jobs of its own number.
        if job.uses.is_some() || reported.iter().all(|account| account.skipped()) {
            return None;
        }
        let legs = job.legs.map_or(0, |legs| usize::try_from(legs).unwrap_or(usize::MAX));
        let (id, found) = (&job.id, reported.len());
        (found < legs).then(|| format!("job `{id}` reported {found} results where its matrix makes {legs}"))
    }

    fn is_of(&self, leg: &Leg, job: &PlannedJob) -> bool {
        let own = self.is_own(leg) && leg.id == job.id;
        let called = || {
            let known = job.name.split("${{").next().unwrap_or_default();
            let rest = leg.label.strip_prefix(known);
            if is_expression(&job.name) {
                return rest.is_some() && !self.is_own(leg);
            }
            // act adds -1, -2 … to the name where a matrix has several legs.
            rest.is_some_and(|rest| rest.starts_with(['/', '-']))
        };
        own || (job.uses.is_some() && called())
    }

    /// act's own message about why it failed.
    fn words(&self, exit: u8) -> String {
        let said = [&self.error, &self.severe].into_iter().find(|text| !text.is_empty());
        match said {
            Some(text) => text.strip_prefix("Error:").unwrap_or(text).trim().to_owned(),
            None if exit > 128 => format!("act was ended by signal {}, perhaps for lack of memory", exit - 128),
            None => format!("act ended with status {exit} and did not say why"),
        }
    }
}

impl Account {
    fn skipped(&self) -> bool {
        self.result.as_deref() == Some("skipped")
    }

    fn failure(&self, leg: &Leg) -> Option<String> {
        let result = self.result.as_deref().filter(|result| !matches!(*result, "success" | "skipped"))?;
        let ended = if result == "failure" { "failed" } else { result };
        let step = self.failed_step.as_deref().map(|step| format!(" in step `{step}`")).unwrap_or_default();
        let why = if self.severe.is_empty() { String::new() } else { format!(": {}", self.severe) };
        Some(format!("job `{}` {ended}{step}{why}", leg.short()))
    }
}

/// The beginning of the text in at most `limit` bytes.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub('…'.len_utf8());
    let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
