//! Listening sockets and the thread that accepts: it gives each connection to the reactor that has the fewest, and closes
//! at once what is beyond the bounds. It never reads or writes a byte of a connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::time::Span;
use crossbeam::queue::ArrayQueue;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::event_sys::{EventFd, wait_readable};
use crate::mesh::Doorbell;
use crate::signal_sys::SignalStack;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Accepted connections that a reactor has not yet taken.
const INBOX: usize = 256;

/// Connections accepted from one listener before the others are looked at.
const ACCEPT_BATCH: usize = 64;

/// How long accepting rests when the system has no descriptors left.
const REST: Span = Span::from_millis(100);

/// What every connection is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Most connections of the process; further ones are closed at once.
    pub max_streams: usize,
    /// Silence after which the kernel asks the peer whether it is still there.
    pub keepalive_idle: Duration,
    /// Time between such questions.
    pub keepalive_interval: Duration,
    /// Unanswered questions after which the connection is broken.
    pub keepalive_count: u32,
    /// Time that sent bytes may stay unacknowledged before the connection is broken (`TCP_USER_TIMEOUT`, RFC 5482).
    pub user_timeout: Duration,
    /// Bytes of the kernel's send buffer, if not by its own measure.
    pub send_buffer_bytes: Option<usize>,
    /// Bytes of the kernel's receive buffer, if not by its own measure.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            max_streams: 4096,
            keepalive_idle: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(5),
            keepalive_count: 3,
            user_timeout: Duration::from_secs(30),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

impl StreamOptions {
    /// Options by which a peer without a sign of life is given up after so long: it is asked after half of that, three
    /// times, and what was sent may stay unacknowledged for all of it. TCP counts in seconds.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        let whole = |time: Duration| Duration::from_secs(time.as_secs().max(1));
        let keepalive_idle = whole(silence / 2);
        let keepalive_count = 3;
        let keepalive_interval = whole(silence.saturating_sub(keepalive_idle) / keepalive_count);
        Self { keepalive_idle, keepalive_interval, keepalive_count, user_timeout: silence, ..self }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error("{0} is in use by another socket. Stop that program or choose another port")]
    InUse(SocketAddr),
    /// We may not.
    #[error("no permission to listen on {0}. Choose a port from 1024 up, or run with CAP_NET_BIND_SERVICE")]
    Permission(SocketAddr),
    /// It is not ours.
    #[error("{0} is not an address of this machine. Correct the address, or bring its interface up")]
    NotLocal(SocketAddr),
    /// Anything else the system said.
    #[error("listening on {address} failed: {source}")]
    System {
        /// Where.
        address: SocketAddr,
        /// What it said.
        source: io::Error,
    },
}

/// A bound socket; connections wait in the kernel until a runtime takes it.
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
    silence: Option<Duration>,
}

impl Listener {
    /// Listens on an address; port 0 lets the system choose.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        Self::try_bind(address).map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => ListenError::InUse(address),
            Some(libc::EACCES | libc::EPERM) => ListenError::Permission(address),
            Some(libc::EADDRNOTAVAIL) => ListenError::NotLocal(address),
            _ => ListenError::System { address, source },
        })
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets how long a peer of this listener's connections may give no sign of life, instead of what all are set to.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        Self { silence: Some(silence), ..self }
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for old connections to leave TIME-WAIT (RFC 9293, section 3.6.1).
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { socket, address, silence: None })
    }
}

/// An accepted connection on its way to a reactor.
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    pub(crate) listener: u16,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What the acceptor and one reactor share.
pub(crate) struct Inbox {
    pub(crate) waiting: ArrayQueue<Accepted>,
    /// Connections given to the reactor that it has not yet closed.
    pub(crate) streams: AtomicUsize,
    doorbell: Arc<Doorbell>,
}

impl Inbox {
    pub(crate) fn new(doorbell: Arc<Doorbell>) -> Arc<Self> {
        Arc::new(Self { waiting: ArrayQueue::new(INBOX), streams: AtomicUsize::new(0), doorbell })
    }
}

/// Counts of connections.
#[derive(Debug, Default)]
pub(crate) struct AcceptCounts {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
}

struct Acceptance {
    listeners: Vec<Listener>,
    inboxes: Vec<Arc<Inbox>>,
    options: StreamOptions,
    counts: Arc<AcceptCounts>,
    stop: Arc<EventFd>,
}

/// The thread that accepts. It ends, and its listeners close, when it is dropped.
pub(crate) struct Acceptor {
    thread: Option<JoinHandle<()>>,
    stop: Arc<EventFd>,
}

impl Acceptor {
    /// Starts accepting.
    pub(crate) fn start(
        listeners: Vec<Listener>,
        inboxes: Vec<Arc<Inbox>>,
        options: StreamOptions,
        counts: Arc<AcceptCounts>,
    ) -> io::Result<Self> {
        let stop = Arc::new(EventFd::new()?);
        let acceptance = Acceptance { listeners, inboxes, options, counts, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("acceptor".to_owned()).spawn(move || acceptance.run())?;
        Ok(Self { thread: Some(thread), stop })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // A panic has shown its message already.
            let _ = thread.join();
        }
    }
}

impl Acceptance {
    fn run(&self) {
        let _signals = SignalStack::new();
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.stop.fd()];
        fds.extend(self.listeners.iter().map(|listener| listener.socket.as_fd()));
        loop {
            let ready = wait_readable(&fds, None);
            if ready[0] {
                return;
            }
            let mut exhausted = false;
            for (index, listener) in self.listeners.iter().enumerate() {
                exhausted |= ready[index + 1] && !self.accept_some(index as u16, listener);
            }
            // No descriptors or no memory: the connection stays in the backlog, and trying again at once would only spin.
            if exhausted && wait_readable(&fds[..1], Some(REST))[0] {
                return;
            }
        }
    }

    /// Accepts a batch; false if the system has nothing left to accept with.
    fn accept_some(&self, index: u16, listener: &Listener) -> bool {
        for _ in 0..ACCEPT_BATCH {
            match listener.socket.accept() {
                Ok((socket, peer)) => {
                    // A connection that broke meanwhile fails here, and is closed by being dropped.
                    if self.hand_over(index, listener.silence, socket, &peer).is_err() {
                        self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
                    if error.raw_os_error().is_some_and(|errno| short.contains(&errno)) {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn hand_over(
        &self,
        listener: u16,
        silence: Option<Duration>,
        socket: Socket,
        peer: &socket2::SockAddr,
    ) -> io::Result<()> {
        let fewest = self.inboxes.iter().min_by_key(|inbox| inbox.streams.load(Ordering::Relaxed));
        let inbox = fewest.expect("a runtime has reactors");
        let total: usize = self.inboxes.iter().map(|inbox| inbox.streams.load(Ordering::Relaxed)).sum();
        if total >= self.options.max_streams {
            self.refuse(&socket);
            return Ok(());
        }
        match silence {
            Some(silence) => set_options(&socket, &self.options.clone().with_silence(silence))?,
            None => set_options(&socket, &self.options)?,
        }
        let (Some(peer), Some(local)) = (peer.as_socket(), socket.local_addr()?.as_socket()) else {
            return Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        };
        inbox.streams.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted { socket: socket.into(), listener, peer, local };
        if let Err(back) = inbox.waiting.push(accepted) {
            inbox.streams.fetch_sub(1, Ordering::Relaxed);
            self.refuse(&Socket::from(back.socket));
            return Ok(());
        }
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        inbox.doorbell.ring();
        Ok(())
    }

    /// Closed by a reset: the host sees at once that it is not wanted.
    fn refuse(&self, socket: &Socket) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        // If even this fails, the connection is closed in good order instead.
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
}

fn set_options(socket: &Socket, options: &StreamOptions) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Replies are gathered by us; Nagle's algorithm (RFC 9293, section 3.7.4) would only hold them back.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive_idle)
        .with_interval(options.keepalive_interval)
        .with_retries(options.keepalive_count);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;

    fn start(max_streams: usize) -> (Acceptor, SocketAddr, Vec<Arc<Inbox>>, Arc<AcceptCounts>) {
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let address = listener.address();
        let doorbell = || Arc::new(Doorbell::new().expect("a descriptor"));
        let inboxes: Vec<_> = (0..2).map(|_| Inbox::new(doorbell())).collect();
        let options = StreamOptions { max_streams, ..StreamOptions::default() };
        let counts = Arc::new(AcceptCounts::default());
        let acceptor = Acceptor::start(vec![listener], inboxes.clone(), options, Arc::clone(&counts));
        (acceptor.expect("a thread"), address, inboxes, counts)
    }

    fn wait_for(condition: impl Fn() -> bool) {
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(std::time::Instant::now() < until, "it happens within half a minute");
            std::thread::yield_now();
        }
    }

    #[test]
    fn connections_are_shared_out_and_those_beyond_the_bound_are_reset() {
        let (_acceptor, address, inboxes, counts) = start(2);
        let connected: Vec<_> = (0..2).map(|_| TcpStream::connect(address).expect("connected")).collect();
        wait_for(|| inboxes.iter().all(|inbox| inbox.waiting.len() == 1));
        let accepted = inboxes[0].waiting.pop().expect("one waits");
        assert_eq!((accepted.listener, accepted.local), (0, address));
        assert!(connected.iter().any(|one| one.local_addr().is_ok_and(|at| at == accepted.peer)));
        let mut beyond = TcpStream::connect(address).expect("the kernel connects");
        assert!(beyond.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
        wait_for(|| counts.refused.load(Ordering::Relaxed) == 1);
        assert_eq!(counts.accepted.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn one_silence_sets_what_tcp_asks_and_when_it_gives_up() {
        for seconds in [3, 4, 10, 30, 3600] {
            let silence = Duration::from_secs(seconds);
            let options = StreamOptions::default().with_silence(silence);
            let asked = options.keepalive_idle + options.keepalive_interval * options.keepalive_count;
            assert!(asked <= silence + Duration::from_secs(1) && asked >= silence / 2, "{seconds}: {options:?}");
            assert_eq!(options.user_timeout, silence);
        }
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let listener = listener.with_silence(Duration::from_secs(8));
        let (address, doorbell) = (listener.address(), Arc::new(Doorbell::new().expect("a descriptor")));
        let inboxes = vec![Inbox::new(doorbell)];
        let (options, counts) = (StreamOptions::default(), Arc::new(AcceptCounts::default()));
        let _acceptor = Acceptor::start(vec![listener], inboxes.clone(), options, counts).expect("a thread");
        let _connected = TcpStream::connect(address).expect("connected");
        wait_for(|| !inboxes[0].waiting.is_empty());
        let accepted = Socket::from(inboxes[0].waiting.pop().expect("one waits").socket);
        assert_eq!(accepted.tcp_user_timeout().expect("it is set"), Some(Duration::from_secs(8)));
        assert_eq!(accepted.tcp_keepalive_time().expect("it is set"), Duration::from_secs(4));
    }

    #[test]
    fn an_address_in_use_and_a_foreign_one_are_told_apart() {
        let first = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        assert!(matches!(Listener::bind(first.address()), Err(ListenError::InUse(at)) if at == first.address()));
        let foreign = "192.0.2.1:4420".parse().expect("an address of RFC 5737");
        assert!(matches!(Listener::bind(foreign), Err(ListenError::NotLocal(_))));
    }
}
