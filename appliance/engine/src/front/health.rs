//! What a subsystem's SMART log says: health from before this start, what all shards have counted since, and the state of the
//! arrays behind its volumes.

use base::metrics::VolumeOp;
use nvme::log_page::{SmartLog, WARNING_READ_ONLY, WARNING_RELIABILITY, data_units};

use super::hub::Hub;

impl Hub {
    /// Health of a subsystem: what was given, what all shards counted for its volumes, and the state of their arrays.
    pub(super) fn smart(&self, subsystem: Option<usize>) -> SmartLog {
        let mut smart = self.health;
        let Some(subsystem) = subsystem.map(|index| &self.exports.subsystems()[index]) else { return smart };
        let names = self.metrics.names();
        let (mut read, mut written) = (0u128, 0u128);
        for namespace in &subsystem.namespaces {
            let place = namespace.volume.index();
            let volume = self.metrics.volumes().find(|(at, _)| *at == place).map(|(_, volume)| volume);
            let array = volume.and_then(|volume| names.arrays.iter().position(|a| *a == volume.array));
            for shard in self.metrics.shards() {
                if let Some(volume) = shard.volumes.get(place) {
                    let of = |op: VolumeOp| &volume.ops[op as usize];
                    smart.reads += u128::from(of(VolumeOp::Read).requests.get());
                    smart.writes += u128::from(of(VolumeOp::Write).requests.get());
                    smart.media_errors += u128::from(of(VolumeOp::Read).errors.get());
                    read += u128::from(of(VolumeOp::Read).bytes.get());
                    written += u128::from(of(VolumeOp::Write).bytes.get());
                }
                if let Some(array) = array.and_then(|array| shard.arrays.get(array)) {
                    let at_risk = array.degraded.get() > 0 || array.exposed.get() > 0;
                    smart.critical_warning |= if at_risk { WARNING_RELIABILITY } else { 0 };
                    smart.critical_warning |= if array.read_only.get() > 0 { WARNING_READ_ONLY } else { 0 };
                }
            }
        }
        smart.units_read += data_units(read);
        smart.units_written += data_units(written);
        smart
    }
}
