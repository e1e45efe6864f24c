//! 400 jobs at once: how long until 400 runners have them, with GitHub's limit of configurations and without.

use std::time::{Duration, Instant};

use super::Outcome;
use super::github::fake::jobs::Status;
use super::processes::until_every;
use super::report::{Goal, Row};
use super::runners::{By, count, fake, hosts, listened, queue, runtime};

const JOBS: usize = 400;
const HOSTS: usize = 4;
/// GitHub gives out so many configurations at once, and so many a minute after that (GITHUB.md).
const LIMIT: (f64, f64) = (180.0, 166.0);

pub(crate) fn free() -> Outcome<Vec<Row>> {
    let rival = "garm, by its documentation: about 3 a second; actions-runner-controller about 200 s";
    Ok(vec![Row::alone("burst_400_s", "s", Goal::AtMost(60.0), burst(By::Polling, None)?).against(rival, 120.0)])
}

pub(crate) fn free_by_long_poll() -> Outcome<Vec<Row>> {
    let rival = "actions-runner-controller, by the same long poll: about 200 s";
    let row = Row::alone("burst_400_long_poll_s", "s", Goal::AtMost(60.0), burst(By::LongPoll, None)?);
    Ok(vec![row.against(rival, 200.0)])
}

pub(crate) fn limited_by_long_poll() -> Outcome<Vec<Row>> {
    let least = (JOBS as f64 - LIMIT.0) * 60.0 / LIMIT.1;
    let row = Row::alone("burst_400_long_poll_limited_s", "s", Goal::None, burst(By::LongPoll, Some(LIMIT))?);
    Ok(vec![row.against("what GitHub's limit leaves at best", least)])
}

pub(crate) fn limited() -> Outcome<Vec<Row>> {
    let least = (JOBS as f64 - LIMIT.0) * 60.0 / LIMIT.1;
    let row = Row::alone("burst_400_limited_s", "s", Goal::None, burst(By::Polling, Some(LIMIT))?);
    Ok(vec![row.against("what GitHub's limit leaves at best", least)])
}

fn burst(by: By, limit: Option<(f64, f64)>) -> Outcome<f64> {
    let dir = tempfile::tempdir()?;
    let fake = fake();
    fake.state().actions.runners.limit = limit;
    runtime()?.block_on(async {
        let _hosts = hosts(dir.path(), &fake, HOSTS, u32::try_from(JOBS / HOSTS)?).await?;
        if by == By::LongPoll {
            listened(&fake).await?;
        }
        let began = Instant::now();
        // They sleep until everything is over.
        let jobs = queue(&fake, by, JOBS, Duration::from_secs(600));
        for quarter in 1..=4 {
            until_every(Duration::from_millis(50), "the runners' start", async || {
                (count(&fake, &jobs, Status::InProgress) >= JOBS * quarter / 4).then_some(())
            })
            .await?;
        }
        Ok(began.elapsed().as_secs_f64())
    })
}
