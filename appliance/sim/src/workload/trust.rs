//! What an acknowledgement says of the members, where the mode changes while hosts work: only from the moment on at which
//! write-through is known to hold do acknowledgements of later writes say that the members have them. What was acknowledged
//! otherwise may be on the members or not.

use super::Workload;
use crate::log_keeper::Trust;
use crate::oracle::{Moment, Oracle};
use crate::stamp::Version;
use base::ids::Lba;

impl Workload {
    /// The mode will change: what was acknowledged from the members is remembered from the beginning.
    pub fn expect_modes(&mut self) {
        self.told.get_or_insert_with(Oracle::default);
    }

    /// What is known of acknowledgements from now on.
    pub fn rely(&mut self, trust: Trust) {
        if trust == Trust::Members {
            self.trusted_since = Some(self.oracle.moment());
        }
    }

    /// Acknowledgements say nothing of the members from now on.
    pub fn rely_on_nothing(&mut self) {
        self.trusted_since = None;
    }

    /// A write that began at a moment was acknowledged.
    pub(super) fn tell(&mut self, began: Moment, lba: Lba, blocks: u32, version: Version) {
        let Some(told) = &mut self.told else { return };
        if self.trusted_since.is_some_and(|since| began >= since) {
            told.acknowledge(lba, blocks, version);
        } else {
            told.refuse(lba, blocks, version);
        }
    }
}
