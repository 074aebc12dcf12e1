//! Compares: what to compare with, and whether a compare may have failed.

use base::ids::Lba;

use super::{Moment, NEVER, Oracle, Register};
use crate::stamp::{Found, Version};

impl Oracle {
    /// The youngest value that a block may hold: right unless others write to it.
    pub fn guess(&self, lba: Lba) -> Found {
        let youngest = |register: &Register| {
            let value = register.values.iter().rfind(|value| value.replaced == NEVER)?;
            Some(if value.zeros { Found::Zeros } else { Found::Version(value.version) })
        };
        self.registers.get(&lba).and_then(youngest).unwrap_or(Found::Zeros)
    }

    /// Whether blocks may have held something else than these at some time since `began`. The write of the compare itself, if
    /// there is one, does not count: it comes only if they did not.
    pub fn may_differ(&self, began: Moment, lba: Lba, expected: &[Found], own: Option<Version>) -> bool {
        (lba.0..).map(Lba).zip(expected).any(|(lba, &expected)| match self.registers.get(&lba) {
            None => expected != Found::Zeros,
            Some(register) => {
                let mut others = register.values.iter().filter(|value| Some(value.version) != own);
                others.any(|value| value.replaced > began && !value.is(expected))
            }
        })
    }

    /// A write that compared first did not happen, and never will.
    pub fn withdraw(&mut self, lba: Lba, blocks: u32, version: Version) {
        for lba in super::run(lba, blocks) {
            if let Some(register) = self.registers.get_mut(&lba) {
                register.values.retain(|value| value.version != version);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Lba = Lba(3);

    #[test]
    fn a_compare_may_fail_only_where_something_else_may_be() {
        let mut oracle = Oracle::default();
        oracle.begin_write(HERE, 1, Version(1), false);
        oracle.acknowledge(HERE, 1, Version(1));
        let expected = oracle.guess(HERE);
        assert_eq!((expected, oracle.guess(Lba(4))), (Found::Version(Version(1)), Found::Zeros));
        let began = oracle.begin_read();
        oracle.begin_write(HERE, 1, Version(2), false);
        assert!(!oracle.may_differ(began, HERE, &[expected, Found::Zeros], Some(Version(2))));
        oracle.begin_write(HERE, 1, Version(3), false);
        assert!(oracle.may_differ(began, HERE, &[expected], Some(Version(2))));
        oracle.withdraw(HERE, 1, Version(2));
        assert!(!oracle.permits(HERE, Found::Version(Version(2))));
    }
}
