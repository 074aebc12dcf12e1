//! What becomes of the requests of a killed host: nobody hears how they end, and once every shard has confirmed that none is
//! under way each write has happened or never will. The host that comes back looks at them first.

use base::ids::ShardId;
use engine::fence::Association;
use engine::io::MAX_REQUEST_BLOCKS;

use super::{Asked, Workload};
use crate::failure::Failure;
use crate::stamp::Version;

/// Most reads of a host that came back: it is to get to its own work again.
const AGAIN: usize = 16;

impl Workload {
    /// Logical blocks of a request at most.
    fn most_read(&self) -> u32 {
        // One that begins within a block has parts of one more.
        (MAX_REQUEST_BLOCKS - 1) * self.options.logical.per_block()
    }

    /// Kills a host now and then, but not while all is being verified: what it has under way is lost to it. The
    /// association that the shards are told of.
    pub fn kill(&mut self, shards: u16) -> Option<Association> {
        if self.verifying || self.left == 0 {
            return None;
        }
        let association = self.hosts.kill(shards)?;
        let of_it: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, asked)| asked.association.is_before(association))
            .map(|(&token, _)| token)
            .collect();
        for token in of_it {
            let asked = self.under_way.remove(&token).expect("it was there just now");
            self.killed.insert(token, asked);
        }
        Some(association)
    }

    /// A shard has nothing of an ended association under way. Once all have said so, each of its writes has happened or
    /// never will, and the host comes back.
    ///
    /// # Errors
    /// If something of it is under way after all.
    pub fn confirmed(&mut self, shard: ShardId, association: Association) -> Result<(), Failure> {
        if !self.hosts.confirmed(shard, association) {
            return Ok(());
        }
        if let Some((_, asked)) = self.killed.iter().find(|(_, asked)| asked.association.is_before(association)) {
            let (lba, blocks) = asked.runs[0];
            return Err(Failure::ConfirmedEarly { lba, blocks });
        }
        let (settled, others) =
            core::mem::take(&mut self.orphaned).into_iter().partition(|asked| asked.association.is_before(association));
        self.orphaned = others;
        let settled: Vec<Asked> = settled;
        for Asked { runs, version, .. } in settled {
            for (at, (lba, blocks)) in (0..).zip(runs) {
                let version = Version(version.0 + at);
                self.oracle.refuse(lba, blocks, version);
                if let Some(told) = &mut self.told {
                    told.refuse(lba, blocks, version);
                }
                if self.again.len() < AGAIN && (1..=self.most_read()).contains(&blocks) {
                    self.again.push_back((lba, blocks));
                }
            }
        }
        Ok(())
    }
}
