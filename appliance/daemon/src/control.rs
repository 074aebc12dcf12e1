//! The control side: one thread beside the reactors that answers scrapes and status requests and hears signals. It only
//! translates: what it tells comes from the closures that it is given, what it hears goes to one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base::metrics::{Metrics, ReactorTimes};
use runtime::SignalStack;
use serde_json::Value;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::control_socket::{self, ControlSocket, SocketError};
use crate::metrics_http;
use crate::status::Status;

/// What the control side tells, and whom.
pub struct ControlSetup {
    /// The shards' counters.
    pub metrics: Arc<Metrics>,
    /// The loops' own times, in the order of the shards.
    pub reactor_times: Box<dyn Fn() -> Vec<ReactorTimes> + Send + Sync>,
    /// How the appliance is. It may take a while, but must come to an end.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// Carries out a method with its parameters; none if there is none of this name. It may take a while, but must come to
    /// an end.
    pub call: Box<Call>,
    /// Whether hosts are served.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// Called at each SIGTERM or SIGINT. It must not wait.
    pub stop: Box<dyn Fn() + Send + Sync>,
    /// Where metrics are told.
    pub metrics_address: Option<SocketAddr>,
    /// The control socket.
    pub socket: Option<PathBuf>,
}

/// Who is at the other end of the control socket, as the system says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// The process, if it could be told.
    pub pid: Option<i32>,
}

/// What carries out methods.
pub type Call = dyn Fn(Caller, &str, Value) -> Option<Result<Value, String>> + Send + Sync;

/// Why the control side did not start.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The metrics endpoint cannot listen.
    #[error("cannot serve metrics at {address}: {source}")]
    Metrics {
        /// Where it was to be.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The control socket cannot listen.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system refused something that the thread needs.
    #[error("cannot start the control thread: {0}")]
    System(#[source] io::Error),
}

/// The running control side. When it is dropped it ends, and its socket is removed.
#[derive(Debug)]
pub struct ControlPlane {
    thread: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<()>>,
    metrics_address: Option<SocketAddr>,
}

/// Longest wait, at the end, for a status that is being put together.
const END_LIMIT: Duration = Duration::from_secs(1);

impl ControlPlane {
    /// Binds what is to be bound, then starts the thread.
    pub fn start(setup: ControlSetup) -> Result<Self, ControlError> {
        let metrics = setup.metrics_address.map(listen).transpose()?;
        let metrics_address =
            metrics.as_ref().map(TcpListener::local_addr).transpose().map_err(ControlError::System)?;
        let socket = setup.socket.clone().map(ControlSocket::bind).transpose()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::System)?;
        let signals = {
            let _inside = runtime.enter();
            let one = |kind| signal(kind).map_err(ControlError::System);
            [one(SignalKind::terminate())?, one(SignalKind::interrupt())?]
        };
        let (end, ended) = oneshot::channel();
        let setup = Arc::new(setup);
        let work = move || run(runtime, &setup, metrics, socket, signals, ended);
        let thread =
            std::thread::Builder::new().name("control".to_owned()).spawn(work).map_err(ControlError::System)?;
        Ok(Self { thread: Some(thread), end: Some(end), metrics_address })
    }

    /// Where metrics are told: with port 0 configured, the one that the system chose.
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread ended by a panic");
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ControlError> {
    let bound = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    bound.map_err(|source| ControlError::Metrics { address, source })
}

fn run(
    runtime: Runtime,
    setup: &Arc<ControlSetup>,
    metrics: Option<TcpListener>,
    socket: Option<ControlSocket>,
    signals: [Signal; 2],
    ended: oneshot::Receiver<()>,
) {
    let _signals = SignalStack::new();
    runtime.block_on(async {
        if let Some(listener) = metrics {
            tokio::spawn(metrics_http::serve(listener, Arc::clone(setup)));
        }
        if let Some(socket) = socket {
            tokio::spawn(control_socket::serve(socket, Arc::clone(setup)));
        }
        hear(signals, setup, ended).await;
    });
    runtime.shutdown_timeout(END_LIMIT);
}

/// Passes signals on until the end.
async fn hear([mut terminate, mut interrupt]: [Signal; 2], setup: &ControlSetup, mut ended: oneshot::Receiver<()>) {
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = &mut ended => return,
        };
        tracing::info!(signal = name, "asked to stop");
        (setup.stop)();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use base::metrics::{Names, VolumeName, VolumeOp};
    use base::time::Span;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A folder that goes when the test does.
    pub(crate) struct Folder(pub(crate) PathBuf);

    impl Folder {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("brindle-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    pub(crate) fn setup(socket: Option<&Path>, ready: &Arc<AtomicBool>) -> ControlSetup {
        let names = Names {
            version: "1.2.3".into(),
            volumes: vec![VolumeName { array: "a0".into(), volume: "v0".into() }],
            devices: vec!["d0".into()],
            arrays: vec!["a0".into()],
        };
        let metrics = Arc::new(Metrics::new(names, 1));
        metrics.shards()[0].volumes[0].record(VolumeOp::Read, 4096, Span::from_micros(64), true);
        let ready = Arc::clone(ready);
        ControlSetup {
            metrics,
            reactor_times: Box::new(|| vec![ReactorTimes { turns: 7, ..Default::default() }]),
            status: Box::new(crate::status::tests::example),
            call: Box::new(|_, method, params| (method == "echo").then_some(Ok(params))),
            ready: Box::new(move || ready.load(Ordering::Relaxed)),
            stop: Box::new(|| {}),
            metrics_address: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            socket: socket.map(Path::to_owned),
        }
    }

    fn get(address: SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn metrics_health_and_readiness_are_told() {
        let ready = Arc::new(AtomicBool::new(false));
        let plane = ControlPlane::start(setup(None, &ready)).unwrap();
        let address = plane.metrics_address().unwrap();
        let (head, body) = get(address, "/metrics");
        assert!(head.contains("200") && head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("brindle_volume_requests_total{array=\"a0\",volume=\"v0\",op=\"read\"} 1\n"), "{body}");
        assert!(body.contains("brindle_reactor_turns_total{reactor=\"0\"} 7\n"), "{body}");
        assert!(get(address, "/healthz").0.contains("200"));
        assert!(get(address, "/readyz").0.contains("503"));
        ready.store(true, Ordering::Relaxed);
        assert!(get(address, "/readyz").0.contains("200"));
        assert!(get(address, "/nothing").0.contains("404"));
        drop(plane);
        assert!(TcpStream::connect(address).is_err(), "nobody listens after the end");
    }

    #[test]
    fn an_address_in_use_is_refused_with_its_name() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut setup = setup(None, &Arc::default());
        setup.metrics_address = Some(address);
        let error = ControlPlane::start(setup).unwrap_err();
        assert!(matches!(error, ControlError::Metrics { .. }));
        assert!(error.to_string().contains(&address.to_string()));
    }

    #[test]
    fn idle_connections_below_the_bound_do_not_keep_others_out() {
        let plane = ControlPlane::start(setup(None, &Arc::default())).unwrap();
        let address = plane.metrics_address().unwrap();
        let idle: Vec<_> =
            (0..metrics_http::MAX_CONNECTIONS - 1).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(get(address, "/healthz").0.contains("200"), "one place is left");
        drop(idle);
        assert!(get(address, "/healthz").0.contains("200"));
    }
}
