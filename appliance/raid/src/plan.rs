//! What a stripe needs: which blocks to read, how to make its parities, what to write. Plans name members and coefficients;
//! the bytes are somebody else's.
//!
//! Why no plan has a write hole (rule L5). *Full*: every data block of the stripe is in the log until the destage is
//! recorded, so recovery writes them all again and computes the parities from them, whatever the members hold.
//! *Read-modify-write* and *reconstruct-write*: the new parities are logged with the versions that they count before any
//! member is written; recovery writes exactly these to every member that is there, and all other blocks of the stripe are
//! what the parities counted them as. That holds for blocks of members that are missing, too, and for those of a member that is
//! lost in that very crash: each new parity counts every column of the stripe as it is afterwards, so after the replay the
//! stripe bears whatever losses the parities that are left bear. *Data only*: there is no parity that could disagree,
//! because the level has none or its members are missing.
//!
//! Mirrors log no parity. The versions of a stripe stay in the log until *all* their homes are flushed; after a crash they are
//! dirty again, are read from the log's cache and nowhere else, and the next destage writes every home. Copies that a crash
//! left different are never read, and do not stay different.

use base::ids::{Slot, StripeId};

use crate::geometry::{Geometry, Part, slots};
use crate::recipe::{Lost, Multiples, Recipe, recipe, sum_of_columns, weight};

/// Most parities of a stripe.
pub const MAX_PARITIES: usize = 2;

/// How parity comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestageKind {
    /// From all data blocks, which are at hand.
    Full,
    /// From the old parity with the old content taken out and the new put in.
    ReadModifyWrite,
    /// From the new content and the blocks that do not change, as far as they are not there solved for.
    ReconstructWrite,
    /// Not at all: there is none, or its members are missing.
    DataOnly,
}

/// A stripe write: what has changed goes to all its homes that are there, and so do the parities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestagePlan {
    /// How parity comes about.
    pub kind: DestageKind,
    /// The parities that are made and written, as a bit mask by index: those whose members are there.
    pub parities: u8,
    /// Whether the new parities must be durable in the log before any member is written.
    pub log_parity: bool,
    old: [Recipe; MAX_PARITIES],
}

impl DestagePlan {
    /// Indices of the parities that are made.
    pub fn parity_indices(&self) -> impl Iterator<Item = u8> + use<> {
        let parities = self.parities;
        (0..MAX_PARITIES as u8).filter(move |index| parities & 1 << index != 0)
    }

    /// Members whose old content is read first, as a bit mask.
    pub fn reads(&self) -> u32 {
        self.old[0].members() | self.old[1].members()
    }

    /// What the old content of a member counts in a new parity; the new content of a column counts [`weight`].
    pub const fn old(&self, index: u8, slot: Slot) -> u8 {
        self.old[index as usize].coefficient(slot)
    }
}

/// Plans the write of a stripe of which the columns in `changed` have new content. `missing` names slots without a member.
///
/// # Panics
/// If nothing has changed, or a column that does not exist.
pub fn plan_destage(geometry: &Geometry, stripe: StripeId, changed: u32, missing: u32) -> Result<DestagePlan, Lost> {
    plan_write(geometry, stripe, changed, (missing, 0), true)
}

/// The same where the old content of the slots in `lost` cannot be had: it is read only if there is no way around it.
///
/// # Panics
/// As above.
pub fn plan_destage_around(
    geometry: &Geometry,
    stripe: StripeId,
    changed: u32,
    missing: u32,
    lost: u32,
) -> Result<DestagePlan, Lost> {
    plan_write(geometry, stripe, changed, (missing, lost), true)
}

/// The same of a stripe whose parities may not match: as long as all its data is there, they are made from that alone, and
/// match afterwards.
///
/// # Panics
/// As above.
pub fn plan_destage_anew(
    geometry: &Geometry,
    stripe: StripeId,
    changed: u32,
    missing: u32,
) -> Result<DestagePlan, Lost> {
    plan_write(geometry, stripe, changed, (missing, 0), false)
}

fn plan_write(
    geometry: &Geometry,
    stripe: StripeId,
    changed: u32,
    (missing, lost): (u32, u32),
    trusted: bool,
) -> Result<DestagePlan, Lost> {
    let all = geometry.all_columns();
    assert!(changed != 0 && changed & !all == 0, "columns {changed:#b} of {all:#b}");
    if !geometry.bears(missing) {
        return Err(Lost);
    }
    let is_there = |index: &u8| missing & 1 << geometry.parity_member(stripe, *index).0 == 0;
    let parities = (0..geometry.parities()).filter(is_there).fold(0, |mask: u8, index| mask | 1 << index);
    let mut plan =
        DestagePlan { kind: DestageKind::DataOnly, parities, log_parity: false, old: [Recipe::EMPTY; MAX_PARITIES] };
    if parities == 0 {
        return Ok(plan);
    }
    if changed == all {
        return Ok(DestagePlan { kind: DestageKind::Full, ..plan });
    }
    plan.kind = cheaper(geometry, stripe, changed, (missing, lost), parities, trusted);
    plan.log_parity = true;
    let reconstruct_gone = plan.kind == DestageKind::ReconstructWrite;
    for index in plan.parity_indices() {
        let unchanged = |column: u8| if changed & 1 << column == 0 { weight(index, column) } else { 0 };
        let mut own: Multiples = [0; MAX_PARITIES];
        own[usize::from(index)] = 1;
        let multiples = if reconstruct_gone { None } else { Some(own) };
        plan.old[usize::from(index)] = sum_of_columns(geometry, stripe, missing, unchanged, multiples)?;
    }
    Ok(plan)
}

/// What makes the parities of a stripe that changes in part. A changed column whose member is gone has no old content to take
/// out of a parity. An unchanged one has none to put in, but is still counted by the old parity. With one of each, both old
/// parities together give the unchanged one: everything that is there is read. Parities that are not trusted are the base of
/// no other, unless something is gone that only they know. Where all members are there, what is lost may decide: either way
/// needs other blocks.
fn cheaper(
    geometry: &Geometry,
    stripe: StripeId,
    changed: u32,
    (missing, lost): (u32, u32),
    parities: u8,
    trusted: bool,
) -> DestageKind {
    let gone = slots(missing & geometry.all_members()).filter_map(|slot| geometry.column_of(stripe, slot));
    let gone = gone.fold(0, |mask: u32, column| mask | 1 << column);
    let homes = |columns: u32| {
        let columns = (0..geometry.data_slots()).filter(move |column| columns & 1 << column != 0);
        columns.fold(0, |mask: u32, column| mask | 1 << geometry.member_of(stripe, column).0)
    };
    let parity_slots = (0..geometry.parities()).filter(|index| parities & 1 << index != 0);
    let parity_slots = parity_slots.fold(0, |mask: u32, index| mask | 1 << geometry.parity_member(stripe, index).0);
    let (reads_modify, reads_reconstruct) = (homes(changed) | parity_slots, homes(geometry.all_columns() & !changed));
    let modify = if gone & changed != 0 {
        false
    } else if gone != 0 {
        true
    } else {
        let cost = |reads: u32| (reads & lost != 0, reads.count_ones());
        trusted && cost(reads_modify) <= cost(reads_reconstruct)
    };
    if modify { DestageKind::ReadModifyWrite } else { DestageKind::ReconstructWrite }
}

/// How a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPlan {
    /// From a member that holds it.
    Direct(Slot),
    /// As a sum of what other members hold.
    Reconstruct(Recipe),
    /// Not at all.
    Lost,
}

/// Plans the read of a column of a stripe from the members. Of mirrors, chunks take turns, so that all of them work.
pub fn plan_read(geometry: &Geometry, stripe: StripeId, column: u8, missing: u32) -> ReadPlan {
    let homes = geometry.homes(stripe, column) & !missing;
    if homes != 0 {
        let turn = (stripe.0 / u64::from(geometry.chunk_blocks())) % u64::from(homes.count_ones());
        let home = slots(homes).nth(turn as usize).expect("a home for each turn");
        return ReadPlan::Direct(home);
    }
    match recipe(geometry, stripe, Part::Data(column), missing) {
        Ok(recipe) => ReadPlan::Reconstruct(recipe),
        Err(Lost) => ReadPlan::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::geometry::tests::geometries;
    use parity::field::multiply;

    /// A stripe of one byte a member: parities by their definition.
    struct Members {
        geometry: Geometry,
        stripe: StripeId,
        bytes: Vec<u8>,
    }

    impl Members {
        fn new(geometry: Geometry, stripe: StripeId, data: &[u8]) -> Self {
            let mut members = Self { geometry, stripe, bytes: vec![0; usize::from(geometry.members())] };
            let parts = (0..geometry.members()).map(|slot| geometry.part_of(stripe, Slot(slot)));
            members.bytes = parts
                .map(|part| match part {
                    Part::Data(column) => data[usize::from(column)],
                    Part::Parity(index) => members.sum(index, data),
                })
                .collect();
            members
        }

        fn sum(&self, index: u8, data: &[u8]) -> u8 {
            (0..self.geometry.data_slots())
                .fold(0, |sum, column| sum ^ multiply(weight(index, column), data[usize::from(column)]))
        }

        /// Every column, with these members missing.
        fn read(&self, missing: u32) -> Vec<u8> {
            let column = |column| {
                let recipe = recipe(&self.geometry, self.stripe, Part::Data(column), missing).expect("borne");
                recipe.terms().fold(0, |sum, term| sum ^ multiply(term.coefficient, self.bytes[term.slot.index()]))
            };
            (0..self.geometry.data_slots()).map(column).collect()
        }
    }

    /// Carries out every plan of every small array with every loss that it bears, and looks whether every column can be had
    /// afterwards with every further loss that it bears; then the same after a crash in which another member was lost and a
    /// replay, as rule L5 has it.
    #[test]
    fn every_plan_keeps_every_column_through_every_loss_also_one_in_the_crash() {
        let mut plans = [0u32; Level::ALL.len()];
        for geometry in geometries(1, 6, 1024) {
            for stripe in (0..u64::from(geometry.members())).map(StripeId) {
                for changed in 1..=geometry.all_columns() {
                    for missing in (0..=geometry.all_members()).filter(|&missing| geometry.bears(missing)) {
                        let plan = plan_destage(&geometry, stripe, changed, missing).expect("it bears that");
                        check(&geometry, stripe, changed, missing, &plan);
                        for lost in slots(geometry.all_members()).map(|slot| 1 << slot.0) {
                            let around = plan_destage_around(&geometry, stripe, changed, missing, lost | lost << 1);
                            let around = around.expect("it bears that");
                            check(&geometry, stripe, changed, missing, &around);
                        }
                        plans[Level::ALL.iter().position(|level| *level == geometry.level()).expect("listed")] += 1;
                    }
                }
            }
        }
        for (level, plans) in Level::ALL.iter().zip(plans) {
            assert!(plans > 200, "{level}: {plans} plans");
        }
    }

    fn check(geometry: &Geometry, stripe: StripeId, changed: u32, missing: u32, plan: &DestagePlan) {
        let context = || format!("{geometry:?} {stripe:?} {changed:#b} without {missing:#b}: {plan:?}");
        let columns = geometry.data_slots();
        let old: Vec<u8> = (0..columns).map(|column| column.wrapping_mul(17) ^ 3).collect();
        let is_new = |column: u8| changed & 1 << column != 0;
        let new: Vec<u8> =
            (0..columns).map(|c| if is_new(c) { c.wrapping_mul(31) ^ 101 } else { old[usize::from(c)] }).collect();
        let before = Members::new(*geometry, stripe, &old);
        assert_eq!(plan.reads() & missing, 0, "reads what is missing: {}", context());

        // What the engine computes.
        let mut parities = Vec::new();
        for index in plan.parity_indices() {
            let from_old = slots(plan.reads())
                .fold(0, |sum, slot| sum ^ multiply(plan.old(index, slot), before.bytes[slot.index()]));
            let from_new = (0..columns)
                .filter(|&column| is_new(column))
                .fold(0, |sum, column| sum ^ multiply(weight(index, column), new[usize::from(column)]));
            assert_eq!(from_old ^ from_new, before.sum(index, &new), "parity {index}: {}", context());
            assert_eq!(missing & 1 << geometry.parity_member(stripe, index).0, 0, "not there: {}", context());
            parities.push((geometry.parity_member(stripe, index), from_old ^ from_new));
        }
        let mut writes: Vec<(Slot, u8)> = parities;
        for column in (0..columns).filter(|&column| is_new(column)) {
            writes.extend(slots(geometry.homes(stripe, column)).map(|slot| (slot, new[usize::from(column)])));
        }
        writes.retain(|(slot, _)| missing & 1 << slot.0 == 0);

        let mut after = Members::new(*geometry, stripe, &old);
        writes.iter().for_each(|&(slot, byte)| after.bytes[slot.index()] = byte);
        let further = |with: u32| (0..=geometry.all_members()).filter(move |more| geometry.bears(with | more));
        for more in further(missing) {
            assert_eq!(after.read(missing | more), new, "then without {more:#b}: {}", context());
        }
        let logged = matches!(plan.kind, DestageKind::ReadModifyWrite | DestageKind::ReconstructWrite);
        assert_eq!(plan.log_parity, logged, "{}", context());

        // A crash, with one more member lost in it: what is there is written again, whatever was written before, and nothing
        // else is known of those that are not.
        for crash_lost in further(missing).filter(|more| more.count_ones() <= 1) {
            let gone = missing | crash_lost;
            let mut replayed = Members::new(*geometry, stripe, &old);
            writes.iter().for_each(|&(slot, byte)| replayed.bytes[slot.index()] = byte);
            slots(gone & geometry.all_members()).for_each(|slot| replayed.bytes[slot.index()] = 0xee);
            for more in further(gone) {
                assert_eq!(replayed.read(gone | more), new, "lost {crash_lost:#b} in the crash: {}", context());
            }
        }
    }

    #[test]
    fn the_cheaper_way_is_taken() {
        let kinds = |level, members, missing| {
            let geometry = Geometry::new(level, members, 1, 1024).expect("a geometry");
            move |changed| plan_destage(&geometry, StripeId(0), changed, missing).map(|plan| plan.kind)
        };
        let kind = kinds(Level::Raid5, 6, 0);
        assert_eq!(kind(0b00001), Ok(DestageKind::ReadModifyWrite));
        assert_eq!(kind(0b00011), Ok(DestageKind::ReadModifyWrite));
        assert_eq!(kind(0b00111), Ok(DestageKind::ReconstructWrite));
        assert_eq!(kind(0b11111), Ok(DestageKind::Full));
        // Six columns: one and P and Q are three reads of eight, two and those are four like the rest.
        let kind = kinds(Level::Raid6, 8, 0);
        assert_eq!(kind(0b000001), Ok(DestageKind::ReadModifyWrite));
        assert_eq!(kind(0b000011), Ok(DestageKind::ReadModifyWrite));
        assert_eq!(kind(0b000111), Ok(DestageKind::ReconstructWrite));
        // P is on member 7, Q on member 0, columns from member 1 on.
        let kind = kinds(Level::Raid6, 8, 0b1000_0001);
        assert_eq!(kind(0b000001), Ok(DestageKind::DataOnly));
        let kind = kinds(Level::Raid6, 8, 0b0000_0110);
        assert_eq!(kind(0b000001), Ok(DestageKind::ReconstructWrite), "with all that is there");
        assert_eq!(kind(0b000100), Ok(DestageKind::ReadModifyWrite));
        let kind = kinds(Level::Raid10, 4, 0);
        assert_eq!(kind(0b01), Ok(DestageKind::DataOnly));
    }

    #[test]
    fn both_parities_are_read_where_the_plan_says_so_and_nothing_twice() {
        let geometry = Geometry::new(Level::Raid6, 6, 1, 1024).expect("a geometry");
        let reads = |changed, missing| plan_destage(&geometry, StripeId(0), changed, missing).map(|plan| plan.reads());
        // P on member 5, Q on member 0, columns on members 1 to 4.
        assert_eq!(reads(0b0001, 0b00_0000), Ok(0b10_0011));
        assert_eq!(reads(0b0111, 0b00_0000), Ok(0b01_0000));
        assert_eq!(reads(0b0001, 0b00_0110), Ok(0b11_1001));
        assert_eq!(reads(0b1111, 0b00_0110), Ok(0));
    }

    #[test]
    fn what_is_lost_is_read_only_where_there_is_no_way_around_it() {
        let geometry = Geometry::new(Level::Raid5, 6, 1, 1024).expect("a geometry");
        let plan = |changed, lost| {
            let plan = plan_destage_around(&geometry, StripeId(0), changed, 0, lost).expect("all are there");
            (plan.kind, plan.reads() & lost)
        };
        let home = |column| 1 << geometry.member_of(StripeId(0), column).0;
        let parity = 1 << geometry.parity_member(StripeId(0), 0).0;
        assert_eq!(plan(0b00001, 0), (DestageKind::ReadModifyWrite, 0));
        assert_eq!(plan(0b00001, home(0) | parity), (DestageKind::ReconstructWrite, 0));
        assert_eq!(plan(0b00111, home(3) | home(4)), (DestageKind::ReadModifyWrite, 0));
        assert_eq!(plan(0b00011, home(0) | home(4)), (DestageKind::ReadModifyWrite, home(0)), "neither way");
        assert_eq!(plan(0b11111, home(0) | home(4)), (DestageKind::Full, 0));
    }

    #[test]
    fn more_losses_than_the_level_bears_are_too_many() {
        let five = Geometry::new(Level::Raid5, 4, 1, 1024).expect("a geometry");
        assert_eq!(plan_destage(&five, StripeId(0), 1, 0b11), Err(Lost));
        assert_eq!(plan_read(&five, StripeId(0), 0, 0b0011), ReadPlan::Lost);
        assert!(matches!(plan_read(&five, StripeId(0), 0, 0b0001), ReadPlan::Reconstruct(_)));
        assert_eq!(plan_read(&five, StripeId(0), 0, 0b0010), ReadPlan::Direct(Slot(0)));
        let zero = Geometry::new(Level::Raid0, 2, 1, 1024).expect("a geometry");
        assert_eq!(plan_destage(&zero, StripeId(0), 1, 0b10), Err(Lost));
        assert_eq!(plan_read(&zero, StripeId(0), 0, 0b10), ReadPlan::Direct(Slot(0)), "what is there can be read");
        let ten = Geometry::new(Level::Raid10, 4, 1, 1024).expect("a geometry");
        assert!(plan_destage(&ten, StripeId(0), 1, 0b0110).is_ok());
        assert_eq!(plan_destage(&ten, StripeId(0), 1, 0b0011), Err(Lost));
    }

    #[test]
    fn mirrors_take_turns() {
        let one = Geometry::new(Level::Raid1, 3, 2, 1024).expect("a geometry");
        let homes = |missing| [0, 1, 2, 4, 6].map(|stripe| plan_read(&one, StripeId(stripe), 0, missing));
        assert_eq!(homes(0), [0, 0, 1, 2, 0].map(|slot| ReadPlan::Direct(Slot(slot))));
        assert_eq!(homes(0b001), [1, 1, 2, 1, 2].map(|slot| ReadPlan::Direct(Slot(slot))));
    }
}
