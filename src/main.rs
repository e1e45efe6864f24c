//! Parse, start, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    runmesh::cli::main()
}
