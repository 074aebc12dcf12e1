//! How the buffer pool is shared out: to hosts' data under way, to what each array sets aside, and to the caches of dirty
//! blocks. `serve` goes by it and `check` shows it. It allocates nothing.

use base::BLOCK;
use config::Config;
use config::schema::{Array, Checksums};
use engine::array::{INDEX_BYTES_A_BLOCK, checksum_set_aside_blocks, set_aside_blocks};
use engine::front::FrontLimits;
use thiserror::Error;

/// Fewest cache blocks of a shard and array worth having.
const MIN_CACHE_BLOCKS: usize = 1024;

/// One part in so many of the pool is for checksum blocks, if there are any.
const CHECKSUM_PART: usize = 16;

/// How the buffer pool is shared out, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The whole pool, as configured.
    pub pool_blocks: usize,
    /// Each shard's share for hosts' data under way.
    pub front: FrontLimits,
    /// Each shard's cache, of each array.
    pub cache_blocks: usize,
    /// Reactors that share it.
    pub shards: u16,
    /// Checksum blocks that each shard has at hand, of each array that keeps checksums.
    pub checksum_blocks: usize,
}

/// Why the memory cannot be shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BudgetError {
    /// The operator gave too little.
    #[error(
        "reactors.memory is too small: it is {have} MiB, and {arrays} array(s) on {shards} reactor(s) need at least {need} MiB. \
         Give more, or use fewer reactors"
    )]
    TooSmall {
        /// As configured, in mebibytes.
        have: u64,
        /// As needed, in mebibytes.
        need: u64,
        /// Arrays that share it.
        arrays: usize,
        /// Reactors that share it.
        shards: u16,
    },
}

impl Budget {
    /// The shares of a configuration's memory among so many shards.
    pub fn of(config: &Config, shards: u16) -> Result<Self, BudgetError> {
        let pool_blocks = config.reactors.memory.blocks() as usize;
        let share = pool_blocks / usize::from(shards);
        let front = FrontLimits::of_pool(share);
        let checksum_blocks = share / CHECKSUM_PART / config.arrays.len().max(1);
        let aside: usize =
            config.arrays.iter().map(|array| set_aside(array, array.members.len(), checksum_blocks)).sum();
        let used = front.in_capsule_blocks + front.data_blocks + aside;
        let arrays = config.arrays.len().max(1);
        let cache_blocks = share.saturating_sub(used) / arrays;
        if cache_blocks < MIN_CACHE_BLOCKS {
            let missing = (MIN_CACHE_BLOCKS - cache_blocks) * arrays + used.saturating_sub(share);
            let need = (pool_blocks + 2 * missing * usize::from(shards)) * BLOCK;
            return Err(BudgetError::TooSmall {
                have: config.reactors.memory.bytes() >> 20,
                need: (need as u64).div_ceil(1 << 20),
                arrays,
                shards,
            });
        }
        Ok(Self { pool_blocks, front, cache_blocks, shards, checksum_blocks })
    }

    /// Blocks of an array that may be dirty on each shard: more than its cache holds, if the log may have them alone.
    pub fn index_blocks(&self, array: &Array) -> usize {
        let blocks = index_bytes(array) as usize / INDEX_BYTES_A_BLOCK / usize::from(self.shards);
        blocks.max(self.cache_blocks)
    }

    /// Blocks that each shard sets aside for an array beyond that, if it has got more members than the configuration says.
    pub fn further_blocks(&self, array: &Array, members: usize) -> usize {
        let aside = |members| set_aside(array, members, self.checksum_blocks);
        aside(members).saturating_sub(aside(array.members.len()))
    }
}

/// Memory beside the pool for knowing what the log of an array has, in bytes.
pub fn index_bytes(array: &Array) -> u64 {
    array.log.as_ref().map_or(0, config::schema::Log::index_bytes)
}

/// Blocks that each shard sets aside for an array of so many members.
fn set_aside(array: &Array, members: usize, checksum_blocks: usize) -> usize {
    let checksums = match array.checksums {
        Checksums::On => checksum_set_aside_blocks(checksum_blocks, members),
        Checksums::Off => 0,
    };
    set_aside_blocks(members) + checksums + members + 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(memory: &str) -> Config {
        let text = config::DEMO.replace("memory: 256MiB", &format!("memory: {memory}"));
        config::parse(&text, "demo.yaml").unwrap().config
    }

    #[test]
    fn no_share_is_given_twice() {
        let config = demo("256MiB");
        for shards in 1..=4 {
            let budget = Budget::of(&config, shards).unwrap();
            let each = budget.front.in_capsule_blocks + budget.front.data_blocks + budget.cache_blocks;
            assert!(each * usize::from(shards) <= budget.pool_blocks && budget.cache_blocks >= MIN_CACHE_BLOCKS);
        }
    }

    #[test]
    fn what_is_said_to_be_enough_is_enough() {
        let mut config = demo("64MiB");
        let Err(BudgetError::TooSmall { have: 64, need, .. }) = Budget::of(&config, 16) else {
            panic!("64 MiB cannot do for 16 reactors");
        };
        config.reactors.memory = config::Size::from_mib(need);
        assert!(Budget::of(&config, 16).is_ok(), "{need} MiB were said to be enough");
    }
}
