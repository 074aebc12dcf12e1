//! What hosts are shown: subsystems and namespaces of the configuration, over the volumes that start-up found.

use std::net::SocketAddr;

use base::ids::VolumeId;
use config::schema::{Config, Hosts};
use engine::boot::BootedArray;
use engine::limits::atomic_blocks;
use engine::map::Volume;
use nvme::identify::NamespaceIdentity;
use nvmf::subsystem::{self, Exports, Namespace, Subsystem};

use super::ServeError;

/// The volumes of the configuration, in its order: their places are their [`VolumeId`]s, and those of their metrics.
pub(super) struct Volumes {
    pub(super) table: Vec<Volume>,
    /// Each volume's array, by its place in the configuration, and its record.
    pub(super) named: Vec<(usize, raid::VolumeRecord)>,
}

impl Volumes {
    /// Finds the volumes of a configuration in its arrays.
    pub(super) fn of(config: &Config, arrays: &[BootedArray]) -> Result<Self, ServeError> {
        let (mut table, mut named) = (Vec::new(), Vec::new());
        for (index, (declared, array)) in config.arrays.iter().zip(arrays).enumerate() {
            let stored = array.volumes();
            for volume in &declared.volumes {
                let name = volume.name.to_string();
                let records = &array.metadata.volumes;
                let Some(at) = records.iter().position(|record| record.name == name) else {
                    return Err(ServeError::NoVolume { volume: format!("{}/{name}", array.map.name) });
                };
                if records[at].blocks != volume.size.blocks() {
                    tracing::warn!(
                        volume = name,
                        blocks = records[at].blocks,
                        declared = volume.size.blocks(),
                        "the volume keeps the size that it was made with"
                    );
                }
                table.push(stored[at].clone());
                named.push((index, records[at].clone()));
            }
        }
        Ok(Self { table, named })
    }
}

/// The exports of a configuration; `addresses` are the listeners' in order.
pub(super) fn exports(
    config: &Config,
    arrays: &[BootedArray],
    volumes: &Volumes,
    addresses: &[SocketAddr],
) -> Result<Exports, ServeError> {
    let mut subsystems = Vec::new();
    for declared in &config.subsystems {
        let mut namespaces = Vec::new();
        for namespace in &declared.namespaces {
            let path = &namespace.volume;
            let found = volumes.named.iter().position(|(array, record)| {
                arrays[*array].map.name == path.array.to_string() && record.name == path.volume.to_string()
            });
            let Some(index) = found else {
                return Err(ServeError::NoVolume { volume: format!("{}/{}", path.array, path.volume) });
            };
            let (array, record) = &volumes.named[index];
            let geometry = &arrays[*array].map.geometry;
            namespaces.push(Namespace {
                nsid: namespace.nsid,
                volume: VolumeId(index as u32),
                blocks: record.blocks,
                identity: NamespaceIdentity {
                    eui64: record.eui64.to_be_bytes(),
                    nguid: record.nguid,
                    uuid: record.uuid,
                },
                chunk_blocks: geometry.chunk_blocks(),
                atomic_blocks: atomic_blocks(geometry.chunk_blocks()),
                stripe_blocks: geometry.chunk_blocks() * u32::from(geometry.data_slots()),
            });
        }
        namespaces.sort_by_key(|namespace| namespace.nsid);
        let hosts = match &declared.hosts {
            Hosts::Any(_) => subsystem::Hosts::Any,
            Hosts::Listed(list) => subsystem::Hosts::Listed(list.iter().map(ToString::to_string).collect()),
        };
        // The serial must be the same after every restart: it comes of the first namespace's volume.
        let first = namespaces.first().map_or([0; 16], |namespace| namespace.identity.uuid.0);
        let serial = first.iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        let nqn = declared.nqn.to_string();
        let listeners =
            (0..).zip(&config.listeners).filter(|(_, listener)| declared.listeners.contains(&listener.name));
        let listeners = listeners.map(|(at, _)| at).collect();
        subsystems.push(Subsystem { nqn, serial, model: "Brindle".to_owned(), hosts, listeners, namespaces });
    }
    let listeners = (1..).zip(addresses).map(|(port_id, &address)| subsystem::Listener { address, port_id });
    Exports::new(1, subsystems, listeners.collect()).map_err(|error| ServeError::Export(error.to_string()))
}
