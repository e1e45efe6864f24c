//! Which repositories a source means, and what they are called.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runmesh::forge::git::{GitError, resolve};

use crate::{Repo, TAGGED, discover, git, resolved, source};

#[tokio::test]
async fn a_folder_names_all_repositories_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["b", "a", ".hidden", "no-repository", "empty"] {
        std::fs::create_dir(path(name)).expect("makes it");
    }
    std::fs::write(path("file"), "x").expect("writes");
    for name in ["a", "b", ".hidden"] {
        git(&path(name), &["init", "--quiet"]);
        std::fs::write(path(name).join("f"), name).expect("writes");
        git(&path(name), &["add", "--all"]);
        git(&path(name), &["commit", "--quiet", "--message", name]);
    }
    git(&path("empty"), &["init", "--quiet"]);
    git(folder.path(), &["clone", "--quiet", "--bare", "a", "c.git"]);
    git(folder.path(), &["clone", "--quiet", "--depth=1", &format!("file://{}", path("b").display()), "shallow"]);

    let all = resolved(folder.path()).await;
    let names: Vec<&str> = all.repositories.iter().map(|local| local.repository.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    for word in ["c.git is the same repository as", "empty has no commits", "shallow is a shallow clone"] {
        assert!(all.warnings.iter().any(|warning| warning.contains(word)), "{word}: {:?}", all.warnings);
    }
    assert_eq!(all.warnings.len(), 3);

    // With a name, each is told from the others by its folder, and needs no root commit.
    let named = resolve(&source(Some("lab"), folder.path())).await.expect("resolves");
    let keys: Vec<&str> = named.repositories.iter().map(|local| local.key.as_str()).collect();
    assert_eq!(keys, ["git:lab/a", "git:lab/b", "git:lab/c", "git:lab/empty", "git:lab/shallow"]);
    assert_eq!(named.warnings, [""; 0]);

    let mut sum = resolved(&path("a")).await;
    sum.extend(resolved(&path("c.git")).await);
    sum.extend(resolved(&path("a")).await);
    assert_eq!((sum.repositories.len(), sum.warnings.len()), (1, 1), "a clone is told, the same path is not");
}

#[tokio::test]
async fn all_that_is_a_repository_is_taken_for_one() {
    let repo = Repo::with(&[(".github/workflows/w.yml", TAGGED)]);
    let others = tempfile::tempdir().expect("a folder");
    git(others.path(), &["clone", "--quiet", "--bare", &repo.path().to_string_lossy(), "bare.git"]);
    git(repo.path(), &["worktree", "add", "--quiet", "-b", "side", &others.path().join("tree").to_string_lossy()]);
    std::os::unix::fs::symlink(repo.path(), others.path().join("link")).expect("links");
    let key = repo.local().await.key;
    for (path, name, branch) in [
        (repo.path().join(".git"), repo.path().file_name().expect("a name").to_string_lossy().into_owned(), "main"),
        (others.path().join("bare.git"), "bare".to_owned(), "main"),
        (others.path().join("tree"), "tree".to_owned(), "side"),
        (others.path().join("link"), repo.path().file_name().expect("a name").to_string_lossy().into_owned(), "main"),
    ] {
        let local = resolved(&path).await.repositories.remove(0);
        assert_eq!((&local.key, &local.repository.name), (&key, &name), "{}", path.display());
        let findings = discover(&local, &BTreeMap::new()).await.expect("looks");
        assert_eq!(findings.workloads[0].r#ref, format!("refs/heads/{branch}"), "{}", path.display());
    }
}

#[tokio::test]
async fn of_several_roots_the_least_names_a_repository() {
    let repo = Repo::with(&[("a", "1")]);
    let one = git(repo.path(), &["rev-parse", "HEAD"]);
    git(repo.path(), &["checkout", "--quiet", "--orphan", "other"]);
    let two = repo.commit(&[("b", "2")]);
    git(repo.path(), &["merge", "--quiet", "--allow-unrelated-histories", "--message", "m", "main"]);
    assert_eq!(repo.local().await.repository.id, one.min(two));
}

#[tokio::test]
async fn a_path_that_is_none_says_what_to_do() {
    let repo = Repo::with(&[("sub/a", "1")]);
    let empty = tempfile::tempdir().expect("a folder");
    let error = async |path: PathBuf| resolve(&source(None, &path)).await.expect_err("names nothing");
    assert!(matches!(error(empty.path().to_owned()).await, GitError::NoRepository { .. }));
    assert!(
        matches!(error(repo.path().join("sub")).await, GitError::NoRepository { .. }),
        "not the repository above it"
    );
    assert!(matches!(error(repo.path().join("none")).await, GitError::NoPath { .. }));
    assert!(matches!(error(repo.path().join("sub/a")).await, GitError::NoPath { .. }), "a file");
    let text = error(empty.path().to_owned()).await.to_string();
    assert!(text.contains("give the folder that holds `.git`"), "{text}");
    // A broken one.
    std::fs::create_dir(empty.path().join(".git")).expect("makes it");
    assert!(matches!(error(empty.path().to_owned()).await, GitError::Failed { .. }));
}
