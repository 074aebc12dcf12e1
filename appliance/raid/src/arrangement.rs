//! Where the blocks of an array lie at a moment: by one geometry, or, while it gets further members, by one below a boundary and
//! by another from there on. Whoever serves an array asks here, by block or by stripe, and never takes one geometry for all of it.

use base::ids::{ArrayBlock, StripeId, ZoneId};

use crate::geometry::{Geometry, Place};
use crate::reshape::Reshape;

/// Where blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    geometry: Geometry,
    reshape: Option<Reshape>,
}

impl Arrangement {
    /// All of the array has one geometry.
    pub const fn of(geometry: Geometry) -> Self {
        Self { geometry, reshape: None }
    }

    /// The array gets further members.
    pub const fn reshaping(reshape: Reshape) -> Self {
        Self { geometry: *reshape.after(), reshape: Some(reshape) }
    }

    /// How far it is, if it gets further members.
    pub const fn reshape(&self) -> Option<&Reshape> {
        self.reshape.as_ref()
    }

    /// The geometry of all members that take part: what it has, or comes to. Level, chunks, stripes and zones are those of every
    /// stripe.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The geometry by which there is space for volumes. More members make more of it only once all has been moved.
    pub const fn space(&self) -> &Geometry {
        match &self.reshape {
            Some(reshape) => reshape.before(),
            None => &self.geometry,
        }
    }

    /// Data blocks that can be read and written.
    pub const fn blocks(&self) -> u64 {
        self.space().blocks()
    }

    /// The geometry of a stripe.
    pub fn at(&self, stripe: StripeId) -> &Geometry {
        match &self.reshape {
            Some(reshape) => reshape.at(stripe),
            None => &self.geometry,
        }
    }

    /// Where a data block lies; none if nothing is kept there.
    pub fn find(&self, block: ArrayBlock) -> Option<Place> {
        match &self.reshape {
            Some(reshape) => reshape.locate(block),
            None => (block.0 < self.geometry.blocks()).then(|| self.geometry.locate(block)),
        }
    }

    /// Where a data block lies.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn locate(&self, block: ArrayBlock) -> Place {
        match self.find(block) {
            Some(place) => place,
            None => panic!("{block:?} lies beyond the array's {} blocks", self.blocks()),
        }
    }

    /// The data block of a stripe's column. While the array gets further members it may have been moved from there.
    pub fn array_block(&self, stripe: StripeId, column: u8) -> ArrayBlock {
        self.at(stripe).array_block(stripe, column)
    }

    /// The zone of a stripe.
    pub const fn zone_of(&self, stripe: StripeId) -> ZoneId {
        self.geometry.zone_of(stripe)
    }

    /// The zone of a data block.
    pub fn zone_of_block(&self, block: ArrayBlock) -> ZoneId {
        self.zone_of(self.locate(block).stripe)
    }

    /// Stripes of a zone.
    pub const fn zone_stripes(&self) -> u64 {
        self.geometry.zone_stripes()
    }

    /// How many zones.
    pub const fn zones(&self) -> u64 {
        self.geometry.zones()
    }

    /// Blocks of a chunk.
    pub const fn chunk_blocks(&self) -> u32 {
        self.geometry.chunk_blocks()
    }

    /// Parity blocks of a stripe.
    pub const fn parities(&self) -> u8 {
        self.geometry.parities()
    }

    /// From a stripe on, how many have their parts on the same members: up to the end of a chunk row, or to the boundary.
    pub fn alike_from(&self, stripe: StripeId) -> u64 {
        let chunk = u64::from(self.chunk_blocks());
        let row = chunk - stripe.0 % chunk;
        match &self.reshape {
            Some(reshape) if stripe < reshape.boundary() => row.min(reshape.boundary().0 - stripe.0),
            _ => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::geometry::tests::geometries;

    #[test]
    fn of_one_geometry_it_says_what_that_says() {
        for geometry in geometries(4, 6, 2048) {
            let arrangement = Arrangement::of(geometry);
            assert_eq!((arrangement.blocks(), arrangement.reshape()), (geometry.blocks(), None));
            for block in (0..geometry.blocks()).map(ArrayBlock) {
                let place = geometry.locate(block);
                assert_eq!(arrangement.locate(block), place);
                assert_eq!(arrangement.array_block(place.stripe, place.column), block);
                assert_eq!(arrangement.zone_of_block(block), geometry.zone_of(place.stripe));
            }
        }
    }

    #[test]
    fn stripes_that_are_alike_have_their_parts_on_the_same_members() {
        let geometry = Geometry::new(Level::Raid6, 6, 256, 2048).expect("a geometry");
        for boundary in [0, 64, 192, 1024, 2048] {
            let reshape = Reshape::new(geometry, 5, StripeId(boundary), 64).expect("a reshape");
            let arrangement = Arrangement::reshaping(reshape);
            let parts = |stripe: u64| {
                let geometry = arrangement.at(StripeId(stripe));
                let all = crate::geometry::slots(geometry.all_members());
                all.map(move |slot| geometry.part_of(StripeId(stripe), slot)).collect::<Vec<_>>()
            };
            let mut stripe = 0;
            while stripe < 2048 {
                let alike = arrangement.alike_from(StripeId(stripe));
                assert!((stripe..stripe + alike).all(|other| parts(other) == parts(stripe)), "{boundary} {stripe}");
                assert!(
                    (stripe..stripe + alike)
                        .skip(1)
                        .all(|other| { arrangement.alike_from(StripeId(other)) == stripe + alike - other })
                );
                stripe += alike;
            }
        }
    }
}
