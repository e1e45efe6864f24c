//! What happened, kept for people: the log line, the latest events, and those to come.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;

use crate::control::{EventFeed, event, proto};
use crate::kernel::io::Notice;

/// How many of the latest events are kept in memory.
const KEPT: usize = 1000;

#[derive(Debug)]
pub(super) struct Chronicle {
    past: VecDeque<proto::Event>,
    live: broadcast::Sender<proto::Event>,
    warnings: VecDeque<String>,
}

/// The most warnings that `inspect status` shows.
const WARNINGS: usize = 10;

impl Chronicle {
    pub(super) fn new() -> Self {
        Self { past: VecDeque::new(), live: broadcast::Sender::new(KEPT), warnings: VecDeque::new() }
    }

    /// Takes note of something the kernel noticed.
    pub(super) fn note(&mut self, notice: &Notice) {
        let event = event(wall_ms(), notice);
        match notice {
            Notice::Warning { .. } | Notice::Equivocation { .. } => {
                tracing::warn!("{}", event.text);
                self.remember(&event.text);
            }
            Notice::Held { .. } | Notice::Refused { .. } => tracing::debug!("{}", event.text),
            _ => tracing::info!("{}", event.text),
        }
        self.keep(event);
    }

    /// Takes note of something that the daemon itself has to say.
    pub(super) fn warn(&mut self, text: String) {
        self.note(&Notice::Warning { text });
    }

    /// Takes note of something that is the daemon's alone to know, and is said in the log already.
    pub(super) fn tell(&mut self, event: proto::Event) {
        self.keep(event);
    }

    /// The latest `last` events, and all to come.
    pub(super) fn feed(&self, last: usize) -> EventFeed {
        let skip = self.past.len().saturating_sub(last);
        EventFeed { past: self.past.iter().skip(skip).cloned().collect(), live: self.live.subscribe() }
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.warnings.iter().cloned().collect()
    }

    /// What was warned of holds no longer.
    pub(super) fn is_over(&mut self, text: &str) {
        self.warnings.retain(|kept| kept != text);
    }

    fn remember(&mut self, text: &str) {
        self.warnings.retain(|kept| kept != text);
        self.warnings.push_back(text.to_owned());
        if self.warnings.len() > WARNINGS {
            self.warnings.pop_front();
        }
    }

    fn keep(&mut self, event: proto::Event) {
        self.past.push_back(event.clone());
        if self.past.len() > KEPT {
            self.past.pop_front();
        }
        // Nobody listening is not an error.
        let _ = self.live.send(event);
    }
}

/// Milliseconds since 1970 by the host's clock.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
