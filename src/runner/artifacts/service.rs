//! The service over HTTP: GitHub's Twirp calls, and the part of Azure's blob storage that uploads and downloads use
//! (Put Block, Put Block List, Put Blob, Get Blob: <https://learn.microsoft.com/rest/api/storageservices/>).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::shelf::{Draft, Reading, Refusal, Shelf};
use super::twirp::{self, Asked};
use crate::kernel::id::Digest;

/// Where the calls are.
const CALLS: &str = "/twirp/github.actions.results.api.v1.ArtifactService/";
/// Where the artifacts' bytes are: an account of blob storage, which clients expect in a path below an address.
const ACCOUNT: &str = "/artifacts/";
/// The most connections at once.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and so how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// How long a body may make no progress, in either direction.
const STALL: Duration = Duration::from_secs(60);
/// Before listening goes on when the system refuses.
const PAUSE: Duration = Duration::from_millis(100);
/// The most bytes of a call, and of a list of blocks.
const CALL: usize = 64 << 10;
const LIST: usize = 2 << 20;
/// How much of a refused body is read, so that its sender hears why: a block of the real action and some.
const REFUSED: u64 = 16 << 20;
/// How much is read of a file at a time.
const CHUNK: usize = 64 << 10;

type Body = BoxBody<Bytes, io::Error>;

/// What all connections of a task share.
pub(super) struct Hall {
    pub(super) shelf: Arc<Shelf>,
    /// The run's name, which clients repeat from the token.
    pub(super) run: String,
    /// Of the token: comparing digests tells nothing of how much was right.
    pub(super) token: Digest,
    /// What addresses are signed with.
    pub(super) key: [u8; 32],
    /// By what address steps know it, and the port.
    pub(super) base: OnceLock<(String, u16)>,
}

/// Accepts connections until it is to close; none is left then.
pub(super) async fn keep(listener: TcpListener, hall: Arc<Hall>, mut closing: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    let mut guests: BTreeMap<Id, Guest> = BTreeMap::new();
    loop {
        let came = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            Some(gone) = open.join_next_with_id() => {
                guests.remove(&gone.map_or_else(|fault| fault.id(), |(id, ())| id));
                continue;
            }
            came = listener.accept() => came,
        };
        let Ok((stream, _)) = came else {
            sleep(PAUSE).await;
            continue;
        };
        if guests.len() >= CONNECTIONS {
            // Anybody of this host may connect; who has shown nothing makes way, the oldest first.
            let stranger = guests.iter().find(|(_, guest)| !guest.known.load(Ordering::Relaxed)).map(|(id, _)| *id);
            match stranger.and_then(|id| guests.remove(&id)) {
                Some(guest) => guest.task.abort(),
                None => continue,
            }
        }
        let known = Arc::new(AtomicBool::new(false));
        let task = open.spawn(converse(stream, hall.clone(), known.clone()));
        guests.insert(task.id(), Guest { task, known });
    }
    open.shutdown().await;
}

/// A connection.
struct Guest {
    task: AbortHandle,
    /// Whether it has shown the token, or an address that was signed.
    known: Arc<AtomicBool>,
}

async fn converse(stream: TcpStream, hall: Arc<Hall>, known: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        let (hall, known) = (hall.clone(), known.clone());
        async move { Ok::<_, Infallible>(hall.answer(request, &known).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(CALL);
    // A caller that goes in the middle of a word is no fault of this side.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

impl Hall {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, known: &AtomicBool) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if let Some(method) = path.strip_prefix(CALLS)
            && *request.method() == Method::POST
        {
            if !self.has_token(request.headers()) {
                return fault(StatusCode::UNAUTHORIZED, "unauthenticated", "the token is not this run's");
            }
            known.store(true, Ordering::Relaxed);
            return match self.call(method, request).await {
                Ok(answer) => answered(StatusCode::OK, &answer),
                Err(Wrong::Call(status, code, why)) => fault(status, code, &why),
                Err(Wrong::Refused(refusal)) => {
                    let (status, code) = twirp::refused(&refusal);
                    fault(status, code, &refusal.to_string())
                }
            };
        }
        let query = query(request.uri().query().unwrap_or_default());
        let verb = if *request.method() == Method::PUT { "write" } else { "read" };
        let id = path.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once('/')).and_then(|(_, id)| id.parse().ok());
        let Some(id) = id.filter(|id| query.get("sig").is_some_and(|signed| self.is_signed(verb, *id, signed))) else {
            return storage(StatusCode::FORBIDDEN, "AuthenticationFailed", "the address is not one that was signed");
        };
        known.store(true, Ordering::Relaxed);
        let done = match *request.method() {
            Method::PUT => self.put(id, &query, request).await,
            Method::GET | Method::HEAD => self.get(id).await,
            _ => return storage(StatusCode::METHOD_NOT_ALLOWED, "UnsupportedHttpVerb", "it is not for this"),
        };
        done.unwrap_or_else(|refusal| {
            let (status, code) = match refusal {
                Refusal::Unknown => (StatusCode::NOT_FOUND, "BlobNotFound"),
                Refusal::BlockList => (StatusCode::BAD_REQUEST, "InvalidBlockList"),
                Refusal::TooLarge(_) | Refusal::NoRoom => (StatusCode::PAYLOAD_TOO_LARGE, "RequestBodyTooLarge"),
                Refusal::Exists | Refusal::Busy => (StatusCode::CONFLICT, "BlobImmutableDueToPolicy"),
                Refusal::Name | Refusal::TooMany(_) | Refusal::Unequal(_) => (StatusCode::BAD_REQUEST, "InvalidInput"),
                Refusal::Io(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            };
            storage(status, code, &refusal.to_string())
        })
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given =
            given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, token)| Digest::of(&[token.as_bytes()]) == self.token)
    }

    fn signature(&self, verb: &str, id: u64) -> String {
        Digest::of(&[&self.key, verb.as_bytes(), &id.to_be_bytes()]).to_string()
    }

    fn is_signed(&self, verb: &str, id: u64, signed: &str) -> bool {
        Digest::of(&[self.signature(verb, id).as_bytes()]) == Digest::of(&[signed.as_bytes()])
    }

    /// An address by which one artifact can be written or read. Clients keep what is called `sig` out of logs.
    fn address(&self, verb: &str, id: u64) -> String {
        let base = self.base.get().map_or("", |(base, _)| base);
        format!("{base}{ACCOUNT}{}/{id}?sig={}", self.run, self.signature(verb, id))
    }

    async fn call(&self, method: &str, request: Request<Incoming>) -> Result<Value, Wrong> {
        let malformed = |why: String| Wrong::Call(StatusCode::BAD_REQUEST, "malformed", why);
        let body = timeout(STALL, Limited::new(request.into_body(), CALL).collect()).await;
        let body = body.map_err(|late| malformed(late.to_string()))?.map_err(|error| malformed(error.to_string()))?;
        let asked: Asked = serde_json::from_slice(&body.to_bytes()).map_err(|error| malformed(error.to_string()))?;
        if asked.workflow_run_backend_id != self.run {
            return Err(Wrong::Refused(Refusal::Unknown));
        }
        let shelf = self.shelf.clone();
        match method {
            "CreateArtifact" => {
                let id = blocking(move || shelf.create(&asked.name, &media(asked.mime_type.as_deref()))).await?;
                Ok(json!({ "ok": true, "signed_upload_url": self.address("write", id) }))
            }
            "FinalizeArtifact" => {
                let id = blocking(move || shelf.finish(&asked.name, asked.size(), asked.sha256())).await?;
                Ok(json!({ "ok": true, "artifact_id": id.to_string() }))
            }
            "ListArtifacts" => {
                let wanted = shelf.list().into_iter().filter(|one| asked.wants(one));
                let shown: Vec<Value> = wanted.map(|one| twirp::listed(&self.run, &one)).collect();
                Ok(json!({ "artifacts": shown }))
            }
            "GetSignedArtifactURL" => {
                let found = shelf.list().into_iter().find(|one| one.name == asked.name).ok_or(Refusal::Unknown)?;
                Ok(json!({ "signed_url": self.address("read", found.id) }))
            }
            "DeleteArtifact" => {
                let id = blocking(move || shelf.delete(&asked.name)).await?;
                Ok(json!({ "ok": true, "artifact_id": id.to_string() }))
            }
            _ => {
                let why = format!("there is no method {method}");
                Err(Wrong::Call(StatusCode::NOT_FOUND, "bad_route", why))
            }
        }
    }

    async fn put(
        &self,
        id: u64,
        query: &BTreeMap<String, String>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let shelf = self.shelf.clone();
        match query.get("comp").map(String::as_str) {
            Some("blocklist") => {
                let body = timeout(STALL, Limited::new(request.into_body(), LIST).collect()).await;
                let body = body.map_err(|_| Refusal::BlockList)?.map_err(|_| Refusal::BlockList)?.to_bytes();
                let list = block_list(&String::from_utf8_lossy(&body)).ok_or(Refusal::BlockList)?;
                blocking(move || shelf.commit(id, &list)).await?;
            }
            Some("block") => {
                let name = query.get("blockid").cloned().unwrap_or_default();
                let draft = self.receive(id, request).await?;
                blocking(move || shelf.keep(draft, &name)).await?;
            }
            None => {
                let draft = self.receive(id, request).await?;
                blocking(move || {
                    shelf.keep(draft, "whole")?;
                    shelf.commit(id, &["whole".to_owned()])
                })
                .await?;
            }
            Some(_) => return Err(Refusal::BlockList),
        }
        let mut answer = Response::new(full(Bytes::new()));
        *answer.status_mut() = StatusCode::CREATED;
        Ok(answer)
    }

    /// Takes a body in. Of a refused one some is read on, for a sender hears nothing before it has sent.
    async fn receive(&self, id: u64, request: Request<Incoming>) -> Result<Draft, Refusal> {
        let mut body = request.into_body();
        let mut draft = match self.shelf.draft(id) {
            Ok(draft) => draft,
            Err(refusal) => {
                pour_away(&mut body).await;
                return Err(refusal);
            }
        };
        let taken = take_in(&mut draft, &mut body).await;
        if let Err(refusal) = taken {
            drop(draft);
            pour_away(&mut body).await;
            return Err(refusal);
        }
        Ok(draft)
    }

    async fn get(&self, id: u64) -> Result<Response<Body>, Refusal> {
        let reading = self.shelf.read(id)?;
        let file = File::open(&reading.file).await?;
        let mut answer = Response::new(full(Bytes::new()));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_LENGTH, reading.bytes.into());
        let kind = HeaderValue::from_str(&reading.kind);
        headers.insert(CONTENT_TYPE, kind.unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream")));
        let name = format!("attachment; filename*=UTF-8''{}", encoded(&reading.name));
        headers.insert(CONTENT_DISPOSITION, HeaderValue::from_str(&name).map_err(io::Error::other)?);
        *answer.body_mut() = StreamBody::new(pieces(file, reading)).boxed();
        Ok(answer)
    }
}

/// Why a call is not answered as it would be.
enum Wrong {
    Call(StatusCode, &'static str, String),
    Refused(Refusal),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The shelf blocks, and finishes what it has begun also when nobody waits for it any more.
async fn blocking<T: Send + 'static>(what: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(what).await.map_err(|fault| Refusal::Io(io::Error::other(fault)))?
}

async fn take_in(draft: &mut Draft, body: &mut Incoming) -> Result<(), Refusal> {
    if let Some(bytes) = body.size_hint().exact() {
        draft.may(bytes)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.file).await?;
    let mut file = BufWriter::with_capacity(CHUNK, file);
    while let Some(frame) = timeout(STALL, body.frame()).await.map_err(io::Error::from)? {
        let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() else { continue };
        draft.grow(bytes.len() as u64)?;
        file.write_all(&bytes).await?;
    }
    file.flush().await?;
    Ok(())
}

async fn pour_away(body: &mut Incoming) {
    let poured = async {
        let mut left = REFUSED;
        while left > 0
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(1, |bytes| bytes.len() as u64));
        }
    };
    let _ = timeout(STALL, poured).await;
}

fn pieces(file: File, reading: Reading) -> impl stream::Stream<Item = io::Result<Frame<Bytes>>> + Send + Sync {
    stream::unfold((file, reading), |(mut file, reading)| async move {
        let mut piece = vec![0; CHUNK];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(length) => {
                piece.truncate(length);
                Some((Ok(Frame::data(piece.into())), (file, reading)))
            }
            Err(error) => Some((Err(error), (file, reading))),
        }
    })
}

/// The names in the body of Put Block List: `<BlockList><Latest>NAME</Latest>…</BlockList>`. Names are base64 and need no
/// escape. None for anything else.
fn block_list(text: &str) -> Option<Vec<String>> {
    let (_, rest) = text.split_once("<BlockList")?;
    let mut rest = rest.split_once('>')?.1;
    let mut names = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.starts_with("</BlockList>") {
            return Some(names);
        }
        let (tag, after) = rest.strip_prefix('<')?.split_once('>')?;
        if !["Latest", "Uncommitted"].contains(&tag) {
            return None;
        }
        let (name, after) = after.split_once('<')?;
        rest = after.strip_prefix('/')?.strip_prefix(tag)?.strip_prefix('>')?;
        names.push(name.trim().to_owned());
    }
}

/// A media type as a header may have it.
fn media(said: Option<&str>) -> String {
    let fits = |text: &&str| (1..=100).contains(&text.len()) && text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    said.filter(fits).unwrap_or("application/zip").to_owned()
}

/// The parts of a query, decoded.
fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = after.first_chunk::<2>().filter(|_| *first == b'%').and_then(|digits| {
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok().map(|()| byte[0])
        });
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As RFC 8187 wants it in a header.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn answered(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(full(value.to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Twirp's form of an error.
fn fault(status: StatusCode, code: &str, why: &str) -> Response<Body> {
    closing(answered(status, &json!({ "code": code, "msg": format!("runmesh: {why}") })))
}

/// Blob storage's form of an error.
fn storage(status: StatusCode, code: &'static str, why: &str) -> Response<Body> {
    // The sentences have no character that would need an escape, but for names of operators' making.
    let why = why.replace('&', "&amp;").replace('<', "&lt;");
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>runmesh: {why}</Message></Error>"
    );
    let mut answer = Response::new(full(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer.headers_mut().insert("x-ms-error-code", HeaderValue::from_static(code));
    closing(answer)
}

fn closing(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_of_blocks_is_read() {
        let sdk = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><BlockList><Latest>YQ==</Latest>\
                   <Latest>Yg==</Latest></BlockList>";
        assert_eq!(block_list(sdk).unwrap(), ["YQ==", "Yg=="]);
        assert_eq!(block_list("<BlockList>\n <Uncommitted>\n a </Uncommitted>\n</BlockList>\n").unwrap(), ["a"]);
        assert_eq!(block_list("<BlockList></BlockList>").unwrap(), [""; 0]);
        let bad =
            ["", "<BlockList>", "<BlockList><Latest>a</BlockList>", "<BlockList><Committed>a</Committed></BlockList>"];
        for bad in bad.into_iter().chain(["<BlockList><Latest>a</Uncommitted></BlockList>"]) {
            assert_eq!(block_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn queries_and_names_are_coded() {
        let read = query("sig=ab&comp=block&blockid=YQ%3D%3d%2B%&x");
        assert_eq!((read["comp"].as_str(), read["blockid"].as_str(), read.len()), ("block", "YQ==+%", 3));
        assert_eq!(encoded("späte \"Blüte\".zip"), "sp%C3%A4te%20%22Bl%C3%BCte%22.zip");
        assert_eq!(media(Some("text/html")), "text/html");
        assert_eq!([media(None), media(Some("a\r\nb: c")), media(Some(""))], ["application/zip"; 3]);
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_not(text in ".{0,200}", tail in "[<>/BlockListLatest a=%&0-9]{0,200}") {
            let _ = block_list(&format!("<BlockList>{tail}"));
            let _ = block_list(&text);
            let _ = query(&text);
            prop_assert_eq!(decoded(&encoded(&text)), text);
        }
    }
}
