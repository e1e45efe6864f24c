//! How long a node waits for what. All in milliseconds of the clock that only goes forward.

/// The waits of a node; [`Timings::default`] is for a real network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two presences of a node that runs something, or of whose state something has changed just now. Own
    /// choice: three fit into the failure time.
    pub beat: u64,
    /// What each member that a node hears adds to its beat when it is idle, so that a node hears of all idle ones
    /// together so often: 5 presences a second. Own choice: checking and passing on one costs about 0.25 ms.
    pub idle_share: u64,
    /// The longest beat of an idle node, and the longest that others believe: three of it are a node's failure time.
    pub idle_beat: u64,
    /// Hearing nothing of a peer or a running task for this long is taken as its loss. The goal of DESIGN.md section
    /// 10 is a takeover within 4 s of silence; serf needs 5.4.
    pub failure: u64,
    /// After a closed connection: how long the peer may take to be heard again. The goal is a takeover within 1 s.
    pub close_grace: u64,
    /// The least wait of each further rank before it claims; four measured round trips if that is more.
    pub claim_delay: u64,
    /// What a task may exceed its time limit by before it counts as lost.
    pub held_grace: u64,
    /// How long a node that starts looks for a peer before it goes on alone, under a new incarnation.
    pub start: u64,
    /// Before a failed sync is tried again.
    pub retry: u64,
    /// How long changes of what this node offers or runs are collected before they are announced.
    pub announce: u64,
    /// How long changed heads are collected before they are announced.
    pub heads: u64,
    /// Between two questions to some peer although nothing seems to be missing: what a lost gossip message costs.
    pub round: u64,
    /// Between two discoveries of a source.
    pub discovery: u64,
    /// How old an entry is at least before a checkpoint may drop it. 7 days by default (DESIGN.md section 3).
    pub retention: u64,
    /// Between two checkpoints. Own choice: a seventh of the retention time, so history is at most that much longer.
    pub checkpoint: u64,
    /// How long a member writes nothing before the others stop waiting for it. 30 days by default (DESIGN.md section 3).
    pub retire: u64,
}

/// A day, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

impl Default for Timings {
    fn default() -> Self {
        Self {
            beat: 1_000,
            idle_share: 200,
            idle_beat: 10_000,
            failure: 3_000,
            close_grace: 400,
            claim_delay: 100,
            held_grace: 60_000,
            start: 5_000,
            retry: 1_000,
            announce: 10,
            heads: 200,
            round: 5_000,
            discovery: 60_000,
            retention: 7 * DAY,
            checkpoint: DAY,
            retire: 30 * DAY,
        }
    }
}

impl Timings {
    /// The same with another retention time, in milliseconds: checkpoints are a seventh of it apart.
    #[must_use]
    pub const fn keeping(self, retention: u64) -> Self {
        Self { retention, checkpoint: if retention < 7 { 1 } else { retention / 7 }, ..self }
    }
}
