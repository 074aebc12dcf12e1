//! Lists of stripes, linked through the table. A stripe stands in one of its lane's at a time.

use super::{DirtyList, NONE, Stripe, StripeRef, Stripes, VersionRef, VersionState};

/// The lists of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// All of it is in memory.
    Dirty,
    /// The log alone has some of it, or had.
    Logged,
    /// It cannot be destaged ([`crate::array::destage::blocked`]).
    Blocked,
}

impl Stripes {
    /// Durable versions of the stripes of a list.
    pub(crate) fn durable_blocks(&self, list: &DirtyList) -> u64 {
        let first = list.oldest();
        let stripes = core::iter::successors(first, |&at| {
            let younger = self.get(at).younger;
            (younger != NONE).then_some(StripeRef(younger))
        });
        stripes.map(|stripe| u64::from(self.get(stripe).durable.count_ones())).sum()
    }

    /// The versions of a list's stripes that stand in a record, as far as there is room for them; how many there are. None if one of
    /// them is about to be replaced, or there are more.
    pub(crate) fn of_record(&self, list: &DirtyList, sequence: u64, into: &mut [VersionRef]) -> Option<usize> {
        let (mut found, mut next) = (0, list.oldest);
        while next != NONE {
            let entry = self.get(StripeRef(next));
            let mut at = entry.versions;
            while at != NONE {
                let version = self.version(VersionRef(at));
                if version.sequence == sequence && version.state == VersionState::Durable {
                    if self.is_logging(entry.id, version.column) {
                        return None;
                    }
                    *into.get_mut(found)? = VersionRef(at);
                    found += 1;
                }
                at = version.next;
            }
            next = entry.younger;
        }
        Some(found)
    }

    /// Changes every stripe of a list.
    pub(crate) fn for_each_in(&mut self, list: &DirtyList, change: impl Fn(&mut Stripe)) {
        let mut at = list.oldest;
        while at != NONE {
            let entry = self.get_mut(StripeRef(at));
            change(entry);
            at = entry.younger;
        }
    }

    /// Puts a stripe at the young end of one of its lane's lists, unless it is in that; out of any other.
    pub(crate) fn list(&mut self, lists: &mut StripeLists, which: Listed, stripe: StripeRef) {
        if self.get(stripe).listed == Some(which) {
            return;
        }
        self.unlist(lists, stripe);
        let list = lists.list_mut(which);
        let youngest = list.youngest;
        let entry = self.get_mut(stripe);
        entry.listed = Some(which);
        entry.older = youngest;
        entry.younger = NONE;
        if youngest == NONE {
            list.oldest = stripe.0;
        } else {
            self.get_mut(StripeRef(youngest)).younger = stripe.0;
        }
        list.youngest = stripe.0;
    }

    /// Takes a stripe out of the list that it is in, if it is in any.
    pub(crate) fn unlist(&mut self, lists: &mut StripeLists, stripe: StripeRef) {
        let entry = self.get_mut(stripe);
        let Some(which) = entry.listed.take() else { return };
        let list = lists.list_mut(which);
        let (older, younger) = (entry.older, entry.younger);
        if older == NONE {
            list.oldest = younger;
        } else {
            self.get_mut(StripeRef(older)).younger = younger;
        }
        if younger == NONE {
            list.youngest = older;
        } else {
            self.get_mut(StripeRef(younger)).older = older;
        }
    }
}

/// Stripes of a lane with durable versions and no destage, each list with the oldest first.
#[derive(Debug, Default)]
pub(crate) struct StripeLists {
    /// See [`Listed`].
    pub(crate) dirty: DirtyList,
    pub(crate) logged: DirtyList,
    pub(crate) blocked: DirtyList,
}

impl StripeLists {
    fn list_mut(&mut self, which: Listed) -> &mut DirtyList {
        match which {
            Listed::Dirty => &mut self.dirty,
            Listed::Logged => &mut self.logged,
            Listed::Blocked => &mut self.blocked,
        }
    }

    /// Whether there is no such stripe.
    pub(crate) fn are_empty(&self) -> bool {
        [&self.dirty, &self.logged, &self.blocked].iter().all(|list| list.oldest().is_none())
    }
}
