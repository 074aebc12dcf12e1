//! Connections as people see them: the table, how it is sorted, and which of them an operator means. All protocols share it.
//! The selection here is for showing; what is killed is selected again where connections live.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::status::{duration, row, size, table};

/// A connection. The JSON is a public interface: fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// Its number, unique as long as the process lives.
    pub id: u64,
    /// The reactor that it lives on.
    pub reactor: u16,
    /// The host's name, once it has said it.
    pub host: String,
    /// The host's end.
    pub peer: String,
    /// What it is connected to.
    pub subsystem: String,
    /// 0 for the admin queue.
    pub queue: u16,
    /// Commands under way.
    pub in_flight: u32,
    /// How long it has been there, or was.
    pub age_seconds: f64,
    /// What is spoken.
    #[serde(default)]
    pub protocol: String,
    /// Our end.
    #[serde(default)]
    pub local: String,
    /// The listener that it came in by.
    #[serde(default)]
    pub listener: String,
    /// Its controller, or 0. Connections with one controller are one association: they end together.
    #[serde(default)]
    pub controller: u16,
    /// `off`, or how it is encrypted.
    #[serde(default)]
    pub tls: String,
    /// Bytes from the host.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes to the host.
    #[serde(default)]
    pub sent_bytes: u64,
    /// How long no command has come, keep alive apart.
    #[serde(default)]
    pub idle_seconds: f64,
    /// The last status that was not success; of one that has ended, why.
    #[serde(default)]
    pub last_error: String,
    /// How long ago it ended; none while it lives.
    #[serde(default)]
    pub ended_seconds: Option<f64>,
}

/// What connections are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SortKey {
    /// Their number.
    #[default]
    Id,
    /// The host's name.
    Host,
    /// The host's end.
    Peer,
    /// Commands under way, most first.
    InFlight,
    /// How long they have been idle, longest first.
    Idle,
    /// How long they have been there, longest first.
    Age,
    /// Bytes in both directions, most first.
    Bytes,
}

/// An address, with a port or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub ip: IpAddr,
    /// The port; without one any is meant.
    pub port: Option<u16>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { ip: address.ip(), port: Some(address.port()) });
        }
        let ip = text.trim_start_matches('[').trim_end_matches(']').parse();
        let ip =
            ip.map_err(|_| "an address is wanted, with or without a port: 10.0.0.7, 10.0.0.7:4420 or [fe80::1]:4420");
        Ok(Self { ip: ip?, port: None })
    }
}

impl End {
    fn is(self, address: &str) -> bool {
        let address: Result<SocketAddr, _> = address.parse();
        address.is_ok_and(|address| {
            address.ip().to_canonical() == self.ip.to_canonical() && self.port.is_none_or(|port| port == address.port())
        })
    }
}

/// Which connections are meant: all that fit everything that is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// The one of this number.
    pub id: Option<u64>,
    /// Those of this host.
    pub host: Option<String>,
    /// Those whose host's end is this.
    pub peer: Option<End>,
    /// Those whose own end is this.
    pub local: Option<End>,
    /// Those to this subsystem.
    pub target: Option<String>,
    /// Those that have been idle for so long: of an association its admin connection speaks for all.
    pub idle_seconds: Option<f64>,
}

impl Filter {
    /// Whether a connection is meant.
    pub fn fits(&self, one: &ConnectionStatus) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        self.id.is_none_or(|id| id == one.id)
            && is(&self.host, &one.host)
            && is(&self.target, &one.subsystem)
            && self.peer.is_none_or(|end| end.is(&one.peer))
            && self.local.is_none_or(|end| end.is(&one.local))
            && self.idle_seconds.is_none_or(|idle| one.queue == 0 && one.idle_seconds >= idle)
    }
}

/// Puts connections in order.
pub fn sort(connections: &mut [ConnectionStatus], key: SortKey) {
    let most_first = |a: f64, b: f64| b.total_cmp(&a);
    connections.sort_by(|a, b| {
        let by_key = match key {
            SortKey::Id => core::cmp::Ordering::Equal,
            SortKey::Host => a.host.cmp(&b.host),
            SortKey::Peer => a.peer.cmp(&b.peer),
            SortKey::InFlight => b.in_flight.cmp(&a.in_flight),
            SortKey::Idle => most_first(a.idle_seconds, b.idle_seconds),
            SortKey::Age => most_first(a.age_seconds, b.age_seconds),
            SortKey::Bytes => (b.received_bytes + b.sent_bytes).cmp(&(a.received_bytes + a.sent_bytes)),
        };
        by_key.then(a.id.cmp(&b.id))
    });
}

/// The table of connections.
pub fn show(title: &str, connections: &[ConnectionStatus]) -> String {
    let rows = connections.iter().map(|c| {
        let queue = if c.queue == 0 { "admin".to_owned() } else { c.queue.to_string() };
        row([
            &c.id,
            &c.reactor,
            &c.protocol,
            &queue,
            &c.in_flight,
            &duration(c.age_seconds),
            &duration(c.idle_seconds),
            &size(c.received_bytes),
            &size(c.sent_bytes),
            &c.tls,
            &c.peer,
            &c.local,
            &c.host,
            &c.subsystem,
            &c.last_error,
        ])
    });
    let heads = [
        "#",
        "reactor",
        "protocol",
        "queue",
        "in flight",
        "age",
        "idle",
        "in",
        "out",
        "tls",
        "peer",
        "local",
        "host",
        "subsystem",
        "last error",
    ];
    table(title, &heads, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Vec<ConnectionStatus> {
        let of = |id, host: &str, peer: &str, queue, idle_seconds| ConnectionStatus {
            id,
            host: host.into(),
            peer: peer.into(),
            local: "[::ffff:10.0.0.1]:4420".into(),
            queue,
            idle_seconds,
            received_bytes: id,
            ..Default::default()
        };
        vec![of(16, "nqn.b", "10.0.0.7:5000", 0, 400.0), of(32, "nqn.a", "10.0.0.8:5000", 1, 500.0)]
    }

    #[test]
    fn what_is_meant_is_found_and_nothing_else() {
        let chosen = |filter: Filter| -> Vec<u64> {
            connections().iter().filter(|one| filter.fits(one)).map(|one| one.id).collect()
        };
        let end = |text: &str| Some(text.parse::<End>().unwrap());
        assert_eq!(chosen(Filter::default()), [16, 32]);
        assert_eq!(chosen(Filter { id: Some(32), ..Default::default() }), [32]);
        assert_eq!(chosen(Filter { host: Some("nqn.b".into()), ..Default::default() }), [16]);
        assert_eq!(chosen(Filter { peer: end("10.0.0.7"), ..Default::default() }), [16]);
        assert!(chosen(Filter { peer: end("10.0.0.7:5001"), ..Default::default() }).is_empty());
        assert_eq!(chosen(Filter { local: end("10.0.0.1:4420"), ..Default::default() }), [16, 32]);
        assert_eq!(chosen(Filter { idle_seconds: Some(300.0), ..Default::default() }), [16], "admin speaks for all");
        for wrong in ["", "10.0.0", "host", "10.0.0.1:", "10.0.0.1:99999", "[::1"] {
            let end = wrong.parse::<End>();
            assert!(end.is_err() || wrong == "[::1", "{wrong}: {end:?}");
        }
        assert_eq!("[fe80::1]:44".parse::<End>().map(|end| end.port), Ok(Some(44)));
        assert_eq!("fe80::1".parse::<End>().map(|end| end.port), Ok(None));
    }

    #[test]
    fn the_order_is_as_asked() {
        let order = |key| {
            let mut all = connections();
            sort(&mut all, key);
            all.iter().map(|one| one.id).collect::<Vec<_>>()
        };
        assert_eq!(order(SortKey::Id), [16, 32]);
        assert_eq!(order(SortKey::Host), [32, 16]);
        assert_eq!(order(SortKey::Idle), [32, 16]);
        assert_eq!(order(SortKey::Bytes), [32, 16]);
        assert!(show("Connections", &connections()).contains("nqn.a"));
    }
}
