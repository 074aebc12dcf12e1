//! Logical blocks in the blocks of buffers: where each lies.

use base::BLOCK;
use base::ids::Lba;
use base::sector::LogicalBlock;
use ports::{BufferList, Buffers};

/// What stands in the margins of what is written: it must never be read back.
const MARGIN: u8 = 0xee;

/// Fills a run of logical blocks, each by itself, and spoils what lies beside them.
pub(super) fn fill_run(
    pool: &mut impl Buffers,
    buffers: &BufferList,
    logical: LogicalBlock,
    lba: Lba,
    count: u32,
    mut fill: impl FnMut(&mut [u8], Lba),
) {
    let mut places = places(logical, lba, count);
    let mut place = places.next();
    let mut at = buffers.first();
    for block in 0.. {
        let Some(buffer) = at else { break };
        let bytes = pool.bytes_mut(buffer);
        bytes.fill(MARGIN);
        while let Some((lba, _, start)) = place.filter(|&(_, of, _)| of == block) {
            fill(&mut bytes[start..start + logical.bytes() as usize], lba);
            place = places.next();
        }
        at = pool.next(buffer);
    }
    assert!(place.is_none(), "there is a buffer for each block");
}

/// Looks at a run of logical blocks, each by itself.
pub(super) fn each(
    pool: &impl Buffers,
    buffers: &BufferList,
    logical: LogicalBlock,
    lba: Lba,
    count: u32,
    mut look: impl FnMut(&[u8], Lba),
) {
    let ids: Vec<_> = buffers.ids(pool).collect();
    for (lba, block, start) in places(logical, lba, count) {
        look(&pool.bytes(ids[block])[start..start + logical.bytes() as usize], lba);
    }
}

/// Each logical block of a run: its address, in which block of the run it lies, and from which byte of that on.
fn places(logical: LogicalBlock, lba: Lba, count: u32) -> impl Iterator<Item = (Lba, usize, usize)> {
    let size = u64::from(logical.bytes());
    let lead = lba.0 * size % BLOCK as u64;
    (0..u64::from(count)).map(move |offset| {
        let byte = (lead + offset * size) as usize;
        (Lba(lba.0 + offset), byte / BLOCK, byte % BLOCK)
    })
}
