//! Every limit on what comes from the network, with its reason.
//!
//! Limits on what is *inside* an entry are part of the entry format: a node that refused what another takes would split
//! the mesh, so they change only together with the format. Limits on messages may grow in a later version.

/// The most incarnations that a revocation names, and the most entries by which a peer proves its membership.
pub use crate::kernel::entry::MAX_CUTS;
pub use crate::kernel::entry::{MAX_EVENTS, MAX_NOTE, MAX_PARENTS};
pub use crate::kernel::io::MAX_CHAIN;
/// A part of a snapshot is as large as a page; of more parts than these none is fetched.
pub use crate::kernel::snapshot::{MAX_PARTS, PART};

/// The most bytes of one gossip message. The greatest presence fits, and an entry of the greatest size twice, so that a batch
/// is worth its overhead; a greater message would delay the small ones behind it.
pub const MAX_GOSSIP: usize = 192 * 1024;
/// The most bytes of a request: a vector of [`MAX_SYNC_AUTHORS`] with [`MAX_WANT`] ids.
pub const MAX_REQUEST: usize = 256 * 1024;
/// The most bytes of a response: a full page and what frames it, with room for later versions.
pub const MAX_RESPONSE: usize = 2 * 1024 * 1024;
/// The most bytes of entries in a page: large enough that round trips do not govern a long sync, small enough that a
/// page crosses a slow line (1 MiB/s) well within a request's time.
pub const MAX_PAGE: usize = 1024 * 1024;
/// The most entries in a page; checking their signatures takes about a quarter of a second.
pub const MAX_PAGE_ENTRIES: usize = 4096;
/// The most entries in a gossip message; the least entry has about 250 bytes.
pub const MAX_GOSSIP_ENTRIES: usize = 512;

/// The most bytes of an entry: [`MAX_PARENTS`] and events of about 50 KiB.
pub const MAX_ENTRY: usize = 64 * 1024;
/// The deepest nesting of an entry's CBOR. Events known today reach 8 levels.
pub const MAX_DEPTH: usize = 32;
/// The most CBOR items in an entry; each may take tens of bytes of memory. Events known today reach about 6,000.
pub const MAX_ITEMS: usize = 16 * 1024;

/// The most bytes of a workflow's path, a branch name or another git name: git hosts allow paths of 4,096 bytes, but
/// a path below `.github/workflows` that long is nobody's.
pub const MAX_PATH: usize = 1024;
/// The most bytes of a workflow's or repository's name. GitHub allows 39 + 100 for `owner/name`.
pub const MAX_NAME: usize = 256;
/// The most bytes of a short word: a host, a repository id, a commit, a cron line, a request id, an event's kind.
pub const MAX_WORD: usize = 256;
/// The most bytes of a label. GitHub's longest runner label has 100 characters.
pub const MAX_LABEL: usize = 100;
/// The most labels of a task or a host. GitHub allows 100 a runner.
pub const MAX_LABELS: usize = 64;
/// The most `workflow_dispatch` inputs; GitHub's own limit.
pub const MAX_INPUTS: usize = 25;
/// The most bytes of an input's name.
pub const MAX_INPUT_NAME: usize = 256;
/// The most bytes of all inputs' names and values together, so that one task always fits into an entry.
pub const MAX_INPUTS_BYTES: usize = 32 * 1024;
/// The most bytes of a concurrency group's name: a branch and a workflow's name fit.
pub const MAX_GROUP: usize = 1024;
/// The longest time limit of a task, in seconds: a week.
pub const MAX_TIME_LIMIT_S: u32 = 604_800;

/// The most authors in the vector of a sync request; beyond it a mesh needs a checkpoint.
pub const MAX_SYNC_AUTHORS: usize = 4096;
/// The most entries wanted by name in one sync request.
pub const MAX_WANT: usize = 512;
/// The most heads in a presence: what one entry can name as parents.
pub const MAX_HEADS: usize = MAX_PARENTS;
/// The most members that a presence says it does not hear.
pub const MAX_UNHEARD: usize = 512;
/// The most members whose presences are asked for, and given, at once: as many as a node remembers.
pub const MAX_PRESENCES: usize = 4096;
/// The most tasks that a presence says run on one host: as many as its settings allow slots. What it does not name is
/// taken to be lost.
pub const MAX_RUNNING: usize = 1024;
/// The most sources of one host.
pub const MAX_SOURCES: usize = 64;
/// The most bytes of a source's key.
pub const MAX_SOURCE: usize = 160;
/// The most repositories that one host says it looks into, of all its sources together: what a presence has room for.
/// Those beyond them are looked into by others besides, which costs calls.
pub const MAX_COVERED: usize = 8 * 1024;
/// The most bytes of a version's name.
pub const MAX_VERSION: usize = 64;
/// The most tasks in one question of turn.
pub const MAX_TURN: usize = 1024;
/// The most bytes of a log in one answer: few round trips for a long log, and little to hold for many askers.
pub const MAX_LOG_PIECE: usize = 256 * 1024;
/// The most bytes of why a request is refused.
pub const MAX_WHY: usize = 1000;

/// The most bytes of a peer exchange message: [`MAX_KNOWN`] peers with [`MAX_ADDRESSES`] addresses of usual length.
pub const MAX_PEERS: usize = 128 * 1024;
/// The most peers named in an exchange.
pub const MAX_KNOWN: usize = 64;
/// The most addresses of one peer: a host with a few networks, each by TCP and QUIC.
pub const MAX_ADDRESSES: usize = 16;
/// The most bytes of one address: a DNS name (253) and what stands around it.
pub const MAX_ADDRESS: usize = 384;

/// The most bytes of what a peer says before it has proven its membership: a ticket, or [`MAX_CHAIN`] admissions of
/// usual size (an entry that names a few heads and holds little else).
pub const MAX_PROOF: usize = 64 * 1024;

/// The most characters of a revocation's text: [`MAX_CUTS`] incarnations take about 32,000.
pub const MAX_REVOCATION_TEXT: usize = 64 * 1024;
/// The most characters of a ticket's text: [`MAX_ADDRESSES`] of the greatest size take about 10,000, and
/// [`MAX_LABELS`] of the greatest size as many.
pub const MAX_TICKET_TEXT: usize = 24 * 1024;

/// The most bytes of a runner's name. GitHub allows 64.
pub const MAX_RUNNER: usize = 64;
/// The most bytes of a runner's configuration; GitHub's have about 5,000.
pub const MAX_CONFIGURATION: usize = 64 * 1024;
/// The most jobs of a scale set in one question, and in its answer: as many as a host can have runners.
pub const MAX_JOBS: usize = 1024;
