//! Event file descriptors and epoll, as far as a reactor needs them. It keeps no state beside the descriptors.
//!
//! JUSTIFICATION for unsafe: system calls with raw pointers to arrays of our own.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use base::time::Span;

/// Most events of one wait.
const MAX_EVENTS: usize = 256;

/// A counter in the kernel that one thread can sleep on and others can raise.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// A new one at zero.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        owned(fd).map(Self)
    }

    /// Raises it.
    pub(crate) fn raise(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes of our own are read. A full counter (EAGAIN) is raised already, so the result is of no use.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Sets it back to zero.
    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes of our own are written. A counter at zero (EAGAIN) is clear already.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// The descriptor, to wait for.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }
}

/// What an epoll set reports of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// What was given when the descriptor was added.
    pub(crate) data: u64,
    /// There is something to read, or an end.
    pub(crate) readable: bool,
    /// There is room to write.
    pub(crate) writable: bool,
    /// The peer has closed its end, or the connection is broken: no edge will follow.
    pub(crate) ended: bool,
}

/// How a descriptor is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Readable, reported as long as it is.
    ReadLevel,
    /// Readable and writable, each change reported once.
    BothEdges,
}

/// An epoll set.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event; MAX_EVENTS]>,
    count: usize,
    coarse: AtomicBool,
}

impl Epoll {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let events = Box::new([libc::epoll_event { events: 0, u64: 0 }; MAX_EVENTS]);
        Ok(Self { fd, events, count: 0, coarse: AtomicBool::new(false) })
    }

    /// Adds a descriptor. It leaves when it is closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, watch: Watch, data: u64) -> io::Result<()> {
        let bits = match watch {
            Watch::ReadLevel => libc::EPOLLIN,
            Watch::BothEdges => libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET,
        };
        let mut event = libc::epoll_event { events: bits.cast_unsigned(), u64: data };
        // SAFETY: the event is read during the call only.
        let outcome =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Asks for events, waiting at most this long (`None`: not at all), and says how many there are.
    pub(crate) fn wait(&mut self, at_most: Option<Span>) -> usize {
        let count = match at_most {
            None => self.wait_ms(0),
            Some(span) if self.coarse.load(Ordering::Relaxed) => self.wait_ms(milliseconds(span)),
            Some(span) => self.wait_exact(span),
        };
        // An interrupted wait (EINTR) is a wait that found nothing; the caller looks at all its sources anyway.
        self.count = usize::try_from(count).unwrap_or(0);
        self.count
    }

    /// An event of the last wait.
    pub(crate) fn event(&self, index: usize) -> Event {
        assert!(index < self.count, "the last wait gave {} events", self.count);
        let libc::epoll_event { events, u64: data } = self.events[index];
        let has = |bits: libc::c_int| events & bits.cast_unsigned() != 0;
        Event {
            data,
            readable: has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
            writable: has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR),
            ended: has(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
        }
    }

    /// The set's own descriptor: readable while it has events.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.fd.as_fd()
    }

    fn wait_ms(&mut self, timeout_ms: libc::c_int) -> libc::c_long {
        // SAFETY: the kernel writes at most MAX_EVENTS entries of the array.
        let count = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), MAX_EVENTS as libc::c_int, timeout_ms)
        };
        libc::c_long::from(count)
    }

    /// `epoll_pwait2` waits by the nanosecond (Linux 5.11); older kernels by the millisecond.
    fn wait_exact(&mut self, span: Span) -> libc::c_long {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(span.0 / 1_000_000_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: (span.0 % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the kernel writes at most MAX_EVENTS entries of the array and reads the timeout; there is no signal mask.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                MAX_EVENTS as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                size_of::<u64>(),
            )
        };
        if count < 0 && matches!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
            self.coarse.store(true, Ordering::Relaxed);
            return self.wait_ms(milliseconds(span));
        }
        count
    }
}

/// Sleeps until one of the descriptors is readable or the time is over; says which are readable.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], at_most: Option<Span>) -> Vec<bool> {
    let mut list: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let timeout_ms = at_most.map_or(-1, milliseconds);
    // SAFETY: the list is our own and has as many entries as said.
    let outcome = unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, timeout_ms) };
    list.iter().map(|entry| outcome > 0 && entry.revents != 0).collect()
}

/// A random number from the system.
pub(crate) fn random(into: &mut [u8; 256]) {
    // SAFETY: at most 256 bytes of our own are written; requests of up to 256 bytes are never cut short (getrandom(2)).
    let count = unsafe { libc::getrandom(into.as_mut_ptr().cast(), into.len(), 0) };
    assert_eq!(usize::try_from(count), Ok(into.len()), "the system always has random bits once it has booted");
}

/// Rounded up, so that a deadline is never early by a spin of empty waits.
fn milliseconds(span: Span) -> libc::c_int {
    libc::c_int::try_from(span.0.div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eventfd_wakes_a_wait_until_it_is_cleared() {
        let event = EventFd::new().expect("a descriptor");
        let mut set = Epoll::new().expect("a descriptor");
        set.add(event.fd(), Watch::ReadLevel, 42).expect("added");
        assert_eq!(set.wait(None), 0);
        assert_eq!(set.wait(Some(Span(1_000))), 0);
        event.raise();
        event.raise();
        for _ in 0..2 {
            assert_eq!(set.wait(Some(Span::from_secs(60))), 1);
            assert!(set.event(0).readable && set.event(0).data == 42);
        }
        event.clear();
        assert_eq!(set.wait(None), 0);
        assert_eq!(wait_readable(&[event.fd()], Some(Span::ZERO)), [false]);
    }

    #[test]
    fn random_bits_differ() {
        let (mut one, mut two) = ([0; 256], [0; 256]);
        random(&mut one);
        random(&mut two);
        assert_ne!(one, two);
    }
}
