//! The only place where the rooms meet.
