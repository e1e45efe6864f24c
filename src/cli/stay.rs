//! `runmesh node drain`, `cordon` and `uncordon`: whether the running node takes work, and whether it stays.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::args::Output;
use super::failure::Failure;
use super::link::connect;
use super::screen::{count, say, say_json, span};
use super::settings::Place;

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
        until_ended(asked.pid).await?;
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
async fn until_ended(pid: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("cannot wait for process {pid}")).because(&error);
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Err(Failure::failed("the node does not say which process it is")) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        opened => opened.map_err(|error| failed(error.into()))?,
    };
    // Readable once it has ended (pidfd_open(2)).
    let process = AsyncFd::with_interest(process, Interest::READABLE).map_err(failed)?;
    process.readable().await.map(drop).map_err(failed)
}

/// Lets the node take nothing new.
pub(super) async fn cordon(place: &Place, why: &str) -> Result<(), Failure> {
    let running = connect(place).await?.cordon(why).await?;
    match place.output {
        Output::Json => say_json(&serde_json::json!({ "cordoned": true, "running": running }), false),
        Output::Table => {
            let rest = if running == 0 { String::new() } else { format!("; {} there goes on", count(running, "task")) };
            say(&format!(
                "this node takes nothing new{rest}\nnext: runmesh node uncordon{} ends that, also after a restart\n",
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
