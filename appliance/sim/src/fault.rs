//! What may go wrong, as data: planned for an effect, or for the moment at which it hurts most. The rack carries it out.

use base::Block;
use base::ids::{DeviceBlock, DeviceId};
use base::time::Span;
use journal::anchor;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails.
    PowerCut,
    /// From now on the power fails as soon as so much is written while such a write is in flight.
    PowerCutBehind {
        /// The write that is not durable yet.
        landmark: Landmark,
        /// Blocks written behind it, zeros and flushes not counted.
        blocks: u64,
    },
    /// A device fails and answers nothing from then on.
    Lost {
        /// The device.
        device: DeviceId,
        /// Whether it comes back at the next power-on, with the content it then had.
        returns: bool,
    },
    /// A device answers nothing for a while, and then everything; a power cut ends that too. Start-up code finds it working.
    Hang {
        /// The device.
        device: DeviceId,
        /// For how long; the longest span is for ever.
        span: Span,
    },
    /// A block cannot be read any more until it is written again.
    Unreadable {
        /// The device.
        device: DeviceId,
        /// The block.
        block: DeviceBlock,
    },
    /// A block holds something else from now on, until it is written again.
    Wrong {
        /// The device.
        device: DeviceId,
        /// The block.
        block: DeviceBlock,
        /// What it holds.
        damage: Damage,
    },
}

/// What a block holds instead of what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The same but for a bit.
    Flipped {
        /// Which.
        bit: u32,
    },
    /// Zeros: as if nothing had ever been written there.
    Zeroed,
    /// What another block of the device holds: as if a write had gone astray.
    CopyOf(DeviceBlock),
}

/// Writes that others must wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landmark {
    /// An anchor of the log. Only what is written to its own device counts as behind it.
    Anchor,
    /// A superblock of a member, written to exclude somebody.
    Superblock,
    /// A block of the bitmap of initialised zones.
    Bitmap,
    /// A block of that of missed zones.
    Missed,
}

/// A fault and when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// The effect during which it strikes, counted from one.
    pub effect: u64,
    /// What goes wrong.
    pub fault: Fault,
}

impl Landmark {
    /// Whether a block is such a write's first.
    pub fn is_in(self, block: &Block) -> bool {
        block.starts_with(match self {
            Self::Anchor => &anchor::MAGIC,
            Self::Superblock => &raid::superblock::MAGIC,
            Self::Bitmap => &raid::zone_bits::MAGIC,
            Self::Missed => &raid::zone_bits::MISSED_MAGIC,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::BLOCK;

    #[test]
    fn each_landmark_is_known_by_its_magic_and_by_no_other() {
        let all = [Landmark::Anchor, Landmark::Superblock, Landmark::Bitmap, Landmark::Missed];
        let bits = [raid::zone_bits::MAGIC, raid::zone_bits::MISSED_MAGIC];
        let magics = [anchor::MAGIC, raid::superblock::MAGIC, bits[0], bits[1]];
        for (index, magic) in magics.into_iter().enumerate() {
            let mut block = [0; BLOCK];
            block[..8].copy_from_slice(&magic);
            assert_eq!(all.map(|landmark| landmark.is_in(&block)), [0, 1, 2, 3].map(|other| other == index));
        }
    }
}
