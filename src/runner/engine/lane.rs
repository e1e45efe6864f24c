//! A network of a task's own at the engine: its containers are among themselves, and reach this host at its gateway.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use tokio::time::timeout;

use super::{ANSWER, Engine, LABEL_NODE, LABEL_TASK, connect};

/// A task's own network, by the engine's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) name: String,
    /// This host's address there. None where the engine's networks are not this host's: a rootless engine, or one in a
    /// machine of its own.
    pub(crate) gateway: Option<Ipv4Addr>,
}

impl Engine {
    /// Makes the network; it goes with all else that has the task's mark.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) async fn make_lane(&self, node: &str, mark: &str) -> Result<Lane, String> {
        let made = async {
            let docker = connect(&self.socket)?;
            let name = format!("runmesh-{mark}");
            let labels =
                [(LABEL_NODE, node), (LABEL_TASK, mark)].map(|(key, value)| (key.to_owned(), value.to_owned()));
            let wanted = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".to_owned()),
                labels: Some(HashMap::from(labels)),
                ..NetworkCreateRequest::default()
            };
            docker.create_network(wanted).await.map_err(|error| error.to_string())?;
            let info = docker.info().await.map_err(|error| error.to_string())?;
            let rootless = info.security_options.unwrap_or_default().iter().any(|option| option.contains("rootless"));
            let gateway = if rootless { None } else { gateway_of(&docker, &name).await? };
            Ok(Lane { name, gateway })
        };
        timeout(ANSWER, made).await.unwrap_or_else(|late| Err(late.to_string()))
    }

    /// This host's address in a network of the engine's.
    ///
    /// # Errors
    /// What the engine says.
    pub(super) async fn gateway(&self, network: &str) -> Result<Option<Ipv4Addr>, String> {
        let found = async { gateway_of(&connect(&self.socket)?, network).await };
        timeout(ANSWER, found).await.unwrap_or_else(|late| Err(late.to_string()))
    }
}

async fn gateway_of(docker: &Docker, network: &str) -> Result<Option<Ipv4Addr>, String> {
    let found = docker.inspect_network(network, None).await.map_err(|error| error.to_string())?;
    let nets = found.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    // Some engines write the prefix's length behind it.
    let address = |text: String| text.split('/').next().and_then(|address| address.parse().ok());
    Ok(nets.into_iter().filter_map(|net| net.gateway).find_map(address))
}
