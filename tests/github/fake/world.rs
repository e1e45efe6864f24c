//! What exists: accounts, repositories with their commits, apps. Object ids are git's own, so that a clone of a
//! repository has exactly those that the API names.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sha1::{Digest as _, Sha1};

/// A file's path to its bytes.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Organization,
}

#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) id: u64,
    pub(crate) login: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) oid: String,
    pub(crate) tree: String,
    pub(crate) parent: Option<String>,
    pub(crate) message: String,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) files: Files,
}

#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub(crate) id: u64,
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) branch: String,
    /// Of the default branch, oldest first.
    pub(crate) commits: Vec<Commit>,
    pub(crate) private: bool,
    pub(crate) archived: bool,
    pub(crate) disabled: bool,
    pub(crate) fork: bool,
}

impl Repository {
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    pub(crate) fn node_id(&self) -> String {
        format!("R_{}", self.id)
    }

    pub(crate) fn head(&self) -> Option<&Commit> {
        self.commits.last()
    }

    pub(crate) fn find_commit(&self, name: &str) -> Option<&Commit> {
        if name == "HEAD" || name == self.branch || name.strip_prefix("refs/heads/") == Some(&self.branch) {
            return self.head();
        }
        self.commits.iter().find(|commit| commit.oid == name)
    }

    /// The bytes of a blob in any of its commits.
    pub(crate) fn blob(&self, oid: &str) -> Option<&Vec<u8>> {
        self.commits.iter().rev().flat_map(|commit| commit.files.values()).find(|bytes| object_id("blob", bytes) == oid)
    }

    pub(crate) fn pushed_at(&self) -> u64 {
        self.head().map_or(EPOCH, |head| head.time)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Installation {
    pub(crate) id: u64,
    pub(crate) app: u64,
    pub(crate) account: String,
}

/// When the fake's first commit was made: 2024-01-01, so that ids do not depend on the clock.
const EPOCH: u64 = 1_704_067_200;

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    accounts: BTreeMap<String, Account>,
    /// By lower-case `owner/name`.
    repositories: BTreeMap<String, Repository>,
    pub(crate) installations: Vec<Installation>,
    next_id: u64,
    ticks: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { next_id: 1_000, ..Self::default() }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn account(&mut self, login: &str, kind: Kind) {
        let id = self.id();
        self.accounts.insert(login.to_ascii_lowercase(), Account { id, login: login.to_owned(), kind });
    }

    pub(crate) fn find_account(&self, login: &str) -> Option<&Account> {
        self.accounts.get(&login.to_ascii_lowercase())
    }

    /// Makes a repository with one commit, and its owner (a user) where there is none of that name.
    pub(crate) fn repository(&mut self, name: &str, files: &[(&str, &str)]) -> &mut Repository {
        let (owner, short) = name.split_once('/').expect("OWNER/NAME");
        if self.find_account(owner).is_none() {
            self.account(owner, Kind::User);
        }
        let id = self.id();
        let repository = Repository {
            id,
            owner: owner.to_owned(),
            name: short.to_owned(),
            branch: "main".to_owned(),
            commits: Vec::new(),
            private: false,
            archived: false,
            disabled: false,
            fork: false,
        };
        self.repositories.insert(name.to_ascii_lowercase(), repository);
        if !files.is_empty() {
            let files: Vec<(&str, Option<&str>)> = files.iter().map(|(path, text)| (*path, Some(*text))).collect();
            self.commit(name, &files);
        }
        self.find_mut(name).expect("just made")
    }

    /// Commits changes to the default branch: a text for a path, or its end. Gives the commit's id.
    pub(crate) fn commit(&mut self, name: &str, changes: &[(&str, Option<&str>)]) -> String {
        let changes: Vec<(&str, Option<&[u8]>)> =
            changes.iter().map(|(path, text)| (*path, text.map(str::as_bytes))).collect();
        self.commit_bytes(name, &changes)
    }

    pub(crate) fn commit_bytes(&mut self, name: &str, changes: &[(&str, Option<&[u8]>)]) -> String {
        self.ticks += 1;
        let time = EPOCH + self.ticks;
        let repository = self.find_mut(name).expect("a repository");
        let mut files = repository.head().map(|head| head.files.clone()).unwrap_or_default();
        for (path, bytes) in changes {
            match bytes {
                Some(bytes) => drop(files.insert((*path).to_owned(), bytes.to_vec())),
                None => drop(files.remove(*path)),
            }
        }
        let parent = repository.head().map(|head| head.oid.clone());
        let (tree, message) = (tree_id(&files, ""), "a change\n".to_owned());
        let mut text = format!("tree {tree}\n");
        if let Some(parent) = &parent {
            text += &format!("parent {parent}\n");
        }
        text += &format!("author {AUTHOR} {time} +0000\ncommitter {AUTHOR} {time} +0000\n\n{message}");
        let oid = object_id("commit", text.as_bytes());
        repository.commits.push(Commit { oid: oid.clone(), tree, parent, message, time, files });
        oid
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Repository> {
        self.repositories.get(&name.to_ascii_lowercase())
    }

    pub(crate) fn find_mut(&mut self, name: &str) -> Option<&mut Repository> {
        self.repositories.get_mut(&name.to_ascii_lowercase())
    }

    pub(crate) fn by_id(&self, id: u64) -> Option<&Repository> {
        self.repositories.values().find(|repository| repository.id == id)
    }

    /// By owner and name.
    pub(crate) fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.repositories.values()
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.repositories.remove(&name.to_ascii_lowercase());
    }

    /// Installs an app for an account. Gives the installation's id.
    pub(crate) fn install(&mut self, app: u64, account: &str) -> u64 {
        let id = self.id();
        self.installations.push(Installation { id, app, account: account.to_owned() });
        id
    }
}

pub(crate) const AUTHOR: &str = "Octo Cat <octo@example.org>";

/// Git's name of an object.
pub(crate) fn object_id(kind: &str, bytes: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("{kind} {}\0", bytes.len()));
    hash.update(bytes);
    hex::encode(hash.finalize())
}

/// What stands in a folder (`""` for the root, else with a `/` at its end): name, whether it is a folder, id.
pub(crate) fn entries(files: &Files, folder: &str) -> Vec<(String, bool, String)> {
    let mut entries: BTreeMap<String, (bool, String)> = BTreeMap::new();
    for (path, bytes) in files {
        let Some(rest) = path.strip_prefix(folder) else { continue };
        match rest.split_once('/') {
            None => drop(entries.insert(rest.to_owned(), (false, object_id("blob", bytes)))),
            Some((name, _)) if !entries.contains_key(name) => {
                let id = tree_id(files, &format!("{folder}{name}/"));
                entries.insert(name.to_owned(), (true, id));
            }
            Some(_) => {}
        }
    }
    let mut entries: Vec<_> = entries.into_iter().map(|(name, (is_folder, id))| (name, is_folder, id)).collect();
    // Git sorts a folder as if its name ended with a `/`.
    entries.sort_by_key(|(name, is_folder, _)| if *is_folder { format!("{name}/") } else { name.clone() });
    entries
}

pub(crate) fn tree_id(files: &Files, folder: &str) -> String {
    let mut bytes = Vec::new();
    for (name, is_folder, id) in entries(files, folder) {
        bytes.extend_from_slice(if is_folder { b"40000 " } else { b"100644 " });
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend(hex::decode(id).expect("an id"));
    }
    object_id("tree", &bytes)
}

/// A time as GitHub writes it.
pub(crate) fn timestamp(seconds: u64) -> String {
    let days = i64::try_from(seconds / 86_400).expect("a time");
    // Howard Hinnant's civil_from_days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let rest = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
