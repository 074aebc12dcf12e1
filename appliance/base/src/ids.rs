//! Newtypes for numbers that must not be mixed. All addresses count blocks of [`crate::BLOCK`] bytes.

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number as an index into a table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

numbers! {
    /// A device of this process: its place in the table of opened devices. Not an identity: that is in the superblock.
    DeviceId(u16);
    /// A reactor and the shard that it turns.
    ShardId(u16);
    /// An array of this process.
    ArrayId(u16);
    /// One of the independent rings of a log.
    LaneId(u16);
    /// A member's place in the array's geometry.
    Slot(u8);
    /// A volume of this process: its place in the volume map.
    VolumeId(u32);
    /// A contiguous run of stripes: the unit of ownership.
    ZoneId(u64);
    /// A stripe row: one block per member, at the same place on each.
    StripeId(u64);
    /// A data block of an array: parity does not count.
    ArrayBlock(u64);
    /// A block of a device, from its very beginning.
    DeviceBlock(u64);
    /// A logical block of a volume.
    Lba(u64);
}
