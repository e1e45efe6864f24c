//! One look into a source: list, read what is new, decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::forge::decide::{Changed, Decision, Site, decide};
use crate::forge::git::{is_commit_id, read_if_tagged};
use crate::forge::{Duplicate, Findings, FirstScan, Head, Manner, policy_forbids};
use crate::kernel::io::{RepositoryMark, SourceKey};
use crate::kernel::known::{Gone, KnownWorkflow};
use crate::kernel::task::{Policy, Repository, Workload};
use crate::workflow::{self, Workflow};

use super::api::{Client, Tally};
use super::graphql::{self, Wanted};
use super::memory::{Memory, Remembered};
use super::{Cycle, File, Github, GithubError, Listed, Selection, Standing, Target, Terms, limits, rest};

/// How long after a push a list's time of it is not trusted, in seconds: it counts whole seconds, and a second push may
/// follow within one.
const UNSETTLED_S: u64 = 120;

/// A look under way.
pub(super) struct Look<'a> {
    pub(super) github: &'a Github,
    pub(super) target: &'a Target,
    pub(super) key: SourceKey,
    pub(super) memory: Memory,
    pub(super) tally: &'a Tally,
    pub(super) cycle: Cycle,
}

impl Look<'_> {
    pub(super) async fn run(&mut self, terms: Terms<'_>) -> Result<Findings, GithubError> {
        let Terms { except, progress, .. } = terms;
        let client = self.github.api.client(&self.target.owner).await?;
        let mut listed = self.list(&client).await?;
        let now = limits::now();
        listed.retain(|one| self.github.selection.admits(one, now) && !except.contains(&mark(one.id)));
        self.stand(&client, &mut listed, progress).await?;
        self.read(&client, &listed, progress).await?;
        let mut findings = Findings { seen: listed.iter().map(|one| mark(one.id)).collect(), ..Findings::default() };
        for one in &listed {
            self.decide(&client, one, terms, &mut findings).await?;
            if terms.manner.first_scan == FirstScan::Record && !terms.known.contains_key(&one.id.to_string()) {
                findings.record(&one.name);
            }
        }
        self.remember(listed, except);
        findings.workflows.sort_by(|a, b| (&a.repository, &a.path).cmp(&(&b.repository, &b.path)));
        Ok(findings)
    }

    /// The repositories: by GraphQL, which tells what they hold; else by REST.
    async fn list(&mut self, client: &Client) -> Result<Vec<Listed>, GithubError> {
        let first = match graphql::list(client, self.target, self.github.selection.forks, self.tally).await {
            Err(error) if stands_in(&error) => error,
            other => return other,
        };
        tracing::debug!("{first}; reading by REST");
        rest::list(client, self.target, &mut self.memory, self.tally).await.map_err(|second| telling(first, second))
    }

    /// Sees to it that what each repository has at its head is known.
    async fn stand(
        &mut self,
        client: &Client,
        listed: &mut [Listed],
        progress: &(dyn Fn(usize, usize) + Send + Sync),
    ) -> Result<(), GithubError> {
        let (total, now) = (listed.len(), limits::now());
        for (at, one) in listed.iter_mut().enumerate() {
            if one.state.is_some() {
                continue;
            }
            let remembered = self.memory.repositories.get(&one.id);
            let settled = seconds(&one.pushed_at).is_some_and(|pushed| pushed + UNSETTLED_S < now);
            let same = remembered.filter(|kept| settled && kept.pushed_at == one.pushed_at);
            one.state = Some(match same {
                Some(kept) => kept.standing(),
                None => {
                    let known =
                        remembered.and_then(|kept| Some((kept.head.as_ref()?.1.as_str(), kept.files.as_slice())));
                    rest::standing(client, one, known, self.tally).await?
                }
            });
            progress(at + 1, total);
        }
        Ok(())
    }

    /// Reads the files that are new: many at once by GraphQL, what it does not give whole by REST.
    async fn read(
        &mut self,
        client: &Client,
        listed: &[Listed],
        progress: &(dyn Fn(usize, usize) + Send + Sync),
    ) -> Result<(), GithubError> {
        let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
        for (one, file) in listed.iter().flat_map(|one| one.files().map(move |file| (one, file))) {
            let known = self.memory.texts.contains_key(&file.blob)
                || self.memory.parsed.contains_key(&(file.path.clone(), file.blob.clone()));
            if !known && file.size <= workflow::MAX_BYTES {
                let make = || Wanted { repository: one.name.clone(), blob: file.blob.clone(), size: file.size };
                wanted.entry(&file.blob).or_insert_with(make);
            }
        }
        let wanted: Vec<Wanted> = wanted.into_values().collect();
        let total = wanted.len();
        let told = |done: usize| progress(done, total);
        let mut texts = BTreeMap::new();
        if !wanted.is_empty() {
            match graphql::texts(client, &wanted, self.tally, &told).await {
                Ok(found) => texts = found,
                Err(error) if stands_in(&error) => tracing::debug!("{error}; reading by REST"),
                Err(error) => return Err(error),
            }
        }
        let mut done = texts.len();
        let mut bytes: BTreeMap<String, Vec<u8>> =
            texts.into_iter().map(|(id, text)| (id, text.into_bytes())).collect();
        for one in &wanted {
            if !bytes.contains_key(&one.blob) {
                let read = rest::blob(client, &one.repository, &one.blob, self.tally).await?;
                bytes.insert(one.blob.clone(), read);
                done += 1;
                told(done);
            }
        }
        for file in listed.iter().flat_map(Listed::files) {
            let Some(bytes) = bytes.get(&file.blob) else { continue };
            let workflow = read_if_tagged(&file.path, bytes.clone()).await.map(Arc::new);
            if let Ok(text) = std::str::from_utf8(bytes) {
                let text = workflow.is_some().then(|| text.to_owned());
                self.memory.texts.insert(file.blob.clone(), text);
            }
            self.memory.parsed.insert((file.path.clone(), file.blob.clone()), workflow);
        }
        Ok(())
    }

    /// The workflow in a file; nothing for one without tags.
    async fn workflow(&mut self, file: &File) -> Option<Arc<Workflow>> {
        let key = (file.path.clone(), file.blob.clone());
        if let Some(parsed) = self.memory.parsed.get(&key) {
            return parsed.clone();
        }
        let text = self.memory.texts.get(&file.blob).cloned().flatten()?;
        let workflow = read_if_tagged(&file.path, text.into_bytes()).await.map(Arc::new);
        self.memory.parsed.insert(key, workflow.clone());
        workflow
    }

    async fn decide(
        &mut self,
        client: &Client,
        one: &Listed,
        terms: Terms<'_>,
        findings: &mut Findings,
    ) -> Result<(), GithubError> {
        let Terms { known, minute, .. } = terms;
        let Some(Standing { head: Some(head), files }) = &one.state else { return Ok(()) };
        let repository =
            Repository { host: self.github.host().to_owned(), id: one.id.to_string(), name: one.name.clone() };
        let key = self.key.clone();
        let site = Site { source: &key, repository: &repository, head };
        let known = known.get(&repository.id);
        let mut tagged = BTreeSet::new();
        for file in files {
            if file.size > workflow::MAX_BYTES {
                let why = format!("it has {} bytes; at most {} are read", file.size, workflow::MAX_BYTES);
                findings.workflows.push(site.found(&file.path, None, Some(why)));
                continue;
            }
            let Some(workflow) = self.workflow(file).await else {
                findings.workflows.push(site.found(&file.path, None, policy_forbids(&BTreeSet::new())));
                continue;
            };
            if !workflow.tags.is_empty() {
                tagged.insert(file.path.as_str());
            }
            findings.warnings.extend(workflow.warnings.iter().map(|warning| site.says(&file.path, warning)));
            let of_it = known.and_then(|known| known.workflows.get(&file.path));
            let decision = match decide(site, &file.path, &file.blob, &workflow, of_it, None, minute) {
                Ok(decision) => decision,
                Err(before) => {
                    let changed = self.changed(client, one, &before, head).await?;
                    decide(site, &file.path, &file.blob, &workflow, of_it, Some(&changed), minute).unwrap_or_default()
                }
            };
            let Decision { mut workloads, mut why_not, warnings } = decision;
            findings.warnings.extend(warnings);
            if let Some(text) = also_at_github(&workflow, terms.manner) {
                findings.warnings.push(site.says(&file.path, &text));
                if terms.manner.duplicate == Duplicate::Avoid && Policy::of(&workflow.tags) == Policy::MeshFirst {
                    why_not = self.leave_to_github(client, one, of_it, &mut workloads, findings).await?.or(why_not);
                }
            }
            findings.workflows.push(site.found(&file.path, Some(&workflow), why_not));
            findings.workloads.extend(workloads);
        }
        for (path, of_it) in known.iter().flat_map(|known| &known.workflows) {
            let commits: BTreeSet<String> = of_it.pending.iter().filter(|at| **at != head.commit).cloned().collect();
            if !tagged.contains(path.as_str()) && !commits.is_empty() {
                let Repository { host, id, .. } = repository.clone();
                findings.gone.push(Gone { host, id, path: path.clone(), commits });
            }
        }
        Ok(())
    }

    /// Takes out what GitHub runs itself, of what has not been submitted yet. Says why.
    async fn leave_to_github(
        &mut self,
        client: &Client,
        one: &Listed,
        known: Option<&KnownWorkflow>,
        workloads: &mut Vec<Workload>,
        findings: &mut Findings,
    ) -> Result<Option<String>, GithubError> {
        let Some(new) = workloads.iter().find(|one| !known.is_some_and(|known| known.has(one))).cloned() else {
            return Ok(None);
        };
        let repository = (one.id, one.name.as_str());
        match self.memory.runs.of(client, repository, &new.commit, &new.path, self.tally).await {
            Ok(Some(why)) => {
                workloads.retain(|one| known.is_some_and(|known| known.has(one)));
                Ok(Some(why))
            }
            Ok(None) => Ok(None),
            Err(error @ (GithubError::Forbidden { .. } | GithubError::NotFound { .. })) => {
                findings.warnings.push(format!("whether GitHub runs it too is not known: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn changed(
        &mut self,
        client: &Client,
        one: &Listed,
        before: &str,
        head: &Head,
    ) -> Result<Changed, GithubError> {
        let key = (one.id, before.to_owned(), head.commit.clone());
        if let Some(changed) = self.memory.compared.get(&key) {
            return Ok(changed.clone());
        }
        if !is_commit_id(before) {
            return Ok(Changed::Unknown);
        }
        let changed = rest::compare(client, &one.name, before, &head.commit, self.tally).await?;
        self.memory.compared.insert(key, changed.clone());
        Ok(changed)
    }

    /// Counts what has changed since the last look, and keeps what there is now.
    fn remember(&mut self, listed: Vec<Listed>, except: &BTreeSet<RepositoryMark>) {
        // What others look into now was this node's duty once, and may be again.
        let mut now = std::mem::take(&mut self.memory.repositories);
        let before = now.clone();
        now.retain(|id, _| except.contains(&mark(*id)));
        for one in listed {
            let Some(state) = one.state else { continue };
            let before = before.get(&one.id).map(|kept| kept.files.as_slice()).unwrap_or_default();
            let blob =
                |files: &[File], path: &str| files.iter().find(|file| file.path == path).map(|file| file.blob.clone());
            for file in &state.files {
                match blob(before, &file.path) {
                    None => self.cycle.new += 1,
                    Some(known) if known != file.blob => self.cycle.changed += 1,
                    Some(_) => {}
                }
            }
            let gone = before.iter().filter(|file| blob(&state.files, &file.path).is_none()).count();
            self.cycle.gone += gone as u64;
            self.cycle.repositories += 1;
            let head = state.head.map(|head| (head.r#ref, head.commit));
            now.insert(one.id, Remembered { pushed_at: one.pushed_at, head, files: state.files });
        }
        let lost = before.iter().filter(|(id, _)| !now.contains_key(*id));
        self.cycle.gone += lost.map(|(_, kept)| kept.files.len() as u64).sum::<u64>();
        self.memory.repositories = now;
        self.memory.runs.prune();
        self.memory.prune();
    }
}

impl Listed {
    fn files(&self) -> impl Iterator<Item = &File> {
        self.state.iter().flat_map(|state| &state.files)
    }
}

impl Remembered {
    fn standing(&self) -> Standing {
        let head = self.head.clone().map(|(r#ref, commit)| Head { r#ref, commit });
        Standing { head, files: self.files.clone() }
    }
}

/// Whether the other way may lead on: not where the token is refused altogether, or the source is not there.
const fn stands_in(error: &GithubError) -> bool {
    !matches!(error, GithubError::Unauthorized { .. })
}

/// Of two failures the one that says more to a person.
fn telling(first: GithubError, second: GithubError) -> GithubError {
    match (&first, &second) {
        (GithubError::Limited { until: a, .. }, GithubError::Limited { until: b, .. }) if a < b => first,
        (GithubError::Limited { .. }, GithubError::Unreachable { .. } | GithubError::Server { .. }) => first,
        _ => second,
    }
}

/// What to change in a workflow that GitHub would start besides.
fn also_at_github(workflow: &Workflow, manner: Manner) -> Option<String> {
    let mut events = Vec::new();
    events.extend(workflow.triggers.push.is_some().then_some("push"));
    events.extend((!workflow.triggers.schedule.is_empty()).then_some("schedule"));
    events.extend(workflow.triggers.others.iter().map(String::as_str));
    let policy = Policy::of(&workflow.tags);
    (!events.is_empty() && policy != Policy::GithubOnly).then(|| {
        let both = match (policy, manner.duplicate) {
            (Policy::MeshFirst, Duplicate::Avoid) => {
                "; what GitHub runs the mesh leaves alone, unless the source says `duplicate = \"allow\"`"
            }
            _ => "",
        };
        format!(
            "GitHub starts it too, on `{}`: leave only `workflow_dispatch:` in its `on:`, or disable it there, if only the mesh \
             shall run it{both}",
            events.join("`, `")
        )
    })
}

fn mark(id: u64) -> RepositoryMark {
    RepositoryMark::of(&id.to_string())
}

impl Selection {
    pub(super) fn admits(&self, one: &Listed, now: u64) -> bool {
        let matches = |patterns: &[String]| {
            patterns.iter().any(|pattern| {
                let name =
                    if pattern.contains('/') { &one.name } else { one.name.rsplit('/').next().unwrap_or_default() };
                wild(&pattern.to_lowercase(), &name.to_lowercase())
            })
        };
        let recent = |days: u32| {
            let oldest = now.saturating_sub(u64::from(days) * 86_400);
            seconds(&one.pushed_at).is_none_or(|pushed| pushed >= oldest)
        };
        !one.archived
            && !one.disabled
            && (self.forks || !one.fork)
            && (self.include.is_empty() || matches(&self.include))
            && !matches(&self.exclude)
            && self.since_days.is_none_or(recent)
    }
}

/// Whether a text matches a pattern with `*` and `?`. Linear: after a failure only the last `*` is tried again.
fn wild(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Seconds since 1970 of a time as GitHub writes it, `2024-01-31T12:00:00Z`.
pub(super) fn seconds(time: &str) -> Option<u64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant's days_from_civil.
    let y = if month <= 2 { year - 1 } else { year };
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = (y / 400) * 146_097 + (y % 400) * 365 + (y % 400) / 4 - (y % 400) / 100 + doy - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed {
            id: 1,
            name: name.to_owned(),
            archived: false,
            disabled: false,
            fork: false,
            pushed_at: "2024-02-29T12:30:15Z".to_owned(),
            branch: "main".to_owned(),
            state: None,
        }
    }

    #[test]
    fn what_is_selected() {
        let one = listed("Octo/Web-App");
        let now = seconds("2024-03-10T00:00:00Z").expect("a time");
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let select = |include: &[&str], exclude: &[&str], since_days| {
            let selection =
                Selection { include: texts(include), exclude: texts(exclude), since_days, ..Selection::default() };
            selection.admits(&one, now)
        };
        assert!(select(&[], &[], None));
        assert!(select(&["web-*"], &[], None) && select(&["octo/*"], &[], None) && select(&["x", "*app"], &[], None));
        assert!(!select(&["web"], &[], None) && !select(&["other/*"], &[], None));
        assert!(!select(&[], &["web-???"], None) && select(&[], &["web-??"], None));
        assert!(select(&[], &[], Some(10)) && !select(&[], &[], Some(9)));
        let archived = Listed { archived: true, ..one.clone() };
        let disabled = Listed { disabled: true, ..one.clone() };
        let fork = Listed { fork: true, ..one.clone() };
        assert!(![archived, disabled, fork].iter().any(|one| Selection::default().admits(one, now)));
        assert!(Selection { forks: true, ..Selection::default() }.admits(&Listed { fork: true, ..one.clone() }, now));
    }

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:30:15Z"), Some(1_709_209_815));
        assert_eq!(seconds("2024-12-31T23:59:59Z"), Some(1_735_689_599));
        for none in ["", "2024", "2024-13-01T00:00:00Z", "yesterday, perhaps.."] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }

    #[test]
    fn patterns_match_in_linear_time() {
        assert!(wild("*", "") && wild("a*b*c", "axxbyyc") && wild("a?c", "abc") && wild("**", "x"));
        assert!(!wild("a?c", "ac") && !wild("", "a") && !wild("a*b", "ac"));
        assert!(!wild(&"*a".repeat(500), &"a".repeat(499)));
    }
}
