//! Whether a read saw concurrent writes whole: of a write's part within one atomic unit a read sees all or nothing (rule L11).
//! Where it cannot be told whether a value came before or after a write, it says nothing.

use std::collections::BTreeSet;

use base::ids::Lba;

use super::{INITIAL, Moment, Oracle, Value};
use crate::failure::Failure;
use crate::stamp::{Found, Version};

impl Oracle {
    /// Judges what a read that began at `began` found, from `lba` on, before anything is learnt from it. `unit` is the number
    /// of blocks of an atomic unit, at whose multiples the boundaries are.
    pub fn whole(&self, began: Moment, lba: Lba, found: &[Found], unit: u32) -> Result<(), Failure> {
        let unit = u64::from(unit);
        let mut at = 0;
        while at < found.len() as u64 {
            let end = (found.len() as u64).min((lba.0 + at) / unit * unit + unit - lba.0);
            let within = &found[at as usize..end as usize];
            self.whole_unit(began, Lba(lba.0 + at), within)?;
            at = end;
        }
        Ok(())
    }

    fn whole_unit(&self, began: Moment, lba: Lba, found: &[Found]) -> Result<(), Failure> {
        let blocks = (lba.0..).map(Lba).zip(found);
        let known = blocks.filter_map(|(lba, &found)| Some((lba, &self.registers.get(&lba)?.values, found)));
        let known: Vec<(Lba, &Vec<Value>, Value)> =
            known.filter_map(|(lba, values, found)| Some((lba, values, only(values, began, found)?))).collect();
        let versions: BTreeSet<Version> =
            known.iter().flat_map(|(_, values, _)| values.iter().map(|value| value.version)).collect();
        for version in versions.into_iter().filter(|&version| version != INITIAL) {
            let mut first: Option<(Lba, bool)> = None;
            for &(lba, values, seen) in &known {
                let Some(own) = values.iter().find(|value| value.version == version) else { continue };
                let Some(happened) = had_happened(own, &seen) else { continue };
                let &mut (from, of_first) = first.get_or_insert((lba, happened));
                if of_first != happened {
                    return Err(Failure::TornRead { version: version.0, from, odd: lba });
                }
            }
        }
        Ok(())
    }
}

/// The value that was found, if only one can have been.
fn only(values: &[Value], began: Moment, found: Found) -> Option<Value> {
    let mut matches = values.iter().filter(|value| value.replaced > began && value.is(found));
    let first = matches.next()?;
    matches.next().is_none().then_some(*first)
}

/// Whether a write had taken effect on a block where a value was seen.
fn had_happened(own: &Value, seen: &Value) -> Option<bool> {
    if own.version == seen.version || own.happened && own.settled < seen.began {
        Some(true)
    } else if seen.settled < own.began {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u32 = 4;

    fn version(number: u64) -> Found {
        Found::Version(Version(number))
    }

    fn torn(oracle: &mut Oracle, lba: u64, found: &[Found]) -> bool {
        let began = oracle.begin_read();
        oracle.whole(began, Lba(lba), found, UNIT).is_err()
    }

    fn written_once() -> Oracle {
        let mut oracle = Oracle::default();
        oracle.begin_write(Lba(0), 8, Version(1), false);
        oracle.acknowledge(Lba(0), 8, Version(1));
        oracle
    }

    #[test]
    fn a_write_is_seen_whole_or_not_at_all_within_a_unit_and_not_across() {
        let mut oracle = written_once();
        oracle.begin_write(Lba(2), 4, Version(2), false);
        assert!(!torn(&mut oracle, 0, &[version(1); 8]));
        assert!(!torn(&mut oracle, 2, &[version(2); 4]));
        assert!(!torn(&mut oracle, 2, &[version(1), version(1), version(2), version(2)]), "two units");
        assert!(torn(&mut oracle, 0, &[version(1), version(1), version(1), version(2)]));
        assert!(torn(&mut oracle, 2, &[version(2), version(1)]));
    }

    #[test]
    fn what_lies_behind_a_write_is_older_and_what_came_later_is_newer() {
        let mut oracle = written_once();
        let began = oracle.begin_read();
        oracle.begin_write(Lba(0), 2, Version(2), false);
        oracle.acknowledge(Lba(0), 2, Version(2));
        oracle.begin_write(Lba(1), 1, Version(3), false);
        assert!(oracle.whole(began, Lba(0), &[version(1), version(3)], UNIT).is_err());
        assert!(oracle.whole(began, Lba(0), &[version(2), version(3)], UNIT).is_ok());
        assert!(oracle.whole(began, Lba(0), &[version(1), version(1)], UNIT).is_ok());
    }

    #[test]
    fn of_concurrent_writes_nothing_is_said_that_cannot_be_told() {
        let mut oracle = written_once();
        oracle.begin_write(Lba(0), 2, Version(2), false);
        oracle.begin_write(Lba(1), 1, Version(3), false);
        assert!(!torn(&mut oracle, 0, &[version(2), version(3)]));
        assert!(!torn(&mut oracle, 0, &[version(1), version(3)]), "3 may have come first");
    }
}
