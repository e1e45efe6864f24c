use proptest::prelude::*;

use super::super::act::{Said, hear};
use super::*;
use crate::kernel::task::{Priority, Repository, RunEvent, Trigger};

fn tally(name: &str, plan: &Plan) -> Tally {
    let path = ".github/workflows/ci.yml".to_owned();
    let workload = Workload {
        repository: Repository { host: "git".into(), id: "1".into(), name: "tools".into() },
        name: if name.is_empty() { path.clone() } else { name.to_owned() },
        path,
        trigger: Trigger::Manual { request: "1".into() },
        commit: "0".repeat(40),
        r#ref: "refs/heads/main".into(),
        event: RunEvent::Push,
        tags: [].into(),
        priority: Priority::LEAST,
        labels: [].into(),
        inputs: [].into(),
        time_limit_s: 60,
        fallback_s: 60,
        concurrency: None,
    };
    Tally::new(&workload, plan)
}

fn feed(tally: &mut Tally, lines: &[String]) {
    for line in lines {
        match hear(line.as_bytes()) {
            Said::Job(job) => drop(tally.job(&job)),
            Said::Own { text, severe } => tally.own(&text, severe),
            Said::Debug => (),
            Said::Plain(text) => tally.plain(&text),
        }
    }
}

fn result(label: &str, id: &str, leg: u32, result: &str) -> String {
    let level = if result == "skipped" { "debug" } else { "info" };
    format!(
        r#"{{"level":"{level}","job":"{label} ","jobID":"{id}","matrix":{{"n":{leg}}},"msg":"","jobResult":"{result}"}}"#
    )
}

fn begun(label: &str, id: &str, message: &str) -> String {
    format!(r#"{{"level":"info","job":"{label}","jobID":"{id}","matrix":{{}},"msg":"{message}"}}"#)
}

fn job(id: &str, legs: Option<u32>) -> PlannedJob {
    PlannedJob { id: id.to_owned(), name: id.to_owned(), legs, ..Default::default() }
}

fn conclude(lines: &[String], jobs: Vec<PlannedJob>, exit: u8) -> (Conclusion, String) {
    let plan = Plan { jobs, ..Plan::default() };
    let mut tally = tally("ci", &plan);
    feed(&mut tally, lines);
    tally.conclude(&plan, exit)
}

#[test]
fn all_expected_results_make_success() {
    let lines =
        [result("ci/a", "a", 0, "success"), result("ci/b-1", "b", 1, "success"), result("ci/b-2", "b", 2, "success")];
    assert_eq!(conclude(&lines, vec![job("a", Some(1)), job("b", Some(2))], 0), (Conclusion::Success, String::new()));
}

#[test]
fn a_leg_that_says_nothing_is_a_failure_with_its_jobs_name() {
    let lines = [result("ci/b-1", "b", 1, "success")];
    let (conclusion, note) = conclude(&lines, vec![job("b", Some(2))], 0);
    assert_eq!(conclusion, Conclusion::Failure);
    assert!(note.contains("`b` reported 1 results where its matrix makes 2"), "{note}");
    let (conclusion, note) = conclude(&lines, vec![job("b", None), job("c", None)], 0);
    assert_eq!((conclusion, note.as_str()), (Conclusion::Failure, "job `c` reported no result"));
    let (conclusion, note) = conclude(&[], vec![], 0);
    assert_eq!((conclusion, note.as_str()), (Conclusion::Failure, "no job reported a result"));
}

#[test]
fn a_job_that_began_and_never_ended_is_a_failure_also_without_a_plan() {
    let lines = [result("ci/a", "a", 0, "success"), begun("ci/b", "b", "Skipping unsupported platform -- try `-P x`")];
    let (conclusion, note) = conclude(&lines, vec![], 0);
    assert_eq!(conclusion, Conclusion::Failure);
    assert!(note.starts_with("job `b` reported no result: Skipping unsupported platform"), "{note}");
}

#[test]
fn skipped_jobs_are_fine_and_only_skipped_jobs_are_skipped() {
    let skipped = result("ci/a-1", "a", 1, "skipped");
    assert_eq!(conclude(std::slice::from_ref(&skipped), vec![job("a", Some(4))], 0).0, Conclusion::Skipped);
    let lines = [skipped, result("ci/b", "b", 0, "success")];
    assert_eq!(conclude(&lines, vec![job("a", Some(4)), job("b", Some(1))], 0).0, Conclusion::Success);
}

#[test]
fn a_failure_names_job_step_and_reason() {
    let step = r#"{"level":"info","job":"ci/a","jobID":"a","matrix":{"n":0},"msg":"Failure","step":"make\nall","stepResult":"failure"}"#;
    let error = r#"{"level":"error","job":"ci/a","jobID":"a","matrix":{"n":0},"msg":"exit status 2","step":"make"}"#;
    let lines =
        [step.to_owned(), error.to_owned(), result("ci/a", "a", 0, "failure"), result("ci/b", "b", 0, "success")];
    let expected = (Conclusion::Failure, "job `a` failed in step `make`: exit status 2".to_owned());
    assert_eq!(conclude(&lines, vec![], 1), expected);
    assert_eq!(conclude(&lines, vec![], 0), expected, "whatever act's exit status says");
}

#[test]
fn a_workflow_that_act_cannot_run_is_a_failure_in_acts_words() {
    let lines = ["Error: workflow is not valid. 'bad.yml': Line: 5 Column 5: Unknown Property stepz", "see the manual"];
    let (conclusion, note) = conclude(&lines.map(str::to_owned), vec![job("a", Some(1))], 1);
    assert_eq!(conclusion, Conclusion::Failure);
    assert_eq!(note, "workflow is not valid. 'bad.yml': Line: 5 Column 5: Unknown Property stepz see the manual");
    let fatal = r#"{"level":"fatal","msg":"cannot unmarshal"}"#.to_owned();
    assert_eq!(conclude(&[fatal], vec![], 1), (Conclusion::Failure, "cannot unmarshal".to_owned()));
    assert!(conclude(&[], vec![], 137).1.contains("signal 9"));
}

#[test]
fn a_called_workflows_jobs_answer_for_the_caller() {
    let caller = PlannedJob { uses: Some("./.github/workflows/inner.yml".to_owned()), ..job("call", Some(1)) };
    let matrix = PlannedJob { uses: caller.uses.clone(), name: "nice ${{ matrix.a }}".to_owned(), ..job("m", Some(2)) };
    let inner = result("call/inner.yml/a", "a", 0, "success");
    let other = result("nice 2-2/inner.yml/a", "a", 0, "success");
    let both = [inner.clone(), other];
    assert_eq!(conclude(&both, vec![caller.clone(), matrix.clone()], 0).0, Conclusion::Success);
    assert_eq!(conclude(std::slice::from_ref(&inner), vec![caller, matrix], 0).1, "job `m` reported no result");
    // An inner job is no answer for the file's own job of that name.
    let caller = PlannedJob { uses: Some("./x.yml".to_owned()), ..job("call", Some(1)) };
    assert_eq!(conclude(&[inner], vec![caller, job("a", Some(1))], 0).1, "job `a` reported no result");
}

#[test]
fn a_workflow_that_calls_others_is_known_by_its_name_or_its_file() {
    let call = PlannedJob { uses: Some("./x.yml".to_owned()), ..job("call", Some(1)) };
    let plan = Plan { jobs: vec![call, job("a", Some(1))], ..Plan::default() };
    for (name, label) in [("", "ci.yml/a"), ("The name", "The name/a")] {
        let mut tally = tally(name, &plan);
        feed(&mut tally, &[result("call/x.yml/b", "b", 0, "success"), result(label, "a", 0, "success")]);
        assert_eq!(tally.conclude(&plan, 0), (Conclusion::Success, String::new()));
    }
}

#[test]
fn a_caller_that_has_its_workflows_name_is_answered_for_too() {
    let call = PlannedJob { uses: Some("./x.yml".to_owned()), ..job("ci", Some(1)) };
    assert_eq!(conclude(&[result("ci/x.yml/b", "b", 0, "success")], vec![call], 0).0, Conclusion::Success);
}

#[test]
fn a_flood_of_jobs_is_not_kept_and_not_a_success() {
    let mut tally = tally("ci", &Plan::default());
    let lines: Vec<String> = (0..=MAX_LEGS as u32).map(|leg| result("ci/a", "a", leg, "success")).collect();
    feed(&mut tally, &lines);
    assert_eq!(tally.legs.len(), MAX_LEGS);
    assert_eq!(tally.conclude(&Plan::default(), 0).0, Conclusion::Failure);
}

proptest! {
    /// Success only if each planned job has its results and none of them is anything but success or skipped.
    #[test]
    fn success_is_never_given_away(
        results in proptest::collection::vec((0_u32..4, 0_u32..3, 0_usize..5), 0..12),
        legs in proptest::collection::vec(proptest::option::of(1_u32..4), 4),
        exit in 0_u8..2,
    ) {
        let words = ["success", "success", "skipped", "failure", "cancelled"];
        let lines: Vec<String> = results.iter()
            .map(|(id, leg, word)| result(&format!("ci/j{id}-{leg}"), &format!("j{id}"), *leg, words[*word])).collect();
        let jobs: Vec<PlannedJob> = legs.iter().enumerate().map(|(id, legs)| job(&format!("j{id}"), *legs)).collect();
        let (conclusion, note) = conclude(&lines, jobs, exit);
        prop_assert!(note.len() <= MAX_NOTE);
        if conclusion == Conclusion::Success {
            prop_assert_eq!(exit, 0);
            let mut last = BTreeMap::new();
            for (id, leg, word) in &results {
                last.insert((*id, *leg), words[*word]);
            }
            prop_assert!(last.values().all(|word| matches!(*word, "success" | "skipped")));
            prop_assert!(last.values().any(|word| *word == "success"));
            for (id, legs) in legs.iter().enumerate() {
                let of: Vec<_> = last.iter().filter(|((job, _), _)| *job as usize == id).map(|(_, word)| *word).collect();
                let enough = of.len() >= legs.unwrap_or(1) as usize || of.iter().all(|word| *word == "skipped");
                prop_assert!(!of.is_empty() && enough);
            }
        }
    }

    #[test]
    fn clipping_keeps_within_the_limit(text in ".{0,60}", limit in 3_usize..40) {
        let clipped = clip(&text, limit);
        prop_assert!(clipped.len() <= limit.max(3));
        prop_assert!(text.len() > limit || clipped == text);
    }
}
