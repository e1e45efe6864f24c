//! GitHub's REST calls that runmesh uses.

use base64::Engine as _;
use serde_json::{Value, json};

use super::State;
use super::limits::Token;
use super::server::{Answer, Asked};
use super::world::{Kind, Repository, entries, now, object_id, timestamp};
use super::{jobs, runners, runs, shapes};

pub(crate) fn answer(state: &mut State, asked: &Asked) -> Answer {
    let path: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
    match (asked.method.as_str(), path.as_slice()) {
        ("GET", ["rate_limit"]) => rate_limit(state, asked),
        ("GET", ["user", "repos"]) => own_repositories(state, asked),
        ("GET", [kind @ ("users" | "orgs"), login, "repos"]) => repositories_of(state, asked, kind, login),
        ("GET", ["installation", "repositories"]) => installation_repositories(state, asked),
        ("GET", ["users", login]) => account(state, login),
        ("GET", ["app", "installations"]) => installations(state, asked),
        ("POST", ["app", "installations", id, "access_tokens"]) => installation_token(state, asked, id),
        (_, ["orgs", org, "actions", rest @ ..]) => match state.world.find_account(org).map(|account| account.kind) {
            Some(Kind::Organization) => runners::answer(state, asked, &format!("orgs/{org}"), rest),
            _ => not_found(),
        },
        (_, ["repos", owner, name, "actions", rest @ ("runners" | "runner-groups"), more @ ..]) => {
            let seen = token(state, asked);
            let found = state.world.find(&format!("{owner}/{name}"));
            if found.is_none_or(|one| !seen.may_see(one, &state.world)) {
                return not_found();
            }
            runners::answer(state, asked, &format!("repos/{owner}/{name}"), &[&[*rest], more].concat())
        }
        ("GET", ["repositories", id, rest @ ..]) => {
            let name = id.parse().ok().and_then(|id| state.world.by_id(id)).map(Repository::full_name);
            match name.as_deref().and_then(|name| name.split_once('/')) {
                Some((owner, name)) => in_repository(state, asked, owner, name, rest),
                None => not_found(),
            }
        }
        ("GET", ["repos", owner, name, rest @ ..]) => in_repository(state, asked, owner, name, rest),
        _ => not_found(),
    }
}

fn not_found() -> Answer {
    Answer::error(404, "Not Found")
}

fn rate_limit(state: &mut State, asked: &Asked) -> Answer {
    let token = state.limits.token(&asked.secret);
    let shown = |quota: &super::limits::Quota| json!({ "limit": quota.limit, "used": quota.used, "remaining": quota.remaining(), "reset": quota.reset });
    let (core, graphql) = (shown(&token.core), shown(&token.graphql));
    Answer::ok(json!({ "resources": { "core": core, "search": core, "graphql": graphql }, "rate": core }))
}

/// One page of a list, with its `Link`.
pub(crate) fn page(state: &State, asked: &Asked, all: &[Value], shape: impl Fn(Vec<Value>) -> Value) -> Answer {
    let number = |name: &str, default: usize| asked.parameter(name).and_then(|n| n.parse().ok()).unwrap_or(default);
    let size = number("per_page", 30).clamp(1, 100);
    let at = number("page", 1).max(1);
    let last = all.len().div_ceil(size).max(1);
    let part: Vec<Value> = all.iter().skip((at - 1) * size).take(size).cloned().collect();
    let mut answer = Answer::ok(shape(part));
    let others: Vec<String> =
        asked.query.iter().filter(|(key, _)| key != "page").map(|(k, v)| format!("{k}={v}&")).collect();
    let link = |page: usize, rel: &str| {
        format!("<{}{}?{}page={page}>; rel=\"{rel}\"", state.base, asked.path, others.concat())
    };
    let mut links = Vec::new();
    if at > 1 {
        links.extend([link(at - 1, "prev"), link(1, "first")]);
    }
    if at < last {
        links.extend([link(at + 1, "next"), link(last, "last")]);
    }
    if !links.is_empty() {
        answer.headers.push(("link", links.join(", ")));
    }
    answer
}

fn token(state: &mut State, asked: &Asked) -> Token {
    state.limits.token(&asked.secret).clone()
}

fn own_repositories(state: &mut State, asked: &Asked) -> Answer {
    let token = token(state, asked);
    if token.installation.is_some() {
        return Answer::error(403, "Resource not accessible by integration");
    }
    let mine =
        |one: &&Repository| if token.sees.is_some() { token.sees_private(one) } else { one.owner == token.login };
    let all: Vec<Value> =
        state.world.repositories().filter(mine).map(|one| shapes::repository(&state.base, &state.world, one)).collect();
    page(state, asked, &all, Value::Array)
}

fn repositories_of(state: &mut State, asked: &Asked, kind: &str, login: &str) -> Answer {
    let token = token(state, asked);
    let known =
        state.world.find_account(login).is_some_and(|account| kind == "users" || account.kind == Kind::Organization);
    if !known {
        return not_found();
    }
    // As GitHub's: of a user only the public ones are listed so.
    let shown = |one: &&Repository| {
        one.owner.eq_ignore_ascii_case(login) && token.may_see(one, &state.world) && (kind == "orgs" || !one.private)
    };
    let all: Vec<Value> = state
        .world
        .repositories()
        .filter(shown)
        .map(|one| shapes::repository(&state.base, &state.world, one))
        .collect();
    page(state, asked, &all, Value::Array)
}

fn installation_repositories(state: &mut State, asked: &Asked) -> Answer {
    let token = token(state, asked);
    let Some(installation) = token.installation else {
        return Answer::error(
            403,
            "You must authenticate with an installation access token in order to list repositories for an installation.",
        );
    };
    let account = state.world.installations.iter().find(|one| one.id == installation).map(|one| one.account.clone());
    let mine = state.world.repositories().filter(|one| Some(&one.owner) == account.as_ref());
    let all: Vec<Value> = mine.map(|one| shapes::repository(&state.base, &state.world, one)).collect();
    let total = all.len();
    page(
        state,
        asked,
        &all,
        |part| json!({ "total_count": total, "repository_selection": "all", "repositories": part }),
    )
}

fn account(state: &State, login: &str) -> Answer {
    let Some(account) = state.world.find_account(login) else { return not_found() };
    let mut value = shapes::account(&state.base, account);
    let (public, time) = (0, timestamp(1_704_067_200));
    for (key, one) in [
        ("name", Value::Null),
        ("company", Value::Null),
        ("blog", json!("")),
        ("location", Value::Null),
        ("email", Value::Null),
        ("hireable", Value::Null),
        ("bio", Value::Null),
        ("public_repos", json!(public)),
        ("public_gists", json!(0)),
        ("followers", json!(0)),
        ("following", json!(0)),
        ("created_at", json!(time)),
        ("updated_at", json!(time)),
    ] {
        value[key] = one;
    }
    Answer::ok(value)
}

/// What a GitHub App's signed token claims, if it is one that GitHub would take: at most ten minutes long.
fn app_of(asked: &Asked) -> Result<u64, Answer> {
    let bad = |why: &str| Answer::error(401, why);
    let claims = asked.secret.split('.').nth(1).ok_or_else(|| bad("A JSON web token could not be decoded"))?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| bad("A JSON web token could not be decoded"))?;
    let claims: Value = serde_json::from_slice(&bytes).map_err(|_| bad("A JSON web token could not be decoded"))?;
    let number = |key: &str| claims[key].as_u64().or_else(|| claims[key].as_str()?.parse().ok()).unwrap_or(0);
    let (issued, expires) = (number("iat"), number("exp"));
    if issued > now() || expires <= now() || expires > now() + 600 {
        return Err(bad("'Expiration time' claim ('exp') is too far in the future"));
    }
    Ok(number("iss"))
}

fn installations(state: &State, asked: &Asked) -> Answer {
    let app = match app_of(asked) {
        Ok(app) => app,
        Err(refused) => return refused,
    };
    let mine = state.world.installations.iter().filter(|one| one.app == app);
    let all: Vec<Value> = mine
        .map(|one| {
            let account = state.world.find_account(&one.account);
            let url = format!("{}/app/installations/{}", state.base, one.id);
            json!({
                "id": one.id, "account": account.map(|account| shapes::installed_for(&state.base, account)),
                "repository_selection": "all", "access_tokens_url": format!("{url}/access_tokens"),
                "repositories_url": format!("{}/installation/repositories", state.base),
                "html_url": url, "app_id": app, "app_slug": "runmesh", "target_id": account.map_or(0, |account| account.id),
                "target_type": account.map_or("User", |account| if account.kind == Kind::User { "User" } else { "Organization" }),
                "permissions": { "contents": "read", "metadata": "read" }, "events": [],
                "created_at": timestamp(now()), "updated_at": timestamp(now()), "single_file_name": null,
                "has_multiple_single_files": false, "single_file_paths": [], "suspended_by": null, "suspended_at": null,
            })
        })
        .collect();
    page(state, asked, &all, Value::Array)
}

fn installation_token(state: &mut State, asked: &Asked, id: &str) -> Answer {
    let app = match app_of(asked) {
        Ok(app) => app,
        Err(refused) => return refused,
    };
    let Some(installation) = state.world.installations.iter().find(|one| one.app == app && one.id.to_string() == id)
    else {
        return not_found();
    };
    let installation = installation.clone();
    state.limits.minted += 1;
    let secret = format!("ghs_{}_{}", installation.id, state.limits.minted);
    let expires = now() + state.limits.token_life.unwrap_or(3_600);
    let token =
        Token { installation: Some(installation.id), expires: Some(expires), ..Token::of(&installation.account) };
    state.limits.tokens.insert(secret.clone(), token);
    let mut answer = Answer::ok(json!({
        "token": secret, "expires_at": timestamp(expires), "permissions": { "contents": "read", "metadata": "read" },
        "repository_selection": "all",
    }));
    answer.status = 201;
    answer
}

fn in_repository(state: &mut State, asked: &Asked, owner: &str, name: &str, rest: &[&str]) -> Answer {
    let token = token(state, asked);
    let found = state.world.find(&format!("{owner}/{name}"));
    let Some(one) = found.filter(|one| token.may_see(one, &state.world)) else { return not_found() };
    let base = &state.base;
    match rest {
        [] => Answer::ok(shapes::full_repository(base, &state.world, one)),
        ["git", "ref", "heads", branch @ ..] => match one.head() {
            Some(head) if branch.join("/") == one.branch => {
                let url = format!("{base}/repos/{}/git", one.full_name());
                Answer::ok(json!({
                    "ref": format!("refs/heads/{}", one.branch), "node_id": format!("REF_{}", one.id),
                    "url": format!("{url}/refs/heads/{}", one.branch),
                    "object": { "type": "commit", "sha": head.oid, "url": format!("{url}/commits/{}", head.oid) },
                }))
            }
            _ => not_found(),
        },
        ["contents", path @ ..] => contents(base, one, asked, &path.join("/")),
        ["git", "blobs", id] => match one.blob(id) {
            Some(bytes) => Answer::ok(json!({
                "content": wrapped(bytes), "encoding": "base64", "url": format!("{base}/repos/{}/git/blobs/{id}", one.full_name()),
                "sha": id, "size": bytes.len(), "node_id": format!("B_{id}"),
            })),
            None => not_found(),
        },
        ["actions", "runs"] if asked.parameter("head_sha").is_some() => runs::of_commit(state, asked, one),
        ["actions", rest @ ..] => jobs::answer(state, asked, one, rest),
        ["compare", range] => compare(base, one, range),
        _ => not_found(),
    }
}

/// Base64 in lines of 60, as GitHub writes it.
fn wrapped(bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    text.as_bytes().chunks(60).map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect()
}

fn contents(base: &str, one: &Repository, asked: &Asked, path: &str) -> Answer {
    let commit = match asked.parameter("ref") {
        Some(name) => one.find_commit(name),
        None => one.head(),
    };
    let Some(commit) = commit else { return not_found() };
    if let Some(bytes) = commit.files.get(path) {
        let mut value = shapes::entry(base, one, path, false, &object_id("blob", bytes), bytes.len());
        value["encoding"] = json!("base64");
        value["content"] = json!(wrapped(bytes));
        return Answer::ok(value);
    }
    let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
    let entries = entries(&commit.files, &folder);
    if entries.is_empty() {
        return not_found();
    }
    let entries = entries.iter().map(|(name, is_folder, id)| {
        let path = format!("{folder}{name}");
        let size = commit.files.get(&path).map_or(0, Vec::len);
        shapes::entry(base, one, &path, *is_folder, id, size)
    });
    Answer::ok(Value::Array(entries.collect()))
}

fn compare(base: &str, one: &Repository, range: &str) -> Answer {
    let Some((from, to)) = range.split_once("...") else { return not_found() };
    let (Some(from), Some(to)) = (one.find_commit(from), one.find_commit(to)) else { return not_found() };
    let at = |oid: &str| one.commits.iter().position(|commit| commit.oid == oid).unwrap_or(0);
    let (start, end) = (at(&from.oid), at(&to.oid));
    let between: Vec<Value> =
        one.commits.get(start + 1..=end).unwrap_or_default().iter().map(|c| shapes::commit(base, one, c)).collect();
    let mut paths: Vec<&String> = from.files.keys().chain(to.files.keys()).collect();
    paths.sort();
    paths.dedup();
    let changed = paths.into_iter().filter(|path| from.files.get(*path) != to.files.get(*path));
    let url = format!("{base}/repos/{}", one.full_name());
    let files: Vec<Value> = changed
        .take(300)
        .map(|path| {
            let status = match (from.files.get(path), to.files.get(path)) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "modified",
            };
            let bytes = to.files.get(path).or_else(|| from.files.get(path)).cloned().unwrap_or_default();
            json!({
                "sha": object_id("blob", &bytes), "filename": path, "status": status, "additions": 1, "deletions": 0, "changes": 1,
                "blob_url": format!("{url}/blob/{path}"), "raw_url": format!("{url}/raw/{path}"), "contents_url": format!("{url}/contents/{path}"),
            })
        })
        .collect();
    let status = if start == end {
        "identical"
    } else if start < end {
        "ahead"
    } else {
        "behind"
    };
    let own = format!("{url}/compare/{}...{}", from.oid, to.oid);
    Answer::ok(json!({
        "url": own, "html_url": own, "permalink_url": own, "diff_url": format!("{own}.diff"), "patch_url": format!("{own}.patch"),
        "base_commit": shapes::commit(base, one, from), "merge_base_commit": shapes::commit(base, one, from), "status": status,
        "ahead_by": end.saturating_sub(start), "behind_by": start.saturating_sub(end), "total_commits": between.len(),
        "commits": between, "files": files,
    }))
}
