//! One call of the `git` program: its surroundings, its deadline, its output.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::GitError;

/// How long a look into a repository may take; only a disk that does not answer takes so long.
pub(super) const LOOK: Duration = Duration::from_secs(60);
/// How long a walk through a whole history, or a copy of one, may take.
pub(super) const WALK: Duration = Duration::from_secs(600);
/// The most output that is read of one call, in bytes.
pub(super) const MAX_OUTPUT: usize = 8 << 20;
/// The most that is kept of what git says of a failure, in bytes.
const MAX_MESSAGE: usize = 1_000;
/// How long a child that was killed may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// A way of calling git in one place.
#[derive(Debug, Clone)]
pub(super) struct Git {
    /// Where it is called, which is also what errors name.
    folder: PathBuf,
    /// Nothing where git itself shall find out.
    git_dir: Option<PathBuf>,
}

/// How a call ended that was not cut off.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    /// Its first lines.
    pub(super) stderr: String,
    /// Whether there was more output than is read.
    pub(super) cut: bool,
}

impl Git {
    /// In a repository whose git directory is known.
    pub(super) fn of(folder: &Path, git_dir: &Path) -> Self {
        Self { folder: folder.to_owned(), git_dir: Some(git_dir.to_owned()) }
    }

    /// In a folder that may be a repository. Folders above it are not looked at.
    pub(super) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), git_dir: None }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The command, with surroundings in which nothing but its arguments and the objects of the repository matter.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        for kept in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.envs([
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            // The objects as they are: no replacements, no grafts, and what a partial clone lacks stays lacking.
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_GRAFT_FILE", "/dev/null"),
            ("GIT_NO_LAZY_FETCH", "1"),
            // No transport at all, for versions that do not know the line above.
            ("GIT_ALLOW_PROTOCOL", ""),
        ]);
        if let Some(above) = self.folder.parent() {
            command.env("GIT_CEILING_DIRECTORIES", above);
        }
        // What a repository's own settings could make git run. Its owner need not be this user: the operator has named
        // the folder, and nothing of it is executed.
        for setting in [
            "safe.directory=*",
            "core.fsmonitor=false",
            "core.hooksPath=/dev/null",
            "core.attributesFile=/dev/null",
            "core.pager=cat",
            "core.untrackedCache=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "protocol.allow=never",
        ] {
            command.args(["-c", setting]);
        }
        if let Some(git_dir) = &self.git_dir {
            command.arg("--git-dir").arg(git_dir);
        }
        command.args(["--no-optional-locks", "--no-pager"]).args(arguments);
        command.current_dir(&self.folder).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Calls git and waits for its end.
    ///
    /// # Errors
    /// Only when it did not start or did not end in time; a failure of its own is in the answer.
    pub(super) async fn ended(
        &self,
        what: &'static str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Ended, GitError> {
        let child = self.command(arguments).spawn().map_err(|error| self.not_started(error))?;
        self.end(what, child, deadline).await
    }

    /// Waits for the end of a child whose input is somebody else's to write.
    pub(super) async fn end(
        &self,
        what: &'static str,
        mut child: Child,
        deadline: Duration,
    ) -> Result<Ended, GitError> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (stdout, stderr) = tokio::join!(read(stdout, MAX_OUTPUT), read(stderr, MAX_MESSAGE));
            let ((stdout, cut), (stderr, _)) = (stdout?, stderr?);
            let status = child.wait().await?;
            Ok(Ended { status, stdout, stderr: String::from_utf8_lossy(&stderr).trim().to_owned(), cut })
        };
        let ended: Result<std::io::Result<Ended>, _> = timeout(deadline, work).await;
        match ended {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => Err(self.failed(what, error.to_string())),
            Err(_) => {
                drop(timeout(GONE, child.kill()).await);
                Err(self.too_long(what, deadline))
            }
        }
    }

    /// Calls git and returns its output; a failure of its own is an error.
    pub(super) async fn output(
        &self,
        what: &'static str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let ended = self.ended(what, arguments, deadline).await?;
        if ended.cut {
            return Err(self.failed(what, format!("git answers with more than {MAX_OUTPUT} bytes")));
        }
        self.check(what, ended).map(|ended| ended.stdout)
    }

    /// Calls git and returns its one line of output; nothing where it says no, by exit status 1 or by silence.
    pub(super) async fn line(&self, what: &'static str, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let ended = self.ended(what, arguments, LOOK).await?;
        match ended.status.code() {
            Some(1) => Ok(None),
            _ => {
                let ended = self.check(what, ended)?;
                let line = String::from_utf8_lossy(&ended.stdout).trim_end_matches('\n').to_owned();
                Ok((!line.is_empty()).then_some(line))
            }
        }
    }

    pub(super) fn check(&self, what: &'static str, ended: Ended) -> Result<Ended, GitError> {
        if ended.status.success() {
            return Ok(ended);
        }
        let said = if ended.stderr.is_empty() { "git says nothing more" } else { &ended.stderr };
        Err(self.failed(what, format!("{said} ({})", ended.status)))
    }

    pub(super) fn not_started(&self, error: std::io::Error) -> GitError {
        // The folder may be gone as well as the program.
        if self.folder.is_dir() {
            GitError::NoGit(error)
        } else {
            GitError::NoPath { path: self.folder.clone(), error }
        }
    }

    pub(super) fn failed(&self, what: &'static str, message: String) -> GitError {
        GitError::Failed { what, path: self.folder.clone(), message }
    }

    pub(super) fn too_long(&self, what: &'static str, deadline: Duration) -> GitError {
        GitError::Deadline { what, path: self.folder.clone(), seconds: deadline.as_secs() }
    }
}

/// Awaits what the file system answers, which a network disk may never do.
pub(super) async fn within<T>(
    what: &'static str,
    path: &Path,
    work: impl Future<Output = Result<T, GitError>>,
) -> Result<T, GitError> {
    let late = GitError::Deadline { what, path: path.to_owned(), seconds: LOOK.as_secs() };
    timeout(LOOK, work).await.unwrap_or(Err(late))
}

/// Writes to a child. One that ends without reading it all says itself why.
pub(super) async fn write(stdin: &mut ChildStdin, input: &[u8]) -> std::io::Result<()> {
    match stdin.write_all(input).await {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Reads to the end and keeps at most so many bytes. Whether there were more.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: usize) -> std::io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let Some(mut pipe) = pipe else { return Ok((bytes, false)) };
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    (&mut pipe).take(limit).read_to_end(&mut bytes).await?;
    let more = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok((bytes, more > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = Git::at(folder.path());
        git.output("make", &["init", "--quiet"], LOOK).await.expect("makes a repository");
        // It waits for input that never comes, for this end of its pipe stays open.
        let mut command = git.command(&["cat-file", "--batch"]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("starts");
        let (id, stdin) = (child.id().expect("runs"), child.stdin.take());
        let ended = git.end("wait", child, Duration::from_millis(50)).await;
        assert!(matches!(ended, Err(GitError::Deadline { what: "wait", .. })), "{ended:?}");
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "and is gone");
        drop(stdin);
    }

    #[tokio::test]
    async fn failures_say_what_git_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = Git::at(folder.path());
        let failed = git.output("look", &["rev-parse", "--absolute-git-dir"], LOOK).await;
        assert!(failed.is_err_and(|error| error.to_string().contains("not a git repository")));
        let gone = Git::at(&folder.path().join("gone")).output("look", &["version"], LOOK).await;
        assert!(matches!(gone, Err(GitError::NoPath { .. })), "{gone:?}");
    }

    #[tokio::test]
    async fn output_is_bounded_and_all_of_it_is_read() {
        let (bytes, more) = read(Some(&[7_u8; 100][..]), 10).await.expect("reads");
        assert_eq!((bytes.len(), more), (10, true));
        let (bytes, more) = read(Some(&[7_u8; 10][..]), 10).await.expect("reads");
        assert_eq!((bytes.len(), more), (10, false));
    }
}
