//! How a part of a stripe is had from those members that are there: which to read, and with which coefficients to add up
//! what they hold. Whoever reads a block of a degraded array, rebuilds a member or repairs a block in place asks here; the
//! bytes are somebody else's.
//!
//! The mathematics is that of Linux MD (H. P. Anvin, "The mathematics of RAID-6"): with columns *d* of index *c*, in the field of
//! [`parity::field`],
//!
//! ```text
//! P = Σ d[c]      Q = Σ 2^c · d[c]
//! ```
//!
//! Everything here is linear, so there is one method for all losses. A wanted sum of columns is taken as it stands, and
//! multiples of P and Q are added to it that take the lost columns out of it: none for none, one for one, both for two. What the
//! parities then count of columns that are there is added once more, which takes it out again.

use base::ids::{Slot, StripeId};
use parity::field::{divide, multiply, power_of_two};
use thiserror::Error;

use crate::geometry::{Geometry, Part, slots};
use crate::level::MAX_MEMBERS;

/// More members are missing than the level bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more members are missing than the level bears")]
pub struct Lost;

/// What one member's block counts in a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// The member.
    pub slot: Slot,
    /// What its block is multiplied by; never zero. With 1 the sum is a plain exclusive or.
    pub coefficient: u8,
}

/// A weighted sum of members' blocks of one stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    coefficients: [u8; MAX_MEMBERS as usize],
}

impl Recipe {
    /// The sum of nothing, which is zeros.
    pub const EMPTY: Self = Self { coefficients: [0; MAX_MEMBERS as usize] };

    /// What one member holds.
    const fn only(slot: Slot) -> Self {
        let mut coefficients = [0; MAX_MEMBERS as usize];
        coefficients[slot.index()] = 1;
        Self { coefficients }
    }

    /// What is to be read and how it counts, by slot.
    pub fn terms(&self) -> impl Iterator<Item = Term> + use<'_> {
        let all = (0..MAX_MEMBERS).map(Slot).zip(self.coefficients);
        all.filter(|&(_, coefficient)| coefficient != 0).map(|(slot, coefficient)| Term { slot, coefficient })
    }

    /// How many blocks are read.
    pub fn len(&self) -> usize {
        self.terms().count()
    }

    /// Whether nothing is read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members to be read, as a bit mask.
    pub fn members(&self) -> u32 {
        self.terms().fold(0, |mask, term| mask | 1 << term.slot.0)
    }

    /// How a member's block counts; zero if it does not.
    pub const fn coefficient(&self, slot: Slot) -> u8 {
        self.coefficients[slot.index()]
    }
}

/// What a column counts in a parity.
pub const fn weight(index: u8, column: u8) -> u8 {
    if index == 0 { 1 } else { power_of_two(column) }
}

/// How a part of a stripe is had while the members in `missing` (a bit mask) are not there or not to be asked: from its own
/// member if that is there, else from the others. To see what a member's block ought to be, count that member as missing.
pub fn recipe(geometry: &Geometry, stripe: StripeId, wanted: Part, missing: u32) -> Result<Recipe, Lost> {
    if let Some(home) = slots(geometry.homes_of(stripe, wanted) & !missing).next() {
        return Ok(Recipe::only(home));
    }
    let counts = |column| match wanted {
        Part::Data(own) => u8::from(own == column),
        Part::Parity(index) => weight(index, column),
    };
    sum_of_columns(geometry, stripe, missing, counts, None)
}

/// What is added of each parity: P's multiple, Q's multiple.
pub(crate) type Multiples = [u8; 2];

/// How a sum of columns, each with its own weight, is had: by adding these multiples of the parities to it, or those that it
/// takes while these members are missing.
pub(crate) fn sum_of_columns(
    geometry: &Geometry,
    stripe: StripeId,
    missing: u32,
    counts: impl Fn(u8) -> u8,
    multiples: Option<Multiples>,
) -> Result<Recipe, Lost> {
    let is_there = |part| geometry.homes_of(stripe, part) & !missing != 0;
    let multiples = match multiples {
        Some(multiples) => multiples,
        None => solve(geometry, &counts, is_there)?,
    };
    let mut recipe = Recipe::EMPTY;
    let mut add = |part, coefficient: u8| {
        if coefficient == 0 {
            return Ok(());
        }
        let home = slots(geometry.homes_of(stripe, part) & !missing).next().ok_or(Lost)?;
        recipe.coefficients[home.index()] = coefficient;
        Ok(())
    };
    for (index, &multiple) in (0..geometry.parities()).zip(&multiples) {
        add(Part::Parity(index), multiple)?;
    }
    let [p, q] = multiples;
    for column in 0..geometry.data_slots() {
        let in_parities = p ^ if q == 0 { 0 } else { multiply(q, weight(1, column)) };
        add(Part::Data(column), counts(column) ^ in_parities)?;
    }
    Ok(recipe)
}

/// The multiples of the parities that take the missing columns out of a sum.
fn solve(geometry: &Geometry, counts: &impl Fn(u8) -> u8, is_there: impl Fn(Part) -> bool) -> Result<Multiples, Lost> {
    let mut missing = (0..geometry.data_slots()).filter(|&column| !is_there(Part::Data(column)));
    let has = |index| index < geometry.parities() && is_there(Part::Parity(index));
    let (first, second) = (missing.next(), missing.next());
    if missing.next().is_some() {
        return Err(Lost);
    }
    match (first, second) {
        (Some(x), None) if counts(x) == 0 => Ok([0, 0]),
        (Some(x), None) if has(0) => Ok([counts(x), 0]),
        (Some(x), None) if has(1) => Ok([0, divide(counts(x), weight(1, x))]),
        (Some(x), Some(y)) if counts(x) == 0 && counts(y) == 0 => Ok([0, 0]),
        (Some(x), Some(y)) if has(0) && has(1) => {
            // p + q·2^x = counts(x) and p + q·2^y = counts(y); the weights of two columns differ.
            let q = divide(counts(x) ^ counts(y), weight(1, x) ^ weight(1, y));
            Ok([counts(x) ^ multiply(q, weight(1, x)), q])
        }
        (None, _) => Ok([0, 0]),
        _ => Err(Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::geometry::tests::geometries;

    /// A stripe of one byte a member, by the definition of the parities.
    fn stripe_of(geometry: &Geometry, stripe: StripeId, data: &[u8]) -> Vec<u8> {
        let content = |part| match part {
            Part::Data(column) => data[usize::from(column)],
            Part::Parity(0) => data.iter().fold(0, |sum, byte| sum ^ byte),
            // Horner's rule, unlike anything in the recipes.
            Part::Parity(_) => data.iter().rev().fold(0, |sum, byte| multiply(sum, 2) ^ byte),
        };
        (0..geometry.members()).map(|slot| content(geometry.part_of(stripe, Slot(slot)))).collect()
    }

    fn carry_out(recipe: &Recipe, members: &[u8]) -> u8 {
        recipe.terms().fold(0, |sum, term| sum ^ multiply(term.coefficient, members[term.slot.index()]))
    }

    #[test]
    fn whatever_is_lost_within_the_promise_every_part_is_had_from_what_is_left() {
        let (mut had, mut lost) = (0, 0);
        for geometry in geometries(1, 9, 1024) {
            let columns = usize::from(geometry.data_slots());
            let data: Vec<u8> = (0..columns).map(|column| (71 * column + 19) as u8).collect();
            for stripe in (0..u64::from(geometry.members())).map(StripeId) {
                let members = stripe_of(&geometry, stripe, &data);
                for missing in 0..=geometry.all_members() {
                    for slot in (0..geometry.members()).map(Slot) {
                        let wanted = geometry.part_of(stripe, slot);
                        let Ok(recipe) = recipe(&geometry, stripe, wanted, missing) else {
                            assert!(!geometry.bears(missing), "{geometry:?} without {missing:#b}: {wanted:?}");
                            lost += 1;
                            continue;
                        };
                        had += 1;
                        assert_eq!(recipe.members() & missing, 0, "{recipe:?} reads what is missing");
                        assert!(recipe.len() <= usize::from(geometry.members()));
                        assert_eq!(
                            carry_out(&recipe, &members),
                            members[slot.index()],
                            "{geometry:?} {missing:#b} {wanted:?}"
                        );
                    }
                }
            }
        }
        assert!(had > 30_000 && lost > 30_000, "{had} parts were had, {lost} lost");
    }

    #[test]
    fn every_pair_of_losses_of_the_widest_array_is_solved_for() {
        for members in [4, 5, 17, MAX_MEMBERS] {
            let geometry = Geometry::new(Level::Raid6, members, 1, 1024).expect("a geometry");
            let data: Vec<u8> = (0..geometry.data_slots()).map(|column| column.wrapping_mul(29) ^ 0xa5).collect();
            for stripe in [0, 1, 7].map(StripeId) {
                let all = stripe_of(&geometry, stripe, &data);
                for first in (0..members).map(Slot) {
                    for second in (0..members).map(Slot) {
                        let missing = 1 << first.0 | 1 << second.0;
                        for slot in [first, second] {
                            let recipe = recipe(&geometry, stripe, geometry.part_of(stripe, slot), missing)
                                .expect("two losses are borne");
                            assert_eq!(recipe.members() & missing, 0);
                            assert_eq!(carry_out(&recipe, &all), all[slot.index()]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_there_is_read_and_one_loss_takes_the_plain_sum() {
        let geometry = Geometry::new(Level::Raid6, 6, 1, 1024).expect("a geometry");
        // P on member 5, Q on member 0, columns from member 1 on.
        let (stripe, wanted) = (StripeId(0), Part::Data(1));
        let terms = |missing| {
            let recipe = recipe(&geometry, stripe, wanted, missing).expect("borne");
            recipe.terms().map(|term| (term.slot.0, term.coefficient)).collect::<Vec<_>>()
        };
        assert_eq!(terms(0), [(2, 1)]);
        assert_eq!(terms(0b10_0001), [(2, 1)]);
        assert_eq!(terms(0b00_0100), [(1, 1), (3, 1), (4, 1), (5, 1)]);
        // Of the mirrors the lowest that is there.
        let mirror = Geometry::new(Level::Raid10, 4, 1, 1024).expect("a geometry");
        let home = recipe(&mirror, stripe, wanted, 0b0100).expect("its partner is there");
        assert_eq!(home.terms().collect::<Vec<_>>(), [Term { slot: Slot(3), coefficient: 1 }]);
        assert_eq!(recipe(&mirror, stripe, wanted, 0b1100), Err(Lost));
    }
}
