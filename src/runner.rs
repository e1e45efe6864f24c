//! How work is executed on this host: the backends and their supervisor.
