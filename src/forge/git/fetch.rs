//! A clean copy of one commit of a repository elsewhere, over the network.

use std::path::Path;

use super::GitError;
use super::checkout::{check_out, prepare};
use super::command::{Git, LOOK, WALK, within};

/// Fetches one commit, without its history, into an empty folder or one that is not there yet, and checks it out as
/// [`super::checkout`] does. `authorization` is the value of the header that `url`'s host is sent, and nobody else: it
/// goes to git by its environment, never into its arguments or the copy's settings.
///
/// # Errors
/// [`GitError::NotEmpty`], or what git says. Then `into` may hold parts, for the caller to remove.
pub(in crate::forge) async fn fetch(
    url: &str,
    authorization: Option<&str>,
    commit: &str,
    r#ref: &str,
    into: &Path,
) -> Result<(), GitError> {
    let into = &within("make a folder", into, prepare(into)).await?;
    let (here, copy) = (Git::at(into), Git::of(into, &into.join(".git")));
    let format = format!("--object-format={}", if commit.len() == 64 { "sha256" } else { "sha1" });
    here.output("make a repository", &["init", "--quiet", "--template=", &format], LOOK).await?;
    let what = "fetch a commit";
    let arguments = ["fetch", "--quiet", "--no-tags", "--depth=1", "--no-recurse-submodules", "--", url, commit];
    let mut command = copy.command(&arguments);
    let scheme = url.split(':').next().unwrap_or_default();
    command.env("GIT_ALLOW_PROTOCOL", scheme).env_remove("GIT_NO_LAZY_FETCH");
    // How this host reaches the network at all.
    for kept in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
    ] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    if let Some(authorization) = authorization {
        let site: String = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        command.env("GIT_CONFIG_COUNT", "1");
        command.env("GIT_CONFIG_KEY_0", format!("http.{site}/.extraHeader"));
        command.env("GIT_CONFIG_VALUE_0", format!("Authorization: {authorization}"));
    }
    let child = command.spawn().map_err(|error| copy.not_started(error))?;
    let ended = copy.end(what, child, WALK).await?;
    copy.check(what, ended)?;
    check_out(&copy, url, commit, r#ref).await
}
