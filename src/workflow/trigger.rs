//! When a workflow runs: its `on:`.
//!
//! Owns reading `on:` in all its forms, GitHub's filters of pushes, and the inputs of `workflow_dispatch`. Promises to
//! accept whatever GitHub accepts and to say of the rest why it starts nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::task::RunEvent;

use super::glob::{MAX_PATTERN, MAX_PATTERNS, Patterns};
use super::tags::legible;
use super::yaml::{Map, Node};

/// The most inputs that GitHub allows (25 since 2025, ten before), with room.
const MAX_INPUTS: usize = 100;
/// The most bytes of an input's value, GitHub's limit for all of them together.
const MAX_INPUT: usize = 65_535;

/// What starts a workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triggers {
    pub push: Option<PushFilter>,
    /// The cron lines of `on: schedule`, as they stand there.
    pub schedule: Vec<String>,
    /// The inputs of `on: workflow_dispatch`, in the order of the file.
    pub dispatch: Option<Vec<InputSpec>>,
    /// All other events, by name.
    pub others: BTreeSet<String>,
}

/// Which pushes start a workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushFilter {
    branches: Option<Filter>,
    tags: Option<Filter>,
    paths: Option<Filter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Only(Patterns),
    Except(Patterns),
    /// GitHub refuses a file that gives both for one thing; where a person still expects it to run, both must agree.
    Both(Patterns, Patterns),
}

impl Filter {
    fn admits(&self, text: &str) -> bool {
        match self {
            Self::Only(only) => only.admit(text),
            Self::Except(except) => !except.admit(text),
            Self::Both(only, except) => only.admit(text) && !except.admit(text),
        }
    }
}

/// An input of `workflow_dispatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    pub name: String,
    pub kind: InputKind,
    pub required: bool,
    pub default: Option<String>,
    pub description: Option<String>,
}

/// The type of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputKind {
    /// `string`, `environment`, or none given.
    Text,
    Boolean,
    Number,
    /// One of these.
    Choice(Vec<String>),
}

impl Triggers {
    /// Reads `on:`. What is odd about it goes to `warnings`.
    pub(super) fn read(on: Option<&Node>, warnings: &mut Vec<String>) -> Self {
        let mut triggers = Self::default();
        match on {
            Some(Node::Map(Map(events))) => {
                events.iter().for_each(|(name, event)| triggers.add(name, event, warnings));
            }
            Some(node) => node.texts().iter().for_each(|name| triggers.add(name, &Node::Null, warnings)),
            None => {}
        }
        triggers
    }

    fn add(&mut self, name: &str, event: &Node, warnings: &mut Vec<String>) {
        match name {
            "push" => self.push = Some(PushFilter::read(event, warnings)),
            "workflow_dispatch" => self.dispatch = Some(inputs(event, warnings)),
            "schedule" => {
                let Node::List(items) = event else {
                    warnings.push("`on: schedule` is no list of `cron:` lines, so it never ticks".to_owned());
                    return;
                };
                self.schedule = items.iter().filter_map(|item| item.get("cron")?.text()).collect();
            }
            other if self.others.len() < MAX_INPUTS => {
                self.others.insert(legible(other, 80));
            }
            _ => {}
        }
    }

    /// The event that a run by discovery sees: `push` if declared, else `workflow_dispatch`, else `schedule`.
    ///
    /// # Errors
    /// Why discovery never runs it: it declares only other events, or none.
    pub fn event(&self) -> Result<RunEvent, String> {
        if self.push.is_some() {
            return Ok(RunEvent::Push);
        }
        self.manual_event()
    }

    /// The event that a run by hand sees: as on GitHub `workflow_dispatch` if declared, for only that has inputs, else
    /// `push`, else `schedule`.
    ///
    /// # Errors
    /// Why it cannot run by hand either.
    pub fn manual_event(&self) -> Result<RunEvent, String> {
        let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
        match self {
            Self { dispatch: Some(_), .. } => Ok(RunEvent::WorkflowDispatch),
            Self { push: Some(_), .. } => Ok(RunEvent::Push),
            Self { schedule, .. } if !schedule.is_empty() => Ok(RunEvent::Schedule),
            _ if others.is_empty() => {
                Err("it has no `on:` that starts it; add `workflow_dispatch:` or `push:`".to_owned())
            }
            _ => Err(format!(
                "only `{}` starts it, which never happens on the mesh; add `workflow_dispatch:` or `push:` to its `on:`",
                others.join("`, `")
            )),
        }
    }

    /// The inputs that a run by hand sees: what is given, checked, and the defaults of the rest.
    ///
    /// # Errors
    /// A sentence naming the input that is unknown, missing, or not of its type.
    pub fn check_inputs(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
        let specs = self.dispatch.as_deref().unwrap_or_default();
        if let Some(unknown) = given.keys().find(|name| specs.iter().all(|spec| spec.name != **name)) {
            let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
            let known =
                if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
            return Err(format!("the workflow has no input `{}`; {known}", legible(unknown, 80)));
        }
        let mut values = BTreeMap::new();
        for spec in specs {
            let value = match (given.get(&spec.name), &spec.default) {
                (Some(value), _) => spec.check(value)?,
                (None, Some(default)) => default.clone(),
                (None, None) if spec.required => {
                    return Err(format!("input `{}` is required; give it as {}=VALUE", spec.name, spec.name));
                }
                (None, None) => match &spec.kind {
                    InputKind::Boolean => "false".to_owned(),
                    // GitHub's form preselects the first.
                    InputKind::Choice(options) => options.first().cloned().unwrap_or_default(),
                    InputKind::Text | InputKind::Number => String::new(),
                },
            };
            values.insert(spec.name.clone(), value);
        }
        Ok(values)
    }
}

impl InputSpec {
    fn check(&self, value: &str) -> Result<String, String> {
        let bad = |what: &str| Err(format!("input `{}` is `{}`, not {what}", self.name, legible(value, 80)));
        match &self.kind {
            _ if value.len() > MAX_INPUT => Err(format!("input `{}` is longer than {MAX_INPUT} bytes", self.name)),
            InputKind::Boolean if value != "true" && value != "false" => bad("true or false"),
            InputKind::Number if !value.trim().parse::<f64>().is_ok_and(f64::is_finite) => bad("a number"),
            InputKind::Choice(options) if !options.iter().any(|option| option == value) => {
                bad(&format!("one of {}", options.join(", ")))
            }
            _ if self.required && value.is_empty() => bad("given, though it is required"),
            _ => Ok(value.to_owned()),
        }
    }
}

fn inputs(event: &Node, warnings: &mut Vec<String>) -> Vec<InputSpec> {
    let Some(Node::Map(Map(pairs))) = event.get("inputs") else { return Vec::new() };
    if pairs.len() > MAX_INPUTS {
        warnings.push(format!("it has {} inputs; the first {MAX_INPUTS} are read", pairs.len()));
    }
    let spec = |(name, node): &(String, Node)| InputSpec {
        name: name.clone(),
        kind: match node.get("type").and_then(Node::text).as_deref() {
            Some("boolean") => InputKind::Boolean,
            Some("number") => InputKind::Number,
            Some("choice") => InputKind::Choice(node.get("options").map(Node::texts).unwrap_or_default()),
            _ => InputKind::Text,
        },
        required: matches!(node.get("required"), Some(Node::Bool(true))),
        default: node.get("default").and_then(Node::text),
        description: node.get("description").and_then(Node::text),
    };
    pairs.iter().take(MAX_INPUTS).map(spec).collect()
}

impl PushFilter {
    fn read(event: &Node, warnings: &mut Vec<String>) -> Self {
        let mut patterns = |key: &str| {
            let texts = event.get(key)?.texts();
            if texts.len() > MAX_PATTERNS || texts.iter().any(|text| text.len() > MAX_PATTERN) {
                warnings.push(format!(
                    "`{key}` of `on: push`: only {MAX_PATTERNS} patterns of {MAX_PATTERN} bytes are read"
                ));
            }
            Some(Patterns::new(&texts))
        };
        let mut filter = |only: &str, except: &str| match (patterns(only), patterns(except)) {
            (Some(only), Some(except)) => Some(Filter::Both(only, except)),
            (Some(only), None) => Some(Filter::Only(only)),
            (None, Some(except)) => Some(Filter::Except(except)),
            (None, None) => None,
        };
        Self {
            branches: filter("branches", "branches-ignore"),
            tags: filter("tags", "tags-ignore"),
            paths: filter("paths", "paths-ignore"),
        }
    }

    /// Whether a push of this ref (its full name, `refs/heads/…` or `refs/tags/…`) starts the workflow, as far as
    /// branches and tags decide. A commit on no branch (`HEAD`) is let in where neither is filtered.
    pub fn matches_ref(&self, r#ref: &str) -> bool {
        let (own, other, name) = if let Some(branch) = r#ref.strip_prefix("refs/heads/") {
            (&self.branches, &self.tags, branch)
        } else if let Some(tag) = r#ref.strip_prefix("refs/tags/") {
            (&self.tags, &self.branches, tag)
        } else {
            return self.branches.is_none() && self.tags.is_none();
        };
        match (own, other) {
            (Some(filter), _) => filter.admits(name),
            // With a filter for the one kind only, the other kind starts nothing.
            (None, other) => other.is_none(),
        }
    }

    /// Whether there is a filter for paths, so that [`Self::matches_paths`] needs to be asked.
    pub fn filters_paths(&self) -> bool {
        self.paths.is_some()
    }

    /// Whether a push that changed these files starts the workflow, as far as paths decide: one file that is let in
    /// is enough.
    pub fn matches_paths<'a>(&self, changed: impl IntoIterator<Item = &'a str>) -> bool {
        self.paths.as_ref().is_none_or(|paths| changed.into_iter().any(|path| paths.admits(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    fn read(text: &str) -> Triggers {
        let document = parse(text.as_bytes(), 0, &[]).expect("is YAML");
        Triggers::read(document.root.get("on"), &mut Vec::new())
    }

    fn push(text: &str) -> PushFilter {
        read(text).push.expect("has a push")
    }

    #[test]
    fn all_forms_of_on_are_read() {
        for text in
            ["on: push", "on: [push]", "on:\n  push:", "on: {push: {}}", "on: {push: ~}", "on:\n- push\n", "'on': push"]
        {
            let triggers = read(text);
            assert_eq!(triggers, Triggers { push: Some(PushFilter::default()), ..Triggers::default() }, "{text}");
            assert_eq!(triggers.event(), Ok(RunEvent::Push));
        }
    }

    #[test]
    fn the_event_is_the_first_of_three() {
        assert_eq!(read("on: [workflow_dispatch, push]").event(), Ok(RunEvent::Push));
        assert_eq!(read("on: [workflow_dispatch, push]").manual_event(), Ok(RunEvent::WorkflowDispatch));
        assert_eq!(
            read("on: {schedule: [{cron: '* * * * *'}], workflow_dispatch: }").event(),
            Ok(RunEvent::WorkflowDispatch)
        );
        let scheduled = read("on: {schedule: [{cron: '0 1 * * 1'}, {cron: '5 4 * * *', timezone: UTC}], release: }");
        assert_eq!(scheduled.event(), Ok(RunEvent::Schedule));
        assert_eq!(scheduled.schedule, ["0 1 * * 1", "5 4 * * *"]);
        let error = read("on: [release, pull_request]").event().expect_err("none of the three");
        assert!(error.contains("`pull_request`, `release`"), "{error}");
        assert!(read("jobs: {}").event().is_err_and(|error| error.contains("no `on:`")));
        assert!(read("on: {schedule: daily}").event().is_err());
    }

    #[test]
    fn branches_and_tags_decide_as_at_github() {
        let main = "refs/heads/main";
        assert!(push("on: push").matches_ref(main));
        assert!(push("on: push").matches_ref("refs/tags/v1"));
        assert!(push("on: push").matches_ref("HEAD"));
        let branches = push("on: {push: {branches: [main, 'r/**', '!r/x']}}");
        for (r#ref, matches) in [
            (main, true),
            ("refs/heads/r/a", true),
            ("refs/heads/r/x", false),
            ("refs/heads/dev", false),
            ("refs/tags/main", false),
            ("HEAD", false),
        ] {
            assert_eq!(branches.matches_ref(r#ref), matches, "{}", r#ref);
        }
        assert!(push("on: {push: {branches: main}}").matches_ref(main), "a single text");
        assert!(!push("on: {push: {tags: ['v*']}}").matches_ref(main));
        assert!(push("on: {push: {tags: ['v*']}}").matches_ref("refs/tags/v1"));
        assert!(!push("on: {push: {tags-ignore: ['v*']}}").matches_ref(main));
        assert!(push("on: {push: {tags: ['v*'], branches: ['**']}}").matches_ref(main));
        assert!(!push("on: {push: {branches-ignore: [main]}}").matches_ref(main));
        assert!(push("on: {push: {branches-ignore: [main]}}").matches_ref("refs/heads/dev"));
        assert!(!push("on: {push: {branches: []}}").matches_ref(main));
        assert!(push("on: {push: {paths: ['x']}}").matches_ref(main));
    }

    #[test]
    fn paths_decide_as_at_github() {
        let docs = push("on: {push: {paths: ['docs/**', '!docs/draft/**']}}");
        assert!(docs.filters_paths());
        assert!(docs.matches_paths(["src/a.rs", "docs/a.md"]));
        assert!(!docs.matches_paths(["src/a.rs", "docs/draft/a.md"]));
        assert!(!docs.matches_paths([]));
        let code = push("on: {push: {paths-ignore: ['**.md']}}");
        assert!(code.matches_paths(["a.md", "b.rs"]));
        assert!(!code.matches_paths(["a.md", "c/d.md"]));
        assert!(push("on: push").matches_paths([]));
        assert!(!push("on: push").filters_paths());
    }

    #[test]
    fn inputs_are_checked() {
        let triggers = read(
            "on:\n  workflow_dispatch:\n    inputs:\n      text: {required: true, description: D}\n      flag: {type: boolean}\n      \
             n: {type: number, default: 3}\n      pick: {type: choice, options: [a, 2]}\n      free:\n",
        );
        let check = |pairs: &[(&str, &str)]| {
            triggers
                .check_inputs(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let whole = check(&[("text", "x")]).expect("enough");
        let expected = [("flag", "false"), ("free", ""), ("n", "3"), ("pick", "a"), ("text", "x")];
        assert_eq!(whole, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(check(&[("text", "x"), ("flag", "true"), ("n", "-1.5"), ("pick", "2")]).is_ok());
        for (given, word) in [
            (&[][..], "required"),
            (&[("text", "")], "required"),
            (&[("text", "x"), ("flag", "yes")], "true or false"),
            (&[("text", "x"), ("n", "many")], "a number"),
            (&[("text", "x"), ("n", "inf")], "a number"),
            (&[("text", "x"), ("pick", "b")], "one of a, 2"),
            (&[("text", "x"), ("other", "b")], "no input `other`"),
        ] {
            assert!(check(given).is_err_and(|error| error.contains(word)), "{given:?}");
        }
        assert_eq!(read("on: push").check_inputs(&BTreeMap::new()), Ok(BTreeMap::new()));
        let given = BTreeMap::from([("x".to_owned(), "y".to_owned())]);
        assert!(read("on: push").check_inputs(&given).is_err_and(|error| error.contains("it has none")));
    }
}
