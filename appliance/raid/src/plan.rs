//! What a stripe needs: which blocks to read, how to make its parity, what to write. Plans name columns and members; the
//! bytes are somebody else's.
//!
//! Why no plan has a write hole (rule L5). *Full*: every data block of the stripe is in the log until the destage is
//! recorded, so recovery writes them all again and computes parity from them, whatever the members hold. *Read-modify-write*
//! and *reconstruct-write*: the new parity is logged with the versions that it counts before any member is written; recovery
//! writes exactly these to every member that is there, and all other blocks of the stripe are what the parity counted them
//! as. *Data only*: there is no parity that could disagree, because its member is missing.

use base::ids::{Slot, StripeId};
use thiserror::Error;

use crate::Geometry;

/// How parity comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestageKind {
    /// From all data blocks, which are at hand.
    Full,
    /// From the old parity with the old content taken out and the new put in.
    ReadModifyWrite,
    /// From the new content and the blocks that do not change.
    ReconstructWrite,
    /// Not at all: its member is missing.
    DataOnly,
}

/// A stripe write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestagePlan {
    /// How parity comes about.
    pub kind: DestageKind,
    /// Columns whose content on the members is read first, as a bit mask.
    pub read_columns: u32,
    /// Whether the old parity is read first.
    pub read_parity: bool,
    /// Whether the new parity must be durable in the log before any member is written.
    pub log_parity: bool,
    /// Columns to be written: changed, and their members there.
    pub write_columns: u32,
    /// Whether parity is written.
    pub write_parity: bool,
}

/// More members are missing than the level bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more members are missing than the level bears")]
pub struct Lost;

/// Plans the write of a stripe of which the columns in `changed` have new content. `missing` names slots without a member.
///
/// # Panics
/// If nothing has changed, or a column that does not exist.
pub fn plan_destage(geometry: &Geometry, stripe: StripeId, changed: u32, missing: u32) -> Result<DestagePlan, Lost> {
    let columns = geometry.data_slots();
    let all = all_columns(columns);
    assert!(changed != 0 && changed & !all == 0, "columns {changed:#b} of {columns}");
    if missing.count_ones() > u32::from(geometry.parities()) {
        return Err(Lost);
    }
    let gone = missing_columns(geometry, stripe, missing);
    let parity_gone = missing & 1 << geometry.parity_member(stripe, 0).0 != 0;
    let write_columns = changed & !gone;
    let plan = |kind, read_columns, read_parity, log_parity| DestagePlan {
        kind,
        read_columns,
        read_parity,
        log_parity,
        write_columns,
        write_parity: !parity_gone,
    };
    if parity_gone {
        return Ok(plan(DestageKind::DataOnly, 0, false, false));
    }
    if changed == all {
        return Ok(plan(DestageKind::Full, 0, false, false));
    }
    // A changed column whose member is gone has no old content to take out of the parity. An unchanged one has none to put
    // in, but is still counted by the old parity.
    let reads_modify = changed.count_ones() + 1;
    let reads_reconstruct = (all & !changed).count_ones();
    let reconstruct = if gone & changed != 0 {
        true
    } else if gone != 0 {
        false
    } else {
        reads_reconstruct < reads_modify
    };
    Ok(if reconstruct {
        plan(DestageKind::ReconstructWrite, all & !changed, false, true)
    } else {
        plan(DestageKind::ReadModifyWrite, changed, true, true)
    })
}

/// How a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPlan {
    /// From its member.
    Direct(Slot),
    /// As the sum of the stripe's blocks on all other members.
    Reconstruct,
    /// Not at all.
    Lost,
}

/// Plans the read of a column of a stripe from the members.
pub fn plan_read(geometry: &Geometry, stripe: StripeId, column: u8, missing: u32) -> ReadPlan {
    let slot = geometry.member_of(stripe, column);
    if missing & 1 << slot.0 == 0 {
        ReadPlan::Direct(slot)
    } else if missing.count_ones() > u32::from(geometry.parities()) {
        ReadPlan::Lost
    } else {
        ReadPlan::Reconstruct
    }
}

const fn all_columns(columns: u8) -> u32 {
    (1 << columns) - 1
}

fn missing_columns(geometry: &Geometry, stripe: StripeId, missing: u32) -> u32 {
    let slots = (0..geometry.members()).map(Slot).filter(|slot| missing & 1 << slot.0 != 0);
    slots.filter_map(|slot| geometry.column_of(stripe, slot)).fold(0, |mask, column| mask | 1 << column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    /// Carries out a plan on members of one byte a stripe and looks whether every column can be had afterwards.
    #[test]
    fn every_plan_keeps_parity_and_every_column() {
        let mut plans = 0;
        for members in 3..=6u8 {
            let geometry = Geometry::new(Level::Raid5, members, 1, 1024).expect("a geometry");
            let columns = geometry.data_slots();
            for stripe in (0..u64::from(members)).map(StripeId) {
                for changed in 1..=all_columns(columns) {
                    for missing in (0..members).map(|slot| 1 << slot).chain([0]) {
                        let plan =
                            plan_destage(&geometry, stripe, changed, missing).expect("one member may be missing");
                        check(&geometry, stripe, changed, missing, &plan);
                        plans += 1;
                    }
                }
            }
        }
        assert!(plans > 1000);
    }

    fn check(geometry: &Geometry, stripe: StripeId, changed: u32, missing: u32, plan: &DestagePlan) {
        let columns = geometry.data_slots();
        let old: Vec<u8> = (0..columns).map(|column| 17 * column + 3).collect();
        let new: Vec<u8> =
            (0..columns).map(|c| if changed & 1 << c != 0 { 31 * c + 101 } else { old[usize::from(c)] }).collect();
        let sum = |blocks: &[u8]| blocks.iter().fold(0, |sum, block| sum ^ block);
        let parity_slot = geometry.parity_member(stripe, 0);
        let is_there = |slot: Slot| missing & 1 << slot.0 == 0;

        // What is read must be there.
        for column in (0..columns).filter(|column| plan.read_columns & 1 << column != 0) {
            assert!(is_there(geometry.member_of(stripe, column)), "{plan:?} reads a missing member");
        }
        assert!(!plan.read_parity || is_there(parity_slot), "{plan:?} reads missing parity");

        let mut parity = if plan.read_parity { sum(&old) } else { 0 };
        for column in 0..columns {
            let bit = 1 << column;
            if plan.read_columns & bit != 0 {
                parity ^= old[usize::from(column)];
            }
            if changed & bit != 0 {
                parity ^= new[usize::from(column)];
            }
        }
        assert_eq!(plan.write_parity, is_there(parity_slot));
        if plan.write_parity {
            assert_eq!(parity, sum(&new), "{plan:?}");
        }
        for column in 0..columns {
            let written = plan.write_columns & 1 << column != 0;
            let due = changed & 1 << column != 0 && is_there(geometry.member_of(stripe, column));
            assert_eq!(written, due, "{plan:?} column {column}");
        }
        assert_eq!(plan.log_parity, matches!(plan.kind, DestageKind::ReadModifyWrite | DestageKind::ReconstructWrite));
    }

    #[test]
    fn the_cheaper_way_is_taken() {
        let geometry = Geometry::new(Level::Raid5, 6, 1, 1024).expect("a geometry");
        let kind = |changed| plan_destage(&geometry, StripeId(0), changed, 0).map(|plan| plan.kind);
        assert_eq!(kind(0b00001), Ok(DestageKind::ReadModifyWrite));
        assert_eq!(kind(0b00011), Ok(DestageKind::ReadModifyWrite));
        assert_eq!(kind(0b00111), Ok(DestageKind::ReconstructWrite));
        assert_eq!(kind(0b11111), Ok(DestageKind::Full));
    }

    #[test]
    fn two_lost_members_are_too_many() {
        let geometry = Geometry::new(Level::Raid5, 4, 1, 1024).expect("a geometry");
        assert_eq!(plan_destage(&geometry, StripeId(0), 1, 0b11), Err(Lost));
        assert_eq!(plan_read(&geometry, StripeId(0), 0, 0b0011), ReadPlan::Lost);
        assert_eq!(plan_read(&geometry, StripeId(0), 0, 0b0001), ReadPlan::Reconstruct);
        assert_eq!(plan_read(&geometry, StripeId(0), 0, 0b0010), ReadPlan::Direct(Slot(0)));
    }
}
