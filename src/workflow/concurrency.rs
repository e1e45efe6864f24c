//! `concurrency:`: which runs must not be under way at once.
//!
//! Owns reading it in both its forms, of the workflow and of its jobs, and what its expressions come to for one
//! occasion. act knows nothing of it, and a task is a whole workflow; so a job's own group is heeded where the workflow
//! has that one job and no group of its own, and reported elsewhere.

use std::collections::BTreeMap;

use crate::kernel::task::{Concurrency, RunEvent};

use super::Workflow;
use super::expression::{Value, fill_in, is_true};
use super::tags::legible;
use super::trigger::InputKind;
use super::yaml::Node;

/// The most bytes of a group's name: a branch and a workflow's name fit.
pub const MAX_GROUP: usize = 1_024;

/// A `concurrency:` as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub group: String,
    /// `true`, `false`, or an expression.
    pub cancel_in_progress: String,
}

/// What expressions are evaluated from.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// `OWNER/NAME`, or what people call it.
    pub repository: &'a str,
    pub path: &'a str,
    pub r#ref: &'a str,
    pub commit: &'a str,
    pub event: RunEvent,
    /// As a person gave them, with the defaults of the rest.
    pub inputs: &'a BTreeMap<String, String>,
    /// Stands for the run's own number: no two runs have the same.
    pub run: &'a str,
}

impl Written {
    pub(super) fn read(node: Option<&Node>) -> Option<Self> {
        let node = node?;
        let (group, cancel) = match node {
            Node::Map(map) => (map.get("group").and_then(Node::text), map.get("cancel-in-progress")),
            scalar => (scalar.text(), None),
        };
        let cancel_in_progress = cancel.and_then(Node::text).unwrap_or_default();
        group.filter(|group| !group.trim().is_empty()).map(|group| Self { group, cancel_in_progress })
    }
}

impl Workflow {
    /// The group that a run on this occasion belongs to. What cannot be heeded of its `concurrency:` is told to `tell`.
    pub fn concurrency(&self, occasion: Occasion<'_>, mut tell: impl FnMut(String)) -> Option<Concurrency> {
        let mut of_jobs = self.jobs.iter().filter_map(|job| Some((job, job.concurrency.as_ref()?)));
        let written = match (&self.concurrency, self.jobs.as_slice()) {
            (None, [_]) => of_jobs.next().map(|(_, written)| written),
            (own, _) => {
                for (job, _) in of_jobs {
                    let id = legible(&job.id, 80);
                    tell(format!(
                        "`concurrency:` of the job `{id}` is not heeded, for the mesh runs a workflow as a whole: give \
                         the workflow a group instead"
                    ));
                }
                own.as_ref()
            }
        }?;
        let lookup = |path: &[&str]| self.look_up(occasion, path);
        let shown = |text: &str| legible(text, 200);
        let group = match fill_in(&written.group, &lookup) {
            Ok(group) if !group.is_empty() && group.len() <= MAX_GROUP => group,
            Ok(group) => {
                let size = group.len();
                tell(format!(
                    "the group `{}` of its `concurrency:` has {size} bytes, not 1 to {MAX_GROUP}, and is not heeded",
                    shown(&written.group)
                ));
                return None;
            }
            Err(what) => {
                tell(format!(
                    "the group `{}` of its `concurrency:` is not heeded: {} is known only at GitHub",
                    shown(&written.group),
                    shown(&what)
                ));
                return None;
            }
        };
        let cancel_in_progress = is_true(&written.cancel_in_progress, &lookup).unwrap_or_else(|what| {
            tell(format!(
                "`cancel-in-progress: {}` of its `concurrency:` counts as false: {} is known only at GitHub",
                shown(&written.cancel_in_progress),
                shown(&what)
            ));
            false
        });
        Some(Concurrency { group, cancel_in_progress })
    }

    /// A property of a context. What only other events have, which the mesh never runs a workflow for, is null, as at
    /// GitHub.
    fn look_up(&self, occasion: Occasion<'_>, path: &[&str]) -> Value {
        let Occasion { repository, path: file, r#ref, commit, event, inputs, run } = occasion;
        let branch = || r#ref.strip_prefix("refs/heads/").or_else(|| r#ref.strip_prefix("refs/tags/"));
        let input = |name: &str| {
            let specs = self.triggers.dispatch.iter().flatten();
            let mut of_name = specs.filter(|spec| spec.name.eq_ignore_ascii_case(name));
            let spec = of_name.next().filter(|_| event == RunEvent::WorkflowDispatch)?;
            Some((&spec.kind, inputs.get(&spec.name).or(spec.default.as_ref())?))
        };
        match path {
            ["github", "ref"] => Value::text(r#ref),
            ["github", "ref_name"] => Value::text(branch().unwrap_or(r#ref)),
            ["github", "ref_type"] if r#ref.starts_with("refs/") => {
                Value::text(if r#ref.starts_with("refs/tags/") { "tag" } else { "branch" })
            }
            ["github", "sha"] => Value::text(commit),
            ["github", "event_name"] => Value::text(event.word()),
            ["github", "workflow"] => Value::text(&self.name),
            ["github", "workflow_ref"] => Value::text(format!("{repository}/{file}@{}", r#ref)),
            ["github", "repository"] => Value::text(repository),
            ["github", "repository_owner"] if repository.contains('/') => {
                Value::text(repository.split('/').next().unwrap_or_default())
            }
            ["github", "run_id" | "run_number"] => Value::text(run),
            ["github", "run_attempt"] => Value::text("1"),
            ["github", "head_ref" | "base_ref"] => Value::text(""),
            ["github", "event", "ref"] if event != RunEvent::Schedule => Value::text(r#ref),
            ["github", "event", "after"] | ["github", "event", "head_commit", "id"] if event == RunEvent::Push => {
                Value::text(commit)
            }
            ["inputs", name] => match input(name) {
                Some((InputKind::Boolean, value)) => Value::Bool(value == "true"),
                Some((InputKind::Number, value)) => value.trim().parse().map_or(Value::Null, Value::Number),
                Some((_, value)) => Value::text(value),
                None => Value::Null,
            },
            ["github", "event", "inputs", name] => input(name).map_or(Value::Null, |(_, value)| Value::text(value)),
            [
                "github",
                "event",
                "pull_request" | "number" | "issue" | "comment" | "review" | "release" | "deployment" | "merge_group"
                | "workflow_run" | "check_run" | "check_suite" | "client_payload" | "action",
                ..,
            ] => Value::Null,
            other => Value::Unknown(format!("`{}`", other.join("."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    const PUSH: Occasion<'_> = Occasion {
        repository: "octo/web",
        path: ".github/workflows/ci.yml",
        r#ref: "refs/heads/feature/x",
        commit: "c0ffee",
        event: RunEvent::Push,
        inputs: &BTreeMap::new(),
        run: "r1",
    };

    fn of(text: &str, occasion: Occasion<'_>) -> (Option<(String, bool)>, Vec<String>) {
        let mut told = Vec::new();
        let found = read("ci.yml", text.as_bytes()).concurrency(occasion, |text| told.push(text));
        (found.map(|found| (found.group, found.cancel_in_progress)), told)
    }

    #[track_caller]
    fn group(text: &str, occasion: Occasion<'_>, expected: &str, cancels: bool) {
        assert_eq!(of(text, occasion), (Some((expected.to_owned(), cancels)), Vec::new()), "{text}");
    }

    #[test]
    fn both_forms_are_read() {
        let job = "\njobs:\n  a: {}\n  b: {}\n";
        group(&format!("concurrency: deploy{job}"), PUSH, "deploy", false);
        group(&format!("concurrency: {{group: deploy, cancel-in-progress: true}}{job}"), PUSH, "deploy", true);
        group(&format!("concurrency:\n  group: 7\n  cancel-in-progress: false{job}"), PUSH, "7", false);
        for none in
            ["", "concurrency:", "concurrency: {cancel-in-progress: true}", "concurrency: [a]", "concurrency: ' '"]
        {
            assert_eq!(of(&format!("{none}{job}"), PUSH), (None, Vec::new()), "{none}");
        }
    }

    #[test]
    fn what_people_write_is_understood() {
        let name = "name: CI\non: {push: , workflow_dispatch: {inputs: {where: {default: test}, dry: {type: boolean}, n: {type: number, default: 3}}}}\n";
        let with = |text: &str| format!("{name}concurrency:\n  {text}\njobs: {{a: {{}}, b: {{}}}}\n");
        group(&with("group: ${{ github.workflow }}-${{ github.ref }}"), PUSH, "CI-refs/heads/feature/x", false);
        group(
            &with("group: ${{ github.workflow }}-${{ github.event.pull_request.number || github.ref_name }}"),
            PUSH,
            "CI-feature/x",
            false,
        );
        group(&with("group: ${{ github.head_ref || github.run_id }}"), PUSH, "r1", false);
        group(&with("group: x\n  cancel-in-progress: ${{ github.ref != 'refs/heads/main' }}"), PUSH, "x", true);
        group(&with("group: x\n  cancel-in-progress: ${{ !contains(github.ref, 'feature/') }}"), PUSH, "x", false);
        let inputs = BTreeMap::from([("where".to_owned(), "prod".to_owned()), ("dry".to_owned(), "false".to_owned())]);
        let by_hand = Occasion { event: RunEvent::WorkflowDispatch, inputs: &inputs, ..PUSH };
        group(&with("group: d-${{ inputs.where }}-${{ inputs.dry && 'dry' || 'wet' }}"), by_hand, "d-prod-wet", false);
        group(&with("group: d-${{ github.event.inputs.WHERE }}-${{ inputs.n }}"), by_hand, "d-prod-3", false);
        group(&with("group: d-${{ inputs.where || 'none' }}"), PUSH, "d-none", false);
        group(
            &with("group: ${{ format('{0}/{1}', github.repository, github.event_name) }}"),
            PUSH,
            "octo/web/push",
            false,
        );
    }

    #[test]
    fn what_cannot_be_told_is_reported_and_not_heeded() {
        let with = |text: &str| format!("concurrency:\n  {text}\njobs: {{a: {{}}, b: {{}}}}\n");
        let (none, told) = of(&with("group: deploy-${{ vars.STAGE }}"), PUSH);
        assert!(none.is_none() && told.len() == 1 && told[0].contains("`vars.stage`"), "{told:?}");
        let (some, told) = of(&with("group: x\n  cancel-in-progress: ${{ vars.CANCEL }}"), PUSH);
        assert_eq!(some, Some(("x".to_owned(), false)));
        assert!(told.len() == 1 && told[0].contains("counts as false"), "{told:?}");
        let (none, told) = of(&with(&format!("group: {}", "x".repeat(MAX_GROUP + 1))), PUSH);
        assert!(none.is_none() && told.len() == 1, "{told:?}");
        let (none, told) = of(&with("group: ${{ github.ref"), PUSH);
        assert!(none.is_none() && told.len() == 1, "{told:?}");
    }

    #[test]
    fn a_jobs_own_group_is_heeded_where_it_is_the_workflows_only_job() {
        let job = "{concurrency: {group: j, cancel-in-progress: true}}";
        group(&format!("jobs: {{a: {job}}}"), PUSH, "j", true);
        let (own, told) = of(&format!("concurrency: w\njobs: {{a: {job}}}"), PUSH);
        assert_eq!(own, Some(("w".to_owned(), false)));
        assert!(told.len() == 1 && told[0].contains("the job `a`"), "{told:?}");
        let (none, told) = of(&format!("jobs: {{a: {job}, b: {{}}, c: {{concurrency: k}}}}"), PUSH);
        assert!(none.is_none() && told.len() == 2, "{told:?}");
    }
}
