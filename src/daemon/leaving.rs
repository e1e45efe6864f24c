//! The node's way out: finishing what runs up to a limit, handing the rest over, ending at once when somebody insists.
//!
//! Asked for by a signal, by `runmesh node drain` and by the control API's `Shutdown`. Whoever asks a second time is obeyed
//! at once.

use std::time::Duration;

use tokio::time::Instant;

use super::Daemon;
use crate::control::proto;
use crate::kernel::io::Input;

/// How long work that is given up may take to end.
pub(super) const HAND_OVER: Duration = Duration::from_secs(10);
/// The far end of time, for a limit that no clock can hold.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Where the node is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// Nothing new; ends when nothing runs any more, and hands over what still runs at this time.
    Finishing {
        until: Instant,
    },
    /// Gives back what runs; ends when that is done, or at this time.
    HandingOver {
        until: Instant,
    },
    Now,
}

impl Leaving {
    /// When the next step is due, should nothing happen before.
    pub(super) const fn due(self) -> Option<Instant> {
        match self {
            Self::No | Self::Now => None,
            Self::Finishing { until } | Self::HandingOver { until } => Some(until),
        }
    }
}

impl Daemon {
    pub(super) fn on_signal(&mut self) {
        match self.leaving {
            Leaving::No if self.settings.drain => {
                tracing::info!("finishing what runs here; a second signal stops at once");
                self.finish(None);
            }
            Leaving::No => {
                tracing::info!("handing over what runs here; a second signal stops at once");
                self.hand_over();
            }
            Leaving::Finishing { .. } | Leaving::HandingOver { .. } | Leaving::Now => self.leaving = Leaving::Now,
        }
    }

    /// `runmesh node drain`.
    pub(super) fn on_drain(&mut self, limit: Option<Duration>) -> proto::DrainResponse {
        let running = u32::try_from(self.node.running().count()).unwrap_or(u32::MAX);
        let limit = match self.leaving {
            Leaving::No => {
                let limit = self.finish(limit);
                tracing::info!("asked to drain: finishing what runs here within {} s", limit.as_secs());
                limit
            }
            Leaving::Finishing { .. } | Leaving::HandingOver { .. } | Leaving::Now => {
                tracing::info!("asked to drain for a second time: ending at once");
                self.leaving = Leaving::Now;
                Duration::ZERO
            }
        };
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        proto::DrainResponse { running, limit_ms, pid: std::process::id() }
    }

    /// Begins to end, and lets what runs finish within a time, that of the settings where none is said.
    pub(super) fn finish(&mut self, limit: Option<Duration>) -> Duration {
        let limit = limit.unwrap_or(self.settings.drain_limit).min(FAR);
        self.leaving = Leaving::Finishing { until: Instant::now() + limit };
        self.feed(Input::Drain { hand_over: false });
        limit
    }

    /// Begins to end, and gives back what runs.
    pub(super) fn hand_over(&mut self) {
        self.leaving = Leaving::HandingOver { until: Instant::now() + HAND_OVER };
        self.feed(Input::Drain { hand_over: true });
    }

    /// The time of the present step is over.
    pub(super) fn leave_further(&mut self) {
        match self.leaving {
            Leaving::Finishing { .. } => {
                tracing::info!("the time to finish is over: handing over what still runs here");
                self.hand_over();
            }
            Leaving::No | Leaving::HandingOver { .. } | Leaving::Now => self.leaving = Leaving::Now,
        }
    }

    pub(super) fn may_end(&self) -> bool {
        let nothing_runs = || self.node.running().next().is_none();
        match self.leaving {
            Leaving::No => false,
            Leaving::Finishing { .. } => nothing_runs() && !self.scale.is_busy(),
            Leaving::HandingOver { .. } => nothing_runs(),
            Leaving::Now => true,
        }
    }
}
