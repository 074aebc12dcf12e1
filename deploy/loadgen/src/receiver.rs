//! The incoming bytes of a connection: a staging buffer out of which headers and small payloads are taken, and receives
//! that put the rest of a large payload where it belongs. It knows no PDU.

use std::io::{self, ErrorKind, IoSliceMut, Read};

use crate::limits::{BULK_TAIL_BYTES, RECEIVE_BYTES};

/// What has come and was not yet taken.
#[derive(Debug)]
pub(crate) struct Receiver {
    staging: Vec<u8>,
    head: usize,
    tail: usize,
}

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing has come.
    Nothing,
    /// This many bytes straight into the payload; whatever else came is staged.
    Some { direct_bytes: usize },
    /// The peer has closed its side.
    End,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self { staging: vec![0; RECEIVE_BYTES], head: 0, tail: 0 }
    }

    /// The staged bytes.
    pub(crate) fn staged(&self) -> &[u8] {
        &self.staging[self.head..self.tail]
    }

    /// Steps over staged bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.head += bytes;
        assert!(self.head <= self.tail, "no more is taken than has come");
    }

    /// Receives once. `direct` is where the very next bytes belong (empty if they are to be staged); it may be given only
    /// when nothing is staged. `bulk` says that large payloads are passing, so that little is staged behind them.
    pub(crate) fn receive(&mut self, stream: &mut impl Read, direct: &mut [u8], bulk: bool) -> io::Result<Received> {
        assert!(direct.is_empty() || self.head == self.tail, "staged bytes come before received ones");
        self.staging.copy_within(self.head..self.tail, 0);
        (self.head, self.tail) = (0, self.tail - self.head);
        assert!(self.tail < self.staging.len(), "whole PDU headers are taken out of the staging buffer");
        let end = if bulk { (self.tail + BULK_TAIL_BYTES).min(self.staging.len()) } else { self.staging.len() };
        let received = if direct.is_empty() {
            stream.read(&mut self.staging[self.tail..end])
        } else {
            let rest = &mut self.staging[self.tail..end];
            stream.read_vectored(&mut [IoSliceMut::new(&mut *direct), IoSliceMut::new(rest)])
        };
        match received {
            Ok(0) => Ok(Received::End),
            Ok(bytes) => {
                let direct_bytes = bytes.min(direct.len());
                self.tail += bytes - direct_bytes;
                Ok(Received::Some { direct_bytes })
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Received::Nothing)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_their_order_between_payload_and_staging() {
        let source: Vec<u8> = (0..100).collect();
        let mut stream = &source[..];
        let mut receiver = Receiver::new();
        let mut payload = [0; 30];
        // A slice's vectored read fills the first buffer first, as a socket does.
        let received = receiver.receive(&mut stream, &mut payload, false).expect("a slice never fails");
        assert_eq!(received, Received::Some { direct_bytes: 30 });
        assert_eq!((&payload[..], receiver.staged()), (&source[..30], &source[30..]));
        receiver.take(69);
        assert_eq!(receiver.staged(), [99]);
        assert_eq!(receiver.receive(&mut stream, &mut [], true).expect("never fails"), Received::End);
        assert_eq!(receiver.staged(), [99], "the end loses nothing");
    }

    #[test]
    fn little_is_staged_behind_bulk() {
        let source = vec![7; 3 * BULK_TAIL_BYTES];
        let mut receiver = Receiver::new();
        receiver.receive(&mut &source[..], &mut [], true).expect("never fails");
        assert_eq!(receiver.staged().len(), BULK_TAIL_BYTES);
    }
}
