//! What a scale set's messages say.
//!
//! Read leniently: of what GitHub documents little is promised, and numbers that were there are zero since (the run's and
//! the request's, actions-runner-controller issue 4110). A job is known by its `jobId`, which is no number of the REST API.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::api::read;
use super::GithubError;
use crate::kernel::task::Conclusion;

/// The most jobs that one message is read for; GitHub sends 50 at most.
const MOST: usize = 1_000;
/// The most bytes of a job's name for itself.
const LONGEST: usize = 256;

/// How many jobs and runners a scale set has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statistics {
    pub total_available_jobs: u32,
    pub total_acquired_jobs: u32,
    /// Jobs that wait for a runner of the scale set, and those that have one: so many runners are wanted.
    pub total_assigned_jobs: u32,
    pub total_running_jobs: u32,
    pub total_registered_runners: u32,
    pub total_busy_runners: u32,
    pub total_idle_runners: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// To be acknowledged by, and to ask behind.
    pub id: u64,
    /// As of now, whatever the words say.
    pub statistics: Option<Statistics>,
    pub words: Vec<JobWord>,
}

/// What it says of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobWord {
    pub word: Word,
    /// GitHub's name for the job, which no other job and no other attempt of it has.
    pub job: String,
    /// The number by which it is taken on; 0 where there is none.
    pub request: u64,
    /// `OWNER/NAME`.
    pub repository: String,
    /// As `OWNER/NAME/PATH@REF`.
    pub workflow: String,
    pub name: String,
    pub labels: Vec<String>,
}

/// What has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The scale set may take it on.
    Available,
    /// It is the scale set's, and waits for one of its runners.
    Assigned,
    /// That runner has it.
    Started { runner: String },
    /// It is over, on that runner where one had it.
    Completed { runner: Option<String>, conclusion: Conclusion },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    message_id: u64,
    #[serde(default)]
    message_type: String,
    #[serde(default, deserialize_with = "or_default")]
    body: String,
    #[serde(default)]
    statistics: Option<Statistics>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    #[serde(deserialize_with = "or_default")]
    message_type: String,
    #[serde(deserialize_with = "or_default")]
    runner_request_id: i64,
    #[serde(deserialize_with = "or_default")]
    repository_name: String,
    #[serde(deserialize_with = "or_default")]
    owner_name: String,
    #[serde(deserialize_with = "or_default")]
    job_id: String,
    #[serde(deserialize_with = "or_default")]
    job_workflow_ref: String,
    #[serde(deserialize_with = "or_default")]
    job_display_name: String,
    #[serde(deserialize_with = "or_default")]
    request_labels: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    runner_name: String,
    #[serde(deserialize_with = "or_default")]
    result: String,
}

/// What is null is as if it were not there.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(reader: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(reader)?.unwrap_or_default())
}

/// Reads a message. What is no job's word, or of a kind that is not known, is passed over.
pub(super) fn read_message(what: &str, bytes: &[u8]) -> Result<Message, GithubError> {
    let raw: Raw = read(what, bytes)?;
    let mut words = Vec::new();
    if raw.message_type == "RunnerScaleSetJobMessages" && !raw.body.is_empty() {
        let items: Vec<Value> = read(what, raw.body.as_bytes())?;
        let items = items.into_iter().take(MOST);
        words.extend(items.filter_map(|item| serde_json::from_value::<Item>(item).ok()).filter_map(Item::word));
    }
    Ok(Message { id: raw.message_id, statistics: raw.statistics, words })
}

impl Item {
    fn word(self) -> Option<JobWord> {
        let runner = Some(self.runner_name).filter(|name| !name.is_empty());
        let word = match self.message_type.as_str() {
            "JobAvailable" => Word::Available,
            "JobAssigned" => Word::Assigned,
            "JobStarted" => Word::Started { runner: runner? },
            "JobCompleted" => Word::Completed { runner, conclusion: conclusion(&self.result) },
            _ => return None,
        };
        let request = u64::try_from(self.runner_request_id).unwrap_or_default();
        let job = match (self.job_id.is_empty(), request) {
            (false, _) => self.job_id,
            (true, 0) => return None,
            (true, request) => request.to_string(),
        };
        if job.len() > LONGEST {
            return None;
        }
        Some(JobWord {
            word,
            job,
            request,
            repository: format!("{}/{}", self.owner_name, self.repository_name),
            workflow: self.job_workflow_ref,
            name: self.job_display_name,
            labels: self.request_labels.into_iter().map(|label| label.to_lowercase()).collect(),
        })
    }
}

/// The service's words for an end.
fn conclusion(word: &str) -> Conclusion {
    match word.to_ascii_lowercase().as_str() {
        "succeeded" | "succeededwithissues" => Conclusion::Success,
        "canceled" | "cancelled" => Conclusion::Cancelled,
        "skipped" => Conclusion::Skipped,
        _ => Conclusion::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Message {
        let body = serde_json::json!({
            "messageId": 3, "messageType": "RunnerScaleSetJobMessages", "body": body,
            "statistics": { "totalAssignedJobs": 2, "totalRunningJobs": 1 },
        });
        read_message("try", body.to_string().as_bytes()).expect("a message")
    }

    #[test]
    fn words_are_read_and_what_is_not_known_is_passed_over() {
        let read = message(
            r#"[{"messageType":"JobAssigned","runnerRequestId":0,"jobId":"a-1","ownerName":"octo","repositoryName":"one","jobWorkflowRef":"octo/one/.github/workflows/ci.yml@refs/heads/main","requestLabels":["Lab"],"workflowRunId":0},
                {"messageType":"JobStarted","jobId":"a-1","runnerName":"r","runnerId":5},{"messageType":"JobStarted","jobId":"a-1"},
                {"messageType":"JobCompleted","jobId":"a-1","runnerName":null,"result":"canceled"},
                {"messageType":"JobDreamt","jobId":"a-1"},{"messageType":"JobAssigned"},{"messageType":"JobAssigned","runnerRequestId":7},5]"#,
        );
        assert_eq!((read.id, read.statistics.map(|told| told.total_assigned_jobs)), (3, Some(2)));
        let words: Vec<(&str, &Word)> = read.words.iter().map(|word| (word.job.as_str(), &word.word)).collect();
        let completed = Word::Completed { runner: None, conclusion: Conclusion::Cancelled };
        let started = Word::Started { runner: "r".to_owned() };
        assert_eq!(words, [("a-1", &Word::Assigned), ("a-1", &started), ("a-1", &completed), ("7", &Word::Assigned)]);
        assert_eq!(
            (read.words[0].repository.as_str(), read.words[0].labels.as_slice()),
            ("octo/one", &["lab".to_owned()][..])
        );
    }

    #[test]
    fn what_is_no_message_is_an_error_and_not_more() {
        assert!(message("").words.is_empty());
        for bytes in [&b"{}"[..], b"[]", b"", b"{\"messageId\":-1}", b"\xff"] {
            assert!(read_message("try", bytes).is_err(), "{bytes:?}");
        }
        let bad = serde_json::json!({ "messageId": 1, "messageType": "RunnerScaleSetJobMessages", "body": "nonsense" });
        assert!(read_message("try", bad.to_string().as_bytes()).is_err());
        let many = format!("[{}]", vec![r#"{"messageType":"JobAssigned","jobId":"x"}"#; MOST + 1].join(","));
        assert_eq!(message(&many).words.len(), MOST);
    }
}
