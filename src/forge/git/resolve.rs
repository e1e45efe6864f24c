//! From a path to the repositories it names, and to the commit that each stands at.

use std::path::{Path, PathBuf};

use crate::kernel::task::Repository;

use super::super::{GitSource, Head};
use super::command::{Git, LOOK, WALK, within};
use super::{GitError, HOST, LocalRepository};

/// The most repositories of one folder.
const MAX_REPOSITORIES: usize = 1_000;
/// Branches that are taken for the default one where HEAD names none, in this order.
const DEFAULT_BRANCHES: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// The repositories that paths name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// By path. No two of the same id.
    pub repositories: Vec<LocalRepository>,
    /// What an operator should know: clones of one repository, folders left out and why.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// Adds what another path names. Of two clones of the same repository the first stays, and that is told.
    pub fn extend(&mut self, other: Self) {
        self.warnings.extend(other.warnings);
        for repository in other.repositories {
            self.add(repository);
        }
    }

    fn add(&mut self, repository: LocalRepository) {
        match self.repositories.iter().find(|known| known.key == repository.key) {
            None => self.repositories.push(repository),
            Some(known) if known.path == repository.path => {}
            Some(known) => self.warnings.push(format!(
                "{} is the same repository as {} ({}), which is used; if it is not, name it as git:NAME=PATH",
                repository.path.display(),
                known.path.display(),
                known.key,
            )),
        }
    }
}

/// Finds the repositories that a source names: the one at its path, bare or not, or those in the folder at its path
/// (one level deep; the first 1,000 by name, hidden folders left out).
///
/// A repository's id is the operator's name for it, else its root commit, the least where it has several.
///
/// # Errors
/// When the path is neither, when git does not run, or when the one repository there cannot be told from others. In a
/// folder, a repository that has a fault is left out with a warning.
pub async fn resolve(source: &GitSource) -> Result<Resolved, GitError> {
    let mut resolved = Resolved::default();
    match within("look for repositories", &source.path, look(&source.path)).await? {
        Looked::Repository(path) => resolved.repositories.push(open(&path, source.name.clone()).await?),
        Looked::Folder { path, repositories } => {
            if repositories.is_empty() {
                return Err(GitError::NoRepository { path });
            }
            if repositories.len() > MAX_REPOSITORIES {
                let count = repositories.len();
                let text =
                    format!("{} holds {count} repositories; the first {MAX_REPOSITORIES} are taken", path.display());
                resolved.warnings.push(text);
            }
            for path in repositories.iter().take(MAX_REPOSITORIES) {
                let name = source.name.as_ref().map(|name| format!("{name}/{}", folder_name(path)));
                match open(path, name).await {
                    Ok(repository) => resolved.add(repository),
                    Err(error @ GitError::NoGit(_)) => return Err(error),
                    Err(error) => resolved.warnings.push(format!("left out: {error}")),
                }
            }
        }
    }
    Ok(resolved)
}

/// What stands at a path.
enum Looked {
    Repository(PathBuf),
    /// A folder, and what in it looks like a repository, by name.
    Folder {
        path: PathBuf,
        repositories: Vec<PathBuf>,
    },
}

async fn look(path: &Path) -> Result<Looked, GitError> {
    let no_path = |error| GitError::NoPath { path: path.to_owned(), error };
    let path = tokio::fs::canonicalize(path).await.map_err(no_path)?;
    if looks_like_repository(&path).await {
        return Ok(Looked::Repository(path));
    }
    let mut repositories = Vec::new();
    let mut entries = tokio::fs::read_dir(&path).await.map_err(no_path)?;
    while let Some(entry) = entries.next_entry().await.map_err(no_path)? {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && looks_like_repository(&entry.path()).await {
            repositories.push(entry.path());
        }
    }
    repositories.sort();
    Ok(Looked::Folder { path, repositories })
}

/// Whether the folder holds what makes a repository; git is asked only of those.
async fn looks_like_repository(path: &Path) -> bool {
    let has = async |name: &str| tokio::fs::try_exists(path.join(name)).await.unwrap_or(false);
    has(".git").await || (has("HEAD").await && has("objects").await && has("refs").await)
}

async fn open(path: &Path, name: Option<String>) -> Result<LocalRepository, GitError> {
    let git = Git::at(path);
    let git_dir = git.output("look for a repository", &["rev-parse", "--absolute-git-dir"], LOOK).await?;
    let git_dir = into_path(git_dir);
    // A person may name `.git` itself.
    let path = match path.parent() {
        Some(parent) if path.file_name().is_some_and(|name| name == ".git") => parent,
        _ => path,
    };
    let git = Git::of(path, &git_dir);
    let id = match name {
        Some(name) => name,
        None => root_commit(&git).await?,
    };
    let repository = Repository { host: HOST.to_owned(), id: id.clone(), name: folder_name(path) };
    Ok(LocalRepository { key: format!("{HOST}:{id}"), repository, path: path.to_owned(), git_dir })
}

async fn root_commit(git: &Git) -> Result<String, GitError> {
    let path = || git.folder().to_owned();
    if git.line("look at a repository", &["rev-parse", "--is-shallow-repository"]).await?.as_deref() == Some("true") {
        return Err(GitError::Shallow { path: path() });
    }
    let Some(head) = head(git, &mut Vec::new()).await? else {
        return Err(GitError::NoCommits { path: path() });
    };
    let roots = git.output("look for the root commit", &["rev-list", "--max-parents=0", &head.commit], WALK).await?;
    let roots = String::from_utf8_lossy(&roots);
    roots.lines().min().map(str::to_owned).ok_or_else(|| GitError::NoCommits { path: path() })
}

/// The commit that a repository stands at: that of the branch that HEAD names. Where HEAD names no branch (detached) or
/// one without commits, it is that of the default branch as far as that can be known (origin's, `main`, `master`, or the
/// only one), which is warned of; where there is no branch at all, HEAD's own commit. Nothing in an empty repository.
pub(super) async fn head(git: &Git, warnings: &mut Vec<String>) -> Result<Option<Head>, GitError> {
    let named = git.line("read HEAD", &["symbolic-ref", "--quiet", "HEAD"]).await?;
    if let Some(r#ref) = &named
        && let Some(commit) = commit_of(git, r#ref).await?
    {
        return Ok(Some(Head { r#ref: r#ref.clone(), commit }));
    }
    let origin = git.line("read origin's HEAD", &["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"]).await?;
    let origin = origin.and_then(|name| Some(format!("refs/heads/{}", name.strip_prefix("refs/remotes/origin/")?)));
    let arguments = ["for-each-ref", "--count=2", "--format=%(refname)", "refs/heads/"];
    let branches = git.output("list branches", &arguments, LOOK).await?;
    let branches = String::from_utf8_lossy(&branches).into_owned();
    let only = branches.lines().next().filter(|_| branches.lines().count() == 1);
    let candidates = origin.iter().map(String::as_str).chain(DEFAULT_BRANCHES).chain(only);
    let why = match &named {
        Some(branch) => format!("HEAD names {branch}, which has no commits"),
        None => "HEAD is detached".to_owned(),
    };
    for candidate in candidates {
        if let Some(commit) = commit_of(git, candidate).await? {
            warnings.push(format!("{}: {why}; {candidate} is looked at", git.folder().display()));
            return Ok(Some(Head { r#ref: candidate.to_owned(), commit }));
        }
    }
    if named.is_some() {
        return Ok(None);
    }
    let commit = commit_of(git, "HEAD").await?;
    if commit.is_some() {
        warnings
            .push(format!("{}: {why} and no branch is the default; its commit is looked at", git.folder().display()));
    }
    Ok(commit.map(|commit| Head { r#ref: "HEAD".to_owned(), commit }))
}

/// The commit that a name stands for.
pub(super) async fn commit_of(git: &Git, name: &str) -> Result<Option<String>, GitError> {
    let name = format!("{name}^{{commit}}");
    git.line("look up a commit", &["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).await
}

/// What people call a repository: its folder, without the `.git` of a bare one.
fn folder_name(path: &Path) -> String {
    let name = path.file_name().map_or_else(|| "repository".into(), |name| name.to_string_lossy().into_owned());
    match name.strip_suffix(".git") {
        Some(bare) if !bare.is_empty() => bare.to_owned(),
        _ => name,
    }
}

#[cfg(unix)]
fn into_path(mut line: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    std::ffi::OsString::from_vec(line).into()
}

#[cfg(not(unix))]
fn into_path(line: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).into()
}
