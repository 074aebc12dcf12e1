//! What superblocks say of an array that gets further members: from how many, and how far it is ([`crate::reshape`]).
//!
//! The geometry that they name is the one that the array comes to. The record stays when all has been moved, since the log may
//! hold records of earlier geometry epochs by then: only with it can be told where their blocks lay. A start that follows a clean
//! stop finds none of these, and drops it.

use base::cursor::{Reader, Writer};
use base::ids::StripeId;

use crate::arrangement::Arrangement;
use crate::geometry::Geometry;
use crate::reshape::{Reshape, ReshapeError};
use crate::superblock::SuperblockError;

/// An array that gets, or got, further members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Members that it had before.
    pub members_before: u8,
    /// Stripes that move at a time.
    pub window_stripes: u32,
    /// Stripes below this have been moved.
    pub boundary: StripeId,
}

/// Bytes of it in the superblock.
pub(crate) const GROWTH_BYTES: usize = 16;

impl Growth {
    pub(crate) fn encode(&self, to: &mut Writer<'_>) {
        to.u8(self.members_before).zeros(3).u32_le(self.window_stripes).u64_le(self.boundary.0);
    }

    /// Reads it, for an array of that geometry and geometry epoch.
    pub(crate) fn decode(bytes: &[u8], geometry: &Geometry, geometry_epoch: u32) -> Result<Self, SuperblockError> {
        let mut from = Reader::new(bytes);
        let members_before = from.u8()?;
        from.skip(3)?;
        let (window_stripes, boundary) = (from.u32_le()?, StripeId(from.u64_le()?));
        let growth = Self { members_before, window_stripes, boundary };
        let reshape = growth.reshape(geometry).map_err(|_| SuperblockError::Malformed("its growth cannot be"))?;
        if u64::from(geometry_epoch) < reshape.steps() {
            return Err(SuperblockError::Malformed("it has grown further than its geometry epoch says"));
        }
        let left = (geometry.stripes() - boundary.0) / u64::from(window_stripes);
        if u64::from(geometry_epoch) + left > u32::MAX.into() {
            return Err(SuperblockError::Malformed(
                "its geometry epoch is too high to be counted on to the end of its growth",
            ));
        }
        Ok(growth)
    }

    /// The same as arithmetic.
    pub fn reshape(&self, geometry: &Geometry) -> Result<Reshape, ReshapeError> {
        Reshape::new(*geometry, self.members_before, self.boundary, self.window_stripes)
    }

    /// Whether all has been moved.
    pub fn is_over(&self, geometry: &Geometry) -> bool {
        self.boundary.0 >= geometry.stripes()
    }
}

/// Where the blocks of an array lie whose superblocks say this.
///
/// # Panics
/// If the growth is none of that geometry's: nobody decodes or writes such a thing.
pub fn arrangement(geometry: &Geometry, growth: Option<&Growth>) -> Arrangement {
    match growth {
        Some(growth) if !growth.is_over(geometry) => {
            Arrangement::reshaping(growth.reshape(geometry).expect("what was decoded can be"))
        }
        Some(_) | None => Arrangement::of(*geometry),
    }
}
