//! Entries and peer messages to and from bytes, with every size and depth limit in one place.
