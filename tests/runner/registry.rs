//! A registry of images on loopback: as much of the OCI distribution specification as fetching takes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

pub(crate) struct Registry {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// Serves these directories in OCI image layout, by repository.
    pub(crate) fn of(layouts: BTreeMap<String, PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, ends) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let ended = ends.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever goes in the middle of a word does not want the rest.
                let _ = answer(stream.unwrap(), &layouts);
            }
        });
        Self { address, ends, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(stream: TcpStream, layouts: &BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = if path == "/v2/" { Some((Vec::new(), String::new())) } else { find(path, layouts) };
    let (status, (body, kind)) = match found {
        Some(found) => ("200 OK", found),
        None => ("404 Not Found", (Vec::new(), String::new())),
    };
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    if !kind.is_empty() {
        write!(stream, "Content-Type: {kind}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(())
}

/// A manifest or a blob, and what kind of thing it is.
fn find(path: &str, layouts: &BTreeMap<String, PathBuf>) -> Option<(Vec<u8>, String)> {
    let path = path.strip_prefix("/v2/")?;
    let (name, kind, reference) = ["/manifests/", "/blobs/"].iter().find_map(|kind| {
        let (name, reference) = path.split_once(kind)?;
        Some((name, *kind, reference))
    })?;
    let layout = layouts.get(name)?;
    let blob = |digest: &str| std::fs::read(layout.join("blobs").join(digest.replace(':', "/"))).ok();
    if kind == "/blobs/" {
        return Some((blob(reference)?, "application/octet-stream".to_owned()));
    }
    let index: Value = read(&layout.join("index.json"))?;
    let manifest = &index["manifests"][0];
    let digest = if reference.starts_with("sha256:") { reference } else { manifest["digest"].as_str()? };
    Some((blob(digest)?, manifest["mediaType"].as_str()?.to_owned()))
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
