//! Each call as a [`Query`], each answer as a message.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::proto::control_server::Control;
use super::proto::{self, *};
use super::query::{
    Answer, CompleteQuery, NextQuery, Query, SubmitQuery, TaskFilter, TaskName, claimed, drain_limit, names, reason,
    short_reason,
};
use super::{Refusal, feed};

/// How long the daemon may take to answer what it knows. Its queue is answered in milliseconds; a minute's silence
/// would only make people wait for what does not come.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to look a workflow up in its repository before it has a task of it.
const SUBMIT: Duration = Duration::from_secs(60);
/// How long a look into all sources may take.
const DISCOVER: Duration = Duration::from_secs(600);
/// The most of the latest events or entries that are shown.
const MOST_LATEST: u32 = 1000;

type Answered<T> = Result<Response<T>, Status>;

/// The service of one node.
pub(super) struct Service {
    pub(super) queries: mpsc::Sender<Query>,
    /// True once the server ends; its streams end with it.
    pub(super) closing: watch::Receiver<bool>,
}

impl Service {
    async fn ask<T>(&self, within: Duration, query: impl FnOnce(Answer<T>) -> Query) -> Result<T, Status> {
        let gone = || Status::from(Refusal::Unavailable("the node is going away and answers nothing more".to_owned()));
        let (answer, answered) = Answer::new();
        let asked = async {
            self.queries.send(query(answer)).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?.map_err(Status::from)
        };
        timeout(within, asked).await.unwrap_or_else(|_| {
            let within = within.as_secs();
            Err(Status::deadline_exceeded(format!(
                "the node had no answer within {within} s: see its log, or try again"
            )))
        })
    }
}

fn latest(last: u32) -> usize {
    last.min(MOST_LATEST) as usize
}

#[tonic::async_trait]
impl Control for Service {
    type ListTasksStream = BoxStream<'static, Result<Task, Status>>;
    type WatchEventsStream = BoxStream<'static, Result<Event, Status>>;
    type ReadLogStream = BoxStream<'static, Result<LogChunk, Status>>;
    type ReadArtifactStream = BoxStream<'static, Result<ArtifactChunk, Status>>;

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Answered<proto::Status> {
        self.ask(ANSWER, |answer| Query::Status { answer }).await.map(Response::new)
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Answered<ListPeersResponse> {
        let peers = self.ask(ANSWER, |answer| Query::Peers { answer }).await?;
        Ok(Response::new(ListPeersResponse { peers }))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answered<Self::ListTasksStream> {
        let filter = TaskFilter::read(request.into_inner())?;
        let tasks = self.ask(ANSWER, |answer| Query::Tasks { filter, answer }).await?;
        Ok(Response::new(stream::iter(tasks).map(Ok).boxed()))
    }

    async fn get_queue(&self, _: Request<GetQueueRequest>) -> Answered<GetQueueResponse> {
        let queue = self.ask(ANSWER, |answer| Query::Queue { answer }).await?;
        Ok(Response::new(GetQueueResponse { queue }))
    }

    async fn get_clock(&self, request: Request<GetClockRequest>) -> Answered<Clock> {
        let last = latest(request.into_inner().last);
        self.ask(ANSWER, |answer| Query::Clock { last, answer }).await.map(Response::new)
    }

    async fn list_runners(&self, _: Request<ListRunnersRequest>) -> Answered<ListRunnersResponse> {
        let runners = self.ask(ANSWER, |answer| Query::Runners { answer }).await?;
        Ok(Response::new(ListRunnersResponse { runners }))
    }

    async fn list_sources(&self, _: Request<ListSourcesRequest>) -> Answered<ListSourcesResponse> {
        let sources = self.ask(ANSWER, |answer| Query::Sources { answer }).await?;
        Ok(Response::new(ListSourcesResponse { sources }))
    }

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Answered<ListMembersResponse> {
        let members = self.ask(ANSWER, |answer| Query::Members { answer }).await?;
        Ok(Response::new(ListMembersResponse { members }))
    }

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Answered<Self::WatchEventsStream> {
        let WatchEventsRequest { last, follow } = request.into_inner();
        let last = latest(last);
        let events = self.ask(ANSWER, |answer| Query::Events { last, answer }).await?;
        Ok(Response::new(feed::events(events, follow, self.closing.clone()).boxed()))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Answered<TaskRef> {
        let submit = Box::new(SubmitQuery::read(request.into_inner())?);
        let id = self.ask(SUBMIT, |answer| Query::Submit { submit, answer }).await?;
        Ok(Response::new(TaskRef { id: id.to_string() }))
    }

    async fn discover(&self, request: Request<DiscoverRequest>) -> Answered<DiscoverResponse> {
        let sources = names(request.into_inner().sources)?;
        self.ask(DISCOVER, |answer| Query::Discover { sources, answer }).await.map(Response::new)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Answered<TaskRef> {
        let CancelRequest { id, why } = request.into_inner();
        let (task, why) = (TaskName::read(&id)?, reason(why)?);
        let id = self.ask(ANSWER, |answer| Query::Cancel { task, why, answer }).await?;
        Ok(Response::new(TaskRef { id: id.to_string() }))
    }

    async fn next(&self, request: Request<NextRequest>) -> Answered<Assignment> {
        let next = NextQuery::read(request.into_inner());
        self.ask(next.wait + ANSWER, |answer| Query::Next { next, answer }).await.map(Response::new)
    }

    async fn keep(&self, request: Request<KeepRequest>) -> Answered<Lease> {
        let KeepRequest { id, claim } = request.into_inner();
        let (task, claim) = (TaskName::read(&id)?, claimed(&claim)?);
        self.ask(ANSWER, |answer| Query::Keep { task, claim, answer }).await.map(Response::new)
    }

    async fn complete(&self, request: Request<CompleteRequest>) -> Answered<TaskRef> {
        let complete = Box::new(CompleteQuery::read(request.into_inner())?);
        let id = self.ask(ANSWER, |answer| Query::Complete { complete, answer }).await?;
        Ok(Response::new(TaskRef { id: id.to_string() }))
    }

    async fn read_log(&self, request: Request<ReadLogRequest>) -> Answered<Self::ReadLogStream> {
        let ReadLogRequest { id, follow, attempt } = request.into_inner();
        let task = TaskName::read(&id)?;
        let attempt = (attempt > 0).then_some(attempt);
        let log = self.ask(ANSWER, |answer| Query::Log { task, attempt, follow, answer }).await?;
        Ok(Response::new(feed::log(log, follow, self.closing.clone()).boxed()))
    }

    async fn read_artifact(&self, request: Request<ReadArtifactRequest>) -> Answered<Self::ReadArtifactStream> {
        let ReadArtifactRequest { id, name } = request.into_inner();
        let task = TaskName::read(&id)?;
        let path = self.ask(ANSWER, |answer| Query::Artifact { task, name, answer }).await?;
        Ok(Response::new(feed::artifact(path, self.closing.clone()).boxed()))
    }

    async fn get_invite(&self, _: Request<GetInviteRequest>) -> Answered<Invite> {
        self.ask(ANSWER, |answer| Query::Invite { answer }).await.map(Response::new)
    }

    async fn get_cut(&self, request: Request<GetCutRequest>) -> Answered<RevocationText> {
        let peer_id = request.into_inner().peer_id;
        let peer = peer_id.parse().map_err(|_| {
            let shown: String = peer_id.chars().take(60).collect();
            Status::from(Refusal::Invalid(format!("`{shown}` is not a peer's id: `runmesh mesh members` shows them")))
        })?;
        let text = self.ask(ANSWER, |answer| Query::Cut { peer, answer }).await?;
        Ok(Response::new(RevocationText { text }))
    }

    async fn revoke(&self, request: Request<RevocationText>) -> Answered<Revoked> {
        let RevocationText { text } = request.into_inner();
        let peer = self.ask(ANSWER, |answer| Query::Revoke { text, answer }).await?;
        Ok(Response::new(Revoked { peer_id: peer.to_string() }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Answered<PauseResponse> {
        let why = Some(reason(request.into_inner().why)?);
        self.ask(ANSWER, |answer| Query::Pause { why, answer }).await?;
        Ok(Response::new(PauseResponse {}))
    }

    async fn resume(&self, _: Request<ResumeRequest>) -> Answered<ResumeResponse> {
        self.ask(ANSWER, |answer| Query::Pause { why: None, answer }).await?;
        Ok(Response::new(ResumeResponse {}))
    }

    async fn cordon(&self, request: Request<CordonRequest>) -> Answered<CordonResponse> {
        let why = Some(short_reason(request.into_inner().why)?);
        let running = self.ask(ANSWER, |answer| Query::Cordon { why, answer }).await?;
        Ok(Response::new(CordonResponse { running }))
    }

    async fn uncordon(&self, _: Request<UncordonRequest>) -> Answered<UncordonResponse> {
        self.ask(ANSWER, |answer| Query::Cordon { why: None, answer }).await?;
        Ok(Response::new(UncordonResponse {}))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Answered<DrainResponse> {
        let limit = request.into_inner().limit_ms.map(drain_limit).transpose()?;
        self.ask(ANSWER, |answer| Query::Drain { limit, answer }).await.map(Response::new)
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Answered<ShutdownResponse> {
        let ShutdownRequest { drain } = request.into_inner();
        self.ask(ANSWER, |answer| Query::Shutdown { drain, answer }).await?;
        Ok(Response::new(ShutdownResponse { pid: std::process::id() }))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_daemon_that_does_not_answer_or_does_not_listen_is_not_waited_for() {
        let (queries, mut asked) = mpsc::channel(1);
        let (_closing, closes) = watch::channel(false);
        let service = Service { queries, closing: closes };
        let within = Duration::from_millis(50);
        let first = service.ask(within, |answer| Query::Status { answer }).await;
        assert_eq!(first.expect_err("no answer").code(), Code::DeadlineExceeded);
        // The queue holds one; the next question does not even find room.
        let second = service.ask(within, |answer| Query::Peers { answer }).await;
        assert_eq!(second.expect_err("no room").code(), Code::DeadlineExceeded);
        let Some(Query::Status { answer }) = asked.recv().await else { panic!("the first question") };
        assert!(!answer.is_wanted(), "the daemon can tell that nobody waits any more");
        drop(asked);
        let third = service.ask(within, |answer| Query::Peers { answer }).await;
        assert_eq!(third.expect_err("gone").code(), Code::Unavailable);
    }
}
