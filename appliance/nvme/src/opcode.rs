//! Opcodes and the selectors of Identify, as the numbers of the specifications. A list of names: it decides nothing.

/// Delete I/O Submission Queue: not for Fabrics.
pub const DELETE_SUBMISSION_QUEUE: u8 = 0x00;
/// Create I/O Submission Queue: not for Fabrics.
pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
/// Get Log Page (Base, section 5.16).
pub const GET_LOG_PAGE: u8 = 0x02;
/// Delete I/O Completion Queue: not for Fabrics.
pub const DELETE_COMPLETION_QUEUE: u8 = 0x04;
/// Create I/O Completion Queue: not for Fabrics.
pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
/// Identify (Base, section 5.17).
pub const IDENTIFY: u8 = 0x06;
/// Abort (Base, section 5.1).
pub const ABORT: u8 = 0x08;
/// Set Features (Base, section 5.27).
pub const SET_FEATURES: u8 = 0x09;
/// Get Features (Base, section 5.15).
pub const GET_FEATURES: u8 = 0x0a;
/// Asynchronous Event Request (Base, section 5.2).
pub const ASYNC_EVENT_REQUEST: u8 = 0x0c;
/// Keep Alive (Base, section 5.18).
pub const KEEP_ALIVE: u8 = 0x18;
/// Fabrics commands (Base, section 6).
pub const FABRICS: u8 = 0x7f;

/// Flush (Base, section 7.1).
pub const FLUSH: u8 = 0x00;
/// Write (NVM, section 3.2.6).
pub const WRITE: u8 = 0x01;
/// Read (NVM, section 3.2.4).
pub const READ: u8 = 0x02;
/// Write Uncorrectable (NVM, section 3.2.7).
pub const WRITE_UNCORRECTABLE: u8 = 0x04;
/// Compare (NVM, section 3.2.1).
pub const COMPARE: u8 = 0x05;
/// Write Zeroes (NVM, section 3.2.8).
pub const WRITE_ZEROES: u8 = 0x08;
/// Dataset Management (NVM, section 3.2.3).
pub const DATASET_MANAGEMENT: u8 = 0x09;
/// Verify (NVM, section 3.2.5).
pub const VERIFY: u8 = 0x0c;

/// Fabrics types (Base, figure 529): Property Set.
pub const FABRICS_PROPERTY_SET: u8 = 0x00;
/// Connect.
pub const FABRICS_CONNECT: u8 = 0x01;
/// Property Get.
pub const FABRICS_PROPERTY_GET: u8 = 0x04;
/// Authentication Send.
pub const FABRICS_AUTHENTICATION_SEND: u8 = 0x05;
/// Authentication Receive.
pub const FABRICS_AUTHENTICATION_RECEIVE: u8 = 0x06;
/// Disconnect.
pub const FABRICS_DISCONNECT: u8 = 0x08;

/// Data transfer direction in the low two bits of every opcode (Base, figure 87): none.
pub const TRANSFER_NONE: u8 = 0b00;
/// Host to controller.
pub const TRANSFER_TO_CONTROLLER: u8 = 0b01;
/// Controller to host.
pub const TRANSFER_TO_HOST: u8 = 0b10;
/// Both ways: no command here.
pub const TRANSFER_BOTH: u8 = 0b11;

/// The direction in which an opcode, or the type of a Fabrics command, moves data.
#[inline]
pub const fn transfer(opcode: u8, fabrics_type: u8) -> u8 {
    if opcode == FABRICS { fabrics_type & 0b11 } else { opcode & 0b11 }
}

/// Identify: one namespace (Base, figure 274).
pub const CNS_NAMESPACE: u8 = 0x00;
/// The controller.
pub const CNS_CONTROLLER: u8 = 0x01;
/// Active namespace identifiers.
pub const CNS_ACTIVE_NAMESPACES: u8 = 0x02;
/// Identification descriptors of one namespace.
pub const CNS_NAMESPACE_DESCRIPTORS: u8 = 0x03;
/// One namespace, by command set.
pub const CNS_NAMESPACE_OF_COMMAND_SET: u8 = 0x05;
/// The controller, by command set.
pub const CNS_CONTROLLER_OF_COMMAND_SET: u8 = 0x06;
/// Active namespace identifiers of a command set.
pub const CNS_ACTIVE_NAMESPACES_OF_COMMAND_SET: u8 = 0x07;
/// One namespace, whatever its command set.
pub const CNS_NAMESPACE_INDEPENDENT: u8 = 0x08;
/// Allocated namespace identifiers.
pub const CNS_ALLOCATED_NAMESPACES: u8 = 0x10;
/// One allocated namespace.
pub const CNS_ALLOCATED_NAMESPACE: u8 = 0x11;
/// Controllers attached to a namespace.
pub const CNS_CONTROLLERS_OF_NAMESPACE: u8 = 0x12;
/// Controllers of the subsystem.
pub const CNS_CONTROLLERS: u8 = 0x13;
/// Combinations of command sets.
pub const CNS_COMMAND_SETS: u8 = 0x1c;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_direction_is_in_the_opcode_or_in_the_fabrics_type() {
        assert_eq!(transfer(READ, 0), TRANSFER_TO_HOST);
        assert_eq!(transfer(WRITE, 0), TRANSFER_TO_CONTROLLER);
        assert_eq!(transfer(WRITE_ZEROES, 0), TRANSFER_NONE);
        assert_eq!(transfer(FABRICS, FABRICS_CONNECT), TRANSFER_TO_CONTROLLER);
        assert_eq!(transfer(FABRICS, FABRICS_PROPERTY_GET), TRANSFER_NONE);
        assert_eq!(transfer(FABRICS, FABRICS_AUTHENTICATION_RECEIVE), TRANSFER_TO_HOST);
    }
}
