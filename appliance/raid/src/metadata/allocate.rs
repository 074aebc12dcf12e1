//! Hands out space of the array to volumes: first fit, in whole chunk rows. It keeps no state: what is free is what no
//! extent covers.

use super::{ExtentRecord, MAX_EXTENTS, MetadataError};
use crate::Geometry;

/// Data blocks of a chunk row, the unit of allocation. Always divides the array's size, since a zone is whole chunk rows.
pub(super) fn row_blocks(geometry: &Geometry) -> u64 {
    u64::from(geometry.chunk_blocks()) * u64::from(geometry.data_slots())
}

/// The whole chunk rows that no extent touches, in the order of their place. Extents may come in any order, may overlap
/// and may reach beyond the array: whoever read them from a device may ask before having checked them.
pub(super) fn gaps(extents: impl Iterator<Item = ExtentRecord>, geometry: &Geometry) -> Vec<ExtentRecord> {
    let row = row_blocks(geometry);
    let mut taken: Vec<ExtentRecord> = extents.collect();
    taken.sort_unstable_by_key(|extent| extent.start);
    let beyond = ExtentRecord { start: geometry.blocks(), blocks: 0 };
    let mut gaps = Vec::new();
    let mut free_from = 0u64;
    for extent in taken.into_iter().chain([beyond]) {
        let free_to = extent.start.min(geometry.blocks()) / row * row;
        if free_from < free_to {
            gaps.push(ExtentRecord { start: free_from, blocks: free_to - free_from });
        }
        let end = extent.start.saturating_add(extent.blocks).min(geometry.blocks());
        free_from = free_from.max(end.next_multiple_of(row));
    }
    gaps
}

/// Space for a volume: the first gap that holds all of it; if there is none, pieces from the front.
pub(super) fn first_fit(
    extents: impl Iterator<Item = ExtentRecord>,
    geometry: &Geometry,
    name: &str,
    blocks: u64,
) -> Result<Vec<ExtentRecord>, MetadataError> {
    let gaps = gaps(extents, geometry);
    let free = gaps.iter().map(|gap| gap.blocks).sum();
    let want = blocks.checked_next_multiple_of(row_blocks(geometry)).unwrap_or(u64::MAX);
    if want > free {
        return Err(MetadataError::NoSpace { name: name.into(), want, free });
    }
    if let Some(gap) = gaps.iter().find(|gap| gap.blocks >= want) {
        return Ok(vec![ExtentRecord { start: gap.start, blocks: want }]);
    }
    let mut rest = want;
    let mut pieces = Vec::new();
    for gap in gaps {
        if rest == 0 {
            break;
        }
        let blocks = gap.blocks.min(rest);
        pieces.push(ExtentRecord { start: gap.start, blocks });
        rest -= blocks;
    }
    assert!(rest == 0, "the gaps hold {free} blocks, and {want} were wanted");
    if pieces.len() > MAX_EXTENTS {
        return Err(MetadataError::Scattered(name.into()));
    }
    Ok(pieces)
}
