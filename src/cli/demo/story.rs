//! The story: what the nodes report, told once and in words for somebody who has never seen a mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::screen::{Paint, Screen, paint_of, short_peer, span, workflow};
use crate::control::proto::Event;

/// The widest name of a workflow that the columns after it still line up with.
const NAME_WIDTH: usize = 22;

/// Tells events as lines of text.
#[derive(Debug)]
pub(super) struct Story {
    screen: Screen,
    /// The nodes' letters by their peer ids.
    names: BTreeMap<String, usize>,
    /// When each node took each task last, and for which attempt.
    taken: BTreeMap<(String, usize), (u32, Duration)>,
    /// What several nodes report is told once.
    told: BTreeSet<String>,
    /// What is special about workflows, by what [`workflow`] calls them.
    remarks: BTreeMap<String, &'static str>,
}

/// The letter of a node.
pub(super) fn letter(node: usize) -> String {
    char::from(b'A' + u8::try_from(node % 26).unwrap_or_default()).to_string()
}

impl Story {
    pub(super) fn new(screen: Screen, remarks: BTreeMap<String, &'static str>) -> Self {
        Self { screen, names: BTreeMap::new(), taken: BTreeMap::new(), told: BTreeSet::new(), remarks }
    }

    /// From now on this peer is called by that node's letter.
    pub(super) fn introduce(&mut self, node: usize, peer_id: &str) {
        self.names.insert(peer_id.to_owned(), node);
    }

    /// The nodes by their peer ids.
    pub(super) const fn names(&self) -> &BTreeMap<String, usize> {
        &self.names
    }

    /// A peer's letter in its colour, or the end of its name.
    fn name(&self, peer_id: &str) -> String {
        match self.names.get(peer_id) {
            Some(node) => self.screen.paint(Paint::Actor(*node), &letter(*node)),
            None => short_peer(peer_id).to_owned(),
        }
    }

    /// A line that a node says.
    pub(super) fn line(&self, at: Duration, node: usize, text: &str) -> String {
        let time = self.screen.paint(Paint::Faint, &format!("{:5.1} s", at.as_secs_f64()));
        format!("  {time}  {}  {text}", self.screen.paint(Paint::Actor(node), &letter(node)))
    }

    /// What the node's event says that has not been told, if anything.
    pub(super) fn tell(&mut self, at: Duration, node: usize, event: &Event) -> Option<String> {
        let what = match (&event.repository, &event.path) {
            (Some(repository), Some(path)) => workflow(repository, path),
            _ => String::new(),
        };
        let task = event.task.clone().unwrap_or_default();
        let attempt = event.attempt.unwrap_or(1);
        let peer = event.peer.clone().unwrap_or_default();
        let (speaker, once, text) = match event.kind.as_str() {
            "introduced" => (node, format!("introduced {task}"), format!("found       {what}")),
            "elected" => {
                self.taken.insert((task.clone(), node), (attempt, at));
                (node, format!("elected {task} {attempt} {node}"), self.elected(event, &what, attempt))
            }
            // Two took it before they heard of each other.
            "held" if self.names.get(&peer) != Some(&node) && self.took(&task, node) == Some(attempt) => {
                let text =
                    format!("{:<10}  {what:<NAME_WIDTH$}  {} took it too and is closer", "yields", self.name(&peer));
                (node, format!("yields {task} {attempt} {node}"), text)
            }
            "ended" => {
                let speaker = self.names.get(&peer).copied().unwrap_or(node);
                let text = self.ended(at, speaker, event, &what);
                (speaker, format!("ended {task} {:?} {:?}", event.state, event.conclusion), text)
            }
            "missed" => {
                let text = format!("misses      {what:<NAME_WIDTH$}  {} is gone, which ran it", self.name(&peer));
                (node, format!("missed {task} {attempt} {peer}"), text)
            }
            "released" => {
                let speaker = self.names.get(&peer).copied().unwrap_or(node);
                let note = event.note.as_deref().unwrap_or_default();
                (
                    speaker,
                    format!("released {task} {attempt} {peer}"),
                    format!("gives back  {what:<NAME_WIDTH$}  {note}"),
                )
            }
            // A founder admits itself.
            "admitted" if self.names.get(&peer) == Some(&node) => return None,
            "admitted" => (node, format!("admitted {peer}"), format!("admits      {} to the mesh", self.name(&peer))),
            "peer-heard" => (node, format!("heard {node} {peer} {at:?}"), format!("hears       {}", self.name(&peer))),
            "peer-lost" => (node, format!("lost {node} {peer} {at:?}"), format!("lost sight  of {}", self.name(&peer))),
            "equivocation" | "warning" => {
                (node, event.text.clone(), self.screen.paint(Paint::Warn, &format!("notes       {}", event.text)))
            }
            _ => return None,
        };
        self.told.insert(once).then(|| self.line(at, speaker, &text))
    }

    fn elected(&self, event: &Event, what: &str, attempt: u32) -> String {
        let rank = event.rank.unwrap_or_default();
        let candidates = event.candidates.unwrap_or_default();
        let place = match (rank, candidates) {
            (_, 0 | 1) => "the only one free now".to_owned(),
            (0, _) => format!("the closest of {candidates} free ones"),
            _ => format!("the {} closest of {candidates} free ones", ordinal(rank + 1)),
        };
        let verb = if attempt > 1 { "takes over" } else { "takes" };
        let why = format!("{place}: {} of 256 bits away", event.distance.unwrap_or_default());
        let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
        format!("{verb:<10}  {what:<NAME_WIDTH$}  {}", self.screen.paint(Paint::Faint, &format!("{why}{again}")))
    }

    /// The attempt for which the node took the task last.
    fn took(&self, task: &str, node: usize) -> Option<u32> {
        self.taken.get(&(task.to_owned(), node)).map(|(attempt, _)| *attempt)
    }

    fn ended(&self, at: Duration, holder: usize, event: &Event, what: &str) -> String {
        let word = event.conclusion.as_deref().or(event.state.as_deref()).unwrap_or("ended");
        let took = event.task.clone().and_then(|task| self.taken.get(&(task, holder)));
        let took = took.map(|(_, taken)| {
            let ms = at.saturating_sub(*taken).as_millis();
            format!(" after {}", span(u64::try_from(ms).unwrap_or(u64::MAX)))
        });
        let remark = self.remarks.get(what).filter(|remark| !remark.is_empty());
        let remark = remark.map(|remark| self.screen.paint(Paint::Faint, &format!("  {remark}")));
        let word = self.screen.paint(paint_of(word), word);
        format!(
            "{:<10}  {what:<NAME_WIDTH$}  {word}{}{}",
            "finished",
            took.unwrap_or_default(),
            remark.unwrap_or_default()
        )
    }
}

fn ordinal(number: u32) -> String {
    match number {
        1 => "1st".to_owned(),
        2 => "2nd".to_owned(),
        3 => "3rd".to_owned(),
        _ => format!("{number}th"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str) -> Event {
        Event {
            kind: kind.to_owned(),
            task: Some("7a".repeat(32)),
            peer: Some("12D3KooWholder".to_owned()),
            repository: Some("api".to_owned()),
            path: Some(".github/workflows/build.yml".to_owned()),
            ..Event::default()
        }
    }

    fn story() -> Story {
        let mut story =
            Story::new(Screen::PLAIN, BTreeMap::from([("api/build.yml".to_owned(), "it fails on purpose")]));
        story.introduce(1, "12D3KooWholder");
        story
    }

    #[test]
    fn an_election_is_told_with_rank_and_distance() {
        let mut story = story();
        let elected =
            Event { rank: Some(0), distance: Some(117), candidates: Some(3), attempt: Some(1), ..event("elected") };
        let line = story.tell(Duration::from_millis(2100), 1, &elected).unwrap();
        assert_eq!(
            line,
            "    2.1 s  B  takes       api/build.yml           the closest of 3 free ones: 117 of 256 bits away"
        );
        let again = Event { rank: Some(1), attempt: Some(2), ..elected };
        let line = story.tell(Duration::from_secs(9), 0, &again).unwrap();
        assert_eq!(
            line,
            "    9.0 s  A  takes over  api/build.yml           the 2nd closest of 3 free ones: 117 of 256 bits away, attempt 2"
        );
    }

    #[test]
    fn an_ending_is_told_once_by_its_holder_with_what_is_special() {
        let mut story = story();
        story.tell(Duration::from_secs(1), 1, &event("elected"));
        let ended = Event { state: Some("completed".into()), conclusion: Some("failure".into()), ..event("ended") };
        let line = story.tell(Duration::from_secs(4), 0, &ended).unwrap();
        assert_eq!(line, "    4.0 s  B  finished    api/build.yml           failure after 3.0 s  it fails on purpose");
        assert_eq!(story.tell(Duration::from_secs(5), 2, &ended), None);
    }

    #[test]
    fn who_took_a_task_at_the_same_time_yields_once() {
        let mut story = story();
        let held = Event { attempt: Some(1), ..event("held") };
        assert_eq!(story.tell(Duration::ZERO, 0, &held), None);
        story.tell(Duration::ZERO, 0, &Event { attempt: Some(1), ..event("elected") });
        let line = story.tell(Duration::from_secs(1), 0, &held).unwrap();
        assert_eq!(line, "    1.0 s  A  yields      api/build.yml           B took it too and is closer");
        assert_eq!(story.tell(Duration::from_secs(1), 0, &held), None);
        assert_eq!(story.tell(Duration::from_secs(1), 1, &held), None);
    }

    #[test]
    fn what_a_newcomer_need_not_know_is_not_told() {
        assert_eq!(story().tell(Duration::ZERO, 0, &event("held")), None);
        assert_eq!(story().tell(Duration::ZERO, 0, &event("something-new")), None);
    }
}
