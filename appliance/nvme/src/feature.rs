//! Features (Base, section 5.27) and asynchronous events (Base, section 5.2): identifiers and the packing of their values.

/// Arbitration.
pub const ARBITRATION: u8 = 0x01;
/// Power Management.
pub const POWER_MANAGEMENT: u8 = 0x02;
/// Temperature Threshold.
pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
/// Error Recovery (NVM command set).
pub const ERROR_RECOVERY: u8 = 0x05;
/// Volatile Write Cache.
pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
/// Number of Queues.
pub const NUMBER_OF_QUEUES: u8 = 0x07;
/// Write Atomicity Normal (NVM command set).
pub const WRITE_ATOMICITY: u8 = 0x0a;
/// Asynchronous Event Configuration.
pub const ASYNC_EVENT_CONFIGURATION: u8 = 0x0b;
/// Timestamp.
pub const TIMESTAMP: u8 = 0x0e;
/// Keep Alive Timer.
pub const KEEP_ALIVE_TIMER: u8 = 0x0f;
/// Host Behavior Support.
pub const HOST_BEHAVIOR: u8 = 0x16;
/// Host Identifier.
pub const HOST_IDENTIFIER: u8 = 0x81;

/// SEL of Get Features: the current value (Base, figure 192).
pub const SELECT_CURRENT: u8 = 0;
/// The default value.
pub const SELECT_DEFAULT: u8 = 1;
/// The saved value.
pub const SELECT_SAVED: u8 = 2;
/// What is supported of the feature.
pub const SELECT_SUPPORTED: u8 = 3;

/// Asynchronous Event Configuration and OAES: namespace attributes changed (Base, figure 275, bit 8).
pub const EVENT_NAMESPACE_CHANGED: u32 = 1 << 8;
/// Firmware activation starts.
pub const EVENT_FIRMWARE_ACTIVATION: u32 = 1 << 9;
/// Asymmetric namespace access changed.
pub const EVENT_ANA_CHANGED: u32 = 1 << 11;
/// The discovery log page changed.
pub const EVENT_DISCOVERY_CHANGED: u32 = 1 << 31;

/// Type of an asynchronous event: error.
pub const EVENT_TYPE_ERROR: u8 = 0;
/// SMART or health.
pub const EVENT_TYPE_HEALTH: u8 = 1;
/// Notice.
pub const EVENT_TYPE_NOTICE: u8 = 2;

/// Information of a notice: namespace attributes changed (Base, figure 150).
pub const NOTICE_NAMESPACE_CHANGED: u8 = 0x00;
/// Asymmetric namespace access changed.
pub const NOTICE_ANA_CHANGED: u8 = 0x03;
/// The discovery log page changed.
pub const NOTICE_DISCOVERY_CHANGED: u8 = 0xf0;

/// What an asynchronous event reports in dword 0 of its completion (Base, figure 146).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// Its type.
    pub kind: u8,
    /// What happened.
    pub information: u8,
    /// The log page that tells more and, when read, clears the event.
    pub log_page: u8,
}

impl AsyncEvent {
    /// As dword 0.
    pub const fn to_dword(self) -> u32 {
        (self.kind as u32 & 0b111) | (self.information as u32) << 8 | (self.log_page as u32) << 16
    }

    /// From dword 0.
    pub const fn from_dword(dword: u32) -> Self {
        Self { kind: dword as u8 & 0b111, information: (dword >> 8) as u8, log_page: (dword >> 16) as u8 }
    }
}

/// Number of Queues as dword 11 of the command and dword 0 of its completion, zero-based each (Base, section 5.27.1.5).
pub const fn queue_counts(submission: u16, completion: u16) -> u32 {
    (submission.saturating_sub(1) as u32) | (completion.saturating_sub(1) as u32) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_packs_into_dword_0() {
        let event = AsyncEvent { kind: EVENT_TYPE_NOTICE, information: NOTICE_DISCOVERY_CHANGED, log_page: 0x70 };
        assert_eq!(event.to_dword(), 0x0070_f002);
        assert_eq!(AsyncEvent::from_dword(0x0070_f002), event);
    }

    #[test]
    fn queue_counts_are_zero_based() {
        assert_eq!(queue_counts(2, 4), 0x0003_0001);
        assert_eq!(queue_counts(1, 1), 0);
    }
}
