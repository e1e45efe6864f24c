//! Runner scale sets: GitHub's queue of jobs by long poll, in place of looking again and again.
//!
//! The service behind them is another than the API: it is reached by an address and a token that the API gives out
//! ([`service`]), and what it says is read in [`message`]. The facts are those of GitHub's own client
//! (<https://github.com/actions/scaleset>).
//!
//! Promises that tokens go to the host that gave them out and to nobody else and are shown to nobody, that every wait
//! ends, that answers have a limit, and that a token is renewed before it ends. Leaves to the caller what to do when the
//! service does not know a session or a scale set any more ([`ScaleSetError`] says which), and who listens at all:
//! GitHub lets one session a scale set be open at a time.

mod message;
mod service;

use std::fmt::Write as _;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Duration;

pub use message::{JobWord, Message, Statistics, Word};
pub use service::Service;
use service::{Asked, CALL, Credential};

use super::api::read;
use super::runners::{DEFAULT_GROUP, told};
use super::{GithubError, Jit, Removal, Scope, Secret};

/// Where the scale sets are, below the service's address.
const SETS: &str = "_apis/runtime/runnerscalesets";
/// Where their runners are.
const RUNNERS: &str = "_apis/distributedtask/pools/0/agents";
/// How long the question for messages may stay open: GitHub ends it after about 50 s.
const POLL: Duration = Duration::from_secs(75);

/// Why the service does not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScaleSetError {
    /// 401: another token will do.
    #[error("{what}: GitHub takes the token no more (401)")]
    Stale { what: String },
    /// 404, or an expired session: what was asked of is there no more.
    #[error("{what}: GitHub knows it no more ({told})")]
    Gone { what: String, told: String },
    /// 409.
    #[error("{what}: GitHub says that it is taken (409): {told}")]
    Taken { what: String, told: String },
    #[error("{what}: GitHub names no message queue for it")]
    NoQueue { what: String, session: String },
    #[error("{what}: there is no runner group `{group}`; set runner_group to one that is there")]
    NoGroup { what: String, group: String },
    /// Nothing will change that but a person.
    #[error(
        "{what}: GitHub refuses it ({told}); the token needs to administer {scope}: `repo` for a repository, `admin:org` for \
         an organisation, or for a fine-grained token write access to Administration (of an organisation: to \
         Self-hosted runners)"
    )]
    NotAllowed { what: String, scope: String, told: String },
    #[error(transparent)]
    Github(#[from] GithubError),
}

impl ScaleSetError {
    /// Whether trying again soon cannot help.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::NoGroup { .. } | Self::NotAllowed { .. })
            || matches!(self, Self::Github(GithubError::Unauthorized { .. }))
    }

    /// Until when it will not get better, in seconds since 1970, where GitHub has told.
    pub const fn until(&self) -> Option<u64> {
        if let Self::Github(error) = self { error.until() } else { None }
    }
}

/// A scale set as GitHub has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ScaleSet {
    pub id: u64,
    pub name: String,
}

/// The one open line to a scale set's messages.
#[derive(Debug, Clone)]
pub struct Session {
    set: u64,
    /// GitHub's name for it; no secret.
    pub id: String,
    queue: String,
    token: Secret,
    pub statistics: Statistics,
}

#[derive(Deserialize)]
struct List<T> {
    value: Vec<T>,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Opened {
    session_id: String,
    #[serde(default)]
    message_queue_url: String,
    #[serde(default)]
    message_queue_access_token: String,
    #[serde(default)]
    statistics: Option<Statistics>,
}

#[derive(Deserialize)]
struct Configured {
    runner: Agent,
    #[serde(rename = "encodedJITConfig")]
    encoded: String,
}

/// A runner as the service has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    pub id: u64,
    pub name: String,
    #[serde(default)]
    pub runner_scale_set_id: u64,
}

impl Service {
    /// The scale set of that name, made where there is none. Its jobs are those whose `runs-on` is its name.
    ///
    /// # Errors
    /// [`ScaleSetError`]
    pub async fn scale_set(&self, name: &str, group: Option<&str>) -> Result<ScaleSet, ScaleSetError> {
        let group = self.group_or_default(group).await?;
        if let Some(found) = self.find(name, group).await? {
            return Ok(found);
        }
        let what = format!("make the scale set {name} of {}", self.scope());
        let body = json!({
            "name": name, "runnerGroupId": group, "labels": [{ "type": "System", "name": name }],
            "RunnerSetting": { "disableUpdate": true },
        });
        let (status, bytes) = self.admin(Method::POST, SETS, Some(body), &what).await?;
        match status {
            200 | 201 => Ok(read(&what, &bytes)?),
            // Another member was quicker.
            400 | 409 => match self.find(name, group).await? {
                Some(found) => Ok(found),
                None => Err(self.refusal(status, what, &bytes)),
            },
            _ => Err(self.refusal(status, what, &bytes)),
        }
    }

    /// The scale set of that name, if there is one.
    ///
    /// # Errors
    /// [`ScaleSetError`]
    pub async fn look_for(&self, name: &str, group: Option<&str>) -> Result<Option<ScaleSet>, ScaleSetError> {
        let group = self.group_or_default(group).await?;
        self.find(name, group).await
    }

    async fn group_or_default(&self, group: Option<&str>) -> Result<u64, ScaleSetError> {
        match group {
            Some(group) => self.group(group).await,
            None => Ok(DEFAULT_GROUP),
        }
    }

    async fn find(&self, name: &str, group: u64) -> Result<Option<ScaleSet>, ScaleSetError> {
        let what = format!("look for the scale set {name} of {}", self.scope());
        let path = format!("{SETS}?runnerGroupId={group}&name={}", encoded(name));
        let (status, bytes) = self.admin(Method::GET, &path, None, &what).await?;
        if status != 200 {
            return Err(self.refusal(status, what, &bytes));
        }
        let found: List<ScaleSet> = read(&what, &bytes)?;
        Ok(found.value.into_iter().find(|set| set.name.eq_ignore_ascii_case(name)))
    }

    async fn group(&self, wanted: &str) -> Result<u64, ScaleSetError> {
        let what = format!("look for the runner groups of {}", self.scope());
        let path = format!("_apis/runtime/runnergroups/?groupName={}", encoded(wanted));
        let (status, bytes) = self.admin(Method::GET, &path, None, &what).await?;
        if status != 200 {
            return Err(self.refusal(status, what, &bytes));
        }
        let found: List<Group> = read(&what, &bytes)?;
        let group = found.value.into_iter().find(|group| group.name.eq_ignore_ascii_case(wanted));
        group.map(|group| group.id).ok_or_else(|| ScaleSetError::NoGroup { what, group: wanted.to_owned() })
    }

    /// Opens the line to a scale set's messages.
    ///
    /// # Errors
    /// [`ScaleSetError::Taken`] while another session is open.
    pub async fn open(&self, set: &ScaleSet, owner: &str) -> Result<Session, ScaleSetError> {
        let what = format!("open a session of the scale set {}", set.name);
        let path = format!("{SETS}/{}/sessions", set.id);
        let body = json!({ "ownerName": owner });
        let (status, bytes) = self.admin(Method::POST, &path, Some(body), &what).await?;
        let opened = self.session(set.id, status, what, &bytes);
        if let Err(ScaleSetError::NoQueue { session, .. }) = &opened {
            // It would keep every other from being opened.
            let _ = self.close_named(set.id, session).await;
        }
        opened
    }

    /// The same session with a token that is good for a while again.
    ///
    /// # Errors
    /// [`ScaleSetError::Gone`] when GitHub has ended it.
    pub async fn renew(&self, session: &Session) -> Result<Session, ScaleSetError> {
        let what = "renew the session of a scale set".to_owned();
        let path = format!("{SETS}/{}/sessions/{}", session.set, session.id);
        let (status, bytes) = self.admin(Method::PATCH, &path, None, &what).await?;
        self.session(session.set, status, what, &bytes)
    }

    fn session(&self, set: u64, status: u16, what: String, bytes: &[u8]) -> Result<Session, ScaleSetError> {
        if !matches!(status, 200 | 201) {
            return Err(self.refusal(status, what, bytes));
        }
        let opened: Opened = read(&what, bytes)?;
        if opened.message_queue_url.is_empty() || opened.message_queue_access_token.is_empty() {
            return Err(ScaleSetError::NoQueue { what, session: opened.session_id });
        }
        Ok(Session {
            set,
            id: opened.session_id,
            queue: opened.message_queue_url,
            token: Secret::new(opened.message_queue_access_token),
            statistics: opened.statistics.unwrap_or_default(),
        })
    }

    /// Closes the line, so that another may be opened at once.
    ///
    /// # Errors
    /// [`ScaleSetError`]
    pub async fn close(&self, session: &Session) -> Result<(), ScaleSetError> {
        self.close_named(session.set, &session.id).await
    }

    /// The same of a session of which only GitHub's name is known.
    ///
    /// # Errors
    /// [`ScaleSetError`]
    pub async fn close_named(&self, set: u64, session: &str) -> Result<(), ScaleSetError> {
        let what = "close the session of a scale set".to_owned();
        let path = format!("{SETS}/{set}/sessions/{}", encoded(session));
        let (status, bytes) = self.admin(Method::DELETE, &path, None, &what).await?;
        match status {
            200 | 204 | 404 => Ok(()),
            _ => Err(self.refusal(status, what, &bytes)),
        }
    }

    /// Waits for the next message behind that number; nothing when none came while GitHub kept the question open.
    /// `capacity` is how many runners the scale set may have in all.
    ///
    /// # Errors
    /// [`ScaleSetError::Stale`] asks for [`Self::renew`], [`ScaleSetError::Gone`] for another session.
    pub async fn message(&self, session: &Session, last: u64, capacity: u32) -> Result<Option<Message>, ScaleSetError> {
        let what = "wait for jobs of a scale set".to_owned();
        let mut address = session.queue.clone();
        if last > 0 {
            let mark = if address.contains('?') { '&' } else { '?' };
            let _ = write!(address, "{mark}lastMessageId={last}");
        }
        let asked = Asked {
            method: Method::GET,
            address: &address,
            credential: Credential::Bearer(&session.token),
            capacity: Some(capacity),
            body: None,
            patience: POLL,
        };
        let (status, bytes) = self.call(asked, &what).await?;
        match status {
            200 if bytes.is_empty() => {
                Err(GithubError::Answer { what, why: "it is empty, though a message was promised".to_owned() }.into())
            }
            200 => Ok(Some(message::read_message(&what, &bytes)?)),
            202 => Ok(None),
            _ => Err(self.refusal(status, what, &bytes)),
        }
    }

    /// Says that a message has been taken care of.
    ///
    /// # Errors
    /// [`ScaleSetError`], as for [`Self::message`].
    pub async fn acknowledge(&self, session: &Session, message: u64) -> Result<(), ScaleSetError> {
        let what = "acknowledge a message of a scale set".to_owned();
        let (path, query) = session.queue.split_once('?').unwrap_or((&session.queue, ""));
        let mark = if query.is_empty() { "" } else { "?" };
        let address = format!("{}/{message}{mark}{query}", path.trim_end_matches('/'));
        let asked = Asked {
            method: Method::DELETE,
            address: &address,
            credential: Credential::Bearer(&session.token),
            capacity: None,
            body: None,
            patience: CALL,
        };
        let (status, bytes) = self.call(asked, &what).await?;
        match status {
            200 | 204 | 404 => Ok(()),
            _ => Err(self.refusal(status, what, &bytes)),
        }
    }

    /// Takes on jobs that are only available yet.
    ///
    /// # Errors
    /// [`ScaleSetError`], as for [`Self::message`].
    pub async fn acquire(&self, session: &Session, requests: &[u64]) -> Result<(), ScaleSetError> {
        let what = "take jobs on for a scale set".to_owned();
        let path = format!("{SETS}/{}/acquirejobs", session.set);
        let body = Some(Value::from(requests));
        let (status, bytes) = self.admin_as(Method::POST, &path, body, Some(&session.token), &what).await?;
        if status == 200 { Ok(()) } else { Err(self.refusal(status, what, &bytes)) }
    }

    /// Registers a runner of the scale set for one job.
    ///
    /// # Errors
    /// [`ScaleSetError::Taken`] when there is one of that name.
    pub async fn configure(&self, set: &ScaleSet, runner: &str) -> Result<Jit, ScaleSetError> {
        let what = format!("register a runner of the scale set {}", set.name);
        let path = format!("{SETS}/{}/generatejitconfig", set.id);
        let body = json!({ "name": runner, "workFolder": "_work" });
        let (status, bytes) = self.admin(Method::POST, &path, Some(body), &what).await?;
        if !matches!(status, 200 | 201) {
            return Err(self.refusal(status, what, &bytes));
        }
        let Configured { runner, encoded } = read(&what, &bytes)?;
        Ok(Jit { registration: runner.id, configuration: Secret::new(encoded) })
    }

    /// A registered runner; nothing when there is none of that number.
    ///
    /// # Errors
    /// [`ScaleSetError`]
    pub async fn runner(&self, registration: u64) -> Result<Option<Agent>, ScaleSetError> {
        let what = format!("look for a runner of {}", self.scope());
        let (status, bytes) = self.admin(Method::GET, &format!("{RUNNERS}/{registration}"), None, &what).await?;
        match status {
            200 => Ok(Some(read(&what, &bytes)?)),
            404 => Ok(None),
            _ => Err(self.refusal(status, what, &bytes)),
        }
    }

    /// Takes a registration back, unless its runner has a job.
    ///
    /// # Errors
    /// [`ScaleSetError`]
    pub async fn remove(&self, registration: u64) -> Result<Removal, ScaleSetError> {
        let what = format!("remove a runner of {}", self.scope());
        let (status, bytes) = self.admin(Method::DELETE, &format!("{RUNNERS}/{registration}"), None, &what).await?;
        match status {
            200 | 204 | 404 => Ok(Removal::Gone),
            // The service says so in its own words, with one status or another.
            400..=499 if String::from_utf8_lossy(&bytes).contains("JobStillRunning") => Ok(Removal::Busy),
            _ => Err(self.refusal(status, what, &bytes)),
        }
    }

    /// What an answer that is no success means.
    fn refusal(&self, status: u16, what: String, bytes: &[u8]) -> ScaleSetError {
        let told = format!("{status}: {}", told(bytes));
        match status {
            401 => ScaleSetError::Stale { what },
            404 | 410 => ScaleSetError::Gone { what, told },
            // An ended session is answered so too.
            400 if told.contains("session") => ScaleSetError::Gone { what, told },
            409 => ScaleSetError::Taken { what, told },
            400..=499 => ScaleSetError::NotAllowed { what, scope: self.scope().to_string(), told },
            _ => GithubError::Server { what, status }.into(),
        }
    }
}

impl Scope {
    /// Its page, by which the service knows it.
    fn page(&self, web: &str) -> String {
        format!("{web}/{self}")
    }
}

/// A name as it stands in a query.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}
