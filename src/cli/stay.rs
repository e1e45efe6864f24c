//! `runmesh node drain`, `cordon` and `uncordon`: whether the running node takes work, and whether it stays.

use std::time::Duration;

use super::args::Output;
use super::failure::Failure;
use super::link::connect;
use super::screen::{count, say, say_json, span};
use super::settings::Place;

/// Between two looks whether the node has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Whether a command stays until what it asked for has come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    ForItsEnd,
    Not,
}

/// Lets the node finish and end.
pub(super) async fn drain(place: &Place, limit: Option<Duration>, wait: Wait) -> Result<(), Failure> {
    let asked = connect(place).await?.drain(limit).await?;
    if place.output == Output::Table {
        let text = match (asked.limit_ms, asked.running) {
            (0, _) => "it was draining already: it ends at once\n".to_owned(),
            (_, 0) => "nothing runs there: it ends\n".to_owned(),
            (limit, running) => format!(
                "{} there may finish within {}; say it again to end at once\n",
                count(running, "task"),
                span(limit)
            ),
        };
        say(&text)?;
    }
    if wait == Wait::ForItsEnd {
        until_ended(asked.pid).await;
    }
    let ended = wait == Wait::ForItsEnd;
    match place.output {
        Output::Table if ended => say("the node has ended\n"),
        Output::Table => Ok(()),
        Output::Json => say_json(
            &serde_json::json!({
                "running": asked.running, "limit_ms": asked.limit_ms, "pid": asked.pid, "ended": ended,
            }),
            false,
        ),
    }
}

/// Waits until the node's process is gone: its socket goes before.
async fn until_ended(pid: u32) {
    let before = alive(pid);
    while before.is_some() && alive(pid) == before {
        tokio::time::sleep(LOOK).await;
    }
}

/// When a process was started, in the kernel's ticks; nothing when it has ended, whether or not its parent knows
/// (proc_pid_stat(5)).
fn alive(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18).map(str::to_owned)).flatten()
}

/// Lets the node take nothing new.
pub(super) async fn cordon(place: &Place, why: &str) -> Result<(), Failure> {
    let running = connect(place).await?.cordon(why).await?;
    match place.output {
        Output::Json => say_json(&serde_json::json!({ "cordoned": true, "running": running }), false),
        Output::Table => {
            let rest = if running == 0 { String::new() } else { format!("; {} there goes on", count(running, "task")) };
            say(&format!(
                "this node takes nothing new, also after a restart{rest}\nwhen you are done: runmesh node uncordon{}\n",
                place.flag()
            ))
        }
    }
}

/// Lets it take tasks again.
pub(super) async fn uncordon(place: &Place) -> Result<(), Failure> {
    connect(place).await?.uncordon().await?;
    match place.output {
        Output::Json => say_json(&serde_json::json!({ "cordoned": false }), false),
        Output::Table => say("this node takes tasks again\n"),
    }
}
