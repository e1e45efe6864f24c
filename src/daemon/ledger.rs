//! The ledger in the database, for the rooms that make things outside of this process, and what it says of an earlier life.

use std::sync::Arc;

use super::Daemon;
use super::chronicle::wall_ms;
use crate::control::proto;
use crate::runner::{self, Earlier, Ledger};
use crate::store::{Book, Store};

/// The runner room's part of it.
pub(super) struct OnDisk(pub(super) Arc<Store>);

const fn book(book: runner::Book) -> Book {
    match book {
        runner::Book::Starts => Book::Starts,
        runner::Book::Images => Book::Images,
    }
}

impl Ledger for OnDisk {
    fn enter(&self, of: runner::Book, name: &str, record: &[u8]) -> Result<(), String> {
        self.0.enter(book(of), name, record).map_err(|error| error.to_string())
    }

    fn strike(&self, of: runner::Book, name: &str) -> Result<(), String> {
        self.0.strike(book(of), &[name]).map_err(|error| error.to_string())
    }

    fn records(&self, of: runner::Book) -> Result<Vec<(String, Vec<u8>)>, String> {
        self.0.records(book(of)).map_err(|error| error.to_string())
    }
}

impl Daemon {
    /// Tells people what was under way here when an earlier life of this node ended.
    pub(super) fn tell_of_earlier(&mut self, earlier: &[Earlier]) {
        for Earlier { start, left } in earlier {
            let left = match left.as_slice() {
                [] => "nothing of it is left here".to_owned(),
                left => format!("it is not all gone yet: {}", left.join("; ")),
            };
            let text = format!(
                "task {} of {} ({}, attempt {}) was under way here when this node ended: {left}",
                start.task.short(),
                start.repository,
                start.executor,
                start.fence.attempt
            );
            tracing::warn!("{text}");
            self.chronicle.tell(proto::Event {
                time_ms: wall_ms(),
                kind: "interrupted".to_owned(),
                text,
                task: Some(start.task.to_string()),
                peer: Some(self.node.peer().to_string()),
                repository: Some(start.repository.clone()),
                path: Some(start.path.clone()),
                attempt: Some(start.fence.attempt),
                ..proto::Event::default()
            });
        }
    }
}
