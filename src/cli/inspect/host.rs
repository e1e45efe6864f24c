//! The node, its neighbours, its clock, what it runs and where that comes from.

use super::super::screen::{
    Cell, Paint, Screen, ago, count, facts, short_entry, short_hash, short_peer, short_task, span, workflow,
};
use super::graph;
use crate::control::proto::{Checkpoint, Clock, Peer, Runner, Source, Status};

/// How the node and the mesh stand.
pub(super) fn status(screen: Screen, status: &Status, now: u64) -> String {
    let others = status.members.saturating_sub(1);
    let heard = match (status.standing.as_str(), others) {
        ("joining", _) => "this node is not a member of it yet".to_owned(),
        ("revoked", _) => "this node was put out of it".to_owned(),
        (_, 0) => "this node is its only member".to_owned(),
        _ => format!("{} of {} heard", status.peers, count(others, "other member")),
    };
    let waiting = match status.quarantined {
        0 => String::new(),
        number => format!(", {number} wait for their parents"),
    };
    let heads: Vec<&str> = status.heads.iter().map(|head| short_entry(head)).collect();
    let heads = format!("{} ({})", count(status.heads.len(), "head"), heads.join(", "));
    let entries = if status.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", status.entries) };
    let tasks: Vec<String> = status
        .tasks
        .iter()
        .filter(|(_, number)| **number > 0)
        .map(|(state, number)| format!("{number} {state}"))
        .collect();
    let runners = status.runners.unwrap_or_default();
    let draining =
        if status.draining { screen.paint(Paint::Warn, ", draining: claims nothing more") } else { String::new() };
    let cordoned = status.cordoned.as_ref().map(|cordoned| {
        let since = ago(now.saturating_sub(cordoned.since_ms));
        format!("{since}: {}\nthis node takes nothing new; `runmesh node uncordon` ends it", cordoned.why)
    });
    let paused = status.paused.as_ref().map(|paused| {
        let since = ago(now.saturating_sub(paused.since_ms));
        format!("{since} by {}: {}\n`runmesh resume` ends it", paused.by, paused.why)
    });
    facts(
        screen,
        &[
            ("node", screen.paint(Paint::Strong, &status.peer_id)),
            ("mesh", format!("{}\n{heard}", status.mesh_id)),
            ("listens", status.listen.join("\n")),
            ("clock", format!("{entries}, {heads}, state {}{waiting}", short_hash(&status.state_hash))),
            ("history", status.checkpoint.as_ref().map(|checkpoint| dropped(checkpoint, now)).unwrap_or_default()),
            ("tasks", if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") }),
            ("runners", format!("{} of {} busy{draining}", runners.running, runners.max)),
            ("labels", status.labels.join(", ")),
            ("data", status.data_dir.clone()),
            (
                "process",
                format!(
                    "{}, up {}, version {}",
                    status.pid,
                    span(now.saturating_sub(status.started_ms)),
                    status.version
                ),
            ),
            ("paused", screen.paint(Paint::Warn, &paused.unwrap_or_default())),
            ("cordoned", screen.paint(Paint::Warn, &cordoned.unwrap_or_default())),
            ("warnings", screen.paint(Paint::Warn, &status.warnings.join("\n"))),
        ],
    )
}

/// The other members.
pub(super) fn peers(screen: Screen, peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "no other members yet; `runmesh mesh invite` prints a ticket for one\n".to_owned();
    }
    // What all offer is said once.
    let common: Vec<&String> =
        peers[0].labels.iter().filter(|label| peers.iter().all(|peer| peer.labels.contains(label))).collect();
    let row = |peer: &Peer| {
        let state = match (peer.connected, peer.heard_ago_ms) {
            (true, _) if peer.draining => Cell::painted(Paint::Warn, "draining"),
            (true, _) if peer.cordoned => Cell::painted(Paint::Warn, "cordoned"),
            (true, _) => Cell::painted(Paint::Good, "connected"),
            (false, Some(_)) => Cell::painted(Paint::Warn, "not connected"),
            (false, None) => Cell::painted(Paint::Faint, "never heard"),
        };
        [
            Cell::from(short_peer(&peer.peer_id)),
            state,
            peer.heard_ago_ms.map_or_else(|| "-".to_owned(), ago).into(),
            peer.round_trip_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")).into(),
            format!("{} of {}", peer.free, peer.slots).into(),
        ]
    };
    let more = |peer: &Peer| {
        let own: Vec<&str> = peer.labels.iter().filter(|label| !common.contains(label)).map(String::as_str).collect();
        [
            peer.running.iter().map(|task| short_task(task)).collect::<Vec<_>>().join(" "),
            own.join(", "),
            peer.addresses.first().map_or("", |address| without_peer(address)).to_owned(),
        ]
    };
    let mut text = peer_table(screen, peers.iter().map(|peer| (row(peer), more(peer))).collect());
    for peer in peers.iter().filter(|peer| !peer.faults.is_empty()) {
        text.push_str(&format!("\n{} misbehaves: {}\n", peer.peer_id, peer.faults.join("; ")));
    }
    if !common.is_empty() {
        let common: Vec<&str> = common.into_iter().map(String::as_str).collect();
        let all = if peers.len() == 1 { "it offers" } else { "all offer" };
        text.push_str(&format!("\n{all} the labels {}\n", common.join(", ")));
    }
    text
}

/// A line for each peer where the screen is wide enough for all there is; else the longer parts below it, on lines of
/// their own.
fn peer_table(screen: Screen, peers: Vec<([Cell; 5], [String; 3])>) -> String {
    let whole = |([peer, state, heard, trip, free], more): ([Cell; 5], [String; 3])| {
        let [runs, labels, address] = more.map(Cell::from);
        [peer, state, heard, trip, free, runs, labels, address]
    };
    let columns = ["peer", "state", "heard", "round trip", "free", "runs", "labels", "address"];
    let wide = screen.unfolded(columns, peers.iter().cloned().map(whole).collect());
    if let Some(wide) = wide {
        return wide;
    }
    let (rows, more): (Vec<_>, Vec<_>) = peers.into_iter().unzip();
    let [peer, state, heard, trip, free, parts @ ..] = columns;
    let first = [peer, state, heard, trip, free];
    let table = screen.table(first, rows, &first);
    let mut lines = table.lines();
    let mut text = lines.next().map(|header| format!("{header}\n")).unwrap_or_default();
    for (line, more) in lines.zip(more) {
        text.push_str(&format!("{line}\n"));
        for (name, value) in parts.iter().zip(&more).filter(|(_, value)| !value.is_empty()) {
            let value = screen.folded(value, 17).join("\n                 ");
            text.push_str(&format!("        {}  {value}\n", screen.paint(Paint::Faint, &format!("{name:<7}"))));
        }
    }
    text
}

/// What was dropped of the history.
fn dropped(checkpoint: &Checkpoint, now: u64) -> String {
    let age = span(now.saturating_sub(checkpoint.time_ms));
    format!("begins {age} ago: what came before is dropped, in its place snapshot {}", short_hash(&checkpoint.hash))
}

/// The Merkle clock.
pub(super) fn clock(screen: Screen, clock: &Clock, now: u64) -> String {
    let mut text = facts(
        screen,
        &[
            ("heads", clock.heads.join("\n")),
            ("entries", clock.entries.to_string()),
            ("state", clock.state_hash.clone()),
            ("vector", clock.merkle_root.clone()),
            (
                "root",
                clock.root.as_ref().map(|root| format!("{}\n{}", root.id, dropped(root, now))).unwrap_or_default(),
            ),
            (
                "waiting",
                if clock.quarantined == 0 { String::new() } else { format!("{} for their parents", clock.quarantined) },
            ),
        ],
    );
    let chain = |chain: &crate::control::proto::Chain| {
        [Cell::from(short_peer(&chain.peer_id)), chain.incarnation.as_str().into(), chain.sequence.into()]
    };
    text.push('\n');
    text.push_str(&screen.table(["author", "incarnation", "entries"], clock.vector.iter().map(chain).collect(), &[]));
    if !clock.latest.is_empty() {
        text.push('\n');
        text.push_str(&graph::drawn(screen, clock, now));
    }
    text
}

/// What this host executes now.
pub(super) fn runners(screen: Screen, runners: &[Runner], now: u64) -> String {
    if runners.is_empty() {
        return "nothing runs here now\n".to_owned();
    }
    let row = |runner: &Runner| {
        let waits = runner.task.is_empty();
        [
            Cell::from(if waits { "-" } else { short_task(&runner.task) }),
            Cell::from(match waits {
                true => format!("{}: {}", runner.repository, runner.path),
                false => workflow(&runner.repository, &runner.path),
            }),
            Cell::painted(if runner.note.is_empty() { Paint::Strong } else { Paint::Warn }, &runner.state),
            Cell::from(if waits { "-".to_owned() } else { runner.attempt.to_string() }),
            span(now.saturating_sub(runner.started_ms)).into(),
            format!("{} in {}", runner.executor, runner.isolation).into(),
            runner.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()).into(),
            runner.log.as_str().into(),
        ]
    };
    let columns = ["task", "workflow", "state", "attempt", "for", "by", "process", "log"];
    let mut text =
        screen.table(columns, runners.iter().map(row).collect(), &["task", "state", "attempt", "for", "process"]);
    for runner in runners.iter().filter(|runner| !runner.note.is_empty()) {
        let why = screen.folded(&runner.note, 24).join("\n                        ");
        text.push_str(&format!(
            "\n{} is over, and stays: {}\n",
            short_task(&runner.task),
            screen.paint(Paint::Warn, &why)
        ));
    }
    text
}

/// Where workflows come from.
pub(super) fn sources(screen: Screen, sources: &[Source], now: u64) -> String {
    if sources.is_empty() {
        return "no sources; name one with `runmesh node run --source github:OWNER` or `--source git:PATH`\n"
            .to_owned();
    }
    let row = |source: &Source| {
        let problem = source.problem.as_deref().unwrap_or_default();
        [
            Cell::from(if source.spec.is_empty() { "(another member's)" } else { &source.spec }),
            short_source(&source.key).into(),
            source.duty.as_deref().map_or("-", short_peer).into(),
            source.discovered_ago_ms.map_or_else(|| "not yet".to_owned(), ago).into(),
            source.workflows.into(),
            Cell::painted(Paint::Warn, problem),
        ]
    };
    let columns = ["source", "name", "on duty", "looked", "tagged", "problem"];
    let mut text = screen.table(columns, sources.iter().map(row).collect(), &["on duty", "looked", "tagged"]);
    for source in sources.iter().filter(|source| source.when_cut_off == "stop") {
        let name = if source.spec.is_empty() { &source.key } else { &source.spec };
        text.push_str(&format!("\ntasks of {name} are stopped here while most members are not heard\n"));
    }
    text.push_str(&looks(screen, sources, now));
    text
}

/// What the last looks at GitHub took, and what the tokens have left.
fn looks(screen: Screen, sources: &[Source], now: u64) -> String {
    let row = |source: &Source| {
        let cycle = source.cycle?;
        Some([
            Cell::from(source.key.as_str()),
            cycle.calls.into(),
            cycle.points.into(),
            format!("{} kB", cycle.bytes.div_ceil(1_000)).into(),
            span(cycle.took_ms).into(),
            cycle.repositories.into(),
            format!("{} new, {} changed, {} gone", cycle.new, cycle.changed, cycle.gone).into(),
        ])
    };
    let rows: Vec<_> = sources.iter().filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = ["last look", "calls", "points", "answers", "took", "repositories", "files"];
    let mut text = format!("\n{}", screen.table(columns, rows, &["calls", "points", "answers", "took"]));
    // All sources share a token; an app has one for each owner.
    let mut limits: Vec<[String; 3]> = Vec::new();
    for limit in sources.iter().flat_map(|source| &source.limits) {
        let row = [
            limit.api.clone(),
            format!("{} of {}", limit.remaining, limit.limit),
            format!("in {}", span(limit.reset_ms.saturating_sub(now))),
        ];
        if !limits.contains(&row) {
            limits.push(row);
        }
    }
    let rows = limits.into_iter().map(|row| row.map(Cell::from)).collect();
    text.push_str(&format!("\n{}", screen.table(["GitHub's limit", "left", "renewed"], rows, &[])));
    text
}

/// An address without the peer that is named beside it.
fn without_peer(address: &str) -> &str {
    address.split_once("/p2p/").filter(|(_, rest)| !rest.contains('/')).map_or(address, |(place, _)| place)
}

/// What nodes call a source; of a root commit only the beginning.
fn short_source(key: &str) -> &str {
    match key.strip_prefix("git:") {
        Some(commit) if commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()) => &key[..16],
        _ => key,
    }
}

/// Words of which equal neighbours are counted: `introduce x4, claim`.
pub(super) fn grouped(words: &[String]) -> String {
    let groups = words.chunk_by(|one, next| one == next).map(|group| match group.len() {
        1 => group[0].clone(),
        number => format!("{} x{number}", group[0]),
    });
    groups.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_readable_on_a_narrow_screen_and_one_line_each_on_a_wide_one_or_in_a_pipe() {
        let peer = |label: &str| Peer {
            peer_id: format!("12D3KooW{label}"),
            connected: true,
            heard_ago_ms: Some(2000),
            round_trip_ms: Some(12),
            labels: ["linux", "x64", label, "cpus-128", "memory-512g"].map(str::to_owned).into(),
            running: (0..6).map(|n| n.to_string().repeat(64)).collect(),
            addresses: vec!["/ip4/192.168.100.200/udp/4477/quic-v1/p2p/12D3KooW".to_owned()],
            slots: 8,
            ..Peer::default()
        };
        let [one, two] = ["gpu-one", "gpu-two"].map(peer);
        let text = peers(Screen::of_width(80), &[one.clone(), two.clone()]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("        runs     00000000 11111111 22222222"), "{text}");
        assert!(text.contains("        labels   gpu-one\n"), "{text}");
        assert!(text.contains("        address  /ip4/192.168.100.200/udp/4477/quic-v1\n"), "{text}");
        for screen in [Screen::PLAIN, Screen::of_width(200)] {
            let text = peers(screen, &[one.clone(), two.clone()]);
            assert_eq!(text.lines().count(), 5, "{text}");
        }
    }
}
