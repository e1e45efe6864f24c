//! Who this node is to GitHub.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use zeroize::Zeroizing;

/// How long `gh auth token` may take; it only reads a file or a key ring.
const GH_PATIENCE: Duration = Duration::from_secs(5);

/// A token. It is never shown, and its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What proves who this node is.
#[derive(Clone)]
pub enum Credentials {
    /// Of a person or a machine account.
    Token(Secret),
    /// A GitHub App; it works with a token for each installation, good for an hour.
    App {
        id: u64,
        /// Its private key, PEM.
        key: Vec<u8>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(…)"),
            Self::App { id, .. } => write!(f, "App({id})"),
        }
    }
}

/// Where credentials may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// `GITHUB_TOKEN`, else `GH_TOKEN`.
    pub token: Option<String>,
    pub app: Option<u64>,
    /// The app's key file.
    pub app_key: Option<PathBuf>,
}

/// Why there are no credentials.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CredentialsError {
    #[error(
        "no credentials for GitHub: set GITHUB_TOKEN, run `gh auth login`, or name a GitHub App's id and key file (RUNMESH_GITHUB_APP, RUNMESH_GITHUB_APP_KEY)"
    )]
    None,
    #[error("a GitHub App needs both its id (RUNMESH_GITHUB_APP) and its key file (RUNMESH_GITHUB_APP_KEY)")]
    Half,
    #[error("the GitHub App's key file {}: {why}", path.display())]
    Key { path: PathBuf, why: String },
}

impl Lookup {
    /// Finds them: an app where one is named, else a token from the environment, else that of the `gh` program if it is
    /// logged in at this host.
    ///
    /// # Errors
    /// [`CredentialsError`]
    pub async fn find(&self, host: &str) -> Result<Credentials, CredentialsError> {
        match (self.app, &self.app_key) {
            (Some(id), Some(path)) => {
                let key = tokio::fs::read(path).await;
                let key = key.map_err(|error| CredentialsError::Key { path: path.clone(), why: error.to_string() })?;
                return Ok(Credentials::App { id, key });
            }
            (None, None) => {}
            _ => return Err(CredentialsError::Half),
        }
        let token = match &self.token {
            Some(token) if !token.trim().is_empty() => Some(token.trim().to_owned()),
            _ => gh_token(host).await,
        };
        token.map(|token| Credentials::Token(Secret::new(token))).ok_or(CredentialsError::None)
    }
}

async fn gh_token(host: &str) -> Option<String> {
    let site = if host == super::api::PUBLIC_HOST { "github.com" } else { host };
    let mut command = tokio::process::Command::new("gh");
    command.args(["auth", "token", "--hostname", site]).kill_on_drop(true);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = tokio::time::timeout(GH_PATIENCE, command.output()).await.ok()?.ok()?;
    let token = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_app_goes_before_a_token_and_needs_both_halves() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key.pem");
        std::fs::write(&key, "PEM").expect("written");
        let token = Some(" t0ken\n".to_owned());
        let lookup = Lookup { token: token.clone(), app: Some(7), app_key: Some(key) };
        assert!(matches!(lookup.find("h").await, Ok(Credentials::App { id: 7, key }) if key == b"PEM"));
        let half = Lookup { app: Some(7), ..Lookup::default() };
        assert!(matches!(half.find("h").await, Err(CredentialsError::Half)));
        let plain = Lookup { token, ..Lookup::default() }.find("h").await;
        assert!(matches!(&plain, Ok(Credentials::Token(token)) if token.expose() == "t0ken"));
        assert!(!format!("{plain:?}").contains("t0ken"), "{plain:?}");
        let gone = Lookup { app: Some(1), app_key: Some(folder.path().join("gone")), token: None };
        assert!(matches!(gone.find("h").await, Err(CredentialsError::Key { .. })));
    }
}
