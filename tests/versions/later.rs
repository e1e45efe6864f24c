//! runmesh as a later version might be: it knows one event kind more.

use std::process::ExitCode;

fn main() -> ExitCode {
    runmesh::cli::main()
}
