//! The words of the command line, as clap reads them. What they mean is settled in [`super::settings`] and in the
//! room of each command; a command is here only when it works.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::settings::{self, Executor, Isolation};
use crate::forge::Spec;
use crate::kernel::task::Conclusion;

const AFTER_HELP: &str = "\
Settings come from flags, then RUNMESH_* environment variables, then a TOML file, then defaults.
Exit status: 0 done, 1 it failed, 2 usage or settings, 3 no node answers at that data directory.

See it at work:   runmesh demo
Start a node:     runmesh node run --source git:PATH";

/// A leaderless mesh that runs GitHub Actions work on machines you own.
#[derive(Debug, Parser)]
#[command(name = "runmesh", version, after_help = AFTER_HELP, propagate_version = true, max_term_width = 110)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) global: Global,
}

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Global {
    /// Where the node keeps its identity, database and logs [env: RUNMESH_DATA_DIR] [default:
    /// ~/.local/share/runmesh]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Settings file [env: RUNMESH_CONFIG] [default: ~/.config/runmesh/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// For people (table) or for programs (json); of `inspect clock` also for Graphviz (dot) [env: RUNMESH_OUTPUT]
    /// [default: table]
    #[arg(long, global = true, value_name = "FORM", hide_possible_values = true)]
    pub(super) output: Option<Form>,
}

/// What `--output` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Table,
    Json,
    /// Of `inspect clock` alone.
    Dot,
}

impl Form {
    pub(super) const fn output(self) -> Option<Output> {
        match self {
            Self::Table => Some(Output::Table),
            Self::Json => Some(Output::Json),
            Self::Dot => None,
        }
    }
}

/// In what form results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run this host's node
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make a mesh, invite to it, join one
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// See what the node on this host knows
    Inspect(InspectArguments),
    /// Submit and cancel tasks, read their logs, fetch their artifacts
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Find tagged workflows across repositories
    #[command(subcommand)]
    Github(GithubCommand),
    /// Press the stop button of the whole mesh: no node starts anything more, what runs goes on
    Pause {
        /// What others shall read of it
        #[arg(long, value_name = "TEXT", default_value = "paused by hand")]
        why: String,
    },
    /// Let all nodes of a paused mesh start tasks again
    Resume,
    /// Have a program of your own execute tasks, for a node with `--executor none`; check tags
    #[command(subcommand)]
    P2pWorkflow(P2pCommand),
    /// Watch three nodes on this machine discover, agree, run and survive
    Demo(DemoArguments),
    /// Check what this host needs to run a node
    Doctor,
    /// Print the completion script of a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Run the node until SIGINT or SIGTERM; in an empty data directory it makes a mesh of one
    Run(Box<RunArguments>),
    /// Let the node finish what runs and end: it takes nothing new, and what still runs after the limit goes to other
    /// nodes; said a second time, it ends at once
    Drain {
        /// How long what runs may take to finish, such as 30m or 2h [default: the node's drain_limit]
        #[arg(long, value_name = "TIME", value_parser = settings::duration)]
        limit: Option<std::time::Duration>,
        /// Come back at once instead of when the node has ended
        #[arg(long)]
        no_wait: bool,
    },
    /// Let the node take nothing new until `uncordon`, also after a restart; it stays in the mesh, and what runs goes on
    Cordon {
        /// What you and others shall read of it
        #[arg(long, value_name = "TEXT", default_value = "cordoned by hand")]
        why: String,
    },
    /// Let the node take tasks again
    Uncordon,
}

#[derive(Debug, Default, Args)]
pub(super) struct RunArguments {
    /// Address to listen on, such as /ip4/0.0.0.0/tcp/4477; may be repeated [env: RUNMESH_LISTEN]
    #[arg(long, value_name = "MULTIADDR", value_parser = settings::multiaddr)]
    pub(super) listen: Vec<String>,
    /// Address of a node to begin with, besides those of the ticket; may be repeated [env: RUNMESH_BOOTSTRAP]
    #[arg(long, value_name = "MULTIADDR", value_parser = settings::multiaddr)]
    pub(super) bootstrap: Vec<String>,
    /// Where workflows come from: github:OWNER or github:OWNER/REPO; or git:PATH, a local git repository or a folder of
    /// them, or git:NAME=PATH to name it alike on all hosts; may be repeated [env: RUNMESH_SOURCES]
    #[arg(long = "source", value_name = "SPEC", value_parser = settings::source)]
    pub(super) sources: Vec<Spec>,
    /// One of the sources whose tasks must not run twice: they are claimed and kept here only while more than half of
    /// the members are heard; may be repeated [env: RUNMESH_STOP_WHEN_CUT_OFF]
    #[arg(long, value_name = "SPEC", value_parser = settings::source)]
    pub(super) stop_when_cut_off: Vec<Spec>,
    /// Most tasks at once, 0 to 1024; 0 takes part without running any [env: RUNMESH_MAX_RUNNERS] [default: half of
    /// the processors]
    #[arg(long, value_name = "N", value_parser = settings::runners)]
    pub(super) max_runners: Option<u32>,
    /// What executes workflows: act, command (your own program, named in the settings file), or none [env:
    /// RUNMESH_EXECUTOR] [default: act]
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    pub(super) executor: Option<Executor>,
    /// What keeps a task away from the host: bwrap, container (Docker or Podman), or none where you trust all sources
    /// [env: RUNMESH_ISOLATION] [default: bwrap]
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    pub(super) isolation: Option<Isolation>,
    /// What `runs-on` may ask of this host besides its own labels; !L takes one of those away; may be repeated [env:
    /// RUNMESH_LABELS]
    #[arg(long = "label", value_name = "L", value_parser = settings::label)]
    pub(super) labels: Vec<String>,
    /// The `act` program [env: RUNMESH_ACT] [default: the one on PATH]
    #[arg(long, value_name = "PATH")]
    pub(super) act: Option<PathBuf>,
    /// Start GitHub's own runners, one for each job that is queued at the GitHub sources for labels of this host [env:
    /// RUNMESH_AUTOSCALER]
    #[arg(long)]
    pub(super) autoscaler: bool,
    /// GitHub's own runner, as an archive actions-runner-*.tar.gz or a directory [env: RUNMESH_ACTIONS_RUNNER]
    #[arg(long, value_name = "PATH")]
    pub(super) actions_runner: Option<PathBuf>,
    /// Seconds between two looks at a source, 1 to 86400 [env: RUNMESH_INTERVAL] [default: 60]
    #[arg(long, value_name = "S", value_parser = settings::interval)]
    pub(super) interval: Option<u64>,
    /// How long the history of tasks and of the mesh is kept at least, such as 12h or 7d; what is older is dropped once
    /// all members agree on what is kept in its place [env: RUNMESH_RETENTION] [default: 7d]
    #[arg(long, value_name = "TIME", value_parser = settings::duration)]
    pub(super) retention: Option<std::time::Duration>,
    /// On SIGINT or SIGTERM, finish what runs instead of giving it to other nodes; a second signal stops at once [env:
    /// RUNMESH_DRAIN]
    #[arg(long)]
    pub(super) drain: bool,
    /// Stop as if by SIGTERM when standard input ends: whoever started this node is gone then.
    #[arg(long, hide = true)]
    pub(super) stop_with_parent: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum MeshCommand {
    /// Make a mesh with this host as its founder
    Init,
    /// Print a ticket by which one host may join; the node must run
    Invite {
        /// How long the ticket admits somebody, such as 30m, 1h or 2d
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = settings::duration)]
        ttl: std::time::Duration,
        /// A label that the host which joins may offer, and no others than those named so; may be repeated
        #[arg(long = "label", value_name = "LABEL", value_parser = settings::offered_label)]
        labels: Vec<String>,
        /// The mesh's key, where it is kept away from this host; no node need run then
        #[arg(long, value_name = "FILE")]
        mesh_key: Option<PathBuf>,
        /// An address that the host which joins begins with, ending in /p2p/PEER_ID, where no node runs here to ask; may be
        /// repeated
        #[arg(long = "address", value_name = "MULTIADDR", value_parser = settings::multiaddr)]
        addresses: Vec<String>,
    },
    /// Make this host a member of the mesh that the ticket is from
    Join {
        /// What `runmesh mesh invite` printed
        ticket: String,
    },
    /// Who may take part: since when, by whose invitation, last heard, version
    Members,
    /// Put a host out: every node drops it, and what it writes from now on counts for nothing
    Revoke {
        /// Its peer id, as `runmesh mesh members` shows it; or a revocation as text, to be signed or handed in
        #[arg(value_name = "PEER")]
        what: String,
        /// The mesh's key, where it is kept away from this host
        #[arg(long, value_name = "FILE")]
        mesh_key: Option<PathBuf>,
        /// Print what is to be signed where the mesh's key is, and do nothing else
        #[arg(long, conflicts_with = "mesh_key")]
        unsigned: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct InspectArguments {
    #[command(subcommand)]
    pub(super) view: View,
    /// Look again every second
    #[arg(long, global = true)]
    pub(super) watch: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum View {
    /// How the node and the mesh stand
    Status,
    /// The other members and what they offer
    Peers,
    /// All tasks, or everything about one
    Tasks {
        /// A task's id, or the beginning of one
        id: Option<String>,
    },
    /// What waits to be run, the next first
    Queue,
    /// The Merkle clock: heads, chains, the latest entries as a graph
    Clock {
        /// How many of the latest entries to show
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
        last: u32,
    },
    /// What this host executes now
    Runners,
    /// Where workflows come from, and who is on duty for it
    Sources,
    /// What happened lately; with --watch, what happens
    Events {
        /// How many of the latest events to begin with
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1000))]
        last: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TasksCommand {
    /// Have the mesh run a workflow now
    Submit(SubmitArguments),
    /// End a task
    Cancel {
        /// The task's id, or the beginning of one
        id: String,
    },
    /// Print what a task wrote, wherever it ran
    Logs {
        /// The task's id, or the beginning of one
        id: String,
        /// Go on until the task ends
        #[arg(long, short)]
        follow: bool,
        /// Of that attempt, counted from 1, instead of the one whose result holds, or the latest
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        attempt: Option<u32>,
    },
    /// Show what a task uploaded as artifacts; on the host that ran it, write it to files
    Artifacts {
        /// The task's id, or the beginning of one
        id: String,
        /// Only those of this name
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Write them to files in this folder
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum GithubCommand {
    /// Find tagged workflows and submit them: through the node of the data directory where one runs, else on its own
    #[command(subcommand)]
    P2pDiscover(DiscoverCommand),
    /// Start GitHub's own runners for the jobs that wait there, and run the mesh's tasks beside them, until SIGINT or
    /// SIGTERM; where a node runs at the data directory, show how it does that
    Autoscaler(Box<AutoscalerArguments>),
}

#[derive(Debug, Default, Args)]
pub(super) struct AutoscalerArguments {
    /// A GitHub user or organisation; may be repeated. Without one and without --source: all repositories that the token
    /// reaches
    #[arg(long = "owner", value_name = "O", value_parser = settings::owner)]
    pub(super) owners: Vec<String>,
    /// github:OWNER, github:OWNER/REPO; may be repeated [env: RUNMESH_SOURCES]
    #[arg(long = "source", value_name = "SPEC", value_parser = settings::source)]
    pub(super) sources: Vec<Spec>,
    /// Seconds between two looks which jobs wait, 1 to 86400 [env: RUNMESH_AUTOSCALER_INTERVAL] [default: 20]
    #[arg(long, value_name = "S", value_parser = settings::interval)]
    pub(super) interval: Option<u64>,
    /// Only repositories pushed to within so many days [env: RUNMESH_SINCE_DAYS]
    #[arg(long, value_name = "N", value_parser = settings::days)]
    pub(super) since_days: Option<u32>,
    /// Most runners and tasks at once, 0 to 1024 [env: RUNMESH_MAX_RUNNERS] [default: half of the processors]
    #[arg(long, value_name = "N", value_parser = settings::runners)]
    pub(super) max_runners: Option<u32>,
    /// Take jobs for other processor architectures too [env: RUNMESH_AUTOSCALER_ANY_ARCH]
    #[arg(long)]
    pub(super) no_arch_filter: bool,
    /// GitHub's jobs alone: leave the mesh's tasks to others
    #[arg(long)]
    pub(super) no_p2p: bool,
    /// GitHub's own runner, as an archive actions-runner-*.tar.gz or a directory [env: RUNMESH_ACTIONS_RUNNER]
    #[arg(long, value_name = "PATH")]
    pub(super) actions_runner: Option<PathBuf>,
    /// What jobs may ask of this host besides its own labels; may be repeated [env: RUNMESH_LABELS]
    #[arg(long = "label", value_name = "L", value_parser = settings::label)]
    pub(super) labels: Vec<String>,
    /// What keeps a job away from the host: bwrap, or none [env: RUNMESH_ISOLATION] [default: bwrap]
    #[arg(long, value_name = "NAME", hide_possible_values = true)]
    pub(super) isolation: Option<Isolation>,
}

#[derive(Debug, Subcommand)]
pub(super) enum DiscoverCommand {
    /// Look once
    Once(LookArguments),
    /// Look again and again, until SIGINT or SIGTERM
    Monitor(LookArguments),
}

#[derive(Debug, Default, Args)]
pub(super) struct LookArguments {
    /// A GitHub user or organisation; may be repeated. Without one and without --source: the node's sources, else all
    /// repositories that the token reaches
    #[arg(long = "owner", value_name = "O", value_parser = settings::owner)]
    pub(super) owners: Vec<String>,
    /// github:OWNER, github:OWNER/REPO, git:PATH; may be repeated [env: RUNMESH_SOURCES]
    #[arg(long = "source", value_name = "SPEC", value_parser = settings::source)]
    pub(super) sources: Vec<Spec>,
    /// Only repositories whose name matches, such as `team-*`; may be repeated [env: RUNMESH_INCLUDE]
    #[arg(long, value_name = "PATTERN", value_parser = settings::pattern)]
    pub(super) include: Vec<String>,
    /// Not repositories whose name matches; may be repeated [env: RUNMESH_EXCLUDE]
    #[arg(long, value_name = "PATTERN", value_parser = settings::pattern)]
    pub(super) exclude: Vec<String>,
    /// Forks too [env: RUNMESH_FORKS]
    #[arg(long)]
    pub(super) forks: bool,
    /// Only repositories pushed to within so many days [env: RUNMESH_SINCE_DAYS]
    #[arg(long, value_name = "N", value_parser = settings::days)]
    pub(super) since_days: Option<u32>,
    /// Seconds between two looks of `monitor`, 1 to 86400 [env: RUNMESH_INTERVAL] [default: 60]
    #[arg(long, value_name = "S", value_parser = settings::interval)]
    pub(super) interval: Option<u64>,
    /// The same as --output json
    #[arg(long)]
    pub(super) output_json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArguments {
    /// The repository's name as `inspect tasks` shows it, or a local one's path
    pub(super) repository: String,
    /// The workflow file in it, such as .github/workflows/ci.yml
    pub(super) path: String,
    /// A `workflow_dispatch` input; may be repeated
    #[arg(long = "input", value_name = "K=V", value_parser = settings::input)]
    pub(super) inputs: Vec<(String, String)>,
    /// 1 (least) to 10 (most urgent); by the workflow's tags when absent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub(super) priority: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum P2pCommand {
    /// How many tasks wait, are held and are done, and the clock
    Status,
    /// Have the mesh run a workflow now, as `tasks submit` does
    Submit(SubmitArguments),
    /// Claim the next task that this host may run and print it; exit status 1 when none comes in time
    Next {
        /// How long to wait for a task
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = settings::duration)]
        wait: std::time::Duration,
        /// How long you may then be silent before the task goes to somebody else; `keep` begins it anew [default: the
        /// task's own time limit]
        #[arg(long, value_name = "TIME", value_parser = settings::duration)]
        lease: Option<std::time::Duration>,
    },
    /// Say that you still work at a task; exit status 1 when it is yours no more
    Keep {
        /// The task's id, or the beginning of one
        id: String,
        /// The claim that `next` printed: of that one alone
        #[arg(long, value_name = "CID")]
        claim: Option<String>,
    },
    /// Say what came of a task; exit status 1 when it is yours no more
    Complete {
        /// The task's id, or the beginning of one
        id: String,
        /// success, failure, cancelled, timed_out or skipped
        #[arg(long, value_name = "WORD", default_value = "success", value_parser = settings::conclusion)]
        conclusion: Conclusion,
        /// What a person needs to know of it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// The claim that `next` printed: of that one alone
        #[arg(long, value_name = "CID")]
        claim: Option<String>,
    },
    /// What the tags of workflow files mean, which words are no tags, and how each file would run; needs no node
    CheckTags {
        /// Workflow files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// The clock in short: entries of each peer, and the root of a Merkle tree over them
    Clock,
}

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Your own git repositories, or folders of them; without any, the demo makes sample repositories
    pub(super) paths: Vec<PathBuf>,
    /// The `act` program [default: the one on PATH]
    #[arg(long, value_name = "PATH")]
    pub(super) act: Option<PathBuf>,
    /// Keep the repositories, data directories and logs, and say where they are
    #[arg(long)]
    pub(super) keep: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_visible_command_and_flag_explains_itself() {
        fn check(command: &clap::Command, name: &str) {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name}: {} has no help", argument.get_id());
            }
            for command in command.get_subcommands() {
                let name = format!("{name} {}", command.get_name());
                assert!(command.get_about().is_some(), "{name} has no help");
                check(command, &name);
            }
        }

        check(&Arguments::command(), "runmesh");
    }
}
