//! The settings file: TOML, whose keys are the long flags with `_` for `-`, and lists in the plural.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value;

use super::super::failure::Failure;
use super::{
    Layer, app, autoscaler, days, duplicate, duration, endpoint, first_scan, interval, keeping, label, multiaddr,
    pattern, runners, source, word, work,
};
use crate::forge::Manner;

/// The most bytes a settings file may have.
const LARGEST: u64 = 1 << 20;
/// The keys that a settings file may have.
const KEYS: &[&str] = &[
    "data_dir",
    "output",
    "listen",
    "bootstrap",
    "announce",
    "swarm_key",
    "mdns",
    "relay",
    "sources",
    "github_api",
    "github_app",
    "github_app_key",
    "include",
    "exclude",
    "forks",
    "since_days",
    "stop_when_cut_off",
    "max_runners",
    "executor",
    "isolation",
    "labels",
    "act",
    "actions_runner",
    "autoscaler",
    "command",
    "containers",
    "min_free",
    "work_dir",
    "secrets",
    "interval",
    "retention",
    "logs_retention",
    "logs_quota",
    "artifacts_retention",
    "artifacts_quota",
    "artifacts_limit",
    "drain",
    "drain_limit",
];

/// What the file at the path says. Paths in it begin at its own folder.
///
/// # Errors
/// Exit status 2, naming the file and, where there is one, the key.
pub(super) fn read(path: &Path) -> Result<Layer, Failure> {
    let cannot = || format!("cannot read the settings file {}", path.display());
    let size = path.metadata().map_err(|error| Failure::usage(cannot()).because(&error))?.len();
    if size > LARGEST {
        return Err(Failure::usage(format!("{}: it has {size} bytes, more than {LARGEST}", cannot())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Failure::usage(cannot()).because(&error))?;
    let layer = parse(&text).map_err(|wrong| wrong.of(path))?;
    Ok(layer.below(path.parent().unwrap_or(Path::new("/"))))
}

/// What is wrong with a file's text.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    fn of(self, path: &Path) -> Failure {
        let failure = Failure::usage(format!("the settings file {}: {}", path.display(), self.what));
        match self.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn parse(text: &str) -> Result<Layer, Wrong> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Wrong::new(format!("line {line} is not TOML: {}", error.message()))
    })?;
    let mut layer = Layer::default();
    for (key, value) in &table {
        let wrong = |why: String| Wrong::new(format!("`{key}` {why}"));
        match key.as_str() {
            "data_dir" => layer.data_dir = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
            "output" => layer.output = Some(string(value, word).map_err(wrong)?),
            "listen" => layer.listen = Some(list(value, multiaddr).map_err(wrong)?),
            "bootstrap" => layer.bootstrap = Some(list(value, multiaddr).map_err(wrong)?),
            "announce" => layer.announce = Some(list(value, multiaddr).map_err(wrong)?),
            "swarm_key" => layer.swarm_key = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
            "mdns" => layer.mdns = Some(flag(value).map_err(wrong)?),
            "relay" => layer.relay = Some(flag(value).map_err(wrong)?),
            "sources" => sources(value, &mut layer).map_err(wrong)?,
            "github_api" => layer.github_api = Some(string(value, endpoint).map_err(wrong)?),
            "github_app" => layer.github_app = Some(number(value, app).map_err(wrong)?),
            "github_app_key" => layer.github_app_key = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
            "include" => layer.include = Some(list(value, pattern).map_err(wrong)?),
            "exclude" => layer.exclude = Some(list(value, pattern).map_err(wrong)?),
            "forks" => layer.forks = Some(flag(value).map_err(wrong)?),
            "since_days" => layer.since_days = Some(number(value, days).map_err(wrong)?),
            "stop_when_cut_off" => {
                layer.stop_when_cut_off.get_or_insert_default().extend(list(value, source).map_err(wrong)?);
            }
            "max_runners" => layer.max_runners = Some(number(value, runners).map_err(wrong)?),
            "interval" => layer.interval = Some(number(value, interval).map_err(wrong)?),
            "retention" => layer.retention = Some(string(value, duration).map_err(wrong)?),
            "logs_retention" | "logs_quota" | "artifacts_retention" | "artifacts_quota" => {
                keeping::take(&mut layer.keeping, key, value)?;
            }
            "executor" => layer.executor = Some(string(value, word).map_err(wrong)?),
            "isolation" => layer.isolation = Some(string(value, word).map_err(wrong)?),
            "labels" => layer.labels = Some(list(value, label).map_err(wrong)?),
            "act" => layer.act = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
            "actions_runner" => layer.actions_runner = Some(string(value, |text| Ok(text.into())).map_err(wrong)?),
            "autoscaler" => layer.autoscaler = autoscaler::table(value)?,
            "command" | "containers" | "min_free" | "artifacts_limit" | "secrets" | "work_dir" => {
                work::take(&mut layer.work, key, value)?
            }
            "drain" => layer.drain = Some(flag(value).map_err(wrong)?),
            "drain_limit" => layer.drain_limit = Some(string(value, duration).map_err(wrong)?),
            _ => return Err(unknown(key)),
        }
    }
    Ok(layer)
}

/// A list of sources: each its name alone, or a table with what is said of it besides.
fn sources(value: &Value, layer: &mut Layer) -> Result<(), String> {
    let items = value.as_array().ok_or("is not a [\"list\", \"of strings\"], nor [[sources]] tables")?;
    let (mut specs, mut manners) = (Vec::new(), BTreeMap::new());
    for item in items {
        let Value::Table(table) = item else {
            specs.push(string(item, source)?);
            continue;
        };
        let spec = table.get("spec").ok_or("has a table without `spec`, such as spec = \"github:my-org\"")?;
        let spec = string(spec, source).map_err(|why| format!("`spec` {why}"))?;
        let mut manner = Manner::default();
        for (key, value) in table {
            let wrong = |why: String| format!("of {spec}: `{key}` {why}");
            match key.as_str() {
                "spec" => {}
                "first_scan" => manner.first_scan = string(value, first_scan).map_err(wrong)?,
                "duplicate" => manner.duplicate = string(value, duplicate).map_err(wrong)?,
                "stop_when_cut_off" => {
                    if value.as_bool().ok_or("is not true or false".to_owned()).map_err(wrong)? {
                        layer.stop_when_cut_off.get_or_insert_default().push(spec.clone());
                    }
                }
                _ => {
                    return Err(wrong(
                        "is no setting of a source; there are: spec, first_scan, duplicate, stop_when_cut_off"
                            .to_owned(),
                    ));
                }
            }
        }
        specs.push(spec.clone());
        manners.insert(spec, manner);
    }
    layer.sources = Some(specs);
    layer.manners = Some(manners);
    Ok(())
}

fn flag(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "is not true or false".to_owned())
}

pub(super) fn string<T>(value: &Value, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    let text = value.as_str().ok_or("is not a \"string\"")?;
    read(text).map_err(|why| format!("has `{text}`, which {why}"))
}

pub(super) fn number<T>(value: &Value, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    read(&value.as_integer().ok_or("is not a number")?.to_string())
}

pub(super) fn list<T>(value: &Value, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or("is not a [\"list\", \"of strings\"]")?;
    items.iter().map(|item| string(item, &read)).collect()
}

fn unknown(key: &str) -> Wrong {
    let near = |known: &&&str| distance(key, known) <= 2;
    let nearest = KEYS.iter().filter(near).min_by_key(|known| distance(key, known));
    let hint = match nearest {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are: {}", KEYS.join(", ")),
    };
    Wrong { what: format!("`{key}` is no setting"), hint: Some(hint) }
}

/// Levenshtein's distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::{Duplicate, FirstScan};

    fn complaint(text: &str) -> String {
        match parse(text) {
            Ok(layer) => panic!("{text:?} was taken as {layer:?}"),
            Err(wrong) => [wrong.what].into_iter().chain(wrong.hint).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            data_dir = "/d"
            output = "json"
            listen = ["/ip4/127.0.0.1/tcp/0"]
            bootstrap = []
            announce = ["/dns/a.example/tcp/1"]
            swarm_key = "swarm.key"
            mdns = true
            relay = false
            sources = ["git:/r", "git:s"]
            github_api = "https://ghe.example/api/v3"
            github_app = 7
            github_app_key = "k.pem"
            include = ["a-*"]
            exclude = ["b"]
            forks = true
            since_days = 30
            stop_when_cut_off = ["git:s"]
            max_runners = 3
            executor = "none"
            isolation = "none"
            labels = ["GPU"]
            act = "/a"
            interval = 5
            retention = "2d"
            logs_retention = "12h"
            logs_quota = "500 MiB"
            artifacts_retention = "2d"
            artifacts_quota = "1GiB"
            artifacts_limit = "100MiB"
            drain = true
            drain_limit = "90m"
            work_dir = "/w"
            actions_runner = "/r.tar.gz"
            command = ["/p", "--once"]
            min_free = "2GiB"
            [autoscaler]
            github = true
            interval = 7
            runner_group = "lab"
            idle = "90s"
            share = 30
            lend = false
            any_arch = true
            [containers]
            engine = "/e.sock"
            image = "localhost/lab:1"
            pull = true
            images_quota = "7GiB"
            images_retention = "3d"
            memory = "2GiB"
            millicpus = 1500
            pids = 300
            [secrets."Octo/Lab"]
            npm_token = { file = "/npm" }
            KEY = { env = "LAB_KEY" }
        "#;
        let layer = parse(text).unwrap();
        let keys: Vec<String> = text.parse::<toml::Table>().unwrap().keys().cloned().collect();
        let mut known: Vec<&str> = KEYS.to_vec();
        known.sort_unstable();
        assert_eq!(keys, known);
        assert_eq!(layer.sources.map(|sources| sources.len()), Some(2));
        assert_eq!(layer.stop_when_cut_off.map(|sources| sources.len()), Some(1));
        assert_eq!(layer.labels, Some(vec!["gpu".to_owned()]));
        assert_eq!(layer.bootstrap, Some(vec![]));
        assert_eq!((layer.mdns, layer.relay), (Some(true), Some(false)));
        assert_eq!(layer.swarm_key, Some("swarm.key".into()));
        let kept = layer.keeping.settings();
        assert_eq!((kept.logs.age.as_secs(), kept.logs.quota), (12 * 3600, 500 << 20));
        assert_eq!((kept.artifacts.age.as_secs(), kept.artifacts.quota), (2 * 86_400, 1 << 30));
        assert_eq!(layer.retention, Some(std::time::Duration::from_secs(2 * 86_400)));
        assert_eq!((layer.max_runners, layer.drain), (Some(3), Some(true)));
        assert_eq!(layer.drain_limit, Some(std::time::Duration::from_secs(90 * 60)));
        let scale = layer.autoscaler.settings().expect("it is on");
        assert_eq!((scale.interval.as_secs(), scale.idle.as_secs(), scale.group.as_deref()), (7, 90, Some("lab")));
        assert!(scale.any_arch);
        let work = layer.work.settings(true);
        assert_eq!((work.command.len(), work.min_free, work.pull), (2, Some(2 << 30), true));
        assert_eq!(work.work_dir, Some("/w".into()));
        assert_eq!((work.images.quota, work.images.age.as_secs()), (7 << 30, 3 * 86_400));
        assert_eq!(
            (work.limits.memory, work.limits.millicpus, work.limits.pids),
            (Some(2 << 30), Some(1500), Some(300))
        );
        let secrets: Vec<&str> = work.secrets["octo/lab"].keys().map(String::as_str).collect();
        assert_eq!(secrets, ["KEY", "NPM_TOKEN"]);
    }

    #[test]
    fn sources_may_be_tables() {
        let tables = "stop_when_cut_off = [\"git:/c\"]\n[[sources]]\nspec = \"github:a\"\nfirst_scan = \"record\"\n\
                      [[sources]]\nspec = \"git:/b\"\nduplicate = \"allow\"\nstop_when_cut_off = true\n";
        let mixed = "sources = [{spec = \"github:a\", first_scan = \"record\"}, \"git:/b\"]";
        let [tables, mixed] = [tables, mixed].map(|text| parse(text).unwrap());
        assert_eq!(tables.sources, mixed.sources);
        let manner = |layer: &Layer, spec: &str| {
            layer.manners.as_ref().and_then(|manners| manners.get(&spec.parse().unwrap()).copied())
        };
        let record = Manner { first_scan: FirstScan::Record, ..Manner::default() };
        let allow = Manner { duplicate: Duplicate::Allow, ..Manner::default() };
        assert_eq!([manner(&tables, "github:a"), manner(&tables, "git:/b")], [Some(record), Some(allow)]);
        assert_eq!([manner(&mixed, "github:a"), manner(&mixed, "git:/b")], [Some(record), None]);
        let stops: Vec<String> = tables.stop_when_cut_off.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(stops, ["git:/b", "git:/c"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(complaint("max_runer = 1"), "`max_runer` is no setting; did you mean `max_runners`?");
        assert!(complaint("colour = 1").starts_with("`colour` is no setting; there are: data_dir, output"));
        assert_eq!(complaint("max_runners = 5000"), "`max_runners` is not a number from 0 to 1024");
        assert_eq!(complaint("max_runners = \"2\""), "`max_runners` is not a number");
        assert_eq!(
            complaint("isolation = \"jail\""),
            "`isolation` has `jail`, which is not one of: container, bwrap, none"
        );
        assert_eq!(
            complaint("sources = \"git:/r\""),
            "`sources` is not a [\"list\", \"of strings\"], nor [[sources]] tables"
        );
        assert!(complaint("[[sources]]\nfirst_scan = \"record\"").contains("without `spec`"));
        assert!(complaint("[[sources]]\nspec = \"git:/r\"\nfirst = 1").contains("of git:/r: `first` is no setting"));
        assert!(complaint("[[sources]]\nspec = \"git:/r\"\nduplicate = \"no\"").contains("not avoid or allow"));
        assert_eq!(complaint("[autoscaler]\nshare = 101"), "`autoscaler.share` is not a number from 0 to 100");
        assert!(
            complaint("[autoscaler]\nshares = 1").starts_with("`autoscaler.shares` is no setting; there are: github, ")
        );
        assert_eq!(
            complaint("[secrets.\"o/r\"]\nA = \"hunter2\""),
            "`secrets.o/r.A` is not { file = \"PATH\" } or { env = \"VARIABLE\" }"
        );
        assert_eq!(complaint("command = []"), "`command` names no program");
        assert!(complaint("[containers]\nimg = 1").starts_with("`containers.img` is no setting; there are: engine"));
        assert_eq!(complaint("autoscaler = true"), "`autoscaler` is not a [table]");
        assert!(complaint("\n\nlisten = [").starts_with("line 3 is not TOML: "));
    }
}
