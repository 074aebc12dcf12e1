//! What a start does with zones that are dirty: of an array without a log, whose writes a crash may have cut in two. Pure.
//!
//! Blocks themselves are old or new, whatever the crash did; it is what is kept beside them that may not match. A parity that
//! does not match is made anew from the data (*resync*), and a mirror from the one that is read. But while a block of data is
//! missing it is only to be had from a parity, and if that does not match, what comes out is neither old nor new, and may be
//! of a block that nobody was writing: the write hole. So such an array is not served without the operator's word. A missing
//! parity, and a missing mirror of which another is there, put nothing at stake.

use base::ids::{StripeId, ZoneId};

use crate::geometry::{Geometry, Part, slots};

/// What is to be done with a dirty array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyStart {
    /// Nothing: no zone is dirty, or nothing is kept beside the data.
    Clean,
    /// Served, and dirty zones are resynced meanwhile.
    Resync,
    /// Not served: in so many zones, what missing members held would come from parities that may not match.
    Refused {
        /// How many.
        zones: u64,
    },
    /// The same, and the operator wants it served: what parities say is taken for the truth.
    Forced {
        /// How many.
        zones: u64,
    },
}

/// Decides. `missing_at` names the slots that hold nothing of a stripe, as a bit mask; `force` is the operator's word.
pub fn start_of_dirty(
    geometry: &Geometry,
    dirty: impl Iterator<Item = ZoneId>,
    missing_at: impl Fn(StripeId) -> u32,
    force: bool,
) -> DirtyStart {
    let (mut any, mut at_stake) = (false, 0);
    for zone in dirty {
        any = true;
        let first = StripeId(zone.0 * geometry.zone_stripes());
        // A member that is being rebuilt has whole zones.
        at_stake += u64::from(is_at_stake(geometry, zone, missing_at(first)));
    }
    match (any && !is_alone(geometry), at_stake) {
        (false, _) => DirtyStart::Clean,
        (true, 0) => DirtyStart::Resync,
        (true, zones) if force => DirtyStart::Forced { zones },
        (true, zones) => DirtyStart::Refused { zones },
    }
}

/// Whether blocks of a zone are only to be had from its parities while these members (a bit mask) are missing.
pub fn is_at_stake(geometry: &Geometry, zone: ZoneId, missing: u32) -> bool {
    let first = zone.0 * geometry.zone_stripes();
    // Parities move with each chunk row.
    let rows = (first..first + geometry.zone_stripes()).step_by(geometry.chunk_blocks() as usize).map(StripeId);
    let holds_data = |stripe| {
        let gone = slots(missing & geometry.all_members());
        gone.filter(|&slot| matches!(geometry.part_of(stripe, slot), Part::Data(_))).count() > 0
    };
    geometry.parities() > 0 && rows.into_iter().any(holds_data)
}

/// Whether data stands alone: no parity, no mirror.
fn is_alone(geometry: &Geometry) -> bool {
    geometry.members() == geometry.data_slots()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    const DIRTY: [ZoneId; 2] = [ZoneId(0), ZoneId(2)];

    /// The decision for each level by the number of members, for every set of missing members, each dirty or not, with and
    /// without the operator's word, against the definition: whether some block of data is then the sum of others.
    #[test]
    fn every_combination_is_decided_by_whether_data_would_come_from_parities() {
        let mut seen = [0; 4];
        for (level, members) in [
            (Level::Raid0, 3),
            (Level::Raid1, 3),
            (Level::Raid4, 4),
            (Level::Raid5, 4),
            (Level::Raid6, 5),
            (Level::Raid10, 4),
        ] {
            let geometry = Geometry::new(level, members, 256, 4096).expect("four zones");
            let all = (0..1u32 << members).filter(|&missing| geometry.bears(missing));
            for (missing, dirty, force) in all.flat_map(|missing| {
                [(false, false), (false, true), (true, false), (true, true)]
                    .map(|(dirty, force)| (missing, dirty, force))
            }) {
                let zones = DIRTY.iter().copied().filter(|_| dirty);
                let decided = start_of_dirty(&geometry, zones, |_| missing, force);
                let needs_parity = |zone: &ZoneId| {
                    (zone.0 * 1024..(zone.0 + 1) * 1024).any(|stripe| {
                        (0..geometry.data_slots())
                            .any(|column| geometry.homes(StripeId(stripe), column) & !missing == 0)
                    })
                };
                let at_stake = DIRTY.iter().filter(|zone| needs_parity(zone)).count() as u64;
                let (expected, kind) = match (dirty && level != Level::Raid0, at_stake, force) {
                    (false, ..) => (DirtyStart::Clean, 0),
                    (true, 0, _) => (DirtyStart::Resync, 1),
                    (true, zones, false) => (DirtyStart::Refused { zones }, 2),
                    (true, zones, true) => (DirtyStart::Forced { zones }, 3),
                };
                assert_eq!(decided, expected, "{level:?} without {missing:#b}, dirty {dirty}, force {force}");
                seen[kind] += 1;
            }
        }
        assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
    }

    #[test]
    fn a_member_that_is_being_rebuilt_is_missing_only_beyond_its_position() {
        let geometry = Geometry::new(Level::Raid5, 3, 16, 4096).expect("four zones");
        let behind = |position: u64| move |stripe: StripeId| if stripe.0 >= position { 1 } else { 0 };
        let decide = |position| start_of_dirty(&geometry, DIRTY.into_iter(), behind(position), false);
        assert_eq!(decide(0), DirtyStart::Refused { zones: 2 });
        assert_eq!(decide(2048), DirtyStart::Refused { zones: 1 });
        assert_eq!(decide(3072), DirtyStart::Resync);
    }
}
