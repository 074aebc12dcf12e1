//! The devices of a run.

use super::Scenario;
use crate::rack::DeviceOptions;

impl Scenario {
    /// All devices: the members, the log copies, the spare ones of both.
    pub fn devices(&self) -> Vec<DeviceOptions> {
        let queue_depth = self.queue_depth;
        let member = DeviceOptions {
            blocks: self.member_blocks(),
            volatile_cache: self.member_cache,
            queue_depth,
            slow_once_in: self.slow_members_once_in,
            used: !self.members_are_zero,
            hiccup_once_in: self.hiccups_once_in,
            rots_once_in: 0,
            whole_blocks: self.is_bare() || self.exposure.is_some(),
            holds_log: false,
        };
        let log = DeviceOptions {
            blocks: self.log_blocks(),
            volatile_cache: self.log_cache,
            queue_depth,
            slow_once_in: self.slow_log_once_in,
            used: !self.members_are_zero,
            hiccup_once_in: self.hiccups_once_in,
            rots_once_in: 0,
            whole_blocks: false,
            holds_log: true,
        };
        let members = self.member_devices().map(|_| member);
        let spares = self.spare_devices().map(|_| DeviceOptions { used: true, ..member });
        let blocks = log.blocks + self.larger_log_spares;
        let log_spares = self.log_spare_devices().map(|_| DeviceOptions { used: true, blocks, ..log });
        let logs = self.log_devices().map(|device| DeviceOptions { rots_once_in: self.rots_once_in(device), ..log });
        members.chain(logs).chain(spares).chain(log_spares).collect()
    }
}
