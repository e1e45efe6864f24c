//! Nodes that reach each other across real networks: behind address translation, cut off, moved, asleep, on one LAN.
//!
//! Real processes in network namespaces; nothing of it is seen outside, and nothing is left behind.

#[path = "reach/rig.rs"]
mod rig;

use rig::{Node, Repository, Rig};
use serde_json::Value;

/// Where the node that all can reach listens.
const HUB: &str = "203.0.113.10";

/// A task that is submitted at one node is done at another one, and the first hears how it ended.
fn works_for(worker: &Node, other: &Node, repository: &Repository) {
    for node in [worker, other] {
        node.wait_for("the source", |node| {
            node.json(&["inspect", "sources"]).as_array().is_some_and(|sources| !sources.is_empty())
        });
    }
    let task = other.json(&["p2p-workflow", "submit", repository.path(), "any.yml"]);
    let id = task["id"].as_str().expect("an id");
    let given = worker.json(&["p2p-workflow", "next", "--wait", "60s"]);
    assert_eq!(given["task"]["id"], id);
    let claim = given["claim"].as_str().expect("a claim");
    let (status, said) = worker.run(&["p2p-workflow", "complete", id, "--claim", claim]);
    assert_eq!(status, 0, "{said}");
    other.wait_for("the task's end", |node| {
        let task = node.json(&["inspect", "tasks", id]);
        (&task["state"], &task["conclusion"]) == (&Value::from("completed"), &Value::from("success"))
            && task["holder"] == worker.peer.as_str()
    });
}

/// A hub that all can reach, and two nodes behind routers of their own, which have the same address there.
fn behind_two_routers(ports: &str) -> (Rig, Repository, [Node; 3]) {
    let (mut rig, repository) = (Rig::new(), Repository::new());
    rig.network("internet");
    rig.host("hub", "internet", &format!("{HUB}/24"));
    rig.behind("left", "internet", "203.0.113.2/24", ports);
    rig.behind("right", "internet", "203.0.113.3/24", ports);
    let [mut hub, mut left, mut right] = ["hub", "left", "right"].map(|host| rig.node(host));
    let source = format!("--source git:{}", repository.path());
    rig.start(&mut hub, &source);
    for node in [&mut left, &mut right] {
        node.join(&hub);
        rig.start(node, &source);
    }
    for (node, others) in [(&hub, [&left, &right]), (&left, [&hub, &right]), (&right, [&hub, &left])] {
        node.hears(&others);
    }
    (rig, repository, [hub, left, right])
}

fn is_relayed(way: &str) -> bool {
    way.contains("p2p-circuit")
}

#[test]
fn behind_routers_that_let_nothing_through_members_work_by_a_member_that_relays() {
    let (mut rig, repository, [hub, left, right]) = behind_two_routers("random");
    let ways = left.ways_to(&right);
    assert!(!ways.is_empty() && ways.iter().all(|way| is_relayed(way) && way.contains(&hub.peer)), "{ways:?}");
    works_for(&left, &right, &repository);
    works_for(&right, &left, &repository);
    // Relays carry members alone, so a ticket from behind a router leads to the relay itself.
    let (status, ticket) = left.run(&["mesh", "invite", "--mesh-key", &hub.mesh_key()]);
    assert_eq!(status, 0, "{ticket}");
    let mut late = rig.node("late");
    rig.behind("late", "internet", "203.0.113.4/24", "random");
    let (status, said) = late.run(&["mesh", "join", &ticket]);
    assert_eq!(status, 0, "{said}");
    rig.start(&mut late, "");
    late.hears(&[&hub, &left, &right]);
    // A relay that comes back is a relay again.
    rig.signal(&hub, "KILL");
    left.hears(&[]);
    let mut hub = hub;
    rig.start(&mut hub, "");
    left.hears(&[&hub, &right, &late]);
}

#[test]
fn behind_usual_routers_members_come_to_speak_directly() {
    let (mut rig, repository, [hub, left, right]) = behind_two_routers("");
    for (node, other) in [(&left, &right), (&right, &left)] {
        node.wait_for("a direct connection alone", |node| {
            let ways = node.ways_to(other);
            !ways.is_empty() && !ways.iter().any(|way| is_relayed(way))
        });
    }
    rig.signal(&hub, "KILL");
    left.hears(&[&right]);
    works_for(&left, &right, &repository);
}

#[test]
fn who_was_cut_off_or_asleep_or_has_moved_is_found_again() {
    let (mut rig, repository) = (Rig::new(), Repository::new());
    rig.network("lan");
    let names = ["one", "two", "three", "four"];
    for (n, host) in names.iter().enumerate() {
        rig.host(host, "lan", &format!("10.1.0.{}/24", n + 1));
    }
    let [mut one, mut two, mut three, mut four] = names.map(|host| rig.node(host));
    let source = format!("--source git:{}", repository.path());
    rig.start(&mut one, &source);
    for node in [&mut two, &mut three, &mut four] {
        node.join(&one);
        rig.start(node, &source);
    }
    let [one, two, three, four] = [one, two, three, four];
    one.hears(&[&two, &three, &four]);
    two.hears(&[&one, &three, &four]);
    assert_eq!(three.ways_to(&four).iter().filter(|way| is_relayed(way)).count(), 0, "nothing is in between");

    // One is cut off, one sleeps; the others notice and go on, although one of them hears badly.
    rig.lose("two", 5);
    rig.cut_off("three");
    rig.signal(&four, "STOP");
    one.hears(&[&two]);
    three.hears(&[]);
    works_for(&two, &one, &repository);
    rig.reconnect("three");
    rig.signal(&four, "CONT");
    one.hears(&[&two, &three, &four]);
    four.hears(&[&one, &two, &three]);
    works_for(&four, &three, &repository);

    // One gets another address.
    rig.run("ip -n two addr del 10.1.0.2/24 dev lan && ip -n two addr add 10.1.0.77/24 dev lan");
    one.wait_for("the new address", |node| {
        let ways = node.ways_to(&two);
        !ways.is_empty() && ways.iter().all(|way| way.contains("/10.1.0.77/"))
    });
    two.hears(&[&one, &three, &four]);
    works_for(&two, &three, &repository);
    let heads = |node: &Node| node.json(&["inspect", "status"])["state_hash"].clone();
    one.wait_for("agreement", |one| [&two, &three, &four].iter().all(|node| heads(node) == heads(one)));
}

#[test]
fn members_on_one_lan_find_each_other_by_mdns_alone() {
    let mut rig = Rig::new();
    rig.network("lan");
    rig.host("one", "lan", "10.1.0.1/24");
    rig.host("two", "lan", "10.1.0.2/24");
    let [mut one, mut two] = ["one", "two"].map(|host| rig.node(host));
    rig.start(&mut one, "");
    two.join(&one);
    rig.start(&mut two, "");
    one.hears(&[&two]);
    // All that they remember of each other is wrong from now on.
    for (node, address) in [(&mut one, "10.1.0.11"), (&mut two, "10.1.0.12")] {
        rig.stop(node);
        let host = node.host();
        rig.run(&format!("ip -n {host} addr flush dev lan && ip -n {host} addr add {address}/24 dev lan"));
        rig.start(node, &format!("RUNMESH_MDNS=true --listen /ip4/{address}/tcp/0"));
    }
    one.hears(&[&two]);
    two.hears(&[&one]);
}

#[test]
fn a_swarm_key_hides_a_mesh_from_those_without_it() {
    let mut rig = Rig::new();
    rig.network("lan");
    for (n, host) in ["one", "two", "three"].iter().enumerate() {
        rig.host(host, "lan", &format!("10.1.0.{}/24", n + 1));
    }
    let [mut one, mut two, mut three] = ["one", "two", "three"].map(|host| rig.node(host));
    let digits = |digit: &str| format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", digit.repeat(64));
    let keyed = |node: &Node, digit: &str| format!("RUNMESH_SWARM_KEY={} ", node.keep("swarm.key", &digits(digit)));
    let (first, second) = (keyed(&one, "5"), keyed(&two, "5"));
    rig.start(&mut one, &first);
    let listens = one.json(&["inspect", "status"])["listen"].to_string();
    assert!(listens.contains("/tcp/4477") && !listens.contains("quic"), "{listens}");
    two.join(&one);
    rig.start(&mut two, &second);
    // A member, but with another key.
    three.join(&one);
    let other = keyed(&three, "6");
    rig.start(&mut three, &other);
    one.hears(&[&two]);
    three.wait_for("a word about it", |node| node.log().contains("does not answer"));
    one.hears(&[&two]);
    three.hears(&[]);
}
