//! HTTP: a thread of its own that takes requests, lets the world answer them, and says what they cost.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::limits::Fault;
use super::{Call, State, git, graphql, rest, runners, scale_sets, world};

type Body = BoxBody<Bytes, std::io::Error>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(listener: std::net::TcpListener, state: Arc<Mutex<State>>) -> Self {
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, state, stopped));
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: std::net::TcpListener, state: Arc<Mutex<State>>, mut stopped: oneshot::Receiver<()>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let clones = Arc::new(git::Clones::new());
    loop {
        let stream = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        let (state, clones) = (state.clone(), clones.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(state.clone(), clones.clone(), request));
            // A client that goes away in the middle is its own matter.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// What the world says to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Points of the GraphQL quota; REST costs one of its own.
    pub(crate) points: u64,
}

impl Answer {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: 200, body, headers: Vec::new(), points: 1 }
    }

    pub(crate) fn error(status: u16, message: &str) -> Self {
        let url = "https://docs.github.com/rest";
        let body = json!({ "message": message, "documentation_url": url, "status": status.to_string() });
        Self { status, body, headers: Vec::new(), points: 1 }
    }
}

/// A request, read.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) secret: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    clones: Arc<git::Clones>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let whole = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if git::is_git(parts.uri.path()) {
        return Ok(git::answer(&state, &clones, &parts, bytes).await);
    }
    if let Some(what) = parts.uri.path().strip_prefix("/_runner/") {
        let (status, text) = runners::serve(state, what, parts.uri.query().unwrap_or_default()).await;
        let mut response = Response::new(full(text.into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        return Ok(response);
    }
    let secret = secret_of(&parts.headers).unwrap_or_default();
    let asked = Asked {
        method: parts.method.to_string(),
        path: percent_decoded(parts.uri.path().strip_prefix("/api/v3").unwrap_or_else(|| parts.uri.path())),
        query: query(parts.uri.query().unwrap_or_default()),
        secret,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    };
    let fault = lock(&state).limits.meet(&whole);
    let is_service = asked.path.starts_with(scale_sets::TENANT) || asked.path == "/actions/runner-registration";
    let (answer, headers, cost) = match is_service {
        true => serve_scale_sets(&state, &asked, fault.as_ref()).await,
        false => judge(&state, &asked, fault.as_ref()),
    };
    lock(&state).calls.push(Call {
        method: asked.method.clone(),
        path: whole,
        token: asked.secret.clone(),
        status: answer.status,
        cost,
        request: asked.body.clone(),
        answer: answer.body.clone(),
    });
    if let Some(Fault::Slow(time)) = fault {
        tokio::time::sleep(time).await;
    }
    let bytes = if matches!(answer.status, 202 | 204 | 304) || matches!(fault, Some(Fault::Empty)) {
        Vec::new()
    } else {
        answer.body.to_string().into_bytes()
    };
    let length = bytes.len();
    let body = if matches!(fault, Some(Fault::Cut)) {
        let half = Bytes::from(bytes[..length / 2].to_vec());
        let parts = [Ok(Frame::data(half)), Err(std::io::Error::other("cut"))];
        BodyExt::boxed(StreamBody::new(futures::stream::iter(parts)))
    } else {
        full(bytes)
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    *response.headers_mut() = headers;
    if matches!(fault, Some(Fault::Cut)) {
        let length = HeaderValue::from_str(&length.to_string()).expect("a number");
        response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// The same of the service behind scale sets, which has no limits of calls.
async fn serve_scale_sets(state: &Arc<Mutex<State>>, asked: &Asked, fault: Option<&Fault>) -> (Answer, HeaderMap, u64) {
    let answer = match fault {
        Some(Fault::Status(status)) => Answer::error(*status, "a failure on demand"),
        Some(Fault::Empty) => Answer::ok(Value::Null),
        _ if asked.path.starts_with(scale_sets::TENANT) => scale_sets::answer(state, asked).await,
        _ => scale_sets::register(&mut lock(state), asked),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &answer.headers {
        put(&mut headers, name, value);
    }
    put(&mut headers, "content-type", "application/json; charset=utf-8");
    (answer, headers, 0)
}

/// The answer, its headers, and what it costs.
fn judge(state: &Mutex<State>, asked: &Asked, fault: Option<&Fault>) -> (Answer, HeaderMap, u64) {
    let mut state = lock(state);
    let graphql = asked.path == "/graphql" || asked.path == "/api/graphql";
    let free = asked.path == "/rate_limit";
    let is_app = asked.secret.starts_with("ey");
    if !is_app {
        let token = state.limits.token(&asked.secret);
        let expired = token.expires.is_some_and(|expires| expires <= world::now());
        if token.revoked || expired || asked.secret.is_empty() {
            let mut answer = Answer::error(401, "Bad credentials");
            answer.points = 0;
            return (answer, HeaderMap::new(), 0);
        }
    }
    let out = |quota: super::limits::Quota| quota.remaining() == 0;
    let exhausted = {
        let token = state.limits.token(&asked.secret);
        !free && !is_app && out(if graphql { token.graphql } else { token.core })
    };
    let mut answer = match fault {
        Some(Fault::Status(status)) => Answer::error(*status, "a failure on demand"),
        Some(Fault::Secondary(seconds)) => {
            let mut answer = Answer::error(
                403,
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            );
            answer.headers.push(("retry-after", seconds.to_string()));
            answer
        }
        Some(Fault::GraphqlError(kind)) => {
            Answer::ok(json!({ "data": null, "errors": [{ "type": kind, "message": "a failure on demand" }] }))
        }
        _ if exhausted && graphql => Answer::ok(json!({
            "errors": [{ "type": "RATE_LIMITED", "message": "API rate limit exceeded for user ID 1." }]
        })),
        _ if exhausted => Answer::error(403, "API rate limit exceeded for user ID 1."),
        _ if graphql => graphql::answer(&mut state, asked),
        _ => rest::answer(&mut state, asked),
    };
    if exhausted {
        answer.points = 0;
    }
    let mut headers = HeaderMap::new();
    let mut cost = if free { 0 } else { answer.points };
    if asked.method == "GET" && answer.status == 200 {
        let etag = format!("W/\"{}\"", world::object_id("answer", answer.body.to_string().as_bytes()));
        if asked.headers.get("if-none-match").and_then(|value| value.to_str().ok()) == Some(&etag) {
            answer.status = 304;
            cost = 0;
        }
        put(&mut headers, "etag", &etag);
    }
    for (name, value) in &answer.headers {
        put(&mut headers, name, value);
    }
    put(&mut headers, "content-type", "application/json; charset=utf-8");
    if !is_app {
        let token = state.limits.token(&asked.secret);
        let (quota, resource) = if graphql { (&mut token.graphql, "graphql") } else { (&mut token.core, "core") };
        quota.used = (quota.used + cost).min(quota.limit);
        put(&mut headers, "x-ratelimit-limit", &quota.limit.to_string());
        put(&mut headers, "x-ratelimit-remaining", &quota.remaining().to_string());
        put(&mut headers, "x-ratelimit-used", &quota.used.to_string());
        put(&mut headers, "x-ratelimit-reset", &quota.reset.to_string());
        put(&mut headers, "x-ratelimit-resource", resource);
    }
    (answer, headers, cost)
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    let name: HeaderName = name.parse().expect("a header");
    headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
}

pub(crate) fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

pub(crate) fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The token in `Authorization`, plain or as a password.
pub(crate) fn secret_of(headers: &HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Some(rest.trim().to_owned());
    }
    let pair = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (k.to_owned(), percent_decoded(v)))
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
