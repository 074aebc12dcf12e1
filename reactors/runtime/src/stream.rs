//! A reactor's streams, by readiness: sockets are watched by edges, and an internal list of ready streams gives the
//! repeated events of `ports::Streams`. It never looks into the bytes.
//!
//! To keep system calls few, a stream that has just received something is *hot*: it is offered as readable for
//! [`HOT_TRIES`] more turns without asking the kernel, since asking costs as much as trying. Such a try may find nothing
//! (`receive` then says 0 bytes). While only few streams are hot, the kernel is asked for others every
//! [`ASK_INTERVAL`]; otherwise in each turn.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::ring::Ring;
use base::slab::{Key, Slab};
use base::time::{Span, Time};
use ports::{Piece, Segment, StreamError, StreamEvent, StreamId};

use crate::event_sys::{Epoll, Watch};
use crate::listener::{Accepted, Inbox};
use crate::pool::Pool;
use crate::socket_sys::{Outcome, Vectors};

/// Turns for which a stream that received is tried without asking the kernel.
const HOT_TRIES: u16 = 64;

/// Most hot streams that are tried; with more, the kernel's answer for all is cheaper.
const MAX_HOT: usize = 8;

/// Time between questions to the kernel while hot streams are tried.
const ASK_INTERVAL: Span = Span::from_micros(20);

/// Connections taken from the acceptor in one turn.
const ADOPT_BATCH: usize = 64;

/// How long a stream that we closed in good order waits for the peer to close its end too.
const LINGER: Span = Span::from_secs(2);

/// Receives of one drain of a stream that we have closed: 4 MiB, about what a receive buffer holds.
const DRAIN_ROUNDS: usize = 256;

/// Bytes of one such receive.
const DRAIN_BYTES: usize = 16 << 10;

struct Stream {
    socket: OwnedFd,
    opened: Option<StreamEvent>,
    /// There may be something to receive: since an edge, or since a receive that came back full.
    readable: bool,
    /// No more edges will come: the end is to be received.
    ended: bool,
    wanted: bool,
    hot: u16,
    /// A send came back short, and its event has not been given.
    blocked: bool,
    writable: bool,
    /// Closed by us in good order.
    lingering: bool,
}

impl Stream {
    fn has_news(&self) -> bool {
        !self.lingering && (self.opened.is_some() || self.writable || self.wanted && (self.readable || self.hot > 0))
    }
}

/// The streams of one reactor.
pub(crate) struct StreamTable {
    pool: Arc<Pool>,
    inbox: Arc<Inbox>,
    epoll: Epoll,
    table: Slab<Stream>,
    /// The key in each place, as ready places are listed without.
    keys: Box<[Option<Key<Stream>>]>,
    /// Places with news. Each place is in it at most once, as `listed` says.
    ready: Ring<u32>,
    listed: Box<[bool]>,
    /// Places to look at in this turn.
    budget: usize,
    hot: usize,
    blocked: usize,
    lingering: Ring<(Key<Stream>, Time)>,
    asked: Time,
    now: Time,
    vectors: Vectors,
    scratch: Box<[u8]>,
    /// Bytes received and sent: what tells work from waiting.
    pub(crate) moved: u64,
}

impl StreamTable {
    /// Room for `capacity` streams.
    pub(crate) fn new(pool: Arc<Pool>, inbox: Arc<Inbox>, capacity: usize) -> std::io::Result<Self> {
        Ok(Self {
            pool,
            inbox,
            epoll: Epoll::new()?,
            table: Slab::new(capacity),
            keys: vec![None; capacity].into_boxed_slice(),
            ready: Ring::new(capacity),
            listed: vec![false; capacity].into_boxed_slice(),
            budget: 0,
            hot: 0,
            blocked: 0,
            lingering: Ring::new(capacity),
            asked: Time(0),
            now: Time(0),
            vectors: Vectors::new(),
            scratch: vec![0; DRAIN_BYTES].into_boxed_slice(),
            moved: 0,
        })
    }

    /// Readable while the kernel has news of a stream.
    pub(crate) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// The start of a turn: takes new connections and, if it is time, asks the kernel.
    pub(crate) fn begin_turn(&mut self, now: Time) {
        self.now = now;
        self.adopt();
        let few_hot = self.hot > 0 && self.hot <= MAX_HOT && self.blocked == 0;
        if !few_hot || now.since(self.asked) >= ASK_INTERVAL {
            self.ask();
        }
        while self.lingering.front().is_some_and(|&(_, until)| until <= now) {
            if let Some((key, _)) = self.lingering.pop() {
                self.remove(key);
            }
        }
        self.budget = self.ready.len();
    }

    /// Takes one event.
    pub(crate) fn event(&mut self) -> Option<StreamEvent> {
        while self.budget > 0 {
            self.budget -= 1;
            let place = self.ready.pop()? as usize;
            self.listed[place] = false;
            let Some(key) = self.keys[place] else { continue };
            let few_hot = self.hot <= MAX_HOT;
            let Some(stream) = self.table.get_mut(key) else { continue };
            if stream.lingering {
                continue;
            }
            let id = StreamId(key.to_bits());
            if let Some(opened) = stream.opened.take() {
                self.again(place);
                return Some(opened);
            }
            if std::mem::take(&mut stream.writable) {
                self.again(place);
                return Some(StreamEvent::Writable(id));
            }
            if !stream.wanted {
                continue;
            }
            if !stream.readable {
                if stream.hot == 0 {
                    continue;
                }
                stream.hot = if few_hot { stream.hot - 1 } else { 0 };
                if stream.hot == 0 {
                    self.hot -= 1;
                }
                if !few_hot {
                    continue;
                }
            }
            // For the next turn: it is behind the budget of this one.
            self.list(place);
            return Some(StreamEvent::Readable(id));
        }
        None
    }

    /// Receives; see [`ports::Streams::receive`].
    pub(crate) fn receive(
        &mut self,
        id: StreamId,
        segments: &[Segment],
        rest: &mut [u8],
    ) -> Result<usize, StreamError> {
        let Some(stream) = live(&mut self.table, id) else { return Err(StreamError::Unknown) };
        match self.vectors.receive(stream.socket.as_fd(), &self.pool, segments, rest) {
            Outcome::Bytes(count, asked) => {
                // After the peer's end there are no more edges: only the end itself, or an error, ends this.
                stream.readable = count == asked || stream.ended;
                if count > 0 {
                    self.moved += count as u64;
                    self.hot += usize::from(stream.hot == 0);
                    stream.hot = HOT_TRIES;
                    self.list(Key::<Stream>::from_bits(id.0).index());
                }
                Ok(count)
            }
            Outcome::Ended => {
                self.over(id);
                Err(StreamError::EndOfStream)
            }
            Outcome::Broken(error) => {
                self.over(id);
                Err(error)
            }
        }
    }

    /// Sends; see [`ports::Streams::send`].
    pub(crate) fn send(&mut self, id: StreamId, pieces: &[Piece<'_>]) -> Result<usize, StreamError> {
        let Some(stream) = live(&mut self.table, id) else { return Err(StreamError::Unknown) };
        match self.vectors.send(stream.socket.as_fd(), &self.pool, pieces) {
            Outcome::Bytes(count, asked) => {
                self.moved += count as u64;
                if count < asked && !stream.blocked {
                    stream.blocked = true;
                    self.blocked += 1;
                }
                Ok(count)
            }
            Outcome::Ended => Err(StreamError::Reset),
            Outcome::Broken(error) => Err(error),
        }
    }

    /// Whether readable events are wanted.
    pub(crate) fn want_readable(&mut self, id: StreamId, wanted: bool) {
        let Some(stream) = live(&mut self.table, id) else { return };
        stream.wanted = wanted;
        if stream.has_news() {
            self.list(Key::<Stream>::from_bits(id.0).index());
        }
    }

    /// Ends a stream; see [`ports::Streams::close`].
    pub(crate) fn close(&mut self, id: StreamId, in_good_order: bool) {
        let key = Key::from_bits(id.0);
        let Some(stream) = live(&mut self.table, id) else { return };
        let socket = socket2::SockRef::from(&stream.socket);
        // Closing a socket that has unread bytes resets the connection (RFC 9293, section 3.6) and may take back what we
        // sent: so our side is shut first, and what still comes is thrown away until the peer closes too.
        if in_good_order && socket.shutdown(std::net::Shutdown::Write).is_ok() {
            self.cool(key);
            self.table[key].lingering = true;
            let kept = self.lingering.push((key, self.now + LINGER));
            if kept.is_ok() {
                self.drain(key);
                return;
            }
            // The list is full of streams that the peers have ended since: this one does not wait.
        } else {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        self.remove(key);
    }

    /// When the table needs a turn for itself.
    pub(crate) fn deadline(&self) -> Time {
        self.lingering.front().map_or(Time::NEVER, |&(_, until)| until)
    }

    /// Whether there is no event to take and no connection to adopt, as far as is known without asking the kernel.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ready.is_empty() && self.inbox.waiting.is_empty()
    }

    /// Makes the next turn ask the kernel.
    pub(crate) fn ask_soon(&mut self) {
        self.asked = Time(0);
    }

    /// Streams that are open or lingering.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn adopt(&mut self) {
        for _ in 0..ADOPT_BATCH {
            if self.inbox.waiting.is_empty() {
                return;
            }
            let Some(accepted) = self.inbox.waiting.pop() else { return };
            self.insert(accepted);
        }
    }

    fn insert(&mut self, accepted: Accepted) {
        let Accepted { socket, listener, peer, local } = accepted;
        let stream = Stream {
            socket,
            opened: None,
            readable: false,
            ended: false,
            wanted: true,
            hot: 0,
            blocked: false,
            writable: false,
            lingering: false,
        };
        let Ok(key) = self.table.insert(stream) else {
            // No place while others linger: dropping it closes it.
            self.inbox.streams.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let added = self.epoll.add(self.table[key].socket.as_fd(), Watch::BothEdges, key.to_bits());
        self.keys[key.index()] = Some(key);
        if added.is_err() {
            self.remove(key);
            return;
        }
        let opened = StreamEvent::Opened { stream: StreamId(key.to_bits()), listener, peer, local };
        self.table[key].opened = Some(opened);
        self.list(key.index());
    }

    fn ask(&mut self) {
        self.asked = self.now;
        for index in 0..self.epoll.wait(None) {
            let event = self.epoll.event(index);
            let key = Key::from_bits(event.data);
            let Some(stream) = self.table.get_mut(key) else { continue };
            if stream.lingering {
                self.drain(key);
                continue;
            }
            stream.readable |= event.readable;
            stream.ended |= event.ended;
            if event.writable && stream.blocked {
                stream.blocked = false;
                stream.writable = true;
                self.blocked -= 1;
            }
            if stream.has_news() {
                self.list(key.index());
            }
        }
    }

    /// Puts a place into the list of ready ones.
    fn list(&mut self, place: usize) {
        if !std::mem::replace(&mut self.listed[place], true) {
            let kept = self.ready.push(place as u32);
            assert!(kept.is_ok(), "the list has room for every place once");
        }
    }

    /// Lists a place that has more news for this turn.
    fn again(&mut self, place: usize) {
        self.list(place);
        self.budget += 1;
    }

    /// The end was received: there is nothing more to come.
    fn over(&mut self, id: StreamId) {
        let key = Key::from_bits(id.0);
        if self.table[key].hot > 0 {
            self.table[key].hot = 0;
            self.hot -= 1;
        }
        self.table[key].readable = false;
    }

    /// Takes a stream out of the counts.
    fn cool(&mut self, key: Key<Stream>) {
        let stream = &mut self.table[key];
        self.hot -= usize::from(std::mem::take(&mut stream.hot) > 0);
        self.blocked -= usize::from(std::mem::take(&mut stream.blocked));
    }

    /// Throws away what comes for a stream that we have closed, and lets go of it when the peer has closed too.
    fn drain(&mut self, key: Key<Stream>) {
        for _ in 0..DRAIN_ROUNDS {
            let Some(stream) = self.table.get(key) else { return };
            let outcome = self.vectors.receive(stream.socket.as_fd(), &self.pool, &[], &mut self.scratch);
            match outcome {
                Outcome::Bytes(0, _) => return,
                Outcome::Bytes(..) => {}
                Outcome::Ended | Outcome::Broken(_) => return self.remove(key),
            }
        }
        // It sends faster than is worth waiting for.
        self.remove(key);
    }

    fn remove(&mut self, key: Key<Stream>) {
        if self.table.get(key).is_none() {
            return;
        }
        self.cool(key);
        self.keys[key.index()] = None;
        self.table.remove(key);
        self.inbox.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream of an id that the program may still use.
fn live(table: &mut Slab<Stream>, id: StreamId) -> Option<&mut Stream> {
    table.get_mut(Key::from_bits(id.0)).filter(|stream| !stream.lingering)
}
