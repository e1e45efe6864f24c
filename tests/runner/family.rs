//! Killing means every descendant: real processes that leave their session and their parent, and every way to end.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runmesh::kernel::io::Report;
use runmesh::kernel::task::Conclusion;
use runmesh::runner::{Isolation, Supervisor};
use rustix::process::{Pid, Signal, getsid, kill_process};

use crate::rig::{BOTH, PATIENCE, Rig, files, need, one, order, processes, script, settings, wait};

/// Three processes that sleep so long: a child, one in a session of its own, and one whose parent is gone besides.
fn brood(nap: &str) -> String {
    format!("sleep {nap} &\nsetsid sleep {nap} &\n(setsid -f sh -c 'sleep {nap}; true' &)\n")
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[tokio::test]
async fn a_stop_and_an_end_leave_nothing_behind() {
    for (number, isolation) in BOTH.into_iter().enumerate() {
        let nap = crate::rig::nap(10 + u32::try_from(number).unwrap());
        let mut rig = Rig::new().await;
        need(&rig.handle);
        let text = script(&format!("{}sleep {nap}", brood(&nap)));
        let order = order(1, isolation, &rig.log_path(1), files(&text, one()));
        let (task, fence) = (order.task, order.fence);
        rig.order(order).await;
        wait("four sleepers", || processes(&format!("sleep\0{nap}")).len() >= 4).await;
        rig.handle.stop(task, fence).await.unwrap();
        assert_eq!(rig.report().await, Report::Stopped);
        assert_eq!(processes(&nap), [0; 0], "{isolation}");

        // The job ends well and leaves its brood, which nobody shall inherit.
        let text = script(&format!(
            "{}until pgrep -f '[s]leep {nap}' | grep -c . | grep -q '[3-9]'; do sleep 0.02; done",
            brood(&nap)
        ));
        let (conclusion, note) = rig.finish(isolation, &text, one()).await;
        assert_eq!((conclusion, note.as_str()), (Conclusion::Success, ""), "{isolation} {}", rig.log(1));
        assert_eq!(processes(&nap), [0; 0], "{isolation}");
        rig.close().await;
    }
}

#[tokio::test]
async fn a_shutdown_stops_everything_first() {
    let nap = crate::rig::nap(20);
    let rig = Rig::new().await;
    need(&rig.handle);
    for (task, isolation) in [(1, Isolation::Bwrap), (2, Isolation::None)] {
        rig.start(task, isolation, &script(&format!("{}sleep {nap}", brood(&nap))), one()).await;
    }
    wait("eight sleepers", || processes(&format!("sleep\0{nap}")).len() >= 8).await;
    rig.close().await;
    assert_eq!(processes(&nap), [0; 0]);
}

/// Not a test of its own: the node that [`a_node_that_is_killed_takes_its_tasks_along`] kills.
#[tokio::test]
async fn node_process() {
    let Some(directory) = std::env::var_os("RUNMESH_TEST_NODE").map(PathBuf::from) else { return };
    let nap = std::env::var("RUNMESH_TEST_NAP").unwrap();
    let (supervisor, _reports) = Supervisor::open(settings(&directory.join("work"))).await.unwrap();
    let look = "env\ncat /proc/*/environ | tr '\\0' '\\n'\necho looked\n";
    for (task, isolation, look) in [(1, Isolation::Bwrap, look), (2, Isolation::None, "env\necho looked\n")] {
        let text = script(&format!("{look}{}sleep {nap}", brood(&nap)));
        let log = directory.join(format!("{task}.log"));
        supervisor.handle().start(order(task, isolation, &log, files(&text, one()))).await.unwrap();
    }
    tokio::time::sleep(PATIENCE).await;
}

/// A process that does not outlive its test.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        // Gone already, mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_node_that_is_killed_takes_its_tasks_along() {
    let nap = crate::rig::nap(30);
    let scratch = tempfile::tempdir().unwrap();
    let mut node = Mortal(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "family::node_process"])
            .env("RUNMESH_TEST_NODE", scratch.path())
            .env("RUNMESH_TEST_NAP", &nap)
            .env("GITHUB_TOKEN", "very-secret")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let own = node.0.id();
    let sleepers = || processes(&format!("sleep\0{nap}")).len();
    wait("eight sleepers", || {
        assert_eq!(node.0.try_wait().unwrap(), None, "the node lives");
        sleepers() >= 8
    })
    .await;
    for task in [1, 2] {
        let log = || std::fs::read_to_string(scratch.path().join(format!("{task}.log"))).unwrap_or_default();
        wait("the log is written", || log().contains("] looked")).await;
        let log = log();
        assert!(log.contains("] HOME="), "{log}");
        assert!(!log.contains("very-secret") && !log.contains("RUNMESH_TEST"), "{log}");
    }
    node.0.kill().unwrap();
    node.0.wait().unwrap();
    wait("nothing is left", || processes(&nap).into_iter().all(|pid| pid == own)).await;

    // The next life finds the directories, and clears them.
    let work = scratch.path().join("work");
    assert!(std::fs::read_dir(&work).unwrap().count() >= 2);
    let (supervisor, _reports) = Supervisor::open(settings(&work)).await.unwrap();
    assert!(std::fs::read_dir(&work).unwrap().all(|entry| entry.unwrap().file_name().as_encoded_bytes()[0] == b'.'));
    assert!(supervisor.shutdown(PATIENCE).await);
}

#[tokio::test]
async fn a_reaper_that_is_killed_is_seen_and_what_it_leaves_is_killed() {
    let nap = crate::rig::nap(40);
    let mut rig = Rig::with(|settings| settings.cgroups = false).await;
    need(&rig.handle);
    for (task, isolation) in [(1, Isolation::Bwrap), (2, Isolation::None)] {
        let text = script(&format!("nohup {}sleep {nap}", brood(&nap)));
        rig.start(task, isolation, &text, one()).await;
        wait("four sleepers", || processes(&format!("sleep\0{nap}")).len() >= 4).await;
        kill_reapers(&rig);
        let report = rig.report().await;
        assert_eq!(report, Report::NotStarted { why: "somebody killed the task's reaper".to_owned() });
        wait("nothing of it is left", || processes(&nap).is_empty()).await;
    }
    rig.close().await;
}

#[tokio::test]
async fn an_act_that_vanishes_is_seen_and_what_it_leaves_is_killed() {
    let mut rig = Rig::new().await;
    need(&rig.handle);
    for (task, isolation) in [(1, Isolation::Bwrap), (2, Isolation::None)] {
        let nap = crate::rig::nap(44 + u32::from(task));
        // A child besides, of a session of its own and its parent gone: a daemon.
        let text = script(&format!("nohup {}sleep {nap}", brood(&nap)));
        rig.start(task, isolation, &text, one()).await;
        wait("four sleepers", || processes(&format!("sleep\0{nap}")).len() >= 4).await;
        let here = processes(rig.scratch.path().to_str().unwrap());
        let acts: Vec<u32> =
            processes("--container-daemon-socket\0").into_iter().filter(|pid| is_act(*pid, &here)).collect();
        assert_eq!(acts.len(), 1, "{isolation}: {acts:?}");
        kill_process(Pid::from_raw(acts[0].cast_signed()).unwrap(), Signal::KILL).unwrap();
        let report = rig.report().await;
        let log = rig.log(task);
        let Report::Finished { conclusion, note, .. } = &report else { panic!("{report:?}\n{log}") };
        assert_eq!(*conclusion, Conclusion::Failure, "{note}");
        assert!(note.contains("act"), "{isolation}: {note}\n{log}");
        wait("nothing of it is left", || processes(&nap).is_empty()).await;
    }
    rig.close().await;
}

/// Whether it is the program act itself, below one of these.
fn is_act(pid: u32, here: &[u32]) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut above = std::iter::successors(Some(pid), |pid| parent(*pid));
    name.trim() == "act" && above.any(|pid| here.contains(&pid))
}

/// Kills the reapers of this rig, whose directory is among their arguments.
fn kill_reapers(rig: &Rig) {
    let here = processes(rig.scratch.path().to_str().unwrap());
    let reapers = processes("reap\0").into_iter();
    let own = reapers.filter(|pid| here.contains(pid) && parent(*pid) == Some(std::process::id()));
    for reaper in own {
        kill_process(Pid::from_raw(reaper.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn what_no_order_owns_is_gone_after_a_round_and_what_one_owns_stays() {
    let other = crate::rig::nap(81);
    let mut rig = Rig::with(|settings| settings.round = Duration::from_millis(200)).await;
    need(&rig.handle);
    let left = rig.scratch.path().join("data/work/0123456789ab-1-abcdefgh");
    std::fs::create_dir_all(left.join("home")).unwrap();
    let mut stray = Mortal(Command::new("sleep").arg(&other).env("HOME", left.join("home")).spawn().unwrap());
    rig.start(2, Isolation::Bwrap, &script(&format!("echo begun; sleep {other}9; true")), one()).await;
    let log = rig.log_path(2);
    wait("the task runs", || std::fs::read_to_string(&log).unwrap_or_default().contains("] begun")).await;
    wait("the stray is killed", || stray.0.try_wait().unwrap().is_some()).await;
    wait("its directory is gone", || !left.exists()).await;
    assert_eq!(rig.handle.running().await.unwrap().len(), 1);
    let running = &rig.handle.running().await.unwrap()[0];
    rig.handle.stop(running.task, running.fence).await.unwrap();
    assert_eq!(rig.report().await, Report::Stopped);
    rig.close().await;
}

#[tokio::test]
async fn a_control_group_ends_what_a_killed_reaper_leaves() {
    let nap = crate::rig::nap(70);
    let mut rig = Rig::new().await;
    need(&rig.handle);
    if let Err(why) = &rig.handle.capabilities().cgroup {
        // Nothing to hold to where none can be made.
        assert!(!why.is_empty());
        return rig.close().await;
    }
    assert_eq!(rig.groups(), [""; 0]);
    let text = script(&format!("nohup {}sleep {nap}", brood(&nap)));
    rig.start(1, Isolation::None, &text, one()).await;
    wait("four sleepers", || processes(&format!("sleep\0{nap}")).len() >= 4).await;
    assert_eq!(rig.groups().len(), 1);
    kill_reapers(&rig);
    assert_eq!(rig.report().await, Report::NotStarted { why: "somebody killed the task's reaper".to_owned() });
    assert_eq!(processes(&nap), [0; 0]);
    rig.close().await;
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn reap(program: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runmesh"));
    command.args(["reap", "--"]).args(program).stdin(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_reaper_passes_on_how_its_program_ended() {
    let code = |program: &[&str]| {
        let mut child = reap(program).spawn().unwrap();
        // Not `wait` alone, which closes standard input and so says stop.
        let leash = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(leash);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(code(&["sh", "-c", "exit 0"]).0, 0);
    assert_eq!(code(&["sh", "-c", "exit 7"]).0, 7);
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]).0, 137);
    let (status, words) = code(&["/no/such/program"]);
    assert_eq!(status, 125);
    assert!(words.contains("runmesh reap: starting /no/such/program: No such file"), "{words}");
}

#[tokio::test]
async fn a_reaper_ends_everything_when_its_pipe_closes_or_speaks_or_a_signal_comes() {
    type End = fn(&mut Child);
    let ways: [(&str, End); 5] = [
        ("close", |child| drop(child.stdin.take())),
        ("byte", |child| std::io::Write::write_all(child.stdin.as_mut().unwrap(), b".").unwrap()),
        ("terminate", |child| kill_process(pid(child), Signal::TERM).unwrap()),
        ("interrupt", |child| kill_process(pid(child), Signal::INT).unwrap()),
        ("hangup", |child| kill_process(pid(child), Signal::HUP).unwrap()),
    ];
    for (number, (name, end)) in (50..).zip(ways) {
        let nap = crate::rig::nap(number);
        // It also ignores what it can.
        let text = format!("trap '' TERM INT HUP; {}sleep {nap}", brood(&nap));
        let mut child = reap(&["sh", "-c", &text]).process_group(0).spawn().unwrap();
        wait("four sleepers", || processes(&format!("sleep\0{nap}")).len() >= 4).await;
        end(&mut child);
        let leash = child.stdin.take();
        let status = child.wait().unwrap();
        drop(leash);
        assert_eq!(status.code(), Some(124), "{name}: {status:?} {:?}", status.signal());
        assert_eq!(processes(&nap), [0; 0], "{name}");
    }
}

#[tokio::test]
async fn a_reaper_leaves_the_terminal_of_its_node() {
    let nap = crate::rig::nap(60);
    let mut child = Mortal(reap(&["sleep", &nap]).spawn().unwrap());
    // Its own command line holds the words as well.
    wait("the program runs", || processes(&format!("sleep\0{nap}")).len() >= 2).await;
    assert_eq!(getsid(Some(pid(&child.0))).unwrap(), pid(&child.0), "a session of its own has no terminal");
    drop(child.0.stdin.take());
    assert_eq!(child.0.wait().unwrap().code(), Some(124));
}
