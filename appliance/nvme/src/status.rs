//! Status codes of completions (Base, section 3.3.3.2.1): a number that keeps whatever a peer sent, with names for those
//! that we send or look for.

use core::fmt;

/// A status: code in bits 7:0, code type in 10:8, command retry delay in 12:11, More in 13, Do Not Retry in 14.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

/// Status code types (Base, figure 93).
const GENERIC: u16 = 0x000;
const SPECIFIC: u16 = 0x100;
const MEDIA: u16 = 0x200;
const PATH: u16 = 0x300;

macro_rules! statuses {
    ($($name:ident = $type:ident | $code:literal, $text:literal;)*) => {
        impl Status {
            $(
                #[doc = $text]
                pub const $name: Self = Self($type | $code);
            )*

            /// The specification's name, if it is one of those known here. Command-specific codes are shared by several
            /// commands; Fabrics' names stand before the NVM command set's.
            pub const fn name(self) -> Option<&'static str> {
                match self.code() {
                    $(code if code == Self::$name.0 => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = GENERIC | 0x00, "Successful Completion";
    INVALID_OPCODE = GENERIC | 0x01, "Invalid Command Opcode";
    INVALID_FIELD = GENERIC | 0x02, "Invalid Field in Command";
    CID_CONFLICT = GENERIC | 0x03, "Command ID Conflict";
    DATA_TRANSFER_ERROR = GENERIC | 0x04, "Data Transfer Error";
    ABORTED_POWER_LOSS = GENERIC | 0x05, "Commands Aborted due to Power Loss Notification";
    INTERNAL_ERROR = GENERIC | 0x06, "Internal Error";
    ABORT_REQUESTED = GENERIC | 0x07, "Command Abort Requested";
    ABORTED_SQ_DELETION = GENERIC | 0x08, "Command Aborted due to SQ Deletion";
    ABORTED_FAILED_FUSED = GENERIC | 0x09, "Command Aborted due to Failed Fused Command";
    ABORTED_MISSING_FUSED = GENERIC | 0x0a, "Command Aborted due to Missing Fused Command";
    INVALID_NAMESPACE = GENERIC | 0x0b, "Invalid Namespace or Format";
    SEQUENCE_ERROR = GENERIC | 0x0c, "Command Sequence Error";
    INVALID_SGL_SEGMENT = GENERIC | 0x0d, "Invalid SGL Segment Descriptor";
    INVALID_SGL_COUNT = GENERIC | 0x0e, "Invalid Number of SGL Descriptors";
    DATA_SGL_LENGTH_INVALID = GENERIC | 0x0f, "Data SGL Length Invalid";
    METADATA_SGL_LENGTH_INVALID = GENERIC | 0x10, "Metadata SGL Length Invalid";
    SGL_TYPE_INVALID = GENERIC | 0x11, "SGL Descriptor Type Invalid";
    ATOMIC_WRITE_UNIT_EXCEEDED = GENERIC | 0x14, "Atomic Write Unit Exceeded";
    OPERATION_DENIED = GENERIC | 0x15, "Operation Denied";
    SGL_OFFSET_INVALID = GENERIC | 0x16, "SGL Offset Invalid";
    HOST_ID_INCONSISTENT = GENERIC | 0x18, "Host Identifier Inconsistent Format";
    KEEP_ALIVE_EXPIRED = GENERIC | 0x19, "Keep Alive Timer Expired";
    KEEP_ALIVE_INVALID = GENERIC | 0x1a, "Keep Alive Timeout Invalid";
    WRITE_PROTECTED = GENERIC | 0x20, "Namespace is Write Protected";
    INTERRUPTED = GENERIC | 0x21, "Command Interrupted";
    TRANSIENT_TRANSPORT_ERROR = GENERIC | 0x22, "Transient Transport Error";
    LBA_OUT_OF_RANGE = GENERIC | 0x80, "LBA Out of Range";
    CAPACITY_EXCEEDED = GENERIC | 0x81, "Capacity Exceeded";
    NAMESPACE_NOT_READY = GENERIC | 0x82, "Namespace Not Ready";
    RESERVATION_CONFLICT = GENERIC | 0x83, "Reservation Conflict";

    INVALID_QUEUE_ID = SPECIFIC | 0x01, "Invalid Queue Identifier";
    INVALID_QUEUE_SIZE = SPECIFIC | 0x02, "Invalid Queue Size";
    ABORT_LIMIT_EXCEEDED = SPECIFIC | 0x03, "Abort Command Limit Exceeded";
    ASYNC_EVENT_LIMIT_EXCEEDED = SPECIFIC | 0x05, "Asynchronous Event Request Limit Exceeded";
    INVALID_LOG_PAGE = SPECIFIC | 0x09, "Invalid Log Page";
    INVALID_FORMAT = SPECIFIC | 0x0a, "Invalid Format";
    FEATURE_NOT_SAVEABLE = SPECIFIC | 0x0d, "Feature Identifier Not Saveable";
    FEATURE_NOT_CHANGEABLE = SPECIFIC | 0x0e, "Feature Not Changeable";
    FEATURE_NOT_NAMESPACE_SPECIFIC = SPECIFIC | 0x0f, "Feature Not Namespace Specific";
    CONNECT_INCOMPATIBLE_FORMAT = SPECIFIC | 0x80, "Connect Incompatible Format";
    CONNECT_CONTROLLER_BUSY = SPECIFIC | 0x81, "Connect Controller Busy";
    CONNECT_INVALID_PARAMETERS = SPECIFIC | 0x82, "Connect Invalid Parameters";
    CONNECT_RESTART_DISCOVERY = SPECIFIC | 0x83, "Connect Restart Discovery";
    CONNECT_INVALID_HOST = SPECIFIC | 0x84, "Connect Invalid Host";
    INVALID_QUEUE_TYPE = SPECIFIC | 0x85, "Invalid Queue Type";
    DISCOVER_RESTART = SPECIFIC | 0x90, "Discover Restart";
    AUTHENTICATION_REQUIRED = SPECIFIC | 0x91, "Authentication Required";
    COMMAND_SIZE_LIMIT_EXCEEDED = SPECIFIC | 0x83, "Command Size Limit Exceeded";

    WRITE_FAULT = MEDIA | 0x80, "Write Fault";
    UNRECOVERED_READ_ERROR = MEDIA | 0x81, "Unrecovered Read Error";
    COMPARE_FAILURE = MEDIA | 0x85, "Compare Failure";
    ACCESS_DENIED = MEDIA | 0x86, "Access Denied";

    INTERNAL_PATH_ERROR = PATH | 0x00, "Internal Path Error";
    ANA_PERSISTENT_LOSS = PATH | 0x01, "Asymmetric Access Persistent Loss";
    ANA_INACCESSIBLE = PATH | 0x02, "Asymmetric Access Inaccessible";
    ANA_TRANSITION = PATH | 0x03, "Asymmetric Access Transition";
    CONTROLLER_PATHING_ERROR = PATH | 0x60, "Controller Pathing Error";
    HOST_PATHING_ERROR = PATH | 0x70, "Host Pathing Error";
    ABORTED_BY_HOST = PATH | 0x71, "Command Aborted By Host";
}

impl Status {
    /// More information is in the error log.
    pub const MORE: u16 = 1 << 13;
    /// The same command will fail again: a host must not retry it.
    pub const DO_NOT_RETRY: u16 = 1 << 14;

    /// This status with Do Not Retry set.
    #[must_use]
    pub const fn do_not_retry(self) -> Self {
        Self(self.0 | Self::DO_NOT_RETRY)
    }

    /// Whether Do Not Retry is set.
    pub const fn is_final(self) -> bool {
        self.0 & Self::DO_NOT_RETRY != 0
    }

    /// Whether the command succeeded.
    pub const fn is_success(self) -> bool {
        self.code() == 0
    }

    /// Code type and code, without retry delay, More and Do Not Retry.
    pub const fn code(self) -> u16 {
        self.0 & 0x7ff
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "status {:x}h/{:02x}h", self.code() >> 8, self.code() & 0xff)?,
        }
        if self.is_final() { f.write_str(" (do not retry)") } else { Ok(()) }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_code_and_flags_keep_apart() {
        let status = Status::CONNECT_INVALID_HOST.do_not_retry();
        assert_eq!(status.0, 0x4184);
        assert!(status.is_final() && !status.is_success());
        assert_eq!(status.code(), Status::CONNECT_INVALID_HOST.0);
        assert!(Status(Status::MORE).is_success());
    }

    #[test]
    fn unknown_codes_stay_numbers() {
        assert_eq!(Status(0x7c5).to_string(), "status 7h/c5h");
        assert_eq!(Status::INVALID_FIELD.do_not_retry().to_string(), "Invalid Field in Command (do not retry)");
    }
}
