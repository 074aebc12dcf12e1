//! What of the status does not change while serving, gathered once: what each device is for, and listeners.

use std::net::SocketAddr;
use std::time::Instant;

use base::ids::DeviceId;
use config::schema::Config;
use engine::boot::{BootedArray, RecoveryReport};

use super::arrays::names_in;
use super::devices::{Described, Devices, describe};
use super::report::Fixed;
use crate::status::ListenerStatus;

/// A device and what it is for.
pub(super) struct Placed {
    pub(super) described: Described,
    /// Its number: its place in the configuration.
    pub(super) id: DeviceId,
    /// The array that names it, by its place in the configuration.
    pub(super) array: Option<usize>,
    /// What the configuration has it for, for people.
    pub(super) role: String,
    /// Its place in the array, if it took part at the start.
    pub(super) place: Option<Place>,
}

/// A place in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Member(u8),
    Copy(u8),
}

/// Gathers it.
pub(super) fn fixed(
    config: &Config,
    started: Instant,
    devices: &Devices,
    booted: &[BootedArray],
    addresses: &[SocketAddr],
) -> Fixed {
    let listeners = config.listeners.iter().zip(addresses).map(|(listener, address)| ListenerStatus {
        name: listener.name.to_string(),
        protocol: "nvme-tcp".to_owned(),
        address: address.to_string(),
    });
    Fixed {
        name: config.name.to_string(),
        started,
        devices: (0..)
            .map(DeviceId)
            .zip(&config.devices)
            .map(|(id, device)| placed(id, device, config, booted))
            .collect(),
        maps: booted.iter().map(|array| array.map.clone()).collect(),
        recovered: booted.iter().map(|array| recovered(array, devices)).collect(),
        modes: config.arrays.iter().map(|array| array.log.as_ref().and_then(|log| log.mode)).collect(),
        configured: config
            .arrays
            .iter()
            .flat_map(|array| array.volumes.iter().map(|volume| format!("{}/{}", array.name, volume.name)))
            .collect(),
        listeners: listeners.collect(),
    }
}

/// What was found and done at the start, with the devices' names.
fn recovered(array: &BootedArray, devices: &Devices) -> RecoveryReport {
    let notes = array.report.notes.iter().map(|note| names_in(note, devices)).collect();
    RecoveryReport { notes, ..array.report.clone() }
}

fn placed(id: DeviceId, device: &config::Device, config: &Config, booted: &[BootedArray]) -> Placed {
    let described = describe(device);
    let name = device.name();
    let is_copy = |array: &config::Array| array.log.as_ref().is_some_and(|log| log.devices.contains(name));
    let is_spare = |array: &config::Array| array.spares.contains(name);
    let is_of = |array: &config::Array| array.members.contains(name) || is_copy(array) || is_spare(array);
    let array = config.arrays.iter().position(is_of);
    let place = array.and_then(|array| place(id, &booted[array]));
    let role = array.map_or_else(String::new, |at| {
        let array = &config.arrays[at];
        let kind = match array {
            array if is_copy(array) => "log",
            array if is_spare(array) => "spare",
            _ => "member",
        };
        format!("{} {kind}", array.name)
    });
    Placed { described, id, array, role, place }
}

/// The place of a device in the array as it was assembled.
fn place(id: DeviceId, array: &BootedArray) -> Option<Place> {
    let is_member = |member: &Option<engine::map::Member>| member.is_some_and(|member| member.device == id);
    let slot = array.map.members.iter().position(is_member);
    let copy = array.map.copies.iter().position(|copy| *copy == Some(id));
    slot.map(|slot| Place::Member(slot as u8)).or(copy.map(|copy| Place::Copy(copy as u8)))
}
