//! The recent entries of the Merkle clock as a graph: for a terminal as `git log --graph` draws commits, and for
//! Graphviz.
//!
//! The newest entry stands on top, and no entry above one that stands on it. Each column is a line that leads down to an
//! entry which is still to come; below an entry its parents' lines begin, or meet those of other children.

use std::collections::{BTreeMap, BTreeSet};

use super::super::screen::{Paint, Screen, ago, short_entry, short_peer};
use super::host::grouped;
use crate::control::proto::{Clock, ClockEntry};

/// The graph with a line of text beside each entry, cut to the screen's width.
pub(super) fn drawn(screen: Screen, clock: &Clock, now: u64) -> String {
    let shown: BTreeSet<&str> = clock.latest.iter().map(|entry| entry.id.as_str()).collect();
    let mut peers: BTreeMap<&str, usize> = BTreeMap::new();
    for chain in &clock.vector {
        let next = peers.len();
        peers.entry(&chain.peer_id).or_insert(next);
    }
    let mut lanes = Lanes::default();
    let mut rows: Vec<(String, Option<&ClockEntry>)> = Vec::new();
    for entry in &clock.latest {
        let parents: Vec<&str> = entry.parents.iter().map(String::as_str).filter(|id| shown.contains(id)).collect();
        let lines = lanes.take(&entry.id, &parents);
        rows.push((lines.entry, Some(entry)));
        rows.extend(lines.after.map(|line| (line, None)));
    }
    let width = rows.iter().filter(|(_, entry)| entry.is_some()).map(|(line, _)| line.chars().count()).max();
    let width = width.unwrap_or(0);
    let number = clock.latest.iter().map(|entry| entry.sequence.to_string().len()).max().unwrap_or(1);
    let when = clock.latest.iter().map(|entry| ago(now.saturating_sub(entry.time_ms)).len()).max().unwrap_or(3);
    let mut text = String::new();
    for (line, entry) in rows {
        let Some(entry) = entry else {
            text.push_str(line.trim_end());
            text.push('\n');
            continue;
        };
        // Author, number, time and id have their columns, the events the rest.
        let around = width + 2 + 6 + 2 + number + 2 + when + 2 + 8 + 2;
        let room = screen.width().map_or(usize::MAX, |width| width.saturating_sub(around).max(8));
        let actor = peers.get(entry.peer_id.as_str()).copied().unwrap_or_default();
        text.push_str(&format!(
            "{line:<width$}  {}  {:>number$}  {}  {:<when$}  {}",
            screen.paint(Paint::Actor(actor), short_peer(&entry.peer_id)),
            entry.sequence,
            screen.paint(Paint::Faint, short_entry(&entry.id)),
            ago(now.saturating_sub(entry.time_ms)),
            cut(&grouped(&entry.events), room),
        ));
        text.push('\n');
    }
    let older = clock.entries.saturating_sub(clock.latest.len() as u64);
    if older > 0 && !clock.latest.is_empty() {
        text.push_str(&screen.paint(Paint::Faint, &format!("… {older} older; --last N shows more of them")));
        text.push('\n');
    }
    text
}

/// The graph in Graphviz's language, parents below their children.
pub(super) fn dot(clock: &Clock) -> String {
    let mut text = "digraph clock {\n  node [shape=box, fontname=monospace];\n".to_owned();
    let shown: BTreeSet<&str> = clock.latest.iter().map(|entry| entry.id.as_str()).collect();
    for entry in &clock.latest {
        let label = format!(
            "{} {}\\n{}\\n{}",
            short_peer(&entry.peer_id),
            entry.sequence,
            grouped(&entry.events),
            short_entry(&entry.id)
        );
        let head = if clock.heads.contains(&entry.id) { ", style=bold" } else { "" };
        text.push_str(&format!("  \"{}\" [label=\"{label}\"{head}];\n", entry.id));
        for parent in entry.parents.iter().filter(|parent| shown.contains(parent.as_str())) {
            text.push_str(&format!("  \"{}\" -> \"{parent}\";\n", entry.id));
        }
    }
    text.push_str("}\n");
    text
}

fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// The lines that lead down, each to an entry that is still to come.
#[derive(Default)]
struct Lanes<'a>(Vec<Option<&'a str>>);

/// What is drawn for one entry.
struct Lines {
    entry: String,
    /// Where its parents' lines begin or are met, if that is not just below it.
    after: Option<String>,
}

/// What a place in a connecting line is connected to: up, down, left, right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Joint {
    up: bool,
    down: bool,
    left: bool,
    right: bool,
}

impl Joint {
    const fn glyph(self) -> char {
        match (self.up, self.down, self.left, self.right) {
            (true, true, true, true) => '┼',
            (true, true, true, false) => '┤',
            (true, true, false, true) => '├',
            (true, true, false, false) => '│',
            (true, false, true, true) => '┴',
            (true, false, true, false) => '╯',
            (true, false, false, true) => '╰',
            (false, true, true, true) => '┬',
            (false, true, true, false) => '╮',
            (false, true, false, true) => '╭',
            (false, false, true | false, true) | (false, false, true, false) => '─',
            (true, false, false, false) | (false, true, false, false) => '│',
            (false, false, false, false) => ' ',
        }
    }
}

impl<'a> Lanes<'a> {
    /// Draws the entry and the lines around it.
    fn take(&mut self, id: &'a str, parents: &[&'a str]) -> Lines {
        let mine = self.0.iter().position(|line| *line == Some(id));
        let at = mine.unwrap_or_else(|| self.free(0));
        self.0[at] = Some(id);
        let entry: Vec<char> =
            self.0.iter().enumerate().map(|(lane, line)| if lane == at { '●' } else { bar(*line) }).collect();
        let entry = spaced(&entry);
        self.0[at] = None;
        let mut joints = self.passing();
        joints[at].up = true;
        let mut ends = vec![at];
        for parent in parents {
            let known = self.0.iter().position(|line| *line == Some(*parent));
            let to = match known {
                // Lines that meet go on in the left one.
                Some(right) if right > at && self.0[at].is_none() => {
                    self.0[right] = None;
                    joints[right].down = false;
                    join(&mut joints, at, right);
                    ends.push(right);
                    at
                }
                Some(to) => to,
                None if self.0[at].is_none() => at,
                None => self.free(at),
            };
            self.0[to] = Some(*parent);
            joints.resize(self.0.len().max(joints.len()), Joint::default());
            joints[to].down = true;
            if to != at {
                join(&mut joints, at, to);
                ends.push(to);
            }
        }
        let after = (ends.len() > 1).then(|| drawn_joints(&joints, &self.0, &ends));
        while self.0.last().is_some_and(Option::is_none) {
            self.0.pop();
        }
        Lines { entry, after }
    }

    /// A lane that leads nowhere, the nearest to the right of this one.
    fn free(&mut self, from: usize) -> usize {
        if let Some(lane) = (from..self.0.len()).find(|lane| self.0[*lane].is_none()) {
            return lane;
        }
        self.0.push(None);
        self.0.len() - 1
    }

    fn passing(&self) -> Vec<Joint> {
        self.0.iter().map(|line| Joint { up: line.is_some(), down: line.is_some(), ..Joint::default() }).collect()
    }
}

/// Connects two lanes sideways.
fn join(joints: &mut [Joint], one: usize, other: usize) {
    let (left, right) = (one.min(other), one.max(other));
    joints[left].right = true;
    joints[right].left = true;
    for joint in &mut joints[left + 1..right] {
        (joint.left, joint.right) = (true, true);
    }
}

/// A connecting line. A lane that only passes is drawn over what goes sideways.
fn drawn_joints(joints: &[Joint], lanes: &[Option<&str>], ends: &[usize]) -> String {
    let mut text = String::new();
    for (lane, joint) in joints.iter().enumerate() {
        let passes = !ends.contains(&lane) && lanes.get(lane).is_some_and(Option::is_some);
        text.push(if passes { '│' } else { joint.glyph() });
        text.push(if joint.right { '─' } else { ' ' });
    }
    text.trim_end().to_owned()
}

const fn bar(line: Option<&str>) -> char {
    if line.is_some() { '│' } else { ' ' }
}

fn spaced(glyphs: &[char]) -> String {
    let text: String = glyphs.iter().flat_map(|glyph| [*glyph, ' ']).collect();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a graph, given as entries and their parents, the newest first.
    fn graph(entries: &[(&str, &[&str])]) -> Vec<String> {
        let mut lanes = Lanes::default();
        let lines = |(id, parents): &(&str, &[&str])| {
            let Lines { entry, after } = lanes.take(leak(id), &parents.iter().map(|p| leak(p)).collect::<Vec<_>>());
            [format!("{entry} {id}")].into_iter().chain(after).collect::<Vec<_>>()
        };
        entries.iter().flat_map(lines).collect()
    }

    fn leak(text: &str) -> &'static str {
        Box::leak(text.to_owned().into_boxed_str())
    }

    #[test]
    fn a_chain_is_a_line() {
        assert_eq!(graph(&[("c", &["b"]), ("b", &["a"]), ("a", &[])]), ["● c", "● b", "● a"]);
    }

    #[test]
    fn a_fork_that_is_merged() {
        let lines = graph(&[("d", &["b", "c"]), ("c", &["a"]), ("b", &["a"]), ("a", &[])]);
        assert_eq!(lines, ["● d", "├─╮", "│ ● c", "● │ b", "├─╯", "● a"]);
    }

    #[test]
    fn a_merge_of_three_and_a_line_that_passes() {
        let lines = graph(&[("m", &["x", "y", "z"]), ("y", &["r"]), ("z", &["x"]), ("x", &["r"]), ("r", &[])]);
        assert_eq!(lines, ["● m", "├─┬─╮", "│ ● │ y", "│ │ ● z", "├─│─╯", "● │ x", "├─╯", "● r"]);
    }

    proptest! {
        /// Whatever the graph: an entry's line is never broken between it and its parent.
        #[test]
        fn every_line_leads_from_an_entry_to_its_parent(
            links in prop::collection::vec(prop::collection::btree_set(1_usize..8, 0..5), 1..40),
        ) {
            let ids: Vec<&'static str> = (0..links.len()).map(|n| leak(&format!("n{n}"))).collect();
            let mut lanes = Lanes::default();
            let mut awaited: BTreeSet<&str> = BTreeSet::new();
            for (number, link) in links.iter().enumerate() {
                let parents: Vec<&str> = link.iter().filter_map(|by| ids.get(number + by).copied()).collect();
                lanes.take(ids[number], &parents);
                awaited.remove(ids[number]);
                awaited.extend(&parents);
                let open: Vec<&str> = lanes.0.iter().flatten().copied().collect();
                prop_assert_eq!(open.len(), awaited.len(), "a lane for each parent to come, and no more");
                prop_assert_eq!(open.into_iter().collect::<BTreeSet<_>>(), awaited.clone());
            }
        }
    }

    #[test]
    fn entries_are_told_beside_the_graph_and_cut_to_the_screen() {
        let entry = |id: &str, parents: &[&str], sequence| ClockEntry {
            id: id.to_owned(),
            peer_id: "12D3KooWabcdef".to_owned(),
            sequence,
            parents: parents.iter().map(|id| (*id).to_owned()).collect(),
            events: vec!["claim".to_owned(); 3].into_iter().chain(["finish".to_owned()]).collect(),
            ..ClockEntry::default()
        };
        let latest = vec![entry("bafyentry2", &["bafyentry1", "bafyolder"], 12), entry("bafyentry1", &[], 9)];
        let clock = Clock { latest, entries: 5, heads: vec!["bafyentry2".to_owned()], ..Clock::default() };
        let text = drawn(Screen::PLAIN, &clock, 61_000);
        assert_eq!(
            text,
            "●  abcdef  12  fyentry2  1 min ago  claim x3, finish\n\
             ●  abcdef   9  fyentry1  1 min ago  claim x3, finish\n\
             … 3 older; --last N shows more of them\n"
        );
        let dot = dot(&clock);
        assert!(dot.contains("\"bafyentry2\" -> \"bafyentry1\";") && !dot.contains("bafyolder"), "{dot}");
        assert!(dot.contains("label=\"abcdef 12\\nclaim x3, finish\\nfyentry2\", style=bold"), "{dot}");
    }
}
