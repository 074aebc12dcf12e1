//! The floor of the bench: what this machine's loopback gives to two threads that move the same bytes as NVMe/TCP and
//! do nothing else. One connection; the client sends requests of a command capsule's length (with the data behind it
//! for a write), the server answers each with a data PDU's header and data, or with a response. Both ends spin on
//! non-blocking sockets and move up to [`crate::limits::FLOOR_BATCH_MAX`] requests by one system call. Nothing is
//! parsed and nothing is stored: a target cannot be faster than this.

use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::limits::FLOOR_BATCH_MAX;

/// Bytes of a command capsule without data: common header and submission entry (NVMe/TCP Transport 1.0, section 3.6.2.5).
const REQUEST_BYTES: usize = 72;
/// Bytes of a data or response PDU's header (sections 3.6.2.6 and 3.6.2.10).
const REPLY_BYTES: usize = 24;
/// The most bytes that one system call is given.
const PIECE_BYTES_MAX: usize = 4 << 20;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloorDirection {
    /// The replies carry data.
    Read,
    /// The requests carry data.
    Write,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct FloorOptions {
    /// Which way the data goes.
    pub direction: FloorDirection,
    /// Data bytes of a request.
    pub block_bytes: usize,
    /// Requests in flight.
    pub depth: usize,
    /// How long to measure.
    pub duration: Duration,
    /// The cores of the server and of the client; `None` leaves both where the scheduler puts them.
    pub cores: Option<(usize, usize)>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct FloorReport {
    /// Requests answered.
    pub operations: u64,
    /// How long that took.
    pub elapsed: Duration,
    /// Data bytes of a request.
    pub block_bytes: usize,
    /// Whether both threads were pinned as asked.
    pub pinned: bool,
}

impl FloorReport {
    /// Requests per second.
    pub fn iops(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Data bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.iops() * self.block_bytes as f64
    }
}

/// Measures the floor.
///
/// # Errors
/// What the sockets of this machine answered.
pub fn measure(options: &FloorOptions) -> io::Result<FloorReport> {
    if options.depth == 0 || options.block_bytes == 0 {
        return Err(io::Error::new(ErrorKind::InvalidInput, "depth and block size must not be zero"));
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
    }
    let (request, reply) = match options.direction {
        FloorDirection::Read => (REQUEST_BYTES, REPLY_BYTES + options.block_bytes),
        FloorDirection::Write => (REQUEST_BYTES + options.block_bytes, REPLY_BYTES),
    };
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let pinned = options.cores.is_none_or(|(core, _)| pin(core));
            End::new(&server, request, reply).serve(&stopped).map(|()| pinned)
        });
        let asking = scope.spawn(|| {
            let pinned = options.cores.is_none_or(|(_, core)| pin(core));
            let asked = End::new(&client, reply, request).ask(options);
            stopped.store(true, Ordering::Relaxed);
            asked.map(|done| (done, pinned))
        });
        let asked = asking.join().expect("the client thread ends in order");
        let served = serving.join().expect("the server thread ends in order");
        let ((operations, elapsed), client_pinned) = asked?;
        Ok(FloorReport { operations, elapsed, block_bytes: options.block_bytes, pinned: client_pinned && served? })
    })
}

/// Pins the calling thread to a core; false if this machine does not have it or does not let us.
pub fn pin(core: usize) -> bool {
    let mut set = rustix::thread::CpuSet::new();
    if core >= rustix::thread::CpuSet::MAX_CPU {
        return false;
    }
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

/// Whether two threads can spin at the same time.
fn alone() -> bool {
    std::thread::available_parallelism().map_or(1, usize::from) < 2
}

/// One end of the connection: what comes in and goes out, counted in bytes.
struct End<'a> {
    stream: &'a TcpStream,
    incoming: usize,
    outgoing: usize,
    staging: Vec<u8>,
    content: Vec<u8>,
    received_bytes: usize,
    owed_bytes: usize,
    yields: bool,
}

impl<'a> End<'a> {
    fn new(stream: &'a TcpStream, incoming: usize, outgoing: usize) -> Self {
        let piece = |message: usize| (message * FLOOR_BATCH_MAX).min(PIECE_BYTES_MAX).max(message);
        Self {
            stream,
            incoming,
            outgoing,
            staging: vec![0; piece(incoming)],
            content: vec![0x5a; piece(outgoing)],
            received_bytes: 0,
            owed_bytes: 0,
            yields: alone(),
        }
    }

    /// Receives once; returns how many whole messages have come, or `None` at the end of the stream.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        match self.stream.read(&mut self.staging) {
            Ok(0) => Ok(None),
            Ok(bytes) => {
                self.received_bytes += bytes;
                let messages = self.received_bytes / self.incoming;
                self.received_bytes %= self.incoming;
                Ok(Some(messages))
            }
            Err(error) if is_transient(&error) => {
                if self.yields {
                    std::thread::yield_now();
                }
                Ok(Some(0))
            }
            Err(error) => Err(error),
        }
    }

    /// Owes the peer `messages` more and sends as much of the debt as one system call takes.
    fn send(&mut self, messages: usize) -> io::Result<()> {
        self.owed_bytes += messages * self.outgoing;
        if self.owed_bytes == 0 {
            return Ok(());
        }
        // The content says nothing, so any part of it will do for a message that was sent in part.
        let length = self.owed_bytes.min(self.content.len());
        match self.stream.write(&self.content[..length]) {
            Ok(bytes) => self.owed_bytes -= bytes,
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn serve(mut self, stopped: &AtomicBool) -> io::Result<()> {
        while !stopped.load(Ordering::Relaxed) {
            let Some(messages) = self.receive()? else { return Ok(()) };
            self.send(messages)?;
        }
        Ok(())
    }

    fn ask(mut self, options: &FloorOptions) -> io::Result<(u64, Duration)> {
        let started = Instant::now();
        let (mut operations, mut turns) = (0, 0u32);
        self.send(options.depth)?;
        loop {
            let Some(answered) = self.receive()? else {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the floor's server closed the connection"));
            };
            operations += answered as u64;
            self.send(answered)?;
            turns = turns.wrapping_add(1);
            // The clock is read now and then only: at depth one it would be a part of what is measured.
            if turns.is_multiple_of(64) && started.elapsed() >= options.duration {
                return Ok((operations, started.elapsed()));
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(direction: FloorDirection, block_bytes: usize, depth: usize) -> FloorOptions {
        FloorOptions { direction, block_bytes, depth, duration: Duration::from_millis(30), cores: None }
    }

    #[test]
    fn both_directions_move_requests_at_every_depth() {
        for direction in [FloorDirection::Read, FloorDirection::Write] {
            for (block_bytes, depth) in [(4096, 1), (4096, 32), (128 << 10, 4)] {
                let report = measure(&options(direction, block_bytes, depth)).expect("loopback works");
                assert!(report.operations > 0, "{direction:?} of {block_bytes} bytes at depth {depth}");
                assert!(report.iops() > 0.0 && report.bytes_per_second() > report.iops());
                assert!(report.pinned, "nothing was asked, so nothing failed");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = measure(&options(FloorDirection::Read, 4096, 0)).expect_err("no request in flight");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(!pin(usize::MAX));
    }
}
