//! What a task may ask of the container engine, and what becomes of its words. Pure: values in, values out.
//!
//! An engine's socket is the host: whoever may speak to it can start a privileged container with the host's files in it,
//! and a workflow's `container: options:` says such things through act. So what is asked is held against lists of what
//! is allowed, not of what is forbidden, and what a container gets is limited whatever was asked for.
//!
//! Names are the task's own: what act calls `X` is `X-MARK` at the engine, and is told as `X` again. So two tasks, also
//! of two nodes, may use the same names at one engine, and see nothing of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{LABEL_NODE, LABEL_TASK, Lane, Limits};
use crate::runner::artifacts;

/// What one task may do.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// What its names end with; it tells task and node.
    pub(crate) mark: String,
    pub(crate) node: String,
    pub(crate) limits: Limits,
    /// Whether its containers may have a network.
    pub(crate) network: bool,
    /// Whether images may be fetched.
    pub(crate) pull: bool,
    /// The network that its containers have which name none; the engine's default one where it is not said.
    pub(crate) lane: Option<Lane>,
}

/// What the engine has made for the task.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Ids of containers, of what is executed in them, and of networks; and the networks' names as the engine knows them.
    pub(crate) containers: BTreeSet<String>,
    pub(crate) execs: BTreeSet<String>,
    pub(crate) networks: BTreeSet<String>,
    /// Where the artifact service is reached, by the network's name.
    pub(crate) gateways: BTreeMap<String, Ipv4Addr>,
}

impl Made {
    /// The network that act has made for the job of this container, by the name that both begin with.
    fn network_of(&self, container: &str) -> Option<&str> {
        let begin = format!("{container}-");
        let found = self.networks.iter().find(|network| !container.is_empty() && network.starts_with(&begin));
        found.map(String::as_str)
    }
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// Handed on as it is, to this path.
    Pass(String),
    /// Its body is looked at and changed, and the answer's `Id` is noted.
    Create(Kind),
    /// Answered with those of the engine's things that are the task's.
    List(Kind),
    Refuse(String),
}

/// What the engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Container,
    Exec,
    Network,
    Volume,
}

impl Rules {
    /// What to do with a request for this path, without the query. A version may stand before it.
    pub(crate) fn way(&self, method: &Method, path: &str, made: &Made) -> Way {
        let bare = path.trim_start_matches('/');
        let bare = match bare.split_once('/') {
            Some((version, rest))
                if version.starts_with('v') && version[1..].starts_with(|c: char| c.is_ascii_digit()) =>
            {
                rest
            }
            _ => bare,
        };
        let parts: Vec<&str> = bare.split('/').collect();
        let (get, post, delete) = (*method == Method::GET, *method == Method::POST, *method == Method::DELETE);
        let pass = || Way::Pass(path.to_owned());
        let no = || Way::Refuse(format!("{method} /{bare} is not for tasks"));
        let own = |ids: &BTreeSet<String>, id: &str, allowed: bool| match (ids.contains(id), allowed) {
            (true, true) => pass(),
            (false, _) => Way::Refuse(format!("{id} is not of this task")),
            _ => no(),
        };
        match parts[..] {
            ["_ping" | "version" | "info"] if get || *method == Method::HEAD => pass(),
            ["images", "create"] if post => {
                if self.pull {
                    pass()
                } else {
                    Way::Refuse("the image is not on this host, and its settings do not allow to fetch any".to_owned())
                }
            }
            ["images", .., "json"] if get && parts.len() > 2 => pass(),
            ["containers", "json"] if get => Way::List(Kind::Container),
            ["containers", "create"] if post => Way::Create(Kind::Container),
            ["containers", id, "exec"] if post && made.containers.contains(id) => Way::Create(Kind::Exec),
            ["containers", id, "archive"] => {
                own(&made.containers, id, get || [Method::HEAD, Method::PUT].contains(method))
            }
            ["containers", id, "json" | "logs"] => own(&made.containers, id, get),
            ["containers", id, "start" | "stop" | "kill" | "wait" | "attach" | "resize"] => {
                own(&made.containers, id, post)
            }
            ["containers", id] => own(&made.containers, id, delete),
            ["exec", id, "start" | "resize"] => own(&made.execs, id, post),
            ["exec", id, "json"] => own(&made.execs, id, get),
            ["networks"] if get => Way::List(Kind::Network),
            ["networks", "create"] if post => Way::Create(Kind::Network),
            ["networks", id] => own(&made.networks, id, get || delete),
            ["volumes"] if get => Way::List(Kind::Volume),
            ["volumes", "create"] if post => Way::Create(Kind::Volume),
            ["volumes", name] if (get || delete) && is_name(name) => {
                Way::Pass(format!("{}{}", &path[..path.len() - name.len()], self.name(name)))
            }
            _ => no(),
        }
    }

    /// The engine's name for what the task calls so.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.mark)
    }

    /// The query of a creation, its name made the task's own.
    pub(crate) fn query(&self, query: &str) -> String {
        let part = |part: &str| match part.strip_prefix("name=") {
            Some(name) => format!("name={}", self.name(name)),
            None => part.to_owned(),
        };
        query.split('&').map(part).collect::<Vec<_>>().join("&")
    }

    /// The body of a creation as the engine shall have it; `name` is what its query calls it.
    ///
    /// # Errors
    /// A sentence on what is not allowed.
    pub(crate) fn body(&self, kind: Kind, name: &str, body: Value, made: &Made) -> Result<Value, String> {
        let Value::Object(mut body) = body else { return Err("the engine wants an object".to_owned()) };
        if kind == Kind::Exec {
            let privileged = body.get("Privileged").is_some_and(is_set);
            return if privileged { Err(refused("Privileged")) } else { Ok(body.into()) };
        }
        let mut labels = match body.remove("Labels") {
            Some(Value::Object(labels)) => labels,
            _ => Map::new(),
        };
        labels.insert(LABEL_NODE.to_owned(), json!(self.node));
        labels.insert(LABEL_TASK.to_owned(), json!(self.mark));
        body.insert("Labels".to_owned(), labels.into());
        match kind {
            Kind::Container => {
                let asked = body.remove("HostConfig").unwrap_or_default();
                let mut host = self.host_config(asked, made)?;
                // act 0.2.89 leaves a job without a `container:` outside of the network that it makes for its services.
                let lane = self.lane.as_ref().map(|lane| lane.name.as_str());
                if let Some(network) = made.network_of(name).or(lane)
                    && ["", "default", "bridge"].contains(&host["NetworkMode"].as_str().unwrap_or_default())
                {
                    host["NetworkMode"] = json!(network);
                    body.remove("NetworkingConfig");
                }
                if let Some(gateway) = made.gateways.get(host["NetworkMode"].as_str().unwrap_or_default()) {
                    let known = json!(format!("{}:{gateway}", artifacts::NAME));
                    match &mut host["ExtraHosts"] {
                        Value::Array(hosts) => hosts.push(known),
                        none => *none = json!([known]),
                    }
                }
                body.insert("HostConfig".to_owned(), host);
                if let Some(Value::Object(ends)) =
                    body.get_mut("NetworkingConfig").and_then(|n| n.get_mut("EndpointsConfig"))
                {
                    let renamed = std::mem::take(ends).into_iter();
                    *ends = renamed
                        .map(|(name, end)| Ok((self.network(&name, made)?, end)))
                        .collect::<Result<_, String>>()?;
                }
            }
            Kind::Network | Kind::Volume => {
                let asked = body.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned();
                if !is_name(&asked) {
                    return Err(format!("`{asked}` is no name"));
                }
                let allowed =
                    ["Name", "Labels", "Driver", "CheckDuplicate", "Scope", "Attachable", "Internal", "EnableIPv6"];
                if let Some((key, _)) =
                    body.iter().find(|(key, value)| !allowed.contains(&key.as_str()) && is_set(value))
                {
                    return Err(refused(key));
                }
                let driver = body.get("Driver").and_then(Value::as_str).unwrap_or_default();
                if !["", "bridge", "local"].contains(&driver) {
                    return Err(refused("Driver"));
                }
                body.insert("Name".to_owned(), json!(self.name(&asked)));
            }
            Kind::Exec => (),
        }
        Ok(body.into())
    }

    /// What the container gets of the host.
    fn host_config(&self, asked: Value, made: &Made) -> Result<Value, String> {
        /// Taken over as they are. What is not named here must be unset.
        const KEPT: &[&str] = &[
            "AutoRemove",
            "CapDrop",
            "ConsoleSize",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "Init",
            "LogConfig",
            "MaskedPaths",
            "ReadonlyPaths",
            "ReadonlyRootfs",
            "Tmpfs",
        ];
        /// Given by the limits, or by nobody: a port of the host belongs to no task.
        const REPLACED: &[&str] = &[
            "CpuPeriod",
            "CpuQuota",
            "CpuShares",
            "Memory",
            "MemoryReservation",
            "MemorySwap",
            "MemorySwappiness",
            "NanoCpus",
            "NanoCPUs",
            "PidsLimit",
            "PortBindings",
            "PublishAllPorts",
            "RestartPolicy",
            "ShmSize",
            "Ulimits",
            "BlkioWeight",
            "CpusetCpus",
            "CpusetMems",
            "OomKillDisable",
        ];
        let Value::Object(asked) = asked else { return Ok(self.limits.host_config(Map::new())) };
        let mut given = Map::new();
        for (key, value) in asked {
            match key.as_str() {
                "Binds" | "Mounts" | "NetworkMode" if is_set(&value) => {
                    let value = match key.as_str() {
                        "Binds" => self.each(value, |bind| self.bind(bind))?,
                        "Mounts" => self.each(value, |mount| self.mount(mount))?,
                        _ => json!(self.network(value.as_str().unwrap_or_default(), made)?),
                    };
                    given.insert(key, value);
                }
                kept if KEPT.contains(&kept) => drop(given.insert(key, value)),
                replaced if REPLACED.contains(&replaced) => (),
                "IpcMode" | "CgroupnsMode" | "UsernsMode" | "PidMode" | "UTSMode" | "Isolation"
                    if ["private", "default", ""].contains(&value.as_str().unwrap_or("-")) => {}
                _ if is_set(&value) => return Err(refused(&key)),
                _ => (),
            }
        }
        if !self.network {
            given.insert("NetworkMode".to_owned(), json!("none"));
        }
        Ok(self.limits.host_config(given))
    }

    fn each(&self, list: Value, change: impl Fn(Value) -> Result<Value, String>) -> Result<Value, String> {
        let Value::Array(items) = list else { return Err("the engine wants a list".to_owned()) };
        items.into_iter().map(change).collect()
    }

    /// `NAME:PATH[:OPTIONS]` with a volume's name, never the host's path.
    fn bind(&self, bind: Value) -> Result<Value, String> {
        let text = bind.as_str().unwrap_or_default();
        match text.split_once(':') {
            Some((name, rest)) if is_name(name) => Ok(json!(format!("{}:{rest}", self.name(name)))),
            _ => Err(format!("`{text}` shows the container a part of this host, which tasks may not")),
        }
    }

    fn mount(&self, mount: Value) -> Result<Value, String> {
        let Value::Object(mut mount) = mount else { return Err("the engine wants an object".to_owned()) };
        let source = mount.get("Source").and_then(Value::as_str).unwrap_or_default().to_owned();
        let plain = |mount: &Map<String, Value>| {
            let driver = mount.get("VolumeOptions").and_then(|options| options.get("DriverConfig"));
            !driver.is_some_and(is_set)
        };
        match mount.get("Type").and_then(Value::as_str) {
            Some("tmpfs") => Ok(mount.into()),
            Some("volume") if is_name(&source) && plain(&mount) => {
                mount.insert("Source".to_owned(), json!(self.name(&source)));
                Ok(mount.into())
            }
            _ => Err(format!("`{source}` shows the container a part of this host, which tasks may not")),
        }
    }

    /// The engine's name for a network.
    fn network(&self, name: &str, made: &Made) -> Result<String, String> {
        if ["", "default", "bridge", "none"].contains(&name) {
            return Ok(name.to_owned());
        }
        let own = self.name(name);
        if made.networks.contains(&own) { Ok(own) } else { Err(format!("the network `{name}` is not for tasks")) }
    }

    /// Of the engine's list what is the task's, by the names it knows.
    pub(crate) fn own(&self, kind: Kind, list: Value) -> Value {
        let end = format!("-{}", self.mark);
        let strip = |name: &mut Value| {
            let text = name.as_str().and_then(|name| name.strip_suffix(&end)).map(str::to_owned);
            text.map(|text| *name = json!(text)).is_some()
        };
        let is_own = |item: &mut Value| match item {
            Value::Object(item) if kind == Kind::Container => match item.get_mut("Names") {
                Some(Value::Array(names)) => {
                    names.retain_mut(strip);
                    !names.is_empty()
                }
                _ => false,
            },
            Value::Object(item) => item.get_mut("Name").is_some_and(strip),
            _ => false,
        };
        let keep = |items: &mut Value| {
            if let Value::Array(items) = items {
                items.retain_mut(is_own);
            }
        };
        let mut list = list;
        match list.get_mut("Volumes") {
            Some(volumes) => keep(volumes),
            None => keep(&mut list),
        }
        list
    }
}

impl Limits {
    /// What a container of this host gets, besides what it was allowed.
    pub(super) fn host_config(&self, mut given: Map<String, Value>) -> Value {
        if let Some(memory) = self.memory {
            given.insert("Memory".to_owned(), json!(memory));
            // As much swap as memory would be more memory.
            given.insert("MemorySwap".to_owned(), json!(memory));
        }
        if let Some(cpus) = self.millicpus {
            given.insert("NanoCpus".to_owned(), json!(u64::from(cpus) * 1_000_000));
        }
        if let Some(pids) = self.pids {
            given.insert("PidsLimit".to_owned(), json!(pids));
        }
        let ulimit = |name: &str| json!({ "Name": name, "Soft": self.ulimit, "Hard": self.ulimit });
        given.insert("Ulimits".to_owned(), json!([ulimit("nofile"), ulimit("nproc")]));
        given.into()
    }
}

fn refused(key: &str) -> String {
    format!("`{key}` gives a container more of this host than tasks may have")
}

/// Whether a value says anything: an engine's client sends all fields, most of them empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0) && number.as_i64() != Some(-1),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => items.values().any(is_set),
    }
}

/// A name as engines take it: no path, no option.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= 200
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let limits = Limits { memory: Some(1 << 28), millicpus: Some(500), pids: Some(100), ulimit: 1024 };
        Rules { mark: "t1".to_owned(), node: "n".to_owned(), limits, network: true, pull: false, lane: None }
    }

    fn create(host_config: Value) -> Result<Value, String> {
        let mut made = Made::default();
        made.networks.insert("net-t1".to_owned());
        rules().body(Kind::Container, "", json!({ "Image": "i", "HostConfig": host_config }), &made)
    }

    #[test]
    fn only_what_is_allowed_passes_and_only_to_ones_own() {
        let mut made = Made::default();
        made.containers.insert("abc".to_owned());
        let way = |method: Method, path: &str| rules().way(&method, path, &made);
        assert_eq!(way(Method::GET, "/v1.41/info"), Way::Pass("/v1.41/info".to_owned()));
        assert_eq!(way(Method::POST, "/v1.41/containers/create"), Way::Create(Kind::Container));
        assert_eq!(way(Method::POST, "/containers/abc/start"), Way::Pass("/containers/abc/start".to_owned()));
        assert_eq!(
            way(Method::GET, "/v1.41/images/docker.io/library/a/json"),
            Way::Pass("/v1.41/images/docker.io/library/a/json".to_owned())
        );
        assert_eq!(way(Method::DELETE, "/v1.41/volumes/v"), Way::Pass("/v1.41/volumes/v-t1".to_owned()));
        for (method, path) in [
            (Method::POST, "/containers/other/start"),
            (Method::POST, "/containers/other/exec"),
            (Method::POST, "/containers/abc/update"),
            (Method::POST, "/containers/abc/rename"),
            (Method::POST, "/exec/abc/start"),
            (Method::DELETE, "/images/i"),
            (Method::POST, "/images/create"),
            (Method::POST, "/build"),
            (Method::POST, "/v1.41/libpod/containers/create"),
            (Method::DELETE, "/volumes/.."),
            (Method::GET, "/secrets"),
            (Method::POST, "/containers/prune"),
            (Method::POST, "/networks/n/connect"),
        ] {
            assert!(matches!(way(method.clone(), path), Way::Refuse(_)), "{method} {path}");
        }
    }

    #[test]
    fn nothing_of_the_host_gets_into_a_container() {
        for (key, value) in [
            ("Privileged", json!(true)),
            ("CapAdd", json!(["SYS_ADMIN"])),
            ("Devices", json!([{"PathOnHost": "/dev/sda"}])),
            ("DeviceRequests", json!([{"Count": -1, "Driver": "x"}])),
            ("PidMode", json!("host")),
            ("IpcMode", json!("host")),
            ("UsernsMode", json!("host")),
            ("NetworkMode", json!("host")),
            ("NetworkMode", json!("container:abc")),
            ("SecurityOpt", json!(["seccomp=unconfined"])),
            ("VolumesFrom", json!(["other"])),
            ("Binds", json!(["/:/host"])),
            ("Binds", json!(["../x:/host"])),
            ("Mounts", json!([{"Type": "bind", "Source": "/", "Target": "/host"}])),
            (
                "Mounts",
                json!([{"Type": "volume", "Source": "v", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}]),
            ),
            ("CgroupParent", json!("/")),
            ("Sysctls", json!({"kernel.x": "1"})),
            ("Runtime", json!("other")),
            ("NewerThanThis", json!("x")),
        ] {
            assert!(create(json!({ key: value })).is_err(), "{key} {value}");
        }
    }

    #[test]
    fn what_is_made_has_its_limits_its_labels_and_names_of_its_own() {
        let made = create(json!({
            "Memory": 1u64 << 40, "Privileged": false, "CapAdd": null, "PidsLimit": 0, "NetworkMode": "net",
            "Binds": ["data:/data:rw"], "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}],
            "PortBindings": {"80/tcp": [{"HostPort": "80"}]}, "CapDrop": ["ALL"],
        }))
        .unwrap();
        let host = &made["HostConfig"];
        assert_eq!(
            (&host["Memory"], &host["PidsLimit"], &host["NanoCpus"]),
            (&json!(1 << 28), &json!(100), &json!(500_000_000))
        );
        assert_eq!((&host["Binds"][0], &host["Mounts"][0]["Source"]), (&json!("data-t1:/data:rw"), &json!("v-t1")));
        assert_eq!((&host["NetworkMode"], &host["PortBindings"]), (&json!("net-t1"), &Value::Null));
        assert_eq!((&made["Labels"][LABEL_NODE], &made["Labels"][LABEL_TASK]), (&json!("n"), &json!("t1")));
        assert_eq!(rules().query("platform=&name=act-x"), "platform=&name=act-x-t1");
        let mut networks = Made::default();
        networks.networks.insert("act-x-job-network-t1".to_owned());
        let job =
            |name| rules().body(Kind::Container, name, json!({ "HostConfig": {"NetworkMode": "bridge"} }), &networks);
        assert_eq!(job("act-x").unwrap()["HostConfig"]["NetworkMode"], json!("act-x-job-network-t1"));
        assert_eq!(job("act-y").unwrap()["HostConfig"]["NetworkMode"], json!("bridge"));
        let lane = Lane { name: "runmesh-t1".to_owned(), gateway: None };
        let own = Rules { lane: Some(lane), ..rules() };
        networks.gateways = [("runmesh-t1".to_owned(), Ipv4Addr::new(10, 0, 0, 1))].into();
        let job = |name: &str, host: Value| {
            own.body(Kind::Container, name, json!({ "HostConfig": host }), &networks).unwrap()["HostConfig"].clone()
        };
        assert_eq!(job("act-x", json!({"NetworkMode": "bridge"}))["NetworkMode"], json!("act-x-job-network-t1"));
        let alone = job("act-y", json!({"NetworkMode": "bridge", "ExtraHosts": ["a:1.2.3.4"]}));
        assert_eq!(alone["NetworkMode"], json!("runmesh-t1"));
        assert_eq!(alone["ExtraHosts"], json!(["a:1.2.3.4", "artifacts.runmesh.internal:10.0.0.1"]));
        let none = job("act-y", json!({"NetworkMode": "none"}));
        assert_eq!((&none["NetworkMode"], &none["ExtraHosts"]), (&json!("none"), &Value::Null));
        let shut = Rules { network: false, ..rules() };
        let body = shut
            .body(Kind::Container, "", json!({ "HostConfig": {"NetworkMode": "bridge"} }), &Made::default())
            .unwrap();
        assert_eq!(body["HostConfig"]["NetworkMode"], json!("none"));
    }

    #[test]
    fn of_a_list_one_sees_ones_own_by_ones_own_names() {
        let list = json!([{"Id": "1", "Names": ["/act-x-t1"]}, {"Id": "2", "Names": ["/act-x-t2"]}, {"Id": "3"}]);
        assert_eq!(rules().own(Kind::Container, list), json!([{"Id": "1", "Names": ["/act-x"]}]));
        let volumes = json!({"Volumes": [{"Name": "v-t1"}, {"Name": "v"}], "Warnings": []});
        assert_eq!(rules().own(Kind::Volume, volumes), json!({"Volumes": [{"Name": "v"}], "Warnings": []}));
    }
}
