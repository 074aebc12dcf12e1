//! Why a connection ends: what the record says of it, how its stream is closed, and whether it counts as killed.

use base::metrics::KillCause;
use ports::StreamError;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host closed its end, or said that it would.
    Closed,
    /// The host, or something on the way, broke it.
    Reset,
    /// Its socket was destroyed from outside this process.
    Destroyed,
    /// The kernel had no sign of life for too long.
    TimedOut,
    /// The host broke the protocol.
    Protocol,
    /// The host did not say who it is, sent no data that was asked for, or took no replies, for too long.
    Silent,
    /// No command came within the Keep Alive Timeout.
    KeepAlive,
    /// Its controller's admin connection has ended.
    Association,
    /// Its host reset or shut down its controller.
    ControllerReset,
    /// What it was connected to is exported no longer.
    NotExported,
    /// The appliance is stopping.
    Stopping,
    /// Somebody asked for its end.
    Operator,
    /// The address or route that it relied on is gone.
    AddressLoss,
}

impl Cause {
    /// Why a stream ended that we did not close.
    pub(super) const fn of_stream(error: StreamError) -> Self {
        match error {
            StreamError::EndOfStream | StreamError::Unknown => Self::Closed,
            StreamError::Reset => Self::Reset,
            StreamError::Aborted => Self::Destroyed,
            StreamError::TimedOut => Self::TimedOut,
        }
    }

    /// Whether the stream is reset: its peer is to see at once that it is gone.
    pub(super) const fn is_abrupt(self) -> bool {
        matches!(self, Self::Operator | Self::AddressLoss)
    }

    /// As what it counts, if it was killed.
    pub(super) const fn killed(self) -> Option<KillCause> {
        match self {
            Self::Operator => Some(KillCause::Operator),
            Self::AddressLoss => Some(KillCause::AddressLoss),
            Self::Destroyed => Some(KillCause::Outside),
            Self::KeepAlive => Some(KillCause::KeepAlive),
            Self::TimedOut | Self::Silent => Some(KillCause::Silence),
            Self::Closed
            | Self::Reset
            | Self::Protocol
            | Self::Association
            | Self::ControllerReset
            | Self::NotExported
            | Self::Stopping => None,
        }
    }

    /// In words; with the name of the error where the system has one for it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Closed => "closed by the host",
            Self::Reset => "ECONNRESET: reset by the host or on the way",
            Self::Destroyed => "ECONNABORTED: its socket was destroyed from outside",
            Self::TimedOut => "ETIMEDOUT: no sign of life from the host's system",
            Self::Protocol => "the host broke the protocol",
            Self::Silent => "the host was silent for too long where it had to act",
            Self::KeepAlive => "no command within the Keep Alive Timeout",
            Self::Association => "its association has ended",
            Self::ControllerReset => "its host reset or shut down the controller",
            Self::NotExported => "its subsystem is exported no longer",
            Self::Stopping => "the appliance is stopping",
            Self::Operator => "ECONNABORTED: killed by the operator",
            Self::AddressLoss => "ECONNABORTED: its address or route is gone",
        }
    }
}
