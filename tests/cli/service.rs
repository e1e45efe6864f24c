//! The systemd unit that `scripts/install` writes, without systemd: the command in it is one that a node starts by.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install");
const PROGRAM: &str = env!("CARGO_BIN_EXE_runmesh");
/// How long a node may take to answer, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

fn unit(home: &str) -> String {
    let shown = Command::new(SCRIPT)
        .arg("--show")
        .env("HOME", home)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_DATA_HOME")
        .output()
        .expect("bash runs");
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).expect("text")
}

#[test]
fn the_units_command_starts_a_node_that_ends_with_sigterm() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().to_str().expect("text");
    let unit = unit(home);
    for needed in ["[Unit]", "Delegate=yes", "KillMode=mixed", "Restart=on-failure", "NoNewPrivileges=yes", "[Install]"]
    {
        assert!(unit.lines().any(|line| line == needed), "{needed} in\n{unit}");
    }
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let mut words = command.split(' ');
    assert!(words.next().is_some_and(|program| program.ends_with("/bin/runmesh")), "{command}");
    // A service of the host has its places outside the test's folder.
    let moved = |word: &str| match word.strip_prefix('/') {
        Some(rest) if !word.starts_with(home) => format!("{home}/{rest}"),
        _ => word.to_owned(),
    };
    let words: Vec<String> = words.map(moved).collect();
    let after = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1).expect("a value").clone();
    let (data, settings) = (after("--data-dir"), after("--config"));
    let folder = std::path::Path::new(&settings).parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("made");
    std::fs::write(&settings, "listen = [\"/ip4/127.0.0.1/tcp/0\"]\n").expect("written");
    let mut node = Command::new(PROGRAM)
        .args(&words)
        .env_remove("GITHUB_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let answers = || {
        let status = Command::new(PROGRAM).args(["inspect", "status", "--data-dir", &data]).output();
        status.is_ok_and(|status| status.status.success())
    };
    let began = Instant::now();
    while !answers() {
        assert!(node.try_wait().expect("waited for").is_none(), "it ended");
        assert!(began.elapsed() < PATIENCE, "it does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    let signalled = Command::new("kill").args(["-TERM", &node.id().to_string()]).status().expect("kill runs");
    assert!(signalled.success());
    assert_eq!(node.wait().expect("it ends").code(), Some(0));
}

#[test]
fn what_the_script_does_not_know_it_says() {
    let wrong = Command::new(SCRIPT).arg("--shwo").output().expect("bash runs");
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(said.contains("`--shwo` is not an option") && said.contains("--help"), "{said}");
}
