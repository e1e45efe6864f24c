//! What is read by REST: lists with their ETags, heads, folders, files, differences.

use base64::Engine as _;
use serde::{Deserialize, Serialize};

use crate::forge::Head;
use crate::forge::decide::Changed;
use crate::forge::git::{FOLDER, is_workflow};
use crate::workflow;

use super::api::{Client, Tally, read};
use super::memory::{Memory, Page};
use super::{File, GithubError, Listed, Standing, Target};

/// The list of all repositories that a token reaches.
pub(super) const OWN: &str = "/user/repos?per_page=100&affiliation=owner,collaborator,organization_member";
/// The same of an app's installation.
const INSTALLED: &str = "/installation/repositories?per_page=100";
/// The most files that a comparison lists; with as many, some may be missing.
const MAX_COMPARED: usize = 300;

/// A repository in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) owner: String,
    pub(super) archived: bool,
    pub(super) disabled: bool,
    pub(super) fork: bool,
    pub(super) pushed_at: String,
    pub(super) branch: String,
}

#[derive(Deserialize)]
struct Repo {
    id: u64,
    full_name: String,
    owner: Account,
    #[serde(default)]
    archived: bool,
    #[serde(default)]
    disabled: bool,
    fork: bool,
    pushed_at: Option<String>,
    #[serde(default)]
    default_branch: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Account {
    pub(super) login: String,
}

#[derive(Deserialize)]
pub(super) struct Installation {
    pub(super) id: u64,
    pub(super) account: Option<Account>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Repos {
    Installed { repositories: Vec<Repo> },
    Plain(Vec<Repo>),
}

#[derive(Deserialize)]
struct GitRef {
    object: Sha,
}

#[derive(Deserialize)]
struct Sha {
    sha: String,
}

#[derive(Deserialize)]
struct FolderEntry {
    r#type: String,
    path: String,
    sha: String,
    size: usize,
}

#[derive(Deserialize)]
struct Content {
    content: String,
    encoding: String,
}

#[derive(Deserialize)]
struct Comparison {
    files: Option<Vec<ChangedFile>>,
}

#[derive(Deserialize)]
struct ChangedFile {
    filename: String,
    previous_filename: Option<String>,
}

impl From<Repo> for Entry {
    fn from(repo: Repo) -> Self {
        Self {
            id: repo.id,
            name: repo.full_name,
            owner: repo.owner.login,
            archived: repo.archived,
            disabled: repo.disabled,
            fork: repo.fork,
            pushed_at: repo.pushed_at.unwrap_or_default(),
            branch: repo.default_branch.unwrap_or_default(),
        }
    }
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            name: entry.name,
            archived: entry.archived,
            disabled: entry.disabled,
            fork: entry.fork,
            pushed_at: entry.pushed_at,
            branch: entry.branch,
            state: None,
        }
    }
}

/// All pages of a list; those that are as they were cost nothing.
pub(super) async fn pages(
    client: &Client,
    first: &str,
    what: &str,
    memory: &mut Memory,
    tally: &Tally,
) -> Result<Vec<Entry>, GithubError> {
    let (mut all, mut at) = (Vec::new(), Some(first.to_owned()));
    while let Some(address) = at {
        let known = memory.pages.get(&address);
        let got = client.get(&address, known.map(|page| page.etag.as_str()), what, tally).await?;
        let page = match (got.unchanged, known) {
            (true, Some(known)) => known.clone(),
            (true, None) => {
                let why = "unchanged, though nothing was known".to_owned();
                return Err(GithubError::Answer { what: what.to_owned(), why });
            }
            (false, _) => {
                let (Repos::Installed { repositories } | Repos::Plain(repositories)) = read(what, &got.bytes)?;
                let entries = repositories.into_iter().map(Entry::from).collect();
                Page { etag: got.etag.unwrap_or_default(), next: got.next, entries }
            }
        };
        all.extend(page.entries.iter().cloned());
        at = page.next.clone();
        if page.etag.is_empty() {
            memory.pages.remove(&address);
        } else {
            memory.pages.insert(address, page);
        }
    }
    Ok(all)
}

/// All repositories of a target. What they have at their heads is not in lists: [`standing`].
pub(super) async fn list(
    client: &Client,
    target: &Target,
    memory: &mut Memory,
    tally: &Tally,
) -> Result<Vec<Listed>, GithubError> {
    let owner = &target.owner;
    if let Some(name) = &target.repository {
        let (entry, _) = entry(client, &format!("{owner}/{name}"), tally).await?;
        return Ok(vec![entry]);
    }
    let what = format!("list {owner} by REST");
    let own = if client.is_installation() { INSTALLED } else { OWN };
    let mut all = match pages(client, own, &what, memory, tally).await {
        // Some tokens may not list what is their own.
        Err(GithubError::Forbidden { .. } | GithubError::NotFound { .. }) => Vec::new(),
        other => other?,
    };
    all.retain(|entry| entry.owner.eq_ignore_ascii_case(owner));
    let of_organization = format!("/orgs/{owner}/repos?per_page=100");
    let public = match pages(client, &of_organization, &what, memory, tally).await {
        Err(GithubError::NotFound { .. }) => {
            pages(client, &format!("/users/{owner}/repos?per_page=100"), &what, memory, tally).await?
        }
        other => other?,
    };
    for entry in public {
        if all.iter().all(|known| known.id != entry.id) {
            all.push(entry);
        }
    }
    all.sort_by_key(|entry| entry.id);
    Ok(all.into_iter().map(Listed::from).collect())
}

async fn entry(client: &Client, name: &str, tally: &Tally) -> Result<(Listed, String), GithubError> {
    let what = format!("look for the repository {name}");
    let got = client.get(&format!("/repos/{name}"), None, &what, tally).await?;
    let repo: Repo = read(&what, &got.bytes)?;
    let branch = repo.default_branch.clone().unwrap_or_default();
    Ok((Entry::from(repo).into(), branch))
}

/// That an owner or a repository is there.
pub(super) async fn look_for(client: &Client, target: &Target, tally: &Tally) -> Result<(), GithubError> {
    let owner = &target.owner;
    match &target.repository {
        Some(name) => entry(client, &format!("{owner}/{name}"), tally).await.map(drop),
        None => client.get(&format!("/users/{owner}"), None, &format!("look for {owner}"), tally).await.map(drop),
    }
}

/// One repository, and the head of its default branch.
pub(super) async fn repository(
    client: &Client,
    name: &str,
    tally: &Tally,
) -> Result<(Listed, Option<Head>), GithubError> {
    let (listed, branch) = entry(client, name, tally).await?;
    let head = head(client, &listed.name, &branch, tally).await?;
    Ok((listed, head))
}

async fn head(client: &Client, name: &str, branch: &str, tally: &Tally) -> Result<Option<Head>, GithubError> {
    let what = format!("read the head of {name}");
    match client.get(&format!("/repos/{name}/git/ref/heads/{branch}"), None, &what, tally).await {
        Ok(got) => {
            let found: GitRef = read(&what, &got.bytes)?;
            Ok(Some(Head { r#ref: format!("refs/heads/{branch}"), commit: found.object.sha }))
        }
        // A repository without commits has no branch; GitHub says 404, or 409.
        Err(GithubError::NotFound { .. }) => Ok(None),
        Err(GithubError::Forbidden { message, .. }) if message.contains("empty") => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a repository has at its head; `known` is what it had when its head was that commit.
pub(super) async fn standing(
    client: &Client,
    listed: &Listed,
    known: Option<(&str, &[File])>,
    tally: &Tally,
) -> Result<Standing, GithubError> {
    let name = &listed.name;
    let Some(head) = head(client, name, &listed.branch, tally).await? else {
        return Ok(Standing { head: None, files: Vec::new() });
    };
    if let Some((_, files)) = known.filter(|(commit, _)| *commit == head.commit) {
        return Ok(Standing { head: Some(head), files: files.to_vec() });
    }
    let what = format!("list the workflow files of {name}");
    let folder = FOLDER.trim_end_matches('/');
    let got = client.get(&format!("/repos/{name}/contents/{folder}?ref={}", head.commit), None, &what, tally).await;
    let entries: Vec<FolderEntry> = match got {
        Ok(got) => read(&what, &got.bytes)?,
        Err(GithubError::NotFound { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let files = entries.into_iter().filter(|entry| entry.r#type == "file" && is_workflow(&entry.path));
    let files = files.map(|entry| File { path: entry.path, blob: entry.sha, size: entry.size }).collect();
    Ok(Standing { head: Some(head), files })
}

/// The bytes of a blob.
pub(super) async fn blob(client: &Client, name: &str, blob: &str, tally: &Tally) -> Result<Vec<u8>, GithubError> {
    let what = format!("read a workflow file of {name}");
    let got = client.get(&format!("/repos/{name}/git/blobs/{blob}"), None, &what, tally).await?;
    decoded(&what, &got.bytes)
}

/// The bytes of a file at a commit.
pub(super) async fn file(
    client: &Client,
    name: &str,
    path: &str,
    commit: &str,
    tally: &Tally,
) -> Result<Vec<u8>, GithubError> {
    let what = format!("read {path} of {name}");
    let folder = FOLDER.trim_end_matches('/');
    // The folder's list gives the id, which a person's odd path needs no encoding for.
    let got = client.get(&format!("/repos/{name}/contents/{folder}?ref={commit}"), None, &what, tally).await?;
    let entries: Vec<FolderEntry> = read(&what, &got.bytes)?;
    let entry = entries.into_iter().find(|entry| entry.path == path && entry.r#type == "file");
    let entry = entry.ok_or(GithubError::NotFound { what })?;
    blob(client, name, &entry.sha, tally).await
}

fn decoded(what: &str, bytes: &[u8]) -> Result<Vec<u8>, GithubError> {
    let content: Content = read(what, bytes)?;
    let unreadable = |why: String| GithubError::Answer { what: what.to_owned(), why };
    if content.encoding != "base64" {
        return Err(unreadable(format!("its encoding is `{}`", content.encoding)));
    }
    let text: String = content.content.split_ascii_whitespace().collect();
    if text.len() > workflow::MAX_BYTES * 2 {
        return Err(unreadable("it is larger than a workflow file may be".to_owned()));
    }
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| unreadable(error.to_string()))
}

/// Whether a commit is a branch's head or one of its ancestors.
pub(super) async fn is_on_branch(
    client: &Client,
    name: &str,
    branch: &str,
    commit: &str,
    tally: &Tally,
) -> Result<bool, GithubError> {
    #[derive(Deserialize)]
    struct Standing {
        status: String,
    }
    let what = format!("look whether a commit is on a branch of {name}");
    let path = format!("/repos/{name}/compare/{}...{}?per_page=1", encoded(branch), encoded(commit));
    let got = client.get(&path, None, &what, tally).await?;
    let standing: Standing = read(&what, &got.bytes)?;
    Ok(matches!(standing.status.as_str(), "identical" | "behind"))
}

/// A name in a path (RFC 3986, section 2.1); slashes stay.
fn encoded(name: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes().map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The files that differ between two commits.
pub(super) async fn compare(
    client: &Client,
    name: &str,
    before: &str,
    head: &str,
    tally: &Tally,
) -> Result<Changed, GithubError> {
    let what = format!("compare two commits of {name}");
    let got = match client.get(&format!("/repos/{name}/compare/{before}...{head}"), None, &what, tally).await {
        // The former commit is gone, as after a forced push.
        Err(GithubError::NotFound { .. }) => return Ok(Changed::Unknown),
        other => other?,
    };
    let comparison: Comparison = read(&what, &got.bytes)?;
    let Some(files) = comparison.files.filter(|files| files.len() < MAX_COMPARED) else { return Ok(Changed::Unknown) };
    Ok(Changed::Paths(
        files.into_iter().flat_map(|file| [Some(file.filename), file.previous_filename]).flatten().collect(),
    ))
}
