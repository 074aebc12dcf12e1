//! What the blocks of a stripe say of each other, as they lie on the members: whether they agree, and if not which of them is
//! wrong, as far as anybody can tell; and from that what is to be written anew. Pure: the walk reads, and writes.
//!
//! What can be told depends on how many equations there are beyond those that stand for what is missing.
//!
//! | level | one block is wrong |
//! |---|---|
//! | RAID-0 | nothing is compared with anything |
//! | RAID-4, RAID-5; RAID-6 without one member; two mirrors | they disagree, and nobody can tell which is wrong |
//! | RAID-6 | it is located |
//! | three and more mirrors | it is outvoted |
//!
//! With P' and Q' what the columns sum up to, let *p* = P + P' and *q* = Q + Q'. A wrong P leaves *q* zero, a wrong Q leaves
//! *p* zero, and a column *c* that is wrong by *e* makes *p* = *e* and *q* = 2^*c* · *e*, in all its bytes (H. P. Anvin, "The
//! mathematics of RAID-6", section 4). So one column has to explain every byte of the block. Two stripes that are right differ
//! in three blocks at least; hence one wrong block is always located rightly, two are always noticed, and two are taken for
//! a third one only where every wrong byte of both happens to fit it: one time in 255 for each byte and column.

use base::Block;
use base::ids::{Slot, StripeId};
use parity::field::multiply;
use raid::level::MAX_MEMBERS;
use raid::{Geometry, Part, Repair, recipe, slots, weight};

/// The blocks of a stripe by slot; none where no member holds one, or it cannot be read.
pub type Row<'a> = [Option<&'a Block>; MAX_MEMBERS as usize];

/// What a stripe's blocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether anything was compared with anything.
    pub compared: bool,
    /// Slots whose blocks are wrong, as a bit mask: the others agree without them.
    pub wrong: u32,
    /// Slots of which some are wrong and nobody can tell which, as a bit mask.
    pub doubtful: u32,
}

impl Verdict {
    /// Whether all that was compared agrees.
    pub const fn agrees(&self) -> bool {
        self.wrong == 0 && self.doubtful == 0
    }
}

/// Compares the blocks of a stripe. What `scratch` holds does not matter.
pub fn judge(geometry: &Geometry, stripe: StripeId, row: &Row<'_>, scratch: &mut [Block; 2]) -> Verdict {
    if geometry.parities() > 0 {
        return judge_sums(geometry, stripe, row, scratch);
    }
    let mut verdict = Verdict::default();
    for column in 0..geometry.data_slots() {
        judge_mirrors(geometry.homes(stripe, column), row, &mut verdict);
    }
    verdict
}

/// The copies of one column: the majority is right, if there is one.
fn judge_mirrors(homes: u32, row: &Row<'_>, verdict: &mut Verdict) {
    let there = |slot: &Slot| row[slot.index()].is_some();
    let copies = || slots(homes).filter(there);
    let count = copies().count();
    if count < 2 {
        return;
    }
    verdict.compared = true;
    let like = |one: Slot| copies().filter(move |other| row[one.index()] == row[other.index()]);
    match copies().find(|&one| 2 * like(one).count() > count) {
        Some(right) => {
            let alike = like(right).fold(0, |mask: u32, slot| mask | 1 << slot.0);
            verdict.wrong |= copies().fold(0, |mask: u32, slot| mask | 1 << slot.0) & !alike;
        }
        None => verdict.doubtful |= copies().fold(0, |mask: u32, slot| mask | 1 << slot.0),
    }
}

/// The sums of columns against the parities that are there.
fn judge_sums(geometry: &Geometry, stripe: StripeId, row: &Row<'_>, [p, q]: &mut [Block; 2]) -> Verdict {
    let block = |part| slots(geometry.homes_of(stripe, part)).find_map(|slot| row[slot.index()]);
    let parity_block = |index| (index < geometry.parities()).then(|| block(Part::Parity(index))).flatten();
    let mut gone = (0..geometry.data_slots()).filter(|&column| block(Part::Data(column)).is_none());
    let (gone, more) = (gone.next(), gone.next());
    let present = slots(geometry.all_members()).filter(|slot| row[slot.index()].is_some());
    let present = present.fold(0, |mask: u32, slot| mask | 1 << slot.0);
    let add = |index: u8, sum: &mut Block| {
        sum.copy_from_slice(parity_block(index).expect("only parities that are there are looked at"));
        for column in 0..geometry.data_slots() {
            if let Some(data) = block(Part::Data(column)) {
                parity::multiply_into(sum, data, weight(index, column));
            }
        }
    };
    let doubt = |agrees: bool| Verdict { compared: true, wrong: 0, doubtful: if agrees { 0 } else { present } };
    match (parity_block(0).is_some(), parity_block(1).is_some(), gone) {
        (true, true, None) => {
            add(0, p);
            add(1, q);
            match locate(geometry, stripe, p, q) {
                Ok(wrong) => Verdict { compared: true, wrong, doubtful: 0 },
                Err(Unlocated) => doubt(false),
            }
        }
        // Each of them gives what is gone, and both have to give the same.
        (true, true, Some(column)) if more.is_none() => {
            add(0, p);
            add(1, q);
            parity::multiply_into(q, p, weight(1, column));
            doubt(is_zero(q))
        }
        (true, false, None) => {
            add(0, p);
            doubt(is_zero(p))
        }
        (false, true, None) => {
            add(1, q);
            doubt(is_zero(q))
        }
        _ => Verdict::default(),
    }
}

/// No single block explains what the sums say.
struct Unlocated;

/// The slot of the block that is wrong, as a bit mask; zero if none is.
fn locate(geometry: &Geometry, stripe: StripeId, p: &Block, q: &mut Block) -> Result<u32, Unlocated> {
    let parity_at = |index| Ok(1 << geometry.parity_member(stripe, index).0);
    match (is_zero(p), is_zero(q)) {
        (true, true) => return Ok(0),
        (false, true) => return parity_at(0),
        (true, false) => return parity_at(1),
        (false, false) => {}
    }
    let at = p.iter().position(|&byte| byte != 0).expect("it is not zeros");
    let explains = |column: &u8| multiply(weight(1, *column), p[at]) == q[at];
    let column = (0..geometry.data_slots()).find(explains).ok_or(Unlocated)?;
    parity::multiply_into(q, p, weight(1, column));
    if is_zero(q) { Ok(1 << geometry.member_of(stripe, column).0) } else { Err(Unlocated) }
}

fn is_zero(block: &Block) -> bool {
    block == &base::ZERO_BLOCK
}

/// Which slots of a stripe are written anew, as a bit mask, with what the others give. `missing` are those without a member,
/// `holes` those whose block cannot be read, as bit masks.
pub fn rewritten(
    geometry: &Geometry,
    stripe: StripeId,
    verdict: &Verdict,
    missing: u32,
    holes: u32,
    repair: Repair,
) -> u32 {
    let (distrusted, doubtful) = match repair {
        Repair::None => return 0,
        Repair::Located => (0, verdict.doubtful),
        Repair::Parity => distrusted(geometry, stripe, verdict.doubtful, missing | holes),
    };
    let written = verdict.wrong | distrusted;
    let can_be_had = |slot: &Slot| {
        let part = geometry.part_of(stripe, *slot);
        let beside = if geometry.parities() > 0 { doubtful } else { doubtful & geometry.homes_of(stripe, part) };
        beside == 0 && recipe(geometry, stripe, part, missing | holes | written).is_ok()
    };
    written | slots(holes & !missing).filter(can_be_had).fold(0, |mask, slot| mask | 1 << slot.0)
}

/// Where nobody can tell: what gives way to data, and what stays doubtful, as bit masks.
fn distrusted(geometry: &Geometry, stripe: StripeId, doubtful: u32, gone: u32) -> (u32, u32) {
    let columns = 0..geometry.data_slots();
    if geometry.parities() > 0 {
        let all_there = columns.map(|column| geometry.homes(stripe, column)).all(|homes| homes & gone == 0);
        let parities = (0..geometry.parities()).map(|index| 1 << geometry.parity_member(stripe, index).0);
        let parities = parities.fold(0, |mask: u32, slot: u32| mask | slot);
        return if all_there { (parities & doubtful, 0) } else { (0, doubtful) };
    }
    // Of the copies that are there, the first counts.
    let others =
        columns.map(|column| geometry.homes(stripe, column) & doubtful).map(|homes| homes & homes.wrapping_sub(1));
    (others.fold(0, |mask, homes| mask | homes), 0)
}

#[cfg(test)]
mod tests;
