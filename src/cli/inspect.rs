//! `runmesh inspect`: what the node on this host knows, once, again every second, or as it happens.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use super::args::{InspectArguments, Output, View};
use super::failure::Failure;
use super::link::connect;
use super::screen::{Screen, now_ms, say, say_json, short_task};
use super::settings::Place;
use crate::control::Client;
use crate::control::proto::Task;

mod event;
mod graph;
mod host;
mod task;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Shows the view.
pub(super) async fn run(place: &Place, inspect: &InspectArguments, dot: bool) -> Result<(), Failure> {
    let node = connect(place).await?;
    if let (View::Clock { last }, true) = (&inspect.view, dot) {
        return say(&graph::dot(&node.clock(*last).await?));
    }
    if let View::Events { last } = inspect.view {
        return events(place, &node, last, inspect.watch).await;
    }
    let screen = Screen::stdout();
    let sight = Sight { place, screen, series: inspect.watch };
    loop {
        let text = sight.of(&node, &inspect.view).await?;
        match (inspect.watch, place.output) {
            (true, Output::Table) if screen.is_terminal() => say(&format!("{CLEAR}{text}"))?,
            (true, Output::Table) => say(&format!("{text}\n"))?,
            _ => say(&text)?,
        }
        if !inspect.watch {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How a view is to look.
struct Sight<'a> {
    place: &'a Place,
    screen: Screen,
    /// One of many looks.
    series: bool,
}

impl Sight<'_> {
    /// What the view shows now.
    async fn of(&self, node: &Client, view: &View) -> Result<String, Failure> {
        let (screen, now) = (self.screen, now_ms());
        match view {
            View::Status => self.show(&node.status().await?, |status| host::status(screen, status, now)),
            View::Peers => self.show(&node.peers().await?, |peers| host::peers(screen, peers)),
            View::Tasks { id: None } => self.show(&node.tasks("", &[]).await?, |tasks| task::list(screen, tasks)),
            View::Tasks { id: Some(id) } => self.show(&one(node, id).await?, |task| task::whole(screen, task, now)),
            View::Queue => {
                let status = node.status().await?;
                let pending = status.tasks.get("pending").copied().and_then(|number| usize::try_from(number).ok());
                self.show(&node.queue().await?, |queue| task::queue(screen, queue, pending.unwrap_or_default()))
            }
            View::Clock { last } => self.show(&node.clock(*last).await?, |clock| host::clock(screen, clock, now)),
            View::Runners => self.show(&node.runners().await?, |runners| host::runners(screen, runners, now)),
            View::Sources => self.show(&node.sources().await?, |sources| host::sources(screen, sources, now)),
            View::Events { .. } => Ok(String::new()),
        }
    }

    fn show<T: Serialize>(&self, answer: &T, table: impl Fn(&T) -> String) -> Result<String, Failure> {
        let json = match (self.place.output, self.series) {
            (Output::Table, _) => return Ok(table(answer)),
            (Output::Json, true) => serde_json::to_string(answer),
            (Output::Json, false) => serde_json::to_string_pretty(answer),
        };
        json.map(|text| text + "\n").map_err(|error| Failure::failed("cannot write the answer as JSON").because(&error))
    }
}

/// The one task whose id begins so.
pub(super) async fn one(node: &Client, id: &str) -> Result<Task, Failure> {
    let id = id.to_ascii_lowercase();
    let mut tasks = node.tasks(&id, &[]).await?;
    match (tasks.pop(), tasks.len()) {
        (Some(task), 0) => Ok(task),
        (Some(last), more) => {
            let ids: Vec<&str> = tasks.iter().chain([&last]).take(5).map(|task| short_task(&task.id)).collect();
            Err(Failure::failed(format!("the ids of {} tasks begin with `{id}`: {}…", more + 1, ids.join(", ")))
                .hint("write more of the id"))
        }
        (None, _) => Err(Failure::failed(format!("no task's id begins with `{id}`"))
            .hint("`runmesh inspect tasks` lists the tasks that this node knows")),
    }
}

async fn events(place: &Place, node: &Client, last: u32, follow: bool) -> Result<(), Failure> {
    let screen = Screen::stdout();
    let mut events = node.events(last, follow).await?;
    if place.output == Output::Json && !follow {
        return say_json(&events.try_collect::<Vec<_>>().await?, false);
    }
    while let Some(event) = events.next().await {
        match place.output {
            Output::Json => say_json(&event?, true)?,
            Output::Table => say(&event::line(screen, &event?))?,
        }
    }
    Ok(())
}
