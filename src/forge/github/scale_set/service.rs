//! The way to the service behind scale sets: its address and its token, both of which the API gives out, and the calls.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Http;
use octocrab::OctoBody;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::super::api::{Api, Tally, chain, read};
use super::super::limits::{Reason, now};
use super::super::proxy::{self, Way};
use super::{GithubError, ScaleSetError, Scope, Secret, told};
use crate::forge::github::Github;

/// How long a call may take that is not kept open on purpose.
pub(super) const CALL: Duration = Duration::from_secs(30);
/// The most bytes of an answer: 50 jobs take about 50 kB.
const MAX_ANSWER: usize = 8 << 20;
/// How long before its end the service's token is renewed, in seconds, as GitHub's client does.
const RENEW_BEFORE_S: u64 = 60;
/// How long a token whose end cannot be read is believed in, in seconds. Own choice: far below the usual hour.
const UNREADABLE_S: u64 = 600;
/// After a refusal for too many calls that tells no time, in seconds.
const PAUSE_S: u64 = 60;
/// The version that is asked for.
const VERSION: &str = "api-version=6.0-preview";

/// The service as one organisation or repository sees it. A copy is the same way.
#[derive(Clone)]
pub struct Service {
    api: Arc<Api>,
    http: Http<HttpsConnector<Way>, OctoBody>,
    scope: Scope,
    /// One at a time renews the token; the others wait for it.
    admin: Arc<Mutex<Option<Admin>>>,
}

/// Where the service is, and what lets one in.
#[derive(Clone)]
struct Admin {
    address: String,
    token: Secret,
    /// Seconds since 1970.
    ends: u64,
}

/// What proves who asks.
pub(super) enum Credential<'a> {
    Bearer(&'a Secret),
    /// A registration token.
    Remote(&'a Secret),
}

/// A call.
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    pub(super) address: &'a str,
    pub(super) credential: Credential<'a>,
    pub(super) capacity: Option<u32>,
    pub(super) body: Option<&'a Value>,
    pub(super) patience: Duration,
}

#[derive(Deserialize)]
struct Registration {
    token: String,
}

#[derive(Deserialize)]
struct Connection {
    #[serde(default)]
    url: String,
    #[serde(default)]
    token: String,
}

impl Github {
    /// The service behind a scope's scale sets. Asks nothing yet.
    ///
    /// # Errors
    /// When the system has no certificates.
    pub fn scale_sets(&self, scope: Scope) -> Result<Service, GithubError> {
        let http = proxy::client(&self.api.proxy)
            .map_err(|error| GithubError::Client { host: self.host().to_owned(), why: error.to_string() })?;
        Ok(Service { api: self.api.clone(), http, scope, admin: Arc::default() })
    }
}

impl Service {
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// A call below the service's address, again with another token if that was not taken.
    pub(super) async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        what: &str,
    ) -> Result<(u16, Vec<u8>), ScaleSetError> {
        let answer = self.admin_as(method.clone(), path, body.clone(), None, what).await?;
        if answer.0 != 401 {
            return Ok(answer);
        }
        *self.admin.lock().await = None;
        self.admin_as(method, path, body, None, what).await
    }

    /// The same once, with this token where one is given.
    pub(super) async fn admin_as(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        token: Option<&Secret>,
        what: &str,
    ) -> Result<(u16, Vec<u8>), ScaleSetError> {
        let admin = self.connection().await?;
        let mark = if path.contains('?') { '&' } else { '?' };
        let address = format!("{}/{path}{mark}{VERSION}", admin.address.trim_end_matches('/'));
        let asked = Asked {
            method,
            address: &address,
            credential: Credential::Bearer(token.unwrap_or(&admin.token)),
            capacity: None,
            body: body.as_ref(),
            patience: CALL,
        };
        Ok(self.call(asked, what).await?)
    }

    /// Where the service is, with a token that is good for a minute at least.
    async fn connection(&self) -> Result<Admin, ScaleSetError> {
        let mut admin = self.admin.lock().await;
        if let Some(admin) = admin.as_ref().filter(|admin| now() + RENEW_BEFORE_S < admin.ends) {
            return Ok(admin.clone());
        }
        let scope = &self.scope;
        let client = self.api.client(scope.owner()).await?;
        let what = format!("register as a listener of {scope}");
        let path = format!("{}/runners/registration-token", scope.path());
        let (status, bytes) = client.change(Method::POST, &path, None, &what, &Tally::default()).await?;
        let told_of = |bytes: &[u8]| format!("{status}: {}", told(bytes));
        match status {
            200 | 201 => {}
            401 => return Err(GithubError::Unauthorized { what }.into()),
            400..=499 => {
                return Err(ScaleSetError::NotAllowed { what, scope: scope.to_string(), told: told_of(&bytes) });
            }
            status => return Err(GithubError::Server { what, status }.into()),
        }
        let registration = Secret::new(read::<Registration>(&what, &bytes)?.token);
        let address = format!("{}/actions/runner-registration", self.api.endpoint.rest);
        let body = json!({ "url": scope.page(&self.api.endpoint.web), "runner_event": "register" });
        let asked = Asked {
            method: Method::POST,
            address: &address,
            credential: Credential::Remote(&registration),
            capacity: None,
            body: Some(&body),
            patience: CALL,
        };
        let (status, bytes) = self.call(asked, &what).await?;
        match status {
            200..=299 => {}
            401 | 403 | 404 => {
                let told = format!("{status}: {}", told(&bytes));
                return Err(ScaleSetError::NotAllowed { what, scope: scope.to_string(), told });
            }
            status => return Err(GithubError::Server { what, status }.into()),
        }
        let Connection { url, token } = read(&what, &bytes)?;
        if url.is_empty() || token.is_empty() {
            let why = "it names neither the service's address nor a token, or only one of them".to_owned();
            return Err(GithubError::Answer { what, why }.into());
        }
        checked(&url, &what)?;
        let ends = end_of(&token).unwrap_or_else(|| now() + UNREADABLE_S);
        let made = Admin { address: url, token: Secret::new(token), ends };
        *admin = Some(made.clone());
        Ok(made)
    }

    pub(super) async fn call(&self, asked: Asked<'_>, what: &str) -> Result<(u16, Vec<u8>), GithubError> {
        let unreachable = |why: String| GithubError::Unreachable { what: what.to_owned(), why };
        let Asked { method, address, credential, capacity, body, patience } = asked;
        let uri = checked(address, what)?;
        let authorization = match credential {
            Credential::Bearer(token) => format!("Bearer {}", token.expose()),
            Credential::Remote(token) => format!("RemoteAuth {}", token.expose()),
        };
        let mut authorization = HeaderValue::from_str(&authorization).map_err(|_| GithubError::Answer {
            what: what.to_owned(),
            why: "the token that it gave has characters that no token has".to_owned(),
        })?;
        authorization.set_sensitive(true);
        let mut request = Request::builder().method(method).uri(uri).header(AUTHORIZATION, authorization);
        request = request.header(USER_AGENT, concat!("runmesh/", env!("CARGO_PKG_VERSION")));
        request = request.header(ACCEPT, format!("application/json; {VERSION}"));
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(capacity) = capacity {
            request = request.header("X-ScaleSetMaxCapacity", capacity);
        }
        let body = body.map_or_else(OctoBody::empty, |body| OctoBody::from(body.to_string()));
        let request = request.body(body).map_err(|error| unreachable(error.to_string()))?;
        let answer = async {
            let answer = self.http.request(request).await.map_err(|error| chain(&error))?;
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
            Ok((status, headers, body.to_bytes().to_vec()))
        };
        let answered = timeout(patience, answer).await;
        let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())));
        let (status, headers, bytes) = answered.map_err(unreachable)?;
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        if status == 429 || status == 403 && after.is_some() {
            let until = now().saturating_add(after.unwrap_or(PAUSE_S));
            return Err(GithubError::Limited { what: what.to_owned(), limit: Reason::Secondary, until });
        }
        Ok((status, bytes))
    }
}

/// An address that a token may be sent to: by TLS, or on this machine itself.
fn checked(address: &str, what: &str) -> Result<Uri, GithubError> {
    let bad = |why: &str| GithubError::Answer { what: what.to_owned(), why: format!("it names an address that {why}") };
    let uri: Uri = address.parse().map_err(|_| bad("is none"))?;
    let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
    let is_local = matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]");
    match uri.scheme_str() {
        _ if authority.as_str().contains('@') => Err(bad("has a user in it")),
        Some("https") => Ok(uri),
        Some("http") if is_local => Ok(uri),
        _ => Err(bad("is reached without TLS")),
    }
}

/// When a token ends, in seconds since 1970: a JWT says so itself. Whether it is genuine is the service's to judge.
fn end_of(token: &str) -> Option<u64> {
    use base64::Engine as _;
    let claims = token.split('.').nth(1)?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["exp"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_ends() {
        use base64::Engine as _;
        let jwt = |claims: &str| {
            let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
            format!("eyJhbGciOiJub25lIn0.{part}.x")
        };
        assert_eq!(end_of(&jwt(r#"{"exp":1700000000}"#)), Some(1_700_000_000));
        for token in ["", "a.b.c", "opaque", &jwt("{}"), &jwt(r#"{"exp":"soon"}"#)] {
            assert_eq!(end_of(token), None, "{token}");
        }
    }

    #[test]
    fn tokens_go_by_tls_or_nowhere() {
        for good in ["https://pipelines.example/abc", "http://127.0.0.1:81/queue?a=b", "http://localhost/x"] {
            assert!(checked(good, "try").is_ok(), "{good}");
        }
        for bad in ["", "/queue", "http://example.org/", "ftp://x/", "https://user:x@example.org/", "https:///x"] {
            assert!(checked(bad, "try").is_err(), "{bad}");
        }
    }
}
