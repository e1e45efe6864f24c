//! The local control API: gRPC on a Unix socket in the data directory.

/// The messages and the service, generated from proto/runmesh/v1/control.proto, where they are described.
#[expect(unused_qualifications, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("runmesh.control.v1");
}
