//! A look into a repository: its workflow files at the commit that it stands at, and what of them should run.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::kernel::known::{Gone, Known};
use crate::kernel::task::{Repository, Workload};
use crate::workflow::{self, Workflow};

use super::super::decide::{Changed, Site, decide};
use super::super::{Asked, Findings, Found, Head, policy_forbids};
use super::command::{Git, LOOK, write};
use super::resolve::{commit_of, head};
use super::{FOLDER, GitError, LocalRepository};

/// The most workflow files of one repository.
const MAX_FILES: usize = 1_000;
/// The most changed files that are held against a path filter. Beyond, it counts as matched, as at GitHub when a
/// difference cannot be made.
const MAX_CHANGED: usize = 3_000;

/// Looks for the workflows of a repository: the files `.github/workflows/*.yml` and `*.yaml` at the commit that its
/// default branch stands at, whatever its working tree holds.
///
/// `known` is what the mesh has of it already: it decides path filters (a workflow of which no push is known runs
/// whatever its path filter), ticks, and what is gone. `minute` is the present one, in minutes since 1970.
///
/// # Errors
/// Only when git fails; what is wrong with a file is told of that file.
pub async fn discover(repository: &LocalRepository, known: &Known, minute: u64) -> Result<Findings, GitError> {
    let git = repository.git();
    let mut findings = Findings::default();
    let Some(head) = head(&git, &mut findings.warnings).await? else {
        findings.warnings.push(format!("{} has no commits yet", repository.path.display()));
        return Ok(findings);
    };
    let site = repository.site(&head);
    let mut files = Vec::new();
    for entry in entries(&git, &head.commit, FOLDER).await? {
        let Some(path) = entry.path else {
            findings
                .warnings
                .push(format!("{}: a workflow file's name is not UTF-8; it is left out", repository.path.display()));
            continue;
        };
        if !is_workflow(&path) {
            continue;
        }
        if files.len() + findings.workflows.len() == MAX_FILES {
            findings
                .warnings
                .push(format!("{}: only the first {MAX_FILES} workflow files are read", repository.path.display()));
            break;
        }
        match entry.what {
            What::File { blob } => files.push((path, blob)),
            What::NoFile(why) => findings.workflows.push(site.found(&path, None, Some(why))),
        }
    }

    let mut changes = Changes { git: &git, head: &head, known: BTreeMap::new() };
    let mut blobs = Blobs::open(&git, files.iter().map(|(_, blob)| blob.as_str()))?;
    for (path, blob) in files {
        let bytes = blobs.next(&git).await?;
        let Some(workflow) = read_if_tagged(&path, bytes).await else {
            findings.workflows.push(site.found(&path, None, policy_forbids(&Default::default())));
            continue;
        };
        findings.warnings.extend(workflow.warnings.iter().map(|warning| site.says(&path, warning)));
        let of_it = known.workflows.get(&path);
        let decision = match decide(site, &path, &blob, &workflow, of_it, None, minute) {
            Ok(decision) => decision,
            Err(before) => {
                let changed = changes.since(&before).await?;
                decide(site, &path, &blob, &workflow, of_it, Some(&changed), minute).unwrap_or_default()
            }
        };
        findings.warnings.extend(decision.warnings);
        findings.workflows.push(site.found(&path, Some(&workflow), decision.why_not));
        findings.workloads.extend(decision.workloads);
    }
    blobs.close(&git).await?;
    findings.gone = gone(repository, &git, &head, known, &findings.workflows).await?;
    findings.workflows.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(findings)
}

/// Of what is pending, that whose workflow is not there any more, or has no tags: only where the head stands on the
/// commit it was found at, for this clone may be behind another host's.
async fn gone(
    repository: &LocalRepository,
    git: &Git,
    head: &Head,
    known: &Known,
    workflows: &[Found],
) -> Result<Vec<Gone>, GitError> {
    let tagged: BTreeSet<&str> =
        workflows.iter().filter(|found| !found.tags.is_empty()).map(|found| found.path.as_str()).collect();
    let mut gone = Vec::new();
    for (path, of_it) in known.workflows.iter().filter(|(path, _)| !tagged.contains(path.as_str())) {
        let mut commits = BTreeSet::new();
        for commit in of_it.pending.iter().filter(|commit| **commit != head.commit && is_commit_id(commit)) {
            let arguments = ["merge-base", "--is-ancestor", commit.as_str(), head.commit.as_str()];
            let ended = git.ended("compare with the head before", &arguments, LOOK).await?;
            if ended.status.success() {
                commits.insert(commit.clone());
            }
        }
        if !commits.is_empty() {
            let Repository { host, id, .. } = repository.repository.clone();
            gone.push(Gone { host, id, path: path.clone(), commits });
        }
    }
    Ok(gone)
}

/// The task of a person's or program's request to run a workflow file, at the commit that its repository stands at.
/// `path` may leave the folder `.github/workflows/` out.
///
/// # Errors
/// [`GitError::Refused`] says why it cannot run: no such file, no YAML, tags that leave it to GitHub, no trigger, or
/// wrong inputs.
pub async fn manual(repository: &LocalRepository, path: &str, asked: &Asked) -> Result<Workload, GitError> {
    let git = repository.git();
    let path = full_path(path);
    let refused = |why: String| GitError::Refused { path: repository.path.clone(), workflow: path.clone(), why };
    let Some(head) = head(&git, &mut Vec::new()).await? else {
        return Err(refused("the repository has no commits yet".to_owned()));
    };
    let bytes = text(repository, &head.commit, &path).await?;
    let workflow = read(&path, bytes).await;
    repository.site(&head).manual(&path, &workflow, asked).map_err(refused)
}

/// The bytes of a workflow file at a commit.
///
/// # Errors
/// [`GitError::Refused`] when it is not there or not a file, or larger than a workflow file may be;
/// [`GitError::NoCommit`] when the commit is not.
pub async fn text(repository: &LocalRepository, commit: &str, path: &str) -> Result<Vec<u8>, GitError> {
    let git = repository.git();
    let refused =
        |why: &str| GitError::Refused { path: repository.path.clone(), workflow: path.to_owned(), why: why.to_owned() };
    let commit = repository.commit(&git, commit).await?;
    if !is_workflow(path) || path.contains('\0') {
        return Err(refused("only .github/workflows/*.yml and *.yaml are workflow files"));
    }
    let entry = entries(&git, &commit, path).await?.into_iter().find(|entry| entry.path.as_deref() == Some(path));
    match entry.map(|entry| entry.what) {
        None => Err(refused("there is no such file at that commit; is it committed?")),
        Some(What::NoFile(why)) => Err(refused(&why)),
        Some(What::File { blob }) => {
            let mut blobs = Blobs::open(&git, [blob.as_str()])?;
            let bytes = blobs.next(&git).await?;
            blobs.close(&git).await?;
            Ok(bytes)
        }
    }
}

/// The files that differ between earlier heads and this one.
struct Changes<'a> {
    git: &'a Git,
    head: &'a Head,
    known: BTreeMap<String, Changed>,
}

impl Changes<'_> {
    async fn since(&mut self, before: &str) -> Result<Changed, GitError> {
        if let Some(changed) = self.known.get(before) {
            return Ok(changed.clone());
        }
        let changed = self.compare(before).await?;
        self.known.insert(before.to_owned(), changed.clone());
        Ok(changed)
    }

    async fn compare(&self, before: &str) -> Result<Changed, GitError> {
        if !is_commit_id(before) || commit_of(self.git, before).await?.is_none() {
            return Ok(Changed::Unknown);
        }
        let head = &self.head.commit;
        let options = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", "--end-of-options"];
        let arguments = [&options[..], &[before, head]].concat();
        let ended = self.git.ended("compare with the head before", &arguments, LOOK).await?;
        let ended = self.git.check("compare with the head before", ended)?;
        let paths = ended.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let paths: Vec<String> = paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        Ok(if ended.cut || paths.len() > MAX_CHANGED { Changed::Unknown } else { Changed::Paths(paths) })
    }
}

/// Off the runtime's threads: the worst files take a good part of a second.
pub(in crate::forge) async fn read_if_tagged(path: &str, bytes: Vec<u8>) -> Option<Workflow> {
    let path = path.to_owned();
    off_the_runtime(move || workflow::read_if_tagged(&path, &bytes)).await
}

pub(in crate::forge) async fn read(path: &str, bytes: Vec<u8>) -> Workflow {
    let path = path.to_owned();
    off_the_runtime(move || workflow::read(&path, &bytes)).await
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => unreachable!("nobody cancels it: {error}"),
        },
    }
}

impl LocalRepository {
    pub(super) fn git(&self) -> Git {
        Git::of(&self.path, &self.git_dir)
    }

    /// The full id of a commit that must be there.
    pub(super) async fn commit(&self, git: &Git, commit: &str) -> Result<String, GitError> {
        let found = if is_commit_id(commit) { commit_of(git, commit).await? } else { None };
        found.ok_or_else(|| GitError::NoCommit { path: self.path.clone(), commit: commit.chars().take(80).collect() })
    }

    fn site<'a>(&'a self, head: &'a Head) -> Site<'a> {
        Site { source: &self.key, repository: &self.repository, head }
    }
}

/// A workflow's path, with its folder where that was left out.
pub(in crate::forge) fn full_path(path: &str) -> String {
    if path.contains('/') { path.to_owned() } else { format!("{FOLDER}{path}") }
}

/// Whether a path names a workflow file: one directly in the folder, with one of the two endings.
pub(in crate::forge) fn is_workflow(path: &str) -> bool {
    path.strip_prefix(FOLDER).is_some_and(|file| {
        !file.contains('/')
            && file.rsplit_once('.').is_some_and(|(name, end)| !name.is_empty() && matches!(end, "yml" | "yaml"))
    })
}

pub(in crate::forge) fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An entry of a tree.
#[derive(Debug)]
struct Entry {
    /// Nothing where it is not UTF-8.
    path: Option<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A file of a size that is read.
    File {
        blob: String,
    },
    NoFile(String),
}

/// What a tree holds at a path, or in a folder with a `/` at its end.
async fn entries(git: &Git, commit: &str, path: &str) -> Result<Vec<Entry>, GitError> {
    let arguments = ["ls-tree", "-z", "-l", "--full-tree", commit, "--", path];
    let listed = git.output("list workflow files", &arguments, LOOK).await?;
    let lines = listed.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    let entry = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let (head, path) = (std::str::from_utf8(&line[..tab]).ok()?, &line[tab + 1..]);
        let [mode, kind, blob, size] = *head.split_ascii_whitespace().collect::<Vec<_>>() else { return None };
        let what = match (mode, kind, size.parse::<usize>()) {
            ("120000", ..) => What::NoFile("it is a symbolic link, which GitHub does not follow either".to_owned()),
            (_, "commit", _) => What::NoFile("it is a submodule, not a file".to_owned()),
            (_, "tree", _) => What::NoFile("it is a folder, not a file".to_owned()),
            (_, _, Ok(size)) if size > workflow::MAX_BYTES => {
                What::NoFile(format!("it has {size} bytes; at most {} are read", workflow::MAX_BYTES))
            }
            (_, _, Ok(_)) => What::File { blob: blob.to_owned() },
            (_, _, Err(_)) => What::NoFile("its contents are missing in this partial clone".to_owned()),
        };
        Some(Entry { path: std::str::from_utf8(path).ok().map(str::to_owned), what })
    };
    let unreadable = || git.failed("list workflow files", "git's answer is not a list of a tree".to_owned());
    lines.map(|line| entry(line).ok_or_else(unreadable)).collect()
}

/// Reads blobs one after the other, by one call of git.
struct Blobs {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Those that are still to be asked for, first to last.
    asked: std::vec::IntoIter<String>,
    stdin: tokio::process::ChildStdin,
}

impl Blobs {
    fn open<'b>(git: &Git, blobs: impl IntoIterator<Item = &'b str>) -> Result<Self, GitError> {
        let mut command = git.command(&["cat-file", "--batch"]);
        let child = command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn();
        let mut child = child.map_err(|error| git.not_started(error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(git.failed("read workflow files", "git has no pipes".to_owned()));
        };
        let asked: Vec<String> = blobs.into_iter().map(str::to_owned).collect();
        Ok(Self { child, stdout: BufReader::new(stdout), asked: asked.into_iter(), stdin })
    }

    /// The next blob.
    async fn next(&mut self, git: &Git) -> Result<Vec<u8>, GitError> {
        let what = "read workflow files";
        timeout(LOOK, self.ask())
            .await
            .map_err(|_| git.too_long(what, LOOK))?
            .map_err(|error| git.failed(what, error.to_string()))
    }

    async fn ask(&mut self) -> std::io::Result<Vec<u8>> {
        let unread = |why: &str| std::io::Error::other(why.to_owned());
        let blob = self.asked.next().ok_or_else(|| unread("no more were asked for"))?;
        write(&mut self.stdin, format!("{blob}\n").as_bytes()).await?;
        let mut head = Vec::new();
        // `ID blob SIZE`, or `ID missing`.
        (&mut self.stdout).take(200).read_until(b'\n', &mut head).await?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let size = match *head.split_ascii_whitespace().collect::<Vec<_>>() {
            [_, "blob", size] => size.parse::<usize>().map_err(std::io::Error::other)?,
            _ => return Err(unread(&format!("git answers `{}`", head.trim()))),
        };
        if size > workflow::MAX_BYTES {
            return Err(unread("it is larger than its tree says"));
        }
        let mut bytes = vec![0; size + 1];
        self.stdout.read_exact(&mut bytes).await?;
        bytes.truncate(size);
        Ok(bytes)
    }

    async fn close(self, git: &Git) -> Result<(), GitError> {
        let Self { child, stdin, stdout, .. } = self;
        drop((stdin, stdout));
        git.end("read workflow files", child, LOOK).await.map(drop)
    }
}
