//! Turns the peer messages into Rust, as proto/build.rs does for the program.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = "../../proto";
    println!("cargo::rerun-if-changed={protos}");
    let descriptors = protox::compile(["runmesh/v1/peer.proto"], [protos])?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    Ok(config.compile_fds(descriptors)?)
}
