//! Controller properties (Base, section 3.1.3): offsets and the meaning of their bits. The state machine behind them is
//! the controller's.

/// Controller Capabilities, eight bytes.
pub const CAP: u32 = 0x00;
/// Version.
pub const VS: u32 = 0x08;
/// Controller Configuration.
pub const CC: u32 = 0x14;
/// Controller Status.
pub const CSTS: u32 = 0x1c;
/// NVM Subsystem Reset.
pub const NSSR: u32 = 0x20;
/// Controller Ready Timeouts.
pub const CRTO: u32 = 0x68;

/// NVMe 2.0.0 as VS and as VER in Identify Controller.
pub const VERSION_2_0: u32 = 0x0002_0000;

/// Controller Capabilities (Base, figure 36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Capabilities of a controller over Fabrics: contiguous queues, the NVM command set, 4 KiB pages.
    /// `max_queue_entries` counts entries (MQES is zero-based), `timeout_500ms` is CAP.TO.
    pub const fn fabrics(max_queue_entries: u16, timeout_500ms: u8) -> Self {
        // CQR is 1 over Fabrics; CSS bit 37 is the NVM command set; DSTRD and MPS are 0. CRMS bit 59, ready with media,
        // is mandatory from version 2.0 on; it makes hosts read CRTO.
        Self((max_queue_entries as u64 - 1) | 1 << 16 | (timeout_500ms as u64) << 24 | 1 << 37 | 1 << 59)
    }

    /// Most entries of a queue (MQES + 1).
    pub const fn max_queue_entries(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// Longest time to become ready, in units of 500 ms (TO).
    pub const fn timeout_500ms(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Doorbell stride in bytes (4 << DSTRD).
    pub const fn doorbell_stride_bytes(self) -> u32 {
        4 << ((self.0 >> 32) & 0xf)
    }

    /// Whether subsystem reset is supported (NSSRS).
    pub const fn has_subsystem_reset(self) -> bool {
        self.0 >> 36 & 1 != 0
    }

    /// Controller ready modes (CRMS): bit 0 with media, bit 1 independent of media.
    pub const fn ready_modes(self) -> u8 {
        (self.0 >> 59) as u8 & 0b11
    }
}

/// Controller Configuration (Base, figure 46).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Configuration(pub u32);

impl Configuration {
    /// What a host sets to enable: EN, NVM command set, 4 KiB pages, 64-byte and 16-byte entries.
    pub const ENABLE: Self = Self(1 | 6 << 16 | 4 << 20);

    /// EN.
    pub const fn is_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// CSS: the command set selected.
    pub const fn command_set(self) -> u8 {
        (self.0 >> 4) as u8 & 0b111
    }

    /// MPS: the memory page is 2^(12 + MPS) bytes.
    pub const fn page_size(self) -> u8 {
        (self.0 >> 7) as u8 & 0xf
    }

    /// AMS: arbitration.
    pub const fn arbitration(self) -> u8 {
        (self.0 >> 11) as u8 & 0b111
    }

    /// SHN: 0 none, 1 normal, 2 abrupt shutdown.
    pub const fn shutdown(self) -> u8 {
        (self.0 >> 14) as u8 & 0b11
    }

    /// This configuration with a shutdown notification.
    #[must_use]
    pub const fn with_shutdown(self, shutdown: u8) -> Self {
        Self(self.0 & !(0b11 << 14) | (shutdown as u32 & 0b11) << 14)
    }

    /// IOSQES: submission entries have 2^n bytes.
    pub const fn submission_entry_size(self) -> u8 {
        (self.0 >> 16) as u8 & 0xf
    }

    /// IOCQES: completion entries have 2^n bytes.
    pub const fn completion_entry_size(self) -> u8 {
        (self.0 >> 20) as u8 & 0xf
    }
}

/// Controller Status (Base, figure 47).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ControllerStatus(pub u32);

impl ControllerStatus {
    /// RDY.
    pub const READY: u32 = 1;
    /// CFS: a fatal error.
    pub const FATAL: u32 = 1 << 1;
    /// SHST: no shutdown.
    pub const SHUTDOWN_NONE: u32 = 0;
    /// SHST: shutdown going on.
    pub const SHUTDOWN_BUSY: u32 = 0b01 << 2;
    /// SHST: shutdown complete.
    pub const SHUTDOWN_DONE: u32 = 0b10 << 2;

    /// Whether RDY is set.
    pub const fn is_ready(self) -> bool {
        self.0 & Self::READY != 0
    }

    /// Whether CFS is set.
    pub const fn is_fatal(self) -> bool {
        self.0 & Self::FATAL != 0
    }

    /// Whether shutdown is complete.
    pub const fn is_shut_down(self) -> bool {
        self.0 & 0b1100 == Self::SHUTDOWN_DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_keep_their_fields_apart() {
        let capabilities = Capabilities::fabrics(128, 30);
        assert_eq!(capabilities.0, 0x0800_0020_1e01_007f);
        assert_eq!(capabilities.max_queue_entries(), 128);
        assert_eq!(capabilities.timeout_500ms(), 30);
        assert_eq!(capabilities.doorbell_stride_bytes(), 4);
        assert!(!capabilities.has_subsystem_reset());
        assert_eq!(capabilities.ready_modes(), 1);
    }

    #[test]
    fn configuration_and_status_read_their_bits() {
        let configuration = Configuration::ENABLE.with_shutdown(1);
        assert_eq!(configuration.0, 0x0046_4001);
        assert!(configuration.is_enabled());
        assert_eq!((configuration.shutdown(), configuration.command_set(), configuration.page_size()), (1, 0, 0));
        assert_eq!((configuration.submission_entry_size(), configuration.completion_entry_size()), (6, 4));
        assert_eq!(configuration.arbitration(), 0);
        let status = ControllerStatus(ControllerStatus::READY | ControllerStatus::SHUTDOWN_DONE);
        assert!(status.is_ready() && status.is_shut_down() && !status.is_fatal());
        assert!(!ControllerStatus(ControllerStatus::SHUTDOWN_BUSY).is_shut_down());
        assert_eq!(ControllerStatus(0).0, ControllerStatus::SHUTDOWN_NONE);
    }
}
