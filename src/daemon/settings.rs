//! What an operator tells the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::{AutoscalerSettings, WorkSettings};
use crate::forge::github::{Endpoint, Github, GithubError, Lookup, Selection};
use crate::forge::{Manner, Spec};
use crate::net::{Multiaddr, SwarmKey};
use crate::runner::Isolation;
use crate::store::Keeping;

/// What a node is told by its operator, validated.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub listen: Vec<Multiaddr>,
    /// Besides those that a ticket brought.
    pub bootstrap: Vec<Multiaddr>,
    pub reach: Reach,
    pub sources: Vec<Spec>,
    /// How those are treated of which it is not as usual.
    pub manners: BTreeMap<Spec, Manner>,
    pub github: GithubSettings,
    /// Those of them whose tasks are claimed and kept here only while more than half of the members are heard.
    pub stop_when_cut_off: Vec<Spec>,
    /// The most tasks at once; 0 for a node that only takes part.
    pub max_runners: u32,
    pub isolation: Isolation,
    /// Labels that `runs-on` may ask for, lower case.
    pub labels: BTreeSet<String>,
    /// The `act` program; looked for on PATH when absent.
    pub act: Option<PathBuf>,
    /// GitHub's own runner, its directory or archive.
    pub actions_runner: Option<PathBuf>,
    pub work: WorkSettings,
    /// Runners for the jobs that GitHub queues.
    pub autoscaler: Option<AutoscalerSettings>,
    /// On a signal, finish what runs instead of handing it over.
    pub drain: bool,
    /// How long what runs may then take to finish, before it is handed over.
    pub drain_limit: Duration,
    /// Between two looks at a source.
    pub discovery_interval: Duration,
    /// How long history is kept at least.
    pub retention: Duration,
    /// How much of what runs leave behind is kept, and for how long.
    pub keeping: Keeping,
}

/// How this node and others reach each other.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Where others reach this node, besides where it listens.
    pub announce: Vec<Multiaddr>,
    /// Whoever does not have it connects with nobody here.
    pub swarm_key: Option<SwarmKey>,
    /// Make this node known on the LAN, and look for members there.
    pub mdns: bool,
    /// Carry connections of members that cannot reach each other.
    pub relay: bool,
}

/// How this host reaches GitHub.
#[derive(Debug, Clone, Default)]
pub struct GithubSettings {
    pub endpoint: Endpoint,
    pub credentials: Lookup,
    pub selection: Selection,
}

impl GithubSettings {
    /// Finds the credentials. Asks GitHub nothing yet.
    ///
    /// # Errors
    /// When there are none.
    pub async fn open(&self) -> Result<Github, GithubError> {
        let credentials = self.credentials.find(&self.endpoint.host).await?;
        Github::new(self.endpoint.clone(), credentials, self.selection.clone())
    }
}
