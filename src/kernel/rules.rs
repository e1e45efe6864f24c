//! The numbers of the rules of folding.
//!
//! Every member declares by an entry the greatest number that its version knows. What is introduced at number N counts
//! only in entries among whose ancestors every member has declared N or more: so no node ever meets a rule that it does
//! not know in a state that it should share. Until then a mesh of several versions works by the rules that all know; a
//! node that meets entries under rules that it does not know (it was set back to an older version) decides nothing.
//!
//! A new kind of event gets a number here. A new field of a known kind does too, and is left out before that number is
//! in force: a version that does not know the field takes the whole entry for forged.

use super::entry::Event;

/// The greatest number that this version knows.
pub const RULES: u32 = if cfg!(feature = "later") { 3 } else { 2 };

/// Checkpoints, acknowledgements and retirements count from this number on.
pub const HISTORY: u32 = 1;

/// Groups of tasks are heeded, and withdrawals written and counted, from this number on.
pub const GROUPS: u32 = 2;

/// What only the build of tests/versions.rs knows.
#[cfg(feature = "later")]
pub const LATER: u32 = 3;

/// From which number on what this event says of a task counts.
pub const fn since(event: &Event) -> u32 {
    match event {
        Event::Withdraw(_) => GROUPS,
        #[cfg(feature = "later")]
        Event::CallOff(_) => LATER,
        _ => 0,
    }
}
