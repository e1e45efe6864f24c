//! The forge room against real git repositories.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use runmesh::forge::git as local_git;
use runmesh::forge::git::{GitError, History, LocalRepository, Resolved, checkout, resolve, text};
use runmesh::forge::{Asked, Findings, Found, GitSource};
use runmesh::kernel::known::{Known, KnownWorkflow};
use runmesh::kernel::task::{Policy, Priority, RunEvent, Tag, Trigger, Workload};
use tempfile::TempDir;

const TAGGED: &str = "# P2P: p2p-only\nname: Tagged\non: push\njobs: {a: {runs-on: Linux, steps: [{run: x}]}}\n";
const W: &str = ".github/workflows/";
/// The present minute.
const MINUTE: u64 = 28_400_000;

/// Calls git as a person would who has no settings.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.org",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(["-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "2024-01-01T00:00:00Z")
        .env("GIT_COMMITTER_DATE", "2024-01-01T00:00:00Z")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository in a folder of its own.
struct Repo {
    folder: TempDir,
}

impl Repo {
    /// One commit with these files.
    fn with(files: &[(&str, &str)]) -> Self {
        let repo = Self { folder: tempfile::tempdir().expect("a folder") };
        git(repo.path(), &["init", "--quiet"]);
        repo.commit(files);
        repo
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes it");
        std::fs::write(path, text).expect("writes");
    }

    fn commit(&self, files: &[(&str, &str)]) -> String {
        files.iter().for_each(|(path, text)| self.write(path, text));
        git(self.path(), &["add", "--all"]);
        git(self.path(), &["commit", "--quiet", "--allow-empty", "--message", "x"]);
        git(self.path(), &["rev-parse", "HEAD"])
    }

    async fn local(&self) -> LocalRepository {
        resolved(self.path()).await.repositories.remove(0)
    }

    async fn findings(&self) -> Findings {
        discover(&self.local().await, &BTreeMap::new()).await.expect("looks")
    }
}

/// A look where the mesh knows these heads to be submitted.
async fn discover(local: &LocalRepository, submitted: &BTreeMap<String, String>) -> Result<Findings, GitError> {
    let of = |head: &String| KnownWorkflow { pushed: Some(head.clone()), ..KnownWorkflow::default() };
    let workflows = submitted.iter().map(|(path, head)| (path.clone(), of(head))).collect();
    local_git::discover(local, &Known { workflows }, MINUTE).await
}

async fn manual(
    local: &LocalRepository,
    path: &str,
    inputs: &BTreeMap<String, String>,
    request: &str,
    priority: Option<Priority>,
) -> Result<Workload, GitError> {
    local_git::manual(local, path, &Asked { inputs: inputs.clone(), request: request.to_owned(), priority }).await
}

fn source(name: Option<&str>, path: &Path) -> GitSource {
    GitSource { name: name.map(str::to_owned), path: path.to_owned() }
}

async fn resolved(path: &Path) -> Resolved {
    resolve(&source(None, path)).await.expect("resolves")
}

fn found<'f>(findings: &'f Findings, file: &str) -> &'f Found {
    let path = format!("{W}{file}");
    findings.workflows.iter().find(|found| found.path == path).unwrap_or_else(|| panic!("no {file} in {findings:?}"))
}

fn workload<'f>(findings: &'f Findings, file: &str) -> Option<&'f Workload> {
    let path = format!("{W}{file}");
    findings.workloads.iter().find(|workload| workload.path == path)
}

fn why_not<'f>(findings: &'f Findings, file: &str) -> &'f str {
    assert_eq!(workload(findings, file), None);
    found(findings, file).why_not.as_deref().expect("says why not")
}

#[tokio::test]
async fn a_workflow_is_read_at_the_head_whatever_the_working_tree_holds() {
    let repo = Repo { folder: tempfile::tempdir().expect("a folder") };
    git(repo.path(), &["init", "--quiet", "--initial-branch=trunk"]);
    let text = "name: Build\r\non:\r\n  push:\r\n    branches: [trunk]\r\nenv:\r\n  P2P_TAGS: p2p-eligible, fast\r\njobs:\r\n  a:\r\n    runs-on: [Self-Hosted, Linux]\r\n    timeout-minutes: 5\r\n";
    let commit = repo.commit(&[(".github/workflows/build.yaml", text), ("README.md", "# P2P: p2p-only\n")]);
    // A dirty tree: changed, added, and staged.
    repo.write(".github/workflows/build.yaml", "# P2P: p2p-only\n");
    repo.write(".github/workflows/new.yml", TAGGED);
    git(repo.path(), &["add", "--all"]);

    let local = repo.local().await;
    assert_eq!(local.key, format!("git:{commit}"));
    assert_eq!((local.repository.host.as_str(), local.repository.id.as_str()), ("git", commit.as_str()));
    assert_eq!(local.repository.name, repo.path().file_name().expect("a name").to_string_lossy());
    let findings = repo.findings().await;
    assert_eq!(findings.workflows.len(), 1);
    let build = found(&findings, "build.yaml");
    assert_eq!(
        (build.name.as_str(), build.commit.as_str(), build.source.as_str()),
        ("Build", commit.as_str(), local.key.as_str())
    );
    assert_eq!(
        (&build.tags, build.priority, &build.why_not),
        (&[Tag::P2pEligible].into(), Priority::new(6).expect("a priority"), &None)
    );
    assert_eq!((build.dropped.len(), build.dropped[0].word.as_str(), build.dropped[0].line), (1, "fast", 6));
    assert_eq!(
        findings.workloads,
        [Workload {
            repository: local.repository.clone(),
            path: ".github/workflows/build.yaml".to_owned(),
            trigger: Trigger::Push { r#ref: "refs/heads/trunk".to_owned(), commit: commit.clone() },
            commit,
            r#ref: "refs/heads/trunk".to_owned(),
            event: RunEvent::Push,
            name: "Build".to_owned(),
            tags: [Tag::P2pEligible].into(),
            priority: Priority::new(6).expect("a priority"),
            labels: ["linux", "self-hosted"].map(str::to_owned).into(),
            inputs: BTreeMap::new(),
            time_limit_s: 300,
            fallback_s: 600,
        }]
    );
    assert_eq!(findings.workloads[0].policy(), Policy::MeshFirst);
}

#[tokio::test]
async fn triggers_and_tags_decide_what_runs() {
    let workflow = |tags: &str, on: &str| format!("# Tags: {tags}\non: {on}\njobs: {{a: {{runs-on: x}}}}\n");
    let files = [
        ("push.yml", workflow("p2p-only", "push")),
        ("dispatch.yml", workflow("p2p-only", "workflow_dispatch")),
        ("schedule.yml", workflow("p2p-only", "{schedule: [{cron: '0 0 * * *'}]}")),
        ("both.yml", workflow("p2p-only", "[workflow_dispatch, push]")),
        ("other-branch.yml", workflow("p2p-only", "{push: {branches: [release/**]}}")),
        ("only-tags.yml", workflow("p2p-only", "{push: {tags: ['v*']}, workflow_dispatch: }")),
        ("release.yml", workflow("p2p-only", "[release, pull_request]")),
        ("no-on.yml", "# P2P: p2p-only\njobs: {a: {runs-on: x}}\n".to_owned()),
        ("no-jobs.yml", "# P2P: p2p-only\non: push\n".to_owned()),
        ("untagged.yml", "on: push\njobs: {a: {runs-on: x}}\n".to_owned()),
        ("invalid.yml", workflow("p2p, mesh", "push")),
        ("githubs.yml", workflow("unit-test, github-api", "push")),
        ("scraping.yml", workflow("web-scraping", "push")),
        ("not-yaml.yml", "# P2P: p2p-only\non: push: x: [\n".to_owned()),
        ("bomb.yml", format!("# P2P: p2p-only\na: &a [{}]\nb: [{}]\n", "x,".repeat(100_000), "*a,".repeat(100_000))),
        ("script.yml", "on: push\njobs:\n  a:\n    steps:\n      - run: |\n          # P2P: p2p-only\n".to_owned()),
        ("expression.yml", "# P2P: p2p-only\non: push\njobs: {a: {runs-on: [l, '${{ inputs.x }}']}}\n".to_owned()),
    ];
    let files: Vec<(String, &str)> = files.iter().map(|(file, text)| (format!("{W}{file}"), text.as_str())).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let repo = Repo::with(&files);
    let findings = repo.findings().await;
    assert_eq!(findings.workflows.len(), files.len());
    assert!(findings.workflows.is_sorted_by(|a, b| a.path < b.path));

    let blob = |file: &str| git(repo.path(), &["rev-parse", &format!("HEAD:{W}{file}")]);
    for (file, event) in [("dispatch.yml", RunEvent::WorkflowDispatch), ("schedule.yml", RunEvent::Schedule)] {
        let workload = workload(&findings, file).expect("runs");
        assert_eq!((&workload.trigger, workload.event), (&Trigger::Revision { blob: blob(file) }, event), "{file}");
        assert_eq!(found(&findings, file).why_not, None);
    }
    let head = git(repo.path(), &["rev-parse", "HEAD"]);
    for file in ["push.yml", "both.yml", "scraping.yml", "expression.yml"] {
        let workload = workload(&findings, file).expect("runs");
        assert_eq!(
            workload.trigger,
            Trigger::Push { r#ref: "refs/heads/main".to_owned(), commit: head.clone() },
            "{file}"
        );
        assert_eq!(workload.event, RunEvent::Push);
    }
    assert_eq!(workload(&findings, "expression.yml").expect("runs").labels, ["l".to_owned()].into());
    for (file, word) in [
        ("other-branch.yml", "refs/heads/main"),
        ("only-tags.yml", "refs/heads/main"),
        ("release.yml", "only `pull_request`, `release`"),
        ("no-on.yml", "no `on:`"),
        ("no-jobs.yml", "no jobs"),
        ("untagged.yml", "no tags"),
        ("invalid.yml", "no tags"),
        ("githubs.yml", "stays with GitHub"),
        ("not-yaml.yml", "not YAML"),
        ("bomb.yml", "expand"),
        ("script.yml", "no tags"),
    ] {
        assert!(why_not(&findings, file).contains(word), "{file}: {}", why_not(&findings, file));
    }
    assert_eq!(found(&findings, "invalid.yml").dropped.len(), 2);
    assert_eq!(found(&findings, "not-yaml.yml").tags, [Tag::P2pOnly].into());
    assert!(findings.warnings.iter().any(|warning| warning.contains("not-yaml.yml") && warning.contains("not YAML")));
    assert!(
        findings
            .warnings
            .iter()
            .any(|warning| warning.contains("expression.yml") && warning.contains("${{ inputs.x }}"))
    );
    assert_eq!(findings.workloads.len(), 6);

    let mut ids: Vec<_> = findings.workloads.iter().map(Workload::id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "each has its own id");
    assert_eq!(repo.findings().await, findings, "and a second look finds the same");
}

#[tokio::test]
async fn path_filters_look_at_what_changed_since_the_last_submitted_head() {
    let text = "# P2P: p2p-only\non: {push: {paths: ['src/**', '!**.md']}}\njobs: {a: {runs-on: x}}\n";
    let repo = Repo::with(&[(".github/workflows/w.yml", text), ("src/a", "1")]);
    let first = git(repo.path(), &["rev-parse", "HEAD"]);
    let local = repo.local().await;
    let runs = async |before: &str| {
        let submitted = BTreeMap::from([(format!("{W}w.yml"), before.to_owned())]);
        let findings = discover(&local, &submitted).await.expect("looks");
        assert_eq!(findings.workloads.is_empty(), found(&findings, "w.yml").why_not.is_some());
        !findings.workloads.is_empty()
    };
    assert!(runs(&first).await, "the same head is the same task");
    let second = repo.commit(&[("docs/a", "1"), ("src/README.md", "1")]);
    assert!(!runs(&first).await);
    assert!(runs(&second).await);
    assert!(!repo.findings().await.workloads.is_empty(), "without an earlier head it runs");
    assert!(runs(&"0".repeat(40)).await, "and with one that nobody knows");
    assert!(runs("HEAD").await && runs("--output=x").await, "and with one that is none");
    repo.commit(&[("src/b", "1")]);
    assert!(runs(&first).await && runs(&second).await);
    git(repo.path(), &["mv", "src/b", "b"]);
    let third = repo.commit(&[]);
    assert!(!runs(&second).await, "the sum of both changes nothing there");
    assert!(runs(&third).await);
}

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

#[tokio::test]
async fn a_repository_without_commits_has_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    git(folder.path(), &["init", "--quiet"]);
    assert!(matches!(resolve(&source(None, folder.path())).await, Err(GitError::NoCommits { .. })));
    let named = resolve(&source(Some("new"), folder.path())).await.expect("has a name").repositories.remove(0);
    let findings = discover(&named, &BTreeMap::new()).await.expect("looks");
    assert_eq!((findings.workflows.len(), findings.workloads.len(), findings.warnings.len()), (0, 0, 1));
    let refused = manual(&named, "w.yml", &BTreeMap::new(), "r", None).await.expect_err("nothing there");
    assert!(refused.to_string().contains("no commits yet"));
    let repo = Repo::with(&[("a", "1")]);
    assert_eq!(repo.findings().await, Findings::default(), "nor one without workflows");
}

#[tokio::test]
async fn a_head_that_is_no_branch_gives_way_to_the_default_branch() {
    let repo = Repo::with(&[(".github/workflows/w.yml", TAGGED)]);
    let main = git(repo.path(), &["rev-parse", "HEAD"]);
    git(repo.path(), &["checkout", "--quiet", "--detach"]);
    let detached = repo.commit(&[("a", "1")]);
    let findings = repo.findings().await;
    assert_eq!(
        (findings.workloads[0].commit.as_str(), findings.workloads[0].r#ref.as_str()),
        (main.as_str(), "refs/heads/main")
    );
    assert!(findings.warnings.iter().any(|warning| warning.contains("HEAD is detached")));
    // Several branches, none of them the default as far as one can tell.
    git(repo.path(), &["branch", "--move", "main", "x"]);
    git(repo.path(), &["branch", "y"]);
    let findings = repo.findings().await;
    assert_eq!(
        (findings.workloads[0].commit.as_str(), findings.workloads[0].r#ref.as_str()),
        (detached.as_str(), "HEAD")
    );
    // Origin's default.
    git(repo.path(), &["update-ref", "refs/remotes/origin/x", &main]);
    git(repo.path(), &["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/x"]);
    assert_eq!(repo.findings().await.workloads[0].r#ref, "refs/heads/x");
    // A bare repository whose HEAD names a branch that was never pushed.
    let folder = tempfile::tempdir().expect("a folder");
    git(folder.path(), &["init", "--quiet", "--bare", "--initial-branch=master"]);
    git(repo.path(), &["push", "--quiet", &folder.path().to_string_lossy(), "x:develop"]);
    let local = resolved(folder.path()).await.repositories.remove(0);
    let findings = discover(&local, &BTreeMap::new()).await.expect("looks");
    assert_eq!(findings.workloads[0].r#ref, "refs/heads/develop");
    assert!(findings.warnings.iter().any(|warning| warning.contains("refs/heads/master, which has no commits")));
}

#[tokio::test]
async fn odd_entries_are_told_and_harm_nothing() {
    let repo = Repo::with(&[
        (".github/workflows/good.yml", TAGGED),
        (".github/workflows/README.md", TAGGED),
        (".github/workflows/.yml", TAGGED),
        (".github/workflows/upper.YML", TAGGED),
        (".github/workflows/folder.yml/inner.yml", TAGGED),
        (".github/workflows/a b é.yml", TAGGED),
        (".github/workflows/new\nline.yml", TAGGED),
    ]);
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), TAGGED).expect("writes");
    let workflows = repo.path().join(W);
    std::os::unix::fs::symlink(secret.path(), workflows.join("link.yml")).expect("links");
    std::os::unix::fs::symlink("good.yml", workflows.join("near.yml")).expect("links");
    let mut big = TAGGED.as_bytes().to_vec();
    big.resize(10 << 20, b'#');
    std::fs::write(workflows.join("big.yml"), big).expect("writes");
    std::fs::write(workflows.join("binary.yml"), [0, 159, 146, 150, 0]).expect("writes");
    std::fs::write(workflows.join(OsStr::from_bytes(b"latin\xe9.yml")), TAGGED).expect("writes");
    std::fs::write(workflows.join("empty.yml"), "").expect("writes");
    let head = git(repo.path(), &["rev-parse", "HEAD"]);
    git(repo.path(), &["update-index", "--add", "--cacheinfo", &format!("160000,{head},{W}module.yml")]);
    git(repo.path(), &["-c", "core.symlinks=true", "add", "--", &format!("{W}*.yml")]);
    git(repo.path(), &["update-index", "--add", "--cacheinfo", &format!("160000,{head},{W}module.yml")]);
    git(repo.path(), &["commit", "--quiet", "--message", "odd"]);

    let findings = repo.findings().await;
    for (file, word) in [
        ("link.yml", "symbolic link"),
        ("near.yml", "symbolic link"),
        ("module.yml", "submodule"),
        ("folder.yml", "folder"),
        ("big.yml", "10485760 bytes"),
        ("binary.yml", "no tags"),
        ("empty.yml", "no tags"),
    ] {
        assert!(why_not(&findings, file).contains(word), "{file}: {}", why_not(&findings, file));
    }
    let mut running: Vec<&str> =
        findings.workloads.iter().filter_map(|workload| workload.path.strip_prefix(W)).collect();
    running.sort_unstable();
    assert_eq!(running, ["a b é.yml", "good.yml", "new\nline.yml"]);
    assert!(findings.warnings.iter().any(|warning| warning.contains("not UTF-8")));
    assert_eq!(findings.workflows.len(), 10);
}

#[tokio::test]
async fn a_repository_of_another_user_is_read() {
    let repo = Repo::with(&[(".github/workflows/w.yml", TAGGED)]);
    let chown = |path: &Path| std::os::unix::fs::lchown(path, Some(65_534), Some(65_534));
    // Only root can give files away; others see their own repository, which must be read all the same.
    if chown(repo.path()).is_ok() {
        chown(&repo.path().join(".git")).expect("gives it away");
        assert_eq!(std::fs::metadata(repo.path()).expect("is there").uid(), 65_534);
    }
    let findings = repo.findings().await;
    assert_eq!(findings.workloads.len(), 1);
    let into = tempfile::tempdir().expect("a folder");
    let work = &findings.workloads[0];
    checkout(&repo.local().await, &work.commit, &work.r#ref, into.path(), History::Full).await.expect("copies");
}

#[tokio::test]
async fn a_request_by_hand_is_checked() {
    let repo = Repo::with(&[
        (
            ".github/workflows/w.yml",
            "name: Hand\non: {push: , workflow_dispatch: {inputs: {who: {required: true}, n: {type: number, default: 2}}}}\njobs: {a: {runs-on: X}}\n",
        ),
        (".github/workflows/push.yml", "# P2P: p2p-only\non: {push: {branches: [none]}}\njobs: {a: {runs-on: X}}\n"),
        (".github/workflows/release.yml", "on: release\njobs: {a: {runs-on: X}}\n"),
        (".github/workflows/githubs.yml", "# P2P: unit-test\non: workflow_dispatch\njobs: {a: {runs-on: X}}\n"),
        (".github/workflows/broken.yml", "on: push: x\n"),
        ("other.yml", "on: push\njobs: {a: {runs-on: X}}\n"),
    ]);
    let local = repo.local().await;
    let inputs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let by_hand = async |path: &str, pairs: &[(&str, &str)]| manual(&local, path, &inputs(pairs), "r-1", None).await;

    let work = by_hand(".github/workflows/w.yml", &[("who", "me")]).await.expect("can run");
    assert_eq!(work.trigger, Trigger::Manual { request: "r-1".to_owned() });
    assert_eq!((work.event, work.name.as_str()), (RunEvent::WorkflowDispatch, "Hand"));
    assert_eq!(work.inputs, inputs(&[("who", "me"), ("n", "2")]));
    assert_eq!((work.priority.number(), work.policy()), (5, Policy::MeshOnly));
    assert_eq!(work, by_hand("w.yml", &[("who", "me")]).await.expect("can run"), "the folder may be left out");
    let most = manual(&local, "w.yml", &inputs(&[("who", "me")]), "r-1", Some(Priority::MOST)).await.expect("can run");
    assert_eq!((most.priority, most.id()), (Priority::MOST, work.id()));
    let push = by_hand("push.yml", &[]).await.expect("branch filters are not asked");
    assert_eq!((push.event, push.priority.number()), (RunEvent::Push, 8));

    for (path, pairs, word) in [
        ("w.yml", &[][..], "`who` is required"),
        ("w.yml", &[("who", "me"), ("x", "y")], "no input `x`"),
        ("push.yml", &[("x", "y")], "it has none"),
        ("release.yml", &[], "`release`"),
        ("githubs.yml", &[], "stays with GitHub"),
        ("broken.yml", &[], "not YAML"),
        ("none.yml", &[], "no such file"),
        ("w", &[], "only .github/workflows/*.yml"),
        ("./other.yml", &[], "only .github/workflows/*.yml"),
        (".github/workflows/../../other.yml", &[], "only .github/workflows/*.yml"),
    ] {
        let error = by_hand(path, pairs).await.expect_err("refused").to_string();
        assert!(error.contains(word), "{path}: {error}");
    }
}

#[tokio::test]
async fn the_text_of_a_file_is_that_of_its_commit() {
    let repo = Repo::with(&[(".github/workflows/w.yml", "one")]);
    let first = git(repo.path(), &["rev-parse", "HEAD"]);
    let second = repo.commit(&[(".github/workflows/w.yml", "two\n")]);
    let local = repo.local().await;
    let path = ".github/workflows/w.yml";
    assert_eq!(text(&local, &first, path).await.expect("is there"), b"one");
    assert_eq!(text(&local, &second, path).await.expect("is there"), b"two\n");
    for commit in ["HEAD", "main", "--help", &"a".repeat(40), ""] {
        assert!(matches!(text(&local, commit, path).await, Err(GitError::NoCommit { .. })), "{commit}");
    }
}

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
        let room = tempfile::tempdir().expect("a folder");
        let into = room.path().join("in");
        let refused = checkout(&repo.local().await, &commit, "refs/heads/main", &into, History::Full).await;
        let config = std::fs::read_to_string(into.join(".git/config")).expect("is there");
        assert!(!config.contains("evil") && !room.path().join("config").exists(), "{name}");
        // On this file system the last three are names like others, apart from `..`.
        assert!(refused.is_err() || (name != ".git" && name != ".."), "{name}");
    }
}

#[tokio::test]
async fn repositories_of_the_longer_hash_work_too() {
    let folder = tempfile::tempdir().expect("a folder");
    git(folder.path(), &["init", "--quiet", "--object-format=sha256"]);
    let repo = Repo { folder };
    let commit = repo.commit(&[(".github/workflows/w.yml", TAGGED)]);
    assert_eq!(commit.len(), 64);
    let findings = repo.findings().await;
    assert_eq!(findings.workloads[0].commit, commit);
    let room = tempfile::tempdir().expect("a folder");
    checkout(&repo.local().await, &commit, "refs/heads/main", room.path(), History::Tip).await.expect("copies");
    assert_eq!(git(room.path(), &["rev-parse", "HEAD"]), commit);
}

/// A repository whose settings, hooks, attributes and remotes would all run a program that leaves a mark.
#[tokio::test]
async fn nothing_of_a_repository_is_executed() {
    let outside = tempfile::tempdir().expect("a folder");
    let (program, mark) = (outside.path().join("program"), outside.path().join("mark"));
    std::fs::write(&program, format!("#!/bin/sh\necho \"$0 $*\" >> {}\ncat\n", mark.display())).expect("writes");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("sets");
    let run = program.to_string_lossy().into_owned();

    let repo = Repo::with(&[("a", "1"), (".github/workflows/w.yml", TAGGED)]);
    let before = git(repo.path(), &["rev-parse", "HEAD"]);
    let attributes = "* filter=evil diff=evil merge=evil\n";
    let commit = repo.commit(&[
        (".gitattributes", attributes),
        ("a", "2"),
        (".github/workflows/w.yml", &format!("{TAGGED}# x\n")),
    ]);
    for hook in [
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "pre-commit",
        "fsmonitor-watchman",
        "post-commit",
    ] {
        std::fs::create_dir_all(repo.path().join(".git/hooks")).expect("makes it");
        std::fs::copy(&program, repo.path().join(".git/hooks").join(hook)).expect("copies");
    }
    for key in [
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.askPass",
        "core.gitProxy",
        "core.alternateRefsCommand",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "filter.evil.smudge",
        "filter.evil.clean",
        "filter.evil.process",
        "merge.evil.driver",
        "gpg.program",
        "credential.helper",
        "remote.origin.uploadpack",
        "remote.origin.receivepack",
        "uploadpack.packObjectsHook",
        "pager.ls-tree",
        "pager.rev-list",
        "sequence.editor",
        "alias.ls-tree",
        "alias.rev-parse",
    ] {
        git(repo.path(), &["config", key, &run]);
    }
    // A promisor remote that would be asked for what is missing.
    for (key, value) in [
        ("remote.origin.url", "ext::false"),
        ("remote.origin.promisor", "true"),
        ("extensions.partialClone", "origin"),
        ("core.repositoryFormatVersion", "1"),
        ("log.showSignature", "true"),
    ] {
        git(repo.path(), &["config", key, value]);
    }
    std::fs::write(&mark, "").expect("writes");

    let local = repo.local().await;
    let submitted = BTreeMap::from([(format!("{W}w.yml"), before)]);
    let findings = discover(&local, &submitted).await.expect("looks");
    assert_eq!(findings.workloads.len(), 1);
    manual(&local, "w.yml", &BTreeMap::new(), "r", None).await.expect("can run");
    for history in [History::Full, History::Tip] {
        let room = tempfile::tempdir().expect("a folder");
        checkout(&local, &commit, "refs/heads/main", room.path(), history).await.expect("copies");
        assert_eq!(std::fs::read(room.path().join("a")).expect("is there"), b"2");
    }
    // And where an object is missing that the remote should have.
    let blob = git(repo.path(), &["rev-parse", "HEAD:.github/workflows/w.yml"]);
    std::fs::remove_file(repo.path().join(format!(".git/objects/{}/{}", &blob[..2], &blob[2..]))).expect("removes");
    let findings = discover(&local, &BTreeMap::new()).await.expect("looks");
    assert!(why_not(&findings, "w.yml").contains("missing"));
    let room = tempfile::tempdir().expect("a folder");
    assert!(checkout(&local, &commit, "refs/heads/main", room.path(), History::Full).await.is_err());
    assert_eq!(std::fs::read_to_string(&mark).expect("is there"), "", "something ran");

    // The trap is real: git as a person calls it falls in.
    git(repo.path(), &["status"]);
    assert_ne!(std::fs::read_to_string(&mark).expect("is there"), "");
}

#[tokio::test]
async fn ticks_are_made_up_once_and_what_is_no_more_is_told() {
    let hourly = "# P2P: p2p-only\non: {schedule: [{cron: '15 * * * *'}], workflow_dispatch: }\njobs: {a: {runs-on: x, steps: [{run: y}]}}\n";
    let repo = Repo::with(&[(".github/workflows/w.yml", hourly), (".github/workflows/old.yml", TAGGED)]);
    let first = git(repo.path(), &["rev-parse", "HEAD"]);
    let local = repo.local().await;
    let ticks = |findings: &Findings| {
        let tick = |workload: &Workload| match &workload.trigger {
            Trigger::Schedule { minute, .. } => Some((*minute, workload.event)),
            _ => None,
        };
        findings.workloads.iter().filter_map(tick).collect::<Vec<_>>()
    };
    assert_eq!(ticks(&repo.findings().await), [], "none before it was seen");
    let known = |since: u64, last: Option<u64>| {
        let ticks = last.map(|minute| ("15 * * * *".to_owned(), minute)).into_iter().collect();
        let pending = [first.clone()].into();
        let workflow = KnownWorkflow { since: Some(since), ticks, pending, ..KnownWorkflow::default() };
        let old = KnownWorkflow { pending: [first.clone(), "0".repeat(40)].into(), ..KnownWorkflow::default() };
        Known { workflows: [(format!("{W}w.yml"), workflow), (format!("{W}old.yml"), old)].into() }
    };
    let latest = MINUTE - (MINUTE - 15) % 60;
    let looked = local_git::discover(&local, &known(MINUTE - 1_000, None), MINUTE).await.expect("looks");
    assert_eq!(ticks(&looked), [(latest, RunEvent::Schedule)], "the latest one missed");
    let looked = local_git::discover(&local, &known(0, Some(latest)), MINUTE).await.expect("looks");
    assert_eq!((ticks(&looked), looked.gone.len()), (vec![], 0));
    // Deleted; what is pending of a commit that this clone does not know stays.
    std::fs::remove_file(repo.path().join(".github/workflows/old.yml")).expect("removes");
    repo.commit(&[]);
    let looked = local_git::discover(&local, &known(0, Some(latest)), MINUTE).await.expect("looks");
    let [gone] = looked.gone.as_slice() else { panic!("{looked:?}") };
    assert_eq!((gone.path.as_str(), &gone.commits), (".github/workflows/old.yml", &[first].into()));
}
