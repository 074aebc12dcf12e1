//! Member files behind the appliance's back, and a load that shows what hosts see of them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use raid::{Geometry, Superblock};

use super::{BLOCK, Client, Place};

/// Blocks of the volume.
const BLOCKS: u64 = 2048;

/// Verified load: what hosts wrote, by block, and whether that is what they read.
pub(crate) struct Load(BTreeMap<u64, u8>);

impl Load {
    pub(crate) fn write(client: &mut Client) -> Self {
        let mut load = Self(BTreeMap::new());
        for at in 0..BLOCKS / 16 {
            // Not in order, and some of it twice.
            let lba = at * 37 % (BLOCKS / 16) * 16;
            client.write(lba, 16, at as u8 | 1);
            load.0.extend((lba..lba + 16).map(|lba| (lba, at as u8 | 1)));
        }
        load
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        self.0.keys().copied().collect::<Vec<_>>().into_iter()
    }

    pub(crate) fn wrong(&self, client: &mut Client) -> Vec<u64> {
        self.0.iter().filter(|&(&lba, &byte)| !client.holds(lba, byte)).map(|(&lba, _)| lba).collect()
    }
}

/// A member file as its superblock describes it.
pub(crate) struct Member {
    pub(crate) file: std::fs::File,
    pub(crate) superblock: Superblock,
}

impl Member {
    pub(crate) fn open(place: &Place, slot: usize) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(place.path(&format!("data/d{slot}.img"))).unwrap();
        let mut blocks = [[0; BLOCK]; 2];
        (1..).zip(&mut blocks).for_each(|(at, block)| file.read_exact_at(block, at * BLOCK as u64).unwrap());
        let superblock = Superblock::newest(&blocks[0], &blocks[1]).unwrap();
        assert_eq!(usize::from(superblock.slot), slot);
        Self { file, superblock }
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.superblock.geometry
    }

    /// Fills the blocks of stripes with rubbish, as a drive would that writes somewhere else.
    pub(crate) fn spoil(&self, stripes: core::ops::Range<u64>) {
        for stripe in stripes {
            let at = (self.superblock.layout.data.start + stripe) * BLOCK as u64;
            self.file.write_all_at(&[0x5a; 1000], at + 512).unwrap();
        }
    }
}
