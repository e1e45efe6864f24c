//! Turns proto/runmesh/v1/*.proto into Rust, with no protoc on the machine.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files = Vec::new();
    for entry in fs::read_dir("proto/runmesh/v1")? {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        // What `--output json` prints is what the control API answers.
        .type_attribute(".runmesh.control.v1", "#[derive(serde::Serialize)]")
        // The generated field is `self_`, since `self` is a word of Rust.
        .field_attribute(".runmesh.control.v1.Member.self", "#[serde(rename = \"self\")]")
        // Nobody intercepts or tunes each generated service apart.
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
