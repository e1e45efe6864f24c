//! One call: who makes it, what it may cost, what came of it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LINK, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Limited};
use octocrab::auth::AppAuth;
use octocrab::models::{AppId, InstallationId};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::{AuthState, EncodingKey, Octocrab, OctocrabBuilder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::limits::{Gauge, Limits, Reason, now};
use super::memory::Memory;
use super::proxy::{self, Proxy};
use super::{Credentials, GithubError, Secret, graphql, lock, rest};

/// The host of GitHub's own API.
pub(super) const PUBLIC_HOST: &str = "api.github.com";
/// How long a call may take; GitHub itself gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of an answer: a page of a hundred repositories, or four hundred files, is far below.
const MAX_ANSWER: usize = 64 << 20;
/// How often a call is tried that meets a broken connection or a fault of the server.
const TRIES: u32 = 3;
/// Before the second try, at most; it doubles.
const BACK_OFF: Duration = Duration::from_millis(800);
/// The longest pause that GitHub may ask for and a look waits out, in seconds; after a longer one the look fails.
const LONGEST_PAUSE_S: u64 = 3;
/// How long before its end an installation's token is renewed: longer than a look or a fetch takes.
const RENEW_BEFORE_MINUTES: i64 = 5;

/// Where an API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What REST calls begin with, without a `/` at its end.
    pub(super) rest: String,
    /// What is before `/graphql`.
    pub(super) graphql: String,
    /// Where its pages and git repositories are.
    pub(super) web: String,
    /// Its host, with a port where it has one.
    pub host: String,
}

impl Default for Endpoint {
    fn default() -> Self {
        let api = format!("https://{PUBLIC_HOST}");
        Self { rest: api.clone(), graphql: api, web: "https://github.com".to_owned(), host: PUBLIC_HOST.to_owned() }
    }
}

impl FromStr for Endpoint {
    type Err = GithubError;

    fn from_str(text: &str) -> Result<Self, GithubError> {
        let bad = || GithubError::Endpoint(text.chars().take(200).collect());
        let text = text.trim().trim_end_matches('/');
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(bad()) };
        let local = matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]");
        if authority.as_str().contains('@')
            || !(scheme == "https" || scheme == "http" && local)
            || uri.query().is_some()
        {
            return Err(bad());
        }
        let host = authority.as_str().to_ascii_lowercase();
        if host == PUBLIC_HOST {
            return Ok(Self::default());
        }
        // GitHub Enterprise has REST at /api/v3 and GraphQL at /api.
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            rest: format!("{scheme}://{host}{path}"),
            graphql: format!("{scheme}://{host}{}", path.strip_suffix("/v3").unwrap_or(path)),
            web: format!("{scheme}://{host}"),
            host,
        })
    }
}

/// What calls have taken.
#[derive(Debug, Default)]
pub struct Tally {
    calls: AtomicU64,
    points: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    fn add(&self, points: u64, bytes: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.points.fetch_add(points, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Calls, charged points, bytes of answers.
    pub fn sums(&self) -> (u64, u64, u64) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (load(&self.calls), load(&self.points), load(&self.bytes))
    }
}

/// All that is called with one set of credentials.
pub(super) struct Api {
    pub(super) endpoint: Endpoint,
    pub(super) proxy: Proxy,
    kind: Kind,
}

enum Kind {
    Token(Arc<Client>),
    App {
        crab: Box<Octocrab>,
        /// By the account they are installed for, in lower case.
        clients: Mutex<BTreeMap<String, Arc<Client>>>,
    },
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Api({})", self.endpoint.rest)
    }
}

impl Api {
    pub(super) fn new(endpoint: Endpoint, proxy: Proxy, credentials: Credentials) -> Result<Self, GithubError> {
        let kind = match credentials {
            Credentials::Token(token) => {
                Kind::Token(Arc::new(Client::new(&endpoint, &proxy, Source::Fixed(token), String::new())?))
            }
            Credentials::App { id, key } => {
                let key = EncodingKey::from_rsa_pem(&key).map_err(|error| endpoint.failed(&error))?;
                let auth = AuthState::App(AppAuth { app_id: AppId(id), key });
                let crab = crab(&endpoint, &proxy, &endpoint.rest, auth)?;
                Kind::App { crab: Box::new(crab), clients: Mutex::default() }
            }
        };
        Ok(Self { endpoint, proxy, kind })
    }

    /// The clients there are already.
    pub(super) fn known(&self) -> Vec<Arc<Client>> {
        match &self.kind {
            Kind::Token(client) => vec![client.clone()],
            Kind::App { clients, .. } => lock(clients).values().cloned().collect(),
        }
    }

    /// The client for an owner's repositories: an app's installation there, else any, which sees what is public.
    pub(super) async fn client(&self, owner: &str) -> Result<Arc<Client>, GithubError> {
        let clients = match &self.kind {
            Kind::Token(client) => return Ok(client.clone()),
            Kind::App { clients, .. } => clients,
        };
        let find = |exact: bool| {
            let clients = lock(clients);
            let own = clients.get(&owner.to_ascii_lowercase()).cloned();
            own.or_else(|| clients.values().next().filter(|_| !exact).cloned())
        };
        if let Some(client) = find(true) {
            return Ok(client);
        }
        self.installations().await?;
        find(false).ok_or_else(|| GithubError::NotFound { what: "look for the app's installations".to_owned() })
    }

    /// Asks where the app is installed.
    async fn installations(&self) -> Result<(), GithubError> {
        let Kind::App { crab, clients } = &self.kind else { return Ok(()) };
        let what = "look for the app's installations";
        let mut page = 1;
        loop {
            let asked = request(Method::GET, &format!("/app/installations?per_page=100&page={page}"), &[], None)?;
            let (status, _, bytes) = send(crab, asked, what).await?;
            if status != 200 {
                return Err(refusal(status, what, &bytes));
            }
            let installed: Vec<rest::Installation> = read(what, &bytes)?;
            let full = installed.len() == 100;
            for one in installed {
                let Some(account) = one.account else { continue };
                if lock(clients).contains_key(&account.login.to_ascii_lowercase()) {
                    continue;
                }
                let crab = crab.installation(InstallationId(one.id)).map_err(|error| self.endpoint.failed(&error))?;
                let source = Source::Installation(crab);
                let client = Client::new(&self.endpoint, &self.proxy, source, account.login.clone())?;
                lock(clients).insert(account.login.to_ascii_lowercase(), Arc::new(client));
            }
            if !full {
                return Ok(());
            }
            page += 1;
        }
    }

    pub(super) async fn owners(&self, memory: &mut Memory, tally: &Tally) -> Result<Vec<String>, GithubError> {
        match &self.kind {
            Kind::Token(client) => {
                let entries = rest::pages(client, rest::OWN, "list the token's repositories", memory, tally).await?;
                let owners: BTreeSet<String> = entries.into_iter().map(|entry| entry.owner).collect();
                Ok(owners.into_iter().collect())
            }
            Kind::App { .. } => {
                self.installations().await?;
                Ok(self.known().iter().map(|client| client.account.clone()).collect())
            }
        }
    }
}

impl Endpoint {
    fn failed(&self, error: &dyn std::error::Error) -> GithubError {
        GithubError::Client { host: self.host.clone(), why: chain(error) }
    }
}

/// Where a token comes from.
enum Source {
    Fixed(Secret),
    /// Renews it by itself.
    Installation(Octocrab),
}

/// The way to the API with one token.
pub(super) struct Client {
    rest: Octocrab,
    graphql: Octocrab,
    base: String,
    source: Source,
    core: Gauge,
    points: Gauge,
    /// Whose installation it is; empty for a token.
    pub(super) account: String,
}

impl Client {
    fn new(endpoint: &Endpoint, proxy: &Proxy, source: Source, account: String) -> Result<Self, GithubError> {
        let make = |base: &str| crab(endpoint, proxy, base, AuthState::None);
        Ok(Self {
            rest: make(&endpoint.rest)?,
            graphql: make(&endpoint.graphql)?,
            base: endpoint.rest.clone(),
            source,
            core: Gauge::default(),
            points: Gauge::default(),
            account,
        })
    }

    pub(super) const fn is_installation(&self) -> bool {
        matches!(self.source, Source::Installation(_))
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { account: self.account.clone(), rest: self.core.quota(), graphql: self.points.quota() }
    }

    /// A token that is good for some minutes yet.
    pub(super) async fn token(&self) -> Result<Secret, GithubError> {
        match &self.source {
            Source::Fixed(token) => Ok(token.clone()),
            Source::Installation(crab) => {
                use octocrab::secrecy::ExposeSecret as _;
                let what = || format!("get a token for the app's installation at {}", self.account);
                let renew = chrono_minutes(RENEW_BEFORE_MINUTES);
                match timeout(PATIENCE, crab.installation_token_with_buffer(renew)).await {
                    Ok(Ok(token)) => Ok(Secret::new(token.expose_secret())),
                    Ok(Err(octocrab::Error::GitHub { source, .. })) => {
                        Err(refusal(source.status_code.as_u16(), &what(), source.message.as_bytes()))
                    }
                    Ok(Err(error)) => Err(GithubError::Unreachable { what: what(), why: chain(&error) }),
                    Err(_) => Err(GithubError::Unreachable { what: what(), why: "no answer in time".to_owned() }),
                }
            }
        }
    }

    /// Reads something by REST. `path` begins with `/`; an address that a list gave is taken too.
    pub(super) async fn get(
        &self,
        path: &str,
        etag: Option<&str>,
        what: &str,
        tally: &Tally,
    ) -> Result<Got, GithubError> {
        let path = path.strip_prefix(&self.base).unwrap_or(path);
        if !path.starts_with('/') {
            let why = "it names another host".to_owned();
            return Err(GithubError::Answer { what: what.to_owned(), why });
        }
        let etag: Vec<_> = etag.into_iter().map(|etag| (IF_NONE_MATCH, etag)).collect();
        let make = |token: &Secret| request(Method::GET, path, &etag, Some(token));
        let (status, headers, bytes) = self.call(&self.rest, &self.core, &make, what, tally, TRIES).await?;
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        match status {
            200 | 304 => Ok(Got {
                unchanged: status == 304,
                etag: text(ETAG).map(str::to_owned),
                next: text(LINK).and_then(next_of),
                bytes,
            }),
            _ => Err(refusal(status, what, &bytes)),
        }
    }

    /// Changes something by REST; gives status and body, whatever they are. One try: what has been done must not be done
    /// twice.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        what: &str,
        tally: &Tally,
    ) -> Result<(u16, Vec<u8>), GithubError> {
        let json = [(CONTENT_TYPE, "application/json")];
        let headers = if body.is_some() { json.as_slice() } else { &[] };
        let make = |token: &Secret| request(method.clone(), path, headers, Some(token));
        let (status, _, bytes) = self.call_with(&self.rest, &self.core, &make, body, what, tally, 1).await?;
        Ok((status, bytes))
    }

    /// Asks by GraphQL. One try: who asks asks for less next.
    pub(super) async fn ask(
        &self,
        query: &str,
        variables: Value,
        what: &str,
        tally: &Tally,
    ) -> Result<Value, graphql::Failure> {
        let body = json!({ "query": query, "variables": variables });
        let make = |token: &Secret| {
            let asked = request(Method::POST, "/graphql", &[], Some(token))?;
            let (mut parts, ()) = asked.into_parts();
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(Request::from_parts(parts, ()))
        };
        let made = self.call_with(&self.graphql, &self.points, &make, Some(&body), what, tally, 1).await;
        let (status, _, bytes) = match made {
            Ok(made) => made,
            Err(GithubError::Unreachable { what, why }) => {
                return Err(graphql::Failure::Heavy(GithubError::Unreachable { what, why }));
            }
            Err(error) => return Err(graphql::Failure::Other(error)),
        };
        match status {
            200 => graphql::data(&bytes, what, |reason| {
                let (limit, until) = self.points.block(reason, now());
                GithubError::Limited { what: what.to_owned(), limit, until }
            }),
            // What takes GitHub longer than 10 s is answered so.
            500..=599 => Err(graphql::Failure::Heavy(refusal(status, what, &bytes))),
            _ => Err(graphql::Failure::Other(refusal(status, what, &bytes))),
        }
    }

    async fn call(
        &self,
        crab: &Octocrab,
        gauge: &Gauge,
        make: &(dyn Fn(&Secret) -> Result<Request<()>, GithubError> + Sync),
        what: &str,
        tally: &Tally,
        tries: u32,
    ) -> Result<Raw, GithubError> {
        self.call_with(crab, gauge, make, None, what, tally, tries).await
    }

    /// Makes a call, within the limits, again after a pause where that may help.
    #[expect(clippy::too_many_arguments, reason = "the one place where all of a call comes together")]
    async fn call_with(
        &self,
        crab: &Octocrab,
        gauge: &Gauge,
        make: &(dyn Fn(&Secret) -> Result<Request<()>, GithubError> + Sync),
        body: Option<&Value>,
        what: &str,
        tally: &Tally,
        tries: u32,
    ) -> Result<Raw, GithubError> {
        let limited = |(limit, until)| GithubError::Limited { what: what.to_owned(), limit, until };
        let mut paused = false;
        let mut tried = 0;
        loop {
            gauge.check(now()).map_err(limited)?;
            let token = self.token().await?;
            let asked = make(&token)?;
            tried += 1;
            let sent = send_with(crab, asked, body, what).await;
            let again = tried < tries;
            match sent {
                Ok((status, headers, bytes)) => {
                    let points = if status == 304 { 0 } else { graphql::cost(&bytes, body.is_some()) };
                    tally.add(points, bytes.len());
                    if let Some((reason, until)) = gauge.learn(status, &headers, now()) {
                        let pause = until.saturating_sub(now());
                        if reason == Reason::Secondary && pause <= LONGEST_PAUSE_S && !paused {
                            paused = true;
                            sleep(Duration::from_secs(pause) + jitter(BACK_OFF)).await;
                            continue;
                        }
                        return Err(limited((reason, until)));
                    }
                    if !(again && status >= 500) {
                        return Ok((status, headers, bytes));
                    }
                }
                Err(error) => {
                    tally.add(0, 0);
                    if !again {
                        return Err(error);
                    }
                }
            }
            sleep(jitter(BACK_OFF * 2_u32.pow(tried - 1))).await;
        }
    }
}

/// Status, headers, body.
type Raw = (u16, HeaderMap, Vec<u8>);

/// What a read came to.
pub(super) struct Got {
    /// It is as at the ETag given.
    pub(super) unchanged: bool,
    pub(super) etag: Option<String>,
    /// The address of a list's next page.
    pub(super) next: Option<String>,
    pub(super) bytes: Vec<u8>,
}

/// A client for the calls below an address.
fn crab(endpoint: &Endpoint, proxy: &Proxy, base: &str, auth: AuthState) -> Result<Octocrab, GithubError> {
    let client = proxy::client(proxy).map_err(|error| endpoint.failed(&error))?;
    let base: http::Uri = base.parse().map_err(|_| GithubError::Endpoint(base.to_owned()))?;
    let agent = HeaderValue::from_static(concat!("runmesh/", env!("CARGO_PKG_VERSION")));
    let made = OctocrabBuilder::new_empty()
        .with_service(client)
        .with_layer(&ExtraHeadersLayer::new(Arc::new(vec![(USER_AGENT, agent)])))
        .with_layer(&BaseUriLayer::new(base))
        .with_auth(auth)
        .build();
    Ok(made.unwrap_or_else(|never| match never {}))
}

fn request(
    method: Method,
    path: &str,
    headers: &[(http::HeaderName, &str)],
    token: Option<&Secret>,
) -> Result<Request<()>, GithubError> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    request = request.header(http::header::ACCEPT, "application/vnd.github+json");
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        request = request.header(
            AUTHORIZATION,
            value.map_err(|_| GithubError::Unauthorized {
                what: "the token has characters that no token has".to_owned(),
            })?,
        );
    }
    let unreadable =
        |error: http::Error| GithubError::Answer { what: format!("ask for {path}"), why: error.to_string() };
    request.body(()).map_err(unreadable)
}

async fn send(crab: &Octocrab, asked: Request<()>, what: &str) -> Result<Raw, GithubError> {
    send_with(crab, asked, None, what).await
}

async fn send_with(crab: &Octocrab, asked: Request<()>, body: Option<&Value>, what: &str) -> Result<Raw, GithubError> {
    let unreachable = |why: String| GithubError::Unreachable { what: what.to_owned(), why };
    let (parts, ()) = asked.into_parts();
    let mut builder = Request::builder().method(parts.method).uri(parts.uri);
    for (name, value) in &parts.headers {
        builder = builder.header(name, value);
    }
    let asked = crab.build_request(builder, body).map_err(|error| unreachable(chain(&error)))?;
    let answer = async {
        let answer = crab.execute(asked).await.map_err(|error| chain(&error))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
        Ok((status, headers, body.to_bytes().to_vec()))
    };
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(unreachable),
        Err(_) => Err(unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// What an answer that is no success means.
fn refusal(status: u16, what: &str, bytes: &[u8]) -> GithubError {
    let what = what.to_owned();
    match status {
        401 => GithubError::Unauthorized { what },
        404 | 410 => GithubError::NotFound { what },
        400..=499 => {
            let told = serde_json::from_slice::<Value>(bytes).ok();
            let told = told.as_ref().and_then(|told| told["message"].as_str()).unwrap_or("it does not say why");
            GithubError::Forbidden { what, message: told.chars().filter(|c| !c.is_control()).take(200).collect() }
        }
        _ => GithubError::Server { what, status },
    }
}

/// Reads an answer's body.
pub(super) fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, GithubError> {
    serde_json::from_slice(bytes).map_err(|error| GithubError::Answer { what: what.to_owned(), why: error.to_string() })
}

/// The next page's address in a `Link` header.
fn next_of(link: &str) -> Option<String> {
    let mut links = link.split(',').filter_map(|one| one.split_once(';'));
    let (address, _) = links.find(|(_, relation)| relation.contains("rel=\"next\""))?;
    Some(address.trim().trim_start_matches('<').trim_end_matches('>').to_owned())
}

/// A random part of a time, at least half of it, so that nodes do not all come back at once.
fn jitter(most: Duration) -> Duration {
    let share = getrandom::u32().unwrap_or(u32::MAX / 2);
    most.mul_f64(0.5 + f64::from(share) / f64::from(u32::MAX) / 2.0)
}

fn chrono_minutes(minutes: i64) -> chrono::Duration {
    chrono::Duration::minutes(minutes)
}

/// An error with all that stands behind it, each sentence once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !text.is_empty() && texts.iter().all(|other| !other.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ").chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read() {
        let read = |text: &str| text.parse::<Endpoint>().map(|one| (one.rest, one.graphql, one.web, one.host));
        let four = |texts: [&str; 4]| {
            let [a, b, c, d] = texts.map(str::to_owned);
            Ok::<_, GithubError>((a, b, c, d))
        };
        let cases = [
            (
                "https://api.github.com/",
                ["https://api.github.com", "https://api.github.com", "https://github.com", "api.github.com"],
            ),
            (
                "https://GHE.example/api/v3",
                ["https://ghe.example/api/v3", "https://ghe.example/api", "https://ghe.example", "ghe.example"],
            ),
            (
                "http://127.0.0.1:81",
                ["http://127.0.0.1:81", "http://127.0.0.1:81", "http://127.0.0.1:81", "127.0.0.1:81"],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).ok(), four(expected).ok(), "{text}");
        }
        for text in
            ["", "api.github.com", "http://example.org", "https://user:secret@example.org", "ftp://x", "https://x/?a"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_page_is_found() {
        let link = "<https://h/r?page=1>; rel=\"prev\", <https://h/r?page=3>; rel=\"next\", <https://h/r?page=9>; rel=\"last\"";
        assert_eq!(next_of(link).as_deref(), Some("https://h/r?page=3"));
        assert_eq!(next_of("<https://h/r?page=1>; rel=\"first\""), None);
    }

    #[test]
    fn pauses_differ() {
        let pauses: BTreeSet<Duration> = (0..20).map(|_| jitter(BACK_OFF)).collect();
        assert!(pauses.len() > 10 && pauses.iter().all(|pause| *pause >= BACK_OFF / 2 && *pause <= BACK_OFF));
    }
}
