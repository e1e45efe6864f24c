//! Parse, start, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|word| word == "reap") {
        runmesh::runner::reaper::main(arguments)
    } else {
        ExitCode::SUCCESS
    }
}
