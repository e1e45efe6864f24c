//! Asking other members about a scale set, each question over a stream of its own between the two.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::daemon::logs::dial;
use crate::kernel::id::PeerId;
use crate::net::{Client, RequestId};
use crate::wire::scale_set::{self, SetAsk, SetTold};

/// Numbers of these questions; the kernel's are below, those about logs above.
const FIRST: u64 = 1 << 62;
/// How long an answer may take: longer than the network waits for one.
const PATIENCE: Duration = Duration::from_secs(15);

type Waiting = HashMap<u64, oneshot::Sender<Result<SetTold, String>>>;

/// Clones ask for the same node.
#[derive(Clone)]
pub(in crate::daemon) struct Asker {
    net: Client,
    next: Arc<AtomicU64>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Asker {
    pub(in crate::daemon) fn new(net: Client) -> Self {
        Self { net, next: Arc::new(AtomicU64::new(FIRST)), waiting: Arc::default() }
    }

    /// Whether a question of that number was asked here.
    pub(in crate::daemon) const fn asked(number: u64) -> bool {
        number >= FIRST && number < FIRST << 1
    }

    /// Passes an answer to whoever asked.
    pub(in crate::daemon) fn answered(&self, number: u64, answer: Result<SetTold, String>) {
        if let Some(waiting) = self.take(number) {
            let _ = waiting.send(answer);
        }
    }

    fn take(&self, number: u64) -> Option<oneshot::Sender<Result<SetTold, String>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    /// # Errors
    /// Why there is no answer, or what the peer says in the place of one.
    pub(super) async fn ask(&self, to: PeerId, ask: &SetAsk) -> Result<SetTold, String> {
        let connected = self.net.peers().await.map_err(|error| error.to_string())?;
        if !connected.iter().any(|info| info.peer == to) && !dial(&self.net, to).await {
            return Err(format!("{} cannot be reached now", to.short()));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(number, answer);
        let sent = self.net.request(to, RequestId(number), scale_set::seal_ask(ask)).await;
        let answer = match sent {
            Ok(()) => timeout(PATIENCE, answered).await,
            Err(error) => {
                self.take(number);
                return Err(error.to_string());
            }
        };
        self.take(number);
        match answer {
            Ok(Ok(answer)) => answer,
            _ => Err(format!("{} does not answer", to.short())),
        }
    }
}
