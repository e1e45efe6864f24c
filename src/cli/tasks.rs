//! `runmesh tasks`: submit, cancel, read logs.

use std::path::Path;

use futures::StreamExt as _;

use super::args::{Output, TasksCommand};
use super::failure::Failure;
use super::link::connect;
use super::screen::{say, say_bytes, say_json, short_task};
use super::settings::Place;
use crate::control::proto::SubmitRequest;

/// Does what the command says.
pub(super) async fn run(place: &Place, command: &TasksCommand) -> Result<(), Failure> {
    let node = connect(place).await?;
    match command {
        TasksCommand::Submit { repository, path, inputs, priority } => {
            let request = SubmitRequest {
                repository: named(repository),
                path: path.clone(),
                inputs: inputs.iter().cloned().collect(),
                priority: *priority,
                request: String::new(),
            };
            let id = node.submit(request).await?;
            answer(
                place,
                &id,
                &format!("submitted task {id}\nnext: runmesh inspect tasks {}{}\n", short_task(&id), place.flag()),
            )
        }
        TasksCommand::Cancel { id } => {
            let id = node.cancel(id, "cancelled by hand").await?;
            answer(place, &id, &format!("cancelled task {id}\n"))
        }
        TasksCommand::Logs { id, follow } => {
            let mut log = node.log(id, 0, *follow).await?;
            while let Some(chunk) = log.next().await {
                say_bytes(&chunk?)?;
            }
            Ok(())
        }
    }
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
