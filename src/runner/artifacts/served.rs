//! The artifact service of a run, opened for its isolation and gathered at its end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Reach, Service};
use crate::runner::engine::{Engine, Lane};
use crate::runner::log::Log;
use crate::runner::places::Places;
use crate::runner::run::Host;
use crate::runner::{Isolation, Network, Secret};

/// What a run has of it.
pub(crate) struct Served {
    /// None where its steps cannot reach any.
    pub(crate) service: Option<Arc<Service>>,
    /// The network of its containers.
    pub(crate) lane: Option<Lane>,
    /// What stands in the way, for the run's log.
    pub(crate) problem: Option<String>,
}

impl Served {
    /// Opens it. A run goes without rather than not at all: most upload nothing.
    pub(crate) async fn open(
        host: &Host,
        isolation: Isolation,
        engine: Option<&Engine>,
        places: &Places,
        mark: &str,
    ) -> Self {
        let mut served = Self { service: None, lane: None, problem: None };
        if isolation != Isolation::None && host.settings.network == Network::None {
            return served;
        }
        let opened = served.try_to_open(host, engine, places, mark).await;
        served.problem = opened.err().map(|why| format!("nothing can be uploaded as an artifact: {why}"));
        served
    }

    async fn try_to_open(
        &mut self,
        host: &Host,
        engine: Option<&Engine>,
        places: &Places,
        mark: &str,
    ) -> Result<(), String> {
        let (at, reach) = match engine {
            None => (Ipv4Addr::LOCALHOST, Reach::Loopback),
            Some(engine) => {
                let lane = engine.make_lane(&host.mark, mark).await;
                let lane = self.lane.insert(lane.map_err(|error| format!("making a network for the task: {error}"))?);
                (lane.gateway.ok_or("the container engine's networks are not this host's")?, Reach::Named)
            }
        };
        let run = mark.split_once('-').map_or(mark, |(_, run)| run);
        let service = Service::new(&places.artifacts, host.settings.artifacts, run, reach);
        let service = service.map_err(|error| error.to_string())?;
        service.listen(at).map_err(|error| format!("listening at {at}: {error}"))?;
        self.service = Some(Arc::new(service));
        Ok(())
    }

    /// What its steps are told.
    pub(crate) fn variables(&self) -> BTreeMap<&'static str, Secret> {
        self.service.as_ref().map(|service| service.environment()).unwrap_or_default()
    }

    /// Moves what was uploaded to that directory, when the run has ended. Names go into entries, which everybody reads and
    /// nobody forgets: one that holds a secret is not kept.
    pub(crate) async fn gather(&self, log: &mut Log, into: PathBuf) {
        let Some(service) = &self.service else { return };
        service.end().await;
        let all = service.finished();
        let (open, secret): (Vec<String>, Vec<String>) = all.into_iter().partition(|name| log.masked(name) == *name);
        if !secret.is_empty() {
            log.note(&format!("{} artifacts are not kept: a secret is in their names", secret.len())).await;
        }
        match service.take(into, open).await {
            Ok(0) => (),
            Ok(count) => log.note(&format!("{count} artifacts are kept")).await,
            Err(error) => log.note(&format!("the artifacts are lost: keeping them here: {error}")).await,
        }
    }
}
