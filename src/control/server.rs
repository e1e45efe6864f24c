//! The server: accepts whom it may, serves them, and ends when its owner says so.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::error::ControlError;
use super::proto::control_server::ControlServer;
use super::query::Query;
use super::service::Service;
use super::socket::{self, Guarded, Name, SILENCE};

/// The most connections at once; more wait until one ends.
const CONNECTIONS: usize = 128;
/// The most calls at once on one connection.
const CALLS: u32 = 32;
/// The most bytes of one question.
const QUESTION: usize = 4 * 1024 * 1024;
/// How often a caller that says nothing is asked whether it lives, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// How long to wait when the system has no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(200);
/// How long it takes at most to end when nothing is waited for any more.
const CUT: Duration = Duration::from_secs(5);

/// A control API that is being served. Dropped, it ends at once.
#[derive(Debug)]
pub struct Server {
    closing: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
    _name: Name,
}

/// Serves the control API of the node in a data directory whose lock the caller holds; what is asked comes out of
/// `queries`' other end.
///
/// # Errors
/// [`ControlError::Taken`] when somebody answers there, [`ControlError::NotASocket`] when another file has the name,
/// [`ControlError::TooLong`] or [`ControlError::Socket`] when the socket cannot be made.
pub async fn serve(data_dir: &Path, queries: mpsc::Sender<Query>) -> Result<Server, ControlError> {
    let bound = socket::bind(data_dir).await?;
    let (closing, closes) = watch::channel(false);
    let (cut, cuts) = watch::channel(false);
    let service = ControlServer::new(Service { queries, closing: closes.clone() }).max_decoding_message_size(QUESTION);
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(CALLS)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .serve_with_incoming_shutdown(service, callers(bound.listener, cuts), async move {
            let mut closes = closes;
            let _ = closes.wait_for(|closing| *closing).await;
        });
    Ok(Server { closing, cut, task: tokio::spawn(serving), _name: bound.name })
}

impl Server {
    /// Takes no more calls, lets those that are being answered finish within `grace`, and ends. The streams of events
    /// and logs end at once.
    pub async fn stop(mut self, grace: Duration) {
        self.closing.send_replace(true);
        if timeout(grace, &mut self.task).await.is_err() {
            self.cut.send_replace(true);
            if timeout(CUT, &mut self.task).await.is_err() {
                tracing::warn!("the control API did not end within {} s and is abandoned", CUT.as_secs());
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        self.cut.send_replace(true);
        self.task.abort();
    }
}

/// Those who call and may.
fn callers(listener: UnixListener, cut: watch::Receiver<bool>) -> impl Stream<Item = io::Result<Guarded>> {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    stream::unfold((listener, cut, seats), |(listener, cut, seats)| async move {
        loop {
            // Never closed, so this only waits.
            let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return None };
            match listener.accept().await {
                Ok((stream, _)) if socket::is_welcome(&stream) => {
                    let caller = Guarded::new(stream, cut.clone(), SILENCE, seat);
                    return Some((Ok(caller), (listener, cut, seats)));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!("accepting a call at the control socket: {error}");
                    sleep(NO_ROOM).await;
                }
            }
        }
    })
}
