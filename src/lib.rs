//! runmesh: a leaderless mesh that runs GitHub Actions work on machines you own.
//!
//! The house, from the inside out. A room imports only rooms that stand above it in this list, and the rooms at the rim
//! never each other; `tests/house.rs` reads the `use` lines and holds it to that.
//!
//! - [`kernel`]: pure. Everything that all nodes must agree on: the Merkle clock, the ledger of tasks, election.
//! - [`workflow`]: pure. A workflow file's text into tags, triggers, labels and jobs. Nothing else reads YAML.
//! - [`wire`]: entries and messages to and from bytes, with every limit.
//! - the rim: [`net`] (the libp2p swarm), [`forge`] (where workflows live), [`runner`] (how work is executed here),
//!   [`store`] (the database), [`control`] (the local API).
//! - [`daemon`]: the only place where these rooms meet.
//! - [`cli`]: the commands, and what a person sees.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod forge;
pub mod kernel;
pub mod net;
pub mod runner;
pub mod store;
pub mod wire;
pub mod workflow;

/// Of the node, and of the tests and measures built on this library alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
