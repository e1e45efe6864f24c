//! Serves the fake GitHub until its standard input ends: `cargo run --example github`, then
//! `RUNMESH_GITHUB_API=… GITHUB_TOKEN=anything runmesh github p2p-discover once --owner octo`.

mod fake;

use std::io::Read as _;

use fake::{Fake, World};

fn main() {
    let mut world = World::new();
    let mut arguments = std::env::args().skip(1);
    let mut address = "127.0.0.1:0".to_owned();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => address = arguments.next().unwrap_or_default(),
            folder => load(&mut world, folder),
        }
    }
    if world.repositories().next().is_none() {
        sample(&mut world);
    }
    let fake = Fake::start_at(world, &address);
    #[expect(clippy::print_stdout, reason = "what whoever starts it waits for")]
    {
        println!("{}", fake.api());
    }
    let mut ignored = [0; 256];
    while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
}

/// OWNER/NAME for each folder two levels below: its files as one commit.
fn load(world: &mut World, root: &str) {
    let below = |path: &std::path::Path| -> Vec<std::path::PathBuf> {
        let mut found: Vec<_> =
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        found.sort();
        found
    };
    for owner in below(root.as_ref()) {
        for repository in below(&owner) {
            let name = format!("{}/{}", short(&owner), short(&repository));
            let mut files = Vec::new();
            let mut open = vec![repository.clone()];
            while let Some(path) = open.pop() {
                if path.is_dir() {
                    open.extend(below(&path));
                } else if let (Ok(bytes), Ok(inside)) = (std::fs::read(&path), path.strip_prefix(&repository)) {
                    files.push((inside.to_string_lossy().into_owned(), bytes));
                }
            }
            world.repository(&name, &[]);
            let files: Vec<(&str, Option<&[u8]>)> =
                files.iter().map(|(path, bytes)| (path.as_str(), Some(bytes.as_slice()))).collect();
            world.commit_bytes(&name, &files);
        }
    }
}

fn short(path: &std::path::Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A few repositories to look at.
fn sample(world: &mut World) {
    let workflow = |name: &str, tags: &str, on: &str| {
        format!(
            "name: {name}\non: {on}\nenv:\n  WORKFLOW_TAGS: {tags}\njobs:\n  work:\n    runs-on: self-hosted\n    steps:\n      - run: echo {name} runs\n"
        )
    };
    let ci = workflow("ci", "p2p-eligible, unit-test", "push");
    let nightly = workflow("nightly", "p2p-only", "workflow_dispatch");
    let scrape = workflow("scrape", "web-scraping", "[workflow_dispatch]");
    for (name, files) in [
        ("octo/api", vec![("ci.yml", &ci), ("nightly.yml", &nightly)]),
        ("octo/web", vec![("ci.yml", &ci), ("scrape.yml", &scrape)]),
        ("acme/robot", vec![("nightly.yml", &nightly)]),
    ] {
        let files: Vec<(String, &str)> =
            files.iter().map(|(file, text)| (format!(".github/workflows/{file}"), text.as_str())).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        world.repository(name, &files);
    }
}
