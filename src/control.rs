//! The local control API: gRPC on a Unix socket in the data directory.
//!
//! Owns the socket, who may use it, and the form of what is asked and answered. Promises: the daemon hears each question
//! as a [`Query`] with a place for the answer, so that one owner keeps all state; every wait has a deadline; a caller
//! that hangs, does not read or asks nonsense costs the node a bounded amount of memory and nothing else; only
//! processes of the node's own user and of root are heard.
//!
//! Leaves to others: what the answers are (the daemon), how they look to a person (the command line), and that only one
//! node serves a data directory: who calls [`serve`] holds the directory's lock.

mod client;
mod error;
mod feed;
mod query;
mod server;
mod service;
mod socket;
mod words;

pub use client::Client;
pub use error::ControlError;
pub use query::{
    Answer, CompleteQuery, EventFeed, LogFile, NextQuery, Query, Refusal, SubmitQuery, TaskFilter, TaskName, Writing,
};
pub use server::{Server, serve};
pub use words::{STATES, counts_by_state, event, products, task};

/// The messages and the service, generated from proto/runmesh/v1/control.proto, where they are described.
#[expect(unused_qualifications, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("runmesh.control.v1");
}
