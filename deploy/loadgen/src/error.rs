//! What can go wrong with a target, by whose fault it is, and always with what the target answered. Nothing that a
//! target sends makes this host panic: it ends up here.

use std::io;
use std::net::SocketAddr;

use nvme::status::Status;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Nobody answers at the address.
    #[error("{address} cannot be reached: {source}")]
    Unreachable {
        /// Where the target should be.
        address: SocketAddr,
        /// What the network said.
        source: io::Error,
    },
    /// The connection ended: closed by the target, or broken.
    #[error("the connection was lost: {0}")]
    Lost(#[source] io::Error),
    /// The target did not answer in time.
    #[error("no answer within {seconds} s to {to}")]
    Timeout {
        /// What was asked.
        to: &'static str,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// The target broke the protocol.
    #[error("the target broke the protocol: {0}")]
    Protocol(#[from] Violation),
    /// The target said that this host broke the protocol, and ended the connection.
    #[error("the target ended the connection: fatal error status {status:#06x}, information {information:#010x}")]
    Terminated {
        /// Fatal error status (NVMe/TCP Transport 1.0, section 3.6.2.4).
        status: u16,
        /// Fatal error information: which byte, mostly.
        information: u32,
    },
    /// The target answered a command with an error.
    #[error("{command} was refused: {status}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its completion's status.
        status: Status,
    },
    /// The controller says something of itself with which no host can work.
    #[error("the controller cannot be used: {field} is {value}")]
    Unusable {
        /// The field of a property or of an Identify structure.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// The caller asks for more than this controller or this host has.
    #[error("{what}: {asked} asked for, at most {most} possible")]
    Excessive {
        /// What was asked for.
        what: &'static str,
        /// How much.
        asked: u64,
        /// What would have been possible.
        most: u64,
    },
    /// The caller asks for something that has no meaning.
    #[error("{0}")]
    Senseless(&'static str),
}

impl HostError {
    /// Whether the target is gone or silent, so that connecting again may help.
    pub const fn is_loss(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Lost(_) | Self::Timeout { .. })
    }

    /// The connection was closed by the target without a word.
    pub(crate) fn closed() -> Self {
        Self::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the target"))
    }
}

/// How a target broke NVMe/TCP. Section numbers are those of the NVMe/TCP Transport Specification 1.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The header of a PDU is wrong by itself.
    #[error("a PDU of type {kind:#04x}: {fatal}")]
    Header {
        /// Its type.
        kind: u8,
        /// What is wrong with it, as a termination request would say.
        fatal: nvmf::pdu::Fatal,
    },
    /// A PDU that has no place here.
    #[error("a PDU of type {0:#04x} came where none may")]
    Unexpected(u8),
    /// The header digest does not match (section 3.3.1.1).
    #[error("the header digest is {found:#010x}, computed {computed:#010x}")]
    HeaderDigest {
        /// As received.
        found: u32,
        /// Over the header that came.
        computed: u32,
    },
    /// The data digest does not match (section 3.3.1.2).
    #[error("the data digest is {found:#010x}, computed {computed:#010x}")]
    DataDigest {
        /// As received.
        found: u32,
        /// Over the data that came.
        computed: u32,
    },
    /// ICResp holds something with which a Linux host drops the connection.
    #[error("ICResp: {field} is {value}")]
    InitializeResponse {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// No request of this name is in flight.
    #[error("an answer to command {0:#06x}, which is not in flight")]
    UnknownCommand(u16),
    /// Data that the request did not ask for, or not there (section 3.6.2.10).
    #[error(
        "data for command {cid:#06x} at {offset}+{length}, but {expected} bytes have come and {total} were asked for"
    )]
    DataRange {
        /// The command.
        cid: u16,
        /// Offset of the data.
        offset: u32,
        /// Length of the data.
        length: u32,
        /// Where the next data belongs.
        expected: u32,
        /// The request's length.
        total: u32,
    },
    /// An R2T outside what the command has to send (section 3.6.2.9).
    #[error("R2T for command {cid:#06x} at {offset}+{length}, but {expected} bytes were sent of {total}")]
    ReadyRange {
        /// The command.
        cid: u16,
        /// Offset asked for.
        offset: u32,
        /// Length asked for.
        length: u32,
        /// Where the next data begins.
        expected: u32,
        /// The request's length.
        total: u32,
    },
    /// SUCCESS without LAST in a data PDU (section 3.6.2.10).
    #[error("data for command {0:#06x} claims success before its end")]
    SuccessBeforeLast(u16),
    /// A successful answer although not all data was moved.
    #[error("command {cid:#06x} ended well after {moved} of {total} bytes")]
    ShortTransfer {
        /// The command.
        cid: u16,
        /// Bytes moved.
        moved: u32,
        /// The request's length.
        total: u32,
    },
    /// Requests are answered before they have left this host, so that more wait than the depth allows.
    #[error("requests are answered before they were sent")]
    EarlyAnswers,
    /// The answer contradicts another one.
    #[error("{what}: first {first}, then {then}")]
    Contradiction {
        /// What it is about.
        what: &'static str,
        /// What came first.
        first: u64,
        /// What came then.
        then: u64,
    },
}
