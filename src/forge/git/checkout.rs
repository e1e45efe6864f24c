//! A clean copy of one commit.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::command::{Git, LOOK, WALK, within, write};
use super::{GitError, LocalRepository};

/// How much history a copy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// All ancestors of the commit, as in a clone of its branch.
    Full,
    /// The commit alone, as `actions/checkout` does unless told otherwise.
    Tip,
}

/// The owner that a copy's `origin` has where the repository itself has none that others could reach.
const LOCAL_OWNER: &str = "local";

/// Makes a clone of its own in `into`, an empty folder or none yet: the files of exactly that commit, its objects
/// (no alternates, no hard links), and nothing of the source's settings, hooks, filters or credentials. HEAD is on the
/// branch that `ref` names (`refs/heads/…`), else detached. `origin` is the source's own, without credentials, if that is
/// a network address, else `https://github.com.invalid/local/NAME.git`: a name that never resolves, in the form that
/// programs read OWNER/NAME from. Files that a filter would make (such as Git LFS) are as they are in the repository. A
/// shallow source gives the commit alone.
///
/// # Errors
/// [`GitError::NoCommit`] when the source does not have it, [`GitError::Elsewhere`] when neither one of its branches
/// nor its HEAD does, [`GitError::NotEmpty`], or what git says. Then `into` may hold parts, for the caller to remove.
pub async fn checkout(
    repository: &LocalRepository,
    commit: &str,
    r#ref: &str,
    into: &Path,
    history: History,
) -> Result<(), GitError> {
    let source = repository.git();
    let commit = repository.commit(&source, commit).await?;
    // Whoever introduced the task may be a member that lies.
    let contains = format!("--contains={commit}");
    let branches = ["for-each-ref", "--count=1", "--format=%(refname)", &contains, "refs/heads", "refs/remotes"];
    if source.line("look whether a commit is on a branch", &branches).await?.is_none()
        && !is_at_head(&source, &commit).await?
    {
        return Err(GitError::Elsewhere { path: repository.path.clone(), commit });
    }
    let into = &within("make a folder", into, prepare(into)).await?;
    let here = Git::at(into);
    let copy = Git::of(into, &into.join(".git"));

    let format = source.line("look at a repository", &["rev-parse", "--show-object-format"]).await?;
    let format = format!("--object-format={}", format.as_deref().unwrap_or("sha1"));
    here.output("make a repository", &["init", "--quiet", "--template=", &format], LOOK).await?;

    let shallow = source.line("look at a repository", &["rev-parse", "--is-shallow-repository"]).await?;
    let tip = history == History::Tip || shallow.as_deref() == Some("true");
    copy_objects(&source, &copy, &commit, tip).await?;
    if tip {
        let boundary = into.join(".git").join("shallow");
        let written = tokio::fs::write(&boundary, format!("{commit}\n")).await;
        written.map_err(|error| copy.failed("write .git/shallow", error.to_string()))?;
    }

    let url = source.line("read origin", &["config", "--local", "--get", "remote.origin.url"]).await?;
    let url = origin(url.as_deref(), &repository.repository.name);
    check_out(&copy, &url, &commit, r#ref).await
}

/// Whether what the repository's owner has checked out stands on the commit, or is it: HEAD may be detached.
async fn is_at_head(source: &Git, commit: &str) -> Result<bool, GitError> {
    let asked = ["merge-base", "--is-ancestor", commit, "HEAD"];
    // Where there is no HEAD yet git says more than no.
    Ok(source.ended("look whether a commit is at HEAD", &asked, LOOK).await?.status.success())
}

/// Brings a commit that a copy has into its folder, with `origin` and HEAD named.
pub(super) async fn check_out(copy: &Git, url: &str, commit: &str, r#ref: &str) -> Result<(), GitError> {
    copy.output("name origin", &["config", "remote.origin.url", url], LOOK).await?;
    let refspec = "+refs/heads/*:refs/remotes/origin/*";
    copy.output("name origin", &["config", "remote.origin.fetch", refspec], LOOK).await?;
    match r#ref.strip_prefix("refs/heads/") {
        Some(branch) => {
            let tracking = format!("refs/remotes/origin/{branch}");
            copy.output("set HEAD", &["update-ref", &tracking, commit], LOOK).await?;
            copy.output("set HEAD", &["update-ref", r#ref, commit], LOOK).await?;
            copy.output("set HEAD", &["symbolic-ref", "HEAD", r#ref], LOOK).await?;
        }
        None => {
            copy.output("set HEAD", &["update-ref", "--no-deref", "HEAD", commit], LOOK).await?;
        }
    }
    copy.output("check out", &["reset", "--quiet", "--hard", commit], WALK).await.map(drop)
}

/// Sees to it that the folder is there and empty. Returns its full path.
pub(super) async fn prepare(into: &Path) -> Result<PathBuf, GitError> {
    let failed = |error| GitError::NoPath { path: into.to_owned(), error };
    tokio::fs::create_dir_all(into).await.map_err(failed)?;
    let mut entries = tokio::fs::read_dir(into).await.map_err(failed)?;
    match entries.next_entry().await.map_err(failed)? {
        None => tokio::fs::canonicalize(into).await.map_err(failed),
        Some(_) => Err(GitError::NotEmpty { path: into.to_owned() }),
    }
}

/// Copies a commit and what it stands on: one git packs, the other unpacks. Neither is a transport, so that no setting
/// of the source has a say.
async fn copy_objects(source: &Git, copy: &Git, commit: &str, tip: bool) -> Result<(), GitError> {
    let mut arguments = vec!["pack-objects", "--quiet", "--revs", "--stdout", "--delta-base-offset"];
    arguments.extend(tip.then_some("--shallow"));
    let mut packing =
        source.command(&arguments).stdin(Stdio::piped()).spawn().map_err(|error| source.not_started(error))?;
    let pipe = packing.stdout.take().map(TryInto::<Stdio>::try_into);
    let failed = |error: std::io::Error| source.failed("copy a commit", error.to_string());
    let pipe = pipe.unwrap_or_else(|| Err(std::io::Error::other("git has no pipe"))).map_err(failed)?;
    let mut unpack = copy.command(&["index-pack", "--stdin"]);
    let unpacking = unpack.stdin(pipe).spawn().map_err(|error| copy.not_started(error))?;
    // It holds the reading end of the pipe, without which the packing git would never hear that the other is gone.
    drop(unpack);
    if let Some(mut stdin) = packing.stdin.take() {
        let boundary = if tip { format!("--shallow {commit}\n") } else { String::new() };
        write(&mut stdin, format!("{boundary}{commit}\n").as_bytes()).await.map_err(failed)?;
    }
    let (packed, unpacked) =
        tokio::join!(source.end("copy a commit", packing, WALK), copy.end("copy a commit", unpacking, WALK));
    let what = "copy a commit";
    match (source.check(what, packed?), copy.check(what, unpacked?)) {
        (Ok(_), Ok(_)) => Ok(()),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(error),
        // Either may have failed first and the other for want of it: both are told.
        (Err(packed), Err(unpacked)) => Err(source.failed(what, format!("{packed}; {unpacked}"))),
    }
}

/// The `origin` of a copy.
fn origin(url: Option<&str>, name: &str) -> String {
    url.and_then(without_credentials).unwrap_or_else(|| {
        let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let name: String = name.chars().take(100).map(fits).collect();
        format!("https://github.com.invalid/{LOCAL_OWNER}/{name}.git")
    })
}

/// A network address without password, token or query; nothing where it is none.
fn without_credentials(url: &str) -> Option<String> {
    if url.len() > 1_000 || url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return None;
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        let (place, path) = rest.split_once('/')?;
        let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
        let path = path.split(['?', '#']).next().unwrap_or_default();
        return match scheme {
            "http" | "https" | "git" => Some(format!("{scheme}://{host}/{path}")),
            "ssh" | "git+ssh" | "ssh+git" => {
                let user =
                    user.and_then(|user| user.split(':').next()).map(|user| format!("{user}@")).unwrap_or_default();
                Some(format!("{scheme}://{user}{host}/{path}"))
            }
            _ => None,
        };
    }
    // `user@host:path`, git's short form of ssh, has no room for a password.
    let (place, path) = url.split_once(':')?;
    let (user, host) = place.split_once('@')?;
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    (plain(user) && plain(host) && !host.starts_with('-') && !path.starts_with(':')).then(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_carry_no_credentials() {
        for (url, expected) in [
            ("https://github.com/o/r.git", "https://github.com/o/r.git"),
            ("https://x-access-token:ghs_secret@github.com/o/r", "https://github.com/o/r"),
            ("https://token@host:8443/o/r?t=secret#x", "https://host:8443/o/r"),
            ("https://a@b:c@host/r", "https://host/r"),
            ("ssh://git:secret@host:22/o/r", "ssh://git@host:22/o/r"),
            ("git@github.com:o/r.git", "git@github.com:o/r.git"),
        ] {
            assert_eq!(origin(Some(url), "n"), expected);
        }
    }

    #[test]
    fn origins_that_others_cannot_reach_are_replaced() {
        let urls = [
            "/srv/r.git",
            "../r",
            "file:///srv/r",
            "ext::sh -c x",
            "C:\\r",
            "host:path",
            "-u@h:p\nx",
            "https://host",
            "a:b@c:d",
        ];
        for url in urls.map(Some).into_iter().chain([None]) {
            assert_eq!(origin(url, "my repo"), "https://github.com.invalid/local/my-repo.git", "{url:?}");
        }
    }
}
