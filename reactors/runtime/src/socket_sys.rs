//! Gathered sends and scattered receives on non-blocking sockets, straight to and from buffers of the pool. It keeps no
//! state but a table of vectors that is filled anew for each call.
//!
//! JUSTIFICATION for unsafe: system calls with vectors that name pool memory (owned by the caller while it names the
//! buffers) and slices of the caller; they are used within the call that fills them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use ports::{MAX_STREAM_PIECES, Piece, Segment, StreamError};

use crate::pool::Pool;

/// Vectors of one call: all pieces, and the rest of a receive.
const MAX_VECTORS: usize = MAX_STREAM_PIECES + 1;

/// The outcome of a call that does not wait.
pub(crate) enum Outcome {
    /// So many bytes of so many that were asked for.
    Bytes(usize, usize),
    /// The peer has closed its end.
    Ended,
    /// The connection broke.
    Broken(StreamError),
}

/// The table of vectors.
pub(crate) struct Vectors {
    list: Box<[libc::iovec; MAX_VECTORS]>,
    count: usize,
    bytes: usize,
}

// SAFETY: the addresses in the table are used only within the call that put them there.
unsafe impl Send for Vectors {}

impl Vectors {
    pub(crate) fn new() -> Self {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self { list: Box::new([empty; MAX_VECTORS]), count: 0, bytes: 0 }
    }

    /// Receives into the segments and then into `rest`.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        pool: &Pool,
        segments: &[Segment],
        rest: &mut [u8],
    ) -> Outcome {
        assert!(segments.len() <= MAX_STREAM_PIECES, "at most {MAX_STREAM_PIECES} segments");
        self.clear();
        for &segment in segments {
            let (address, length) = pool.segment(segment);
            self.add(address, length);
        }
        self.add(rest.as_mut_ptr(), rest.len());
        if self.bytes == 0 {
            return Outcome::Bytes(0, 0);
        }
        let fd = socket.as_raw_fd();
        let count = if self.count == 1 {
            let libc::iovec { iov_base, iov_len } = self.list[0];
            // SAFETY: the one vector names bytes of the caller.
            unsafe { libc::recv(fd, iov_base, iov_len, libc::MSG_DONTWAIT) }
        } else {
            let mut message = self.message();
            // SAFETY: every vector names bytes of the caller.
            unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) }
        };
        match usize::try_from(count) {
            Ok(0) => Outcome::Ended,
            Ok(count) => Outcome::Bytes(count, self.bytes),
            Err(_) => failed(self.bytes),
        }
    }

    /// Sends the pieces.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, pool: &Pool, pieces: &[Piece<'_>]) -> Outcome {
        assert!(pieces.len() <= MAX_STREAM_PIECES, "at most {MAX_STREAM_PIECES} pieces");
        self.clear();
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => self.add(bytes.as_ptr().cast_mut(), bytes.len()),
                Piece::Segment(segment) => {
                    let (address, length) = pool.segment(*segment);
                    self.add(address, length);
                }
            }
        }
        if self.bytes == 0 {
            return Outcome::Bytes(0, 0);
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        let count = if self.count == 1 {
            let libc::iovec { iov_base, iov_len } = self.list[0];
            // SAFETY: the one vector names bytes of the caller, which are only read.
            unsafe { libc::send(fd, iov_base, iov_len, flags) }
        } else {
            let message = self.message();
            // SAFETY: every vector names bytes of the caller, which are only read.
            unsafe { libc::sendmsg(fd, &raw const message, flags) }
        };
        match usize::try_from(count) {
            Ok(count) => Outcome::Bytes(count, self.bytes),
            Err(_) => failed(self.bytes),
        }
    }

    fn clear(&mut self) {
        self.count = 0;
        self.bytes = 0;
    }

    /// Adds bytes; adjacent ones join the vector before.
    fn add(&mut self, address: *mut u8, length: usize) {
        if length == 0 {
            return;
        }
        self.bytes += length;
        if let Some(last) = self.count.checked_sub(1).map(|last| &mut self.list[last])
            && last.iov_base.wrapping_byte_add(last.iov_len) == address.cast()
        {
            last.iov_len += length;
            return;
        }
        self.list[self.count] = libc::iovec { iov_base: address.cast(), iov_len: length };
        self.count += 1;
    }

    fn message(&mut self) -> libc::msghdr {
        // SAFETY: a message header of zeros has no name, no vectors and no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.list.as_mut_ptr();
        message.msg_iovlen = self.count as _;
        message
    }
}

fn failed(asked: usize) -> Outcome {
    match io::Error::last_os_error().raw_os_error() {
        // A call that does not wait is not interrupted; anything else would leave the stream without a further edge.
        Some(libc::EAGAIN) => Outcome::Bytes(0, asked),
        Some(libc::ECONNABORTED) => Outcome::Broken(StreamError::Aborted),
        Some(libc::ETIMEDOUT) => Outcome::Broken(StreamError::TimedOut),
        _ => Outcome::Broken(StreamError::Reset),
    }
}
