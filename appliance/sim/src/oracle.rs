//! The oracle of contents: which values each block may have, given what was asked for, what was answered and when the power
//! failed. It treats a block as a register and each write as taking effect in one step between its beginning and its end:
//!
//! - An acknowledged write replaces every write that had ended before it began.
//! - A write that a power cut or an error ended has or has not taken effect, by then; nobody knows until it is read.
//! - What a read returned was the block's value during the read: everything that had ended before the read began lies behind
//!   it, for ever. So a value is never taken back, neither by a crash nor otherwise.
//!
//! It never looks at a device. Order is that of [`Moment`]s, which count everything that happens. What blocks have to do with
//! each other is judged in `torn`, and compares
//! in `compare`.

mod compare;
mod torn;

use std::collections::BTreeMap;

use base::ids::Lba;

use crate::failure::Failure;
use crate::stamp::{Found, Version};

/// A point in the order of all beginnings and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

const NEVER: Moment = Moment(u64::MAX);

/// The version of the zeros that every block holds at first.
const INITIAL: Version = Version(0);

#[derive(Clone, Copy, Debug)]
struct Value {
    version: Version,
    zeros: bool,
    began: Moment,
    /// It has taken effect by then, or never will.
    settled: Moment,
    /// It has taken effect for certain: it was acknowledged or seen.
    happened: bool,
    /// From then on it can no longer be the block's value; a read that began earlier may still return it.
    replaced: Moment,
}

#[derive(Clone, Debug)]
struct Register {
    values: Vec<Value>,
}

impl Default for Register {
    fn default() -> Self {
        let (began, settled) = (Moment(0), Moment(0));
        let initial = Value { version: INITIAL, zeros: true, began, settled, happened: true, replaced: NEVER };
        Self { values: vec![initial] }
    }
}

/// What is known of every block of a volume.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    registers: BTreeMap<Lba, Register>,
    now: u64,
    // Reads under way, by when they began: what they may still return is kept.
    reading: BTreeMap<u64, u32>,
}

impl Oracle {
    fn tick(&mut self) -> Moment {
        self.now += 1;
        Moment(self.now)
    }

    /// A write of these blocks begins; `zeros` says that it writes zeros and not its stamp.
    pub fn begin_write(&mut self, lba: Lba, blocks: u32, version: Version, zeros: bool) -> Moment {
        let began = self.tick();
        for lba in run(lba, blocks) {
            let value = Value { version, zeros, began, settled: NEVER, happened: false, replaced: NEVER };
            self.registers.entry(lba).or_default().values.push(value);
        }
        began
    }

    /// This moment, which comes after all others so far.
    pub fn moment(&mut self) -> Moment {
        self.tick()
    }

    /// A write was acknowledged.
    ///
    /// # Panics
    /// If it never began.
    pub fn acknowledge(&mut self, lba: Lba, blocks: u32, version: Version) {
        let now = self.tick();
        let keep = self.oldest_read();
        for lba in run(lba, blocks) {
            let register = self.registers.entry(lba).or_default();
            let own = register.values.iter_mut().find(|value| value.version == version);
            // One that a later write has replaced already, since it was seen to have taken effect, may be forgotten.
            let Some(own) = own else { continue };
            own.settled = own.settled.min(now);
            own.happened = true;
            let began = own.began;
            register.replace(now, |value| value.settled < began);
            register.forget(keep);
        }
    }

    /// A write ended with an error: it has or has not happened.
    pub fn refuse(&mut self, lba: Lba, blocks: u32, version: Version) {
        let now = self.tick();
        for lba in run(lba, blocks) {
            for value in &mut self.registers.entry(lba).or_default().values {
                if value.version == version {
                    value.settled = value.settled.min(now);
                }
            }
        }
    }

    /// A read begins. Its end is to be told with the moment returned.
    pub fn begin_read(&mut self) -> Moment {
        let now = self.tick();
        self.reading.insert(now.0, 0);
        now
    }

    /// A read that began at `began` found these, from `lba` on.
    pub fn end_read(&mut self, began: Moment, lba: Lba, found: &[Found]) -> Result<(), Failure> {
        let now = self.tick();
        self.reading.remove(&began.0);
        let keep = self.oldest_read();
        for (lba, &found) in run(lba, found.len() as u32).zip(found) {
            let register = self.registers.entry(lba).or_default();
            register.observe(began, now, lba, found)?;
            register.forget(keep);
        }
        Ok(())
    }

    /// A read ended without data.
    pub fn abandon_read(&mut self, began: Moment) {
        self.reading.remove(&began.0);
    }

    /// The power failed: all that was under way has ended.
    pub fn power_cut(&mut self) {
        let now = self.tick();
        self.reading.clear();
        for register in self.registers.values_mut() {
            for value in &mut register.values {
                value.settled = value.settled.min(now);
            }
            register.forget(now);
        }
    }

    /// The versions that a block may hold now, for people.
    pub fn permitted(&self, lba: Lba) -> String {
        self.registers
            .get(&lba)
            .map_or_else(|| Register::default().permitted(NEVER), |register| register.permitted(NEVER))
    }

    /// Whether a block may hold this now: for raw contents seen by other oracles. Learns nothing from it.
    pub fn permits(&self, lba: Lba, found: Found) -> bool {
        let initial = Register::default();
        let register = self.registers.get(&lba).unwrap_or(&initial);
        register.values.iter().any(|value| value.replaced == NEVER && value.is(found))
    }

    /// The version of the one value that a block can hold, if there is one; zeros that were never written are version 0.
    pub fn certain(&self, lba: Lba) -> Option<Version> {
        let Some(register) = self.registers.get(&lba) else { return Some(INITIAL) };
        let mut live = register.values.iter().filter(|value| value.replaced == NEVER);
        let first = live.next()?;
        live.next().is_none().then_some(first.version)
    }

    /// The blocks that were ever written or read.
    pub fn written(&self) -> impl Iterator<Item = Lba> + '_ {
        self.registers.keys().copied()
    }

    /// Whether a write that began at `began` has happened to a block, if that can be told: not when a write that did not
    /// end before it began may have hidden it.
    pub fn happened(&self, lba: Lba, version: Version, began: Moment) -> Option<bool> {
        let register = self.registers.get(&lba)?;
        let mut live = register.values.iter().filter(|value| value.replaced == NEVER);
        let only = live.next()?;
        if live.next().is_some() {
            return None;
        }
        if only.version == version {
            return Some(true);
        }
        (only.settled < began).then_some(false)
    }

    fn oldest_read(&self) -> Moment {
        self.reading.keys().next().map_or(NEVER, |&began| Moment(began))
    }
}

impl Value {
    fn is(&self, found: Found) -> bool {
        match found {
            Found::Zeros => self.zeros,
            Found::Version(version) => !self.zeros && self.version == version,
            Found::Elsewhere(..) | Found::Torn { .. } | Found::Garbage(_) => false,
        }
    }
}

impl Register {
    fn replace(&mut self, now: Moment, lies_behind: impl Fn(&Value) -> bool) {
        for value in &mut self.values {
            if lies_behind(value) {
                value.replaced = value.replaced.min(now);
            }
        }
    }

    /// Drops what no read under way can return: what was replaced before the oldest of them began.
    fn forget(&mut self, oldest_read: Moment) {
        self.values.retain(|value| value.replaced == NEVER || value.replaced > oldest_read);
    }

    fn observe(&mut self, began: Moment, now: Moment, lba: Lba, found: Found) -> Result<(), Failure> {
        let may_be = |value: &Value| value.replaced > began && value.is(found);
        let matches = self.values.iter().filter(|value| may_be(value)).count();
        if matches == 0 {
            return Err(Failure::Content { lba, found, permitted: self.permitted(began) });
        }
        for value in &mut self.values {
            if may_be(value) {
                // Of several writes of zeros nobody can say which was seen.
                if matches == 1 {
                    value.settled = value.settled.min(now);
                    value.happened = true;
                }
            } else if value.settled < began {
                value.replaced = value.replaced.min(now);
            }
        }
        Ok(())
    }

    fn permitted(&self, began: Moment) -> String {
        let words: Vec<String> = self
            .values
            .iter()
            .filter(|value| value.replaced == NEVER || value.replaced > began)
            .map(|value| match (value.zeros, value.version) {
                (true, INITIAL) => "the first zeros".into(),
                (true, version) => format!("zeros of {}", version.0),
                (false, version) => format!("version {}", version.0),
            })
            .collect();
        words.join(", ")
    }
}

fn run(lba: Lba, blocks: u32) -> impl Iterator<Item = Lba> {
    (0..u64::from(blocks)).map(move |offset| Lba(lba.0 + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Lba = Lba(3);

    fn write(oracle: &mut Oracle, version: u64) {
        oracle.begin_write(HERE, 1, Version(version), false);
    }

    fn acknowledge(oracle: &mut Oracle, version: u64) {
        oracle.acknowledge(HERE, 1, Version(version));
    }

    fn read(oracle: &mut Oracle, found: Found) -> bool {
        let began = oracle.begin_read();
        oracle.end_read(began, HERE, &[found]).is_ok()
    }

    fn version(number: u64) -> Found {
        Found::Version(Version(number))
    }

    #[test]
    fn an_acknowledged_write_replaces_what_was_before() {
        let mut oracle = Oracle::default();
        assert!(read(&mut oracle, Found::Zeros));
        write(&mut oracle, 1);
        acknowledge(&mut oracle, 1);
        assert_eq!(oracle.certain(HERE), Some(Version(1)));
        assert!(!read(&mut oracle.clone(), Found::Zeros));
        assert!(read(&mut oracle, version(1)));
        for wrong in [Found::Torn { first: 0, second: 1 }, Found::Garbage(1), Found::Elsewhere(Lba(4), Version(1))] {
            assert!(!read(&mut oracle.clone(), wrong));
        }
    }

    #[test]
    fn a_write_that_a_crash_ended_is_old_or_new_until_it_is_read() {
        for new in [false, true] {
            let mut oracle = Oracle::default();
            write(&mut oracle, 1);
            acknowledge(&mut oracle, 1);
            write(&mut oracle, 2);
            oracle.power_cut();
            let (seen, other) = if new { (2, 1) } else { (1, 2) };
            assert!(read(&mut oracle, version(seen)));
            assert!(!read(&mut oracle.clone(), version(other)), "it was read back as {seen}");
            oracle.power_cut();
            assert!(!read(&mut oracle.clone(), version(other)));
            assert!(read(&mut oracle, version(seen)));
        }
    }

    #[test]
    fn concurrent_writes_take_either_order_but_keep_it() {
        let mut oracle = Oracle::default();
        write(&mut oracle, 1);
        write(&mut oracle, 2);
        acknowledge(&mut oracle, 1);
        acknowledge(&mut oracle, 2);
        assert!(!read(&mut oracle.clone(), Found::Zeros));
        assert!(read(&mut oracle, version(1)));
        assert!(!read(&mut oracle.clone(), version(2)));
        oracle.power_cut();
        assert!(!read(&mut oracle, version(2)));
    }

    #[test]
    fn what_was_read_before_it_was_acknowledged_must_stay() {
        let mut oracle = Oracle::default();
        write(&mut oracle, 1);
        assert!(read(&mut oracle, version(1)));
        oracle.power_cut();
        assert!(!read(&mut oracle.clone(), Found::Zeros));
        assert!(read(&mut oracle, version(1)));
    }

    #[test]
    fn a_read_may_return_what_was_replaced_while_it_ran() {
        let mut oracle = Oracle::default();
        write(&mut oracle, 1);
        acknowledge(&mut oracle, 1);
        let began = oracle.begin_read();
        write(&mut oracle, 2);
        acknowledge(&mut oracle, 2);
        let mut other = oracle.clone();
        assert!(oracle.end_read(began, HERE, &[version(1)]).is_ok());
        assert!(other.end_read(began, HERE, &[version(2)]).is_ok());
        assert!(!read(&mut oracle, version(1)));
        assert!(!read(&mut other, version(1)));
    }

    #[test]
    fn zeros_written_twice_are_not_taken_for_one_another() {
        let mut oracle = Oracle::default();
        oracle.begin_write(HERE, 1, Version(1), true);
        assert!(read(&mut oracle, Found::Zeros), "the first zeros or the written ones");
        write(&mut oracle, 2);
        acknowledge(&mut oracle, 2);
        // The write of zeros is still under way: it may take effect after version 2.
        assert!(read(&mut oracle.clone(), version(2)));
        assert!(read(&mut oracle, Found::Zeros));
        assert!(!read(&mut oracle, version(2)));
    }

    #[test]
    fn a_refused_write_replaces_nothing_and_is_permitted() {
        let mut oracle = Oracle::default();
        write(&mut oracle, 1);
        oracle.refuse(HERE, 1, Version(1));
        assert!(oracle.permits(HERE, Found::Zeros) && oracle.permits(HERE, version(1)));
        assert_eq!(oracle.certain(HERE), None);
        write(&mut oracle, 2);
        acknowledge(&mut oracle, 2);
        assert!(!oracle.permits(HERE, version(1)));
        assert_eq!(oracle.permitted(HERE), "version 2");
    }
}
