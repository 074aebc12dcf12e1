//! What is exported: subsystems, their namespaces and hosts, the listeners, and the discovery log made of them. An
//! immutable snapshot; a change makes a new one with a higher generation.

use std::net::{IpAddr, SocketAddr};

use base::ids::VolumeId;
use base::sector::LogicalBlock;
use nvme::discovery::{self, DISCOVERY_NQN, DiscoveryEntry};
use nvme::identify::NamespaceIdentity;
use nvme::layout::{null_padded, padded};

use crate::fabrics;
use crate::limits::{MAX_ADMIN_QUEUE_ENTRIES, MAX_NAMESPACES};

/// Hosts that a subsystem admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any host.
    Any,
    /// Those of these NQNs.
    Listed(Vec<String>),
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// NSID, 1 to [`MAX_NAMESPACES`].
    pub nsid: u32,
    /// The volume behind it.
    pub volume: VolumeId,
    /// Its size in blocks of 4096 bytes, as all its lengths.
    pub blocks: u64,
    /// In what units hosts address it.
    pub logical: LogicalBlock,
    /// What names it for ever.
    pub identity: NamespaceIdentity,
    /// Blocks of a chunk: I/O within one is best (NOIOB).
    pub chunk_blocks: u32,
    /// Blocks of an atomic unit, a power of two of which a chunk is a multiple: what is written within one becomes visible in
    /// one step (NAWUN), unless it crosses a multiple of it (NABSN).
    pub atomic_blocks: u32,
    /// The same for what survives a loss of power whole or not at all (NAWUPF, NABSPF): an atomic unit, or a block.
    pub power_fail_blocks: u32,
    /// Data blocks of a stripe: writes of whole ones are best (NOWS).
    pub stripe_blocks: u32,
}

impl Namespace {
    /// NSZE: its size in logical blocks.
    pub fn logical_blocks(&self) -> u64 {
        self.blocks * u64::from(self.logical.per_block())
    }
}

/// An NVM subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsystem {
    /// Its name.
    pub nqn: String,
    /// SN, at most 20 ASCII characters.
    pub serial: String,
    /// MN, at most 40 ASCII characters.
    pub model: String,
    /// Who may connect.
    pub hosts: Hosts,
    /// Where: places in [`Exports`]'s list of listeners.
    pub listeners: Vec<u16>,
    /// Namespaces in rising order of NSID.
    pub namespaces: Vec<Namespace>,
}

impl Subsystem {
    /// Whether a host may connect.
    pub fn admits(&self, host_nqn: &str) -> bool {
        match &self.hosts {
            Hosts::Any => true,
            Hosts::Listed(list) => list.iter().any(|nqn| nqn == host_nqn),
        }
    }

    /// Whether it is reached by a listener.
    pub fn is_at(&self, listener: u16) -> bool {
        self.listeners.contains(&listener)
    }

    /// An active namespace.
    #[inline]
    pub fn namespace(&self, nsid: u32) -> Option<&Namespace> {
        // Most subsystems number their namespaces without gaps.
        let guess = (nsid as usize).wrapping_sub(1);
        match self.namespaces.get(guess) {
            Some(namespace) if namespace.nsid == nsid => Some(namespace),
            _ => self
                .namespaces
                .binary_search_by_key(&nsid, |namespace| namespace.nsid)
                .ok()
                .map(|index| &self.namespaces[index]),
        }
    }
}

/// A listener as discovery tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens. An unspecified address stands for every local one.
    pub address: SocketAddr,
    /// PORTID.
    pub port_id: u16,
}

/// Everything that is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exports {
    generation: u64,
    subsystems: Vec<Subsystem>,
    listeners: Vec<Listener>,
}

/// What is wrong with an export: the operator's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A name that is no NQN, or the discovery subsystem's.
    #[error("{0:?} cannot name a subsystem: an NQN has the form nqn.yyyy-mm.reverse.domain:name, at most 223 bytes")]
    BadName(String),
    /// Two subsystems of one name.
    #[error("there are two subsystems named {0}")]
    DuplicateName(String),
    /// Namespace identifiers out of range or order.
    #[error("namespace {nsid} of {nqn}: identifiers rise from 1 to {MAX_NAMESPACES}, each once")]
    BadNamespaceId {
        /// The subsystem.
        nqn: String,
        /// The identifier.
        nsid: u32,
    },
    /// A namespace without blocks or identity. ESXi ignores a namespace whose NGUID is zero.
    #[error("namespace {nsid} of {nqn} has no blocks or lacks UUID, NGUID or EUI64")]
    BadNamespace {
        /// The subsystem.
        nqn: String,
        /// The identifier.
        nsid: u32,
    },
}

impl Exports {
    /// A snapshot. `generation` becomes GENCTR of the discovery log and must rise with each change.
    pub fn new(generation: u64, subsystems: Vec<Subsystem>, listeners: Vec<Listener>) -> Result<Self, ExportError> {
        for (index, subsystem) in subsystems.iter().enumerate() {
            let nqn = &subsystem.nqn;
            if !fabrics::is_nqn(nqn) || nqn == DISCOVERY_NQN {
                return Err(ExportError::BadName(nqn.clone()));
            }
            if subsystems[..index].iter().any(|other| other.nqn == *nqn) {
                return Err(ExportError::DuplicateName(nqn.clone()));
            }
            let mut last = 0;
            for Namespace { nsid, blocks, identity, .. } in &subsystem.namespaces {
                if *nsid <= last || *nsid > MAX_NAMESPACES {
                    return Err(ExportError::BadNamespaceId { nqn: nqn.clone(), nsid: *nsid });
                }
                if *blocks == 0 || identity.uuid.is_nil() || identity.nguid == [0; 16] || identity.eui64 == [0; 8] {
                    return Err(ExportError::BadNamespace { nqn: nqn.clone(), nsid: *nsid });
                }
                last = *nsid;
            }
        }
        Ok(Self { generation, subsystems, listeners })
    }

    /// The same with other namespaces. The discovery log tells of none, so that its generation stays.
    pub fn with(&self, change: impl FnOnce(&mut [Subsystem])) -> Result<Self, ExportError> {
        let mut subsystems = self.subsystems.clone();
        change(&mut subsystems);
        Self::new(self.generation, subsystems, self.listeners.clone())
    }

    /// GENCTR.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// All subsystems.
    pub fn subsystems(&self) -> &[Subsystem] {
        &self.subsystems
    }

    /// A subsystem's place, by its name.
    pub fn find(&self, nqn: &str) -> Option<usize> {
        self.subsystems.iter().position(|subsystem| subsystem.nqn == nqn)
    }

    /// The place of a subsystem that is reached by a listener.
    pub fn find_at(&self, nqn: &str, listener: u16) -> Option<usize> {
        self.find(nqn).filter(|&index| self.subsystems[index].is_at(listener))
    }

    /// The discovery log page for a host that came in by the local address `local` (Base, section 5.16.1.23): one entry
    /// per subsystem that admits it and listener that reaches it, and for each listener the discovery subsystem itself (TP 8013).
    pub fn discovery_page(&self, host_nqn: &str, local: SocketAddr) -> Vec<u8> {
        let mut entries = Vec::new();
        for (at, listener) in (0..).zip(&self.listeners) {
            let Some(ip) = advertised(listener.address.ip(), local.ip()) else { continue };
            let mut entry = DiscoveryEntry {
                transport: discovery::TRANSPORT_TCP,
                address_family: if ip.is_ipv4() { discovery::FAMILY_IPV4 } else { discovery::FAMILY_IPV6 },
                subsystem_type: discovery::SUBSYSTEM_NVM,
                requirements: discovery::SECURE_NOT_REQUIRED | discovery::FLOW_CONTROL_OPTIONAL,
                port_id: listener.port_id,
                controller_id: discovery::DYNAMIC_CONTROLLER,
                admin_queue_entries: MAX_ADMIN_QUEUE_ENTRIES,
                service: padded(&listener.address.port().to_string()),
                address: padded(&ip.to_string()),
                ..DiscoveryEntry::default()
            };
            let told = |subsystem: &&Subsystem| subsystem.admits(host_nqn) && subsystem.is_at(at);
            for subsystem in self.subsystems.iter().filter(told) {
                entry.subsystem_nqn = null_padded(&subsystem.nqn);
                entries.push(entry);
            }
            entry.subsystem_type = discovery::SUBSYSTEM_CURRENT_DISCOVERY;
            entry.flags = discovery::FLAG_PERSISTENT;
            entry.subsystem_nqn = null_padded(DISCOVERY_NQN);
            entries.push(entry);
        }
        discovery::page(self.generation, &entries)
    }
}

/// The address by which a listener is told to a host that reached us at `local`: an unspecified one is told as that, and
/// only to hosts of its family (an IPv6 wildcard serves both).
fn advertised(listening: IpAddr, local: IpAddr) -> Option<IpAddr> {
    if !listening.is_unspecified() {
        return Some(listening.to_canonical());
    }
    let local = local.to_canonical();
    (listening.is_ipv6() || local.is_ipv4()).then_some(local)
}

#[cfg(test)]
pub(crate) mod tests {
    use base::uuid::Uuid;
    use nvme::discovery::DiscoveryHeader;
    use nvme::layout::text;

    use super::*;

    pub(crate) fn namespace(nsid: u32) -> Namespace {
        let identity =
            NamespaceIdentity { eui64: [nsid as u8; 8], nguid: [nsid as u8; 16], uuid: Uuid([nsid as u8; 16]) };
        Namespace {
            nsid,
            volume: VolumeId(nsid),
            blocks: 1000,
            logical: LogicalBlock::Block,
            identity,
            chunk_blocks: 16,
            atomic_blocks: 16,
            power_fail_blocks: 16,
            stripe_blocks: 48,
        }
    }

    pub(crate) fn exports() -> Exports {
        let subsystem = |nqn: &str, hosts, nsids: &[u32]| Subsystem {
            nqn: nqn.into(),
            serial: "S".into(),
            model: "M".into(),
            hosts,
            listeners: vec![0, 1],
            namespaces: nsids.iter().copied().map(namespace).collect(),
        };
        let listeners = vec![
            Listener { address: "127.0.0.1:4420".parse().expect("an address"), port_id: 1 },
            Listener { address: "0.0.0.0:8009".parse().expect("an address"), port_id: 2 },
        ];
        let open = subsystem("nqn.2024-01.example:open", Hosts::Any, &[1, 2, 5]);
        let shut = subsystem("nqn.2024-01.example:shut", Hosts::Listed(vec!["nqn.host:a".into()]), &[1]);
        Exports::new(4, vec![open, shut], listeners).expect("well formed")
    }

    #[test]
    fn hosts_see_what_they_may_connect_to() {
        let exports = exports();
        let local = "10.0.0.9:8009".parse().expect("an address");
        let entries = |host: &str| -> Vec<_> {
            let page = exports.discovery_page(host, local);
            assert_eq!(DiscoveryHeader::decode(&page).map(|header| header.generation), Ok(4));
            page[1024..].chunks(1024).map(|entry| DiscoveryEntry::decode(entry).expect("whole")).collect()
        };
        assert_eq!(entries("nqn.host:a").len(), 6);
        let seen = entries("nqn.host:b");
        let told: Vec<_> = seen
            .iter()
            .map(|entry| {
                (entry.subsystem_type, text(&entry.address).expect("text"), text(&entry.service).expect("text"))
            })
            .collect();
        assert_eq!(
            told,
            [(2, "127.0.0.1", "4420"), (3, "127.0.0.1", "4420"), (2, "10.0.0.9", "8009"), (3, "10.0.0.9", "8009")]
        );
        assert_eq!(text(&seen[0].subsystem_nqn), Some("nqn.2024-01.example:open"));
    }

    #[test]
    fn a_subsystem_is_told_and_found_only_where_it_is() {
        let mut subsystems = exports().subsystems().to_vec();
        subsystems[0].listeners = vec![1];
        let exports = Exports::new(4, subsystems, exports().listeners).expect("well formed");
        let page = exports.discovery_page("nqn.host:b", "10.0.0.9:8009".parse().expect("an address"));
        let entries = page[1024..].chunks(1024).map(|entry| DiscoveryEntry::decode(entry).expect("whole"));
        let told: Vec<_> = entries.map(|entry| (entry.subsystem_type, entry.port_id)).collect();
        assert_eq!(told, [(3, 1), (2, 2), (3, 2)]);
        assert_eq!(exports.find_at("nqn.2024-01.example:open", 0), None);
        assert_eq!(exports.find_at("nqn.2024-01.example:open", 1), Some(0));
    }

    #[test]
    fn namespaces_are_found_with_and_without_gaps() {
        let exports = exports();
        let open = &exports.subsystems()[exports.find("nqn.2024-01.example:open").expect("there")];
        let found = |nsid| open.namespace(nsid).map(|namespace| namespace.nsid);
        assert_eq!([0, 1, 2, 3, 5, u32::MAX].map(found), [None, Some(1), Some(2), None, Some(5), None]);
        assert_eq!(exports.find("nqn.none"), None);
    }

    #[test]
    fn a_bad_export_is_refused_by_name() {
        let good = exports().subsystems()[0].clone();
        let refused = |change: fn(&mut Subsystem)| {
            let mut bad = good.clone();
            change(&mut bad);
            Exports::new(1, vec![bad], vec![]).unwrap_err()
        };
        assert!(matches!(refused(|bad| bad.nqn = "x".into()), ExportError::BadName(_)));
        assert!(matches!(refused(|bad| bad.nqn = DISCOVERY_NQN.into()), ExportError::BadName(_)));
        assert!(matches!(refused(|bad| bad.namespaces[1].nsid = 1), ExportError::BadNamespaceId { nsid: 1, .. }));
        assert!(matches!(refused(|bad| bad.namespaces[2].nsid = 257), ExportError::BadNamespaceId { .. }));
        assert!(matches!(refused(|bad| bad.namespaces[0].blocks = 0), ExportError::BadNamespace { .. }));
        assert!(matches!(refused(|bad| bad.namespaces[0].identity.nguid = [0; 16]), ExportError::BadNamespace { .. }));
        let twice = Exports::new(1, vec![good.clone(), good], vec![]);
        assert!(matches!(twice, Err(ExportError::DuplicateName(_))));
    }
}
