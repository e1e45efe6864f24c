//! Stands in for GitHub's runner: `stub --jitconfig CONFIGURATION` (or that in ACTIONS_RUNNER_INPUT_JITCONFIG) connects to the
//! fake GitHub that gave the configuration, takes the one job that it is given, and ends with it. Exit statuses are those of
//! the runner's listener: 0 after a job, 1 when it is terminated or its registration is gone, 2 when GitHub is not there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};

use base64::Engine as _;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--jitconfig").skip(1);
    let configuration = arguments.next().or_else(|| std::env::var("ACTIONS_RUNNER_INPUT_JITCONFIG").ok());
    let Some(configuration) = configuration.as_deref().and_then(read) else { return ExitCode::from(1) };
    let (address, token) = configuration;
    let job = match ask(&address, "connect", &token) {
        Some((200, job)) => job,
        Some(_) => return ExitCode::from(1),
        None => return ExitCode::from(2),
    };
    say(&format!("Running job: {job}"));
    hook("ACTIONS_RUNNER_HOOK_JOB_STARTED");
    let Some((200, conclusion)) = ask(&address, "work", &token) else { return ExitCode::from(2) };
    hook("ACTIONS_RUNNER_HOOK_JOB_COMPLETED");
    say(&format!("Job {job} completed with result: {conclusion}"));
    ExitCode::SUCCESS
}

/// The fake's address and the runner's token.
fn read(configuration: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(configuration.trim()).ok()?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let address = value["url"].as_str()?.strip_prefix("http://")?.to_owned();
    Some((address, value["token"].as_str()?.to_owned()))
}

fn ask(address: &str, what: &str, token: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "POST /_runner/{what}?{token} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Runs the script that the variable names, as the runner does.
fn hook(variable: &str) {
    if let Some(script) = std::env::var_os(variable) {
        let _ = Command::new(script).stdin(Stdio::null()).status();
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
