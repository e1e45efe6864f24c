//! The rooms that read what others send, without the rest of the house: they build in a minute with coverage, where
//! the whole program takes ten.

#[path = "../../src"]
mod house {
    pub mod kernel;
    pub mod wire;
}

pub use house::{kernel, wire};

#[path = "../mutations/formats.rs"]
pub mod formats;

// What is shared names these rooms as tests of the program do.
extern crate self as runmesh;
