//! What is put to the test: shards that start from devices, take requests and turn. Production's shards are the subject of
//! every run of the `sim` binary; the simulator's own tests bring a tiny store with known mistakes, to see that each is found.

use std::sync::Arc;

use base::ids::DeviceId;
use base::uuid::Uuid;
use engine::command::{Answer, Command};
use engine::fence::Association;
use engine::io::{IoDone, IoRequest};
use engine::map::VolumeTables;
use ports::Turn;

use crate::boot_device::BootDevice;
use crate::failure::Failure;
use crate::operator::{Health, Order};
use crate::oracle::Oracle;
use crate::ports::SimPorts;
use crate::rack::Rack;
use crate::random::Random;
use crate::scenario::Scenario;

/// A shard of the appliance under test, and how the appliance is made and started.
pub trait Subject: Sized {
    /// What its shards say to each other.
    type Message;

    /// Messages that the mesh must hold between two shards.
    const MESH_CAPACITY: usize;

    /// Makes the array of a scenario on devices of zeros.
    ///
    /// # Errors
    /// In words, when it cannot.
    fn create(scenario: &Scenario, devices: &mut [Option<BootDevice>], random: &mut Random) -> Result<(), String>;

    /// Starts from what is on the devices; those that are lost are absent or answer nothing.
    ///
    /// # Errors
    /// In words, when it cannot.
    fn boot(scenario: &Scenario, devices: &mut [Option<BootDevice>], random: &mut Random) -> Result<Vec<Self>, String>;

    /// Takes a request, or gives it back if there is no room now.
    ///
    /// # Errors
    /// The request.
    fn begin(&mut self, ports: &mut SimPorts<Self::Message>, request: IoRequest) -> Result<(), IoRequest>;

    /// A request, which may have begun at another shard, is to be aborted if it can be.
    fn abort(&mut self, _: &mut SimPorts<Self::Message>, token: u64) {
        unreachable!("nobody wants {token} aborted")
    }

    /// Does a bounded amount of work.
    fn turn(&mut self, ports: &mut SimPorts<Self::Message>) -> Turn;

    /// Takes a request that has ended.
    fn done(&mut self) -> Option<IoDone>;

    /// What volumes there are; none where they never change.
    fn tables(_: &[Self]) -> Option<Arc<VolumeTables>> {
        None
    }

    /// A command of an operator as a message; only where volumes change.
    fn command(_: Command) -> Option<Self::Message> {
        None
    }

    /// The answer to a command that the control side was sent, if it is one.
    fn answer(_: Self::Message) -> Option<Answer> {
        None
    }

    /// Asks all shards to stop cleanly.
    fn stop(shards: &mut [Self], ports: &mut SimPorts<Self::Message>);

    /// How the array is; none where nobody looks after its drives.
    fn health(_: &[Self]) -> Option<Health> {
        None
    }

    /// Asks for something to be done about drives.
    fn ask(_: &mut SimPorts<Self::Message>, _: &Scenario, _: u64, order: Order, _: Uuid) {
        unreachable!("nobody looks after the drives: {order:?}")
    }

    /// Whether this says that a member is whole again, or one more.
    fn tells_of_rebuild(_: &Self::Message) -> bool {
        false
    }

    /// Tells every shard that a host's association has ended: this is its next epoch.
    fn raise(ports: &mut SimPorts<Self::Message>, shards: u16, association: Association);

    /// Whether a message to the control side confirms that.
    fn raised(message: &Self::Message) -> Option<Association>;

    /// Looks at the devices after a clean stop: whatever must hold between their contents.
    ///
    /// # Errors
    /// What does not hold.
    fn audit(scenario: &Scenario, rack: &Rack) -> Result<(), Failure>;

    /// Looks at them once more after all was read from them: whatever reading must have repaired.
    ///
    /// # Errors
    /// What does not hold.
    fn audit_read(scenario: &Scenario, rack: &Rack) -> Result<(), Failure>;

    /// The devices of the members, if the array is whole by what is on them; else none.
    ///
    /// # Errors
    /// A member that is not in order.
    fn whole_members(_: &Scenario, _: &Rack) -> Result<Vec<DeviceId>, Failure> {
        Ok(Vec::new())
    }

    /// The devices of the log copies in force, by what is on the devices.
    ///
    /// # Errors
    /// A member that is not in order.
    fn log_copies(_: &Scenario, _: &Rack) -> Result<Vec<DeviceId>, Failure> {
        Ok(Vec::new())
    }

    /// Looks at the devices after a power cut: whatever must hold although the log were lost too. `told` knows which writes
    /// were acknowledged and nothing of reads.
    ///
    /// # Errors
    /// What does not hold.
    fn audit_without_log(scenario: &Scenario, rack: &Rack, told: &Oracle) -> Result<(), Failure>;
}

/// An identifier from the seed.
pub fn draw_uuid(random: &mut Random) -> Uuid {
    Uuid::from_random([random.bits(), random.bits()])
}
