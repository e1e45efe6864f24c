//! A command's side of the control API.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status, Streaming};
use tower::service_fn;

use super::error::ControlError;
use super::proto::control_client::ControlClient;
use super::proto::{self, *};
use super::socket;

/// How long to wait for an answer: a little longer than the node gives itself, so that its own sentence comes.
const ANSWER: Duration = Duration::from_secs(15);
/// The same of a submission, for which it may have to look into a repository.
const SUBMIT: Duration = Duration::from_secs(65);
/// The same of a look into all sources.
const DISCOVER: Duration = Duration::from_secs(605);
/// How often a node that says nothing is asked whether it lives, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// The most bytes of one answer: some 10,000 peers, or the latest entries with all their parents.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One connection to the node of a data directory. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Client {
    rpc: ControlClient<Channel>,
    data_dir: PathBuf,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.data_dir.display())
    }
}

impl Client {
    /// Connects to the node of a data directory.
    ///
    /// # Errors
    /// [`ControlError::NoNode`] when none answers there, [`ControlError::Denied`] when it is another user's.
    pub async fn connect(data_dir: &Path) -> Result<Self, ControlError> {
        let stream = socket::connect(data_dir).await?;
        // The connection that stands, once: when it is lost, the command ends rather than meet another node.
        let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
        let connector = service_fn(move |_: Uri| {
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let gone =
            |why: tonic::transport::Error| ControlError::Gone { data_dir: data_dir.to_owned(), why: why.to_string() };
        // The name is never looked up; HTTP/2 wants one.
        let endpoint = Endpoint::from_static("http://runmesh.local")
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .keep_alive_while_idle(true);
        let channel = match timeout(ANSWER, endpoint.connect_with_connector(connector)).await {
            Ok(connected) => connected.map_err(gone)?,
            Err(_) => return Err(ControlError::TimedOut { data_dir: data_dir.to_owned(), within: ANSWER }),
        };
        let rpc = ControlClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Ok(Self { rpc, data_dir: data_dir.to_owned() })
    }

    /// # Errors
    /// Of this and all that follow: [`ControlError::Refused`] with the node's sentence, [`ControlError::TimedOut`],
    /// [`ControlError::Gone`].
    pub async fn status(&self) -> Result<proto::Status, ControlError> {
        self.answer(ANSWER, self.rpc.clone().get_status(GetStatusRequest {})).await
    }

    pub async fn peers(&self) -> Result<Vec<Peer>, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().list_peers(ListPeersRequest {})).await?.peers)
    }

    /// The tasks whose id begins so, in one of these states; oldest first. Empty means all.
    pub async fn tasks(&self, id: &str, states: &[String]) -> Result<Vec<Task>, ControlError> {
        let request = ListTasksRequest { id: id.to_owned(), states: states.to_vec() };
        let stream = self.answer(ANSWER, self.rpc.clone().list_tasks(request)).await?;
        timeout(ANSWER, stream.try_collect())
            .await
            .map_err(|_| self.timed_out(ANSWER))?
            .map_err(|status| self.failed(status))
    }

    pub async fn queue(&self) -> Result<Vec<Queued>, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().get_queue(GetQueueRequest {})).await?.queue)
    }

    /// The clock, with at most `last` of the latest entries (up to 1,000).
    pub async fn clock(&self, last: u32) -> Result<Clock, ControlError> {
        self.answer(ANSWER, self.rpc.clone().get_clock(GetClockRequest { last })).await
    }

    pub async fn runners(&self) -> Result<Vec<Runner>, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().list_runners(ListRunnersRequest {})).await?.runners)
    }

    pub async fn sources(&self) -> Result<Vec<Source>, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().list_sources(ListSourcesRequest {})).await?.sources)
    }

    pub async fn members(&self) -> Result<Vec<Member>, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().list_members(ListMembersRequest {})).await?.members)
    }

    /// The latest events (at most `last`, up to 1,000), then, with `follow`, those that come, until the node ends.
    pub async fn events(
        &self,
        last: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Event, ControlError>>, ControlError> {
        let request = WatchEventsRequest { last, follow };
        let stream = self.answer(ANSWER, self.rpc.clone().watch_events(request)).await?;
        Ok(self.stream(stream, |event| event))
    }

    /// Introduces a task; answers its id.
    pub async fn submit(&self, request: SubmitRequest) -> Result<String, ControlError> {
        Ok(self.answer(SUBMIT, self.rpc.clone().submit(request)).await?.id)
    }

    /// Has the node look into these of its sources now, or into all.
    pub async fn discover(&self, sources: &[String]) -> Result<DiscoverResponse, ControlError> {
        let request = DiscoverRequest { sources: sources.to_vec() };
        self.answer(DISCOVER, self.rpc.clone().discover(request)).await
    }

    /// Ends the task whose id begins so; answers its whole id.
    pub async fn cancel(&self, id: &str, why: &str) -> Result<String, ControlError> {
        let request = CancelRequest { id: id.to_owned(), why: why.to_owned() };
        Ok(self.answer(ANSWER, self.rpc.clone().cancel(request)).await?.id)
    }

    /// The next task for a worker, waiting at most so long for one; the lease is the task's time limit when `None`.
    pub async fn next_task(&self, wait: Duration, lease: Option<Duration>) -> Result<Assignment, ControlError> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let request = NextRequest { wait_ms: ms(wait), lease_ms: lease.map_or(0, ms) };
        self.answer(wait.saturating_add(ANSWER), self.rpc.clone().next(request)).await
    }

    /// Renews the lease of a worker's task.
    pub async fn keep(&self, id: &str, claim: &str) -> Result<Lease, ControlError> {
        let request = KeepRequest { id: id.to_owned(), claim: claim.to_owned() };
        self.answer(ANSWER, self.rpc.clone().keep(request)).await
    }

    /// Ends a worker's task; answers its whole id.
    pub async fn complete(&self, request: CompleteRequest) -> Result<String, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().complete(request)).await?.id)
    }

    /// What the task whose id begins so printed, wherever it ran, and, with `follow`, what it prints until it ends.
    /// `attempt` 0 is the one whose result holds, or the latest.
    pub async fn log(
        &self,
        id: &str,
        attempt: u32,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, ControlError>>, ControlError> {
        let request = ReadLogRequest { id: id.to_owned(), follow, attempt };
        let stream = self.answer(ANSWER, self.rpc.clone().read_log(request)).await?;
        Ok(self.stream(stream, |chunk| chunk.data))
    }

    /// What the task whose id begins so uploaded by that name; only the node that ran it has it.
    pub async fn artifact(
        &self,
        id: &str,
        name: &str,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, ControlError>>, ControlError> {
        let request = ReadArtifactRequest { id: id.to_owned(), name: name.to_owned() };
        let stream = self.answer(ANSWER, self.rpc.clone().read_artifact(request)).await?;
        Ok(self.stream(stream, |chunk| chunk.data))
    }

    pub async fn invite(&self) -> Result<Invite, ControlError> {
        self.answer(ANSWER, self.rpc.clone().get_invite(GetInviteRequest {})).await
    }

    /// What is to be signed to revoke a peer, as text.
    pub async fn cut(&self, peer: &str) -> Result<String, ControlError> {
        let request = GetCutRequest { peer_id: peer.to_owned() };
        Ok(self.answer(ANSWER, self.rpc.clone().get_cut(request)).await?.text)
    }

    /// Hands a signed revocation to the mesh; answers who was revoked.
    pub async fn revoke(&self, text: String) -> Result<String, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().revoke(RevocationText { text })).await?.peer_id)
    }

    /// Lets no node of the mesh claim anything, for this reason.
    pub async fn pause(&self, why: &str) -> Result<(), ControlError> {
        self.answer(ANSWER, self.rpc.clone().pause(PauseRequest { why: why.to_owned() })).await.map(drop)
    }

    /// Lets all nodes claim again.
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.answer(ANSWER, self.rpc.clone().resume(ResumeRequest {})).await.map(drop)
    }

    /// Lets the node claim nothing for now, for this reason; answers how many tasks still run there.
    pub async fn cordon(&self, why: &str) -> Result<u32, ControlError> {
        let request = CordonRequest { why: why.to_owned() };
        Ok(self.answer(ANSWER, self.rpc.clone().cordon(request)).await?.running)
    }

    /// Lets it claim again.
    pub async fn uncordon(&self) -> Result<(), ControlError> {
        self.answer(ANSWER, self.rpc.clone().uncordon(UncordonRequest {})).await.map(drop)
    }

    /// Lets the node finish what runs, within its own limit when `None`, and end; a second time it ends at once.
    pub async fn drain(&self, limit: Option<Duration>) -> Result<DrainResponse, ControlError> {
        let limit_ms = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self.answer(ANSWER, self.rpc.clone().drain(DrainRequest { limit_ms })).await
    }

    /// Ends the node; answers its process's number. It may take a while to be gone.
    pub async fn shutdown(&self, drain: bool) -> Result<u32, ControlError> {
        Ok(self.answer(ANSWER, self.rpc.clone().shutdown(ShutdownRequest { drain })).await?.pid)
    }

    async fn answer<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ControlError> {
        match timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(status)),
            Err(_) => Err(self.timed_out(within)),
        }
    }

    fn stream<M: Send + 'static, T: 'static>(
        &self,
        stream: Streaming<M>,
        each: fn(M) -> T,
    ) -> BoxStream<'static, Result<T, ControlError>> {
        let this = self.clone();
        stream.map(move |item| item.map(each).map_err(|status| this.failed(status))).boxed()
    }

    fn timed_out(&self, within: Duration) -> ControlError {
        ControlError::TimedOut { data_dir: self.data_dir.clone(), within }
    }

    /// A status that the node has sent is its sentence; one that this side made says that the node is gone.
    fn failed(&self, status: Status) -> ControlError {
        if status.source().is_some() || status.code() == Code::Unknown {
            return ControlError::Gone { data_dir: self.data_dir.clone(), why: cause(&status) };
        }
        ControlError::Refused { code: status.code(), sentence: status.message().to_owned() }
    }
}

/// What an error comes from in the end; what stands above it says "transport error".
fn cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(below) = error.source() {
        error = below;
    }
    error.to_string()
}
