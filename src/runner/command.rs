//! The operator's own program, for work that is no workflow file.
//!
//! It finds the task as JSON on its standard input, in the shape that `inspect tasks --output json` prints, and is
//! started in the checked-out commit, which it may change. Its exit status is the conclusion: 0 success, anything else
//! failure. What it writes is the task's log.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::process::ExitStatus;

use tokio::time::{Instant, sleep_until};

use super::backend::{self, Confined, Mount};
use super::follow::{self, Cut, Ear, Source, Stage, told};
use super::lines::Line;
use super::places::Places;
use super::run::Phase;
use super::tally::clip;
use super::workflow::not_started;
use super::{Command, Devices, Isolation, reaper};
use crate::kernel::entry::MAX_NOTE;
use crate::kernel::io::Report;
use crate::kernel::task::Conclusion;

/// Runs it to its end, after which nothing of it is left.
pub(crate) async fn run(stage: &mut Stage, isolation: Isolation, work: Command, places: &Places, mark: &str) -> Report {
    let Command { workload, task, program, checkout } = work;
    let Some((program, arguments)) = program.split_first() else { return not_started("no program is named") };
    let host = stage.host.clone();
    if let Some(missing) = host.capabilities.walls(isolation) {
        return not_started(missing);
    }
    let prepared = async {
        if let (Isolation::Container, Ok(engine)) = (isolation, &host.capabilities.engine) {
            engine.has_image(&host.settings.image, host.settings.pull, &host.images).await?;
        }
        checkout(places.checkout.clone()).await.map_err(|why| format!("checking out: {why}"))?;
        tokio::fs::write(&places.event, task.to_string()).await.map_err(|error| format!("writing the task: {error}"))
    };
    tokio::select! {
        biased;
        () = told(&mut stage.stop) => return Report::Stopped,
        () = sleep_until(stage.deadline) => return not_started("the checkout took longer than the time limit"),
        done = prepared => if let Err(why) = done {
            return not_started(why);
        },
    }
    let checkout = Mount::writable(&places.checkout, "/runmesh/checkout");
    let backend = backend::of(isolation);
    let confined = Confined {
        program: PathBuf::from(program),
        arguments: arguments.iter().map(Into::into).collect(),
        environment: BTreeMap::new(),
        directory: Some(backend.seen(&checkout)),
        mounts: vec![checkout],
        devices: Devices::are_asked_for(&workload.labels),
        input: Some(places.event.clone()),
    };
    let what = backend.confine(&host.settings, places, &confined);
    let boxed = backend::boxed(&host, isolation, places, &confined, mark);
    let mut ear = Plain { said: String::new() };
    stage.phase(Phase::Running);
    let (cut, status) = match follow::start(stage, &mut ear, &what, boxed.as_ref()).await {
        Ok((cut, Ok(status))) => (cut, status),
        Ok((_, Err(error))) => return not_started(format!("waiting for {program}: {error}")),
        Err(error) => return not_started(format!("starting {program}: {error}")),
    };
    let duration_ms = stage.elapsed_ms();
    match cut {
        Some(Cut::Stopped | Cut::Retired(_)) => Report::Stopped,
        Some(Cut::TimedOut(note)) => Report::Finished { conclusion: Conclusion::TimedOut, duration_ms, note },
        None => ear.conclude(program, status, duration_ms),
    }
}

/// What is known of the running program.
struct Plain {
    /// Its last line on standard error.
    said: String,
}

impl Plain {
    fn conclude(self, program: &str, status: ExitStatus, duration_ms: u64) -> Report {
        let finished =
            |conclusion, note: String| Report::Finished { conclusion, duration_ms, note: clip(&note, MAX_NOTE) };
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(0) => finished(Conclusion::Success, String::new()),
            Some(reaper::UNABLE) => not_started(self.said),
            Some(reaper::STOPPED) | None => not_started("somebody killed the task's reaper"),
            Some(code) => {
                let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
                finished(Conclusion::Failure, format!("{program} ended with status {code}{said}"))
            }
        }
    }
}

impl Ear for Plain {
    type Other = ();

    async fn hear(&mut self, stage: &mut Stage, line: Line, source: Source) {
        let text = String::from_utf8_lossy(&line.bytes);
        let more = if line.cut { " … (line cut)" } else { "" };
        stage.log.line(&format!("{}{more}", text.trim_end())).await;
        if source == Source::Errors && !text.trim().is_empty() {
            self.said = clip(text.trim(), MAX_NOTE);
        }
    }

    fn limit(&self) -> Option<(Instant, Cut)> {
        None
    }

    async fn other(&mut self) {
        pending().await
    }

    async fn on_other(&mut self, _: &mut Stage, (): ()) -> Option<Cut> {
        None
    }
}
