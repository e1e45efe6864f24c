//! The container engine of this host, Docker or Podman, over its socket: whether there is one, what it has of ours, and
//! what it runs for us.
//!
//! Everything that is made there for a task carries two labels, or in a volume's case the same in its name: whose node it
//! is, and whose task. So what is left can be found and taken away without remembering anything.

mod contained;
mod door;
mod lane;
mod rules;

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptions,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use futures::StreamExt as _;
use tokio::time::{sleep, timeout};

pub(crate) use self::contained::{Boxed, Contained, bind, home};
pub(crate) use self::door::Door;
pub(crate) use self::lane::Lane;
pub(crate) use self::rules::Rules;
use super::Settings;
use super::images::Images;
use crate::kernel::id::Digest;

/// The labels of everything that is made for a task.
pub(crate) const LABEL_NODE: &str = "runmesh.node";
pub(crate) const LABEL_TASK: &str = "runmesh.task";

/// How long an engine may take to say its version, and to answer anything else.
const PROBE: Duration = Duration::from_secs(5);
pub(crate) const ANSWER: Duration = Duration::from_secs(60);
/// How soon it is looked at again whether what was told to go is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const SILENT: &str = "the container engine does not answer";
/// How long an image may take to be fetched.
pub(crate) const PULL: Duration = Duration::from_secs(1800);

/// What a container of a task gets of this host at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, swap included; no limit where none is said.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub millicpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Open files of a process, and processes of a user. It must not be more than the host grants to the engine.
    pub ulimit: u64,
}

impl Default for Limits {
    /// 4096 processes and nothing else: more is for whoever knows the host.
    fn default() -> Self {
        Self { memory: None, millicpus: None, pids: Some(4096), ulimit: 1024 }
    }
}

/// An engine that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    pub socket: PathBuf,
    /// Such as `Podman Engine 4.3.1`.
    pub version: String,
}

/// Looks for an engine: where the settings say, else where DOCKER_HOST says, else in the usual places.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) async fn probe(settings: &Settings) -> Result<Engine, String> {
    let named = settings.engine.clone();
    let host = || env::var("DOCKER_HOST").ok()?.strip_prefix("unix://").map(PathBuf::from);
    let usual = || {
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("podman/podman.sock"));
        let all = runtime.into_iter().chain(["/run/podman/podman.sock", "/var/run/docker.sock"].map(PathBuf::from));
        all.into_iter().find(|path| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket()))
    };
    let socket = named.or_else(host).or_else(usual).ok_or(
        "no container engine is found: start Docker or Podman (`systemctl enable --now podman.socket`), or name its \
         socket in the settings: engine = PATH",
    )?;
    let socket = std::path::absolute(&socket).map_err(|error| format!("finding {}: {error}", socket.display()))?;
    let fault = |error: &dyn std::fmt::Display| {
        format!("the container engine at {} does not answer: {error}", socket.display())
    };
    let docker = connect(&socket).map_err(|error| fault(&error))?;
    let version =
        timeout(PROBE, docker.version()).await.map_err(|late| fault(&late))?.map_err(|error| fault(&error))?;
    let component = version.components.unwrap_or_default().into_iter().next();
    let version = match component {
        Some(component) => format!("{} {}", component.name, component.version),
        None => version.version.unwrap_or_default(),
    };
    Ok(Engine { socket, version })
}

pub(crate) fn connect(socket: &Path) -> Result<Docker, String> {
    let path = socket.to_str().ok_or("its path is not UTF-8")?;
    // Every engine of the last five years speaks this version of the protocol (Docker 20.10, Podman 4).
    let version = bollard::ClientVersion { major_version: 1, minor_version: 41 };
    Docker::connect_with_unix(path, ANSWER.as_secs(), &version).map_err(|error| error.to_string())
}

/// The node's word in labels and names: those of another node at the same engine have another.
pub(crate) fn node_mark(work_root: &Path) -> String {
    let node = Digest::of(&[work_root.as_os_str().as_encoded_bytes()]).to_string();
    format!("rm{}", &node[..12])
}

impl Engine {
    /// Sees that an image is there.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(crate) async fn has_image(&self, image: &str, pull: bool, images: &Images) -> Result<(), String> {
        let docker = connect(&self.socket)?;
        match docker.inspect_image(image).await {
            Ok(_) => return Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => (),
            Err(error) => return Err(format!("asking the container engine for the image {image}: {error}")),
        }
        if !pull {
            return Err(format!(
                "the image {image} is not on this host: fetch it (`podman pull {image}`), or allow that with `pull = true` \
                 in the settings"
            ));
        }
        images.before_fetching(self, image).await?;
        let options = CreateImageOptionsBuilder::default().from_image(image).build();
        let fetched = async {
            let mut steps = docker.create_image(Some(options), None, None);
            while let Some(step) = steps.next().await {
                step.map_err(|error| format!("fetching the image {image}: {error}"))?;
            }
            Ok(())
        };
        timeout(PULL, fetched).await.unwrap_or_else(|_| Err(format!("fetching the image {image} took too long")))
    }

    /// The marks that begin so, of all that is at the engine.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn marks(&self, begin: &str) -> Result<BTreeSet<String>, String> {
        let looked = async {
            let docker = connect(&self.socket)?;
            let filters = HashMap::from([("label", vec![LABEL_TASK])]);
            let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
            let containers = docker.list_containers(Some(options)).await.map_err(|error| error.to_string())?;
            let labels = containers.into_iter().filter_map(|container| container.labels?.remove(LABEL_TASK));
            let mut marks: BTreeSet<String> = labels.filter(|mark| mark.starts_with(begin)).collect();
            let networks = docker.list_networks(Some(ListNetworksOptionsBuilder::default().build())).await;
            let networks = networks.map_err(|error| error.to_string())?.into_iter().filter_map(|network| network.name);
            let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.map_err(|error| error.to_string())?;
            let volumes = volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.name);
            let mark = |name: String| Some(name[name.find(&format!("-{begin}"))? + 1..].to_owned());
            marks.extend(networks.chain(volumes).filter_map(mark));
            Ok::<_, String>(marks)
        };
        timeout(ANSWER, looked).await.unwrap_or_else(|_| Err(SILENT.to_owned()))
    }

    /// Takes away everything at the engine that bears this mark, and looks whether that came true: an engine that is at
    /// something of it itself says so, or nothing, and is asked again for so long. What stays, in words.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn clear(&self, mark: &str, patience: Duration) -> Result<Vec<String>, String> {
        let began = Instant::now();
        loop {
            let mut stuck = self.sweep_once(mark).await?;
            if self.marks(mark).await?.is_empty() {
                return Ok(Vec::new());
            }
            if began.elapsed() >= patience {
                if stuck.is_empty() {
                    stuck.push("the container engine is still taking something of it away".to_owned());
                }
                return Ok(stuck);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes away everything at the engine whose mark begins so: one task's, or one node's. Says what could not be.
    pub(crate) async fn sweep(&self, mark: &str) -> Vec<String> {
        self.sweep_once(mark).await.unwrap_or_else(|error| vec![error])
    }

    async fn sweep_once(&self, mark: &str) -> Result<Vec<String>, String> {
        let swept = async {
            let docker = connect(&self.socket)?;
            let mut stuck = self.sweep_containers(&docker, mark).await?;
            stuck.extend(self.sweep_rest(&docker, mark).await?);
            Ok(stuck)
        };
        timeout(ANSWER, swept).await.unwrap_or_else(|_| Err(SILENT.to_owned()))
    }

    async fn sweep_containers(&self, docker: &Docker, mark: &str) -> Result<Vec<String>, String> {
        let filters = HashMap::from([("label", vec![LABEL_TASK])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let all = docker.list_containers(Some(options)).await.map_err(|error| error.to_string())?;
        let ours = all.into_iter().filter(|container| {
            let labels = container.labels.as_ref();
            labels.and_then(|labels| labels.get(LABEL_TASK)).is_some_and(|task| task.starts_with(mark))
        });
        let mut stuck = Vec::new();
        for id in ours.filter_map(|container| container.id) {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match docker.remove_container(&id, Some(options)).await {
                Err(error) if !is_gone(&error) => stuck.push(format!("container {id}: {error}")),
                _ => (),
            }
        }
        Ok(stuck)
    }

    async fn sweep_rest(&self, docker: &Docker, mark: &str) -> Result<Vec<String>, String> {
        let ours = |name: &str| name.contains(&format!("-{mark}"));
        let mut stuck = Vec::new();
        let networks = docker.list_networks(Some(ListNetworksOptionsBuilder::default().build())).await;
        let networks = networks.map_err(|error| error.to_string())?.into_iter().filter_map(|network| network.name);
        for name in networks.filter(|name| ours(name)) {
            match docker.remove_network(&name).await {
                Err(error) if !is_gone(&error) => stuck.push(format!("network {name}: {error}")),
                _ => (),
            }
        }
        let volumes = docker.list_volumes(None::<ListVolumesOptions>).await.map_err(|error| error.to_string())?;
        for name in volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.name).filter(|name| ours(name))
        {
            let options = RemoveVolumeOptionsBuilder::default().force(true).build();
            match docker.remove_volume(&name, Some(options)).await {
                Err(error) if !is_gone(&error) => stuck.push(format!("volume {name}: {error}")),
                _ => (),
            }
        }
        Ok(stuck)
    }
}

fn is_gone(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. })
}

#[cfg(test)]
mod tests;
