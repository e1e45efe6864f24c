//! Workflows in containers, with real Podman, real runc and real act.

use runmesh::kernel::io::Report;
use runmesh::kernel::task::Conclusion;
use runmesh::runner::{Isolation, Plan, PlannedJob, Supervisor};

use crate::podman::Podman;
use crate::rig::{PATIENCE, Rig, files, nap, one, order, processes, script, settings, wait};

async fn rig(engine: &Podman) -> Rig {
    let rig = Rig::with(|settings| engine.set(settings)).await;
    assert_eq!(rig.handle.capabilities().missing(Isolation::Container), [""; 0]);
    rig
}

fn in_container(plan: Plan) -> Plan {
    Plan { jobs: plan.jobs.into_iter().map(|job| PlannedJob { container: true, ..job }).collect(), ..Plan::default() }
}

#[tokio::test]
async fn two_nodes_run_the_same_workflow_at_one_engine_and_see_nothing_of_each_other() {
    let engine = Podman::start().await;
    let mut nodes = [rig(&engine).await, rig(&engine).await];
    let text = script(
        "cat committed.log; echo \"repo=$GITHUB_REPOSITORY input=$COLOUR leaks [$CARGO_PKG_NAME]\"\n\
         echo \"memory $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null)\"\n\
         echo \"files $(ulimit -n) processes $(ls /proc | grep -c '^[0-9]')\"\n\
         ls / | tr '\\n' ' '; test ! -e /var/run/docker.sock\n\
         touch /tmp/$GITHUB_RUN_ID; (setsid sleep 60 &); sleep 1; ls /tmp | grep -c '^[0-9]'",
    );
    let text = text.replace("jobs:", "env: {COLOUR: \"${{ inputs.colour }}\"}\njobs:");
    for node in &nodes {
        node.start(1, Isolation::Container, &text, one()).await;
    }
    for node in &mut nodes {
        let report = node.report().await;
        let log = node.log(1);
        assert!(matches!(&report, Report::Finished { conclusion: Conclusion::Success, .. }), "{report:?}\n{log}");
        assert!(log.contains("] kept\n") && log.contains("repo=lab/tools input=a 'blue' $one leaks []"), "{log}");
        assert!(log.contains("memory 268435456") && log.contains("files 1024 processes "), "{log}");
    }
    assert_eq!(engine.left(), [""; 0]);
    for node in nodes {
        node.close().await;
    }
}

#[tokio::test]
async fn what_would_give_a_container_the_host_is_refused() {
    let engine = Podman::start().await;
    let mut rig = rig(&engine).await;
    let wishes = [
        ("options: --privileged", "Privileged"),
        ("options: --pid host", "PidMode"),
        ("options: --cap-add SYS_ADMIN", "CapAdd"),
        ("options: --network host", "`host`"),
        ("volumes: ['/:/host']", "shows the container a part of this host"),
        ("volumes: ['/etc/shadow:/shadow:ro']", "shows the container a part of this host"),
    ];
    for (wish, word) in wishes {
        let text = format!(
            "jobs:\n  a:\n    runs-on: linux\n    container:\n      image: localhost/lab:1\n      {wish}\n    steps:\n      - run: echo reached\n"
        );
        let (conclusion, note) = rig.finish(Isolation::Container, &text, in_container(one())).await;
        let log = rig.log(1);
        assert_eq!(conclusion, Conclusion::Failure, "{wish}: {log}");
        assert!(log.contains(word) && !log.contains("] reached"), "{wish}: {note}: {log}");
        assert_eq!(engine.left(), [""; 0], "{wish}");
    }
    rig.close().await;
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() {
    let engine = Podman::start().await;
    let mut node = rig(&engine).await;
    let text = script("echo ran").replace("    steps:", "    container: localhost/absent:7\n    steps:");
    let report = node.run(Isolation::Container, &text, in_container(one())).await;
    let why = |report: Report| match report {
        Report::NotStarted { why } => why,
        other => panic!("{other:?}"),
    };
    assert!(why(report).contains("the image localhost/absent is not on this host") || node.log(1).contains("absent:7"));
    node.close().await;
    let mut node = Rig::with(|settings| {
        engine.set(settings);
        settings.image = "localhost/absent:7".to_owned();
    })
    .await;
    let report = node.run(Isolation::Container, &script("echo ran"), one()).await;
    assert!(why(report).contains("the image localhost/absent:7 is not on this host: fetch it"));
    assert_eq!(engine.left(), [""; 0]);
    node.close().await;
    // And an engine that is none.
    let mut node = Rig::with(|settings| settings.engine = Some("/nonexistent/socket".into())).await;
    let report = node.run(Isolation::Container, &script("echo ran"), one()).await;
    assert!(why(report).contains("the container engine at /nonexistent/socket does not answer"));
    node.close().await;
}

#[tokio::test]
async fn services_are_reached_by_the_job_beside_them() {
    let engine = Podman::start().await;
    let mut rig = rig(&engine).await;
    // The static busybox of the image has no resolver but this one.
    let text = "jobs:\n  a:\n    runs-on: linux\n    services:\n      web:\n        image: localhost/web:1\n    \
                steps:\n      - run: |\n          cat /etc/resolv.conf; nslookup web\n          \
                for i in $(seq 50); do at=$(nslookup web | sed -n 's/^Address: //p' | tail -n 1)\n          \
                wget -q -O - http://$at:8080/hello && break; sleep 0.2; done | grep from-service\n";
    engine.import("localhost/web:1", "CMD [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]");
    let plan = one();
    let jobs = plan.jobs.into_iter().map(|job| PlannedJob { services: true, ..job }).collect();
    let plan = Plan { jobs, ..Plan::default() };
    let (conclusion, note) = rig.finish(Isolation::Container, text, plan).await;
    assert_eq!((conclusion, note.as_str()), (Conclusion::Success, ""), "{}", rig.log(1));
    assert_eq!(engine.left(), [""; 0]);
    rig.close().await;
}

#[tokio::test]
async fn a_stop_and_a_killed_node_leave_no_container() {
    let engine = Podman::start().await;
    let mut node = rig(&engine).await;
    let brood = nap(200);
    let text = script(&format!("(setsid sleep {brood} &); sleep {brood}"));
    let stopped = order(1, Isolation::Container, &node.log_path(1), files(&text, one()));
    let (task, fence) = (stopped.task, stopped.fence);
    node.order(stopped).await;
    wait("two sleepers", || processes(&format!("sleep\0{brood}")).len() >= 2).await;
    node.handle.stop(task, fence).await.unwrap();
    assert_eq!(node.report().await, Report::Stopped);
    assert_eq!(processes(&format!("sleep\0{brood}")), [0; 0]);
    assert_eq!(engine.left(), [""; 0]);

    // A node that does not get to tidy up, and its next life.
    node.start(2, Isolation::Container, &text, one()).await;
    wait("two sleepers", || processes(&format!("sleep\0{brood}")).len() >= 2).await;
    let Rig { scratch, supervisor, handle, reports } = node;
    drop((supervisor, handle, reports));
    assert_ne!(engine.left(), [""; 0], "there is something to clear");
    let mut again = settings(&scratch.path().join("data/work"));
    engine.set(&mut again);
    let (next, _reports) = Supervisor::open(again).await.unwrap();
    assert_eq!(engine.left(), [""; 0]);
    assert_eq!(processes(&format!("sleep\0{brood}")), [0; 0]);
    assert!(next.shutdown(PATIENCE).await);
}
