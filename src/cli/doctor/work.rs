//! What tasks come from and need besides programs: local repositories, the operator's own command, secrets.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::{Access, access};

use super::super::screen::count;
use super::super::settings::Isolation;
use super::Found;
use crate::forge::{Spec, git};
use crate::runner::SecretSource;

/// What a sandbox shows of the host's programs.
const SHOWN: [&str; 7] = ["/usr", "/opt", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// The repositories that sources on this host name.
pub(super) async fn repositories(sources: &[Spec]) -> Result<String, String> {
    let mut found = Found::default();
    for spec in sources {
        let Spec::Git(source) = spec else { continue };
        found.take(git::resolve(source).await.map(|resolved| {
            let number = match resolved.repositories.len() {
                1 => "1 repository".to_owned(),
                number => format!("{number} repositories"),
            };
            let warnings: String = resolved.warnings.iter().map(|warning| format!("; {warning}")).collect();
            format!("{number} of {spec}{warnings}")
        }));
    }
    found.tell()
}

/// Whether the operator's own program is there, for tasks that see this PATH.
pub(super) fn command(command: &[String], isolation: Isolation, path: &str) -> Result<String, String> {
    let Some(program) = command.first() else { return Err("no program is named: say command = [\"PROGRAM\"]".into()) };
    if isolation == Isolation::Container {
        return Ok(format!("{program}, in the image of the containers"));
    }
    let runs = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if !program.contains('/') {
        let found = path.split(':').map(|folder| Path::new(folder).join(program)).find(|path| runs(path));
        let found = found.map(|path| path.display().to_string());
        return found
            .ok_or_else(|| format!("`{program}` is not on the PATH of tasks, {path}: install it, or name its path"));
    }
    if !program.starts_with('/') {
        return Ok(format!("{program}, in the commit of each task"));
    }
    if !runs(Path::new(program)) {
        return Err(format!("{program} is no program that can be started: install it, or name another as `command`"));
    }
    if isolation == Isolation::Bwrap && !SHOWN.iter().any(|shown| Path::new(program).starts_with(shown)) {
        return Err(format!("{program} is not seen in a sandbox, which shows /usr and /opt: put it below one of them"));
    }
    Ok(program.clone())
}

/// Whether this host can read the secrets that its settings name.
pub(super) fn secrets(all: &BTreeMap<String, BTreeMap<String, SecretSource>>) -> Result<String, String> {
    let mut found = Found::default();
    for (repository, own) in all {
        for (name, source) in own {
            if let Err(why) = source.read() {
                found.take(Err::<String, _>(format!("{name} of {repository}: {why}")));
            }
        }
        found.take(Ok::<_, String>(format!("{} of {repository}", count(own.len(), "secret"))));
    }
    found.tell()
}
