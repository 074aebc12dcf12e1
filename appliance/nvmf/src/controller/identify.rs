//! Identify (Base, section 5.17): what a controller says of itself and its namespaces.

use base::BLOCK;
use nvme::entry::SubmissionEntry;
use nvme::identify::{
    self, ATTRIBUTE_HOST_ID_128, ATTRIBUTE_TRAFFIC_KEEP_ALIVE, CONTROLLER_TYPE_DISCOVERY, CONTROLLER_TYPE_IO,
    FABRICS_DISCONNECT_SUPPORTED, FUSED_COMPARE_AND_WRITE, IDENTIFY_BYTES, IdentifyController, IdentifyControllerNvm,
    IdentifyNamespace, IdentifyNamespaceIndependent, LOG_EFFECTS, LOG_EXTENDED, MULTIPATH_CONTROLLERS, MULTIPATH_PORTS,
    NAMESPACE_ATOMICITY, NAMESPACE_OPTIMAL_IO, OPTIONAL_COMPARE, OPTIONAL_DATASET_MANAGEMENT, OPTIONAL_TIMESTAMP,
    OPTIONAL_WRITE_ZEROES, SGL_ANY_ALIGNMENT, SGL_OFFSETS, SGL_TRANSPORT,
};
use nvme::layout::{null_padded, padded};
use nvme::opcode;
use nvme::register::VERSION_2_0;
use nvme::status::Status;

use super::features::offered_events;
use super::{Controller, Kind, World};
use crate::limits::{
    COMMAND_CAPSULE_16B, ERROR_LOG_ENTRIES, KEEP_ALIVE_GRANULARITY_100MS, MAX_ABORTS, MAX_ASYNC_EVENT_REQUESTS,
    MAX_DATASET_RANGE_BLOCKS, MAX_DATASET_RANGES, MAX_NAMESPACES, MAX_QUEUE_ENTRIES, MAX_TRANSFER_EXPONENT,
    RESPONSE_CAPSULE_16B, WRITE_ZEROES_EXPONENT,
};
use crate::subsystem::{Namespace, Subsystem};

/// CSI of the NVM command set.
const NVM_COMMAND_SET: u8 = 0;
/// NSID of all namespaces.
const ALL_NAMESPACES: u32 = u32::MAX;
/// VWC: no volatile write cache; Flush takes the broadcast identifier (bits 2:1 = 11b).
const NO_CACHE_FLUSH_ALL: u8 = 0b110;
/// SQES and CQES: 64 and 16 bytes, required and largest.
const SUBMISSION_ENTRY_SIZES: u8 = 0x66;
const COMPLETION_ENTRY_SIZES: u8 = 0x44;
/// FRMW: one slot, read-only.
const ONE_FIXED_FIRMWARE_SLOT: u8 = 0b11;
/// DLFEAT: deallocated blocks read as zeros, and Write Zeroes takes the Deallocate bit.
const DEALLOCATED_READS_ZERO: u8 = 1 | 1 << 3;

impl Controller {
    /// The page that Identify asks for, 4096 bytes.
    pub(super) fn identify(&self, world: &World<'_>, entry: &SubmissionEntry) -> Result<Vec<u8>, Status> {
        let selector = entry.cdw10 as u8;
        let controller_id = (entry.cdw10 >> 16) as u16;
        let command_set = (entry.cdw11 >> 24) as u8;
        let nsid = entry.nsid;
        if selector == opcode::CNS_CONTROLLER {
            return Ok(self.identify_controller(world).encode().to_vec());
        }
        // A discovery controller has no namespaces and no command set (Base, section 3.1.2.3).
        let subsystem = match self.kind {
            Kind::Io => self.subsystem(world).ok_or(Status::INVALID_NAMESPACE)?,
            Kind::Discovery => return Err(Status::INVALID_FIELD),
        };
        if matches!(
            selector,
            opcode::CNS_NAMESPACE_OF_COMMAND_SET
                | opcode::CNS_CONTROLLER_OF_COMMAND_SET
                | opcode::CNS_ACTIVE_NAMESPACES_OF_COMMAND_SET
        ) && command_set != NVM_COMMAND_SET
        {
            return Err(Status::INVALID_FIELD);
        }
        let page = match selector {
            opcode::CNS_NAMESPACE | opcode::CNS_ALLOCATED_NAMESPACE => {
                // An identifier that is valid but not active reads as zeros (Base, section 5.17.2.1).
                valid(subsystem, nsid)?.map_or([0; IDENTIFY_BYTES], |namespace| namespace_page(namespace).encode())
            }
            opcode::CNS_ACTIVE_NAMESPACES
            | opcode::CNS_ACTIVE_NAMESPACES_OF_COMMAND_SET
            | opcode::CNS_ALLOCATED_NAMESPACES => {
                // Base, section 5.17.2.2: the two highest identifiers cannot be the start of a list.
                if nsid >= ALL_NAMESPACES - 1 {
                    return Err(Status::INVALID_NAMESPACE);
                }
                identify::namespace_list(subsystem.namespaces.iter().map(|namespace| namespace.nsid), nsid)
            }
            opcode::CNS_NAMESPACE_DESCRIPTORS => {
                let namespace = valid(subsystem, nsid)?.ok_or(Status::INVALID_NAMESPACE)?;
                namespace.identity.descriptors()
            }
            // The NVM command set adds nothing without protection information: LBSTM and the extended formats are zero.
            opcode::CNS_NAMESPACE_OF_COMMAND_SET => valid(subsystem, nsid).map(|_| [0; IDENTIFY_BYTES])?,
            opcode::CNS_CONTROLLER_OF_COMMAND_SET => {
                let limits = IdentifyControllerNvm {
                    write_zeroes_limit: WRITE_ZEROES_EXPONENT,
                    dataset_ranges: MAX_DATASET_RANGES,
                    dataset_range_blocks: MAX_DATASET_RANGE_BLOCKS,
                    dataset_blocks: u64::from(MAX_DATASET_RANGES) * u64::from(MAX_DATASET_RANGE_BLOCKS),
                    ..Default::default()
                };
                limits.encode()
            }
            opcode::CNS_NAMESPACE_INDEPENDENT => valid(subsystem, nsid)?.map_or([0; IDENTIFY_BYTES], |_| {
                IdentifyNamespaceIndependent { shared: 1, status: 1, ..Default::default() }.encode()
            }),
            opcode::CNS_CONTROLLERS_OF_NAMESPACE => {
                valid(subsystem, nsid)?.ok_or(Status::INVALID_NAMESPACE)?;
                identify::controller_list(world.controllers.iter().copied(), controller_id)
            }
            opcode::CNS_CONTROLLERS => identify::controller_list(world.controllers.iter().copied(), controller_id),
            opcode::CNS_COMMAND_SETS if controller_id == u16::MAX || controller_id == self.id => {
                identify::command_sets()
            }
            _ => return Err(Status::INVALID_FIELD),
        };
        Ok(page.to_vec())
    }

    fn identify_controller(&self, world: &World<'_>) -> IdentifyController {
        let common = IdentifyController {
            firmware: padded(world.firmware),
            max_data_transfer: MAX_TRANSFER_EXPONENT,
            controller_id: self.id,
            version: VERSION_2_0,
            async_events: offered_events(self.kind),
            attributes: ATTRIBUTE_HOST_ID_128 | ATTRIBUTE_TRAFFIC_KEEP_ALIVE,
            abort_limit: MAX_ABORTS - 1,
            async_event_limit: MAX_ASYNC_EVENT_REQUESTS as u8 - 1,
            log_page_attributes: LOG_EXTENDED,
            keep_alive_100ms: KEEP_ALIVE_GRANULARITY_100MS,
            max_commands: MAX_QUEUE_ENTRIES,
            sgl_support: SGL_ANY_ALIGNMENT | SGL_OFFSETS | SGL_TRANSPORT,
            subsystem_nqn: null_padded(&self.subsystem_nqn),
            ..IdentifyController::default()
        };
        let Some(subsystem) = self.subsystem(world) else {
            return IdentifyController { controller_type: CONTROLLER_TYPE_DISCOVERY, ..common };
        };
        let blocks: u128 = subsystem.namespaces.iter().map(|namespace| u128::from(namespace.blocks)).sum();
        IdentifyController {
            serial: padded(&subsystem.serial),
            model: padded(&subsystem.model),
            multipath: MULTIPATH_PORTS | MULTIPATH_CONTROLLERS,
            controller_type: CONTROLLER_TYPE_IO,
            firmware_updates: ONE_FIXED_FIRMWARE_SLOT,
            log_page_attributes: LOG_EXTENDED | LOG_EFFECTS,
            error_log_entries: ERROR_LOG_ENTRIES as u8 - 1,
            total_capacity_bytes: blocks * BLOCK as u128,
            submission_entry_size: SUBMISSION_ENTRY_SIZES,
            completion_entry_size: COMPLETION_ENTRY_SIZES,
            namespaces: MAX_NAMESPACES,
            max_namespaces: MAX_NAMESPACES,
            optional_commands: OPTIONAL_COMPARE
                | OPTIONAL_DATASET_MANAGEMENT
                | OPTIONAL_WRITE_ZEROES
                | OPTIONAL_TIMESTAMP,
            fused_operations: FUSED_COMPARE_AND_WRITE,
            volatile_write_cache: NO_CACHE_FLUSH_ALL,
            // What every namespace keeps, whatever its chunks: one block. Namespaces say more for themselves.
            atomic_write: 0,
            atomic_write_power_fail: 0,
            atomic_compare_and_write: 0,
            command_capsule_16b: COMMAND_CAPSULE_16B,
            response_capsule_16b: RESPONSE_CAPSULE_16B,
            capsule_descriptors: 1,
            optional_fabrics_commands: FABRICS_DISCONNECT_SUPPORTED,
            ..common
        }
    }
}

/// The namespace of an identifier, none if it is not active, an error if it cannot be one.
fn valid(subsystem: &Subsystem, nsid: u32) -> Result<Option<&Namespace>, Status> {
    if nsid == 0 || nsid > MAX_NAMESPACES { Err(Status::INVALID_NAMESPACE) } else { Ok(subsystem.namespace(nsid)) }
}

fn namespace_page(namespace: &Namespace) -> IdentifyNamespace {
    // All lengths are told in logical blocks.
    let scale = namespace.logical.per_block();
    let zero_based = |blocks: u32| u16::try_from((blocks * scale).saturating_sub(1)).unwrap_or(u16::MAX);
    IdentifyNamespace {
        size_blocks: namespace.logical_blocks(),
        capacity_blocks: namespace.logical_blocks(),
        used_blocks: namespace.logical_blocks(),
        features: NAMESPACE_ATOMICITY | NAMESPACE_OPTIMAL_IO,
        shared: 1,
        deallocate_features: DEALLOCATED_READS_ZERO,
        atomic_write: zero_based(namespace.atomic_blocks),
        atomic_write_power_fail: zero_based(namespace.power_fail_blocks),
        atomic_compare_and_write: zero_based(namespace.atomic_blocks),
        // A unit of one block has no boundary within, and 0 says that there is none (NVM, figure 97).
        atomic_boundary: zero_based(namespace.atomic_blocks),
        atomic_boundary_offset: 0,
        atomic_boundary_power_fail: zero_based(namespace.power_fail_blocks),
        optimal_boundary_blocks: u16::try_from(namespace.chunk_blocks * scale).unwrap_or(0),
        capacity_bytes: u128::from(namespace.blocks) * BLOCK as u128,
        write_granularity: zero_based(namespace.chunk_blocks),
        write_alignment: zero_based(namespace.chunk_blocks),
        deallocate_granularity: zero_based(namespace.chunk_blocks),
        deallocate_alignment: zero_based(namespace.chunk_blocks),
        optimal_write: zero_based(namespace.stripe_blocks),
        nguid: namespace.identity.nguid,
        eui64: namespace.identity.eui64,
        format_0: namespace.logical.bytes().trailing_zeros() << 16,
        ..IdentifyNamespace::default()
    }
}

#[cfg(test)]
mod tests {
    use base::sector::LogicalBlock;

    use super::*;
    use crate::subsystem::tests::namespace;

    #[test]
    fn a_namespace_of_sectors_tells_all_lengths_in_them() {
        let page = namespace_page(&Namespace { logical: LogicalBlock::Sector, ..namespace(1) });
        assert_eq!((page.size_blocks, page.capacity_blocks, page.format_0), (8000, 8000, 9 << 16));
        assert_eq!(page.capacity_bytes, 1000 * 4096);
        assert_eq!((page.atomic_write_power_fail, page.atomic_boundary_power_fail), (127, 127));
        assert_eq!((page.optimal_boundary_blocks, page.write_granularity, page.optimal_write), (128, 127, 383));
    }
}
