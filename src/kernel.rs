//! Everything that all nodes must agree on, and nothing else.
//!
//! Pure: no runtime, no network, no files, no clock, no randomness. Time and seeds come in as arguments, effects go out
//! as values ([`io::Output`]).

pub mod allocation;
pub mod clock;
pub mod election;
pub mod entry;
pub mod id;
pub mod io;
pub mod known;
pub mod ledger;
pub mod merkle;
pub mod node;
pub mod quarantine;
pub mod queue;
pub mod requests;
pub mod rules;
pub mod scale_set;
pub mod snapshot;
pub mod task;
pub mod timings;
