//! What happened in a run, folded into one number: two runs of one seed must end with the same. Optionally says each event
//! aloud, for who looks into a failing seed. Changes nothing that happens.

use crate::random::scramble;

/// The running fold.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    aloud: bool,
}

impl Trace {
    /// An empty trace; `aloud` prints each event to the standard error.
    pub const fn new(aloud: bool) -> Self {
        Self { hash: 0, events: 0, aloud }
    }

    /// Adds an event: its name and the numbers that tell it from others.
    pub fn note(&mut self, name: &str, numbers: &[u64]) {
        for &byte in name.as_bytes() {
            self.hash = self.hash.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte);
        }
        for &number in numbers {
            self.hash = scramble(self.hash.rotate_left(5) ^ number);
        }
        self.events += 1;
        if self.aloud {
            eprintln!("{:>6} {name} {numbers:?}", self.events);
        }
    }

    /// The fold of all events so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The same trace that keeps silent from here on.
    pub fn silenced(&self) -> Self {
        Self { aloud: false, ..self.clone() }
    }
}

/// A number for the content of a block, so that a trace tells writes of different data apart.
pub fn fingerprint(block: &base::Block) -> u64 {
    block.chunks_exact(8).fold(0, |hash, word| {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_name_and_numbers_all_count() {
        let fold = |events: &[(&str, u64)]| {
            let mut trace = Trace::new(false);
            for &(name, number) in events {
                trace.note(name, &[number]);
            }
            trace.hash()
        };
        assert_eq!(fold(&[("a", 1), ("b", 2)]), fold(&[("a", 1), ("b", 2)]));
        assert_ne!(fold(&[("a", 1), ("b", 2)]), fold(&[("b", 2), ("a", 1)]));
        assert_ne!(fold(&[("a", 1)]), fold(&[("b", 1)]));
        assert_ne!(fold(&[("a", 1)]), fold(&[("a", 2)]));
    }
}
