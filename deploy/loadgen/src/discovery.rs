//! Fetching a discovery log: which subsystems a target offers, and where. It connects to the well-known discovery
//! subsystem, reads the log page in pieces and leaves again.

use core::time::Duration;
use std::net::SocketAddr;

use nvme::discovery::{DISCOVERY_NQN, DiscoveryEntry, DiscoveryHeader};
use nvme::log_page;
use nvmf::pdu::Digests;

use crate::error::HostError;
use crate::host::{ADMIN_BUFFER_BYTES, Host, HostIdentity, HostOptions};
use crate::limits::{DISCOVERY_ENTRIES_MAX, DISCOVERY_RETRIES_MAX};

/// Entries that fit into one piece.
const ENTRIES_PER_PIECE: u64 = ADMIN_BUFFER_BYTES as u64 / DiscoveryEntry::SIZE as u64;

/// The entries of a target's discovery log.
///
/// # Errors
/// Nobody answers, a command is refused, or the log changes faster than it can be read.
pub fn discover(
    address: SocketAddr,
    identity: &HostIdentity,
    digests: Digests,
) -> Result<Vec<DiscoveryEntry>, HostError> {
    let mut options = HostOptions::new(address, DISCOVERY_NQN, identity.clone());
    options.digests = digests;
    // One visit: no Keep Alive, as nvme-cli does it.
    options.keep_alive = Duration::ZERO;
    options.queues = 0;
    let mut host = Host::enabled(&options)?;
    for _ in 0..DISCOVERY_RETRIES_MAX {
        let before = header(&mut host)?;
        let records = before.records.min(DISCOVERY_ENTRIES_MAX);
        let mut entries = Vec::with_capacity(records as usize);
        while (entries.len() as u64) < records {
            let count = ENTRIES_PER_PIECE.min(records - entries.len() as u64);
            let offset = DiscoveryHeader::SIZE as u64 + entries.len() as u64 * DiscoveryEntry::SIZE as u64;
            let piece = host.log_page(log_page::DISCOVERY, offset, count as u32 * DiscoveryEntry::SIZE as u32)?;
            for bytes in piece.chunks_exact(DiscoveryEntry::SIZE) {
                entries.push(DiscoveryEntry::decode(bytes).map_err(|_| short())?);
            }
        }
        // The page is whole only if its generation is the same before and after (Base, section 5.16.1.23).
        if header(&mut host)?.generation == before.generation {
            host.disconnect()?;
            return Ok(entries);
        }
    }
    Err(HostError::Unusable {
        field: "changes of the discovery log while it was read",
        value: DISCOVERY_RETRIES_MAX.into(),
    })
}

fn header(host: &mut Host) -> Result<DiscoveryHeader, HostError> {
    let bytes = host.log_page(log_page::DISCOVERY, 0, DiscoveryHeader::SIZE as u32)?;
    DiscoveryHeader::decode(&bytes).map_err(|_| short())
}

const fn short() -> HostError {
    HostError::Unusable { field: "length of the discovery log", value: 0 }
}
