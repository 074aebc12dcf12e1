//! What an array remembers of its last scrub, the reading and comparing of all that its members hold: how far it is, what is
//! done about blocks that are wrong, and what was found. All superblocks have it alike.

use base::cursor::{Reader, Truncated, Writer};
use serde::{Deserialize, Serialize};

/// A compatible feature: the superblock has a record of a scrub. Who does not know it loses the record and nothing else.
pub const FEATURE_SCRUB: u64 = 1;

/// Bytes of the record.
pub const SCRUB_BYTES: usize = 128;

/// What is done about blocks that are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing is ever written.
    None,
    /// Blocks that were located, or cannot be read, are put together from the others. The rest is left as it is.
    #[default]
    Located,
    /// And where nobody can tell, data is taken to be right: parities are computed from it, and mirrors are made what the
    /// first of them is.
    Parity,
}

impl Repair {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Located, Self::Parity];

    /// As commands, configurations and status say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Located => "located",
            Self::Parity => "parity",
        }
    }
}

/// How a scrub stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubState {
    /// It goes on.
    Running,
    /// It was told to wait.
    Paused,
    /// It has seen everything.
    Ended,
    /// It was told to stop before that.
    Stopped,
}

impl ScrubState {
    /// All of them, in the order of their codes, which begin with 1.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Ended, Self::Stopped];

    /// Whether there is more of it to come.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What was found, and done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubCounts {
    /// Stripes whose blocks did not agree.
    pub mismatched_stripes: u64,
    /// Blocks of them that were found to be wrong.
    pub located_blocks: u64,
    /// Stripes of them of which nobody can tell what is wrong.
    pub unlocated_stripes: u64,
    /// Blocks that their members could not read.
    pub unreadable_blocks: u64,
    /// Blocks that were written anew and are right since.
    pub repaired_blocks: u64,
    /// Blocks that were written anew in vain.
    pub unrepaired_blocks: u64,
    /// Stripes that could not be looked at.
    pub skipped_stripes: u64,
}

impl ScrubCounts {
    /// Adds what was found later.
    pub fn add(&mut self, later: &Self) {
        for (sum, later) in self.fields_mut().into_iter().zip(later.fields()) {
            *sum = sum.saturating_add(later);
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    const fn fields(&self) -> [u64; 7] {
        [
            self.mismatched_stripes,
            self.located_blocks,
            self.unlocated_stripes,
            self.unreadable_blocks,
            self.repaired_blocks,
            self.unrepaired_blocks,
            self.skipped_stripes,
        ]
    }

    const fn fields_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.mismatched_stripes,
            &mut self.located_blocks,
            &mut self.unlocated_stripes,
            &mut self.unreadable_blocks,
            &mut self.repaired_blocks,
            &mut self.unrepaired_blocks,
            &mut self.skipped_stripes,
        ]
    }
}

/// The last scrub, be it under way or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubRecord {
    /// How it stands.
    pub state: ScrubState,
    /// What is done about blocks that are wrong.
    pub repair: Repair,
    /// Stripes below this were seen.
    pub position: u64,
    /// When it began, in seconds since 1970, by the clock of whoever asked for it.
    pub began: u64,
    /// Bytes of each member a second at most, if it was asked for at another rate than the configuration's.
    pub rate: Option<u64>,
    /// What was found below the position.
    pub counts: ScrubCounts,
}

impl ScrubRecord {
    /// Writes it.
    pub(crate) fn encode(&self, to: &mut Writer<'_>) {
        let code = |at: Option<usize>| at.expect("all are listed") as u8;
        let state = code(ScrubState::ALL.iter().position(|state| *state == self.state)) + 1;
        let repair = code(Repair::ALL.iter().position(|repair| *repair == self.repair));
        to.u8(state).u8(repair).zeros(6).u64_le(self.position).u64_le(self.began).u64_le(self.rate.unwrap_or(0));
        for count in self.counts.fields() {
            to.u64_le(count);
        }
    }

    /// Reads it, trusting nothing. What is no record of an array of so many stripes, with zones of so many, is none: nothing
    /// depends on it.
    pub(crate) fn decode(bytes: &[u8], stripes: u64, zone_stripes: u64) -> Result<Option<Self>, Truncated> {
        let mut from = Reader::new(bytes);
        let (state, repair) = (from.u8()?, from.u8()?);
        from.skip(6)?;
        let (position, began, rate) = (from.u64_le()?, from.u64_le()?, from.u64_le()?);
        let mut counts = ScrubCounts::default();
        for count in counts.fields_mut() {
            *count = from.u64_le()?;
        }
        let state = usize::from(state).checked_sub(1).and_then(|at| ScrubState::ALL.get(at));
        let repair = Repair::ALL.get(usize::from(repair));
        let (Some(&state), Some(&repair)) = (state, repair) else { return Ok(None) };
        let is_possible = position <= stripes && position.is_multiple_of(zone_stripes);
        let rate = (rate > 0).then_some(rate);
        Ok(is_possible.then_some(Self { state, repair, position, began, rate, counts }))
    }
}

const _: () = assert!(4 * 8 + 7 * 8 <= SCRUB_BYTES);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> ScrubRecord {
        let counts = ScrubCounts {
            mismatched_stripes: 5,
            located_blocks: 4,
            unlocated_stripes: 1,
            unreadable_blocks: 7,
            repaired_blocks: 10,
            unrepaired_blocks: 1,
            skipped_stripes: 2,
        };
        let (state, repair) = (ScrubState::Paused, Repair::Parity);
        ScrubRecord { state, repair, position: 2048, began: 1_900_000_000, rate: Some(50 << 20), counts }
    }

    fn bytes(record: &ScrubRecord) -> [u8; SCRUB_BYTES] {
        let mut bytes = [0; SCRUB_BYTES];
        record.encode(&mut Writer::new(&mut bytes));
        bytes
    }

    #[test]
    fn every_record_comes_back_and_what_is_none_is_none() {
        for state in ScrubState::ALL {
            for repair in Repair::ALL {
                for rate in [None, Some(1)] {
                    let record = ScrubRecord { state, repair, rate, ..example() };
                    assert_eq!(ScrubRecord::decode(&bytes(&record), 4096, 1024), Ok(Some(record)));
                }
            }
        }
        let whole = bytes(&example());
        assert_eq!(ScrubRecord::decode(&[0; SCRUB_BYTES], 4096, 1024), Ok(None));
        assert_eq!(ScrubRecord::decode(&whole, 1024, 1024), Ok(None), "it lies beyond the end");
        assert_eq!(ScrubRecord::decode(&whole, 4096, 4096), Ok(None), "no whole zone");
        for (at, byte) in [(0, 5), (0, 255), (1, 3)] {
            let mut other = whole;
            other[at] = byte;
            assert_eq!(ScrubRecord::decode(&other, 4096, 1024), Ok(None));
        }
        for length in 0..88 {
            assert!(ScrubRecord::decode(&whole[..length], 4096, 1024).is_err());
        }
    }

    #[test]
    fn counts_add_up() {
        let mut sum = ScrubCounts::default();
        assert!(sum.is_clean());
        sum.add(&example().counts);
        sum.add(&example().counts);
        assert_eq!(sum.fields(), example().counts.fields().map(|count| 2 * count));
        assert!(!sum.is_clean());
    }
}
