//! Features (Base, section 5.27): values that hosts set and read back. None is saved; all return to their defaults at a
//! controller reset.

use base::time::Time;
use nvme::entry::SubmissionEntry;
use nvme::feature::{self, EVENT_DISCOVERY_CHANGED, EVENT_NAMESPACE_CHANGED, queue_counts};
use nvme::status::Status;

use super::{Controller, Kind, granted_keep_alive_ms};
use crate::limits::MAX_IO_QUEUES;

/// Bytes of the Host Behavior Support feature.
const HOST_BEHAVIOR_BYTES: usize = 512;
/// Bytes of the Timestamp feature.
const TIMESTAMP_BYTES: usize = 8;
/// Over temperature threshold by default (Base, section 5.27.1.3): none is reached.
const NO_OVER_TEMPERATURE: u16 = 0xffff;

/// The values.
#[derive(Debug)]
pub(super) struct Features {
    arbitration: u32,
    over_temperature_k: u16,
    under_temperature_k: u16,
    error_recovery: u32,
    write_atomicity: u32,
    queues: u16,
    async_events: u32,
    /// Milliseconds as the host set them, when it did, and whether it ever did.
    timestamp_ms: u64,
    timestamp_set_at: Time,
    timestamp_by_host: bool,
    host_behavior: [u8; 3],
}

impl Features {
    /// The defaults.
    pub(super) const fn new(now: Time) -> Self {
        Self {
            arbitration: 0,
            over_temperature_k: NO_OVER_TEMPERATURE,
            under_temperature_k: 0,
            error_recovery: 0,
            write_atomicity: 0,
            queues: MAX_IO_QUEUES,
            async_events: 0,
            timestamp_ms: 0,
            timestamp_set_at: now,
            timestamp_by_host: false,
            host_behavior: [0; 3],
        }
    }

    /// I/O queues that may be attached.
    pub(super) const fn queues(&self) -> u16 {
        self.queues
    }

    /// Asynchronous Event Configuration.
    pub(super) const fn async_events(&self) -> u32 {
        self.async_events
    }
}

/// Whether Set Features brings data for a feature.
pub(super) fn takes_data(id: u8) -> bool {
    matches!(id, feature::TIMESTAMP | feature::HOST_BEHAVIOR)
}

/// Events that a controller can tell of (OAES).
pub(super) const fn offered_events(kind: Kind) -> u32 {
    match kind {
        Kind::Io => EVENT_NAMESPACE_CHANGED,
        Kind::Discovery => EVENT_DISCOVERY_CHANGED,
    }
}

impl Controller {
    /// Get Features (Base, section 5.15): the value, and data for features that have it.
    pub(super) fn get_feature(&self, now: Time, entry: &SubmissionEntry) -> Result<(u32, Vec<u8>), Status> {
        let id = entry.cdw10 as u8;
        let select = (entry.cdw10 >> 8) as u8 & 0b111;
        let defaults = Features::new(now);
        let features = match select {
            feature::SELECT_CURRENT => &self.features,
            // Nothing is saved: the saved value is the default (Base, section 5.15).
            feature::SELECT_DEFAULT | feature::SELECT_SAVED => &defaults,
            feature::SELECT_SUPPORTED => &self.features,
            _ => return Err(Status::INVALID_FIELD),
        };
        let value = match id {
            feature::ARBITRATION => features.arbitration,
            feature::POWER_MANAGEMENT => 0,
            feature::TEMPERATURE_THRESHOLD => {
                u32::from(match temperature_selector(entry.cdw11)? {
                    // TMPSEL 1111b asks for all sensors, which is for Set Features alone.
                    (0xf, _) => return Err(Status::INVALID_FIELD),
                    (_, false) => features.over_temperature_k,
                    (_, true) => features.under_temperature_k,
                })
            }
            feature::ERROR_RECOVERY => features.error_recovery,
            feature::WRITE_ATOMICITY => features.write_atomicity,
            feature::NUMBER_OF_QUEUES => queue_counts(features.queues, features.queues),
            feature::ASYNC_EVENT_CONFIGURATION => features.async_events,
            feature::KEEP_ALIVE_TIMER => self.keep_alive_ms,
            feature::TIMESTAMP | feature::HOST_BEHAVIOR | feature::HOST_IDENTIFIER => 0,
            // A volatile write cache is not there, so its feature is not either (Base, section 5.27.1.4).
            _ => return Err(Status::INVALID_FIELD),
        };
        if select == feature::SELECT_SUPPORTED {
            // Bit 2: changeable (Base, figure 193). Error recovery is per namespace in name only: one value serves all.
            let changeable = !matches!(id, feature::HOST_IDENTIFIER | feature::POWER_MANAGEMENT);
            return Ok((u32::from(changeable) << 2, Vec::new()));
        }
        let data = match id {
            feature::TIMESTAMP => {
                let elapsed_ms = now.since(features.timestamp_set_at).0 / 1_000_000;
                // Base, figure 321: 48 bits of milliseconds; bits 3:1 of byte 6 tell the origin, 001b is the host.
                let ms = (features.timestamp_ms + elapsed_ms) & 0xffff_ffff_ffff;
                (ms | u64::from(features.timestamp_by_host) << 49).to_le_bytes().to_vec()
            }
            feature::HOST_BEHAVIOR => {
                let mut data = vec![0; HOST_BEHAVIOR_BYTES];
                data[..3].copy_from_slice(&features.host_behavior);
                data
            }
            feature::HOST_IDENTIFIER => {
                // Base, section 5.27.1.25: over Fabrics the identifier has 128 bits (EXHID).
                if entry.cdw11 & 1 == 0 {
                    return Err(Status::INVALID_FIELD);
                }
                self.host.id.to_vec()
            }
            _ => Vec::new(),
        };
        Ok((value, data))
    }

    /// Set Features (Base, section 5.27): the result of its completion.
    pub(super) fn set_feature(&mut self, now: Time, entry: &SubmissionEntry, data: &[u8]) -> Result<u64, Status> {
        let id = entry.cdw10 as u8;
        let value = entry.cdw11;
        if entry.cdw10 >> 31 != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE);
        }
        let offered = offered_events(self.kind);
        let features = &mut self.features;
        match id {
            feature::ARBITRATION => features.arbitration = value,
            feature::POWER_MANAGEMENT if value & 0x1f == 0 => {}
            feature::TEMPERATURE_THRESHOLD => {
                let under = temperature_selector(value)?.1;
                let place = if under { &mut features.under_temperature_k } else { &mut features.over_temperature_k };
                *place = value as u16;
            }
            // Bit 16, errors for deallocated blocks, is not offered (NSFEAT bit 2).
            feature::ERROR_RECOVERY if value >> 16 == 0 => features.error_recovery = value,
            feature::WRITE_ATOMICITY => features.write_atomicity = value & 1,
            feature::NUMBER_OF_QUEUES => {
                let (submission, completion) = (value as u16, (value >> 16) as u16);
                if submission == u16::MAX || completion == u16::MAX {
                    return Err(Status::INVALID_FIELD);
                }
                // Base, section 5.27.1.5: only before I/O queues exist.
                if self.queues != 0 {
                    return Err(Status::SEQUENCE_ERROR);
                }
                features.queues = MAX_IO_QUEUES.min(submission.min(completion) + 1);
                return Ok(u64::from(queue_counts(features.queues, features.queues)));
            }
            feature::ASYNC_EVENT_CONFIGURATION => features.async_events = value & (0xff | offered),
            feature::KEEP_ALIVE_TIMER => self.keep_alive_ms = granted_keep_alive_ms(value),
            feature::TIMESTAMP => {
                let bytes: [u8; TIMESTAMP_BYTES] = data.try_into().map_err(|_| Status::DATA_SGL_LENGTH_INVALID)?;
                features.timestamp_ms = u64::from_le_bytes(bytes) & 0xffff_ffff_ffff;
                features.timestamp_set_at = now;
                features.timestamp_by_host = true;
            }
            feature::HOST_BEHAVIOR => {
                if data.len() != HOST_BEHAVIOR_BYTES {
                    return Err(Status::DATA_SGL_LENGTH_INVALID);
                }
                let behavior = [data[0], data[1], data[2]];
                if behavior.iter().any(|&byte| byte > 1) {
                    return Err(Status::INVALID_FIELD);
                }
                features.host_behavior = behavior;
            }
            // Over Fabrics the identifier comes with Connect (Base, section 5.27.1.25).
            feature::HOST_IDENTIFIER => return Err(Status::SEQUENCE_ERROR),
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(0)
    }
}

/// TMPSEL and whether THSEL asks for the under threshold. There is one temperature, the composite one.
fn temperature_selector(dword: u32) -> Result<(u8, bool), Status> {
    let sensor = (dword >> 16) as u8 & 0xf;
    match ((dword >> 20) & 0b11, sensor) {
        (kind @ 0..=1, 0 | 0xf) => Ok((sensor, kind == 1)),
        _ => Err(Status::INVALID_FIELD),
    }
}
