//! Lists of stripes, linked through the table.

use super::{DirtyList, NONE, Stripe, StripeRef, Stripes, VersionRef, VersionState};

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

    /// Puts a stripe at the young end of a list, unless it is in it.
    pub(crate) fn list(&mut self, list: &mut DirtyList, stripe: StripeRef) {
        if self.get(stripe).listed {
            return;
        }
        let youngest = list.youngest;
        let entry = self.get_mut(stripe);
        entry.listed = true;
        entry.older = youngest;
        entry.younger = NONE;
        if youngest == NONE {
            list.oldest = stripe.0;
        } else {
            self.get_mut(StripeRef(youngest)).younger = stripe.0;
        }
        list.youngest = stripe.0;
    }

    /// Takes a stripe out of a list, if it is in it.
    pub(crate) fn unlist(&mut self, list: &mut DirtyList, stripe: StripeRef) {
        let entry = self.get_mut(stripe);
        if !entry.listed {
            return;
        }
        (entry.listed, entry.parked) = (false, false);
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
