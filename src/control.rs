//! The local control API: gRPC on a Unix socket in the data directory.
