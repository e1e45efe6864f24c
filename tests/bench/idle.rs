//! What a node costs that has nothing to do.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Outcome;
use super::measure::{median, quantile};
use super::processes::Mesh;
use super::report::{Goal, Row};

/// How many nodes the mesh has that the goals are for.
const GOAL: usize = 20;
/// After all hear each other, before anything is measured.
const SETTLE: Duration = Duration::from_secs(30);
/// How long is measured.
const WATCH: Duration = Duration::from_secs(30);

pub(crate) fn cost() -> Outcome<Vec<Row>> {
    cost_of(GOAL)
}

pub(crate) fn cost_of_3() -> Outcome<Vec<Row>> {
    cost_of(3)
}

pub(crate) fn cost_of_100() -> Outcome<Vec<Row>> {
    cost_of(100)
}

fn cost_of(nodes: usize) -> Outcome<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (pids, _mesh) = runtime.block_on(async {
        let mesh = Mesh::of(nodes, 0).await?;
        tokio::time::sleep(SETTLE).await;
        Ok::<_, Box<dyn std::error::Error>>((
            mesh.nodes.iter().map(super::processes::Node::pid).collect::<Vec<_>>(),
            mesh,
        ))
    })?;
    let ticks = clock_ticks()?;
    let (began, cpu, sent) = (Instant::now(), each(&pids, cpu_ticks)?, bytes_sent(&pids)?);
    std::thread::sleep(WATCH);
    let (took, cpu_after, sent_after) = (began.elapsed().as_secs_f64(), each(&pids, cpu_ticks)?, bytes_sent(&pids)?);
    let grown =
        |before: &[f64], after: &[f64]| -> Vec<f64> { before.iter().zip(after).map(|(b, a)| (a - b) / took).collect() };
    let cpu: Vec<f64> = grown(&cpu, &cpu_after).into_iter().map(|a_second| a_second / ticks * 100.0).collect();
    let sent = grown(&sent, &sent_after);
    let rss = each(&pids, resident_mib)?;
    let row = |what: &str, unit, goal: Option<f64>, value| {
        let name = if nodes == GOAL { format!("idle_{what}") } else { format!("idle_{nodes}_{what}") };
        Row::alone(&name, unit, goal.filter(|_| nodes == GOAL).map_or(Goal::None, Goal::AtMost), value)
    };
    Ok(vec![
        row("rss_mib", "MiB, median node", Some(40.0), median(rss.clone())),
        row("rss_max_mib", "MiB, largest node", None, quantile(rss, 1.0)),
        row("cpu_percent", "% of a core, median node", Some(0.5), median(cpu.clone())),
        row("cpu_max_percent", "% of a core, busiest node", None, quantile(cpu, 1.0)),
        row("sent_bytes_per_s", "bytes/s a node sends", None, median(sent)),
    ])
}

fn each(pids: &[u32], read: fn(u32) -> Outcome<f64>) -> Outcome<Vec<f64>> {
    pids.iter().map(|pid| read(*pid)).collect()
}

/// User and system time so far, in the system's ticks (proc(5), fields 14 and 15).
fn cpu_ticks(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}

fn clock_ticks() -> Outcome<f64> {
    Ok(String::from_utf8(Command::new("getconf").arg("CLK_TCK").output()?.stdout)?.trim().parse()?)
}

fn resident_mib(pid: u32) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// What each process has sent over its TCP connections, as the system counts them, without headers.
fn bytes_sent(pids: &[u32]) -> Outcome<Vec<f64>> {
    let output = Command::new("ss").args(["-tinpOH", "state", "established"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let of = |pid: &u32| {
        let mine = format!("pid={pid},");
        let counts = text
            .lines()
            .filter(|line| line.contains(&mine))
            .filter_map(|line| line.split(' ').find_map(|word| word.strip_prefix("bytes_sent:"))?.parse::<f64>().ok());
        counts.sum()
    };
    Ok(pids.iter().map(of).collect())
}
