//! What hosts are shown at the start: subsystems and namespaces of the configuration, and what volumes were exported to while
//! serving, over the volumes that start-up found. What changes later is the coordinator's.

use std::net::SocketAddr;

use base::ids::VolumeId;
use config::schema::{Config, Hosts};
use engine::boot::BootedArray;
use engine::coordinator::volumes::namespace;
use engine::map::Volume;
use nvmf::subsystem::{self, Exports, Namespace, Subsystem};
use raid::VolumeRecord;

use super::ServeError;

/// The volumes that hosts may use: those of the configuration in its order, then the others. Their places are their
/// [`VolumeId`]s, and those of their metrics.
pub(super) fn volumes(config: &Config, arrays: &[BootedArray]) -> Result<Vec<Volume>, ServeError> {
    let mut table = Vec::new();
    for (declared, array) in config.arrays.iter().zip(arrays) {
        for volume in &declared.volumes {
            let name = volume.name.to_string();
            let found = array.ready().find(|record| record.name == name);
            table.push(match found {
                Some(record) => {
                    if record.blocks != volume.size.blocks() {
                        tracing::warn!(
                            volume = name,
                            blocks = record.blocks,
                            declared = volume.size.blocks(),
                            "the volume keeps the size that it has"
                        );
                    }
                    Volume::of(&array.map, record)
                }
                None if array.metadata().cleaning_blocks() > 0 => no_volume(array, &name),
                None => return Err(ServeError::NoVolume { volume: format!("{}/{name}", array.map.name) }),
            });
        }
    }
    for (declared, array) in config.arrays.iter().zip(arrays) {
        let is_declared =
            |record: &&VolumeRecord| declared.volumes.iter().any(|one| one.name.to_string() == record.name);
        table.extend(array.ready().filter(|record| !is_declared(record)).map(|record| Volume::of(&array.map, record)));
    }
    Ok(table)
}

/// The place of a volume that cannot be made before others are cleaned.
fn no_volume(array: &BootedArray, name: &str) -> Volume {
    let name = format!("{}/{name}", array.map.name);
    Volume { array: array.map.id, record: 0, leaving: true, name, extents: Vec::new(), blocks: 0 }
}

/// The exports of a configuration and of the volumes themselves; `addresses` are the listeners' in order.
pub(super) fn exports(
    config: &Config,
    arrays: &[BootedArray],
    volumes: &[Volume],
    addresses: &[SocketAddr],
) -> Result<Exports, ServeError> {
    let place = |of: &dyn Fn(&Volume) -> bool| volumes.iter().position(of);
    let to_namespace = |at: usize, nsid: u32| -> Option<Namespace> {
        let (volume, array) = (&volumes[at], &arrays[volumes[at].array.index()]);
        let record = array.metadata().by_id(volume.record)?;
        Some(namespace(&array.map, record, VolumeId(at as u32), nsid))
    };
    let mut subsystems = Vec::new();
    for declared in &config.subsystems {
        let mut namespaces = Vec::new();
        for one in &declared.namespaces {
            let path = format!("{}/{}", one.volume.array, one.volume.volume);
            let at = place(&|volume| volume.name == path).ok_or(ServeError::NoVolume { volume: path })?;
            // One that is not there yet is not shown.
            namespaces.extend(to_namespace(at, one.nsid));
        }
        let hosts = match &declared.hosts {
            Hosts::Any(_) => subsystem::Hosts::Any,
            Hosts::Listed(list) => subsystem::Hosts::Listed(list.iter().map(ToString::to_string).collect()),
        };
        // The serial must be the same after every restart, whatever volumes come and go.
        let serial = serial(&declared.nqn.to_string(), arrays);
        let nqn = declared.nqn.to_string();
        let listeners =
            (0..).zip(&config.listeners).filter(|(_, listener)| declared.listeners.contains(&listener.name));
        let listeners = listeners.map(|(at, _)| at).collect();
        subsystems.push(Subsystem { nqn, serial, model: "Brindle".to_owned(), hosts, listeners, namespaces });
    }
    for (at, volume) in volumes.iter().enumerate() {
        let record = arrays[volume.array.index()].metadata().by_id(volume.record);
        for export in record.into_iter().flat_map(|record| &record.exports) {
            let Some(subsystem) = subsystems.iter_mut().find(|one| one.nqn == export.subsystem) else {
                let (volume, nqn) = (&volume.name, &export.subsystem);
                tracing::warn!(
                    volume,
                    nqn,
                    "the volume was exported in a subsystem that the configuration does not name"
                );
                continue;
            };
            if subsystem.namespaces.iter().any(|other| other.nsid == export.nsid) {
                let (volume, nsid) = (&volume.name, export.nsid);
                tracing::warn!(volume, nsid, "the configuration gives the volume's namespace identifier to another");
                continue;
            }
            subsystem.namespaces.extend(to_namespace(at, export.nsid));
        }
    }
    for subsystem in &mut subsystems {
        subsystem.namespaces.sort_by_key(|namespace| namespace.nsid);
    }
    let listeners = (1..).zip(addresses).map(|(port_id, &address)| subsystem::Listener { address, port_id });
    Exports::new(1, subsystems, listeners.collect()).map_err(|error| ServeError::Export(error.to_string()))
}

/// Twenty hexadecimal digits out of a subsystem's name and the first array's identity (FNV-1a over both, folded to 80 bits).
fn serial(nqn: &str, arrays: &[BootedArray]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let array = arrays.first().map_or([0; 16], |array| array.map.uuid.0);
    let hash = nqn.bytes().chain(array).fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{:020x}", (hash ^ hash >> 48) & ((1 << 80) - 1))
}
