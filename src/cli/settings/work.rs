//! The settings of how work is executed: `command`, `min_free`, `work_dir`, `artifacts_limit`, and the tables `[containers]` and
//! `[secrets]` of the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::file::{Wrong, list, number, string};
use super::{Failure, World, duration, size, value, yes_or_no};
use crate::daemon::WorkSettings;
use crate::runner::{ImageKeeping, Limits, SecretSource};

/// What the table `[containers]` may hold.
const KEYS: [&str; 8] = ["engine", "image", "pull", "images_quota", "images_retention", "memory", "millicpus", "pids"];

/// What one layer says of it, or all of them together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::cli) struct Work {
    /// The operator's own program and its arguments.
    pub(in crate::cli) command: Option<Vec<String>>,
    /// Bytes of disk that must stay free.
    pub(in crate::cli) min_free: Option<u64>,
    /// Where tasks have their directories.
    work_dir: Option<PathBuf>,
    /// Bytes that a run may upload.
    artifacts_limit: Option<u64>,
    engine: Option<PathBuf>,
    image: Option<String>,
    pull: Option<bool>,
    /// Bytes of fetched images, and how long one that is not used is kept.
    images_quota: Option<u64>,
    images_retention: Option<Duration>,
    memory: Option<u64>,
    millicpus: Option<u32>,
    pids: Option<u32>,
    secrets: Option<BTreeMap<String, BTreeMap<String, SecretSource>>>,
}

impl Work {
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            command: self.command.or(lower.command),
            min_free: self.min_free.or(lower.min_free),
            work_dir: self.work_dir.or(lower.work_dir),
            artifacts_limit: self.artifacts_limit.or(lower.artifacts_limit),
            engine: self.engine.or(lower.engine),
            image: self.image.or(lower.image),
            pull: self.pull.or(lower.pull),
            images_quota: self.images_quota.or(lower.images_quota),
            images_retention: self.images_retention.or(lower.images_retention),
            memory: self.memory.or(lower.memory),
            millicpus: self.millicpus.or(lower.millicpus),
            pids: self.pids.or(lower.pids),
            secrets: self.secrets.or(lower.secrets),
        }
    }

    /// Paths that begin at no root begin at this folder.
    pub(super) fn below(&mut self, folder: &Path) {
        self.engine = self.engine.take().map(|path| folder.join(path));
        self.work_dir = self.work_dir.take().map(|path| folder.join(path));
        for source in self.secrets.iter_mut().flat_map(BTreeMap::values_mut).flat_map(BTreeMap::values_mut) {
            if let SecretSource::File(path) = source {
                *path = folder.join(&path);
            }
        }
    }

    /// What the daemon is told; the program only where it is what executes.
    pub(in crate::cli) fn settings(&self, by_command: bool) -> WorkSettings {
        let (usual, images) = (Limits::default(), ImageKeeping::default());
        WorkSettings {
            command: self.command.clone().filter(|_| by_command).unwrap_or_default(),
            min_free: self.min_free,
            work_dir: self.work_dir.clone(),
            artifacts_limit: self.artifacts_limit,
            engine: self.engine.clone(),
            image: self.image.clone(),
            pull: self.pull.unwrap_or_default(),
            images: ImageKeeping {
                quota: self.images_quota.unwrap_or(images.quota),
                age: self.images_retention.unwrap_or(images.age),
            },
            limits: Limits {
                memory: self.memory.or(usual.memory),
                millicpus: self.millicpus.or(usual.millicpus),
                pids: self.pids.or(usual.pids),
                ..usual
            },
            secrets: self.secrets.clone().unwrap_or_default(),
        }
    }
}

pub(super) fn environment(
    one: impl Fn(&str) -> Result<Option<String>, Failure>,
    world: &World<'_>,
) -> Result<Work, Failure> {
    Ok(Work {
        min_free: value(&one, "RUNMESH_MIN_FREE", size)?,
        work_dir: world.variable("RUNMESH_WORK_DIR").map(PathBuf::from),
        artifacts_limit: value(&one, "RUNMESH_ARTIFACTS_LIMIT", size)?,
        engine: world.variable("RUNMESH_ENGINE").map(PathBuf::from),
        image: value(&one, "RUNMESH_IMAGE", image)?,
        pull: value(&one, "RUNMESH_PULL", yes_or_no)?,
        images_quota: value(&one, "RUNMESH_IMAGES_QUOTA", size)?,
        images_retention: value(&one, "RUNMESH_IMAGES_RETENTION", duration)?,
        ..Work::default()
    })
}

/// Reads one of the keys that are of this file.
pub(super) fn take(work: &mut Work, key: &str, value: &Value) -> Result<(), Wrong> {
    let wrong = |why: String| Wrong::new(format!("`{key}` {why}"));
    match key {
        "command" => {
            let command = list(value, |word| Ok(word.to_owned())).map_err(wrong)?;
            if command.is_empty() {
                return Err(wrong("names no program".to_owned()));
            }
            work.command = Some(command);
        }
        "min_free" => work.min_free = Some(string(value, size).map_err(wrong)?),
        "work_dir" => work.work_dir = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
        "artifacts_limit" => work.artifacts_limit = Some(string(value, size).map_err(wrong)?),
        "secrets" => work.secrets = Some(secrets(value)?),
        _ => containers(work, value)?,
    }
    Ok(())
}

fn containers(work: &mut Work, value: &Value) -> Result<(), Wrong> {
    let table = value.as_table().ok_or_else(|| Wrong::new("`containers` is not a [table]"))?;
    for (key, value) in table {
        let wrong = |why: String| Wrong::new(format!("`containers.{key}` {why}"));
        match key.as_str() {
            "engine" => work.engine = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
            "image" => work.image = Some(string(value, image).map_err(wrong)?),
            "pull" => work.pull = Some(value.as_bool().ok_or_else(|| wrong("is not true or false".to_owned()))?),
            "images_quota" => work.images_quota = Some(string(value, size).map_err(wrong)?),
            "images_retention" => work.images_retention = Some(string(value, duration).map_err(wrong)?),
            "memory" => work.memory = Some(string(value, size).map_err(wrong)?),
            "millicpus" => work.millicpus = Some(number(value, count).map_err(wrong)?),
            "pids" => work.pids = Some(number(value, count).map_err(wrong)?),
            _ => {
                let what = format!("`containers.{key}` is no setting");
                return Err(Wrong { what, hint: Some(format!("there are: {}", KEYS.join(", "))) });
            }
        }
    }
    Ok(())
}

/// `[secrets."owner/name"]` with `NAME = { file = "…" }` or `{ env = "…" }`.
fn secrets(value: &Value) -> Result<BTreeMap<String, BTreeMap<String, SecretSource>>, Wrong> {
    let tables = value.as_table().ok_or_else(|| Wrong::new("`secrets` is not a [table]"))?;
    let mut all = BTreeMap::new();
    for (repository, table) in tables {
        let table = table.as_table();
        let table =
            table.ok_or_else(|| Wrong::new(format!("`secrets.{repository}` is not a [table] of a repository")))?;
        let mut own = BTreeMap::new();
        for (name, value) in table {
            let wrong = |why: &str| Wrong::new(format!("`secrets.{repository}.{name}` {why}"));
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || !name.bytes().all(fits) || name.starts_with(|first: char| first.is_ascii_digit()) {
                return Err(wrong("is no name of a secret: letters, digits and `_`"));
            }
            let source = value.as_table().filter(|source| source.len() == 1);
            let said = |key: &str| source.and_then(|source| source.get(key)).and_then(Value::as_str);
            let source = match (said("file"), said("env")) {
                (Some(file), None) => SecretSource::File(file.into()),
                (None, Some(variable)) => SecretSource::Variable(variable.to_owned()),
                // The value itself would be in a file that people show each other.
                _ => return Err(wrong("is not { file = \"PATH\" } or { env = \"VARIABLE\" }")),
            };
            own.insert(name.to_ascii_uppercase(), source);
        }
        all.insert(repository.to_lowercase(), own);
    }
    Ok(all)
}

fn image(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    if text.is_empty() || text.len() > 500 || text.starts_with('-') || !text.bytes().all(fits) {
        return Err("is no name of an image".to_owned());
    }
    Ok(text.to_owned())
}

fn count(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000_000).contains(number));
    number.ok_or_else(|| "is not a number from 1 to 10000000".to_owned())
}
