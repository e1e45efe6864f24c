//! `runmesh tasks`: submit, cancel, read logs, fetch artifacts.

use std::path::Path;

use futures::StreamExt as _;

use super::args::{Output, SubmitArguments, TasksCommand};
use super::artifacts;
use super::failure::Failure;
use super::link::connect;
use super::screen::{say, say_bytes, say_json, short_task};
use super::settings::Place;
use crate::control::proto::SubmitRequest;

/// Does what the command says.
pub(super) async fn run(place: &Place, command: &TasksCommand) -> Result<(), Failure> {
    match command {
        TasksCommand::Submit(arguments) => submit(place, arguments).await,
        TasksCommand::Cancel { id } => {
            let id = connect(place).await?.cancel(id, "cancelled by hand").await?;
            answer(place, &id, &format!("cancelled task {id}\n"))
        }
        TasksCommand::Logs { id, follow, attempt } => {
            let mut log = connect(place).await?.log(id, attempt.unwrap_or(0), *follow).await?;
            while let Some(chunk) = log.next().await {
                say_bytes(&chunk?)?;
            }
            Ok(())
        }
        TasksCommand::Artifacts { id, names, to } => artifacts::run(place, id, names, to.as_deref()).await,
    }
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
