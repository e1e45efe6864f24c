//! A person's terminal: a folder of its own, no settings from outside, and the nodes that were started from it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_runmesh");
/// How long anything may take.
const LONG: Duration = Duration::from_secs(30);
/// Before looking again.
const LOOK: Duration = Duration::from_millis(50);

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

pub(crate) struct Terminal {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), variables: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// Sets an environment variable for what runs later.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn run(&self, words: &[&str]) -> Done {
        let output = self.command(words).stdin(Stdio::null()).output().expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Done {
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            status: output.status.code().expect("no signal ended it"),
        }
    }

    /// Runs a command whose output nobody reads; answers its exit status.
    pub(crate) fn run_with_closed_output(&self, words: &[&str]) -> i32 {
        let mut process = self.command(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        drop(process.stdout.take());
        process.wait().expect("it ends").code().expect("no signal ended it")
    }

    /// Plays a transcript and compares.
    pub(crate) fn shows(&self, transcript: &str) {
        let folder = self.folder.path().display().to_string();
        let transcript = transcript.trim_start_matches('\n').replace("[DIR]", &folder);
        for scene in transcript.split_inclusive('\n').fold(Vec::<Vec<&str>>::new(), |mut scenes, line| {
            if line.starts_with("$ ") {
                scenes.push(Vec::new());
            }
            scenes.last_mut().expect("a transcript begins with a command").push(line.trim_end());
            scenes
        }) {
            let words: Vec<&str> = scene[0].split_whitespace().skip(2).collect();
            let done = self.run(&words);
            let mut shown: Vec<String> = done.stdout.lines().map(|line| line.trim_end().to_owned()).collect();
            shown.extend(done.stderr.lines().map(|line| format!("! {line}").trim_end().to_owned()));
            if done.status != 0 {
                shown.push(format!("[{}]", done.status));
            }
            let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
            assert!(
                lines_match(&scene[1..], &shown),
                "{}\nshould show\n{}\nbut shows\n{}",
                scene[0],
                scene[1..].join("\n"),
                shown.join("\n")
            );
        }
    }

    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(LOOK);
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words).current_dir(self.folder.path()).env_clear();
        command.env("HOME", self.folder.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Whether the lines fit a pattern of lines.
fn lines_match(pattern: &[&str], lines: &[&str]) -> bool {
    match (pattern, lines) {
        ([], _) => lines.is_empty(),
        (["...", rest @ ..], _) => (0..=lines.len()).any(|skip| lines_match(rest, &lines[skip..])),
        ([first, rest @ ..], [line, others @ ..]) => line_matches(first, line) && lines_match(rest, others),
        (_, []) => false,
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("[..]") {
        None => pattern == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            line.char_indices().map(|(at, _)| at).chain([line.len()]).any(|at| line_matches(rest, &line[at..]))
        }),
    }
}

/// A node that runs until it is stopped or dropped.
pub(crate) struct Node {
    process: Child,
    stdin: Option<ChildStdin>,
    output: Option<JoinHandle<String>>,
}

impl Node {
    /// Starts a node on a data directory of the terminal's folder and waits for its greeting.
    pub(crate) fn start(terminal: &Terminal, data_dir: &str, words: &[&str]) -> Self {
        let fixed = ["node", "run", "--data-dir", data_dir, "--listen", "/ip4/127.0.0.1/tcp/0"];
        let mut command = terminal.command(&[&fixed, words].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().expect("piped"));
        let mut stderr = process.stderr.take().expect("piped");
        let (greeted, greeting) = mpsc::channel();
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("look ") {
                    let _ = greeted.send(());
                }
                text.push_str(&line);
                text.push('\n');
            }
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut node = Self { process, stdin, output: Some(output) };
        if greeting.recv_timeout(LONG).is_err() {
            let _ = node.process.kill();
            panic!("no greeting: {}", node.take_output());
        }
        node
    }

    /// Stops it with SIGTERM; answers what it printed.
    pub(crate) fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.ends_well()
    }

    /// Stops it as its starter's end would; it runs with `--stop-with-parent`.
    pub(crate) fn stop_by_closing_its_input(mut self) {
        drop(self.stdin.take());
        self.ends_well();
    }

    fn ends_well(&mut self) -> String {
        let deadline = Instant::now() + LONG;
        let status = loop {
            match self.process.try_wait().expect("it can be waited for") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the node does not stop"),
            }
            std::thread::sleep(LOOK);
        };
        let output = self.take_output();
        assert!(status.success(), "{status}: {output}");
        output
    }

    fn take_output(&mut self) -> String {
        self.output.take().map(|output| output.join().expect("read")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.take_output();
    }
}
