//! The commands, and what a person sees.
