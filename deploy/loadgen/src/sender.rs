//! The outgoing bytes of a connection: headers and small payloads are staged one behind the other, large payloads are
//! sent from the arena where they lie, and everything leaves in the order in which it was put. It knows no PDU.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::TcpStream;

use crate::limits::SEND_PIECES_MAX;

/// One stretch of what is to be sent.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// The next bytes of the staging buffer.
    Staged(usize),
    /// Bytes of the arena.
    Arena { start: usize, length: usize },
}

/// What waits to be sent.
#[derive(Debug)]
pub(crate) struct Sender {
    staging: Vec<u8>,
    head: usize,
    tail: usize,
    pieces: VecDeque<Piece>,
}

impl Sender {
    /// Room for `bytes` staged bytes and `pieces` pieces, taken now and never enlarged.
    pub(crate) fn new(bytes: usize, pieces: usize) -> Self {
        Self { staging: vec![0; bytes], head: 0, tail: 0, pieces: VecDeque::with_capacity(pieces) }
    }

    /// Whether `bytes` can be staged and `pieces` be put.
    pub(crate) fn has_room(&self, bytes: usize, pieces: usize) -> bool {
        self.staged_bytes() + bytes <= self.staging.len() && self.pieces.len() + pieces <= self.pieces.capacity()
    }

    /// A stretch of the staging buffer to fill; it is sent behind all that was put before.
    ///
    /// # Panics
    /// If more is staged than the queue's depth allows: our own mistake.
    pub(crate) fn stage(&mut self, length: usize) -> &mut [u8] {
        if self.tail + length > self.staging.len() {
            self.staging.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        assert!(self.tail + length <= self.staging.len(), "the staging buffer holds what the depth allows");
        match self.pieces.back_mut() {
            Some(Piece::Staged(staged)) => *staged += length,
            _ => self.push(Piece::Staged(length)),
        }
        let stretch = &mut self.staging[self.tail..self.tail + length];
        self.tail += length;
        stretch
    }

    /// Sends bytes of the arena next, which must stay as they are until they have left.
    pub(crate) fn stage_arena(&mut self, start: usize, length: usize) {
        self.push(Piece::Arena { start, length });
    }

    fn push(&mut self, piece: Piece) {
        assert!(self.pieces.len() < self.pieces.capacity(), "the pieces are bounded by the queue's depth");
        self.pieces.push_back(piece);
    }

    /// Bytes staged and not yet sent; those of the arena do not count.
    pub(crate) const fn staged_bytes(&self) -> usize {
        self.tail - self.head
    }

    /// Whether everything has left.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Sends until everything has left or the socket takes no more; returns whether anything was sent.
    pub(crate) fn flush(&mut self, stream: &mut impl Write, arena: &[u8]) -> io::Result<bool> {
        let mut sent_any = false;
        while !self.pieces.is_empty() {
            match self.write_once(stream, arena) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.sent(sent);
                    sent_any = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent_any)
    }

    fn write_once(&self, stream: &mut impl Write, arena: &[u8]) -> io::Result<usize> {
        if let (1, Some(&Piece::Staged(length))) = (self.pieces.len(), self.pieces.front()) {
            return stream.write(&self.staging[self.head..self.head + length]);
        }
        let mut slices = [IoSlice::new(&[]); SEND_PIECES_MAX];
        let mut staged = self.head;
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(match *piece {
                Piece::Staged(length) => {
                    staged += length;
                    &self.staging[staged - length..staged]
                }
                Piece::Arena { start, length } => &arena[start..start + length],
            });
            count += 1;
        }
        stream.write_vectored(&slices[..count])
    }

    fn sent(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let piece = self.pieces.front_mut().expect("no more is sent than was put");
            let (length, staged) = match piece {
                Piece::Staged(length) => (length, true),
                Piece::Arena { start, length } => {
                    *start += bytes.min(*length);
                    (length, false)
                }
            };
            let taken = bytes.min(*length);
            *length -= taken;
            bytes -= taken;
            if staged {
                self.head += taken;
            }
            if *length == 0 {
                self.pieces.pop_front();
            }
        }
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
    }
}

/// Makes a connected socket ready for this crate: small sends leave at once, no call blocks.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes a few bytes at a time, and nothing every other call.
    struct Narrow {
        taken: Vec<u8>,
        width: usize,
        open: bool,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.open = !self.open;
            if !self.open {
                return Err(ErrorKind::WouldBlock.into());
            }
            let before = self.taken.len();
            let bytes = slices.iter().flat_map(|slice| slice.iter());
            self.taken.extend(bytes.take(self.width));
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_leaves_in_order_whatever_the_socket_takes() {
        let arena: Vec<u8> = (0..200).collect();
        for width in 1..40 {
            let mut sender = Sender::new(32, 16);
            let mut narrow = Narrow { taken: Vec::new(), width, open: false };
            let mut expected = Vec::new();
            for round in 0..12u8 {
                sender.stage(5).fill(round);
                sender.stage(2).fill(0xff);
                sender.stage_arena(usize::from(round) * 10, 7);
                expected.extend([round; 5]);
                expected.extend([0xff; 2]);
                expected.extend(&arena[usize::from(round) * 10..][..7]);
                while sender.staged_bytes() > 20 {
                    sender.flush(&mut narrow, &arena).expect("the socket stays open");
                }
            }
            while !sender.is_empty() {
                sender.flush(&mut narrow, &arena).expect("the socket stays open");
            }
            assert_eq!(narrow.taken, expected, "width {width}");
            assert_eq!(sender.staged_bytes(), 0);
        }
    }
}
