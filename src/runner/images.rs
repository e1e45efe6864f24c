//! The images that were fetched for work here: which, when each was used last, and which go when there are too many.
//!
//! Promises
//! - Only what this node fetched is ever removed: an image that was not at the engine when it was asked for, that is in the
//!   ledger since before it was fetched, and whose name still means what was fetched.
//! - Never one that an order here uses, and never by force: the engine keeps what any container of anybody uses.
//! - The one whose last use is the oldest goes first.
//!
//! How large an image is the engine says, layers that several share counted for each; so the quota is kept rather too well.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::RemoveImageOptionsBuilder;
use serde::{Deserialize, Serialize};
use tokio::sync::RwLock;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::engine::{ANSWER, Engine, PULL, connect};
use super::ledger::{Book, Ledger};
use super::run::wall_ms;

/// How much of what was fetched is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageKeeping {
    /// The most bytes of all fetched images together.
    pub quota: u64,
    /// What was not used for longer goes.
    pub age: Duration,
}

impl Default for ImageKeeping {
    /// 20 GiB and 30 days. Own choice: a dozen images like those of GitHub's own runners in their middle size.
    fn default() -> Self {
        Self { quota: 20 << 30, age: Duration::from_secs(30 * 86_400) }
    }
}

/// A fetched image as it is written, under engine and name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    socket: OsString,
    image: String,
    /// What the name meant once it was fetched; nothing before that is known.
    id: Option<String>,
    /// In milliseconds since 1970.
    fetched_ms: u64,
    used_ms: u64,
}

impl Record {
    fn name(&self) -> String {
        format!("{} {}", self.socket.display(), self.image)
    }
}

/// What the orders of this host use of images.
#[derive(Debug)]
pub(crate) struct Images {
    ledger: Arc<dyn Ledger>,
    /// How many orders use an image, by its id or, where it is not there yet, by its name.
    held: Mutex<BTreeMap<String, usize>>,
    /// Whoever is about to use one waits for the end of a removal, and removals for him.
    door: RwLock<()>,
}

/// Keeps images from being removed while it lives.
#[derive(Debug)]
pub(crate) struct Use {
    images: Arc<Images>,
    what: Vec<String>,
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut held = self.images.held.lock().unwrap_or_else(PoisonError::into_inner);
        for what in &self.what {
            if let Some(number) = held.get_mut(what) {
                *number -= 1;
                if *number == 0 {
                    held.remove(what);
                }
            }
        }
    }
}

impl Images {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Arc::new(Self { ledger, held: Mutex::default(), door: RwLock::new(()) })
    }

    /// An image is about to be fetched, if it is not at the engine: then it is this node's, and on disk as such.
    ///
    /// # Errors
    /// When that cannot be put on disk: it is not to be fetched then.
    pub(crate) async fn before_fetching(&self, engine: &Engine, image: &str) -> Result<(), String> {
        if inspect(engine, image).await?.is_some() {
            return Ok(());
        }
        let now = wall_ms();
        let socket = engine.socket.clone().into();
        let record = Record { socket, image: image.to_owned(), id: None, fetched_ms: now, used_ms: now };
        self.enter(record).await.map_err(|why| format!("noting that the image {image} is fetched: {why}"))
    }

    /// An order uses an image from now on, as long as the answer lives.
    pub(crate) async fn using(self: &Arc<Self>, engine: &Engine, image: &str) -> Use {
        let _no_removal = self.door.read().await;
        let id = inspect(engine, image).await.ok().flatten().map(|(id, _)| id);
        let what: Vec<String> = std::iter::once(image.to_owned()).chain(id.clone()).collect();
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            what.iter().for_each(|what| *held.entry(what.clone()).or_default() += 1);
        }
        if let Some(id) = id {
            self.touch(engine, &id).await;
        }
        Use { images: self.clone(), what }
    }

    /// Notes that an image was used now, if it is one of those.
    async fn touch(&self, engine: &Engine, id: &str) {
        for record in self.identified(engine).await {
            if record.id.as_deref() == Some(id) {
                let name = record.name();
                if let Err(why) = self.enter(Record { used_ms: wall_ms(), ..record }).await {
                    tracing::warn!("noting that the image {name} was used: {why}");
                }
            }
        }
    }

    /// The records of this engine, with the ids of what has been fetched meanwhile. One whose fetching failed is struck out.
    async fn identified(&self, engine: &Engine) -> Vec<Record> {
        let mut known = Vec::new();
        for record in self.records(&engine.socket).await {
            if record.id.is_some() {
                known.push(record);
                continue;
            }
            match inspect(engine, &record.image).await {
                Ok(Some((id, _))) => {
                    let record = Record { id: Some(id), ..record };
                    // Else it is asked for anew.
                    let _ = self.enter(record.clone()).await;
                    known.push(record);
                }
                Ok(None) if wall_ms().saturating_sub(record.fetched_ms) > 2 * ms(PULL) => self.strike(&record).await,
                Ok(None) | Err(_) => (),
            }
        }
        known
    }

    /// Removes what was not used for too long, then, beyond the quota, what was used longest ago.
    pub(crate) async fn sweep(&self, engine: &Engine, keeping: &ImageKeeping) {
        let mut kept = Vec::new();
        for record in self.identified(engine).await {
            match inspect(engine, &record.image).await {
                Ok(Some((id, bytes))) if record.id.as_ref() == Some(&id) => kept.push((record, bytes)),
                // Somebody has removed it, or the name means what somebody else has fetched.
                Ok(_) => self.strike(&record).await,
                Err(why) => {
                    tracing::debug!("{why}");
                    return;
                }
            }
        }
        kept.sort_by_key(|(record, _)| record.used_ms);
        let (now, mut all) = (wall_ms(), kept.iter().map(|(_, bytes)| bytes).sum::<u64>());
        for (record, bytes) in kept {
            let is_old = now.saturating_sub(record.used_ms) > ms(keeping.age);
            if (is_old || all > keeping.quota) && self.remove(engine, &record).await {
                let why = if is_old { "not used for long" } else { "too many for the quota" };
                tracing::info!("removed the image {}, {bytes} bytes: {why}", record.image);
                all -= bytes;
            }
        }
    }

    /// Whether it is gone.
    async fn remove(&self, engine: &Engine, record: &Record) -> bool {
        let _nobody_new = self.door.write().await;
        {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.contains_key(&record.image) || record.id.as_ref().is_some_and(|id| held.contains_key(id)) {
                return false;
            }
        }
        // By its name: it may have others, which somebody else gave it.
        let options = RemoveImageOptionsBuilder::default().force(false).noprune(false).build();
        let removed = async {
            let docker = connect(&engine.socket)?;
            docker.remove_image(&record.image, Some(options), None).await.map_err(|error| error.to_string())
        };
        match timeout(ANSWER, removed).await.map_err(|late| late.to_string()).flatten() {
            Ok(_) => {
                self.strike(record).await;
                true
            }
            // Most often a container has it.
            Err(why) => {
                tracing::debug!("the image {} stays: {why}", record.image);
                false
            }
        }
    }

    async fn records(&self, socket: &Path) -> Vec<Record> {
        let ledger = self.ledger.clone();
        let records = spawn_blocking(move || ledger.records(Book::Images)).await;
        let records = records.map_err(|fault| fault.to_string()).flatten().unwrap_or_else(|why| {
            tracing::warn!("reading which images were fetched: {why}");
            Vec::new()
        });
        let read = records.into_iter().filter_map(|(_, bytes)| serde_json::from_slice::<Record>(&bytes).ok());
        read.filter(|record| record.socket.as_os_str() == socket.as_os_str()).collect()
    }

    async fn enter(&self, record: Record) -> Result<(), String> {
        let ledger = self.ledger.clone();
        let entered = spawn_blocking(move || {
            let bytes = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
            ledger.enter(Book::Images, &record.name(), &bytes)
        });
        entered.await.map_err(|fault| fault.to_string()).flatten()
    }

    async fn strike(&self, record: &Record) {
        let (ledger, name) = (self.ledger.clone(), record.name());
        let struck = spawn_blocking(move || ledger.strike(Book::Images, &name)).await;
        if let Err(why) = struck.map_err(|fault| fault.to_string()).flatten() {
            tracing::warn!("striking out an image that is gone: {why}");
        }
    }
}

/// What a name means at the engine, and how many bytes that has; nothing where it is not there.
async fn inspect(engine: &Engine, image: &str) -> Result<Option<(String, u64)>, String> {
    let fault = |why: &dyn std::fmt::Display| format!("asking the container engine for the image {image}: {why}");
    let docker = connect(&engine.socket)?;
    match timeout(ANSWER, docker.inspect_image(image)).await.map_err(|late| fault(&late))? {
        Ok(found) => Ok(found.id.map(|id| (id, u64::try_from(found.size.unwrap_or_default()).unwrap_or_default()))),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(fault(&error)),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
