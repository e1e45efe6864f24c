//! One container of a task's own, as a family of processes: started, heard, ended.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptions,
};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, json};
use tokio::io::{AsyncWriteExt as _, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{ANSWER, Engine, LABEL_NODE, LABEL_TASK, Limits, connect, is_gone};
use crate::runner::Network;
use crate::runner::process::{Invocation, Stream};

/// Bytes of output that wait to be read.
const PIPE: usize = 64 * 1024;
/// What an engine says of a container whose program is not there or cannot be started (docker-run(1)).
const NO_START: u8 = 125;
/// Podman 4.3's own word, among the program's, about the end of a container whose standard input it had.
const NOISE: &[u8] = b"Error: read unixpacket @";
/// What a shell says of a program that was killed.
const KILLED: i64 = 137;

/// What a container is made of, besides the program.
#[derive(Debug, Clone)]
pub(crate) struct Boxed {
    pub(crate) engine: Engine,
    pub(crate) image: String,
    /// What node and task are known by.
    pub(crate) node: String,
    pub(crate) mark: String,
    /// `HOST:INSIDE` or `HOST:INSIDE:ro`.
    pub(crate) binds: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
}

/// A started container. What is in it ends with [`Contained::stop`], or by its mark, not by dropping this.
pub(crate) struct Contained {
    docker: Docker,
    id: String,
    carrier: JoinHandle<()>,
    end: BoxFuture<'static, io::Result<ExitStatus>>,
}

impl Drop for Contained {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Contained {
    /// Makes and starts it.
    ///
    /// # Errors
    /// What the engine says.
    pub(crate) async fn start(what: &Invocation, boxed: &Boxed) -> io::Result<(Self, Stream, Stream)> {
        let made = timeout(ANSWER, Self::make(what, boxed)).await;
        made.unwrap_or_else(|late| Err(late.into()))
    }

    async fn make(what: &Invocation, boxed: &Boxed) -> io::Result<(Self, Stream, Stream)> {
        let docker = connect(&boxed.engine.socket).map_err(io::Error::other)?;
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let environment = what.environment.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
        let mut host = Map::new();
        host.insert("Binds".to_owned(), json!(boxed.binds));
        host.insert("Init".to_owned(), json!(true));
        let network = if boxed.network == Network::Host { "bridge" } else { "none" };
        host.insert("NetworkMode".to_owned(), json!(network));
        let input = what.input.is_some();
        let body = json!({
            "Image": boxed.image,
            "Entrypoint": [what.program],
            "Cmd": what.arguments.iter().map(|word| text(word)).collect::<Vec<_>>(),
            "Env": environment.collect::<Vec<_>>(),
            "WorkingDir": what.directory,
            "Labels": { LABEL_NODE: boxed.node, LABEL_TASK: boxed.mark },
            "AttachStdin": input, "OpenStdin": input, "StdinOnce": input,
            "AttachStdout": true, "AttachStderr": true, "Tty": false,
            "HostConfig": boxed.limits.host_config(host),
        });
        let body: ContainerCreateBody = serde_json::from_value(body)?;
        let options = CreateContainerOptionsBuilder::default().name(&format!("runmesh-{}", boxed.mark)).build();
        let id = docker.create_container(Some(options), body).await.map_err(io::Error::other)?.id;
        let attach =
            AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).stdin(input).build();
        let mut attached = docker.attach_container(&id, Some(attach)).await.map_err(io::Error::other)?;
        let given = match &what.input {
            Some(file) => tokio::fs::read(file).await?,
            None => Vec::new(),
        };
        docker.start_container(&id, None).await.map_err(io::Error::other)?;
        let ((mut output, near), (mut errors, far)) = (duplex(PIPE), duplex(PIPE));
        let carrier = tokio::spawn(async move {
            let give = async {
                // A program that does not want it, or has ended, shuts it.
                let _ = attached.input.write_all(&given).await;
                let _ = attached.input.shutdown().await;
            };
            let take = async {
                while let Some(Ok(said)) = attached.output.next().await {
                    let carried = match said {
                        LogOutput::StdErr { message } if message.starts_with(NOISE) => Ok(()),
                        LogOutput::StdErr { message } => errors.write_all(&message).await,
                        LogOutput::StdOut { message } | LogOutput::Console { message } => {
                            output.write_all(&message).await
                        }
                        LogOutput::StdIn { .. } => Ok(()),
                    };
                    if carried.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(give, take);
        });
        let end = Box::pin(end(docker.clone(), id.clone()));
        Ok((Self { docker, id, carrier, end }, Box::new(near), Box::new(far)))
    }

    /// Kills everything in it; [`Self::ended`] then comes. Cut short by an engine that does not answer.
    pub(crate) async fn stop(&mut self) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.docker.remove_container(&self.id, Some(options));
        if let Ok(Err(error)) = timeout(ANSWER, removed).await
            && !is_gone(&error)
        {
            tracing::warn!("stopping the container {}: {error}", self.id);
        }
    }

    /// Waits until it has ended. Cancel safe; not to be asked again afterwards.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        (&mut self.end).await
    }
}

async fn end(docker: Docker, id: String) -> io::Result<ExitStatus> {
    let mut waited = Box::pin(docker.wait_container(&id, None::<WaitContainerOptions>));
    let code = match waited.next().await {
        Some(Ok(answer)) => answer.status_code,
        Some(Err(Error::DockerContainerWaitError { code, .. })) => code,
        // Somebody took it away: as if it had been killed.
        Some(Err(error)) if is_gone(&error) => KILLED,
        Some(Err(error)) => return Err(io::Error::other(error)),
        None => return Err(io::Error::other("the container engine ended the answer")),
    };
    let code = u8::try_from(code).unwrap_or(NO_START);
    Ok(ExitStatus::from_raw(i32::from(code) << 8))
}

/// A bind of a path as the engine writes it.
pub(crate) fn bind(outside: &std::path::Path, inside: &std::path::Path, writable: bool) -> String {
    let end = if writable { "" } else { ":ro" };
    format!("{}:{}{end}", outside.display(), inside.display())
}

/// Where home is in a container.
pub(crate) fn home() -> PathBuf {
    "/home/runner".into()
}
