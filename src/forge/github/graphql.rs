//! What is asked by GraphQL, and how its answers are read.
//!
//! A list asks for ids alone, of up to a hundred repositories; files that are new are asked for by their ids, of many
//! repositories at once. `tests/github.rs` holds the questions against the schema that GitHub publishes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::forge::Head;
use crate::forge::git::{FOLDER, is_workflow};

use super::api::{Client, Tally, read};
use super::limits::Reason;
use super::{File, GithubError, Listed, Standing, Target};

/// The most repositories of a page, GitHub's own limit.
const PAGE: usize = 100;
/// The most files asked for in one call, and the most bytes of them together: an answer of a few megabytes that GitHub
/// makes well within its ten seconds.
const FILES: usize = 400;
const BYTES: usize = 4 << 20;

const REPOSITORY: &str = "databaseId nameWithOwner isArchived isDisabled isFork pushedAt \
    defaultBranchRef { name target { oid } } \
    object(expression: \"HEAD:.github/workflows\") { ... on Tree { entries { name type mode size oid } } }";

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Less at once may have one.
    Heavy(GithubError),
    Other(GithubError),
}

impl From<Failure> for GithubError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Heavy(error) | Failure::Other(error) => error,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    database_id: Option<u64>,
    name_with_owner: String,
    is_archived: bool,
    is_disabled: bool,
    is_fork: bool,
    pushed_at: Option<String>,
    default_branch_ref: Option<Branch>,
    object: Option<Tree>,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
    target: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    oid: String,
}

#[derive(Deserialize)]
struct Tree {
    /// Absent where the name is a file's.
    entries: Option<Vec<TreeEntry>>,
}

#[derive(Deserialize)]
struct TreeEntry {
    name: String,
    r#type: String,
    mode: u32,
    size: usize,
    oid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    text: Option<String>,
    is_truncated: bool,
}

/// All repositories of a target and what they have at their heads. A page that is too heavy is asked for again at half
/// its size.
pub(super) async fn list(
    client: &Client,
    target: &Target,
    forks: bool,
    tally: &Tally,
) -> Result<Vec<Listed>, GithubError> {
    let what = format!("list {} by GraphQL", name(target));
    if let Some(repository) = &target.repository {
        let query = one_query();
        let variables = json!({ "owner": target.owner, "name": repository });
        let data = client.ask(&query, variables, &what, tally).await?;
        let node: Option<Node> = field(&data["repository"], &what)?;
        return Ok(node.into_iter().filter_map(listed).collect());
    }
    let query = list_query();
    let (mut size, mut after, mut all) = (PAGE, Value::Null, Vec::new());
    loop {
        // Absent is both, which GraphQL writes as null.
        let fork = if forks { Value::Null } else { json!(false) };
        let variables = json!({ "login": target.owner, "first": size, "after": after, "isFork": fork });
        let data = match client.ask(&query, variables, &what, tally).await {
            Ok(data) => data,
            Err(Failure::Heavy(error)) if size == 1 => return Err(error),
            Err(Failure::Heavy(_)) => {
                size /= 2;
                continue;
            }
            Err(Failure::Other(error)) => return Err(error),
        };
        let owner = &data["repositoryOwner"];
        if owner.is_null() {
            return Err(GithubError::NotFound { what });
        }
        let page = &owner["repositories"];
        let nodes: Vec<Option<Node>> = field(&page["nodes"], &what)?;
        all.extend(nodes.into_iter().flatten().filter_map(listed));
        if page["pageInfo"]["hasNextPage"] != true {
            return Ok(all);
        }
        let next = page["pageInfo"]["endCursor"].clone();
        if !next.is_string() || next == after {
            return Err(GithubError::Answer { what, why: "a next page without a cursor".to_owned() });
        }
        after = next;
    }
}

/// The question for a page of an owner's repositories.
pub(super) fn list_query() -> String {
    format!(
        "query Repositories($login: String!, $first: Int!, $after: String, $isFork: Boolean) {{ \
         repositoryOwner(login: $login) {{ repositories(first: $first, after: $after, isFork: $isFork, isArchived: false, \
         ownerAffiliations: [OWNER], orderBy: {{ field: CREATED_AT, direction: ASC }}) {{ \
         pageInfo {{ hasNextPage endCursor }} nodes {{ {REPOSITORY} }} }} }} rateLimit {{ cost }} }}"
    )
}

/// The question for one repository.
pub(super) fn one_query() -> String {
    format!(
        "query Repository($owner: String!, $name: String!) {{ repository(owner: $owner, name: $name) {{ {REPOSITORY} }} \
         rateLimit {{ cost }} }}"
    )
}

/// A file that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `owner/name` of a repository that has it.
    pub(super) repository: String,
    pub(super) blob: String,
    pub(super) size: usize,
}

/// Reads files by their ids: those that GraphQL gives whole. `told` hears how many have been asked for.
pub(super) async fn texts(
    client: &Client,
    wanted: &[Wanted],
    tally: &Tally,
    told: &(dyn Fn(usize) + Send + Sync),
) -> Result<BTreeMap<String, String>, GithubError> {
    let what = "read workflow files by GraphQL";
    let (mut texts, mut at, mut most) = (BTreeMap::new(), 0, FILES);
    while at < wanted.len() {
        let mut bytes = 0;
        let fits = wanted[at..].iter().take(most).take_while(|one| {
            bytes += one.size;
            bytes <= BYTES
        });
        let batch = &wanted[at..at + fits.count().max(1)];
        let data = match client.ask(&texts_query(batch), json!({}), what, tally).await {
            Ok(data) => data,
            Err(Failure::Heavy(error)) if batch.len() == 1 => return Err(error),
            Err(Failure::Heavy(_)) => {
                most = batch.len() / 2;
                continue;
            }
            Err(Failure::Other(error)) => return Err(error),
        };
        for (number, one) in batch.iter().enumerate() {
            let blob: Option<Blob> = field(&data[format!("f{number}")]["object"], what)?;
            if let Some(Blob { text: Some(text), is_truncated: false }) = blob {
                texts.insert(one.blob.clone(), text);
            }
        }
        at += batch.len();
        told(at);
    }
    Ok(texts)
}

/// The question for files' texts. Names are quoted, whatever they hold.
pub(super) fn texts_query(batch: &[Wanted]) -> String {
    let mut query = "query Texts { ".to_owned();
    for (number, one) in batch.iter().enumerate() {
        let (owner, name) = one.repository.split_once('/').unwrap_or_default();
        query += &format!(
            "f{number}: repository(owner: {}, name: {}) {{ object(oid: {}) {{ ... on Blob {{ text isTruncated }} }} }} ",
            json!(owner),
            json!(name),
            json!(one.blob)
        );
    }
    query + "rateLimit { cost } }"
}

fn name(target: &Target) -> String {
    match &target.repository {
        Some(repository) => format!("{}/{repository}", target.owner),
        None => target.owner.clone(),
    }
}

fn listed(node: Node) -> Option<Listed> {
    let branch = node.default_branch_ref.as_ref().map(|branch| branch.name.clone()).unwrap_or_default();
    let head = node
        .default_branch_ref
        .and_then(|branch| Some(Head { r#ref: format!("refs/heads/{}", branch.name), commit: branch.target?.oid }));
    let entries = node.object.and_then(|tree| tree.entries).unwrap_or_default();
    // As in a clone: a link (0o120000) is none that GitHub follows.
    let is_file = |entry: &TreeEntry| entry.r#type == "blob" && entry.mode != 0o120_000;
    let files = entries.into_iter().filter(is_file).map(|entry| File {
        path: format!("{FOLDER}{}", entry.name),
        blob: entry.oid,
        size: entry.size,
    });
    Some(Listed {
        id: node.database_id?,
        name: node.name_with_owner,
        archived: node.is_archived,
        disabled: node.is_disabled,
        fork: node.is_fork,
        pushed_at: node.pushed_at.unwrap_or_default(),
        branch,
        state: Some(Standing { head, files: files.filter(|file| is_workflow(&file.path)).collect() }),
    })
}

fn field<T: serde::de::DeserializeOwned>(value: &Value, what: &str) -> Result<T, GithubError> {
    T::deserialize(value).map_err(|error| GithubError::Answer { what: what.to_owned(), why: error.to_string() })
}

/// The data of an answer. What of it is missing because it is not there is null; any other error is a failure.
pub(super) fn data(bytes: &[u8], what: &str, limited: impl FnOnce(Reason) -> GithubError) -> Result<Value, Failure> {
    let answer: Value = read(what, bytes).map_err(Failure::Other)?;
    let errors = answer["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let kind = |error: &Value| error["type"].as_str().unwrap_or_default().to_owned();
    let message = |error: &Value| error["message"].as_str().unwrap_or("an error without a message").to_owned();
    let serious = errors.iter().find(|error| kind(error) != "NOT_FOUND");
    let Some(error) = serious else {
        return match answer["data"].is_object() {
            true => Ok(answer["data"].clone()),
            false => {
                Err(Failure::Other(GithubError::Answer { what: what.to_owned(), why: "it has no data".to_owned() }))
            }
        };
    };
    let text: String = message(error).chars().filter(|c| !c.is_control()).take(200).collect();
    match kind(error).as_str() {
        "RATE_LIMITED" | "RATE_LIMIT" => Err(Failure::Other(limited(Reason::Primary))),
        "RESOURCE_LIMITS_EXCEEDED" | "MAX_NODE_LIMIT_EXCEEDED" | "SERVICE_UNAVAILABLE" | "TIMEOUT" => {
            Err(Failure::Heavy(GithubError::Unreachable { what: what.to_owned(), why: text }))
        }
        _ if text.contains("Something went wrong") || text.contains("timeout") => {
            Err(Failure::Heavy(GithubError::Unreachable { what: what.to_owned(), why: text }))
        }
        _ if text.contains("secondary rate limit") => Err(Failure::Other(limited(Reason::Secondary))),
        "FORBIDDEN" | "INSUFFICIENT_SCOPES" => {
            Err(Failure::Other(GithubError::Forbidden { what: what.to_owned(), message: text }))
        }
        _ => Err(Failure::Other(GithubError::Answer { what: what.to_owned(), why: text })),
    }
}

/// What an answer was charged: by REST one point, by GraphQL what it says.
pub(super) fn cost(bytes: &[u8], is_graphql: bool) -> u64 {
    if !is_graphql {
        return 1;
    }
    let answer: Option<Value> = serde_json::from_slice(bytes).ok();
    answer.and_then(|answer| answer["data"]["rateLimit"]["cost"].as_u64()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(answer: &Value) -> Failure {
        let limited = |limit| GithubError::Limited { what: String::new(), limit, until: 0 };
        data(answer.to_string().as_bytes(), "try", limited).expect_err("a failure")
    }

    #[test]
    fn errors_in_an_answer_mean_what_github_means() {
        let error = |kind: &str, message: &str| json!({ "data": {}, "errors": [{ "type": kind, "message": message }] });
        assert!(matches!(failure(&error("RATE_LIMITED", "x")), Failure::Other(GithubError::Limited { .. })));
        assert!(matches!(failure(&error("FORBIDDEN", "x")), Failure::Other(GithubError::Forbidden { .. })));
        assert!(matches!(failure(&error("RESOURCE_LIMITS_EXCEEDED", "x")), Failure::Heavy(_)));
        assert!(matches!(failure(&error("", "Something went wrong while")), Failure::Heavy(_)));
        assert!(matches!(failure(&json!({ "data": null })), Failure::Other(GithubError::Answer { .. })));
        let missing =
            json!({ "data": { "a": null }, "errors": [{ "type": "NOT_FOUND", "path": ["a"], "message": "x" }] });
        let limited = |_| GithubError::NotFound { what: String::new() };
        assert!(data(missing.to_string().as_bytes(), "try", limited).is_ok(), "what is not there is null");
    }

    #[test]
    fn names_are_quoted() {
        let one = Wanted { repository: "o/a\"b".to_owned(), blob: "1".to_owned(), size: 1 };
        assert!(texts_query(&[one]).contains(r#"name: "a\"b""#));
    }
}
