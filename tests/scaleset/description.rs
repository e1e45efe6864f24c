//! What is said to the service behind scale sets and by it, written down by hand after GitHub's own client: GitHub
//! publishes no description of it.

use serde_json::{Value, json};

use super::github::fake::Call;

/// What of a call is not as described.
pub(crate) fn faults(call: &Call) -> Vec<String> {
    let path = call.path.split('?').next().unwrap_or_default();
    let is_service =
        path.starts_with("/tenant/") || path.ends_with("-registration") || path.ends_with("registration-token");
    // What was emptied on demand is none of the service's.
    if !is_service || call.status == 200 && call.answer.is_null() {
        return Vec::new();
    }
    let all: Value = serde_json::from_str(include_str!("schema.json")).expect("JSON");
    let name = format!("{} {} ({})", call.method, call.path, call.status);
    let calls = all["calls"].as_array().expect("a list");
    let is_it =
        |one: &&Value| one["method"] == call.method.as_str() && fits(one["path"].as_str().unwrap_or_default(), path);
    let Some(one) = calls.iter().find(is_it) else { return vec![format!("{name}: no such call is described")] };
    let mut faults = check(&all, &one["request"], &call.request, &format!("{name}: what is asked"));
    let answer = &one["answers"][call.status.to_string()];
    match answer {
        Value::Null if call.status >= 400 => {}
        Value::Null => faults.push(format!("{name}: no such answer is described")),
        schema => {
            faults.extend(check(&all, schema, &call.answer, &format!("{name}: what is answered")));
            if let Some(body) = call.answer["body"].as_str() {
                let items = serde_json::from_str(body).unwrap_or(Value::Null);
                faults.extend(check(&all, &json!({ "$ref": "#/definitions/items" }), &items, &name));
            }
        }
    }
    faults
}

fn fits(described: &str, asked: &str) -> bool {
    let (described, asked): (Vec<&str>, Vec<&str>) = (described.split('/').collect(), asked.split('/').collect());
    described.len() == asked.len() && described.iter().zip(&asked).all(|(a, b)| a.starts_with('{') || a == b)
}

fn check(all: &Value, schema: &Value, value: &Value, name: &str) -> Vec<String> {
    if schema.is_null() {
        return if value.is_null() { Vec::new() } else { vec![format!("{name}: {value}, and nothing should be")] };
    }
    let mut whole = schema.clone();
    whole["definitions"] = all["definitions"].clone();
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    validator.iter_errors(value).take(3).map(|error| format!("{name}: {}: {error}", error.instance_path())).collect()
}
