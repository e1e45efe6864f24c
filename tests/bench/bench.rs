//! The numbers of DESIGN.md section 10, each measured beside its rival in the same run. `scripts/bench` builds and runs it.
//!
//! Owns what is measured and how it is shown. Promises that a rival is measured in the same minute on the same machine
//! as ours or is named as missing, and that each number is a median of several rounds. Whether a goal is met is shown
//! and decides nothing: tests are elsewhere.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

mod agreement;
mod alarms;
mod burst;
mod calls;
mod dispatch;
mod election;
mod failover;
mod heap;
mod history;
mod idle;
mod kernel;
mod measure;
#[path = "../history/mesh.rs"]
#[expect(dead_code, reason = "the tests of bounded history use the rest")]
mod mesh;
mod processes;
mod report;
mod room;
mod runners;
mod serf;
mod simulated;
mod sync;
mod tags;

#[path = "../github"]
mod github {
    pub(crate) mod fake;
}

#[path = "../simulation"]
#[expect(dead_code, reason = "the tests of the simulation use the rest")]
mod simulation {
    pub(crate) mod adapter;
    pub(crate) mod chance;
    pub(crate) mod checks;
    pub(crate) mod effects;
    pub(crate) mod groups;
    pub(crate) mod host;
    pub(crate) mod network;
    pub(crate) mod scenario;
    pub(crate) mod turns;
    pub(crate) mod work;
    pub(crate) mod world;
}

use std::process::ExitCode;

use report::Row;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A group of numbers that are measured together.
struct Theme {
    /// The numbers' names; one that ends in `_` stands for all that begin with it.
    names: &'static [&'static str],
    measure: fn() -> Outcome<Vec<Row>>,
}

const THEMES: &[Theme] = &[
    Theme { names: &["elections_per_s_"], measure: election::speed },
    Theme { names: &["election_balance_"], measure: election::balance },
    Theme { names: &["heap_ops_per_s"], measure: heap::speed },
    Theme { names: &["open_entries_per_s", "fold_entries_per_s", "merge_entries_per_s"], measure: kernel::speed },
    Theme { names: &["tags_files_per_s"], measure: tags::speed },
    Theme { names: &["api_calls_", "api_points_"], measure: calls::number },
    Theme { names: &["owner_agreement"], measure: agreement::owners },
    Theme { names: &["tasks_lost"], measure: agreement::lost },
    Theme { names: &["sync_entries_per_s"], measure: sync::cold },
    Theme { names: &["dispatch_"], measure: dispatch::latency },
    Theme { names: &["failover_close_s", "failover_silence_s"], measure: failover::takeover },
    Theme { names: &["history_"], measure: room::steady },
    Theme { names: &["false_alarms_under_load", "false_takeovers_under_load"], measure: alarms::under_load },
    Theme { names: &["runner_start_poll_"], measure: runners::starts_by_polling },
    Theme { names: &["runner_start_p50_s", "runner_start_p95_s"], measure: runners::starts_by_long_poll },
    Theme { names: &["burst_400_s"], measure: burst::free },
    Theme { names: &["burst_400_limited_s"], measure: burst::limited },
    Theme { names: &["burst_400_long_poll_s"], measure: burst::free_by_long_poll },
    Theme { names: &["burst_400_long_poll_limited_s"], measure: burst::limited_by_long_poll },
    Theme { names: &["surplus_runners_", "job_calls_"], measure: runners::surplus },
    Theme { names: &["runner_recovery_s"], measure: runners::recovery },
    Theme { names: &["idle_rss_", "idle_cpu_", "idle_sent_"], measure: idle::cost },
    Theme { names: &["idle_3_"], measure: idle::cost_of_3 },
    Theme { names: &["idle_100_"], measure: idle::cost_of_100 },
    Theme { names: &[CONVERGES], measure: simulated::converges },
];

/// Takes long, so it is measured only when it is asked for by name.
const CONVERGES: &str = "sim_converges";

impl Theme {
    fn is_meant_by(&self, word: &str) -> bool {
        self.names.iter().any(|name| name.starts_with(word) || (name.ends_with('_') && word.starts_with(name)))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(stranger) = words.iter().find(|word| !THEMES.iter().any(|theme| theme.is_meant_by(word))) {
        let names: Vec<&str> = THEMES.iter().flat_map(|theme| theme.names).copied().collect();
        return Err(format!("nothing is measured under the name `{stranger}`; there are {}", names.join(", ")).into());
    }
    let mut rows = Vec::new();
    for theme in THEMES {
        let usual = words.is_empty() && theme.names != [CONVERGES];
        if usual || words.iter().any(|word| theme.is_meant_by(word)) {
            eprintln!("==> {} ({})", theme.names.join(", "), measure::load());
            rows.extend((theme.measure)()?);
        }
    }
    if !words.is_empty() {
        rows.retain(|row| words.iter().any(|word| row.name.starts_with(word.as_str())));
    }
    println!("{}", report::table(&rows));
    report::write(&rows)
}
