//! The settings of the autoscaler: `--autoscaler`, `RUNMESH_AUTOSCALER*`, and the table `[autoscaler]` of the file.

use std::time::Duration;

use toml::Value;

use super::file::{Wrong, list, number, string};
use super::{Failure, duration, interval, value, values, yes_or_no};
use crate::daemon::{AutoscalerSettings, WarmSet};
use crate::kernel::allocation::{Idle, Share};
use crate::kernel::node::Split;
use crate::kernel::scale_set::MAX_NAME;

/// The longest that a runner may wait for a job it was not started for. GitHub removes an ephemeral runner that has not
/// connected for a day (<https://docs.github.com/actions/reference/runners/self-hosted-runners>).
const LONGEST_WAIT: Duration = Duration::from_secs(20 * 3600);
/// What its table may hold.
const KEYS: [&str; 10] =
    ["github", "interval", "runner_group", "scale_set", "idle", "share", "lend", "any_arch", "warm", "warm_age"];

/// What one layer says of it, or all of them together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::cli) struct Autoscaler {
    /// Whether this host starts runners for GitHub's jobs.
    pub(in crate::cli) github: Option<bool>,
    /// Between two looks which jobs wait, in seconds.
    pub(in crate::cli) interval: Option<u64>,
    pub(in crate::cli) group: Option<String>,
    /// The name of a runner scale set of each source.
    pub(in crate::cli) scale_set: Option<String>,
    /// How long a runner may wait for a job.
    pub(in crate::cli) idle: Option<Duration>,
    /// The mesh's part of the slots, in percent.
    pub(in crate::cli) share: Option<u8>,
    /// Whether one kind may use slots that the other does not need.
    pub(in crate::cli) lend: Option<bool>,
    pub(in crate::cli) any_arch: Option<bool>,
    /// Runners that wait for jobs before there are any.
    pub(in crate::cli) warm: Option<Vec<WarmSet>>,
    /// How long one of those waits before another takes its place.
    pub(in crate::cli) warm_age: Option<Duration>,
    /// No flag of `node run` and no setting: whether the mesh's own tasks are left alone.
    pub(in crate::cli) no_mesh: Option<bool>,
}

impl Autoscaler {
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            github: self.github.or(lower.github),
            interval: self.interval.or(lower.interval),
            group: self.group.or(lower.group),
            scale_set: self.scale_set.or(lower.scale_set),
            idle: self.idle.or(lower.idle),
            share: self.share.or(lower.share),
            lend: self.lend.or(lower.lend),
            any_arch: self.any_arch.or(lower.any_arch),
            warm: self.warm.or(lower.warm),
            warm_age: self.warm_age.or(lower.warm_age),
            no_mesh: self.no_mesh.or(lower.no_mesh),
        }
    }

    /// What the daemon is told; nothing where it is off.
    pub(in crate::cli) fn settings(&self) -> Option<AutoscalerSettings> {
        if self.github != Some(true) {
            return None;
        }
        let usual = AutoscalerSettings::default();
        let share = self.share.map_or_else(Share::default, |percent| Share::percent(percent).unwrap_or_default());
        let idle = if self.lend == Some(false) { Idle::Kept } else { Idle::Lent };
        Some(AutoscalerSettings {
            interval: self.interval.map_or(usual.interval, Duration::from_secs),
            idle: self.idle.unwrap_or(usual.idle),
            group: self.group.clone(),
            scale_set: self.scale_set.clone(),
            split: Split { share, idle, mesh: self.no_mesh != Some(true), spare: 0 },
            any_arch: self.any_arch.unwrap_or_default(),
            warm: self.warm.clone().unwrap_or_default(),
            warm_age: self.warm_age.unwrap_or(usual.warm_age),
        })
    }
}

pub(super) fn environment(one: impl Fn(&str) -> Result<Option<String>, Failure>) -> Result<Autoscaler, Failure> {
    Ok(Autoscaler {
        github: value(&one, "RUNMESH_AUTOSCALER", yes_or_no)?,
        interval: value(&one, "RUNMESH_AUTOSCALER_INTERVAL", interval)?,
        group: value(&one, "RUNMESH_AUTOSCALER_RUNNER_GROUP", group)?,
        scale_set: value(&one, "RUNMESH_AUTOSCALER_SCALE_SET", scale_set)?,
        idle: value(&one, "RUNMESH_AUTOSCALER_IDLE", duration)?,
        share: value(&one, "RUNMESH_AUTOSCALER_SHARE", percent)?,
        lend: value(&one, "RUNMESH_AUTOSCALER_LEND", yes_or_no)?,
        any_arch: value(&one, "RUNMESH_AUTOSCALER_ANY_ARCH", yes_or_no)?,
        warm: values(&one, "RUNMESH_AUTOSCALER_WARM", str::parse)?,
        warm_age: value(&one, "RUNMESH_AUTOSCALER_WARM_AGE", age)?,
        no_mesh: None,
    })
}

pub(super) fn table(value: &Value) -> Result<Autoscaler, Wrong> {
    let table = value.as_table().ok_or_else(|| Wrong::new("`autoscaler` is not a [table]"))?;
    let mut read = Autoscaler::default();
    for (key, value) in table {
        let wrong = |why: String| Wrong::new(format!("`autoscaler.{key}` {why}"));
        let truth = || value.as_bool().ok_or_else(|| wrong("is not true or false".to_owned()));
        match key.as_str() {
            "github" => read.github = Some(truth()?),
            "interval" => read.interval = Some(number(value, interval).map_err(wrong)?),
            "runner_group" => read.group = Some(string(value, group).map_err(wrong)?),
            "scale_set" => read.scale_set = Some(string(value, scale_set).map_err(wrong)?),
            "idle" => read.idle = Some(string(value, duration).map_err(wrong)?),
            "share" => read.share = Some(number(value, percent).map_err(wrong)?),
            "lend" => read.lend = Some(truth()?),
            "any_arch" => read.any_arch = Some(truth()?),
            "warm" => read.warm = Some(list(value, str::parse).map_err(wrong)?),
            "warm_age" => read.warm_age = Some(string(value, age).map_err(wrong)?),
            _ => {
                let what = format!("`autoscaler.{key}` is no setting");
                return Err(Wrong { what, hint: Some(format!("there are: {}", KEYS.join(", "))) });
            }
        }
    }
    Ok(read)
}

fn group(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 { Err("is no runner group's name".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads how long a runner may wait.
fn age(text: &str) -> Result<Duration, String> {
    let age = duration(text)?;
    if age <= LONGEST_WAIT {
        Ok(age)
    } else {
        Err("is longer than 20h: GitHub forgets a runner after a day".to_owned())
    }
}

/// It is also what `runs-on` says.
fn scale_set(text: &str) -> Result<String, String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) {
        return Err(format!("is no scale set's name: letters, digits, `-`, `_` and `.`, at most {MAX_NAME} of them"));
    }
    Ok(text.to_owned())
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.parse().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| "is not a number from 0 to 100".to_owned())
}
