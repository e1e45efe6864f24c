//! The walls of the house: which room may import which, and what the pure rooms may not touch.
//!
//! The rooms and their order are read from the documentation in src/lib.rs, the paths from the tokens of every source
//! file: `use` trees and paths in the code alike, with what a file renames followed, and with comments and strings left
//! out. Tests inside a room are held to the same rules.

mod house {
    pub(crate) mod paths;
    pub(crate) mod tokens;
}

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use house::paths::{self, Mention};

/// Rooms that see nothing of the world.
const PURE: [&str; 2] = ["kernel", "workflow"];

/// What the pure rooms may not name: clocks, files, processes, threads, the environment, chance, and the libraries
/// whose types belong to the rim. A name also stands for everything below it.
const IMPURE: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "tokio",
    "tokio_stream",
    "futures",
    "libp2p",
    "octocrab",
    "tonic",
    "tower",
    "hyper",
    "hyper_util",
    "reqwest",
    "redb",
    "rustix",
    "clap",
    "tracing",
    "rand",
    "rand_core",
    "getrandom",
    "fastrand",
];

/// Rooms that see less of the house than the order alone would allow.
const NARROWER: &[(&str, &[&str])] = &[("wire", &["kernel"])];

/// The order of the rooms. A room may import those of a lesser rank; equal ranks never each other.
struct House {
    rank: BTreeMap<String, usize>,
}

impl House {
    /// Reads the list in the documentation of src/lib.rs: one rank an item, its rooms the links before the colon or
    /// later in the item.
    fn read(lib: &str) -> Self {
        let mut rank = BTreeMap::new();
        let mut items = 0;
        for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
            if line.starts_with("- ") {
                items += 1;
            } else if !line.starts_with("  ") {
                continue;
            }
            for link in line.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")) {
                rank.insert(link.0.to_owned(), items);
            }
        }
        Self { rank }
    }

    /// What is wrong in a source file, by its path below src.
    fn faults(&self, file: &str, text: &str) -> Vec<String> {
        let place = paths::module_of(file);
        let Some(room) = place.first() else { return Vec::new() };
        let mut faults = BTreeSet::new();
        for mention in paths::mentions(&place, text) {
            if let Some(why) = self.fault(room, &mention) {
                faults.insert(format!("src/{file}:{}: `{}`: {why}", mention.line, mention.path.join("::")));
            }
        }
        faults.into_iter().collect()
    }

    fn fault(&self, room: &str, mention: &Mention) -> Option<String> {
        let path: Vec<_> = mention.path.iter().map(String::as_str).collect();
        if let ["crate", rest @ ..] = path.as_slice() {
            return match rest {
                [] | ["*"] => Some("takes the whole house; name the room".to_owned()),
                [other, ..] if *other == room => None,
                [other, ..] => self.wall(room, other),
            };
        }
        if !PURE.contains(&room) {
            return None;
        }
        let spelled = match path.as_slice() {
            ["core" | "alloc", rest @ ..] => [&["std"], rest].concat(),
            other => other.to_vec(),
        };
        IMPURE.iter().find_map(|impure| {
            let impure: Vec<_> = impure.split("::").collect();
            let names_it = spelled.starts_with(&impure);
            // `use std::time::*` brings `Instant` along.
            let takes_all = spelled.split_last().is_some_and(|(last, above)| *last == "*" && impure.starts_with(above));
            (names_it || takes_all).then(|| format!("the {room} room is pure and may not use {}", impure.join("::")))
        })
    }

    fn wall(&self, room: &str, other: &str) -> Option<String> {
        let (Some(mine), Some(theirs)) = (self.rank.get(room), self.rank.get(other)) else {
            return Some(format!("`{room}` or `{other}` is no room that src/lib.rs names"));
        };
        let narrower = NARROWER.iter().find(|(narrow, _)| *narrow == room);
        if narrower.is_some_and(|(_, allowed)| !allowed.contains(&other)) {
            return Some(format!("the {room} room imports only {:?}", narrower.map(|(_, allowed)| *allowed)?));
        }
        (theirs >= mine).then(|| format!("the {room} room may not import the {other} room: only rooms above it"))
    }
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the source folder is there") {
        let path = entry.expect("the source folder is readable").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn house() -> House {
    House::read(&fs::read_to_string(src().join("lib.rs")).expect("src/lib.rs is readable"))
}

#[test]
fn no_wall_is_broken() {
    let (house, mut faults, mut looked_at) = (house(), Vec::new(), BTreeSet::new());
    for path in source_files(&src()) {
        let file = path.strip_prefix(src()).unwrap().to_str().unwrap().replace('\\', "/");
        looked_at.extend(paths::module_of(&file).into_iter().next());
        faults.extend(house.faults(&file, &fs::read_to_string(&path).unwrap()));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(house.rank.keys().all(|room| looked_at.contains(room)), "each room has a file: {looked_at:?}");
}

#[test]
fn the_documentation_names_every_room_in_its_order() {
    let house = house();
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let declared: BTreeSet<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    assert_eq!(declared, house.rank.keys().cloned().collect());
    let rank = |room: &str| house.rank[room];
    assert!(rank("kernel") < rank("workflow") && rank("workflow") < rank("wire") && rank("wire") < rank("net"));
    for rim in ["forge", "runner", "store", "control"] {
        assert_eq!(rank(rim), rank("net"));
    }
    assert!(rank("net") < rank("daemon") && rank("daemon") < rank("cli"));
}

/// The tests that README.md names: what is written between backticks in the table of promises, files and functions.
fn promised(readme: &str) -> Vec<String> {
    let (_, table) = readme.split_once("| promise | tests |").expect("the table of promises");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let tests = rows.filter_map(|row| row.split('|').nth(2));
    tests.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn each_test_that_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = promised(&fs::read_to_string(root.join("README.md")).expect("README.md"));
    assert!(named.len() > 12, "{named:?}");
    let texts: Vec<String> = [root.join("src"), root.join("tests")]
        .iter()
        .flat_map(|folder| source_files(folder))
        .map(|path| fs::read_to_string(path).expect("readable"))
        .collect();
    for name in named {
        let is_there = match name.contains('/') {
            true => root.join(&name).exists(),
            false => texts.iter().any(|text| text.contains(&format!("fn {name}("))),
        };
        assert!(is_there, "README.md names `{name}`, and there is no such test");
    }
}

#[test]
fn planted_faults_are_found() {
    let planted = [
        // Upward, sideways, and past the narrower rule.
        ("kernel/node.rs", "use crate::wire::Message;"),
        ("kernel.rs", "use crate::daemon;"),
        ("workflow.rs", "use crate::{kernel::id::Cid, wire};"),
        ("wire/limits.rs", "use crate::workflow::Tags;"),
        ("net/swarm.rs", "use crate::store;"),
        ("store.rs", "fn f() { crate::control::serve(); }"),
        ("forge.rs", "type T = <crate::runner::R as Into<u8>>::Out;"),
        ("daemon.rs", "use crate::cli;"),
        // By the way up.
        ("kernel/node.rs", "use super::super::net::Client;"),
        ("kernel.rs", "use super::net::Client;"),
        ("kernel.rs", "mod inner { use super::super::net::Client; }"),
        ("kernel/queue/heap.rs", "fn f() -> super::super::super::net::Client { todo!() }"),
        ("net.rs", "mod tests { fn f() { super::super::store::open() } }"),
        ("net.rs", "fn f() { self::super::store::open() }"),
        // By another name.
        ("kernel.rs", "use crate as house; fn f() { house::net::x() }"),
        ("kernel.rs", "use crate::*;"),
        ("kernel.rs", "use crate::{kernel::id, *};"),
        ("kernel.rs", "extern crate self as runmesh;"),
        ("kernel.rs", "macro_rules! m { () => { $crate::net::x() } }"),
        ("kernel.rs", "pub(crate) use crate::net::x as y;"),
        ("kernel.rs", "use r#crate::x; use crate::r#net::x;"),
        ("kernel.rs", "use crate::nowhere::x;"),
        // What the pure rooms may not touch.
        ("kernel.rs", "use std::time::Instant;"),
        ("kernel.rs", "use std::time::{Duration, SystemTime as S};"),
        ("kernel.rs", "use std::{collections::BTreeMap, time::{self, Duration}}; fn f() { time::Instant::now(); }"),
        ("kernel.rs", "fn f() { std::time::Instant::now(); }"),
        ("kernel.rs", "fn f() { ::std::fs::read(\"\"); }"),
        ("kernel.rs", "use std as s; fn f() { s::env::args(); }"),
        ("kernel.rs", "use std::time as t; use t as u; fn f() { u::Instant::now(); }"),
        ("kernel.rs", "use std::time::*;"),
        ("kernel.rs", "use std::*;"),
        ("kernel.rs", "use core::net::IpAddr;"),
        ("kernel.rs", "extern crate std as s; use s::process::id;"),
        ("kernel.rs", "#[cfg(test)] mod tests { use std::thread; }"),
        ("kernel.rs", "use tokio;"),
        ("kernel.rs", "use tokio::sync::mpsc;"),
        ("kernel.rs", "fn f() { rand::random::<u8>(); }"),
        ("kernel.rs", "fn f() { getrandom::fill(&mut []); }"),
        ("kernel.rs", "#[derive(tonic::Message)] struct S;"),
        ("kernel.rs", "fn f() -> Vec<libp2p::PeerId> { vec![] }"),
        ("workflow/tags.rs", "use octocrab::Octocrab;"),
        ("workflow.rs", "use std::net::TcpStream;"),
        // Behind what looks like a comment or a string, and is none.
        ("kernel.rs", "/* /* */ */ use std::fs;"),
        ("kernel.rs", "const S: &str = \"\\\"\"; use std::fs;"),
        ("kernel.rs", "const C: char = '\"'; use std::fs; const D: char = '\"';"),
        ("kernel.rs", "fn f<'a>(x: &'a str) { std::fs::read(x); }"),
        ("kernel.rs", "const S: &str = r#\"\"#; use std::fs; const T: &str = r\"\\\"; use std::net;"),
        ("kernel.rs", "const B: u8 = b'\\''; use std::fs;"),
        ("kernel.rs", "fn f() { let _ = 1..std::process::id(); }"),
        ("kernel.rs", "use std::\n    fs;"),
    ];
    let house = house();
    for (file, text) in planted {
        assert!(!house.faults(file, text).is_empty(), "in src/{file} nothing is found wrong with `{text}`");
    }
}

#[test]
fn what_is_allowed_is_no_fault() {
    let fine = [
        ("kernel/node.rs", "use super::io::{Input, Output}; use crate::kernel::id::*; use std::time::Duration;"),
        ("kernel/queue/heap.rs", "mod tests { use super::*; use super::super::super::id::Cid; }"),
        (
            "kernel.rs",
            "// use crate::net;\n/* std::fs */ /// tokio::spawn\nconst S: &str = \"use std::fs; crate::net\";",
        ),
        ("kernel.rs", "const S: &str = r##\"use std::fs; \"# crate::net\"##; const B: &[u8] = b\"tokio::x\";"),
        (
            "kernel.rs",
            "use std::{fmt, str::FromStr}; struct rand; fn tokio(process: u8, fs: u8) -> u8 { process + fs }",
        ),
        ("kernel.rs", "pub(in crate::kernel) struct S; pub(crate) fn f<'std>(x: &'std str) {}"),
        ("kernel.rs", "mod time { pub struct Instant; } use self::time::Instant; fn f() -> time::Instant { Instant }"),
        ("workflow/tags.rs", "use crate::kernel::task::Tag; use serde_yaml::Value;"),
        ("wire.rs", "use crate::kernel::entry::Entry;"),
        ("forge.rs", "use crate::{kernel::task, workflow}; use tokio::fs; use std::process::Command;"),
        ("net.rs", "mod swarm; use swarm::Swarm; use crate::net::swarm; use crate::wire;"),
        ("daemon.rs", "use crate::{control, forge, kernel, net, runner, store, wire, workflow};"),
        ("cli.rs", "use crate::{control, daemon};"),
        ("main.rs", "fn main() { runmesh::cli::run() }"),
        ("lib.rs", "pub mod kernel;"),
    ];
    let house = house();
    for (file, text) in fine {
        assert_eq!(house.faults(file, text), Vec::<String>::new(), "in src/{file}: `{text}`");
    }
}
