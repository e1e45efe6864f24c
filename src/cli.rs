//! The commands, and what a person sees.
//!
//! Owns the words of the command line ([`args`]), the settings ([`settings`]), the look of results ([`screen`]) and of
//! failures ([`failure`]). Promises that results go to standard output and everything else to standard error, and the
//! exit statuses 0 (done), 1 (it failed), 2 (usage or settings) and 3 (no node answers). Leaves to the daemon what a
//! node does: the commands that ask a node go through its control API, like any other program.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tracing_subscriber::EnvFilter;

mod args;
mod artifacts;
mod autoscaler;
mod demo;
mod doctor;
mod failure;
mod github;
mod inspect;
mod link;
mod mesh;
mod node;
mod p2p_workflow;
mod screen;
mod settings;
mod stay;
mod tasks;

use self::args::{
    Arguments, Command, DiscoverCommand, Form, GithubCommand, InspectArguments, NodeCommand, RunArguments, View,
};
use self::failure::Failure;
use self::screen::Screen;
use self::settings::World;
use crate::runner::reaper;

/// What is logged by a running node, and by the other commands, unless `RUNMESH_LOG` says otherwise.
const NODE_LOG: &str = "info,libp2p=warn,quinn=warn,yamux=warn";
const COMMAND_LOG: &str = "warn";

/// The whole program: reads the command line, does what it says, answers with the exit status.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // Not clap's: its arguments are another program's, and it must stay a process of one thread.
    if words.next().is_some_and(|word| word == "reap") {
        return reaper::main(words);
    }
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.status() != 0 {
                use std::io::Write as _;
                // Where standard error is gone too, the exit status has to do.
                let _ = std::io::stderr().write_all(failure.text(Screen::stderr()).as_bytes());
            }
            ExitCode::from(failure.status())
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Failure> {
    let world = World::real()?;
    let place = || settings::place(&arguments.global, &world);
    let dot = arguments.global.output == Some(Form::Dot);
    if dot && !matches!(&arguments.command, Command::Inspect(InspectArguments { view: View::Clock { .. }, .. })) {
        return Err(Failure::usage("only `inspect clock` prints --output dot").hint("say --output json"));
    }
    let is_node =
        matches!(arguments.command, Command::Node(NodeCommand::Run(_)) | Command::Github(GithubCommand::Autoscaler(_)));
    log_to_stderr(is_node)?;
    match &arguments.command {
        Command::Completions { shell } => completions(*shell),
        Command::Doctor => {
            let (place, settings) = settings::node(&arguments.global, &RunArguments::default(), &world)?;
            block_on(doctor::run(&place, &settings))
        }
        Command::Node(NodeCommand::Run(run)) => {
            let (place, settings) = settings::node(&arguments.global, run, &world)?;
            if run.stop_with_parent {
                node::stop_at_end_of_input()?;
            }
            block_on(node::run(&place, settings))
        }
        Command::Node(NodeCommand::Drain { limit, no_wait }) => {
            let wait = if *no_wait { stay::Wait::Not } else { stay::Wait::ForItsEnd };
            block_on(stay::drain(&place()?, *limit, wait))
        }
        Command::Node(NodeCommand::Cordon { why }) => block_on(stay::cordon(&place()?, why)),
        Command::Node(NodeCommand::Uncordon) => block_on(stay::uncordon(&place()?)),
        Command::Mesh(command) => block_on(mesh::run(&place()?, command)),
        Command::Inspect(inspect) => block_on(inspect::run(&place()?, inspect, dot)),
        Command::Tasks(command) => block_on(tasks::run(&place()?, command)),
        Command::Pause { why } => block_on(mesh::pause(&place()?, why)),
        Command::Resume => block_on(mesh::resume(&place()?)),
        Command::Github(GithubCommand::Autoscaler(asked)) => {
            let (place, settings) = autoscaler::settings(&arguments.global, asked, &world)?;
            block_on(autoscaler::run(&place, settings))
        }
        Command::Github(GithubCommand::P2pDiscover(command)) => {
            let (DiscoverCommand::Once(look) | DiscoverCommand::Monitor(look)) = command;
            block_on(github::run(settings::of_github(&arguments.global, look, &world)?, command))
        }
        Command::P2pWorkflow(command) => block_on(p2p_workflow::run(&place()?, command)),
        Command::Demo(demo) => block_on(demo::run(demo)),
    }
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed("cannot start the asynchronous runtime").because(&error))?.block_on(command)
}

fn log_to_stderr(node: bool) -> Result<(), Failure> {
    let filter = match std::env::var("RUNMESH_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives).map_err(|error| {
            Failure::usage(format!("the environment's RUNMESH_LOG: `{directives}` is no log filter")).because(&error)
        })?,
        _ => EnvFilter::new(if node { NODE_LOG } else { COMMAND_LOG }),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(Screen::stderr().has_colour())
        .with_target(false)
        // Else a line that finds no room on the disk is told of there too, and failing at that is a panic.
        .log_internal_errors(false)
        .init();
    Ok(())
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "runmesh", &mut script);
    screen::say_bytes(&script)
}
