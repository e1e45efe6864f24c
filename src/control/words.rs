//! The kernel's values in the words of the API.

use std::collections::BTreeMap;

use crate::kernel::io::Notice;
use crate::kernel::task::{Artifact, Blob, Products, State, Trigger, Workload};

use super::proto;

/// The words for where a task stands, in the order of its life.
pub const STATES: [&str; 7] = ["pending", "claimed", "running", "completed", "cancelled", "lost", "left-to-github"];

/// How many tasks stand in each state; every state has its key.
pub fn counts_by_state<'a>(states: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = STATES.iter().map(|state| ((*state).to_owned(), 0)).collect();
    for state in states {
        *counts.entry(state.to_owned()).or_default() += 1;
    }
    counts
}

/// A task as its introduction and its state tell. Left for the caller: `running` for `claimed` where the holder's
/// presence shows it, the attempt of a task that nobody holds, `anchor`, `ranking`, `started_ms`, `note`, [`products`].
pub fn task(workload: &Workload, state: &State) -> proto::Task {
    let (trigger, occurrence) = trigger(&workload.trigger);
    let (holder, attempt, conclusion, duration_ms) = match state {
        State::Claimed { holder, fence } => (Some(holder), fence.attempt, None, None),
        State::Completed { holder, fence, conclusion, duration_ms } => {
            (Some(holder), fence.attempt, Some(conclusion.word().to_owned()), Some(*duration_ms))
        }
        State::Pending | State::Cancelled | State::Lost | State::LeftToGithub => (None, 0, None, None),
    };
    proto::Task {
        id: workload.id().to_string(),
        repository: workload.repository.name.clone(),
        path: workload.path.clone(),
        commit: workload.commit.clone(),
        trigger: trigger.to_owned(),
        tags: workload.tags.iter().map(ToString::to_string).collect(),
        priority: workload.priority.number().into(),
        state: state.word().to_owned(),
        attempt,
        holder: holder.map(ToString::to_string),
        conclusion,
        name: workload.name.clone(),
        r#ref: workload.r#ref.clone(),
        event: workload.event.word().to_owned(),
        occurrence,
        labels: workload.labels.iter().cloned().collect(),
        inputs: workload.inputs.clone(),
        time_limit_s: workload.time_limit_s,
        anchor: String::new(),
        ranking: Vec::new(),
        started_ms: None,
        duration_ms,
        note: String::new(),
        waits_for: String::new(),
        log: None,
        artifacts: Vec::new(),
    }
}

/// What a run left behind.
pub fn products(products: &Products) -> (Option<proto::Blob>, Vec<proto::Artifact>) {
    let blob = |blob: &Blob| proto::Blob { id: blob.id.to_string(), bytes: blob.bytes };
    let artifact =
        |artifact: &Artifact| proto::Artifact { name: artifact.name.clone(), blob: Some(blob(&artifact.blob)) };
    (products.log.as_ref().map(blob), products.artifacts.iter().map(artifact).collect())
}

/// A trigger's word, and what sets this occurrence of it apart.
fn trigger(trigger: &Trigger) -> (&'static str, String) {
    match trigger {
        Trigger::Revision { blob } => ("revision", blob.clone()),
        Trigger::Push { r#ref, commit } => ("push", format!("{} {commit}", r#ref)),
        Trigger::Schedule { cron, minute } => ("schedule", format!("{cron} at minute {minute}")),
        Trigger::Manual { request } => ("manual", request.clone()),
        Trigger::GithubJob { job, run_attempt } => ("github-job", format!("{job} attempt {run_attempt}")),
    }
}

/// Something that the kernel noticed at `time_ms` (milliseconds since 1970), as an event.
pub fn event(time_ms: u64, notice: &Notice) -> proto::Event {
    let mut event = proto::Event { time_ms, ..proto::Event::default() };
    let (kind, text) = match notice {
        Notice::Introduced { task, workload } => {
            event.task = Some(task.to_string());
            event.repository = Some(workload.repository.name.clone());
            event.path = Some(workload.path.clone());
            let (trigger, _) = trigger(&workload.trigger);
            ("introduced", format!("found {} in {} ({trigger})", workload.path, workload.repository.name))
        }
        Notice::Elected { task, attempt, rank, distance, candidates } => {
            event.task = Some(task.to_string());
            event.attempt = Some(*attempt);
            (event.rank, event.distance, event.candidates) = (Some(*rank), Some(*distance), Some(*candidates));
            let place = rank.saturating_add(1);
            let text = format!(
                "takes task {} (attempt {attempt}): place {place} of {candidates}, {distance} bits away",
                task.short()
            );
            ("elected", text)
        }
        Notice::Held { task, holder, fence } => {
            (event.task, event.peer) = (Some(task.to_string()), Some(holder.to_string()));
            event.attempt = Some(fence.attempt);
            ("held", format!("{} holds task {} (attempt {})", holder.short(), task.short(), fence.attempt))
        }
        Notice::Released { task, holder, note } => {
            (event.task, event.peer) = (Some(task.to_string()), Some(holder.to_string()));
            event.note = Some(note.clone());
            ("released", with_note(format!("{} gives task {} back", holder.short(), task.short()), note))
        }
        Notice::Missed { task, holder } => {
            (event.task, event.peer) = (Some(task.to_string()), Some(holder.to_string()));
            ("missed", format!("task {} is not heard of from {} any more", task.short(), holder.short()))
        }
        Notice::Ended { task, word, conclusion, holder, note } => {
            (event.task, event.peer) = (Some(task.to_string()), holder.map(|holder| holder.to_string()));
            event.state = Some((*word).to_owned());
            event.conclusion = conclusion.map(|conclusion| conclusion.word().to_owned());
            event.note = Some(note.clone());
            let how = conclusion.map(|conclusion| format!(": {}", conclusion.word())).unwrap_or_default();
            ("ended", with_note(format!("task {} is {word}{how}", task.short()), note))
        }
        Notice::PeerHeard { peer } => {
            event.peer = Some(peer.to_string());
            ("peer-heard", format!("hears {}", peer.short()))
        }
        Notice::PeerLost { peer } => {
            event.peer = Some(peer.to_string());
            ("peer-lost", format!("does not hear {} any more", peer.short()))
        }
        Notice::Admitted { peer, by } => {
            event.peer = Some(peer.to_string());
            ("admitted", format!("{} is a member now, admitted by {}", peer.short(), by.short()))
        }
        Notice::Revoked { peer } => {
            event.peer = Some(peer.to_string());
            ("revoked", format!("{} was revoked by the holder of the mesh key", peer.short()))
        }
        Notice::Equivocation { author, sequence, first, second } => {
            event.peer = Some(author.peer.to_string());
            let text = format!(
                "{} has signed two entries with number {sequence}, {first} and {second}: what it wrote from there on does \
                 not count",
                author.peer.short()
            );
            ("equivocation", text)
        }
        Notice::Condensed { dropped, kept } => (
            "condensed",
            format!("dropped {dropped} entries beneath a checkpoint that all members agree on; {kept} stay"),
        ),
        Notice::Refused { from, why } => {
            event.peer = Some(from.to_string());
            event.note = Some(why.clone());
            ("refused", format!("refused what {} sent: {why}", from.short()))
        }
        Notice::Paused { by, why } => {
            event.peer = Some(by.to_string());
            event.note = Some(why.clone());
            ("paused", with_note(format!("{} has paused the mesh: no node claims anything", by.short()), why))
        }
        Notice::Resumed => ("resumed", "the mesh is resumed: nodes claim again".to_owned()),
        Notice::Warning { text } => ("warning", text.clone()),
    };
    (event.kind, event.text) = (kind.to_owned(), text);
    event
}

fn with_note(text: String, note: &str) -> String {
    if note.is_empty() { text } else { format!("{text} ({note})") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::kernel::id::{Cid, PeerId, TaskId};
    use crate::kernel::task::{Conclusion, Fence, Priority, Repository, RunEvent, Tag};

    fn workload() -> Workload {
        Workload {
            repository: Repository { host: "git".to_owned(), id: "1".to_owned(), name: "lab/models".to_owned() },
            path: ".github/workflows/ci.yml".to_owned(),
            trigger: Trigger::Revision { blob: "b10b".to_owned() },
            commit: "c0".repeat(20),
            r#ref: "refs/heads/main".to_owned(),
            event: RunEvent::WorkflowDispatch,
            name: "CI".to_owned(),
            tags: BTreeSet::from([Tag::P2pOnly, Tag::DataProcessing]),
            priority: Priority::MOST,
            labels: BTreeSet::from(["linux".to_owned()]),
            inputs: BTreeMap::new(),
            time_limit_s: 60,
            fallback_s: 60,
            concurrency: None,
        }
    }

    /// Section 9 of DESIGN.md: programs read these names.
    #[test]
    fn a_task_prints_with_the_documented_names() {
        let holder = PeerId::from_public_key([1; 32]);
        let fence = Fence { attempt: 2, claim: Cid::of(b"claim") };
        let state = State::Completed { holder, fence, conclusion: Conclusion::TimedOut, duration_ms: 1500 };
        let json = serde_json::to_value(task(&workload(), &state)).expect("prints");
        assert_eq!(json["id"], workload().id().to_string());
        assert_eq!(json["repository"], "lab/models");
        assert_eq!(json["path"], ".github/workflows/ci.yml");
        assert_eq!(json["commit"], "c0".repeat(20));
        assert_eq!(json["trigger"], "revision");
        assert_eq!(json["tags"], serde_json::json!(["p2p-only", "data-processing"]));
        assert_eq!(json["priority"], 10);
        assert_eq!(json["state"], "completed");
        assert_eq!(json["attempt"], 2);
        assert_eq!(json["holder"], holder.to_string());
        assert_eq!(json["conclusion"], "timed_out");
        assert_eq!(json["ref"], "refs/heads/main");
        assert_eq!(json["duration_ms"], 1500);
        let json = serde_json::to_value(task(&workload(), &State::LeftToGithub)).expect("prints");
        assert_eq!((&json["state"], &json["holder"]), (&"left-to-github".into(), &serde_json::Value::Null));
    }

    #[test]
    fn every_state_of_the_kernel_has_a_word_and_a_count() {
        let holder = PeerId::from_public_key([1; 32]);
        let fence = Fence { attempt: 1, claim: Cid::of(b"claim") };
        let completed = State::Completed { holder, fence, conclusion: Conclusion::Success, duration_ms: 0 };
        let all = [
            State::Pending,
            State::Claimed { holder, fence },
            completed,
            State::Cancelled,
            State::Lost,
            State::LeftToGithub,
        ];
        assert!(all.iter().all(|state| STATES.contains(&state.word())));
        let counts = counts_by_state(all.iter().map(State::word).chain(["running", "lost"]));
        assert_eq!(counts.len(), STATES.len());
        assert_eq!((counts["lost"], counts["pending"], counts["running"]), (2, 1, 1));
        assert!(counts_by_state([]).values().all(|count| *count == 0));
    }

    #[test]
    fn an_event_says_what_happened_in_words_and_in_fields() {
        let id = TaskId([9; 32]);
        let elected = event(7, &Notice::Elected { task: id, attempt: 3, rank: 0, distance: 99, candidates: 3 });
        assert_eq!((elected.kind.as_str(), elected.time_ms, elected.distance), ("elected", 7, Some(99)));
        assert!(elected.text.contains("attempt 3") && elected.text.contains("place 1 of 3"), "{}", elected.text);
        let introduced = event(7, &Notice::Introduced { task: id, workload: Arc::new(workload()) });
        assert_eq!(introduced.path.as_deref(), Some(".github/workflows/ci.yml"));
        let ended = Notice::Ended {
            task: id,
            word: "completed",
            conclusion: Some(Conclusion::Failure),
            holder: None,
            note: "step 2 failed".to_owned(),
        };
        let ended = event(7, &ended);
        assert_eq!((ended.state.as_deref(), ended.conclusion.as_deref()), (Some("completed"), Some("failure")));
        assert!(ended.text.ends_with("is completed: failure (step 2 failed)"), "{}", ended.text);
    }
}
