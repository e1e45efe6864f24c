//! `runmesh tasks artifacts`: what a task uploaded, and getting at it.
//!
//! What is written is held against the content that the history names; nothing else is left in its place.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};

use super::args::Output;
use super::failure::Failure;
use super::inspect::one;
use super::link::connect;
use super::screen::{Cell, Screen, count, say, say_json, short_task};
use super::settings::Place;
use crate::control::Client;
use crate::control::proto::{Artifact, Task};
use crate::kernel::id::BlobId;
use crate::kernel::task::is_artifact_name;

/// How every archive of upload-artifact begins, also an empty one (APPNOTE.TXT, 4.3).
const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// Lists the artifacts of a task, or writes them to files.
pub(super) async fn run(place: &Place, id: &str, names: &[String], to: Option<&Path>) -> Result<(), Failure> {
    let node = connect(place).await?;
    let task = one(&node, id).await?;
    if let Some(missing) = names.iter().find(|name| !task.artifacts.iter().any(|artifact| artifact.name == **name)) {
        let there: Vec<String> = task.artifacts.iter().map(|artifact| shown(&artifact.name)).collect();
        let failure = Failure::failed(format!("task {} has no artifact `{missing}`", short_task(&task.id)));
        return Err(match there.is_empty() {
            true => failure.hint("it uploaded none"),
            false => failure.hint(format!("it uploaded: {}", there.join(", "))),
        });
    }
    let wanted = |artifact: &&Artifact| names.is_empty() || names.contains(&artifact.name);
    let wanted: Vec<&Artifact> = task.artifacts.iter().filter(wanted).collect();
    let Some(folder) = to else { return list(place, &node, &task, &wanted).await };
    fs::create_dir_all(folder).map_err(|error| unwritten(folder, &error))?;
    let mut written = Vec::new();
    for artifact in wanted {
        written.push(fetch(&node, &task, artifact, folder).await?);
    }
    match place.output {
        Output::Json => say_json(&written, false),
        Output::Table if written.is_empty() => say(&none(&task)),
        Output::Table => say(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>()),
    }
}

/// A name without what could play tricks on a terminal: another member may have recorded any.
pub(super) fn shown(name: &str) -> String {
    if is_artifact_name(name) { name.to_owned() } else { name.escape_debug().to_string() }
}

fn none(task: &Task) -> String {
    format!("task {} has uploaded nothing\n", short_task(&task.id))
}

async fn list(place: &Place, node: &Client, task: &Task, wanted: &[&Artifact]) -> Result<(), Failure> {
    if place.output == Output::Json {
        return say_json(&wanted, false);
    }
    if wanted.is_empty() {
        return say(&none(task));
    }
    let row = |artifact: &&Artifact| {
        let (id, bytes) = artifact.blob.as_ref().map_or(("", 0), |blob| (&blob.id, blob.bytes));
        [Cell::from(shown(&artifact.name)), bytes.into(), id.into()]
    };
    let rows = wanted.iter().map(row).collect();
    let table = Screen::stdout().table(["artifact", "bytes", "content"], rows, &["artifact", "bytes", "content"]);
    let holder = task.holder.clone().unwrap_or_default();
    let whose = if holder == node.status().await?.peer_id {
        format!("on this host: runmesh tasks artifacts {}{} --to FOLDER\n", short_task(&task.id), place.flag())
    } else {
        format!("on the host of {holder}, which ran it: ask for {} there\n", count(wanted.len(), "file"))
    };
    say(&format!("{table}{whose}"))
}

/// Writes one into the folder, under its name.
async fn fetch(node: &Client, task: &Task, artifact: &Artifact, folder: &Path) -> Result<PathBuf, Failure> {
    let name = &artifact.name;
    if !is_artifact_name(name) {
        return Err(Failure::failed(format!("`{}` is no name for a file: it is not written", shown(name))));
    }
    let mut arriving = node.artifact(&task.id, name).await?;
    let part = folder.join(format!(".runmesh-{}-{}", std::process::id(), short_task(&task.id)));
    let part = Part(part);
    let mut file = File::create_new(&part.0).map_err(|error| unwritten(&part.0, &error))?;
    let (mut hasher, mut begin) = (Sha256::new(), Vec::new());
    while let Some(bytes) = arriving.next().await {
        let bytes = bytes?;
        hasher.update(&bytes);
        begin.extend(bytes.iter().take(4 - begin.len().min(4)));
        file.write_all(&bytes).map_err(|error| unwritten(&part.0, &error))?;
    }
    let found = BlobId::from_digest(hasher.finalize().into()).to_string();
    let promised = artifact.blob.as_ref().map_or("", |blob| &blob.id);
    if found != promised {
        return Err(Failure::failed(format!(
            "the artifact `{name}` is not what its run uploaded: the content {promised} was promised"
        )));
    }
    let zipped = ZIP.contains(&begin.as_slice()) && !name.ends_with(".zip");
    let path = folder.join(if zipped { format!("{name}.zip") } else { name.clone() });
    if path.exists() {
        return Err(Failure::failed(format!("{} is there already", path.display())).hint("name another folder"));
    }
    fs::rename(&part.0, &path).map_err(|error| unwritten(&path, &error))?;
    Ok(path)
}

/// A file that goes when it is no more needed under this name.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // If it cannot be removed it is in the way of nothing.
        let _ = fs::remove_file(&self.0);
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot write {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_another_members_making_is_shown_harmless() {
        assert_eq!([shown("site"), shown("a\u{1b}[2Jb")], ["site", "a\\u{1b}[2Jb"]);
    }
}
