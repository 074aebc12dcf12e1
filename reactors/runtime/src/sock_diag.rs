//! The kernel's table of TCP sockets, and their destruction from outside their process (sock_diag(7), `SOCK_DESTROY`): the
//! peer gets a reset, the owner `ECONNABORTED`. Never used for our own connections, which are closed where they live; it is
//! for what holds on to an address in other processes. Needs `CAP_NET_ADMIN` and a kernel with `CONFIG_INET_DIAG_DESTROY`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::netlink::SOCK_DIAG;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::netlink::{Netlink, u32_at};

/// Message types (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;

const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;

/// Connections in any state but those that the kernel alone keeps: not TIME-WAIT (6), closed (7), listening (10) or a request
/// (12).
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Bytes of what names a socket: ports, addresses, interface, cookie.
const NAME_BYTES: usize = 48;

/// A TCP connection of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The user that it belongs to.
    pub user: u32,
    /// Its inode: what descriptors of processes point to. 0 if no process has it any more.
    pub inode: u64,
    family: u8,
    name: [u8; NAME_BYTES],
}

/// Why sockets cannot be listed or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    /// The kernel does not list them.
    #[error(
        "this kernel cannot list TCP connections: it was built without CONFIG_INET_DIAG, or its module tcp_diag cannot be \
         loaded"
    )]
    NoTable,
    /// We may not.
    #[error("destroying a socket of another process needs CAP_NET_ADMIN: run as root, or with that capability")]
    Permission,
    /// The kernel cannot.
    #[error(
        "this kernel cannot destroy sockets from outside their process: it was built without CONFIG_INET_DIAG_DESTROY"
    )]
    NotSupported,
    /// It ended by itself meanwhile.
    #[error("the connection has ended meanwhile")]
    Gone,
    /// There is no such process, or it is none of ours to look at.
    #[error("process {pid} cannot be looked at: {source}")]
    Process {
        /// Which.
        pid: u32,
        /// Why not.
        source: io::Error,
    },
    /// Anything else the system said.
    #[error("asking the kernel for its sockets failed: {0}")]
    System(#[from] io::Error),
}

impl SockDiagError {
    /// Whether no socket at all can be destroyed here.
    pub const fn is_inability(&self) -> bool {
        matches!(self, Self::NoTable | Self::Permission | Self::NotSupported)
    }

    /// What the kernel's answer to a listing means.
    fn of_list(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP) => Self::NoTable,
            _ => error.into(),
        }
    }

    /// What its answer to a destruction means.
    fn of_destruction(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission,
            Some(libc::EOPNOTSUPP) => Self::NotSupported,
            Some(libc::ENOENT | libc::ESTALE) => Self::Gone,
            _ => error.into(),
        }
    }
}

/// The sockets of one network namespace.
pub struct SockDiag {
    netlink: Netlink,
    /// Those of this process alone.
    inodes: Option<Vec<u64>>,
}

impl SockDiag {
    /// The sockets of our own network namespace.
    pub fn open() -> Result<Self, SockDiagError> {
        let netlink = Netlink::open(Some(SOCK_DIAG), 0).map_err(SockDiagError::of_list)?;
        Ok(Self { netlink, inodes: None })
    }

    /// The sockets of a process, in its network namespace.
    pub fn of_process(pid: u32) -> Result<Self, SockDiagError> {
        let process = |source| SockDiagError::Process { pid, source };
        let inodes = inodes_of(pid).map_err(process)?;
        let ours = fs::read_link("/proc/self/ns/net")?;
        let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).map_err(process)?;
        if ours == theirs {
            return Ok(Self { inodes: Some(inodes), ..Self::open()? });
        }
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net")).map_err(process)?;
        // A netlink socket stays in the namespace in which it was made; the thread that goes there ends there.
        let there = std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Netlink::open(Some(SOCK_DIAG), 0)
        })?;
        let netlink = there.join().map_err(|_| io::Error::other("the thread in the other namespace panicked"))?;
        let netlink = netlink.map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => SockDiagError::Permission,
            _ => process(source),
        })?;
        Ok(Self { netlink, inodes: Some(inodes) })
    }

    /// All connections, in no order.
    pub fn connections(&mut self) -> Result<Vec<TcpSocket>, SockDiagError> {
        let mut found = Vec::new();
        for family in [INET, INET6] {
            let body = request(family, CONNECTED, &[0; NAME_BYTES]);
            match self.netlink.list(BY_FAMILY, &body, |_, answer| TcpSocket::decode(answer)) {
                Ok(sockets) => found.extend(sockets),
                // A kernel without IPv6 knows no sockets of it.
                Err(error) if family == INET6 && error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(SockDiagError::of_list(error)),
            }
        }
        if let Some(inodes) = &self.inodes {
            found.retain(|socket| socket.inode != 0 && inodes.contains(&socket.inode));
        }
        Ok(found)
    }

    /// Destroys a connection.
    pub fn destroy(&mut self, socket: &TcpSocket) -> Result<(), SockDiagError> {
        let body = request(socket.family, CONNECTED, &socket.name);
        self.netlink.ask(DESTROY, &body, |_, _| {}).map_err(SockDiagError::of_destruction)
    }
}

/// A request (linux/inet_diag.h, `inet_diag_req_v2`).
fn request(family: u8, states: u32, name: &[u8; NAME_BYTES]) -> Vec<u8> {
    let mut body = vec![family, TCP, 0, 0];
    body.extend_from_slice(&states.to_ne_bytes());
    body.extend_from_slice(name);
    body
}

impl TcpSocket {
    /// An answer (linux/inet_diag.h, `inet_diag_msg`): family, state, timer, retransmits, name, times and queues, user, inode.
    fn decode(answer: &[u8]) -> Option<Self> {
        let family = *answer.first()?;
        let name: [u8; NAME_BYTES] = *answer.get(4..)?.first_chunk()?;
        let port = |at: usize| u16::from_be_bytes([name[at], name[at + 1]]);
        let address = |at: usize| -> Option<IpAddr> {
            match family {
                INET => name[at..].first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
                INET6 => name[at..].first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
                _ => None,
            }
        };
        Some(Self {
            local: SocketAddr::new(address(4)?, port(0)),
            peer: SocketAddr::new(address(20)?, port(2)),
            user: u32_at(answer, 64)?,
            inode: u64::from(u32_at(answer, 68)?),
            family,
            name,
        })
    }
}

/// The inodes of all sockets that a process has open.
fn inodes_of(pid: u32) -> io::Result<Vec<u64>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile has no link any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode: Option<u64> =
            target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_destroyed_connection_is_reset_for_its_peer_and_aborted_for_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut own, _) = listener.accept().expect("it waits");
        let (local, other) = (own.local_addr().expect("connected"), own.peer_addr().expect("connected"));
        let mut diag = SockDiag::of_process(std::process::id()).expect("our own process");
        let sockets = diag.connections().expect("listed");
        let socket = sockets.iter().find(|one| one.local == local && one.peer == other).expect("it is there");
        match diag.destroy(socket) {
            Ok(()) => {}
            Err(error @ (SockDiagError::Permission | SockDiagError::NotSupported)) => {
                return eprintln!("SKIPPED: sockets cannot be destroyed here: {error}");
            }
            Err(error) => panic!("{error}"),
        }
        let error = own.read(&mut [0]).expect_err("it was destroyed");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
        let error = peer.read(&mut [0]).expect_err("it was reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        assert!(matches!(diag.destroy(socket), Err(SockDiagError::Gone)));
    }

    #[test]
    fn what_the_kernel_says_is_told_as_what_it_means() {
        let said = io::Error::from_raw_os_error;
        for number in [libc::ENOENT, libc::EPROTONOSUPPORT, libc::EOPNOTSUPP] {
            let error = SockDiagError::of_list(said(number));
            assert!(error.is_inability() && error.to_string().contains("CONFIG_INET_DIAG"), "{error}");
        }
        for (number, words) in [
            (libc::EPERM, "CAP_NET_ADMIN"),
            (libc::EACCES, "CAP_NET_ADMIN"),
            (libc::EOPNOTSUPP, "CONFIG_INET_DIAG_DESTROY"),
        ] {
            let error = SockDiagError::of_destruction(said(number));
            assert!(error.is_inability() && error.to_string().contains(words), "{error}");
        }
        for number in [libc::ENOENT, libc::ESTALE] {
            assert!(matches!(SockDiagError::of_destruction(said(number)), SockDiagError::Gone));
        }
        let other = SockDiagError::of_destruction(said(libc::ENOBUFS));
        assert!(matches!(other, SockDiagError::System(_)) && !other.is_inability());
    }

    #[test]
    fn answers_cut_at_any_length_are_none() {
        let mut answer = vec![INET, 1, 0, 0, 0x11, 0x44, 0, 80, 127, 0, 0, 1];
        answer.resize(72, 0);
        let socket = TcpSocket::decode(&answer).expect("whole");
        assert_eq!(socket.local, "127.0.0.1:4420".parse().expect("an address"));
        assert_eq!(socket.peer.port(), 80);
        assert!((0..72).all(|length| TcpSocket::decode(&answer[..length]).is_none()));
        answer[0] = 1;
        assert_eq!(TcpSocket::decode(&answer), None, "not of this family");
    }

    #[test]
    fn a_process_that_is_not_there_is_told() {
        assert!(matches!(SockDiag::of_process(u32::MAX), Err(SockDiagError::Process { .. })));
    }
}
