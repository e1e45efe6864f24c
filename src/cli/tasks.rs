//! `runmesh tasks`: submit, cancel, read logs, fetch artifacts.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;

use super::args::{Output, SubmitArguments, TasksCommand};
use super::artifacts;
use super::failure::Failure;
use super::inspect::one;
use super::link::connect;
use super::screen::{say, say_bytes, say_json, short_task};
use super::settings::Place;
use crate::control::Client;
use crate::control::proto::SubmitRequest;

/// Between two looks at a task that waits.
const LOOK: Duration = Duration::from_millis(500);

/// Does what the command says.
pub(super) async fn run(place: &Place, command: &TasksCommand) -> Result<(), Failure> {
    match command {
        TasksCommand::Submit(arguments) => submit(place, arguments).await,
        TasksCommand::Cancel { id } => {
            let id = connect(place).await?.cancel(id, "cancelled by hand").await?;
            answer(place, &id, &format!("cancelled task {id}\n"))
        }
        TasksCommand::Logs { id, follow, attempt } => {
            let node = connect(place).await?;
            let id = match (follow, attempt) {
                (true, None) => &until_it_runs(&node, id).await?,
                _ => id,
            };
            let mut log = node.log(id, attempt.unwrap_or(0), *follow).await?;
            while let Some(chunk) = log.next().await {
                say_bytes(&chunk?)?;
            }
            Ok(())
        }
        TasksCommand::Artifacts { id, names, to } => artifacts::run(place, id, names, to.as_deref()).await,
    }
}

/// Waits until the task runs or has ended, and says once that it waits; answers its whole id.
async fn until_it_runs(node: &Client, id: &str) -> Result<String, Failure> {
    let mut task = one(node, id).await?;
    if task.state == "pending" {
        let why = if task.waits_for.is_empty() { "for a host that takes it" } else { &task.waits_for };
        let text = format!("task {} waits: {why}\n", short_task(&task.id));
        // Where nobody reads it nothing is lost.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    // A holder that has claimed it says so before anything of it can be read.
    while matches!(task.state.as_str(), "pending" | "claimed") {
        tokio::time::sleep(LOOK).await;
        task = one(node, &task.id).await?;
    }
    Ok(task.id)
}

/// Introduces a task.
pub(super) async fn submit(place: &Place, arguments: &SubmitArguments) -> Result<(), Failure> {
    let request = SubmitRequest {
        repository: named(&arguments.repository),
        path: arguments.path.clone(),
        inputs: arguments.inputs.iter().cloned().collect(),
        priority: arguments.priority,
        request: String::new(),
    };
    let id = connect(place).await?.submit(request).await?;
    let next = format!("runmesh inspect tasks {}{}", short_task(&id), place.flag());
    answer(place, &id, &format!("submitted task {id}\nnext: {next}\n"))
}

fn answer(place: &Place, id: &str, text: &str) -> Result<(), Failure> {
    match place.output {
        Output::Table => say(text),
        Output::Json => say_json(&serde_json::json!({ "id": id }), false),
    }
}

/// A repository's name as it is; a local one's folder as the node, which works elsewhere, can find it.
fn named(repository: &str) -> String {
    let path = Path::new(repository);
    match path.canonicalize() {
        Ok(folder) if folder.is_dir() => folder.display().to_string(),
        _ => repository.to_owned(),
    }
}
