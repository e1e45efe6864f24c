//! How things are measured: in rounds, ours and its rivals by turns, medians of all.

use std::process::Command;
use std::time::{Duration, Instant};

use super::Outcome;

/// Rounds of which the median counts. Own choice: the machine may do other things meanwhile.
pub(crate) const ROUNDS: usize = 7;
/// The least time of one round of one side.
const ROUND: Duration = Duration::from_millis(300);

/// What measures one side once, in its unit.
pub(crate) type Side<'a> = Box<dyn FnMut() -> Outcome<f64> + 'a>;

/// A rival's median, and the median of the rounds' ratios of ours to it.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) name: &'static str,
    pub(crate) rate: f64,
    pub(crate) ratio: f64,
}

/// Measures ours and each rival by turns.
pub(crate) fn side_by_side(mut ours: Side<'_>, rivals: Vec<(&'static str, Side<'_>)>) -> Outcome<(f64, Vec<Beside>)> {
    let (names, mut sides): (Vec<_>, Vec<_>) = rivals.into_iter().unzip();
    let (mut own, mut theirs, mut ratios) = (Vec::new(), vec![Vec::new(); names.len()], vec![Vec::new(); names.len()]);
    for _ in 0..ROUNDS {
        let mine = ours()?;
        own.push(mine);
        for (n, side) in sides.iter_mut().enumerate() {
            let rate = side()?;
            theirs[n].push(rate);
            ratios[n].push(mine / rate);
        }
    }
    let beside = names.into_iter().zip(theirs).zip(ratios);
    let beside = beside.map(|((name, rates), ratios)| Beside { name, rate: median(rates), ratio: median(ratios) });
    Ok((median(own), beside.collect()))
}

/// How many things a second of one core `batch` does, which answers how many it has done. What other processes take of
/// the core meanwhile is not counted.
pub(crate) fn rate(mut batch: impl FnMut() -> usize) -> f64 {
    let (began, ran_before, mut done) = (Instant::now(), thread_time(), 0);
    while began.elapsed() < ROUND {
        done += batch();
    }
    let ran = match (ran_before, thread_time()) {
        (Some(before), Some(after)) if after > before => after - before,
        _ => began.elapsed(),
    };
    done as f64 / ran.as_secs_f64()
}

/// How long this thread has run on a core; Linux only.
fn thread_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// 0 for no values.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this share of all lies (nearest rank); 0 for no values.
pub(crate) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The number that `source_system.py` prints when started with these words: the source system's rules, in its language.
pub(crate) fn source_system(words: &[&str]) -> Outcome<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/source_system.py");
    let output = Command::new("python3").arg(script).args(words).output()?;
    if !output.status.success() {
        return Err(format!("{script} {words:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// What else the machine does, for people.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", text.split(' ').next().unwrap_or("unknown"))
}
