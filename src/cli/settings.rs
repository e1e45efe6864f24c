//! Settings: flags, then `RUNMESH_*`, then a TOML file, then defaults, turned once into what a command works with.
//!
//! A layer that names a list replaces the list of the layers below it. Every value is read by one function whichever
//! layer it stands in; a bad one ends the command with exit status 2, naming the layer, the key and the value.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::args::{Form, Global, LookArguments, Output, RunArguments};
use super::failure::Failure;
use crate::daemon::GithubSettings;
use crate::forge::github::{Endpoint, Lookup, Selection};
use crate::forge::{Duplicate, FirstScan, Manner, Spec, SpecError};
use crate::kernel::task::Conclusion;
use crate::net::{Multiaddr, SwarmKey, has_ipv6};
use crate::store::Keeping;

mod autoscaler;
mod file;
mod keeping;
mod reach;
mod work;

pub(super) use autoscaler::Autoscaler;

/// The most tasks that one host may be told to run at once.
const MOST_RUNNERS: u32 = 1024;
/// Between two looks at a source, unless told otherwise.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// How long history is kept at least, unless told otherwise (DESIGN.md section 3).
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// Own choice: most jobs are done within it, and whoever goes to a machine does not wait longer.
const DEFAULT_DRAIN: Duration = Duration::from_secs(3600);
/// The longest a ticket may be good for.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// What every command needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Absolute.
    pub(super) data_dir: PathBuf,
    pub(super) output: Output,
    /// No flag named it, so the next command finds it without one too.
    usual: bool,
}

impl Place {
    /// What to add to a command so that it finds this data directory: nothing, or a blank and a flag.
    pub(super) fn flag(&self) -> String {
        if self.usual { String::new() } else { format!(" --data-dir {}", self.data_dir.display()) }
    }
}

/// What `node run` needs to know, validated.
#[derive(Debug, Clone)]
pub(super) struct NodeSettings {
    /// Absolute.
    pub(super) data_dir: PathBuf,
    /// Multiaddrs, at least one.
    pub(super) listen: Vec<String>,
    /// Multiaddrs.
    pub(super) bootstrap: Vec<String>,
    pub(super) reach: Reach,
    pub(super) sources: Vec<Spec>,
    /// How those are treated of which the file says so.
    pub(super) manners: BTreeMap<Spec, Manner>,
    pub(super) github: GithubSettings,
    /// Those of them whose tasks are stopped here when most members are not heard.
    pub(super) stop_when_cut_off: Vec<Spec>,
    /// 0 to 1024.
    pub(super) max_runners: u32,
    pub(super) executor: Executor,
    pub(super) isolation: Isolation,
    /// Lower case: labels besides those that the host has by itself and, after a `!`, those it shall not have.
    pub(super) labels: Vec<String>,
    /// Absolute; searched on PATH when absent.
    pub(super) act: Option<PathBuf>,
    /// GitHub's own runner, its directory or archive. Absolute.
    pub(super) actions_runner: Option<PathBuf>,
    pub(super) autoscaler: Autoscaler,
    pub(super) work: work::Work,
    /// Between two looks at a source.
    pub(super) interval: Duration,
    /// How long history is kept at least.
    pub(super) retention: Duration,
    /// How much of what runs print and upload is kept, and for how long.
    pub(super) keeping: Keeping,
    /// On a signal, finish what runs instead of handing it over.
    pub(super) drain: bool,
    /// How long that may take.
    pub(super) drain_limit: Duration,
}

/// How this node and others reach each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reach {
    /// Multiaddrs at which others reach this node besides those that it listens on.
    pub(super) announce: Vec<String>,
    /// Whoever does not have it connects with nobody here.
    pub(super) swarm_key: Option<SwarmKey>,
    /// Look for members on the LAN.
    pub(super) mdns: bool,
    /// Carry connections of members that cannot reach each other.
    pub(super) relay: bool,
}

/// What executes workflows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Executor {
    /// The program `act`.
    #[default]
    Act,
    /// The operator's own program, `command` in the settings file.
    Command,
    /// Nothing: the node takes part and runs no task.
    None,
}

/// What keeps a task away from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Isolation {
    /// Containers of Docker or Podman.
    Container,
    /// bubblewrap.
    #[default]
    Bwrap,
    /// Nothing.
    None,
}

impl NodeSettings {
    /// The labels that this host offers, when it has these by itself.
    pub(super) fn offered(&self, own: BTreeSet<String>) -> BTreeSet<String> {
        let mut labels = own;
        for label in &self.labels {
            match label.strip_prefix('!') {
                Some(label) => labels.remove(label),
                None => labels.insert(label.clone()),
            };
        }
        labels
    }
}

/// One layer of settings: what flags, the environment or a file say; absent where they say nothing.
#[derive(Debug, Default, PartialEq)]
struct Layer {
    data_dir: Option<PathBuf>,
    output: Option<Output>,
    listen: Option<Vec<String>>,
    bootstrap: Option<Vec<String>>,
    announce: Option<Vec<String>>,
    swarm_key: Option<PathBuf>,
    mdns: Option<bool>,
    relay: Option<bool>,
    sources: Option<Vec<Spec>>,
    /// Only a file says it; it holds wherever the source is listed.
    manners: Option<BTreeMap<Spec, Manner>>,
    github_api: Option<Endpoint>,
    github_app: Option<u64>,
    github_app_key: Option<PathBuf>,
    include: Option<Vec<String>>,
    exclude: Option<Vec<String>>,
    forks: Option<bool>,
    since_days: Option<u32>,
    stop_when_cut_off: Option<Vec<Spec>>,
    max_runners: Option<u32>,
    executor: Option<Executor>,
    isolation: Option<Isolation>,
    labels: Option<Vec<String>>,
    act: Option<PathBuf>,
    actions_runner: Option<PathBuf>,
    autoscaler: Autoscaler,
    work: work::Work,
    interval: Option<u64>,
    retention: Option<Duration>,
    keeping: keeping::Keeping,
    drain: Option<bool>,
    drain_limit: Option<Duration>,
}

impl Layer {
    /// What this layer says, and what the lower one says where it is silent.
    fn over(self, lower: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(lower.data_dir),
            output: self.output.or(lower.output),
            listen: self.listen.or(lower.listen),
            bootstrap: self.bootstrap.or(lower.bootstrap),
            announce: self.announce.or(lower.announce),
            swarm_key: self.swarm_key.or(lower.swarm_key),
            mdns: self.mdns.or(lower.mdns),
            relay: self.relay.or(lower.relay),
            sources: self.sources.or(lower.sources),
            manners: self.manners.or(lower.manners),
            github_api: self.github_api.or(lower.github_api),
            github_app: self.github_app.or(lower.github_app),
            github_app_key: self.github_app_key.or(lower.github_app_key),
            include: self.include.or(lower.include),
            exclude: self.exclude.or(lower.exclude),
            forks: self.forks.or(lower.forks),
            since_days: self.since_days.or(lower.since_days),
            stop_when_cut_off: self.stop_when_cut_off.or(lower.stop_when_cut_off),
            max_runners: self.max_runners.or(lower.max_runners),
            executor: self.executor.or(lower.executor),
            isolation: self.isolation.or(lower.isolation),
            labels: self.labels.or(lower.labels),
            act: self.act.or(lower.act),
            actions_runner: self.actions_runner.or(lower.actions_runner),
            autoscaler: self.autoscaler.over(lower.autoscaler),
            work: self.work.over(lower.work),
            interval: self.interval.or(lower.interval),
            retention: self.retention.or(lower.retention),
            keeping: self.keeping.over(lower.keeping),
            drain: self.drain.or(lower.drain),
            drain_limit: self.drain_limit.or(lower.drain_limit),
        }
    }

    /// Paths that begin at no root begin at this folder.
    fn below(mut self, folder: &Path) -> Self {
        self.data_dir = self.data_dir.map(|path| folder.join(path));
        self.act = self.act.map(|path| folder.join(path));
        self.work.below(folder);
        self.actions_runner = self.actions_runner.map(|path| folder.join(path));
        self.github_app_key = self.github_app_key.map(|path| folder.join(path));
        self.swarm_key = self.swarm_key.map(|path| folder.join(path));
        let below = |mut spec: Spec| {
            if let Spec::Git(source) = &mut spec {
                source.path = folder.join(&source.path);
            }
            spec
        };
        let list = |list: Vec<Spec>| list.into_iter().map(below).collect();
        self.sources = self.sources.map(list);
        self.stop_when_cut_off = self.stop_when_cut_off.map(list);
        self.manners = self.manners.map(|all| all.into_iter().map(|(spec, manner)| (below(spec), manner)).collect());
        self
    }
}

/// The world that settings are read from, so that tests can bring their own.
pub(super) struct World<'a> {
    pub(super) environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// The working directory.
    pub(super) folder: PathBuf,
    /// Processors that this process may use.
    pub(super) processors: usize,
}

impl World<'_> {
    /// This process's own.
    pub(super) fn real() -> Result<Self, Failure> {
        let folder = std::env::current_dir()
            .map_err(|error| Failure::failed("cannot tell the working directory").because(&error))?;
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { environment: &|name| std::env::var_os(name), folder, processors })
    }

    /// A variable that is set to something.
    fn variable(&self, name: &str) -> Option<OsString> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// A variable as text.
    fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let value = self.variable(name).map(OsString::into_string).transpose();
        value.map_err(|value| Failure::usage(format!("the environment's {name}={value:?} is not UTF-8 text")))
    }

    /// A folder of the XDG base directory specification: the variable's when it is absolute, else below HOME.
    fn base(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let xdg = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        xdg.or_else(|| Some(PathBuf::from(self.variable("HOME")?).join(below_home)))
    }
}

/// The settings that every command needs.
pub(super) fn place(global: &Global, world: &World) -> Result<Place, Failure> {
    settle(layers(global, None, world)?, global, world)
}

/// The settings that `node run` needs.
pub(super) fn node(global: &Global, run: &RunArguments, world: &World) -> Result<(Place, NodeSettings), Failure> {
    let mut layer = layers(global, Some(run), world)?;
    let taken = std::mem::take(&mut layer);
    let half = u32::try_from(world.processors / 2).unwrap_or(MOST_RUNNERS).clamp(1, MOST_RUNNERS);
    let github = github(&taken, world)?;
    let reach = reach::of(&taken)?;
    let settings = NodeSettings {
        data_dir: PathBuf::new(),
        listen: taken.listen.unwrap_or_else(|| reach::usual(reach.swarm_key.is_some(), has_ipv6())),
        reach,
        bootstrap: taken.bootstrap.unwrap_or_default(),
        github,
        sources: taken.sources.unwrap_or_default(),
        manners: taken.manners.unwrap_or_default(),
        stop_when_cut_off: taken.stop_when_cut_off.unwrap_or_default(),
        max_runners: taken.max_runners.unwrap_or(half),
        executor: taken.executor.unwrap_or_default(),
        isolation: taken.isolation.unwrap_or_default(),
        labels: taken.labels.unwrap_or_default(),
        act: taken.act,
        actions_runner: taken.actions_runner,
        autoscaler: taken.autoscaler,
        work: taken.work,
        interval: taken.interval.map_or(DEFAULT_INTERVAL, Duration::from_secs),
        retention: taken.retention.unwrap_or(DEFAULT_RETENTION),
        keeping: taken.keeping.settings(),
        drain: taken.drain.unwrap_or_default(),
        drain_limit: taken.drain_limit.unwrap_or(DEFAULT_DRAIN),
    };
    if settings.executor == Executor::Command && settings.work.command.is_none() {
        return Err(Failure::usage("the executor is `command`, and no program is named")
            .hint("say in the settings file: command = [\"PROGRAM\", \"ARGUMENT\"]"));
    }
    if let Some(spec) = settings.stop_when_cut_off.iter().find(|source| !settings.sources.contains(source)) {
        return Err(Failure::usage(format!("stop_when_cut_off names {spec}, which is not among the sources"))
            .hint(format!("list it as a source too, written alike: --source {spec}")));
    }
    let place = settle(Layer { data_dir: taken.data_dir, output: taken.output, ..Layer::default() }, global, world)?;
    Ok((place.clone(), NodeSettings { data_dir: place.data_dir, ..settings }))
}

/// What the commands about GitHub need to know.
pub(super) struct GithubPlace {
    pub(super) place: Place,
    pub(super) github: GithubSettings,
    /// None where nothing names any.
    pub(super) sources: Vec<Spec>,
    pub(super) manners: BTreeMap<Spec, Manner>,
    pub(super) interval: Duration,
}

/// The settings that the commands about GitHub need.
pub(super) fn of_github(global: &Global, look: &LookArguments, world: &World) -> Result<GithubPlace, Failure> {
    let layer = look_flags(look).below(&world.folder).over(layers(global, None, world)?);
    let github = github(&layer, world)?;
    let interval = layer.interval.map_or(DEFAULT_INTERVAL, Duration::from_secs);
    let sources = layer.sources.clone().unwrap_or_default();
    let manners = layer.manners.clone().unwrap_or_default();
    Ok(GithubPlace { place: settle(layer, global, world)?, github, sources, manners, interval })
}

fn look_flags(look: &LookArguments) -> Layer {
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let owners = look.owners.iter().map(|owner| Spec::GithubOwner { owner: owner.clone() });
    let sources: Vec<Spec> = owners.chain(look.sources.iter().cloned()).collect();
    Layer {
        sources: (!sources.is_empty()).then_some(sources),
        include: list(&look.include),
        exclude: list(&look.exclude),
        forks: look.forks.then_some(true),
        since_days: look.since_days,
        interval: look.interval,
        output: look.output_json.then_some(Output::Json),
        ..Layer::default()
    }
}

fn github(layer: &Layer, world: &World) -> Result<GithubSettings, Failure> {
    let token = match world.text("GITHUB_TOKEN")? {
        Some(token) => Some(token),
        None => world.text("GH_TOKEN")?,
    };
    Ok(GithubSettings {
        endpoint: layer.github_api.clone().unwrap_or_default(),
        credentials: Lookup { token, app: layer.github_app, app_key: layer.github_app_key.clone() },
        selection: Selection {
            include: layer.include.clone().unwrap_or_default(),
            exclude: layer.exclude.clone().unwrap_or_default(),
            forks: layer.forks.unwrap_or_default(),
            since_days: layer.since_days,
            fork_pull_requests: layer.autoscaler.fork_pull_requests.unwrap_or_default(),
        },
    })
}

fn settle(layer: Layer, global: &Global, world: &World) -> Result<Place, Failure> {
    let base = || Some(world.base("XDG_DATA_HOME", ".local/share")?.join("runmesh"));
    let data_dir = layer.data_dir.or_else(base).ok_or_else(|| {
        Failure::usage("no data directory: neither XDG_DATA_HOME nor HOME is set").hint("name one with --data-dir")
    })?;
    let usual = global.data_dir.is_none() && global.config.is_none();
    Ok(Place { usual, data_dir, output: layer.output.unwrap_or_default() })
}

/// All layers, laid over each other.
fn layers(global: &Global, run: Option<&RunArguments>, world: &World) -> Result<Layer, Failure> {
    let flags = flags(global, run).below(&world.folder);
    let environment = environment(world)?.below(&world.folder);
    let named = global.config.clone().or_else(|| world.variable("RUNMESH_CONFIG").map(PathBuf::from));
    let file = match named {
        Some(path) => file::read(&world.folder.join(path))?,
        None => match world.base("XDG_CONFIG_HOME", ".config").map(|base| base.join("runmesh/config.toml")) {
            Some(path) if path.exists() => file::read(&path)?,
            _ => Layer::default(),
        },
    };
    Ok(flags.over(environment).over(file))
}

fn flags(global: &Global, run: Option<&RunArguments>) -> Layer {
    let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let place =
        Layer { data_dir: global.data_dir.clone(), output: global.output.and_then(Form::output), ..Layer::default() };
    let Some(run) = run else { return place };
    Layer {
        listen: list(&run.listen),
        bootstrap: list(&run.bootstrap),
        sources: (!run.sources.is_empty()).then(|| run.sources.clone()),
        stop_when_cut_off: (!run.stop_when_cut_off.is_empty()).then(|| run.stop_when_cut_off.clone()),
        max_runners: run.max_runners,
        executor: run.executor,
        isolation: run.isolation,
        labels: list(&run.labels),
        act: run.act.clone(),
        actions_runner: run.actions_runner.clone(),
        autoscaler: Autoscaler { github: run.autoscaler.then_some(true), ..Autoscaler::default() },
        interval: run.interval,
        retention: run.retention,
        drain: run.drain.then_some(true),
        ..place
    }
}

fn environment(world: &World) -> Result<Layer, Failure> {
    let one = |name: &str| world.text(name);
    Ok(Layer {
        data_dir: world.variable("RUNMESH_DATA_DIR").map(PathBuf::from),
        output: value(one, "RUNMESH_OUTPUT", word)?,
        listen: values(one, "RUNMESH_LISTEN", multiaddr)?,
        bootstrap: values(one, "RUNMESH_BOOTSTRAP", multiaddr)?,
        announce: values(one, "RUNMESH_ANNOUNCE", multiaddr)?,
        swarm_key: world.variable("RUNMESH_SWARM_KEY").map(PathBuf::from),
        mdns: value(one, "RUNMESH_MDNS", yes_or_no)?,
        relay: value(one, "RUNMESH_RELAY", yes_or_no)?,
        sources: values(one, "RUNMESH_SOURCES", source)?,
        manners: None,
        github_api: value(one, "RUNMESH_GITHUB_API", endpoint)?,
        github_app: value(one, "RUNMESH_GITHUB_APP", app)?,
        github_app_key: world.variable("RUNMESH_GITHUB_APP_KEY").map(PathBuf::from),
        include: values(one, "RUNMESH_INCLUDE", pattern)?,
        exclude: values(one, "RUNMESH_EXCLUDE", pattern)?,
        forks: value(one, "RUNMESH_FORKS", yes_or_no)?,
        since_days: value(one, "RUNMESH_SINCE_DAYS", days)?,
        stop_when_cut_off: values(one, "RUNMESH_STOP_WHEN_CUT_OFF", source)?,
        max_runners: value(one, "RUNMESH_MAX_RUNNERS", runners)?,
        executor: value(one, "RUNMESH_EXECUTOR", word)?,
        isolation: value(one, "RUNMESH_ISOLATION", word)?,
        labels: values(one, "RUNMESH_LABELS", label)?,
        act: world.variable("RUNMESH_ACT").map(PathBuf::from),
        actions_runner: world.variable("RUNMESH_ACTIONS_RUNNER").map(PathBuf::from),
        autoscaler: autoscaler::environment(one)?,
        work: work::environment(one, world)?,
        interval: value(one, "RUNMESH_INTERVAL", interval)?,
        retention: value(one, "RUNMESH_RETENTION", duration)?,
        keeping: keeping::environment(one)?,
        drain: value(one, "RUNMESH_DRAIN", yes_or_no)?,
        drain_limit: value(one, "RUNMESH_DRAIN_LIMIT", duration)?,
    })
}

/// Reads one variable.
fn value<T>(
    text: impl Fn(&str) -> Result<Option<String>, Failure>,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    let Some(text) = text(name)? else { return Ok(None) };
    read(&text).map(Some).map_err(|why| Failure::usage(format!("the environment's {name}: `{text}` {why}")))
}

/// Reads one variable that holds a list, separated by commas.
fn values<T>(
    text: impl Fn(&str) -> Result<Option<String>, Failure>,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, Failure> {
    let item = |item: &str| read(item).map_err(|why| format!("has `{item}`, which {why}"));
    value(text, name, |list| list.split(',').map(str::trim).filter(|item| !item.is_empty()).map(item).collect())
}

/// Reads one of the words of a setting.
fn word<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let words = T::value_variants().iter().filter_map(T::to_possible_value);
        let words: Vec<String> = words.map(|word| word.get_name().to_owned()).collect();
        format!("is not one of: {}", words.join(", "))
    })
}

/// Reads a multiaddr.
pub(super) fn multiaddr(text: &str) -> Result<String, String> {
    match text.parse::<Multiaddr>() {
        Ok(address) if !address.is_empty() => Ok(address.to_string()),
        _ => Err("is not a multiaddr, such as /ip4/192.168.1.20/tcp/4477".to_owned()),
    }
}

/// Reads where workflows come from.
pub(super) fn source(text: &str) -> Result<Spec, String> {
    text.parse().map_err(|error| match error {
        SpecError::Github(_) => {
            "names no GitHub owner or repository: write github:OWNER, github:OWNER/REPO, or github:* for all that the \
             token reaches"
                .to_owned()
        }
        SpecError::NoPath(_) => "gives no path: write git:PATH".to_owned(),
        SpecError::Form(_) => "is not github:OWNER, github:OWNER/REPO, git:PATH or git:NAME=PATH".to_owned(),
    })
}

/// Reads what becomes of what a source holds at first.
pub(super) fn first_scan(text: &str) -> Result<FirstScan, String> {
    match text {
        "submit" => Ok(FirstScan::Submit),
        "record" => Ok(FirstScan::Record),
        _ => Err("is not submit or record".to_owned()),
    }
}

/// Reads whether the mesh runs what GitHub runs too.
pub(super) fn duplicate(text: &str) -> Result<Duplicate, String> {
    match text {
        "avoid" => Ok(Duplicate::Avoid),
        "allow" => Ok(Duplicate::Allow),
        _ => Err("is not avoid or allow".to_owned()),
    }
}

/// Reads a GitHub owner.
pub(super) fn owner(text: &str) -> Result<String, String> {
    match format!("github:{text}").parse() {
        Ok(Spec::GithubOwner { owner }) => Ok(owner),
        _ => Err("is no GitHub user or organisation".to_owned()),
    }
}

/// Reads where GitHub's API is.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|_| "is no API address: write https://HOST or https://HOST/api/v3".to_owned())
}

/// Reads a GitHub App's id.
pub(super) fn app(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "is no GitHub App's id, which is a number".to_owned())
}

/// Reads a pattern of repositories' names.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 {
        return Err("is no pattern such as `team-*` or `owner/name`, of at most 200 bytes".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a number of days.
pub(super) fn days(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=36_500).contains(number));
    number.ok_or_else(|| "is not a number of days from 1 to 36500".to_owned())
}

/// Reads a number of tasks.
pub(super) fn runners(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= MOST_RUNNERS);
    number.ok_or_else(|| format!("is not a number from 0 to {MOST_RUNNERS}"))
}

/// Reads an interval in seconds.
pub(super) fn interval(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=86_400).contains(number));
    number.ok_or_else(|| "is not a number of seconds from 1 to 86400".to_owned())
}

/// Reads a `runs-on` label, after a `!` one to take away.
pub(super) fn label(text: &str) -> Result<String, String> {
    let fits = |character: char| character.is_alphanumeric() || "-_.".contains(character);
    let name = text.strip_prefix('!').unwrap_or(text);
    if name.is_empty() || name.len() > 256 || !name.chars().all(fits) {
        return Err("is not a label: letters, digits, `-`, `_` and `.`, at most 256 bytes".to_owned());
    }
    Ok(text.to_lowercase())
}

/// Reads a `runs-on` label that somebody may offer.
pub(super) fn offered_label(text: &str) -> Result<String, String> {
    label(text).and_then(|label| match label.strip_prefix('!') {
        Some(_) => Err("takes a label away: name those that may be offered".to_owned()),
        None => Ok(label),
    })
}

/// Reads a `workflow_dispatch` input.
pub(super) fn input(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("is not KEY=VALUE".to_owned()),
    }
}

/// Reads a time like 90s, 30m, 1h or 2d, from a second to a year.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = BTreeMap::from([('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)]);
    let read = || {
        let unit = units.get(&text.chars().next_back()?)?;
        text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(*unit).map(Duration::from_secs)
    };
    let fits = |time: &Duration| !time.is_zero() && *time <= LONGEST;
    read().filter(fits).ok_or_else(|| "is not a time from 1s to 365d, such as 30m, 1h or 2d".to_owned())
}

/// Reads an amount of bytes, such as 500MiB.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1_u64 << 40)];
    let of_unit =
        |(unit, bytes): (&str, u64)| text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(bytes);
    let read = units.into_iter().find_map(of_unit).filter(|size| *size > 0);
    read.ok_or_else(|| "is not a size in KiB, MiB, GiB or TiB, such as 500MiB".to_owned())
}

/// Reads how a run ended.
pub(super) fn conclusion(text: &str) -> Result<Conclusion, String> {
    let words = || Conclusion::ALL.map(Conclusion::word).join(", ");
    text.parse().map_err(|()| format!("is not one of: {}", words()))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "is not true or false".to_owned())
}

#[cfg(test)]
mod tests;
