//! What a run is told about itself: the event's payload and the `github` context, in GitHub's shapes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kernel::id::TaskId;
use crate::kernel::task::{Fence, RunEvent, Trigger, Workload};

/// Who starts runs here; GitHub has a person's login in this place.
pub(crate) const ACTOR: &str = "runmesh";

/// The branch's name, which is also taken for the repository's default branch: discovery reads that one.
pub(crate) fn branch(workload: &Workload) -> &str {
    workload.r#ref.strip_prefix("refs/heads/").unwrap_or(&workload.r#ref)
}

/// The repository as `owner/name`; a local one has the owner `local`.
fn full_name(workload: &Workload) -> String {
    let name = &workload.repository.name;
    if name.contains('/') { name.clone() } else { format!("local/{name}") }
}

/// The payload that `github.event` shows
/// (<https://docs.github.com/webhooks/webhook-events-and-payloads>, the parts that workflows read).
pub(crate) fn event(workload: &Workload) -> Value {
    let full_name = full_name(workload);
    let (owner, name) = full_name.split_once('/').unwrap_or(("local", &full_name));
    let repository = json!({
        "name": name,
        "full_name": full_name,
        "owner": { "login": owner, "name": owner },
        "default_branch": branch(workload),
    });
    let sender = json!({ "login": ACTOR, "type": "User" });
    match workload.event {
        RunEvent::Push => json!({
            "ref": workload.r#ref,
            "before": "0".repeat(workload.commit.len()),
            "after": workload.commit,
            "created": false,
            "deleted": false,
            "forced": false,
            "head_commit": { "id": workload.commit },
            "commits": [],
            "pusher": { "name": ACTOR },
            "repository": repository,
            "sender": sender,
        }),
        RunEvent::WorkflowDispatch => json!({
            "inputs": workload.inputs,
            "ref": workload.r#ref,
            "workflow": workload.path,
            "repository": repository,
            "sender": sender,
        }),
        RunEvent::Schedule => {
            let cron = match &workload.trigger {
                Trigger::Schedule { cron, .. } => Some(cron),
                _ => None,
            };
            json!({ "schedule": cron, "workflow": workload.path, "repository": repository, "sender": sender })
        }
    }
}

/// What act would otherwise guess from the checkout's git settings. act 0.2.89 reads the commit from `SHA_REF`. The
/// server's address is left alone: act fetches remote actions from it.
pub(crate) fn context(workload: &Workload, task: &TaskId, fence: &Fence) -> BTreeMap<&'static str, String> {
    let full_name = full_name(workload);
    let owner = full_name.split('/').next().unwrap_or_default().to_owned();
    // A number of 48 bits, which JavaScript holds exactly.
    let run = task.0[..6].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    BTreeMap::from([
        ("GITHUB_REPOSITORY", full_name),
        ("GITHUB_REPOSITORY_OWNER", owner),
        ("GITHUB_REF", workload.r#ref.clone()),
        ("SHA_REF", workload.commit.clone()),
        ("GITHUB_RUN_ID", run.to_string()),
        ("GITHUB_RUN_ATTEMPT", fence.attempt.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::id::Cid;
    use crate::kernel::task::{Priority, Repository};

    fn workload(event: RunEvent) -> Workload {
        Workload {
            repository: Repository { host: "git".into(), id: "1".into(), name: "tools".into() },
            path: ".github/workflows/ci.yml".into(),
            trigger: Trigger::Schedule { cron: "0 3 * * *".into(), minute: 5 },
            commit: "ab".repeat(20),
            r#ref: "refs/heads/trunk".into(),
            event,
            name: "ci".into(),
            tags: [].into(),
            priority: Priority::MOST,
            labels: [].into(),
            inputs: [("depth".to_owned(), "3".to_owned())].into(),
            time_limit_s: 60,
            fallback_s: 60,
            concurrency: None,
        }
    }

    #[test]
    fn each_event_has_the_fields_that_workflows_read() {
        let push = event(&workload(RunEvent::Push));
        assert_eq!(push["after"], "ab".repeat(20));
        assert_eq!(push["before"], "0".repeat(40));
        assert_eq!(push["repository"]["full_name"], "local/tools");
        assert_eq!(push["repository"]["default_branch"], "trunk");
        assert_eq!(event(&workload(RunEvent::WorkflowDispatch))["inputs"]["depth"], "3");
        assert_eq!(event(&workload(RunEvent::Schedule))["schedule"], "0 3 * * *");
    }

    #[test]
    fn the_context_names_repository_commit_and_attempt() {
        let fence = Fence { attempt: 3, claim: Cid::of(b"claim") };
        let task = TaskId([0xff; 32]);
        let context = context(&workload(RunEvent::Push), &task, &fence);
        assert_eq!(context["GITHUB_REPOSITORY"], "local/tools");
        assert_eq!(context["GITHUB_REPOSITORY_OWNER"], "local");
        assert_eq!(context["SHA_REF"], "ab".repeat(20));
        assert_eq!(context["GITHUB_RUN_ATTEMPT"], "3");
        assert_eq!(context["GITHUB_RUN_ID"], ((1_u64 << 48) - 1).to_string());
    }
}
