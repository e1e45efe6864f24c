//! Runner scale sets in the words of the mesh.
//!
//! A scale set is one of the things that somebody is on duty for, as a source is: its listener is found by the rank of its
//! name ([`source`]) among the live members that have it set and can reach it. A host offers to start its runners by a
//! label ([`label`]) and that name, so a host that cannot read the repositories serves their jobs too; and a job's task
//! asks for both.

use std::collections::BTreeSet;

use super::io::SourceKey;
use super::task::{GITHUB_RUNNER, Repository, Trigger, Workload};

/// What both begin with. No host's operator can write it, and no `runs-on` needs to say it.
const MARK: &str = "scale-set:";

/// The most bytes of a scale set's name. Own choice: with its mark it has to be a label.
pub const MAX_NAME: usize = 64;

/// What all nodes call the scale set of an owner or a repository, which is `HOST/OWNER` or `HOST/OWNER/NAME`.
pub fn source(of: &str, name: &str) -> SourceKey {
    format!("{MARK}{}#{}", of.to_ascii_lowercase(), name.to_ascii_lowercase())
}

/// Whether it is a scale set's name, and no source of workflows.
pub fn is_source(key: &str) -> bool {
    key.starts_with(MARK)
}

/// What a host offers that serves a scale set, and every task of its jobs asks for.
pub fn label(name: &str) -> String {
    format!("{MARK}{}", name.to_ascii_lowercase())
}

/// The name of the scale set that these labels ask for or offer.
fn name_in(labels: &BTreeSet<String>) -> Option<&str> {
    labels.range(MARK.to_owned()..).next()?.strip_prefix(MARK)
}

/// Whether the task is a job that GitHub has assigned to a scale set.
pub fn serves(workload: &Workload) -> bool {
    matches!(workload.trigger, Trigger::GithubJob { .. }) && name_in(&workload.labels).is_some()
}

/// Whether what asks for these labels, of this repository, may be had through this source or scale set.
pub fn reaches(source: &str, labels: &BTreeSet<String>, repository: &Repository) -> bool {
    let Some(name) = name_in(labels).filter(|_| labels.contains(GITHUB_RUNNER)) else {
        return repository.is_of(source);
    };
    let set = source.strip_prefix(MARK).and_then(|set| set.rsplit_once('#'));
    set.is_some_and(|(of, own)| own == name && repository.is_of(of))
}

/// Whether a job that asks for these labels, of this repository, is one that GitHub assigns to this scale set.
pub fn leaves(source: &str, labels: &BTreeSet<String>, repository: &Repository) -> bool {
    let set = source.strip_prefix(MARK).and_then(|set| set.rsplit_once('#'));
    let mut asked = labels.iter().filter(|label| *label != GITHUB_RUNNER);
    set.is_some_and(|(of, name)| {
        asked.next().is_some_and(|label| label == name) && asked.next().is_none() && repository.is_of(of)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_a_scale_set_is_reached_by_that_scale_set_alone() {
        let repository = |name: &str| Repository { host: "h".to_owned(), id: "7".to_owned(), name: name.to_owned() };
        let labels = |more: &[&str]| more.iter().map(|label| (*label).to_owned()).collect::<BTreeSet<String>>();
        let asked = labels(&[GITHUB_RUNNER, &label("Lab"), "gpu"]);
        let (one, other) = (repository("Octo/one"), repository("acme/one"));
        for set in [source("h/octo", "lab"), source("h/octo/one", "LAB")] {
            assert!(is_source(&set) && reaches(&set, &asked, &one), "{set}");
            assert!(!reaches(&set, &asked, &other), "{set}");
            assert!(!reaches(&set, &labels(&[GITHUB_RUNNER]), &one), "a job that is polled for");
        }
        for source in [source("h/octo", "lab2"), source("g/octo", "lab"), "h/octo".to_owned(), MARK.to_owned()] {
            assert!(!reaches(&source, &asked, &one), "{source}");
        }
        assert!(reaches("h/octo", &labels(&["gpu"]), &one) && !is_source("h/octo"));
        let polled = |more: &[&str]| leaves(&source("h/octo", "Lab"), &labels(more), &one);
        assert!(polled(&["lab"]) && polled(&["lab", GITHUB_RUNNER]));
        assert!(!polled(&["lab", "gpu"]) && !polled(&["gpu"]) && !polled(&[]));
        // A workflow that writes the label itself gets nothing by it.
        assert!(!reaches(&source("h/octo", "lab"), &labels(&[&label("lab")]), &one));
    }
}
