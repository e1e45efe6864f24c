//! The forge room against real git repositories.

mod forge {
    mod checkout;
    mod resolving;
}

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
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
            concurrency: None,
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
