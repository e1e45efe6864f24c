//! What a run uploads: a small artifact service for each task, which speaks what `actions/upload-artifact` and
//! `actions/download-artifact` of version 4 and later speak.
//!
//! Promises
//! - A task reaches its own artifacts and no other's. Steps are given an address and a token that nobody can guess, in a
//!   file and in their environment; without it, or an address that was signed for one artifact, nothing is answered. act's
//!   own server has no such thing and listens on the host for all.
//! - Steps in containers reach it at their own network's gateway, others at the host's loopback. Whoever else can
//!   connect there learns nothing, holds no connection for long, and makes way for those who have shown the token.
//! - What is uploaded stays within [`ArtifactLimits`]; a step that sends more is told so.
//!
//! Leaves to others: keeping what was uploaded (store), recording it (the kernel). Steps without a network have none of
//! this, and neither have those of a rootless engine, whose networks are not this host's.

mod served;
mod service;
mod shelf;
mod twirp;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

pub(crate) use self::served::Served;
use self::service::Hall;
use self::shelf::Shelf;
use super::Secret;
use crate::kernel::id::Digest;
use crate::kernel::task::MAX_ARTIFACTS;

/// By what name steps in containers know this host. `.internal` belongs to nobody (ICANN, 2024).
pub(crate) const NAME: &str = "artifacts.runmesh.internal";
/// The variable that nobody but the steps may read.
pub(crate) const TOKEN: &str = "ACTIONS_RUNTIME_TOKEN";
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// What one task may upload at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactLimits {
    /// Bytes of all its artifacts together, as they are sent: compressed, mostly.
    pub bytes: u64,
    /// How many.
    pub count: usize,
    /// Bytes of disk that must stay free; where not given a tenth of it, 5 GiB at most.
    pub floor: Option<u64>,
}

impl Default for ArtifactLimits {
    /// 2 GiB, as many as an entry records.
    fn default() -> Self {
        Self { bytes: 2 << 30, count: MAX_ARTIFACTS, floor: None }
    }
}

/// How steps reach the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// As this host's loopback.
    Loopback,
    /// As [`NAME`], which their containers know.
    Named,
}

/// The service of one task. It listens nowhere before it is told to, and ends when it is closed or dropped.
pub(crate) struct Service {
    hall: Arc<Hall>,
    token: Secret,
    reach: Reach,
    keepers: Mutex<JoinSet<()>>,
    closing: watch::Sender<bool>,
}

impl Service {
    /// For the run of that name, whose uploads are kept in this empty directory.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub(crate) fn new(dir: &Path, limits: ArtifactLimits, run: &str, reach: Reach) -> io::Result<Self> {
        let token = token(run)?;
        let hall = Hall {
            shelf: Arc::new(Shelf::new(dir.to_owned(), limits)),
            run: run.to_owned(),
            token: Digest::of(&[token.expose().as_bytes()]),
            key: random()?,
            base: OnceLock::new(),
        };
        let (keepers, closing) = (Mutex::default(), watch::Sender::new(false));
        Ok(Self { hall: Arc::new(hall), token, reach, keepers, closing })
    }

    /// Listens at an address of this host, which may come to be only later; everywhere at the same port.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen(&self, at: Ipv4Addr) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        // An engine makes a network's bridge with its first container, and may take it away between two.
        rustix::net::sockopt::set_ip_freebind(&socket, true)?;
        let port = self.hall.base.get().map_or(0, |(_, port)| *port);
        socket.bind(SocketAddrV4::new(at, port).into())?;
        let listener = socket.listen(BACKLOG)?;
        let port = listener.local_addr()?.port();
        let host = match self.reach {
            Reach::Loopback => Ipv4Addr::LOCALHOST.to_string(),
            Reach::Named => NAME.to_owned(),
        };
        self.hall.base.get_or_init(|| (format!("http://{host}:{port}"), port));
        let keeper = service::keep(listener, self.hall.clone(), self.closing.subscribe());
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).spawn(keeper);
        Ok(())
    }

    /// What steps are told of it, once it listens.
    pub(crate) fn environment(&self) -> BTreeMap<&'static str, Secret> {
        let base = self.hall.base.get().map(|(base, _)| format!("{base}/"));
        let pair = |url| [("ACTIONS_RESULTS_URL", Secret::new(url)), (TOKEN, self.token.clone())];
        base.map(pair).into_iter().flatten().collect()
    }

    /// Ends it; nobody is answered any more.
    pub(crate) async fn end(&self) {
        self.closing.send_replace(true);
        let mut keepers = std::mem::take(&mut *self.keepers.lock().unwrap_or_else(PoisonError::into_inner));
        while keepers.join_next().await.is_some() {}
    }

    /// The names of what was finished.
    pub(crate) fn finished(&self) -> Vec<String> {
        self.hall.shelf.list().into_iter().map(|listed| listed.name).collect()
    }

    /// Moves these of the finished ones to a new directory, after the end; says how many.
    ///
    /// # Errors
    /// What the file system says; then the directory is not there.
    pub(crate) async fn take(&self, into: PathBuf, names: Vec<String>) -> io::Result<usize> {
        let shelf = self.hall.shelf.clone();
        spawn_blocking(move || shelf.take(&into, &names)).await.map_err(io::Error::other).flatten()
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// A token in the form of GitHub's: a JWT in whose scope clients look for the run. Its signature is what nobody can
/// guess; nobody checks it but by comparing the whole.
fn token(run: &str) -> io::Result<Secret> {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = part(json!({ "typ": "JWT", "alg": "none" }).to_string().as_bytes());
    let claims = part(json!({ "scp": format!("Actions.Results:{run}:{run}") }).to_string().as_bytes());
    Ok(Secret::new(format!("{header}.{claims}.{}", part(&random()?))))
}
