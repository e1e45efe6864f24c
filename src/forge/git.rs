//! Local git repositories, through the `git` program.
//!
//! Owns: finding repositories ([`resolve`]), looking into one ([`discover`], [`manual`], [`text`]) and making a clean copy
//! of one of its commits ([`checkout`]). Promises: a repository's own settings, hooks, filters and remotes never make
//! anything run or any network be asked; nothing in it is written; every call has a deadline.

mod checkout;
mod command;
mod discover;
mod fetch;
mod resolve;

use std::path::PathBuf;

use crate::kernel::io::SourceKey;
use crate::kernel::task::Repository;

pub use checkout::{History, checkout};
pub use discover::{discover, manual, text};
pub(super) use discover::{full_path, is_commit_id, is_workflow, read, read_if_tagged};
pub(super) use fetch::fetch;
pub use resolve::{Resolved, resolve};

/// The host of all local repositories, in [`Repository::host`].
pub const HOST: &str = "git";
/// Where workflow files live in a repository.
pub const FOLDER: &str = ".github/workflows/";

/// A git repository on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRepository {
    /// `git:ID`, alike on all hosts.
    pub key: SourceKey,
    pub repository: Repository,
    /// Its folder: the one that holds `.git`, or the bare repository itself.
    pub path: PathBuf,
    /// Where its objects and refs are.
    git_dir: PathBuf,
}

/// What went wrong with a local repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("run git: {0}; install git 2.38 or later, and see that it is on the PATH")]
    NoGit(std::io::Error),
    #[error("{what} in {}: no end after {seconds} s", path.display())]
    Deadline { what: &'static str, path: PathBuf, seconds: u64 },
    #[error("{what} in {}: {message}", path.display())]
    Failed { what: &'static str, path: PathBuf, message: String },
    #[error("open {}: {error}", path.display())]
    NoPath { path: PathBuf, error: std::io::Error },
    #[error(
        "{} is neither a git repository nor a folder of them: give the folder that holds `.git`, a bare repository, or the folder \
         above several; `git init` makes one", path.display()
    )]
    NoRepository { path: PathBuf },
    #[error("{} has no commits yet, so nothing names it: commit something, or name it as git:NAME=PATH", path.display())]
    NoCommits { path: PathBuf },
    #[error(
        "{} is a shallow clone, whose root commit is unknown: run `git fetch --unshallow` in it, or name it as git:NAME=PATH",
        path.display()
    )]
    Shallow { path: PathBuf },
    #[error("commit {commit} is not in {}: fetch it there, or let a host run the task that has it", path.display())]
    NoCommit { path: PathBuf, commit: String },
    #[error("commit {commit} is on no branch of {}, nor at its HEAD: this host runs only what is", path.display())]
    Elsewhere { path: PathBuf, commit: String },
    #[error("check out into {}: it is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("submit {workflow} of {}: {why}", path.display())]
    Refused { path: PathBuf, workflow: String, why: String },
}
