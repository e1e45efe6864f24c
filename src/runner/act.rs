//! The program act: how it is asked to run a workflow, and how its words are understood.
//!
//! Verified against act 0.2.89, and worth knowing before changing a flag:
//! - It reads flags from `.actrc` in the directory it is started in, in HOME and in XDG_CONFIG_HOME, and variables and
//!   secrets from `.env`, `.secrets`, `.vars` and `.input` of the checkout. So it is started elsewhere, with a fresh home,
//!   and each of those files is named: an empty one.
//! - A job that its `if:` skips is reported on the debug level only, hence `--verbose`; debug lines are not logged.
//! - Without `--use-gitignore=false` a committed file that .gitignore names is missing from the workspace.
//! - It gives its own environment to every step, and asks a server for news unless told not to.
//! - Its own messages, also with `--json`, are plain text on standard error; jobs speak on standard output.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::payload;
use crate::kernel::id::{Digest, TaskId};
use crate::kernel::task::{Fence, Workload};

/// The longest line of act that is read, in bytes; a longer one is not understood.
pub(crate) const LINE: usize = 256 * 1024;
/// The most characters of a name that is kept.
const NAME: usize = 200;

/// Where act finds things, as it sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) checkout: PathBuf,
    pub(crate) event: PathBuf,
    pub(crate) empty: PathBuf,
    pub(crate) secrets: PathBuf,
    /// Variables of the steps. JSON too: act reads both by their files' ending as YAML.
    pub(crate) variables: PathBuf,
}

/// What stands behind the words of `runs-on`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Platform<'a> {
    pub(crate) labels: &'a BTreeSet<String>,
    /// The image of a job's container; none for host mode.
    pub(crate) image: Option<&'a str>,
}

/// The arguments that make act run the workload.
pub(crate) fn arguments(
    inside: &Inside,
    workload: &Workload,
    task: &TaskId,
    fence: &Fence,
    platform: Platform<'_>,
) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec![workload.event.word().into()];
    for flag in ["--json", "--verbose", "--rm", "--no-cache-server", "--use-gitignore=false", "--pull=false"] {
        all.push(flag.into());
    }
    let mut pair = |flag: &str, value: &Path| all.extend([flag.into(), value.into()]);
    pair("--container-daemon-socket", Path::new("-"));
    pair("--directory", &inside.checkout);
    pair("--workflows", &inside.checkout.join(&workload.path));
    pair("--eventpath", &inside.event);
    pair("--secret-file", &inside.secrets);
    pair("--env-file", &inside.variables);
    for flag in ["--var-file", "--input-file"] {
        pair(flag, &inside.empty);
    }
    pair("--actor", Path::new(payload::ACTOR));
    pair("--defaultbranch", Path::new(payload::branch(workload)));
    for (name, value) in payload::context(workload, task, fence) {
        all.extend(["--env".into(), format!("{name}={value}").into()]);
    }
    let image = match platform.image {
        Some(image) => {
            // Its default is the host's network, which a container must not have.
            all.extend(["--network".into(), "bridge".into()]);
            image
        }
        None => "-self-hosted",
    };
    for label in platform.labels {
        all.extend(["--platform".into(), format!("{label}={image}").into()]);
    }
    all
}

/// What act says in one line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// Something of a job.
    Job(Box<JobLine>),
    /// Something of its own, not below a warning.
    Own { text: String, severe: bool },
    /// Something for act's developers.
    Debug,
    /// Not a line of JSON: act's closing words, or not act.
    Plain(String),
}

/// A line of one job of a matrix, or of a job without one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobLine {
    pub(crate) leg: Leg,
    /// First line of the step's name.
    pub(crate) step: Option<String>,
    pub(crate) text: String,
    pub(crate) severe: bool,
    pub(crate) debug: bool,
    pub(crate) step_result: Option<String>,
    pub(crate) job_result: Option<String>,
}

/// Which job a line is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leg {
    /// The job's id in its file.
    pub(crate) id: String,
    /// `WORKFLOW/NAME` or `WORKFLOW/NAME-NUMBER`; inside a called workflow `CALLER/WORKFLOW/NAME`.
    pub(crate) label: String,
    /// Tells matrix values apart that give the same name.
    pub(crate) matrix: Digest,
}

impl Leg {
    /// The label without the workflow's name.
    pub(crate) fn short(&self) -> &str {
        self.label.split_once('/').map_or(&self.label, |(_, name)| name)
    }
}

#[derive(Deserialize)]
struct Raw {
    level: String,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    raw_output: bool,
    job: Option<String>,
    #[serde(rename = "jobID")]
    job_id: Option<String>,
    #[serde(default)]
    matrix: Value,
    step: Option<String>,
    #[serde(rename = "stepResult")]
    step_result: Option<String>,
    #[serde(rename = "jobResult")]
    job_result: Option<String>,
}

/// Understands a line. Never fails: what is not act's JSON is plain text.
pub(crate) fn hear(bytes: &[u8]) -> Said {
    let Ok(raw) = serde_json::from_slice::<Raw>(bytes) else {
        return Said::Plain(String::from_utf8_lossy(bytes).trim_end().to_owned());
    };
    let debug = matches!(raw.level.as_str(), "debug" | "trace");
    let severe = matches!(raw.level.as_str(), "error" | "fatal" | "panic");
    let text = raw.msg.trim_end_matches(['\r', '\n']);
    // Where act speaks of a step without a name it repeats the whole script; a step's own line has no second one.
    let text = match text.split_once('\n') {
        Some((first, _)) if !raw.raw_output && raw.step.is_some() => format!("{first} …"),
        _ => text.to_owned(),
    };
    let Some(id) = raw.job_id else {
        return if debug { Said::Debug } else { Said::Own { text, severe } };
    };
    let matrix = Digest::of(&[raw.matrix.to_string().as_bytes()]);
    let leg = Leg { id: cut(&id), label: cut(raw.job.as_deref().unwrap_or(&id).trim_end()), matrix };
    let step = raw.step.as_deref().and_then(|step| step.lines().next()).map(cut);
    let (step_result, job_result) = (raw.step_result, raw.job_result);
    Said::Job(Box::new(JobLine { leg, step, text, severe, debug, step_result, job_result }))
}

fn cut(text: &str) -> String {
    text.chars().take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_a_matrix_leg_is_understood() {
        let line = br#"{"dryrun":false,"job":"A/build-1    ","jobID":"build","level":"info","matrix":{"n":1},"msg":"hi\r\n","raw_output":true,"stage":"Main","step":"hello\nrest","stepID":["1"],"time":"2026-11-23T12:35:46Z"}"#;
        let Said::Job(job) = hear(line) else { panic!("a job's line") };
        assert_eq!((job.leg.id.as_str(), job.leg.label.as_str(), job.leg.short()), ("build", "A/build-1", "build-1"));
        assert_eq!((job.step.as_deref(), job.text.as_str()), (Some("hello"), "hi"));
        assert_eq!((job.severe, job.debug, job.job_result), (false, false, None));
        let line = br#"{"job":"A/a","jobID":"a","level":"info","msg":"Run Main make\nmake install","step":"make\nmake install"}"#;
        let Said::Job(job) = hear(line) else { panic!("a job's line") };
        assert_eq!(job.text, "Run Main make …");
    }

    #[test]
    fn results_debug_and_plain_words_are_told_apart() {
        let skipped =
            br#"{"job":"A/never","jobID":"never","jobResult":"skipped","level":"debug","matrix":{},"msg":"Skipping"}"#;
        let Said::Job(job) = hear(skipped) else { panic!("a job's line") };
        assert_eq!((job.debug, job.job_result.as_deref()), (true, Some("skipped")));
        assert_eq!(hear(br#"{"level":"debug","msg":"x"}"#), Said::Debug);
        let fatal = Said::Own { text: "no".to_owned(), severe: true };
        assert_eq!(hear(br#"{"level":"fatal","msg":"no"}"#), fatal);
        assert_eq!(hear(b"Error: workflow is not valid"), Said::Plain("Error: workflow is not valid".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Said::Job(job) = hear(&bytes) {
                prop_assert!(job.leg.label.chars().count() <= NAME);
            }
        }

        #[test]
        fn any_values_are_heard(level in ".{0,8}", id in ".{0,400}", job in ".{0,400}", depth in 0_usize..300) {
            let matrix = "[".repeat(depth) + &"]".repeat(depth);
            let matrix = if matrix.is_empty() { "null".to_owned() } else { matrix };
            let (level, id, job) = (Value::from(level), Value::from(id), Value::from(job));
            let line = format!(r#"{{"level":{level},"jobID":{id},"job":{job},"matrix":{matrix}}}"#);
            match hear(line.as_bytes()) {
                Said::Job(job) => prop_assert!(job.leg.id.chars().count() <= NAME && job.leg.label.chars().count() <= NAME),
                Said::Plain(_) => prop_assert!(depth > 100, "only depth is refused"),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
