//! What a task gets to run on: a copy of exactly one commit, and nothing of the original.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use runmesh::forge::git::{GitError, History, checkout, resolve};

use crate::{Repo, TAGGED, git, source};

/// All regular files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_checkout_is_a_clone_of_its_own_at_exactly_that_commit() {
    let repo = Repo::with(&[("a", "1"), ("gone", "x"), ("crlf", "x\r\ny\r\n")]);
    let first = git(repo.path(), &["rev-parse", "HEAD"]);
    std::fs::remove_file(repo.path().join("gone")).expect("removes");
    std::os::unix::fs::symlink("a", repo.path().join("link")).expect("links");
    repo.write("run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(repo.path().join("run.sh"), PermissionsExt::from_mode(0o755)).expect("sets");
    let second = repo.commit(&[("a", "2"), ("dir/b", "2")]);
    repo.commit(&[("a", "3")]);
    repo.write("a", "dirty");
    git(repo.path(), &["remote", "add", "origin", "https://user:secret@github.com/octo/repo.git"]);
    let local = repo.local().await;

    let room = tempfile::tempdir().expect("a folder");
    let into = room.path().join("new/folder");
    checkout(&local, &second, "refs/heads/main", &into, History::Full).await.expect("copies");
    let read = |path: &str| std::fs::read(into.join(path)).expect("is there");
    assert_eq!((read("a"), read("dir/b"), read("crlf")), (b"2".to_vec(), b"2".to_vec(), b"x\r\ny\r\n".to_vec()));
    assert!(!into.join("gone").exists() && into.join("link").is_symlink());
    assert_eq!(std::fs::metadata(into.join("run.sh")).expect("is there").permissions().mode() & 0o111, 0o111);
    assert_eq!(git(&into, &["status", "--porcelain"]), "");
    assert_eq!(git(&into, &["rev-parse", "HEAD"]), second);
    assert_eq!(git(&into, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    assert_eq!(git(&into, &["log", "--format=%H"]), format!("{second}\n{first}"));
    assert_eq!(git(&into, &["remote", "get-url", "origin"]), "https://github.com/octo/repo.git");
    assert_eq!(git(&into, &["rev-parse", "origin/main"]), second);

    // Of its own: nothing points to the source, nothing is shared with it, and it is whole when the source is gone.
    assert!(
        files(&into).iter().all(|path| path.is_symlink() || std::fs::metadata(path).expect("is there").nlink() == 1)
    );
    assert!(!into.join(".git/objects/info/alternates").exists() && !into.join(".git/hooks").exists());
    let place = repo.path().to_string_lossy().into_owned();
    for file in files(&into.join(".git")) {
        let bytes = std::fs::read(&file).expect("reads");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(&place) && !text.contains("secret"), "{}", file.display());
    }
    drop(repo);
    git(&into, &["fsck", "--full", "--strict"]);

    let again = checkout(&local, &second, "refs/heads/main", &into, History::Full).await;
    assert!(
        matches!(again, Err(GitError::NoPath { .. } | GitError::NoGit(_) | GitError::Failed { .. })),
        "the source is gone: {again:?}"
    );
}

#[tokio::test]
async fn a_checkout_of_the_tip_has_no_history() {
    let repo = Repo::with(&[("a", "1")]);
    let commit = repo.commit(&[("a", "2"), (".github/workflows/w.yml", TAGGED)]);
    let room = tempfile::tempdir().expect("a folder");
    checkout(&repo.local().await, &commit, "HEAD", room.path(), History::Tip).await.expect("copies");
    assert_eq!(git(room.path(), &["log", "--format=%H"]), commit);
    assert_eq!(git(room.path(), &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD", "detached");
    assert_eq!(git(room.path(), &["remote", "get-url", "origin"]), {
        let name = repo.path().file_name().expect("a name").to_string_lossy().into_owned();
        format!("https://github.com.invalid/local/{name}.git")
    });
    git(room.path(), &["fsck", "--full", "--strict"]);
    assert_eq!(git(room.path(), &["status", "--porcelain"]), "");

    // A shallow clone has no more to give.
    let clone = tempfile::tempdir().expect("a folder");
    git(clone.path(), &["clone", "--quiet", "--depth=1", &format!("file://{}", repo.path().display()), "."]);
    let local = resolve(&source(Some("s"), clone.path())).await.expect("resolves").repositories.remove(0);
    let room = tempfile::tempdir().expect("a folder");
    checkout(&local, &commit, "refs/heads/main", room.path(), History::Full).await.expect("copies");
    git(room.path(), &["fsck", "--full", "--strict"]);
}

#[tokio::test]
async fn a_checkout_that_cannot_be_made_says_so() {
    let repo = Repo::with(&[("a", "1")]);
    let commit = git(repo.path(), &["rev-parse", "HEAD"]);
    let local = repo.local().await;
    let room = tempfile::tempdir().expect("a folder");
    let tree = git(repo.path(), &["rev-parse", "HEAD^{tree}"]);
    for missing in ["HEAD", "main", "-q", &"1".repeat(40), &tree] {
        let refused = checkout(&local, missing, "refs/heads/main", room.path(), History::Full).await;
        assert!(matches!(refused, Err(GitError::NoCommit { .. })), "{missing}: {refused:?}");
    }
    let refused = checkout(&local, &commit, "refs/heads/a..b", room.path(), History::Full).await;
    assert!(matches!(refused, Err(GitError::Failed { what: "set HEAD", .. })), "{refused:?}");
    let refused = checkout(&local, &commit, "refs/heads/main", room.path(), History::Full).await;
    assert!(matches!(refused, Err(GitError::NotEmpty { .. })), "{refused:?}");
    // Objects that are lost.
    let blob = git(repo.path(), &["rev-parse", "HEAD:a"]);
    std::fs::remove_file(repo.path().join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).expect("removes");
    let room = tempfile::tempdir().expect("a folder");
    let refused = checkout(&local, &commit, "refs/heads/main", room.path(), History::Full).await;
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains(&blob)), "{refused:?}");
}

#[tokio::test]
async fn a_commit_that_would_write_into_the_copys_own_git_folder_is_refused() {
    let repo = Repo::with(&[("config", "[core]\n\tsshCommand = evil\n")]);
    let blob = git(repo.path(), &["rev-parse", "HEAD:config"]);
    let make = |name: &str, entry: &str| {
        std::fs::write(repo.path().join("entry"), format!("{entry}\t{name}\n")).expect("writes");
        let file = std::fs::File::open(repo.path().join("entry")).expect("opens");
        let made = Command::new("git").args(["mktree"]).current_dir(repo.path()).stdin(file).output().expect("runs");
        assert!(made.status.success());
        String::from_utf8_lossy(&made.stdout).trim().to_owned()
    };
    for name in [".git", ".GIT", "..", ".git\u{200c}"] {
        let tree = make(name, &format!("040000 tree {}", make("config", &format!("100644 blob {blob}"))));
        let commit = git(repo.path(), &["commit-tree", &tree, "-m", "evil"]);
        git(repo.path(), &["update-ref", "refs/heads/evil", &commit]);
        let room = tempfile::tempdir().expect("a folder");
        let into = room.path().join("in");
        let refused = checkout(&repo.local().await, &commit, "refs/heads/evil", &into, History::Full).await;
        let config = std::fs::read_to_string(into.join(".git/config")).expect("is there");
        assert!(!config.contains("evil") && !room.path().join("config").exists(), "{name}");
        // On this file system the last three are names like others, apart from `..`.
        assert!(refused.is_err() || (name != ".git" && name != ".."), "{name}");
    }
}

#[tokio::test]
async fn a_commit_that_no_branch_holds_is_refused() {
    let repo = Repo::with(&[("a.txt", "one")]);
    let tree = git(repo.path(), &["rev-parse", "HEAD^{tree}"]);
    let stray = git(repo.path(), &["commit-tree", &tree, "-m", "of a pull request"]);
    git(repo.path(), &["update-ref", "refs/pull/1/head", &stray]);
    let room = tempfile::tempdir().expect("a folder");
    let into = room.path().join("in");
    let refused = checkout(&repo.local().await, &stray, "refs/heads/main", &into, History::Full).await;
    assert!(refused.expect_err("refused").to_string().contains("on no branch") && !into.exists());
    // What the owner has checked out is the owner's own choice, branch or none.
    git(repo.path(), &["checkout", "--quiet", "--detach", &stray]);
    checkout(&repo.local().await, &stray, "HEAD", &into, History::Full).await.expect("copies");
    assert_eq!(git(&into, &["rev-parse", "HEAD"]), stray);
}
