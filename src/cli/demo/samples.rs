//! The sample repositories: four of them, made from the workflow files under tests/fixtures/demo, with what is to
//! come of each file.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::failure::Failure;

/// What is to come of a workflow file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// A task with this conclusion, in GitHub's word, and what is special about it.
    Conclusion(&'static str, &'static str),
    /// No task, because of this.
    NoTask(&'static str),
}

/// A workflow file of a sample repository.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) repository: &'static str,
    /// Below `.github/workflows`.
    pub(super) file: &'static str,
    text: &'static str,
    pub(super) expected: Expected,
}

impl Sample {
    /// Inside its repository.
    pub(super) fn path(&self) -> String {
        format!(".github/workflows/{}", self.file)
    }
}

macro_rules! sample {
    ($repository:literal, $file:literal, $expected:expr) => {
        Sample {
            repository: $repository,
            file: $file,
            text: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/demo/",
                $repository,
                "/.github/workflows/",
                $file
            )),
            expected: $expected,
        }
    };
}

const SUCCESS: Expected = Expected::Conclusion("success", "");

/// All sample files.
pub(super) static SAMPLES: [Sample; 20] = [
    sample!("api", "build.yml", SUCCESS),
    sample!("api", "integration.yml", Expected::Conclusion("failure", "it fails on purpose")),
    sample!("api", "lint.yml", Expected::NoTask("it has no tags")),
    sample!("api", "publish.yml", Expected::NoTask("only a release starts it")),
    sample!("api", "unit.yml", Expected::Conclusion("success", "a matrix of 3")),
    sample!("docs", "example.yml", Expected::NoTask("its only tag is text inside a script")),
    sample!("docs", "links.yml", Expected::Conclusion("success", "2 of its 3 words are no tags")),
    sample!("docs", "preview.yml", Expected::NoTask("none of its words is a tag")),
    sample!("docs", "site.yml", Expected::Conclusion("success", "4 jobs that wait for each other")),
    sample!("docs", "spelling.yml", Expected::Conclusion("failure", "its second job fails on purpose")),
    sample!("robot", "calibrate.yml", Expected::Conclusion("success", "started by a push")),
    sample!("robot", "cloud.yml", Expected::NoTask("its tags leave it to GitHub")),
    sample!("robot", "firmware.yml", Expected::Conclusion("failure", "1 leg of its matrix fails on purpose")),
    sample!("robot", "report.yml", Expected::Conclusion("success", "one of its jobs has nothing to do")),
    sample!("robot", "simulate.yml", Expected::Conclusion("success", "a matrix of 4")),
    sample!("weather", "archive.yml", Expected::Conclusion("skipped", "its condition does not hold")),
    sample!("weather", "clean.yml", SUCCESS),
    sample!("weather", "draft.yml", Expected::NoTask("it is not YAML")),
    sample!("weather", "forecast.yml", Expected::Conclusion("success", "the long one")),
    sample!("weather", "scrape.yml", SUCCESS),
];

/// The sample that runs for twelve seconds: repository and path.
pub(super) const LONG: (&str, &str) = ("weather", ".github/workflows/forecast.yml");

/// Makes the sample repositories below the folder, with nothing but a README on `main`.
///
/// # Errors
/// Exit status 1, when a file cannot be written or git does not work.
pub(super) fn found(folder: &Path) -> Result<(), Failure> {
    for name in repositories().keys() {
        let repository = folder.join(name);
        write(&repository.join("README.md"), &format!("# {name}\n\nA sample repository of `runmesh demo`.\n"))?;
        git(&repository, &["init", "--quiet", "--initial-branch=main"])?;
        commit(&repository, "Begin")?;
    }
    Ok(())
}

/// Commits the workflow files to the repositories.
///
/// # Errors
/// As [`found`].
pub(super) fn push(folder: &Path) -> Result<(), Failure> {
    for (name, samples) in repositories() {
        let repository = folder.join(name);
        for sample in samples {
            write(&repository.join(sample.path()), sample.text)?;
        }
        commit(&repository, "Add workflows")?;
    }
    Ok(())
}

fn repositories() -> BTreeMap<&'static str, Vec<&'static Sample>> {
    let mut repositories: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for sample in &SAMPLES {
        repositories.entry(sample.repository).or_default().push(sample);
    }
    repositories
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, text));
    made.map_err(|error| Failure::failed(format!("cannot write {}", path.display())).because(&error))
}

fn commit(repository: &Path, message: &str) -> Result<(), Failure> {
    git(repository, &["add", "--all"])?;
    git(repository, &["commit", "--quiet", "--message", message])
}

/// Runs git as nobody in particular: no settings, hooks or templates of this host's, the same commit ids everywhere.
fn git(repository: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"] {
        command.env_remove(variable);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TEMPLATE_DIR", "");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "runmesh demo").env(format!("GIT_{who}_EMAIL"), "demo@localhost");
        command.env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
    }
    let output = command.output().map_err(|error| {
        Failure::failed("cannot start `git`").because(&error).hint("install git and see that it is on PATH")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::failed(format!("`git {}` failed in {}: {}", arguments.join(" "), repository.display(), said.trim())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fixture_is_a_sample_and_every_sample_a_fixture() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/demo");
        let mut files = BTreeSet::new();
        for repository in root.read_dir().unwrap().map(Result::unwrap) {
            for file in repository.path().join(".github/workflows").read_dir().unwrap().map(Result::unwrap) {
                files.insert((repository.file_name().into_string().unwrap(), file.file_name().into_string().unwrap()));
            }
        }
        let samples: BTreeSet<_> =
            SAMPLES.iter().map(|sample| (sample.repository.to_owned(), sample.file.to_owned())).collect();
        assert_eq!(samples, files);
        assert!(SAMPLES.iter().any(|sample| (sample.repository, sample.path().as_str()) == LONG));
    }

    #[test]
    fn the_samples_cover_what_the_demo_promises() {
        let tasks =
            |word| SAMPLES.iter().filter(|s| matches!(s.expected, Expected::Conclusion(w, _) if w == word)).count();
        assert!(tasks("success") + tasks("failure") + tasks("skipped") >= 12);
        assert!(tasks("failure") >= 2 && tasks("skipped") >= 1);
        assert_eq!(SAMPLES.iter().map(|sample| sample.repository).collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn repositories_are_made_clean_and_alike() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let heads = [&one, &two].map(|folder| {
            found(folder.path()).unwrap();
            push(folder.path()).unwrap();
            std::fs::read_to_string(folder.path().join("weather/.git/refs/heads/main")).unwrap()
        });
        assert_eq!(heads[0].trim().len(), 40);
        assert_eq!(heads[0], heads[1]);
    }
}
