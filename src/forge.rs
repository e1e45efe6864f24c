//! Where workflows live.
