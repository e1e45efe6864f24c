//! Git's smart HTTP, by git's own `http-backend`, over repositories written out when they are first asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use http::{Response, StatusCode};
use hyper::body::Bytes;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::State;
use super::server::{full, lock, secret_of};
use super::world::{AUTHOR, Repository};

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

/// The repositories as git has them.
pub(crate) struct Clones {
    root: TempDir,
    /// The commits that each has already.
    written: tokio::sync::Mutex<BTreeMap<String, String>>,
}

impl Clones {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a folder"), written: tokio::sync::Mutex::default() }
    }

    /// Sees to it that the repository is there with all its commits.
    async fn write(&self, repository: &Repository) -> PathBuf {
        let folder = self.root.path().join(format!("{}.git", repository.full_name()));
        let Some(head) = repository.head() else { return folder };
        let mut written = self.written.lock().await;
        if written.get(&repository.full_name()) == Some(&head.oid) {
            return folder;
        }
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        git(&folder, &["init", "--quiet", "--bare", "-b", &repository.branch], None).await;
        git(&folder, &["config", "uploadpack.allowAnySHA1InWant", "true"], None).await;
        git(&folder, &["fast-import", "--quiet"], Some(stream(repository))).await;
        let made = std::fs::read_to_string(folder.join("refs/heads").join(&repository.branch)).expect("a branch");
        assert_eq!(made.trim(), head.oid, "git names the commit as the API does");
        written.insert(repository.full_name(), head.oid.clone());
        folder
    }
}

/// What `git fast-import` reads.
fn stream(repository: &Repository) -> Vec<u8> {
    let mut bytes = Vec::new();
    for commit in &repository.commits {
        let mut head = format!("commit refs/heads/{}\n", repository.branch);
        let _ =
            write!(head, "committer {AUTHOR} {} +0000\ndata {}\n{}", commit.time, commit.message.len(), commit.message);
        bytes.extend_from_slice(head.as_bytes());
        // Without a `from` it stands on the branch as it is by then.
        bytes.extend_from_slice(b"deleteall\n");
        for (path, text) in &commit.files {
            bytes.extend_from_slice(format!("M 100644 inline {path}\ndata {}\n", text.len()).as_bytes());
            bytes.extend_from_slice(text);
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
    }
    bytes
}

async fn git(folder: &Path, arguments: &[&str], input: Option<Vec<u8>>) {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(folder).stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").kill_on_drop(true);
    let mut child = command.spawn().expect("git runs");
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin.write_all(&input).await.expect("git reads");
    }
    let status = child.wait().await.expect("git ends");
    assert!(status.success(), "git {arguments:?}");
}

/// Whether a request is one of git's.
pub(crate) fn is_git(path: &str) -> bool {
    path.contains(".git/")
}

/// Answers one of git's requests, if its token may see the repository.
pub(crate) async fn answer(
    state: &Mutex<State>,
    clones: &Clones,
    parts: &http::request::Parts,
    body: Bytes,
) -> Response<Body> {
    let secret = secret_of(&parts.headers);
    let path = parts.uri.path().trim_start_matches('/');
    let Some((name, _)) = path.split_once(".git/") else { return plain(StatusCode::NOT_FOUND) };
    let repository = {
        let mut state = lock(state);
        let token = secret.map(|secret| state.limits.token(&secret).clone());
        let seen = state.world.find(name).filter(|repository| match &token {
            Some(token) => !token.revoked && token.may_see(repository, &state.world),
            None => !repository.private,
        });
        seen.cloned()
    };
    let Some(repository) = repository else {
        let mut refused = plain(StatusCode::UNAUTHORIZED);
        let ask = http::HeaderValue::from_static("Basic realm=\"GitHub\"");
        refused.headers_mut().insert(http::header::WWW_AUTHENTICATE, ask);
        return refused;
    };
    clones.write(&repository).await;
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut command = Command::new("git");
    command.arg("http-backend").env_clear().kill_on_drop(true);
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("GIT_PROJECT_ROOT", clones.root.path()).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("REMOTE_ADDR", "127.0.0.1").env("SERVER_PROTOCOL", "HTTP/1.1");
    let canonical =
        format!("/{}.git/{}", repository.full_name(), path.split_once(".git/").map_or("", |(_, rest)| rest));
    command.env("REQUEST_METHOD", parts.method.as_str()).env("PATH_INFO", canonical);
    command.env("QUERY_STRING", parts.uri.query().unwrap_or_default()).env("CONTENT_TYPE", header("content-type"));
    command.env("HTTP_CONTENT_ENCODING", header("content-encoding")).env("GIT_PROTOCOL", header("git-protocol"));
    command.env("CONTENT_LENGTH", body.len().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("git runs");
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&body).await;
    }
    let output = child.wait_with_output().await.expect("git ends").stdout;
    let Some(end) = output.windows(4).position(|four| four == b"\r\n\r\n") else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(full(output[end + 4..].to_vec()));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(500);
            *response.status_mut() = StatusCode::from_u16(code).expect("a status");
        } else if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse::<http::HeaderValue>()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(status.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}
