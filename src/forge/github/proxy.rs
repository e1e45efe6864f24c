//! The way out to GitHub: straight, or through the proxy that the environment names.
//!
//! Heeds `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, upper or lower case, as curl does. A proxy is asked for a tunnel
//! (`CONNECT`), so it sees neither tokens nor contents. Addresses without TLS are those of tests on this machine and are
//! reached straight.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use octocrab::OctoBody;
use tokio::net::TcpStream;
use tower::Service;

/// Through which proxy which hosts are reached.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Matcher>);

impl Proxy {
    /// What the environment says.
    pub fn from_environment() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    /// This one for everything but the hosts in the list, which is separated by commas.
    pub fn at(address: &str, except: &str) -> Self {
        Self(Arc::new(Matcher::builder().https(address.to_owned()).no(except.to_owned()).build()))
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Opens connections, to the host itself or to the proxy for it.
#[derive(Debug, Clone)]
pub(super) struct Way {
    direct: HttpConnector,
    proxy: Proxy,
}

impl Service<Uri> for Way {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.direct.poll_ready(context).map_err(Error::from)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let by_tls = to.scheme() == Some(&http::uri::Scheme::HTTPS);
        let Some(through) = self.proxy.0.intercept(&to).filter(|_| by_tls) else {
            let connecting = self.direct.call(to);
            return Box::pin(async move { connecting.await.map_err(Error::from) });
        };
        let address = through.uri().clone();
        // Without what it may hold besides: a user and a password.
        let shown = address.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let shown = shown.unwrap_or_default().to_owned();
        if address.scheme() != Some(&http::uri::Scheme::HTTP) {
            let why =
                format!("the proxy {shown} is none that begins with http://, which is the only kind there is here");
            return Box::pin(async move { Err(why.into()) });
        }
        let mut tunnel = Tunnel::new(address, self.direct.clone());
        if let Some(authorization) = through.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connecting = tunnel.call(to);
        Box::pin(async move { connecting.await.map_err(|error| format!("through the proxy {shown}: {error}").into()) })
    }
}

/// A client for calls, with the system's certificates.
///
/// # Errors
/// When the system has none.
pub(super) fn client(proxy: &Proxy) -> std::io::Result<Client<HttpsConnector<Way>, OctoBody>> {
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    let ring = rustls::crypto::ring::default_provider();
    let tls = HttpsConnectorBuilder::new().with_provider_and_native_roots(ring)?.https_or_http().enable_http1();
    let connector = tls.wrap_connector(Way { direct, proxy: proxy.clone() });
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}
