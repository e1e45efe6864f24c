//! The messages of `github.actions.results.api.v1.ArtifactService` in JSON, as Twirp carries them.
//!
//! Their fields are those of actions/toolkit, `packages/artifact/src/generated/results/api/v1/artifact.ts`; numbers of 64
//! bits are strings, wrapped values are the values (protobuf's mapping to JSON).

use chrono::{DateTime, SecondsFormat};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shelf::{Listed, Refusal};

/// All questions in one: each has some of these.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    #[serde(alias = "workflowRunBackendId")]
    pub(super) workflow_run_backend_id: String,
    pub(super) name: String,
    #[serde(alias = "mimeType")]
    pub(super) mime_type: Option<String>,
    size: Value,
    hash: Option<String>,
    #[serde(alias = "nameFilter")]
    name_filter: Option<String>,
    #[serde(alias = "idFilter")]
    id_filter: Value,
}

impl Asked {
    /// The size that is said, in bytes.
    pub(super) fn size(&self) -> u64 {
        number(&self.size).unwrap_or(0)
    }

    /// The digits of the SHA-256 that is said. Another kind of hash is none.
    pub(super) fn sha256(&self) -> Option<&str> {
        self.hash.as_deref()?.strip_prefix("sha256:")
    }

    /// Whether it is one of those that are asked for.
    pub(super) fn wants(&self, listed: &Listed) -> bool {
        self.name_filter.as_ref().is_none_or(|name| *name == listed.name)
            && (self.id_filter.is_null() || number(&self.id_filter) == Some(listed.id))
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// One of a list, of that run.
pub(super) fn listed(run: &str, listed: &Listed) -> Value {
    let created = i64::try_from(listed.created_ms).ok().and_then(DateTime::from_timestamp_millis);
    json!({
        "workflow_run_backend_id": run,
        "workflow_job_run_backend_id": run,
        "database_id": listed.id.to_string(),
        "name": listed.name,
        "size": listed.bytes.to_string(),
        "created_at": created.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true),
        "digest": format!("sha256:{}", listed.sha256),
    })
}

/// A refusal's status and Twirp's word for it (<https://twitchtv.github.io/twirp/docs/errors.html>). What another try
/// does not help has none of the statuses after which clients try again: Twirp's for a limit, 429, is one of those.
pub(super) fn refused(refusal: &Refusal) -> (StatusCode, &'static str) {
    match refusal {
        Refusal::Name | Refusal::BlockList => (StatusCode::BAD_REQUEST, "invalid_argument"),
        Refusal::Exists => (StatusCode::CONFLICT, "already_exists"),
        Refusal::Unknown => (StatusCode::NOT_FOUND, "not_found"),
        Refusal::TooMany(_) | Refusal::TooLarge(_) | Refusal::NoRoom => (StatusCode::FORBIDDEN, "permission_denied"),
        Refusal::Unequal(_) => (StatusCode::PRECONDITION_FAILED, "failed_precondition"),
        Refusal::Busy => (StatusCode::CONFLICT, "aborted"),
        Refusal::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_by_either_name_and_numbers_in_either_form() {
        let read = |value: Value| serde_json::from_value::<Asked>(value).unwrap();
        let asked = read(json!({
            "workflow_run_backend_id": "r", "workflow_job_run_backend_id": "j", "name": "site", "size": "12",
            "hash": "sha256:ab", "version": 7, "expires_at": "2026-01-01T00:00:00Z",
        }));
        assert_eq!((asked.workflow_run_backend_id.as_str(), asked.size(), asked.sha256()), ("r", 12, Some("ab")));
        let one = Listed { id: 3, name: "site".into(), bytes: 1, sha256: "ab".into(), created_ms: 1_700_000_000_123 };
        assert!(asked.wants(&one));
        for (filter, wants) in [
            (json!({ "idFilter": "3" }), true),
            (json!({ "id_filter": 3, "name_filter": "site" }), true),
            (json!({ "id_filter": "4" }), false),
            (json!({ "nameFilter": "else" }), false),
            (json!({ "id_filter": "x" }), false),
        ] {
            assert_eq!(read(filter.clone()).wants(&one), wants, "{filter}");
        }
        let shown = listed("r", &one);
        assert_eq!((&shown["database_id"], &shown["created_at"]), (&json!("3"), &json!("2023-11-14T22:13:20.123Z")));
        for bad in [json!({ "name": 7 }), json!(7), json!("x")] {
            assert!(serde_json::from_value::<Asked>(bad).is_err());
        }
    }
}
