//! The numbers of the rules of folding.
//!
//! Every member declares by an entry the greatest number that its version knows. What is introduced at number N counts
//! only in entries among whose ancestors every member has declared N or more: so no node ever meets a rule that it does
//! not know in a state that it should share.

/// The greatest number that this version knows.
pub const RULES: u32 = 2;

/// Checkpoints, acknowledgements and retirements count from this number on.
pub const HISTORY: u32 = 1;

/// Groups of tasks and withdrawals are written from this number on.
pub const GROUPS: u32 = 2;
