//! What is expected of the drives of an array, and what comes of it when they do otherwise.

use base::time::Span;

/// When a drive is no longer good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveSettings {
    /// Blocks that a member may be unable to read within an hour. With one more it is excluded, if the array can do without.
    pub max_read_errors: u32,
    /// What happens to a member that is much slower than the others.
    pub slow: SlowPolicy,
    /// How long a host's read waits for a member before it is answered from the others, if they can.
    pub read_timeout: Span,
    /// How long a member may take to answer anything. Then it is excluded, if the array can do without.
    pub timeout: Span,
}

/// What happens to a member that is much slower than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowPolicy {
    /// It is told.
    Warn,
    /// It is excluded, if the array can do without.
    Fail,
}

impl Default for DriveSettings {
    fn default() -> Self {
        Self {
            max_read_errors: 20,
            slow: SlowPolicy::Warn,
            read_timeout: Span::from_secs(3),
            timeout: Span::from_secs(45),
        }
    }
}
