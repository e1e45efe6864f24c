//! The JSON of things, in the shapes of GitHub's published description.

use serde_json::{Map, Value, json};

use super::world::{Account, Commit, Kind, Repository, World, timestamp};

pub(crate) fn account(base: &str, account: &Account) -> Value {
    let login = &account.login;
    let url = format!("{base}/users/{login}");
    json!({
        "login": login, "id": account.id, "node_id": format!("U_{}", account.id),
        "avatar_url": format!("{base}/avatars/{login}"), "gravatar_id": "", "url": url,
        "html_url": format!("{base}/{login}"), "followers_url": format!("{url}/followers"),
        "following_url": format!("{url}/following{{/other_user}}"), "gists_url": format!("{url}/gists{{/gist_id}}"),
        "starred_url": format!("{url}/starred{{/owner}}{{/repo}}"), "subscriptions_url": format!("{url}/subscriptions"),
        "organizations_url": format!("{url}/orgs"), "repos_url": format!("{url}/repos"),
        "events_url": format!("{url}/events{{/privacy}}"), "received_events_url": format!("{url}/received_events"),
        "type": match account.kind { Kind::User => "User", Kind::Organization => "Organization" },
        "site_admin": false, "user_view_type": "public",
    })
}

/// The account of an installation, which the description wants to be an enterprise too.
pub(crate) fn installed_for(base: &str, one: &Account) -> Value {
    let mut value = account(base, one);
    let time = timestamp(1_704_067_200);
    for (key, text) in [("name", &one.login), ("slug", &one.login), ("created_at", &time), ("updated_at", &time)] {
        value[key] = json!(text);
    }
    value
}

/// Addresses below a repository's own: the key without `_url`, and what follows.
const BELOW: [(&str, &str); 37] = [
    ("archive", "{archive_format}{/ref}"),
    ("assignees", "assignees{/user}"),
    ("blobs", "git/blobs{/sha}"),
    ("branches", "branches{/branch}"),
    ("collaborators", "collaborators{/collaborator}"),
    ("comments", "comments{/number}"),
    ("commits", "commits{/sha}"),
    ("compare", "compare/{base}...{head}"),
    ("contents", "contents/{+path}"),
    ("contributors", "contributors"),
    ("deployments", "deployments"),
    ("downloads", "downloads"),
    ("events", "events"),
    ("forks", "forks"),
    ("git_commits", "git/commits{/sha}"),
    ("git_refs", "git/refs{/sha}"),
    ("git_tags", "git/tags{/sha}"),
    ("hooks", "hooks"),
    ("issue_comment", "issues/comments{/number}"),
    ("issue_events", "issues/events{/number}"),
    ("issues", "issues{/number}"),
    ("keys", "keys{/key_id}"),
    ("labels", "labels{/name}"),
    ("languages", "languages"),
    ("merges", "merges"),
    ("milestones", "milestones{/number}"),
    ("notifications", "notifications{?since,all,participating}"),
    ("pulls", "pulls{/number}"),
    ("releases", "releases{/id}"),
    ("stargazers", "stargazers"),
    ("statuses", "statuses/{sha}"),
    ("subscribers", "subscribers"),
    ("subscription", "subscription"),
    ("tags", "tags"),
    ("teams", "teams"),
    ("trees", "git/trees{/sha}"),
    ("git", ""),
];

pub(crate) fn repository(base: &str, world: &World, repository: &Repository) -> Value {
    let name = repository.full_name();
    let url = format!("{base}/repos/{name}");
    let time = timestamp(repository.pushed_at());
    let owner = world.find_account(&repository.owner).map(|owner| account(base, owner));
    let mut object = Map::new();
    for (key, below) in BELOW {
        object.insert(format!("{key}_url"), json!(format!("{url}/{below}")));
    }
    let clone = format!("{base}/{name}.git");
    let Value::Object(own) = json!({
        "id": repository.id, "node_id": repository.node_id(), "name": repository.name, "full_name": name,
        "owner": owner, "private": repository.private, "html_url": format!("{base}/{name}"), "description": null,
        "fork": repository.fork, "url": url, "git_url": clone, "ssh_url": format!("git@127.0.0.1:{name}.git"),
        "clone_url": clone, "svn_url": format!("{base}/{name}"), "mirror_url": null, "homepage": null,
        "language": null,
    }) else {
        unreachable!("an object")
    };
    object.extend(own);
    let Value::Object(own) = json!({
        "forks_count": 0, "forks": 0, "stargazers_count": 0, "watchers_count": 0, "watchers": 0,
        "size": 1, "default_branch": repository.branch, "open_issues_count": 0, "open_issues": 0, "is_template": false,
        "topics": [], "has_issues": true, "has_projects": true, "has_wiki": true, "has_pages": false,
        "has_downloads": true, "has_discussions": false, "archived": repository.archived,
        "disabled": repository.disabled, "visibility": if repository.private { "private" } else { "public" },
        "pushed_at": time, "created_at": time, "updated_at": time, "license": null, "allow_forking": true,
        "web_commit_signoff_required": false,
        "permissions": { "admin": false, "maintain": false, "push": true, "triage": true, "pull": true },
    }) else {
        unreachable!("an object")
    };
    object.extend(own);
    Value::Object(object)
}

/// The one repository, whole.
pub(crate) fn full_repository(base: &str, world: &World, one: &Repository) -> Value {
    let mut value = repository(base, world, one);
    value["network_count"] = json!(0);
    value["subscribers_count"] = json!(0);
    value
}

pub(crate) fn commit(base: &str, repository: &Repository, commit: &Commit) -> Value {
    let url = format!("{base}/repos/{}", repository.full_name());
    let oid = &commit.oid;
    let who = json!({ "name": "Octo Cat", "email": "octo@example.org", "date": timestamp(commit.time) });
    let parents: Vec<Value> = commit
        .parent
        .iter()
        .map(|parent| json!({ "sha": parent, "url": format!("{url}/commits/{parent}"), "html_url": format!("{url}/commit/{parent}") }))
        .collect();
    json!({
        "sha": oid, "node_id": format!("C_{oid}"), "url": format!("{url}/commits/{oid}"),
        "html_url": format!("{base}/{}/commit/{oid}", repository.full_name()),
        "comments_url": format!("{url}/commits/{oid}/comments"), "author": null, "committer": null, "parents": parents,
        "commit": {
            "url": format!("{url}/git/commits/{oid}"), "author": who, "committer": who, "message": commit.message,
            "tree": { "sha": commit.tree, "url": format!("{url}/git/trees/{}", commit.tree) }, "comment_count": 0,
            "verification": { "verified": false, "reason": "unsigned", "signature": null, "payload": null, "verified_at": null },
        },
    })
}

pub(crate) fn entry(base: &str, repository: &Repository, path: &str, is_folder: bool, id: &str, size: usize) -> Value {
    let url = format!("{base}/repos/{}", repository.full_name());
    let own = format!("{url}/contents/{path}?ref={}", repository.branch);
    let html = format!("{base}/{}/blob/{}/{path}", repository.full_name(), repository.branch);
    let object = format!("{url}/git/{}/{id}", if is_folder { "trees" } else { "blobs" });
    let name = path.rsplit('/').next();
    json!({
        "type": if is_folder { "dir" } else { "file" }, "size": size, "name": name, "path": path, "sha": id, "url": own,
        "git_url": object, "html_url": html, "download_url": if is_folder { Value::Null } else { json!(html) },
        "_links": { "git": object, "html": html, "self": own },
    })
}
