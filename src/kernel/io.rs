//! What goes into the kernel and what comes out: the whole of its contact with the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, Revoke, Ticket};
use super::id::{Author, Cid, Digest, PeerId, TaskId};
use super::known::Gone;
use super::node::Split;
use super::task::{Conclusion, Fence, Products, ReleaseReason, Workload};

/// The time, as the daemon reads it. The kernel has no clock of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that only goes forward; all waiting is measured by it.
    pub mono: u64,
    /// Milliseconds since 1970 by the host's clock. It may be wrong and may jump; only labels and a ticket's expiry
    /// read it.
    pub wall: u64,
}

/// How many entries of each author one has, counting only entries whose ancestors are all here.
pub type Vector = BTreeMap<Author, u64>;

/// The name of something tasks come from, alike on all nodes: `git:ID` for a local repository, `HOST/OWNER` for GitHub.
pub type SourceKey = String;

/// A request or command that waits for an answer; the daemon's own number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The most entries by which a peer proves its membership. Own choice: members that each admitted only the next would be
/// a long chain already; anybody who knows one of them is enough.
pub const MAX_CHAIN: usize = 32;

/// What this host has to offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The most tasks at once.
    pub slots: u32,
    /// Labels that `runs-on` may ask for, lower case.
    pub labels: BTreeSet<String>,
    /// Sources that this host lists and can reach.
    pub sources: BTreeSet<SourceKey>,
}

/// What a node says of itself now. Gossip, never an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    pub peer: PeerId,
    /// Random, new at every start of the node.
    pub life: u64,
    /// Grows with every presence of this life; an older one is ignored.
    pub beat: u64,
    /// After how long at most the next presence follows, in milliseconds; 0 is the shortest beat.
    pub every: u32,
    /// This node has to know at any time whom it hears: all that hear it beat by the shortest rhythm.
    pub attentive: bool,
    pub heads: BTreeSet<Cid>,
    pub offer: Offer,
    /// Slots that nothing occupies now.
    pub free: u32,
    pub draining: bool,
    /// Its operator lets it take nothing new for now; it stays.
    pub cordoned: bool,
    /// What runs or is about to run here, and under which fence.
    pub running: BTreeMap<TaskId, Fence>,
    /// The members this node does not hear now: few, where it would take a presence's greater part to name the others.
    pub unheard: BTreeSet<PeerId>,
    /// For each source: how long ago its last good discovery by this node was, in milliseconds.
    pub discovered: BTreeMap<SourceKey, u64>,
    /// For each source that others list too: the repositories of it that this node looks into, so that those of its
    /// repositories that this node cannot see are known for such.
    pub covers: BTreeMap<SourceKey, BTreeSet<RepositoryMark>>,
    /// The version of the program, for people.
    pub version: String,
}

/// A presence, and the bytes that its peer signed: by these anybody can pass it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub presence: Presence,
    pub bytes: Box<[u8]>,
}

/// Names a repository in a presence, in few bytes: the beginning of the hash of its id. Two of a thousand repositories
/// share one in a source in eight thousand; then the second is taken to be looked into, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryMark(pub u32);

impl RepositoryMark {
    /// The mark of a repository by its id.
    pub fn of(id: &str) -> Self {
        let [a, b, c, d, ..] = Digest::of(&[b"runmesh repository", id.as_bytes()]).0;
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

/// What one node asks another directly.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Send what I lack: I have this, and want these entries by name besides.
    Sync { vector: Vector, want: BTreeSet<Cid> },
    /// I am about to claim these tasks out of turn; you stand before me.
    Turn { tasks: BTreeSet<TaskId> },
    /// Admit me by this ticket.
    Join { ticket: Ticket },
    /// I am a member, by these entries: each admits the author of the one before, the first me.
    Prove { chain: Vec<Arc<Entry>> },
    /// Send this part of the snapshot of that hash, counted from 0.
    Snapshot { hash: Digest, part: u32 },
    /// Send the latest presences of these members, of which I hear nothing, as far as you hear them.
    Presences { of: BTreeSet<PeerId> },
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// Entries that the asker lacked, parents before children; `more` when the page was full.
    Page { entries: Vec<Arc<Entry>>, more: bool },
    /// The tasks among those asked for that the asked node takes or has taken itself.
    Turn { mine: BTreeSet<TaskId> },
    /// The asker is a member now.
    Admitted,
    /// What the asker lacks was dropped; the snapshot of this hash stands for it, in so many parts.
    Beneath { hash: Digest, parts: u32 },
    /// A part of a snapshot, of so many.
    Part { bytes: Vec<u8>, parts: u32 },
    /// Presences, each with how many milliseconds ago the answering node heard it.
    Presences { heard: Vec<(Arc<Signed>, u64)> },
    /// No, and why.
    Refused { why: String },
}

/// What a [`Response`] is made of before its bytes are read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// These entries in this order, as many as a page holds. The answer says `more` when this does, or when not all
    /// of these fitted.
    Page {
        cids: Vec<Cid>,
        more: bool,
    },
    Turn {
        mine: BTreeSet<TaskId>,
    },
    Admitted,
    Beneath {
        hash: Digest,
        parts: u32,
    },
    Part {
        bytes: Vec<u8>,
        parts: u32,
    },
    /// These presences, each heard so many milliseconds ago, and this node's own, to be signed, if it was asked for.
    Presences {
        own: Option<Box<Presence>>,
        heard: Vec<(Arc<Signed>, u64)>,
    },
    Refused {
        why: String,
    },
}

/// What the runner room reports of a task that it was told to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It ran, and this came of it.
    Finished { conclusion: Conclusion, duration_ms: u64, note: String },
    /// It failed before the workflow's first step.
    NotStarted { why: String },
    /// It was stopped as it was told, and nothing of it runs any more.
    Stopped,
    /// This host cannot run it, as it found out before the first step: another may.
    Declined { why: String },
    /// Nobody works at it here, and nothing of it runs.
    GivenBack { reason: ReleaseReason, why: String },
}

/// What a look into a source has found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Discovery {
    /// Everything of it that should run now.
    pub workloads: Vec<Workload>,
    /// What is only taken note of: it is not run, now or when it is found again.
    pub recorded: Vec<Workload>,
    /// What is there no more.
    pub gone: Vec<Gone>,
    /// The repositories that were looked into.
    pub seen: BTreeSet<RepositoryMark>,
}

/// Everything that can happen to a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Nothing happened but time: `next_wake` has come.
    Wake,
    /// A connection to a peer stands that the transport has identified.
    Connected(PeerId),
    /// The last connection to it is gone.
    Disconnected(PeerId),
    /// Entries by gossip, already opened and of this mesh.
    Entries { from: PeerId, entries: Vec<Arc<Entry>> },
    /// A presence whose signature is its peer's.
    Presence(Arc<Signed>),
    /// A peer asks; answered by [`Output::Reply`] with the same token.
    Request { from: PeerId, token: Token, request: Request },
    /// The answer to an [`Output::Request`] of that token.
    Response { from: PeerId, token: Token, response: Response },
    /// No answer will come: timed out, refused by the transport, or not understood.
    Unanswered { from: PeerId, token: Token },
    /// What this host offers, at the start and whenever it changes.
    Offer(Offer),
    /// The sources whose tasks are claimed and kept here only while more than half of the members are heard.
    Careful(BTreeSet<SourceKey>),
    /// Discovery of a source succeeded.
    Discovered { source: SourceKey, found: Discovery },
    /// How this host shares its slots between the mesh's tasks and GitHub's jobs.
    Split(Split),
    /// Somebody has looked which jobs wait at GitHub: those, and tasks of jobs that are over, with what became of them.
    Jobs { queued: Vec<Workload>, over: Vec<(TaskId, String)> },
    /// GitHub has given this job to a runner of this host.
    Serves(Box<Workload>),
    /// Discovery of a source failed, and may not succeed for so many milliseconds, where that was told.
    Undiscovered { source: SourceKey, wait_ms: Option<u64> },
    /// A person or program submits a task; answered by [`Output::Answer`].
    Submit { token: Token, workload: Box<Workload> },
    /// A person or program cancels a task; answered by [`Output::Answer`].
    Cancel { token: Token, task: TaskId, why: String },
    /// The holder of the mesh key puts a peer out; answered by [`Output::Revoked`].
    Revoke { token: Token, revoke: Box<Revoke> },
    /// A person or program pauses the whole mesh; answered by [`Output::Answer`] without a task.
    Pause { token: Token, why: String },
    /// And resumes it; answered alike.
    Resume { token: Token },
    /// The runner room reports; `products` are kept already, and read only where it finished.
    Ran { task: TaskId, fence: Fence, report: Report, products: Products },
    /// Claim nothing until [`Input::Uncordon`]; what runs goes on, and everything else too.
    Cordon,
    /// Claim again.
    Uncordon,
    /// Claim nothing more; with `hand_over`, give back what runs at once, else let it finish.
    Drain { hand_over: bool },
}

/// Everything that a node can make happen. The daemon carries outputs out in their order, and none before the entries
/// persisted ahead of it are on disk: persist, then publish, then start.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Put these on disk, in this order.
    Persist(Vec<Arc<Entry>>),
    /// Gossip these.
    Publish(Vec<Arc<Entry>>),
    /// Gossip this presence, signed.
    Announce(Box<Presence>),
    /// Ask a peer; [`Input::Response`] or [`Input::Unanswered`] follows.
    Request { to: PeerId, token: Token, request: Request },
    /// Answer a peer's request.
    Reply { to: PeerId, token: Token, reply: Reply },
    /// Run a task.
    Start { task: TaskId, fence: Fence, workload: Arc<Workload> },
    /// Stop a task and everything it started; [`Report::Stopped`] follows.
    Stop { task: TaskId, fence: Fence, why: StopReason },
    /// Look for what should run in the source, but for those of its repositories that others look into.
    Discover { source: SourceKey, except: BTreeSet<RepositoryMark> },
    /// The answer to a command: the task it concerns, or why not.
    Answer { token: Token, answer: Result<Option<TaskId>, String> },
    /// The answer to a revocation: who was revoked, or why not.
    Revoked { token: Token, answer: Result<PeerId, String> },
    /// Put this snapshot on disk in the place of the one before, and forget these entries, both or neither.
    Condense { snapshot: Arc<[u8]>, dropped: Vec<Cid> },
    /// Something that people want to see.
    Notice(Notice),
}

/// Why running work is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Another claim holds.
    Lost,
    /// Somebody cancelled the task, or it ended elsewhere.
    Ended,
    /// This node goes away.
    HandedOver,
    /// An older task of its concurrency group runs elsewhere.
    Yielded,
    /// This node does not hear more than half of the members, and the task's source says `stop` for that.
    CutOff,
}

/// What happened, for people: logs, `inspect events`, the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// This node found a task in a source.
    Introduced { task: TaskId, workload: Arc<Workload> },
    /// This node takes a task. `rank` counts from 0; `distance` is in bits, 0 to 256; `candidates` is how many could.
    Elected { task: TaskId, attempt: u32, rank: u32, distance: u32, candidates: u32 },
    /// A task's holder changed by an entry.
    Held { task: TaskId, holder: PeerId, fence: Fence },
    /// A holder gave a task back.
    Released { task: TaskId, holder: PeerId, note: String },
    /// A task that `holder` ran is heard of no more; its next attempt is open.
    Missed { task: TaskId, holder: PeerId },
    /// A task ended; the word is its state's, the conclusion only with `completed`.
    Ended { task: TaskId, word: &'static str, conclusion: Option<Conclusion>, holder: Option<PeerId>, note: String },
    /// A member is heard that was not before.
    PeerHeard { peer: PeerId },
    /// A member is not heard any more.
    PeerLost { peer: PeerId },
    /// A peer became a member.
    Admitted { peer: PeerId, by: PeerId },
    /// A peer was put out by the mesh key.
    Revoked { peer: PeerId },
    /// Two entries of one author with one sequence number.
    Equivocation { author: Author, sequence: u64, first: Cid, second: Cid },
    /// An entry or a request was not taken, and why.
    Refused { from: PeerId, why: String },
    /// What lay beneath a checkpoint was dropped: so many entries, and so many stay.
    Condensed { dropped: usize, kept: usize },
    /// A member has paused the mesh: no node claims anything.
    Paused { by: PeerId, why: String },
    /// The mesh is not paused any more.
    Resumed,
    /// Something the operator should know.
    Warning { text: String },
}
