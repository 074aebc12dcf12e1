//! Requests that their host wants no more. What was aborted in part has or has not happened; what lay within one atomic unit
//! has not, and never will: none of it may ever be seen.

use std::collections::BTreeSet;

use engine::io::IoKind;

use super::{Asked, Workload};
use crate::random::Random;
use crate::stamp::Version;

/// Which requests are to be aborted.
#[derive(Clone, Debug)]
pub(super) struct Aborts {
    /// One step in so many brings an abort; with 0 none does.
    once_in: u64,
    random: Random,
    wanted: BTreeSet<u64>,
    aborted: u64,
}

impl Aborts {
    pub(super) fn new(once_in: u64, random: Random) -> Self {
        Self { once_in, random, wanted: BTreeSet::new(), aborted: 0 }
    }

    /// A request has ended; whether it may have been aborted.
    pub(super) fn ended(&mut self, token: u64) -> bool {
        self.wanted.remove(&token)
    }
}

impl Workload {
    /// Chooses a request that is to be aborted, now and then.
    pub fn abort(&mut self) -> Option<u64> {
        let Aborts { once_in, random, wanted, .. } = &mut self.aborts;
        if *once_in == 0 || self.verifying || self.left == 0 || !random.once_in(*once_in) {
            return None;
        }
        let tokens: Vec<u64> = self.under_way.keys().copied().collect();
        let token = (!tokens.is_empty()).then(|| random.choose(&tokens))?;
        wanted.insert(token);
        Some(token)
    }

    /// Requests that were aborted.
    pub fn aborted(&self) -> u64 {
        self.aborts.aborted
    }

    /// One was aborted.
    pub(super) fn was_aborted(&mut self, asked: Asked) {
        self.aborts.aborted += 1;
        let Asked { kind, runs, version, began, .. } = asked;
        if matches!(kind, IoKind::Read | IoKind::Compare | IoKind::CompareAndWrite) {
            self.oracle.abandon_read(began);
        }
        if matches!(kind, IoKind::Read | IoKind::Compare | IoKind::Flush) {
            return;
        }
        let unit = u64::from(self.options.atomic_blocks);
        let one = runs.len() == 1 && runs[0].1 > 0 && {
            let (lba, blocks) = runs[0];
            lba.0 / unit == (lba.0 + u64::from(blocks) - 1) / unit
        };
        for (at, (lba, blocks)) in (0..).zip(runs) {
            let version = Version(version.0 + at);
            for oracle in core::iter::once(&mut self.oracle).chain(&mut self.told) {
                if one {
                    oracle.withdraw(lba, blocks, version);
                } else {
                    oracle.refuse(lba, blocks, version);
                }
            }
        }
    }
}
