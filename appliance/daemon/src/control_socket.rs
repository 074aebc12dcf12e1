//! The control socket: requests and answers, one JSON object a line. `{"method": "drive.fail", "params": {"name": "d2"}}` is
//! answered by `{"result": …}` or `{"error": "…"}`. Only the socket's owner may connect; requests, connections and waits are bounded.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use crate::control::{Caller, ControlSetup};

/// Longest request in bytes.
const MAX_REQUEST_BYTES: usize = 4096;

/// Most connections at once.
const MAX_CONNECTIONS: usize = 16;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// How long a connection may be idle, and how long an answer may take to go out.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait after the system has refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process serves there.
    #[error("the control socket {} is in use: another brindle serves there", .0.display())]
    InUse(PathBuf),
    /// There is something that is no socket.
    #[error("the control socket {} cannot be made: there is something else of this name", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("the control socket {} cannot be made: {source}", path.display())]
    System {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A bound socket. When it is dropped its file is removed, if it still is this socket's.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Option<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
}

impl ControlSocket {
    /// Binds and listens. The socket of a dead process is replaced, that of a live one is not.
    pub fn bind(path: PathBuf) -> Result<Self, SocketError> {
        clear_stale(&path)?;
        match listen(&path) {
            Ok((listener, identity)) => Ok(Self { listener: Some(listener), path, identity }),
            Err(source) => Err(SocketError::System { path, source }),
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A later process may have put its own in place; that one is not ours to remove.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let system = |source| SocketError::System { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Nobody listens: its process is dead.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(system),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system(error)),
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
    }
}

fn listen(path: &Path) -> io::Result<(OwnedFd, (u64, u64))> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens nobody can connect: there is no moment in which others could.
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket, identity(path)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    #[serde(default)]
    params: serde_json::Value,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Result(T),
    Error(String),
}

/// Serves until the thread ends.
pub async fn serve(mut socket: ControlSocket, setup: Arc<ControlSetup>) {
    let descriptor = socket.listener.take().expect("a socket is served once");
    let listener = match tokio::net::UnixListener::from_std(descriptor.into()) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the control socket cannot be served"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let setup = Arc::clone(&setup);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &setup).await {
                        tracing::debug!(%error, "a control connection broke");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(mut stream: tokio::net::UnixStream, setup: &Arc<ControlSetup>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let caller = Caller { uid: peer.uid(), pid: peer.pid() };
    let (receive, mut send) = stream.split();
    let mut receive = BufReader::new(receive);
    let mut line = Vec::with_capacity(MAX_REQUEST_BYTES);
    loop {
        line.clear();
        let mut bounded = (&mut receive).take(MAX_REQUEST_BYTES as u64);
        let length = within(bounded.read_until(b'\n', &mut line)).await?;
        if length == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let mut answer = if is_whole {
            answer(&line, caller, setup).await
        } else {
            error(format!("a request is one line of at most {MAX_REQUEST_BYTES} bytes"))
        };
        answer.push(b'\n');
        within(send.write_all(&answer)).await?;
        if !is_whole {
            // Where the next request begins cannot be known.
            return Ok(());
        }
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(IDLE_LIMIT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn answer(line: &[u8], caller: Caller, setup: &Arc<ControlSetup>) -> Vec<u8> {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(fault) => return error(format!("this is no request: {fault}")),
    };
    match request.method.as_str() {
        "status" => {
            let setup = Arc::clone(setup);
            // Shards are asked and waited for: meanwhile this thread goes on with scrapes and signals.
            match tokio::task::spawn_blocking(move || (setup.status)()).await {
                Ok(status) => encode(&Answer::Result(status)),
                Err(fault) => error(format!("no status could be put together: {fault}")),
            }
        }
        "version" => encode(&Answer::Result(env!("CARGO_PKG_VERSION"))),
        _ => {
            let setup = Arc::clone(setup);
            let Request { method, params } = request;
            let name = method.clone();
            match tokio::task::spawn_blocking(move || (setup.call)(caller, &method, params)).await {
                Ok(Some(Ok(result))) => encode(&Answer::Result(result)),
                Ok(Some(Err(refusal))) => error(refusal),
                Ok(None) => error(format!("there is no method '{name}'")),
                Err(fault) => error(format!("{name} came to no end: {fault}")),
            }
        }
    }
}

fn error(message: String) -> Vec<u8> {
    encode(&Answer::<()>::Error(message))
}

fn encode<T: Serialize>(answer: &Answer<T>) -> Vec<u8> {
    serde_json::to_vec(answer).expect("answers are plain values with text keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ControlPlane;
    use crate::control::tests::{Folder, setup};
    use crate::control_client::{self, ClientError};
    use std::io::{BufRead, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    fn start(path: &Path) -> Result<ControlPlane, crate::control::ControlError> {
        ControlPlane::start(setup(Some(path), &Arc::default()))
    }

    #[test]
    fn a_client_gets_the_status_and_the_socket_goes_at_the_end() {
        let folder = Folder::new("socket-status");
        let path = folder.0.join("control.sock");
        let plane = start(&path).unwrap();
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(control_client::status(&path).unwrap(), crate::status::tests::example());
        drop(plane);
        assert!(!path.exists());
        assert!(matches!(control_client::status(&path), Err(ClientError::NobodyServes(_))));
    }

    #[test]
    fn what_is_no_request_is_answered_with_an_error() {
        let folder = Folder::new("socket-hostile");
        let path = folder.0.join("control.sock");
        let _plane = start(&path).unwrap();
        let ask = |bytes: &[u8]| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let lines: Vec<_> = std::io::BufReader::new(stream).lines().collect::<Result<_, _>>().unwrap();
            lines
        };
        for bytes in
            [&b"x\n"[..], b"{}\n", b"\xff\n", b"{\"method\":\"fly\"}\n", b"{\"method\":\"status\",\"x\":1}\n", b"\n"]
        {
            let lines = ask(bytes);
            assert_eq!(lines.len(), 1, "{bytes:?}");
            assert!(lines[0].starts_with("{\"error\":"), "{lines:?}");
        }
        let long = ask(&[b'x'; MAX_REQUEST_BYTES]);
        assert!(long[0].contains("at most"), "{long:?}");
        let two = ask(b"{\"method\":\"version\"}\n{\"method\":\"version\"}\n");
        assert_eq!(two, [format!("{{\"result\":\"{}\"}}", env!("CARGO_PKG_VERSION")), two[0].clone()]);
        assert!(ask(b"").is_empty());
    }

    #[test]
    fn a_live_socket_is_refused_a_dead_one_replaced_and_anything_else_left_alone() {
        let folder = Folder::new("socket-stale");
        let path = folder.0.join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead process leaves its socket");
        let plane = start(&path).unwrap();
        let second = start(&path).unwrap_err();
        assert!(second.to_string().contains("in use"), "{second}");
        assert!(control_client::status(&path).is_ok(), "the first goes on");
        drop(plane);
        std::fs::write(&path, "precious").unwrap();
        assert!(start(&path).unwrap_err().to_string().contains("something else"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let missing = start(&folder.0.join("no/such/folder.sock")).unwrap_err();
        assert!(missing.to_string().contains("no/such/folder.sock"), "{missing}");
    }

    #[test]
    fn a_socket_that_another_process_has_put_in_place_is_not_removed() {
        let folder = Folder::new("socket-other");
        let path = folder.0.join("control.sock");
        let ours = ControlSocket::bind(path.clone()).unwrap();
        // Both must exist at once, lest the second takes over the inode of the first.
        let other = folder.0.join("other.sock");
        let _theirs = UnixListener::bind(&other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        drop(ours);
        assert!(path.exists());
    }
}
