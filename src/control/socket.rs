//! The Unix socket: where it is, who may stand at its other end, and when it is cut.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::transport::server::Connected;

use super::error::ControlError;

/// The socket's name in the data directory.
const SOCKET: &str = "control.sock";
/// A socket that is being made; it gets its name when only its user can reach it.
const UNFINISHED: &str = "control.new";
/// The most bytes of a socket's path: `sun_path` without its end mark (unix(7); 104 bytes in BSD's).
const MOST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// How long a listener may take to answer whether it is one.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a connection may send nothing at all: three of the pings that a living HTTP/2 peer answers.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// A data directory's sockets by paths that the system takes.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    /// Open when the directory's own path is too long; the paths then go through it.
    opened: Option<File>,
}

impl Place {
    fn new(data_dir: &Path) -> Result<Self, ControlError> {
        let path = data_dir.join(SOCKET);
        let length = path.as_os_str().as_bytes().len();
        if length <= MOST {
            return Ok(Self { dir: data_dir.to_owned(), opened: None });
        }
        if !cfg!(target_os = "linux") || !Path::new("/proc/self/fd").is_dir() {
            return Err(ControlError::TooLong { path, length, most: MOST });
        }
        let opened = File::open(data_dir).map_err(|error| unreached(data_dir, &path, error))?;
        Ok(Self { dir: data_dir.to_owned(), opened: Some(opened) })
    }

    /// A path of that name that fits.
    fn path(&self, name: &str) -> PathBuf {
        match &self.opened {
            Some(opened) => PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())),
            None => self.dir.join(name),
        }
    }
}

/// A listening socket, and the name it has.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    pub(super) name: Name,
}

/// The name of a listening socket; it goes when this does.
#[derive(Debug)]
pub(super) struct Name {
    path: PathBuf,
    /// Device and inode, so that nobody else's socket of that name is removed.
    file: (u64, u64),
}

impl Drop for Name {
    fn drop(&mut self) {
        let mine = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if mine && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("removing the control socket {}: {error}", self.path.display());
        }
    }
}

/// Listens in a data directory, in the place of a socket that nobody listens at any more.
pub(super) async fn bind(data_dir: &Path) -> Result<Bound, ControlError> {
    let shown = data_dir.join(SOCKET);
    let failed = |doing, source| ControlError::Socket { doing, path: shown.clone(), source };
    let place = Place::new(data_dir)?;
    let (path, unfinished) = (place.path(SOCKET), place.path(UNFINISHED));
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking for", error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotASocket { path: shown }),
        Ok(_) => match timeout(CONNECT, UnixStream::connect(&path)).await {
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            // Whoever is slow to answer, or has too many waiting, is somebody too.
            _ => return Err(ControlError::Taken { path: shown }),
        },
    }
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("making", error)),
        _ => {}
    }
    // Under another name first: who reaches it by its own name meets mode 0600 already, and a stale socket is replaced
    // in one step.
    let listener = UnixListener::bind(&unfinished).map_err(|error| failed("making", error))?;
    let named = fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&unfinished, &path))
        .and_then(|()| fs::symlink_metadata(&path));
    match named {
        Ok(found) => Ok(Bound { listener, name: Name { path: shown, file: (found.dev(), found.ino()) } }),
        Err(error) => {
            // Already failing; a leftover is removed by the next attempt.
            let _ = fs::remove_file(&unfinished);
            Err(failed("making", error))
        }
    }
}

/// Connects to the node of a data directory.
pub(super) async fn connect(data_dir: &Path) -> Result<UnixStream, ControlError> {
    let place = Place::new(data_dir)?;
    match timeout(CONNECT, UnixStream::connect(place.path(SOCKET))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreached(data_dir, &data_dir.join(SOCKET), error)),
        Err(_) => Err(ControlError::TimedOut { data_dir: data_dir.to_owned(), within: CONNECT }),
    }
}

/// What a failure to reach a socket means.
fn unreached(data_dir: &Path, path: &Path, error: io::Error) -> ControlError {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound, PermissionDenied};
    let data_dir = data_dir.to_owned();
    match error.kind() {
        NotFound | ConnectionRefused | NotADirectory => ControlError::NoNode { data_dir },
        PermissionDenied => ControlError::Denied { data_dir },
        _ => ControlError::Socket { doing: "connecting to", path: path.to_owned(), source: error },
    }
}

/// Whether the process at the other end is of this node's user, or root.
pub(super) fn is_welcome(stream: &UnixStream) -> bool {
    let me = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == me || peer.uid() == 0 => true,
        Ok(peer) => {
            tracing::warn!("a process of user {} called the control socket and was not heard", peer.uid());
            false
        }
        Err(error) => {
            tracing::warn!("asking who calls the control socket: {error}");
            false
        }
    }
}

/// A connection that ends when the server says so, or when nothing has come from it for long: the HTTP/2 code above it
/// runs each connection as a task of its own, and this is what ends that task.
pub(super) struct Guarded {
    stream: UnixStream,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    silence: Pin<Box<Sleep>>,
    patience: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Guarded {
    /// Guards a connection until `cut` turns true or its sender is gone, or it has sent nothing for `patience`.
    pub(super) fn new(
        stream: UnixStream,
        mut cut: watch::Receiver<bool>,
        patience: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let cut = Box::pin(async move {
            let _ = cut.wait_for(|cut| *cut).await;
        });
        Self { stream, cut, silence: Box::pin(sleep(patience)), patience, _permit: permit }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            self.cut = Box::pin(std::future::ready(()));
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the node is going away"));
        }
        if self.silence.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the caller has sent nothing for long"));
        }
        Ok(())
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let end = Instant::now() + self.patience;
        self.silence.as_mut().reset(end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_end(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Guarded {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

    use super::*;

    async fn guarded(cut: watch::Receiver<bool>, patience: Duration) -> (Guarded, UnixStream, Arc<Semaphore>) {
        let (here, there) = UnixStream::pair().expect("a pair");
        let seats = Arc::new(Semaphore::new(1));
        let seat = Arc::clone(&seats).acquire_owned().await.expect("a seat");
        (Guarded::new(here, cut, patience, seat), there, seats)
    }

    #[tokio::test]
    async fn a_connection_ends_when_it_has_been_silent_for_long_and_not_before() {
        let (_cut, cuts) = watch::channel(false);
        let patience = Duration::from_millis(300);
        let (mut guarded, mut other, seats) = guarded(cuts, patience).await;
        let began = Instant::now();
        let mut buffer = [0; 8];
        while began.elapsed() < 2 * patience {
            other.write_all(b"word").await.expect("sent");
            assert_eq!(guarded.read(&mut buffer).await.expect("alive"), 4);
            sleep(patience / 10).await;
        }
        let quiet = Instant::now();
        let error = timeout(10 * patience, guarded.read(&mut buffer)).await.expect("ends").expect_err("silent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(quiet.elapsed() >= patience / 2, "{:?}", quiet.elapsed());
        assert!(guarded.write(b"more").await.is_err(), "and stays ended");
        drop(guarded);
        assert_eq!(seats.available_permits(), 1, "its seat is free");
    }

    #[tokio::test]
    async fn a_connection_is_cut_while_it_waits() {
        for drops in [false, true] {
            let (cut, cuts) = watch::channel(false);
            let (mut guarded, _other, _seats) = guarded(cuts, SILENCE).await;
            let reading = tokio::spawn(async move { guarded.read(&mut [0; 8]).await });
            tokio::task::yield_now().await;
            if drops {
                drop(cut);
            } else {
                cut.send_replace(true);
            }
            let read = timeout(CONNECT, reading).await.expect("soon").expect("no panic");
            assert_eq!(read.expect_err("cut").kind(), io::ErrorKind::ConnectionAborted);
        }
    }
}
