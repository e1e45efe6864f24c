//! A bubblewrap sandbox: namespaces of its own for users, processes, files and IPC, no capabilities, and of the host's
//! files only the system's programs, read-only.
//!
//! Inside, the home is `/home/runner` and the task's other places are below `/runmesh`. The checkout is read-only: act
//! copies it into the workspace when the workflow says `actions/checkout`, as on GitHub. `/tmp` is on disk, not in memory.
//!
//! It hides the node's data directory also when that lies below a directory that is seen, and it does not hide files
//! of `/usr` and `/opt` that only root may read from a job of a node that runs as root: better not to run one so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::{Backend, Confined, Invocation, Mount, Places, Settings, environment};
use crate::runner::Network;

pub(super) struct Bwrap;

const HOME: &str = "/home/runner";
/// What the kernel enforces for every job: no namespace is shared, it dies with its parent, it cannot type into a
/// terminal of the host (TIOCSTI), and has no capability. `--unshare-all` includes the network.
const WALLS: &str = "--unshare-all --die-with-parent --new-session --uid 1000 --gid 1000 --cap-drop ALL";
/// What of /etc programs need to find libraries, names, certificates and the time. Nothing with secrets in it: of
/// /etc/ssl and /etc/pki not the private keys, which a job of a node that runs as root could read.
const ETC: &str = "alternatives ca-certificates fonts gai.conf host.conf hosts java ld.so.cache ld.so.conf \
    ld.so.conf.d localtime magic mime.types nsswitch.conf os-release pki/ca-trust pki/tls/certs protocols resolv.conf \
    services ssl/certs ssl/openssl.cnf";
/// How long the attempt to make a sandbox may take.
const PROBE: Duration = Duration::from_secs(10);

impl Backend for Bwrap {
    fn seen(&self, mount: &Mount) -> PathBuf {
        mount.inside.clone()
    }

    fn mounts(&self) -> bool {
        true
    }

    fn confine(&self, settings: &Settings, places: &Places, what: &Confined) -> Invocation {
        let mut line = Line::walls();
        if settings.network == Network::Host {
            line.add(["--share-net"]);
        }
        line.system();
        line.add(["--proc", "/proc", "--dev", "/dev"]);
        if what.devices {
            line.devices(&settings.devices);
        }
        line.bind("--bind", &places.tmp, "/tmp");
        line.bind("--bind", &places.home, HOME);
        for (file, name) in [(&places.passwd, "/etc/passwd"), (&places.group, "/etc/group")] {
            line.bind("--ro-bind", file, name);
        }
        for Mount { outside, inside, writable } in &what.mounts {
            line.bind(if *writable { "--bind" } else { "--ro-bind" }, outside, inside);
        }
        line.extra(&settings.binds, &settings.hidden);
        line.add([Path::new("--chdir"), what.directory.as_deref().unwrap_or(Path::new(HOME)), Path::new("--")]);
        line.add([&what.program]);
        line.0.extend(what.arguments.iter().cloned());
        Invocation {
            program: "bwrap".into(),
            arguments: line.0,
            // Handed on by bwrap as it is, since `--setenv` would show it among the arguments.
            environment: environment(settings, Path::new(HOME), Path::new("/tmp"), what),
            directory: places.home.clone(),
            input: what.input.clone(),
        }
    }
}

/// A command line of bwrap in the making.
struct Line(Vec<OsString>);

impl Line {
    fn walls() -> Self {
        let mut line = Self(Vec::new());
        line.add(WALLS.split(' '));
        line
    }

    fn add<T: Into<OsString>>(&mut self, words: impl IntoIterator<Item = T>) {
        self.0.extend(words.into_iter().map(Into::into));
    }

    fn bind(&mut self, how: &str, from: &Path, to: impl AsRef<Path>) {
        self.add([how.as_ref(), from.as_os_str(), to.as_ref().as_os_str()]);
    }

    /// The system's programs, read-only, laid out as on the host.
    fn system(&mut self) {
        self.bind("--ro-bind", Path::new("/usr"), "/usr");
        for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
            let path = Path::new(name);
            match std::fs::read_link(path) {
                Ok(target) => self.bind("--symlink", &target, path),
                Err(_) => self.bind("--ro-bind-try", path, path),
            }
        }
        self.bind("--ro-bind-try", Path::new("/opt"), "/opt");
        for name in ETC.split_ascii_whitespace() {
            let path = Path::new("/etc").join(name);
            self.bind("--ro-bind-try", &path, &path);
        }
    }

    /// Devices, and what the system says of them: their libraries look there for the cards.
    fn devices(&mut self, files: &[PathBuf]) {
        for file in files {
            self.bind("--dev-bind-try", file, file);
        }
        if !files.is_empty() {
            self.bind("--ro-bind-try", Path::new("/sys"), "/sys");
        }
    }

    /// The operator's own paths, and a lid on what must not be seen through any of them.
    fn extra(&mut self, binds: &[PathBuf], hidden: &[PathBuf]) {
        let real = |path: &PathBuf| std::fs::canonicalize(path).ok();
        let hidden: Vec<PathBuf> = hidden.iter().filter_map(real).collect();
        for bind in binds {
            let Some(target) = real(bind) else { continue };
            if hidden.iter().any(|hidden| target.starts_with(hidden)) {
                continue;
            }
            self.bind("--ro-bind", &target, bind);
            // Seen by the name it was given, so that is where a lid has to be.
            for hidden in &hidden {
                if let Ok(below) = hidden.strip_prefix(&target) {
                    self.add([OsString::from("--tmpfs"), bind.join(below).into()]);
                }
            }
        }
        for hidden in hidden.iter().filter(|hidden| hidden.starts_with("/usr") || hidden.starts_with("/opt")) {
            self.add([OsString::from("--tmpfs"), hidden.into()]);
        }
    }
}

/// Really makes a sandbox. Its version, or a sentence of what is missing.
pub(crate) async fn probe(path: &str) -> Result<String, String> {
    let bwrap = |arguments: Vec<OsString>| {
        let mut command = Command::new("bwrap");
        command.args(arguments).env_clear().env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
        async move { timeout(PROBE, command.output()).await.unwrap_or_else(|late| Err(late.into())) }
    };
    let version = bwrap(vec!["--version".into()]).await.map_err(|error| {
        format!("starting bwrap: {error}; install bubblewrap (its package has that name), or set the isolation to none")
    })?;
    let mut line = Line::walls();
    line.system();
    line.add(["--proc", "/proc", "--dev", "/dev", "--", "/usr/bin/env", "true"]);
    let told = match bwrap(line.0).await {
        Ok(output) if output.status.success() => {
            return Ok(String::from_utf8_lossy(&version.stdout).trim().to_owned());
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(format!(
        "bwrap cannot make a sandbox here ({told}); most likely this system forbids user namespaces to ordinary users: \
         look at the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and \
         kernel.apparmor_restrict_unprivileged_userns"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &Line) -> Vec<&str> {
        line.0.iter().map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn what_is_hidden_is_hidden_below_every_bind_and_never_bound() {
        let scratch = tempfile::tempdir().unwrap();
        let tools = std::fs::canonicalize(scratch.path()).unwrap();
        let data = tools.join("data");
        std::fs::create_dir_all(data.join("logs")).unwrap();
        let mut line = Line(Vec::new());
        line.extra(&[tools.clone(), data.join("logs"), tools.join("absent")], std::slice::from_ref(&data));
        let (tools, data) = (tools.to_str().unwrap(), data.to_str().unwrap());
        assert_eq!(words(&line), ["--ro-bind", tools, tools, "--tmpfs", data]);
    }
}
