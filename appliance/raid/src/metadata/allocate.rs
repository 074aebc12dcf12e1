//! Hands out space of the array to volumes: first fit, in whole chunks. It keeps no state: what is free is what no extent
//! covers.
//!
//! A volume begins with a chunk row and takes whole ones, wherever that can be: then what hosts write in one go fills stripes. An
//! array that got further members has longer rows than it had, and what was handed out before lies across them.
//!
//! Free space reads as zeros, always (rule L7). A new array's does: its zones are not initialised, or hold zeros. Space that a
//! volume gives back stays covered by its record until zeros for all of it are durable in the log, which the engine writes
//! like any host. A crash in between leaves the record, and with it the duty.

use super::ExtentRecord;
use crate::Geometry;

/// Data blocks of a chunk row. Always divides the array's size, since a zone is whole chunk rows.
pub(super) fn row_blocks(geometry: &Geometry) -> u64 {
    u64::from(geometry.chunk_blocks()) * u64::from(geometry.data_slots())
}

/// The whole chunks that no extent touches, in the order of their place. Extents may come in any order, may overlap
/// and may reach beyond the array: whoever read them from a device may ask before having checked them.
pub(super) fn gaps(extents: impl Iterator<Item = ExtentRecord>, geometry: &Geometry) -> Vec<ExtentRecord> {
    let chunk = u64::from(geometry.chunk_blocks());
    let mut taken: Vec<ExtentRecord> = extents.collect();
    taken.sort_unstable_by_key(|extent| extent.start);
    let beyond = ExtentRecord { start: geometry.blocks(), blocks: 0 };
    let mut gaps = Vec::new();
    let mut free_from = 0u64;
    for extent in taken.into_iter().chain([beyond]) {
        let free_to = extent.start.min(geometry.blocks()) / chunk * chunk;
        if free_from < free_to {
            gaps.push(ExtentRecord { start: free_from, blocks: free_to - free_from });
        }
        let end = extent.start.saturating_add(extent.blocks).min(geometry.blocks());
        free_from = free_from.max(end.next_multiple_of(chunk));
    }
    gaps
}

/// `want` blocks out of gaps that hold them: from the first chunk row on that a gap holds all behind; else the first gap that
/// holds all; if there is none, pieces from the front.
pub(super) fn first_fit(gaps: &[ExtentRecord], want: u64, row: u64) -> Vec<ExtentRecord> {
    let whole_rows = |gap: &ExtentRecord| {
        let start = gap.start.next_multiple_of(row);
        (start + want <= gap.start + gap.blocks).then_some(start)
    };
    let anywhere = || gaps.iter().find(|gap| gap.blocks >= want).map(|gap| gap.start);
    if let Some(start) = gaps.iter().find_map(whole_rows).or_else(anywhere) {
        return vec![ExtentRecord { start, blocks: want }];
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
    assert!(rest == 0, "the gaps hold {want} blocks but for {rest}");
    pieces
}
