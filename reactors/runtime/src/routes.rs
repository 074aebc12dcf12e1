//! Whether a connection still has its way: the kernel's word on addresses, routes and links, and the news that they have
//! changed (rtnetlink(7)). It looks; what becomes of a connection without a way is decided elsewhere.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::netlink::{Netlink, attributes, push_attribute, u32_at};

/// Message types (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

/// Attributes of routes.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const OUT_INTERFACE: u16 = 4;

/// Route types: to a host, and to an address of our own.
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;

/// Flags of a route: its next hop or its link is down.
const DEAD: u32 = 1;
const LINK_DOWN: u32 = 16;

/// Flags of a link: it was set up, and it can carry something.
const UP: u32 = 0x1;
const RUNNING: u32 = 0x40;

/// Links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// What became of a connection's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is there.
    Open,
    /// The local address is none of this machine's any more.
    AddressGone,
    /// There is no route to the other end.
    NoRoute,
    /// The link that the route leads to is down.
    LinkDown,
}

impl Way {
    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Open => "there is a way",
            Self::AddressGone => "the local address is gone",
            Self::NoRoute => "there is no route to the host",
            Self::LinkDown => "the link to the host is down",
        }
    }
}

/// Hears that addresses, links or routes have changed.
pub struct RouteNews(Netlink);

impl RouteNews {
    /// Hears from now on.
    pub fn open() -> io::Result<Self> {
        Netlink::open(None, GROUPS).map(Self)
    }

    /// Waits for a change at most so long; whether there was one.
    pub fn wait(&mut self, at_most: Duration) -> io::Result<bool> {
        self.0.news(at_most)
    }
}

/// Asks for ways.
pub struct Routes(Netlink);

struct Route {
    kind: u8,
    flags: u32,
    interface: Option<u32>,
}

impl Routes {
    /// For the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Netlink::open(None, 0).map(Self)
    }

    /// The way from a local address to a peer.
    pub fn way(&mut self, local: IpAddr, peer: IpAddr) -> io::Result<Way> {
        let (local, peer) = (local.to_canonical(), peer.to_canonical());
        if self.route(local, None)?.is_none_or(|route| route.kind != LOCAL) {
            return Ok(Way::AddressGone);
        }
        let Some(route) = self.route(peer, Some(local))? else { return Ok(Way::NoRoute) };
        if route.kind != UNICAST && route.kind != LOCAL {
            return Ok(Way::NoRoute);
        }
        let carries = match route.interface {
            Some(interface) => self.link_carries(interface)?,
            None => true,
        };
        Ok(if carries && route.flags & (DEAD | LINK_DOWN) == 0 { Way::Open } else { Way::LinkDown })
    }

    /// The route to an address, as the kernel would take it.
    fn route(&mut self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Option<Route>> {
        // linux/rtnetlink.h, `rtmsg`: family, lengths of destination and source in bits, and nothing else.
        let mut body = vec![family(to), bits(to), from.map_or(0, bits), 0, 0, 0, 0, 0, 0, 0, 0, 0];
        push_address(&mut body, DESTINATION, to);
        if let Some(from) = from {
            push_address(&mut body, SOURCE, from);
        }
        let mut found = None;
        let asked = self.0.ask(GET_ROUTE, &body, |kind, answer| {
            if kind == NEW_ROUTE
                && let (Some(&kind), Some(flags), Some(rest)) = (answer.get(7), u32_at(answer, 8), answer.get(12..))
            {
                let interface = attributes(rest).find(|&(kind, _)| kind == OUT_INTERFACE);
                found = Some(Route { kind, flags, interface: interface.and_then(|(_, number)| u32_at(number, 0)) });
            }
        });
        match asked.map_err(|error| error.raw_os_error().ok_or(error)) {
            Ok(()) => Ok(found),
            // EINVAL: the source is no address of ours; EACCES: prohibited.
            Err(Ok(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES | libc::ENODEV)) => Ok(None),
            Err(Ok(number)) => Err(io::Error::from_raw_os_error(number)),
            Err(Err(error)) => Err(error),
        }
    }

    fn link_carries(&mut self, interface: u32) -> io::Result<bool> {
        // `ifinfomsg`: family, type, index, flags and which of them change.
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        let mut carries = false;
        let asked = self.0.ask(GET_LINK, &body, |kind, answer| {
            if kind == NEW_LINK
                && let Some(flags) = u32_at(answer, 8)
            {
                carries = flags & (UP | RUNNING) == UP | RUNNING;
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            asked => asked.map(|()| carries),
        }
    }
}

const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn push_address(body: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_attribute(body, kind, &address.octets()),
        IpAddr::V6(address) => push_attribute(body, kind, &address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_a_way_and_a_foreign_address_has_none() {
        let mut routes = Routes::open().expect("a socket");
        let [own, foreign] = ["127.0.0.1", "192.0.2.7"].map(|text| text.parse::<IpAddr>().expect("an address"));
        assert_eq!(routes.way(own, own).expect("an answer"), Way::Open);
        assert_eq!(routes.way(foreign, own).expect("an answer"), Way::AddressGone);
        let mut news = RouteNews::open().expect("a socket");
        assert!(!news.wait(Duration::ZERO).expect("nothing changes by itself"));
    }
}
