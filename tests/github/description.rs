//! What GitHub publishes of its API: the OpenAPI description of REST and the GraphQL schema. `scripts/github-api`
//! fetches both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use serde_json::{Map, Value, json};

use super::fake::Call;

pub(crate) struct Description {
    openapi: Value,
    schema: Valid<Schema>,
}

impl Description {
    pub(crate) fn read() -> Self {
        let folder = fetched();
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a description");
        let openapi = serde_json::from_str(&text("api.github.com.json")).expect("JSON");
        // As published it defines a few fields twice, which no other part of it minds.
        let schema = match Schema::parse(text("schema.graphql"), "schema.graphql") {
            Ok(schema) => schema,
            Err(told) => told.partial,
        };
        let schema = Valid::assume_valid(schema);
        assert!(schema.get_object("Repository").is_some_and(|object| object.fields.contains_key("defaultBranchRef")));
        Self { openapi, schema }
    }

    /// What of a call is not as described.
    pub(crate) fn faults(&self, call: &Call) -> Vec<String> {
        if call.path == "/graphql" {
            return self.graphql_faults(call);
        }
        let name = format!("{} {} ({})", call.method, call.path, call.status);
        let Some((path, operation)) = self.operation(call) else {
            return vec![format!("{name}: no such call is described")];
        };
        let mut faults = Vec::new();
        let query = call.path.split_once('?').map_or("", |(_, query)| query);
        for key in query.split('&').filter_map(|pair| pair.split('=').next()).filter(|key| !key.is_empty()) {
            let known = operation["parameters"].as_array().into_iter().flatten().any(|parameter| {
                let parameter = self.resolve(parameter);
                parameter["in"] == "query" && parameter["name"] == key
            });
            if !known {
                faults.push(format!("{name}: {path} has no parameter `{key}`"));
            }
        }
        let response = self.resolve(&operation["responses"][call.status.to_string()]);
        // What may come of any call is described of few: a bad token, above all.
        let any = json!({ "$ref": "#/components/schemas/basic-error" });
        let schema = match &response["content"]["application/json"]["schema"] {
            Value::Null if matches!(call.status, 204 | 304) => return faults,
            Value::Null if call.status >= 400 => &any,
            Value::Null => return vec![format!("{name}: {path} has no such answer")],
            schema => schema,
        };
        let whole = self.closed(schema);
        let validator = jsonschema::validator_for(&whole).expect("a schema");
        faults.extend(validator.iter_errors(&call.answer).take(5).map(|error| {
            // What is wrong stands behind the whole of what it is wrong with.
            let text: Vec<char> = error.to_string().chars().collect();
            let end: String = text[text.len().saturating_sub(200)..].iter().collect();
            format!("{name}: {} …{end}", error.instance_path())
        }));
        faults
    }

    fn graphql_faults(&self, call: &Call) -> Vec<String> {
        let query = call.request["query"].as_str().unwrap_or_default();
        match ExecutableDocument::parse_and_validate(&self.schema, query, "query.graphql") {
            Ok(_) => Vec::new(),
            Err(invalid) => vec![format!("{query}: {}", invalid.errors)],
        }
    }

    /// The described paths of the calls that came to something.
    pub(crate) fn operations<'a>(&'a self, calls: &[Call]) -> BTreeSet<&'a str> {
        let good = calls.iter().filter(|call| call.path != "/graphql" && (200..300).contains(&call.status));
        good.filter_map(|call| self.operation(call)).map(|(path, _)| path).collect()
    }

    fn operation(&self, call: &Call) -> Option<(&str, &Value)> {
        let asked = call.path.split('?').next()?;
        let paths = self.openapi["paths"].as_object()?;
        let fits = paths.iter().filter(|(path, _)| fits(path, asked));
        // The most literal one, as a server would route it.
        let (path, item) =
            fits.max_by_key(|(path, _)| path.split('/').filter(|part| !part.starts_with('{')).count())?;
        let operation = &item[call.method.to_lowercase()];
        operation.is_object().then_some((path.as_str(), operation))
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|name| self.openapi.pointer(name.trim_start_matches('#'))) {
            Some(named) => named,
            None => value,
        }
    }

    /// A schema with all that it refers to, as a newer JSON Schema has it.
    fn closed(&self, schema: &Value) -> Value {
        let mut schemas = Map::new();
        let mut open = references(schema);
        while let Some(name) = open.pop() {
            if !schemas.contains_key(&name) {
                let named = &self.openapi["components"]["schemas"][&name];
                assert!(named.is_object(), "{name} is described");
                open.extend(references(named));
                schemas.insert(name, converted(named));
            }
        }
        let mut whole = converted(schema);
        whole["components"] = json!({ "schemas": schemas });
        whole
    }
}

/// Whether a path has the form of a described one. Only a last `{path}`, `{ref}` and the like stand for several parts.
fn fits(described: &str, asked: &str) -> bool {
    let (described, asked): (Vec<&str>, Vec<&str>) = (described.split('/').collect(), asked.split('/').collect());
    let same = |(a, b): (&&str, &&str)| a.starts_with('{') || a == b;
    let open = matches!(described.last(), Some(&("{path}" | "{ref}")));
    let lengths = if open { asked.len() >= described.len() } else { asked.len() == described.len() };
    lengths && described.iter().zip(&asked).all(same)
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(object) => {
            let own = object.get("$ref").and_then(Value::as_str).and_then(|name| name.rsplit('/').next());
            own.map(str::to_owned).into_iter().chain(object.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// OpenAPI 3.0's `nullable` in the words of JSON Schema.
fn converted(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => {
            let mut made: Map<String, Value> = object
                .iter()
                .filter(|(key, _)| *key != "nullable" && *key != "example" && *key != "examples")
                .map(|(key, value)| (key.clone(), converted(value)))
                .collect();
            if object.get("nullable") == Some(&Value::Bool(true)) {
                if let Some(Value::Array(values)) = made.get_mut("enum") {
                    values.push(Value::Null);
                }
                return json!({ "anyOf": [{ "type": "null" }, made] });
            }
            // `exclusiveMinimum: true` and the like are of an older form, and nothing here needs them.
            made.retain(|key, value| !(key.starts_with("exclusive") && value.is_boolean()));
            Value::Object(made)
        }
        Value::Array(items) => items.iter().map(converted).collect(),
        other => other.clone(),
    }
}

/// Where the descriptions are; fetched first where they are not there.
fn fetched() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(root.join("scripts/github-api")).arg(root.join("target/tools/github")).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().into()
}
