//! The engine's socket as one task sees it: a socket of its own, behind which [`Rules`] are held.
//!
//! Each request has a connection to the engine of its own; streams that are upgraded (attach, exec) are handed through
//! as they are. Bodies that are looked at are bounded. The door is shut when it is dropped, and all connections with it.
//! Where the task has an artifact service, that listens in each network that the task makes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::rules::{Kind, Made, Rules, Way};
use super::{Engine, Lane};
use crate::runner::artifacts::Service;
use crate::runner::images::{Images, Use};

/// The most connections at once.
const CONNECTIONS: usize = 256;
/// The most images that are kept for one task.
const IMAGES: usize = 256;
/// The most bytes of a body that is looked at.
const BODY: usize = 4 << 20;

type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// An open door.
pub(crate) struct Door {
    keeper: JoinHandle<()>,
    hall: Arc<Hall>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Hall {
    engine: Engine,
    rules: Rules,
    made: Mutex<Made>,
    images: Arc<Images>,
    /// The images that the task asked for, by name: none of them goes while the door is open.
    uses: Mutex<BTreeMap<String, Use>>,
    artifacts: Option<Arc<Service>>,
    /// An image that was asked for and may not be fetched.
    refused: Mutex<Option<String>>,
}

impl Door {
    /// Opens it at a path that does not exist yet.
    ///
    /// # Errors
    /// What the system says, such as that the path is longer than the 107 bytes that a socket's may have.
    pub(crate) fn open(
        at: &Path,
        engine: Engine,
        rules: Rules,
        artifacts: Option<Arc<Service>>,
        images: Arc<Images>,
    ) -> io::Result<Self> {
        let listener = UnixListener::bind(at)?;
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o600))?;
        let mut made = Made::default();
        if let (Some(Lane { name, gateway: Some(gateway) }), Some(_)) = (&rules.lane, &artifacts) {
            made.gateways.insert(name.clone(), *gateway);
        }
        let hall = Arc::new(Hall {
            engine,
            rules,
            made: made.into(),
            artifacts,
            images,
            uses: Mutex::default(),
            refused: Mutex::default(),
        });
        Ok(Self { keeper: tokio::spawn(keep(listener, hall.clone())), hall })
    }

    /// An image that was wanted, is not there and was not fetched.
    pub(crate) fn refused_image(&self) -> Option<String> {
        self.hall.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn keep(listener: UnixListener, hall: Arc<Hall>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            came = listener.accept(), if open.len() < CONNECTIONS => match came {
                Ok((stream, _)) => drop(open.spawn(converse(stream, hall.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a task's way to the container engine is closed");
                    return;
                }
            },
            Some(_) = open.join_next() => (),
        }
    }
}

async fn converse(stream: UnixStream, hall: Arc<Hall>) {
    let tunnels = Arc::new(Mutex::new(JoinSet::new()));
    let service = service_fn(|request| {
        let (hall, tunnels) = (hall.clone(), tunnels.clone());
        async move {
            Ok::<_, Infallible>(
                hall.answer(request, &tunnels).await.unwrap_or_else(|why| said(StatusCode::BAD_GATEWAY, &why)),
            )
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A caller that goes in the middle of a word is no fault of this side.
    let _ = connection.with_upgrades().await;
    // What was upgraded lives on until one side goes.
    let mut left = std::mem::take(&mut *tunnels.lock().unwrap_or_else(PoisonError::into_inner));
    while left.join_next().await.is_some() {}
}

impl Hall {
    async fn answer(&self, request: Request<Incoming>, tunnels: &Mutex<JoinSet<()>>) -> Result<Response<Body>, String> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().map(str::to_owned));
        let way = self.rules.way(request.method(), &path, &self.made());
        match way {
            Way::Refuse(why) => {
                if path.ends_with("/images/create") {
                    let image = fetched(query.as_deref().unwrap_or_default()).0;
                    *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
                }
                tracing::debug!("refused to a task: {} {path}: {why}", request.method());
                Ok(said(StatusCode::FORBIDDEN, &format!("runmesh: {why}")))
            }
            Way::Pass(path) if path.ends_with("/images/create") => {
                // On disk before it is fetched, so that it can go again.
                let (name, tag) = fetched(query.as_deref().unwrap_or_default());
                let image = match tag.as_deref() {
                    None | Some("") => name,
                    Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
                    Some(tag) => format!("{name}:{tag}"),
                };
                self.images.before_fetching(&self.engine, &image).await?;
                self.use_image(&image).await;
                self.pass(address(&path, query.as_deref())?, request, tunnels).await
            }
            Way::Pass(path) => {
                let asked = path.split_once("/images/").and_then(|(_, rest)| rest.strip_suffix("/json"));
                if let Some(image) = asked {
                    self.use_image(image).await;
                }
                self.pass(address(&path, query.as_deref())?, request, tunnels).await
            }
            Way::List(kind) => {
                let (parts, _) = request.into_parts();
                // Without the caller's filters, which speak of other names: the caller compares names itself.
                let query = if kind == Kind::Container { Some("all=true") } else { None };
                let (status, list) = self.ask(parts, address(&path, query)?, Bytes::new()).await?;
                Ok(json_body(status, &self.rules.own(kind, list)))
            }
            Way::Create(kind) => {
                let (parts, body) = request.into_parts();
                let body = Limited::new(body, BODY).collect().await.map_err(|error| error.to_string())?.to_bytes();
                let asked: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                let name = query.as_deref().unwrap_or_default().split('&').find_map(|part| part.strip_prefix("name="));
                let wanted = match self.rules.body(kind, name.unwrap_or_default(), asked, &self.made()) {
                    Ok(wanted) => wanted,
                    Err(why) => return Ok(said(StatusCode::FORBIDDEN, &format!("runmesh: {why}"))),
                };
                if let (Kind::Container, Some(image)) = (kind, wanted["Image"].as_str()) {
                    self.use_image(image).await;
                }
                let query = query.map(|query| self.rules.query(&query));
                let (status, made) =
                    self.ask(parts, address(&path, query.as_deref())?, wanted.to_string().into()).await?;
                self.note(kind, &wanted, &made);
                if kind == Kind::Network {
                    self.listen(wanted["Name"].as_str().unwrap_or_default()).await;
                }
                Ok(json_body(status, &made))
            }
        }
    }

    /// An image is not removed from here on, while the door is open.
    async fn use_image(&self, image: &str) {
        // Also of one that is held by its name: what was not there may have been fetched meanwhile.
        let used = self.images.using(&self.engine, image).await;
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() < IMAGES || uses.contains_key(image) {
            uses.insert(image.to_owned(), used);
        }
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was made by the id that the engine gave it.
    fn note(&self, kind: Kind, wanted: &Value, made: &Value) {
        let Some(id) = made["Id"].as_str().map(str::to_owned) else { return };
        let mut all = self.made();
        match kind {
            Kind::Container => drop(all.containers.insert(id)),
            Kind::Exec => drop(all.execs.insert(id)),
            Kind::Network => {
                all.networks.insert(id);
                all.networks.extend(wanted["Name"].as_str().map(str::to_owned));
            }
            Kind::Volume => (),
        }
    }

    /// Lets the artifact service be reached from a network that the task has made.
    async fn listen(&self, network: &str) {
        let reached = self.rules.lane.as_ref().is_some_and(|lane| lane.gateway.is_some());
        let Some(artifacts) = self.artifacts.as_ref().filter(|_| reached) else { return };
        let listens = match self.engine.gateway(network).await {
            Ok(Some(gateway)) => artifacts.listen(gateway).map(|()| gateway).map_err(|error| error.to_string()),
            Ok(None) => Err("it has no address of this host".to_owned()),
            Err(error) => Err(error),
        };
        match listens {
            Ok(gateway) => drop(self.made().gateways.insert(network.to_owned(), gateway)),
            Err(error) => tracing::warn!("no artifacts can be uploaded from the network {network}: {error}"),
        }
    }

    /// Asks the engine something with an answer in JSON.
    async fn ask(&self, parts: http::request::Parts, to: Uri, body: Bytes) -> Result<(StatusCode, Value), String> {
        let mut request = Request::from_parts(parts, full(body.clone()));
        *request.uri_mut() = to;
        let headers = request.headers_mut();
        headers.remove(TRANSFER_ENCODING);
        headers.insert(CONTENT_LENGTH, body.len().into());
        headers.insert(HOST, HeaderValue::from_static("engine"));
        let mut alone = JoinSet::new();
        let answer = self.send(request, &mut alone).await?;
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), BODY).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let value =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).map_err(|e| e.to_string())? };
        Ok((status, value))
    }

    /// Hands a request through, also where it becomes something else than HTTP.
    async fn pass(
        &self,
        to: Uri,
        request: Request<Incoming>,
        tunnels: &Mutex<JoinSet<()>>,
    ) -> Result<Response<Body>, String> {
        let mut request = request;
        *request.uri_mut() = to;
        let upgrades = request.headers().contains_key(UPGRADE);
        let near = upgrades.then(|| hyper::upgrade::on(&mut request));
        let request = request.map(|body| body.map_err(Into::into).boxed());
        let mut carriers = JoinSet::new();
        let mut answer = self.send(request, &mut carriers).await?;
        let far = (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
        let tunnel = async move {
            if let (Some(near), Some(far)) = (near, far)
                && let (Ok(near), Ok(far)) = tokio::join!(near, far)
            {
                // Either side may go at any time.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await;
            }
            while carriers.join_next().await.is_some() {}
        };
        tunnels.lock().unwrap_or_else(PoisonError::into_inner).spawn(tunnel);
        Ok(answer.map(|body| body.map_err(Into::into).boxed()))
    }

    async fn send(&self, request: Request<Body>, carriers: &mut JoinSet<()>) -> Result<Response<Incoming>, String> {
        let gone = |error: &dyn std::fmt::Display| format!("the container engine does not answer: {error}");
        let stream = UnixStream::connect(&self.engine.socket).await.map_err(|error| gone(&error))?;
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| gone(&error))?;
        carriers.spawn(async move {
            // What goes wrong shows where the answer is read.
            let _ = connection.with_upgrades().await;
        });
        sender.send_request(request).await.map_err(|error| gone(&error))
    }
}

/// The name and the tag or digest of the image that is to be fetched.
fn fetched(query: &str) -> (String, Option<String>) {
    let plain = |text: &str| text.replace("%2F", "/").replace("%3A", ":").replace("%40", "@");
    let part = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key)).map(plain);
    (part("fromImage=").unwrap_or_default(), part("tag="))
}

fn address(path: &str, query: Option<&str>) -> Result<Uri, String> {
    let text = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn json_body(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(full(value.to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// An answer in the engine's own shape, whose message people see.
fn said(status: StatusCode, why: &str) -> Response<Body> {
    json_body(status, &json!({ "message": why }))
}
