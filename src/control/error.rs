//! What can go wrong between a command and the node, in words that say what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

/// Why a node was not reached, could not be offered, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there: commands end with exit status 3.
    #[error("no node answers at {dir}: start one with `runmesh node run --data-dir {dir}`", dir = data_dir.display())]
    NoNode { data_dir: PathBuf },
    #[error("the node at {dir} belongs to another user: run this as that user, or as root", dir = data_dir.display())]
    Denied { data_dir: PathBuf },
    #[error("the node at {dir} did not answer within {} s: see its log, or try again", within.as_secs(), dir = data_dir.display())]
    TimedOut { data_dir: PathBuf, within: Duration },
    #[error("the node at {dir} went away before it had answered ({why})", dir = data_dir.display())]
    Gone { data_dir: PathBuf, why: String },
    /// The node's own sentence.
    #[error("{sentence}")]
    Refused { code: Code, sentence: String },
    #[error("the path of the control socket {path} is too long for this system ({length} bytes, at most {most}): choose a shorter --data-dir", path = path.display())]
    TooLong { path: PathBuf, length: usize, most: usize },
    #[error("a node answers at {path} already", path = path.display())]
    Taken { path: PathBuf },
    #[error("{path} is not a socket and is not replaced: move it away", path = path.display())]
    NotASocket { path: PathBuf },
    #[error("{doing} the control socket {path}: {source}", path = path.display())]
    Socket { doing: &'static str, path: PathBuf, source: io::Error },
}
