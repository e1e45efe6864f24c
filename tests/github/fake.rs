//! A GitHub for tests and for trying runmesh without an account: accounts, repositories, commits, files, apps and their
//! installations, over REST, GraphQL and git's smart HTTP.
//!
//! Promises what GitHub's own documentation promises and runmesh relies on: pages with `Link`, ETags whose 304 costs
//! nothing, rate limits a token with their headers and their exhaustion, secondary limits, and on demand every failure
//! that [`limits::Fault`] names. Every call is written down ([`Fake::calls`]). `tests/github.rs` holds its answers
//! against the description that GitHub publishes.

#![allow(dead_code, reason = "each program that includes it uses a part")]

pub(crate) mod git;
pub(crate) mod graphql;
pub(crate) mod jobs;
pub(crate) mod limits;
pub(crate) mod rest;
pub(crate) mod runners;
pub(crate) mod runs;
pub(crate) mod scale_sets;
pub(crate) mod server;
pub(crate) mod shapes;
pub(crate) mod world;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jobs::Actions;
pub(crate) use limits::Fault;
use limits::Limits;
use serde_json::Value;
pub(crate) use world::World;

/// Everything that requests see and change.
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) limits: Limits,
    pub(crate) actions: Actions,
    pub(crate) commit_runs: Vec<runs::CommitRun>,
    pub(crate) calls: Vec<Call>,
    /// Where the server listens, as clients write it: `http://127.0.0.1:PORT`.
    pub(crate) base: String,
}

/// A request and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) status: u16,
    /// What it cost of the token's limit: nothing for a 304.
    pub(crate) cost: u64,
    pub(crate) request: Value,
    pub(crate) answer: Value,
}

/// A running fake; it ends when this is dropped.
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    server: server::Server,
}

impl Fake {
    /// On a free port of this machine.
    pub(crate) fn start(world: World) -> Self {
        Self::start_at(world, "127.0.0.1:0")
    }

    pub(crate) fn start_at(world: World, address: &str) -> Self {
        let listener = std::net::TcpListener::bind(address).expect("a port to listen on");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let state = State {
            world,
            limits: Limits::default(),
            actions: Actions::default(),
            commit_runs: Vec::new(),
            calls: Vec::new(),
            base,
        };
        let state = Arc::new(Mutex::new(state));
        Self { server: server::Server::start(listener, state.clone()), state }
    }

    /// What `RUNMESH_GITHUB_API` is set to.
    pub(crate) fn api(&self) -> String {
        self.state().base.clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The state, to look at or to change. Do not keep it: requests wait for it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All calls so far but those for git.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The calls so far, forgotten by this.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    /// How many calls a token has made so far, whatever they cost.
    pub(crate) fn calls_of(&self, token: &str) -> usize {
        self.state().calls.iter().filter(|call| call.token == token).count()
    }

    /// From now on the next `times` requests whose path begins so meet this.
    pub(crate) fn fail(&self, path: &str, times: usize, fault: Fault) {
        self.state().limits.fail(path, times, fault);
    }

    pub(crate) fn commit(&self, repository: &str, files: &[(&str, Option<&str>)]) -> String {
        self.state().world.commit(repository, files)
    }

    /// Queues a run of so many jobs. Gives them.
    pub(crate) fn queue(&self, repository: &str, labels: &[&str], count: usize) -> Vec<u64> {
        let state = &mut *self.state();
        state.actions.queue(&state.world, repository, labels, count)
    }

    /// A job as it is now.
    pub(crate) fn job(&self, id: u64) -> jobs::Job {
        self.state().actions.jobs[&id].clone()
    }
}
