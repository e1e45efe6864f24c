//! Parse, start, exit code.

use std::process::ExitCode;

#[cfg(feature = "later")]
compile_error!("the feature `later` is for tests/versions.rs, which builds `--example later` with it and nothing else");

fn main() -> ExitCode {
    runmesh::cli::main()
}
