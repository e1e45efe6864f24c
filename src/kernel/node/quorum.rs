//! Whether this node hears enough of its mesh to go on with work that must not run twice.
//!
//! A source may say `stop` for a holder that is cut off (DESIGN.md section 4): its tasks are claimed and kept only while
//! more than half of the members are heard. Two parts of a mesh cannot both have more than half. What is counted as heard
//! here is heard lately enough that the holder stops before the others, who wait for the whole failure time, take over:
//! that narrows double execution. It cannot exclude it, since clocks run at different speeds, a machine may be halted in
//! between, and stopping takes time.

use super::Node;

impl Node {
    /// Until when more than half of the members are heard, this node among them, if nothing more is heard of any;
    /// `None` when they are not heard now.
    pub(super) fn majority_until(&self) -> Option<u64> {
        let members = self.clock.members();
        // With itself, half of them and one more.
        let Some(others) = (members.all().count() / 2).checked_sub(1) else { return Some(u64::MAX) };
        let heard = self.peers.heard().filter(|peer| members.contains(&peer.place.peer()));
        let mut until: Vec<u64> = heard.map(|peer| peer.last + self.cut_off_after()).collect();
        until.sort_unstable_by(|a, b| b.cmp(a));
        until.get(others).copied().filter(|until| self.now.mono < *until)
    }

    /// For how long a peer that says nothing more counts as heard here: half of the failure time. The others have heard
    /// this node at most a beat earlier than it them, and the rest is for stopping.
    fn cut_off_after(&self) -> u64 {
        self.settings.timings.failure / 2
    }
}
