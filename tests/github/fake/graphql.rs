//! GitHub's GraphQL, for the fields that runmesh asks for; an unknown one is an error, as at GitHub.

use apollo_compiler::ast::{Definition, Directive, Document, Field, OperationDefinition, Selection, Value as Literal};
use serde_json::{Map, Value, json};

use super::State;
use super::limits::Token;
use super::server::{Answer, Asked};
use super::world::{Commit, Repository, World, entries, object_id, timestamp};

/// The most bytes of a blob's text in an answer; what is longer comes cut, with `isTruncated`.
const MAX_TEXT: usize = 512 * 1024;

pub(crate) fn answer(state: &mut State, asked: &Asked) -> Answer {
    if state.limits.no_graphql {
        return Answer::error(403, "Resource not accessible by personal access token");
    }
    let Some(text) = asked.body["query"].as_str() else {
        return Answer::error(400, "A query attribute must be specified and must be a string.");
    };
    let document = match Document::parse(text, "query.graphql") {
        Ok(document) => document,
        Err(errors) => return errored(&format!("Parse error: {}", errors.errors)),
    };
    let operation = document.definitions.iter().find_map(|definition| match definition {
        Definition::OperationDefinition(operation) => Some(operation.clone()),
        _ => None,
    });
    let Some(operation) = operation else { return errored("A query must have an operation") };
    let variables = variables(&operation, &asked.body["variables"]);
    let token = state.limits.token(&asked.secret).clone();
    let asking = Asking {
        world: &state.world,
        base: &state.base,
        token: &token,
        variables,
        heaviest: state.limits.heaviest_page,
    };
    let mut errors = Vec::new();
    let data = asking.root(&operation.selection_set, &mut errors);
    match data {
        Err(Problem::Heavy) => {
            let mut answer = Answer::error(
                502,
                "Something went wrong while executing your query. This may be the result of a timeout, or it could be a GitHub bug.",
            );
            answer.points = 1;
            answer
        }
        Err(Problem::Bad(message)) => errored(&message),
        Ok(data) if errors.is_empty() => Answer::ok(json!({ "data": data })),
        Ok(data) => Answer::ok(json!({ "data": data, "errors": errors })),
    }
}

fn errored(message: &str) -> Answer {
    Answer::ok(json!({ "errors": [{ "message": message }] }))
}

fn variables(operation: &OperationDefinition, given: &Value) -> Map<String, Value> {
    let mut variables = given.as_object().cloned().unwrap_or_default();
    for variable in &operation.variables {
        if let Some(default) = &variable.default_value {
            variables.entry(variable.name.to_string()).or_insert_with(|| literal(default, &Map::new()));
        }
    }
    variables
}

fn literal(value: &Literal, variables: &Map<String, Value>) -> Value {
    match value {
        Literal::Null => Value::Null,
        Literal::Enum(name) => json!(name.as_str()),
        Literal::Variable(name) => variables.get(name.as_str()).cloned().unwrap_or(Value::Null),
        Literal::String(text) => json!(text),
        Literal::Int(number) => number.try_to_i32().map_or(Value::Null, |number| json!(number)),
        Literal::Float(number) => number.try_to_f64().map_or(Value::Null, |number| json!(number)),
        Literal::Boolean(value) => json!(value),
        Literal::List(items) => items.iter().map(|item| literal(item, variables)).collect(),
        Literal::Object(pairs) => {
            Value::Object(pairs.iter().map(|(key, value)| (key.to_string(), literal(value, variables))).collect())
        }
    }
}

enum Problem {
    /// It takes GitHub too long.
    Heavy,
    Bad(String),
}

struct Asking<'a> {
    world: &'a World,
    base: &'a str,
    token: &'a Token,
    variables: Map<String, Value>,
    heaviest: Option<u64>,
}

type Made = Result<Value, Problem>;

impl Asking<'_> {
    fn argument(&self, field: &Field, name: &str) -> Value {
        let argument = field.arguments.iter().find(|argument| argument.name == name);
        argument.map_or(Value::Null, |argument| literal(&argument.value, &self.variables))
    }

    fn wanted(&self, directives: &[apollo_compiler::Node<Directive>]) -> bool {
        directives.iter().all(|directive| {
            let condition = directive.arguments.iter().find(|argument| argument.name == "if");
            let condition = condition.is_some_and(|argument| literal(&argument.value, &self.variables) == json!(true));
            match directive.name.as_str() {
                "include" => condition,
                "skip" => !condition,
                _ => true,
            }
        })
    }

    /// An object of a type, by a function that makes each of its fields.
    fn object(
        &self,
        r#type: &str,
        selection: &[Selection],
        make: &mut dyn FnMut(&Field) -> Result<Option<Value>, Problem>,
    ) -> Made {
        let mut object = Map::new();
        self.fill(r#type, selection, &mut object, make)?;
        Ok(Value::Object(object))
    }

    fn fill(
        &self,
        r#type: &str,
        selection: &[Selection],
        object: &mut Map<String, Value>,
        make: &mut dyn FnMut(&Field) -> Result<Option<Value>, Problem>,
    ) -> Result<(), Problem> {
        for selected in selection {
            match selected {
                Selection::Field(field) if self.wanted(&field.directives) => {
                    let key = field.alias.as_ref().unwrap_or(&field.name).to_string();
                    let value = match field.name.as_str() {
                        "__typename" => json!(r#type),
                        name => make(field)?
                            .ok_or_else(|| Problem::Bad(format!("Field '{name}' doesn't exist on type '{type}'")))?,
                    };
                    object.insert(key, value);
                }
                Selection::InlineFragment(fragment) if self.wanted(&fragment.directives) => {
                    if fragment.type_condition.as_ref().is_none_or(|name| name == r#type) {
                        self.fill(r#type, &fragment.selection_set, object, make)?;
                    }
                }
                Selection::Field(_) | Selection::InlineFragment(_) => {}
                Selection::FragmentSpread(_) => {
                    return Err(Problem::Bad("named fragments are not understood here".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn root(&self, selection: &[Selection], errors: &mut Vec<Value>) -> Made {
        self.object("Query", selection, &mut |field| {
            let text = |name: &str| self.argument(field, name).as_str().unwrap_or_default().to_owned();
            let key = field.alias.as_ref().unwrap_or(&field.name).to_string();
            let mut missing =
                |what: String| errors.push(json!({ "type": "NOT_FOUND", "path": [key], "message": what }));
            Ok(Some(match field.name.as_str() {
                "rateLimit" => self.rate_limit(field)?,
                "viewer" => self.owner(field, "User", &self.token.login, true)?,
                "repositoryOwner" => match self.world.find_account(&text("login")) {
                    Some(account) => {
                        let kind = if account.kind == super::world::Kind::User { "User" } else { "Organization" };
                        self.owner(field, kind, &account.login, false)?
                    }
                    None => Value::Null,
                },
                "repository" => {
                    let name = format!("{}/{}", text("owner"), text("name"));
                    match self.world.find(&name).filter(|one| self.token.may_see(one, self.world)) {
                        Some(one) => self.repository(&field.selection_set, one)?,
                        None => {
                            missing(format!("Could not resolve to a Repository with the name '{name}'."));
                            Value::Null
                        }
                    }
                }
                "nodes" => {
                    let ids = self.argument(field, "ids");
                    let mut nodes = Vec::new();
                    for id in ids.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        let number = id.strip_prefix("R_").and_then(|id| id.parse().ok());
                        match number
                            .and_then(|id| self.world.by_id(id))
                            .filter(|one| self.token.may_see(one, self.world))
                        {
                            Some(one) => nodes.push(self.repository(&field.selection_set, one)?),
                            None => {
                                missing(format!("Could not resolve to a node with the global id of '{id}'"));
                                nodes.push(Value::Null);
                            }
                        }
                    }
                    self.weigh(nodes.len() as u64)?;
                    Value::Array(nodes)
                }
                _ => return Ok(None),
            }))
        })
    }

    fn weigh(&self, repositories: u64) -> Result<(), Problem> {
        if self.heaviest.is_some_and(|heaviest| repositories > heaviest) { Err(Problem::Heavy) } else { Ok(()) }
    }

    fn rate_limit(&self, field: &Field) -> Made {
        let quota = self.token.graphql;
        self.object("RateLimit", &field.selection_set, &mut |field| {
            Ok(Some(match field.name.as_str() {
                "cost" => json!(1),
                "limit" => json!(quota.limit),
                "remaining" => json!(quota.remaining().saturating_sub(1)),
                "used" => json!(quota.used + 1),
                "resetAt" => json!(timestamp(quota.reset)),
                _ => return Ok(None),
            }))
        })
    }

    fn owner(&self, field: &Field, kind: &str, login: &str, viewer: bool) -> Made {
        self.object(kind, &field.selection_set, &mut |field| {
            Ok(Some(match field.name.as_str() {
                "login" => json!(login),
                "repositories" => {
                    let mine = |one: &&Repository| match (viewer, &self.token.sees) {
                        (true, Some(_)) => self.token.sees_private(one),
                        (true, None) => one.owner == self.token.login,
                        (false, _) => one.owner.eq_ignore_ascii_case(login) && self.token.may_see(one, self.world),
                    };
                    let wants =
                        |name: &str, is: bool| self.argument(field, name).as_bool().is_none_or(|wanted| wanted == is);
                    let all: Vec<&Repository> = self
                        .world
                        .repositories()
                        .filter(mine)
                        .filter(|one| wants("isFork", one.fork) && wants("isArchived", one.archived))
                        .collect();
                    self.connection(field, &all)?
                }
                _ => return Ok(None),
            }))
        })
    }

    fn connection(&self, field: &Field, all: &[&Repository]) -> Made {
        let first = self.argument(field, "first").as_u64().unwrap_or(0);
        if !(1..=100).contains(&first) {
            return Err(Problem::Bad(
                "Requesting more than 100 records on the `repositories` connection exceeds the limit".to_owned(),
            ));
        }
        self.weigh(first.min(all.len() as u64))?;
        let start = match self.argument(field, "after").as_str() {
            Some(cursor) => cursor.strip_prefix("cursor:").and_then(|n| n.parse().ok()).unwrap_or(0),
            None => 0,
        };
        let part: Vec<&Repository> =
            all.iter().skip(start).take(usize::try_from(first).unwrap_or(0)).copied().collect();
        let end = start + part.len();
        self.object("RepositoryConnection", &field.selection_set, &mut |field| {
            Ok(Some(match field.name.as_str() {
                "totalCount" => json!(all.len()),
                "pageInfo" => self.object("PageInfo", &field.selection_set, &mut |field| {
                    Ok(Some(match field.name.as_str() {
                        "hasNextPage" => json!(end < all.len()),
                        "endCursor" => {
                            if part.is_empty() {
                                Value::Null
                            } else {
                                json!(format!("cursor:{end}"))
                            }
                        }
                        _ => return Ok(None),
                    }))
                })?,
                "nodes" => Value::Array(
                    part.iter().map(|one| self.repository(&field.selection_set, one)).collect::<Result<_, _>>()?,
                ),
                _ => return Ok(None),
            }))
        })
    }

    fn repository(&self, selection: &[Selection], one: &Repository) -> Made {
        self.object("Repository", selection, &mut |field| {
            Ok(Some(match field.name.as_str() {
                "id" => json!(one.node_id()),
                "databaseId" => json!(one.id),
                "name" => json!(one.name),
                "nameWithOwner" => json!(one.full_name()),
                "url" => json!(format!("{}/{}", self.base, one.full_name())),
                "isArchived" => json!(one.archived),
                "isDisabled" => json!(one.disabled),
                "isFork" => json!(one.fork),
                "isPrivate" => json!(one.private),
                "isEmpty" => json!(one.head().is_none()),
                "pushedAt" => json!(timestamp(one.pushed_at())),
                "defaultBranchRef" => match one.head() {
                    None => Value::Null,
                    Some(head) => self.object("Ref", &field.selection_set, &mut |field| {
                        Ok(Some(match field.name.as_str() {
                            "name" => json!(one.branch),
                            "prefix" => json!("refs/heads/"),
                            "target" => self.object("Commit", &field.selection_set, &mut |field| {
                                Ok((field.name == "oid").then(|| json!(head.oid)))
                            })?,
                            _ => return Ok(None),
                        }))
                    })?,
                },
                "object" => self.named_object(field, one)?,
                _ => return Ok(None),
            }))
        })
    }

    fn named_object(&self, field: &Field, one: &Repository) -> Made {
        if let Some(oid) = self.argument(field, "oid").as_str() {
            return match one.blob(oid) {
                Some(bytes) => self.blob(&field.selection_set, oid, bytes),
                None => Ok(Value::Null),
            };
        }
        let expression = self.argument(field, "expression");
        let Some((commit, path)) = expression.as_str().and_then(|text| text.split_once(':')) else {
            return Ok(Value::Null);
        };
        let Some(commit) = one.find_commit(commit) else { return Ok(Value::Null) };
        match commit.files.get(path) {
            Some(bytes) => self.blob(&field.selection_set, &object_id("blob", bytes), bytes),
            None if entries(&commit.files, &format!("{path}/")).is_empty() => Ok(Value::Null),
            None => self.tree(&field.selection_set, commit, &format!("{path}/")),
        }
    }

    fn tree(&self, selection: &[Selection], commit: &Commit, folder: &str) -> Made {
        self.object("Tree", selection, &mut |field| {
            Ok(Some(match field.name.as_str() {
                "oid" => json!(super::world::tree_id(&commit.files, folder)),
                "entries" => {
                    let entries = entries(&commit.files, folder);
                    let entry = |(name, is_folder, id): &(String, bool, String)| {
                        let path = format!("{folder}{name}");
                        self.object("TreeEntry", &field.selection_set, &mut |field| {
                            Ok(Some(match field.name.as_str() {
                                "name" => json!(name),
                                "path" => json!(path),
                                "type" => json!(if *is_folder { "tree" } else { "blob" }),
                                "mode" => json!(if *is_folder { 0o040_000 } else { 0o100_644 }),
                                "oid" => json!(id),
                                "size" => json!(commit.files.get(&path).map_or(0, Vec::len)),
                                "object" => match commit.files.get(&path) {
                                    Some(bytes) => self.blob(&field.selection_set, id, bytes)?,
                                    None => self.object("Tree", &field.selection_set, &mut |field| {
                                        Ok((field.name == "oid").then(|| json!(id)))
                                    })?,
                                },
                                _ => return Ok(None),
                            }))
                        })
                    };
                    Value::Array(entries.iter().map(entry).collect::<Result<_, _>>()?)
                }
                _ => return Ok(None),
            }))
        })
    }

    fn blob(&self, selection: &[Selection], oid: &str, bytes: &[u8]) -> Made {
        let text = std::str::from_utf8(bytes).ok();
        self.object("Blob", selection, &mut |field| {
            Ok(Some(match field.name.as_str() {
                "oid" => json!(oid),
                "byteSize" => json!(bytes.len()),
                "isBinary" => json!(text.is_none()),
                "isTruncated" => json!(bytes.len() > MAX_TEXT),
                "text" => text.map_or(Value::Null, |text| json!(text.chars().take(MAX_TEXT).collect::<String>())),
                _ => return Ok(None),
            }))
        })
    }
}
