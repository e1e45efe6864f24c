//! The operator's own program, and with it the contract that all isolations keep: start, log, end, stop, time limit, and
//! nothing left, with real processes, real bubblewrap and real Podman.

use std::time::Duration;

use runmesh::kernel::io::Report;
use runmesh::kernel::task::Conclusion;
use runmesh::runner::{Command, Isolation, Order, Work, Workflow};

use crate::podman::Podman;
use crate::rig::{Rig, files, nap, one, order, processes, script, wait};

const ALL: [Isolation; 3] = [Isolation::Container, Isolation::Bwrap, Isolation::None];

/// An order for a shell script in place of a workflow.
fn program(rig: &Rig, number: u8, isolation: Isolation, text: &str) -> Order {
    let plain = order(number, isolation, &rig.log_path(number), files(&script("true"), one()));
    let Work::Workflow(Workflow { workload, checkout, .. }) = plain.work else { unreachable!("made so by the rig") };
    let program = ["sh", "-c", text].map(str::to_owned).to_vec();
    let task = serde_json::json!({ "id": "0707", "repository": workload.repository.name });
    Order { work: Work::Command(Command { workload, task, program, checkout }), ..plain }
}

async fn rig(engine: &Podman) -> Rig {
    Rig::with(|settings| engine.set(settings)).await
}

#[tokio::test]
async fn a_program_gets_its_task_and_its_status_is_the_conclusion() {
    let engine = Podman::start().await;
    let mut rig = rig(&engine).await;
    for (number, isolation) in (1..).zip(ALL) {
        let text = "cat; echo; cat committed.log; echo x >new && echo \"wrote $HOME [$CARGO_PKG_NAME]\"; touch $HOME/x";
        rig.order(program(&rig, number, isolation, text)).await;
        let report = rig.report().await;
        let log = rig.log(number);
        assert!(
            matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }),
            "{isolation} {report:?} {log}"
        );
        assert!(log.contains("{\"id\":\"0707\",\"repository\":\"lab/tools\"}\nkept\nwrote /"), "{isolation} {log}");
        assert!(log.contains(" []\n"), "{isolation} {log}");

        rig.order(program(&rig, number, isolation, "echo first >&2; echo why >&2; exit 3")).await;
        let report = rig.report().await;
        let Report::Finished { conclusion, note, .. } = report else { panic!("{isolation} {report:?}") };
        assert_eq!((conclusion, note.as_str()), (Conclusion::Failure, "sh ended with status 3: why"), "{isolation}");

        let mut absent = program(&rig, number, isolation, "");
        if let Work::Command(command) = &mut absent.work {
            command.program = vec!["/no/such/program".to_owned()];
        }
        rig.order(absent).await;
        let report = rig.report().await;
        let says = |text: &str| text.contains("/no/such/program");
        match &report {
            Report::NotStarted { why } => assert!(says(why), "{isolation} {why}"),
            // bubblewrap ends as its program would.
            Report::Finished { conclusion: Conclusion::Failure, note, .. } => assert!(says(note), "{isolation} {note}"),
            other => panic!("{isolation} {other:?}"),
        }
    }
    assert_eq!(engine.left(), [""; 0]);
    rig.close().await;
}

#[tokio::test]
async fn a_stop_a_limit_and_an_end_leave_nothing_in_any_isolation() {
    let engine = Podman::start().await;
    let mut rig = rig(&engine).await;
    for (number, isolation) in (1..).zip(ALL) {
        let nap = nap(300 + u32::from(number));
        let brood = format!("trap '' TERM; sleep {nap} & setsid sleep {nap} & (setsid sh -c 'sleep {nap}; true' &) ");
        let sleepers = || processes(&format!("sleep\0{nap}")).len();
        let stopped = program(&rig, number, isolation, &format!("{brood}\nsleep {nap}"));
        let (task, fence) = (stopped.task, stopped.fence);
        rig.order(stopped).await;
        wait("four sleepers", || sleepers() >= 4).await;
        rig.handle.stop(task, fence).await.unwrap();
        assert_eq!(rig.report().await, Report::Stopped, "{isolation}");
        assert_eq!(sleepers(), 0, "{isolation}");

        let mut limited = program(&rig, number, isolation, &format!("{brood}\nsleep {nap}"));
        limited.time_limit = Duration::from_secs(3);
        rig.order(limited).await;
        let report = rig.report().await;
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::TimedOut, .. }), "{isolation} {report:?}");
        assert_eq!(sleepers(), 0, "{isolation}");

        rig.order(program(&rig, number, isolation, &format!("{brood}\nsleep 0.5"))).await;
        let report = rig.report().await;
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }), "{isolation} {report:?}");
        assert_eq!(sleepers(), 0, "{isolation}");
        assert_eq!(engine.left(), [""; 0], "{isolation}");
    }
    rig.close().await;
}

#[tokio::test]
async fn a_full_disk_costs_the_log_and_not_the_task() {
    let engine = Podman::start().await;
    let mut rig = rig(&engine).await;
    for isolation in ALL {
        let full = Order { log: "/dev/full".into(), ..program(&rig, 1, isolation, "yes | head -n 100000") };
        rig.order(full).await;
        let report = rig.report().await;
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }), "{isolation} {report:?}");
    }
    rig.close().await;
}

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_gigabyte_on_one_line_takes_no_memory() {
    let engine = Podman::start().await;
    let mut rig = rig(&engine).await;
    for (number, isolation, bytes) in [
        (1, Isolation::Bwrap, 1_000_000_000_u64),
        (2, Isolation::None, 200_000_000),
        (3, Isolation::Container, 100_000_000),
    ] {
        let before = peak();
        let text = format!("head -c {bytes} /dev/zero | tr '\\0' x; echo; echo after");
        rig.order(program(&rig, number, isolation, &text)).await;
        let report = rig.report().await;
        assert!(matches!(report, Report::Finished { conclusion: Conclusion::Success, .. }), "{isolation} {report:?}");
        let log = rig.log(number);
        assert!(log.contains("(line cut)") && log.contains("\nafter\n") && log.len() < 100_000, "{} bytes", log.len());
        let grown = peak() - before;
        assert!(grown < 32 * 1024, "{isolation}: {grown} KiB");
    }
    rig.close().await;
}
