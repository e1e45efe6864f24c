//! Images that were fetched for work here: a quota and an age, with real Podman and a registry.

use std::time::Duration;

use runmesh::kernel::task::Conclusion;
use runmesh::runner::{ImageKeeping, Isolation, Plan, PlannedJob};
use tempfile::TempDir;

use crate::podman::{IMAGE, Podman};
use crate::registry::Registry;
use crate::rig::{Rig, files, nap, one, order, processes, script, wait};

const AGES: Duration = Duration::from_secs(86_400);

/// An engine, and a registry that it may fetch `lab/one`, `lab/two` and `lab/three` from.
async fn engine() -> (Podman, Registry, TempDir) {
    let mut engine = Podman::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let mut layouts = std::collections::BTreeMap::new();
    for name in ["one", "two", "three"] {
        let (image, layout) = (format!("localhost/{name}:1"), scratch.path().join(name));
        // Different bytes, so different images.
        engine.import(&image, &format!("LABEL name={name}"));
        engine.take_out(&image, &layout);
        layouts.insert(format!("lab/{name}"), layout);
    }
    let registry = Registry::of(layouts);
    engine.trust(&registry.address()).await;
    (engine, registry, scratch)
}

fn images(engine: &Podman) -> Vec<String> {
    let mut all: Vec<String> =
        engine.say(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect();
    all.sort();
    all
}

/// The bytes of an image as the engine counts them.
fn size(engine: &Podman, image: &str) -> u64 {
    engine.say(&["image", "inspect", "--format", "{{.Size}}", image]).trim().parse().unwrap()
}

async fn rig(engine: &Podman, keeping: ImageKeeping) -> Rig {
    Rig::with(|settings| {
        engine.set(settings);
        settings.pull = true;
        settings.images = keeping;
        settings.round = Duration::from_millis(200);
    })
    .await
}

/// A job in a container of this image.
fn job_in(image: &str, what: &str) -> String {
    script(what).replace("    steps:", &format!("    container: {image}\n    steps:"))
}

fn in_container() -> Plan {
    let jobs = one().jobs.into_iter().map(|job| PlannedJob { container: true, ..job }).collect();
    Plan { jobs, ..Plan::default() }
}

async fn run_in(rig: &mut Rig, image: &str) {
    let (conclusion, note) = rig.finish(Isolation::Container, &job_in(image, "echo ran"), in_container()).await;
    assert_eq!(conclusion, Conclusion::Success, "{note} {}", rig.log(1));
}

#[tokio::test]
async fn beyond_the_quota_the_image_goes_whose_last_use_is_the_oldest_and_none_that_was_not_fetched_here() {
    let (engine, registry, _layouts) = engine().await;
    let [first, second, third] = ["one", "two", "three"].map(|name| format!("{}/lab/{name}:1", registry.address()));
    let quota = size(&engine, IMAGE) * 5 / 2;
    let mut rig = rig(&engine, ImageKeeping { quota, age: AGES }).await;
    for image in [&first, &second, &first] {
        run_in(&mut rig, image).await;
    }
    assert_eq!(images(&engine).len(), 3, "two fit, and the one that was there: {:?}", images(&engine));
    run_in(&mut rig, &third).await;
    wait("one gone", || images(&engine).len() < 4).await;
    let mut expected = vec![first.clone(), third, IMAGE.to_owned()];
    expected.sort();
    assert_eq!(images(&engine), expected, "the one that was not used again");
    rig.close().await;
}

#[tokio::test]
async fn an_image_that_is_used_stays_however_old_it_is_and_goes_when_nobody_uses_it_any_more() {
    let (engine, registry, _layouts) = engine().await;
    let [first, second] = ["one", "two"].map(|name| format!("{}/lab/{name}:1", registry.address()));
    let mut rig = rig(&engine, ImageKeeping { quota: u64::MAX, age: Duration::from_millis(500) }).await;
    let nap = nap(500);
    let long = order(
        2,
        Isolation::Container,
        &rig.log_path(2),
        files(&job_in(&first, &format!("sleep {nap}")), in_container()),
    );
    let (task, fence) = (long.task, long.fence);
    rig.order(long).await;
    wait("a sleeper", || !processes(&format!("sleep\0{nap}")).is_empty()).await;
    // Fetched after it, and gone before: so rounds have passed in which the first was old, too.
    let text = job_in(&second, "echo ran");
    rig.order(order(3, Isolation::Container, &rig.log_path(3), files(&text, in_container()))).await;
    rig.report().await;
    assert!(rig.log(3).contains("] ran"), "{}", rig.log(3));
    wait("the second gone", || !images(&engine).contains(&second)).await;
    assert!(images(&engine).contains(&first));
    // A container of somebody else's keeps it also when the task has ended.
    engine.say(&["create", "--name", "theirs", &first, "true"]);
    rig.handle.stop(task, fence).await.unwrap();
    rig.report().await;
    run_in(&mut rig, &second).await;
    wait("the second gone again", || !images(&engine).contains(&second)).await;
    assert!(images(&engine).contains(&first));
    engine.say(&["rm", "theirs"]);
    wait("the first gone", || images(&engine) == [IMAGE]).await;
    rig.close().await;
}

#[tokio::test]
async fn what_the_node_fetches_itself_is_known_too_and_what_somebody_else_fetched_is_not_touched() {
    let (engine, registry, _layouts) = engine().await;
    let [first, second] = ["one", "two"].map(|name| format!("{}/lab/{name}:1", registry.address()));
    engine.say(&["pull", "--quiet", &second]);
    let mut rig = Rig::with(|settings| {
        engine.set(settings);
        settings.pull = true;
        settings.image = first.clone();
        settings.images = ImageKeeping { quota: u64::MAX, age: Duration::from_millis(500) };
        settings.round = Duration::from_millis(200);
    })
    .await;
    // The one of jobs that name none.
    let (conclusion, note) = rig.finish(Isolation::Container, &script("echo ran"), one()).await;
    assert_eq!(conclusion, Conclusion::Success, "{note} {}", rig.log(1));
    run_in(&mut rig, &second).await;
    wait("the first gone", || !images(&engine).contains(&first)).await;
    assert!(images(&engine).contains(&second), "it was there before: {:?}", images(&engine));
    rig.close().await;
}
