//! What a version consists of, and where that is.

use ports::{Buffer, BufferId};

use super::{NONE, StripeRef, Stripes, VersionRef, VersionState};

/// What a version consists of.
#[derive(Debug)]
pub(crate) enum Content {
    /// Zeros.
    Zeros,
    /// In memory, in a buffer of the pool.
    Held(Buffer),
    /// In memory as long as its destage lasts, in a buffer of what is set aside; read back from the log.
    Lent(Buffer),
    /// In the log alone.
    Logged,
}

impl Content {
    /// What a host sent: nothing means zeros.
    pub(crate) fn of(buffer: Option<Buffer>) -> Self {
        buffer.map_or(Self::Zeros, Self::Held)
    }

    pub(crate) fn is_zero(&self) -> bool {
        matches!(self, Self::Zeros)
    }

    /// The buffer that it is in; none means zeros.
    ///
    /// # Panics
    /// If it is not in memory.
    pub(crate) fn buffer(&self) -> Option<BufferId> {
        match self {
            Self::Zeros => None,
            Self::Held(buffer) | Self::Lent(buffer) => Some(buffer.id()),
            Self::Logged => panic!("what the log alone has was to be read back"),
        }
    }

    /// Takes the buffer away, at the very end.
    pub(super) fn take_buffer(&mut self) -> Option<Buffer> {
        match core::mem::replace(self, Self::Logged) {
            Self::Held(buffer) | Self::Lent(buffer) => Some(buffer),
            Self::Zeros | Self::Logged => None,
        }
    }
}

impl Stripes {
    /// Contents in memory, without those that are lent.
    pub(crate) fn resident(&self) -> usize {
        self.resident
    }

    /// Contents that may be in memory.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Contents that the log alone has.
    pub(crate) fn logged(&self) -> usize {
        self.logged
    }

    /// Counts a content that comes or goes.
    pub(super) fn count(&mut self, stripe: StripeRef, content: &Content, comes: bool) {
        let add = |count: usize| if comes { count + 1 } else { count - 1 };
        match content {
            Content::Held(_) => self.resident = add(self.resident),
            Content::Logged => {
                self.logged = add(self.logged);
                let entry = self.get_mut(stripe);
                entry.logged = if comes { entry.logged + 1 } else { entry.logged - 1 };
            }
            Content::Zeros | Content::Lent(_) => {}
        }
    }

    /// Gives a version another content, or the same elsewhere; the one before.
    pub(crate) fn put(&mut self, at: VersionRef, content: Content) -> Content {
        let stripe = self.stripe_of(at);
        self.count(stripe, &content, true);
        let before = core::mem::replace(&mut self.version_mut(at).content, content);
        self.count(stripe, &before, false);
        before
    }

    /// Columns whose frozen version the log alone has, as a bit mask.
    pub(crate) fn frozen_in_log(&self, stripe: StripeRef) -> u32 {
        let is_logged = |at| {
            let version = self.version(at);
            version.state == VersionState::Frozen && matches!(version.content, Content::Logged)
        };
        self.versions_of(stripe).filter(|at| is_logged(*at)).fold(0, |mask, at| mask | 1 << self.version(at).column)
    }

    /// A version of a column of a record that the log alone has.
    pub(crate) fn logged_of(&self, stripe: StripeRef, column: u8, sequence: u64) -> Option<VersionRef> {
        self.versions_of(stripe).find(|&at| {
            let version = self.version(at);
            let is_there = version.state != VersionState::Logging && matches!(version.content, Content::Logged);
            is_there && version.column == column && version.sequence == sequence
        })
    }

    /// The first of a stripe's versions that is lent.
    pub(crate) fn first_lent(&self, stripe: StripeRef) -> Option<VersionRef> {
        self.versions_of(stripe).find(|&at| matches!(self.version(at).content, Content::Lent(_)))
    }

    /// The versions of a stripe that the log alone has, as far as there is room for them; how many there are.
    pub(crate) fn logged_versions(&self, stripe: StripeRef, into: &mut [VersionRef]) -> usize {
        let logged = self.versions_of(stripe).filter(|&at| matches!(self.version(at).content, Content::Logged));
        into.iter_mut().zip(logged).map(|(place, at)| *place = at).count()
    }

    /// Contents in memory that are not on their way to the members, at least so many.
    pub(crate) fn resident_waiting(&self) -> usize {
        self.resident.saturating_sub(self.frozen)
    }

    /// The versions of a stripe, youngest first.
    pub(super) fn versions_of(&self, stripe: StripeRef) -> impl Iterator<Item = VersionRef> {
        let next = |at: u32| (at != NONE).then_some(VersionRef(at));
        core::iter::successors(next(self.get(stripe).versions), move |&at| next(self.version(at).next))
    }
}
