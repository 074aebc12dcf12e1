//! Fences against commands that come too late. Each request belongs to an *association*, a host's controller with all its
//! queues, at one epoch. When the association ends, for whatever reason, its epoch is raised on every shard: what is of an
//! older epoch and not in the log yet is dropped and answered as aborted, what is in the log completes, and what still comes
//! is dropped on arrival. A shard confirms once no request of an older epoch is under way at it. When every shard has
//! confirmed, each write of the ended association has happened or never will: only then may its host come back.
//!
//! A controller identifier is used again for a later host, with the epoch that was raised last: an epoch is never used twice.

use base::ids::ShardId;

/// Identifiers of associations: those of controllers, and 0 for requests that belong to none.
pub const ASSOCIATIONS: usize = 1 << 16;

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Association {
    /// The controller's identifier.
    pub id: u16,
    /// How often an association of this identifier has ended before.
    pub epoch: u32,
}

impl Association {
    /// Of requests that belong to no host: they are never fenced off.
    pub const NONE: Self = Self { id: 0, epoch: 0 };

    /// Whether this is of the same identifier and of an epoch before `other`'s.
    pub const fn is_before(self, other: Self) -> bool {
        self.id == other.id && self.epoch < other.epoch
    }
}

/// An epoch that was raised here and is not confirmed yet.
#[derive(Clone, Copy, Debug)]
struct Raising {
    /// Who is told.
    asker: ShardId,
    association: Association,
    /// Requests of this shard that are of an older epoch and have not ended.
    left: usize,
}

/// What a shard knows of the epochs of all associations.
#[derive(Debug)]
pub(crate) struct Fences {
    /// The epoch that lives, by identifier.
    epochs: Vec<u32>,
    raising: Vec<Raising>,
}

impl Fences {
    pub(crate) fn new() -> Self {
        Self { epochs: vec![0; ASSOCIATIONS], raising: Vec::new() }
    }

    /// Whether requests of this epoch are dropped.
    #[inline]
    pub(crate) fn is_stale(&self, association: Association) -> bool {
        association.epoch < self.epochs[usize::from(association.id)]
    }

    /// Raises the epoch of an association, of which `left` requests are still under way; `asker` will be told.
    ///
    /// # Panics
    /// If requests that belong to no association were to be fenced off.
    pub(crate) fn raise(&mut self, asker: ShardId, association: Association, left: usize) {
        assert!(association.id != 0, "what belongs to nobody is never fenced off");
        let epoch = &mut self.epochs[usize::from(association.id)];
        *epoch = association.epoch.max(*epoch);
        self.raising.push(Raising { asker, association, left });
    }

    /// A request that was fenced off has ended.
    pub(crate) fn ended(&mut self, association: Association) {
        for raising in &mut self.raising {
            if association.is_before(raising.association) {
                raising.left = raising.left.checked_sub(1).expect("all of them were counted");
            }
        }
    }

    /// Takes a raise of which nothing is left, and whom to tell.
    pub(crate) fn confirmed(&mut self) -> Option<(ShardId, Association)> {
        let at = self.raising.iter().position(|raising| raising.left == 0)?;
        let Raising { asker, association, .. } = self.raising.remove(at);
        Some((asker, association))
    }

    /// There was no room to tell: it is the next one again.
    pub(crate) fn take_back(&mut self, asker: ShardId, association: Association) {
        self.raising.insert(0, Raising { asker, association, left: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_older_epochs_of_the_same_identifier_are_stale() {
        let mut fences = Fences::new();
        let of = |id, epoch| Association { id, epoch };
        assert!(!fences.is_stale(of(7, 0)));
        fences.raise(ShardId(1), of(7, 2), 0);
        assert!(fences.is_stale(of(7, 1)) && !fences.is_stale(of(7, 2)) && !fences.is_stale(of(8, 0)));
        // An earlier raise that comes late changes nothing.
        fences.raise(ShardId(1), of(7, 1), 0);
        assert!(fences.is_stale(of(7, 1)));
    }

    #[test]
    fn a_raise_is_confirmed_when_all_requests_of_older_epochs_have_ended() {
        let mut fences = Fences::new();
        let of = |epoch| Association { id: 7, epoch };
        fences.raise(ShardId(1), of(1), 2);
        fences.raise(ShardId(2), of(2), 3);
        fences.ended(of(1));
        assert_eq!(fences.confirmed(), None);
        fences.ended(of(0));
        fences.ended(of(0));
        assert_eq!(fences.confirmed(), Some((ShardId(1), of(1))));
        assert_eq!(fences.confirmed(), Some((ShardId(2), of(2))));
        fences.take_back(ShardId(2), of(2));
        assert_eq!(fences.confirmed(), Some((ShardId(2), of(2))));
        assert_eq!(fences.confirmed(), None);
    }
}
