//! Netlink: questions to the kernel and what it answers, as messages of native byte order (netlink(7)). It knows how messages
//! are framed and nothing of what they are about; every wait is bounded. The system calls are rustix's safe ones.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use base::time::Span;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::event_sys::wait_readable;

/// Bytes of a message's header: length, type, flags, sequence, port.
pub(crate) const HEADER_BYTES: usize = 16;

/// Bytes received at a time; the kernel sends no longer datagram to who has room for this.
const BUFFER_BYTES: usize = 64 << 10;

/// How long an answer may take. The kernel answers within the question's system call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Times that a listing is begun anew because what is listed changed meanwhile.
const RESTARTS: usize = 4;

/// Message types that every protocol has.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Flags.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const INTERRUPTED: u16 = 0x10;
const DUMP: u16 = 0x300;

/// A socket of one netlink protocol.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// A socket that hears what is told to these groups (a bit mask), or nothing. No protocol is the first one, routes.
    pub(crate) fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let kind = SocketType::RAW;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Asks one thing; each message of the answer goes to `each` as its type and body.
    ///
    /// # Errors
    /// What the kernel says, or that it says nothing.
    pub(crate) fn ask(&mut self, kind: u16, body: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(kind, REQUEST | ACKNOWLEDGE, body)?;
        self.answers(&mut each).map(|_| ())
    }

    /// Asks for a list. It is whole and of one moment, or begun anew.
    ///
    /// # Errors
    /// What the kernel says, or that the list does not stand still.
    pub(crate) fn list<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..RESTARTS {
            let mut found = Vec::new();
            self.send(kind, REQUEST | DUMP, body)?;
            if self.answers(&mut |kind, body| found.extend(each(kind, body)))? {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "what is listed changes faster than it can be listed"))
    }

    /// Waits for anything that is told to the groups, at most so long, and takes all of it; whether anything came. News that
    /// were lost for want of room count as news.
    pub(crate) fn news(&mut self, at_most: Duration) -> io::Result<bool> {
        let at_most = Span(u64::try_from(at_most.as_nanos()).unwrap_or(u64::MAX));
        if !wait_readable(&[self.socket.as_fd()], Some(at_most))[0] {
            return Ok(false);
        }
        loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::NOBUFS) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("questions are short");
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Takes answers up to their end; whether the list that they are did not change meanwhile.
    fn answers(&mut self, each: &mut impl FnMut(u16, &[u8])) -> io::Result<bool> {
        let mut is_whole = true;
        loop {
            let length = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?.1;
            let mut rest = &self.buffer[..length.min(self.buffer.len())];
            while let Some((message, after)) = Message::take(rest) {
                rest = after;
                if message.sequence != self.sequence {
                    continue;
                }
                is_whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    ERROR | DONE => {
                        let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(is_whole) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, message.body),
                }
            }
        }
    }
}

/// A message of an answer.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the first message off; what is too short to be one is dropped.
    fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = u32_at(bytes, 0)? as usize;
        let body = bytes.get(HEADER_BYTES..length)?;
        let (kind, flags) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
        let message = Self { kind, flags, sequence: u32_at(bytes, 8)?, body };
        Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
    }
}

/// The attributes behind a fixed part: type and content of each. One that is cut off ends them.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    core::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let content = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, content))
    })
}

/// Appends an attribute.
pub(crate) fn push_attribute(to: &mut Vec<u8>, kind: u16, content: &[u8]) {
    let length = u16::try_from(4 + content.len()).expect("attributes are short");
    to.extend_from_slice(&length.to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(content);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// A number at a place, if the bytes reach so far.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number at a place, if the bytes reach so far.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_cut_at_any_length_are_dropped_and_never_panic() {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&24u32.to_ne_bytes());
        bytes.extend_from_slice(&[7, 0, 0x10, 0]);
        bytes.extend_from_slice(&9u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        push_attribute(&mut bytes, 5, b"abc");
        let (message, rest) = Message::take(&bytes).expect("whole");
        assert_eq!((message.kind, message.flags, message.sequence, rest.len()), (7, INTERRUPTED, 9, 0));
        assert_eq!(attributes(message.body).collect::<Vec<_>>(), [(5, &b"abc"[..])]);
        for length in 0..bytes.len() {
            assert!(Message::take(&bytes[..length]).is_none());
            assert_eq!(
                attributes(&bytes[HEADER_BYTES..][..length.saturating_sub(HEADER_BYTES)]).count() > 0,
                length >= 23
            );
        }
        // Lengths that lie.
        assert!(Message::take(&[0; 64]).is_none() && Message::take(&[0xff; 64]).is_none());
        assert_eq!(attributes(&[0; 64]).count() + attributes(&[0xff; 64]).count(), 0);
    }
}
