//! The settings of how much of what runs leave behind is kept: `logs_retention`, `logs_quota`, `artifacts_retention` and
//! `artifacts_quota`.

use std::time::Duration;

use toml::Value;

use super::file::{Wrong, string};
use super::{Failure, duration, size, value};
use crate::store;

/// Own choices: a month is what people still ask for; the quotas hold some hundred long logs, and what five runs may upload.
const RETENTION: Duration = Duration::from_secs(30 * 86_400);
const LOGS_QUOTA: u64 = 5 << 30;
const ARTIFACTS_QUOTA: u64 = 10 << 30;

/// What one layer says of it, or all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Keeping {
    logs: Share,
    artifacts: Share,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Share {
    retention: Option<Duration>,
    quota: Option<u64>,
}

impl Share {
    fn over(self, lower: Self) -> Self {
        Self { retention: self.retention.or(lower.retention), quota: self.quota.or(lower.quota) }
    }

    fn settings(self, quota: u64) -> store::Share {
        store::Share { quota: self.quota.unwrap_or(quota), age: self.retention.unwrap_or(RETENTION) }
    }
}

impl Keeping {
    pub(super) fn over(self, lower: Self) -> Self {
        Self { logs: self.logs.over(lower.logs), artifacts: self.artifacts.over(lower.artifacts) }
    }

    pub(super) fn settings(self) -> store::Keeping {
        store::Keeping { logs: self.logs.settings(LOGS_QUOTA), artifacts: self.artifacts.settings(ARTIFACTS_QUOTA) }
    }
}

pub(super) fn environment(one: impl Fn(&str) -> Result<Option<String>, Failure>) -> Result<Keeping, Failure> {
    let share = |retention: &str, quota: &str| {
        Ok::<_, Failure>(Share { retention: value(&one, retention, duration)?, quota: value(&one, quota, size)? })
    };
    Ok(Keeping {
        logs: share("RUNMESH_LOGS_RETENTION", "RUNMESH_LOGS_QUOTA")?,
        artifacts: share("RUNMESH_ARTIFACTS_RETENTION", "RUNMESH_ARTIFACTS_QUOTA")?,
    })
}

/// Reads one of the keys that are of this file.
pub(super) fn take(keeping: &mut Keeping, key: &str, value: &Value) -> Result<(), Wrong> {
    let wrong = |why: String| Wrong::new(format!("`{key}` {why}"));
    let share = if key.starts_with("logs") { &mut keeping.logs } else { &mut keeping.artifacts };
    if key.ends_with("quota") {
        share.quota = Some(string(value, size).map_err(wrong)?);
    } else {
        share.retention = Some(string(value, duration).map_err(wrong)?);
    }
    Ok(())
}
