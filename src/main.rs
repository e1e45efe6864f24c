//! Parse, start, exit code.

fn main() {}
