//! Every block of every width corrupted, with every loss that leaves something to compare with, against an oracle that knows no
//! syndromes: a block is wrong if the others agree without it.

use super::*;
use base::{BLOCK, ZERO_BLOCK};
use raid::Level;

const AT: [StripeId; 3] = [StripeId(0), StripeId(1), StripeId(7)];

fn geometry(level: Level, members: u8) -> Geometry {
    Geometry::new(level, members, 1, 1024).expect("a geometry")
}

/// Every array of so many members at most.
fn geometries(most: u8) -> impl Iterator<Item = Geometry> {
    let members = move |level: Level| {
        (level.min_members()..=most).step_by(usize::from(level.members_step())).map(move |count| geometry(level, count))
    };
    Level::ALL.into_iter().flat_map(members)
}

/// A stripe that is right, by slot: parities by Horner's rule.
fn stripe(geometry: &Geometry, at: StripeId) -> Vec<Block> {
    let data = |column: u8| -> Block {
        core::array::from_fn(|byte| (byte as u8).wrapping_mul(29) ^ column.wrapping_mul(87) ^ (byte >> 8) as u8)
    };
    let content = |part| match part {
        Part::Data(column) => data(column),
        Part::Parity(index) => {
            let mut sum = ZERO_BLOCK;
            for column in (0..geometry.data_slots()).rev() {
                if index > 0 {
                    parity::scale(&mut sum, 2);
                }
                parity::multiply_into(&mut sum, &data(column), 1);
            }
            sum
        }
    };
    (0..geometry.members()).map(|slot| content(geometry.part_of(at, Slot(slot)))).collect()
}

fn judged(geometry: &Geometry, at: StripeId, blocks: &[Block], gone: u32) -> Verdict {
    let mut row: Row<'_> = [None; MAX_MEMBERS as usize];
    for (slot, block) in blocks.iter().enumerate().filter(|(slot, _)| gone & 1 << slot == 0) {
        row[slot] = Some(block);
    }
    judge(geometry, at, &row, &mut [[0xee; BLOCK], [0xdd; BLOCK]])
}

/// What a slot's block ought to be by those of the others that are not gone.
fn by_others(geometry: &Geometry, at: StripeId, blocks: &[Block], slot: Slot, gone: u32) -> Option<Block> {
    let recipe = recipe(geometry, at, geometry.part_of(at, slot), gone | 1 << slot.0).ok()?;
    let mut sum = ZERO_BLOCK;
    for term in recipe.terms() {
        parity::multiply_into(&mut sum, &blocks[term.slot.index()], term.coefficient);
    }
    Some(sum)
}

/// Whether all blocks that are not gone are what the others say.
fn agree(geometry: &Geometry, at: StripeId, blocks: &[Block], gone: u32) -> bool {
    slots(geometry.all_members() & !gone)
        .all(|slot| by_others(geometry, at, blocks, slot, gone).is_none_or(|block| block == blocks[slot.index()]))
}

/// Damages of one block.
fn damages() -> [fn(&mut Block); 4] {
    [
        |block| block[0] ^= 1,
        |block| block[BLOCK - 1] ^= 0x80,
        |block| block.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= (at * 7 % 251) as u8 + 1),
        |block| block.fill(0x5c),
    ]
}

/// Writes what is to be written, as the walk does.
fn repair(geometry: &Geometry, at: StripeId, blocks: &mut [Block], gone: u32, mask: u32) {
    for slot in slots(mask) {
        blocks[slot.index()] = by_others(geometry, at, blocks, slot, gone | mask).expect("it can be had");
    }
}

#[test]
fn what_is_right_agrees_and_is_compared_wherever_there_is_something_to_compare_with() {
    for geometry in geometries(9) {
        for at in AT {
            let blocks = stripe(&geometry, at);
            for gone in (0..=geometry.all_members()).filter(|gone| gone.count_ones() <= 3) {
                let verdict = judged(&geometry, at, &blocks, gone);
                assert!(verdict.agrees(), "{geometry:?} without {gone:#b}: {verdict:?}");
                let is_told = |slot: Slot| by_others(&geometry, at, &blocks, slot, gone).is_some();
                let something = slots(geometry.all_members() & !gone).any(is_told);
                assert_eq!(verdict.compared, something && geometry.level() != Level::Raid0, "{geometry:?} {gone:#b}");
            }
        }
    }
}

#[test]
fn one_wrong_block_of_a_whole_stripe_is_located_wherever_it_can_be_and_is_put_right() {
    for geometry in geometries(MAX_MEMBERS).filter(|geometry| geometry.level() != Level::Raid0) {
        let at = AT[usize::from(geometry.members()) % AT.len()];
        let right = stripe(&geometry, at);
        for slot in slots(geometry.all_members()) {
            for damage in damages() {
                let mut blocks = right.clone();
                damage(&mut blocks[slot.index()]);
                let verdict = judged(&geometry, at, &blocks, 0);
                assert!(verdict.compared && !verdict.agrees(), "{geometry:?} {slot:?}");
                let is_located = match geometry.level() {
                    Level::Raid6 => true,
                    Level::Raid1 => geometry.members() > 2,
                    _ => false,
                };
                if !is_located {
                    assert!(verdict.wrong == 0 && verdict.doubtful & 1 << slot.0 != 0, "{geometry:?} {verdict:?}");
                    assert_eq!(rewritten(&geometry, at, &verdict, 0, 0, Repair::Located), 0);
                    continue;
                }
                assert_eq!((verdict.wrong, verdict.doubtful), (1 << slot.0, 0), "{geometry:?} {slot:?}");
                for choice in [Repair::Located, Repair::Parity] {
                    let mask = rewritten(&geometry, at, &verdict, 0, 0, choice);
                    assert_eq!(mask, 1 << slot.0);
                    let mut blocks = blocks.clone();
                    repair(&geometry, at, &mut blocks, 0, mask);
                    assert!(blocks == right, "{geometry:?} {slot:?}");
                }
                assert_eq!(rewritten(&geometry, at, &verdict, 0, 0, Repair::None), 0);
            }
        }
    }
}

#[test]
fn the_verdict_is_that_of_the_oracle_whatever_is_gone_and_whatever_two_blocks_are_wrong() {
    let (mut located, mut doubted) = (0, 0);
    for geometry in geometries(6).filter(|geometry| geometry.parities() > 0) {
        let at = AT[1];
        let right = stripe(&geometry, at);
        for gone in (0..=geometry.all_members()).filter(|&gone| geometry.bears(gone)) {
            for first in slots(geometry.all_members() & !gone) {
                for second in slots(geometry.all_members() & !gone) {
                    let mut blocks = right.clone();
                    blocks[first.index()][5] ^= 0x21;
                    blocks[second.index()][900..905].fill(0x77);
                    let verdict = judged(&geometry, at, &blocks, gone);
                    if !verdict.compared {
                        continue;
                    }
                    let alone = |slot: &Slot| agree(&geometry, at, &blocks, gone | 1 << slot.0);
                    assert_eq!(verdict.agrees(), agree(&geometry, at, &blocks, gone));
                    let can_locate = geometry.parities() == 2 && gone == 0;
                    let one = slots(geometry.all_members()).find(alone).filter(|_| can_locate && !verdict.agrees());
                    match one {
                        Some(slot) => {
                            assert_eq!((verdict.wrong, verdict.doubtful), (1 << slot.0, 0));
                            located += 1;
                        }
                        None => {
                            assert_eq!(verdict.wrong, 0, "{geometry:?} {first:?} {second:?}");
                            doubted += u32::from(verdict.doubtful != 0);
                        }
                    }
                }
            }
        }
    }
    assert!(located >= 15 && doubted > 300, "{located} {doubted}");
}

#[test]
fn two_wrong_blocks_are_noticed_at_every_width_also_where_they_look_like_a_third() {
    for members in [4, 5, 9, 17, MAX_MEMBERS] {
        let geometry = geometry(Level::Raid6, members);
        let right = stripe(&geometry, AT[2]);
        for first in 0..members {
            for second in 0..first {
                for (one, other) in [(3, 3), (3, 4)] {
                    let mut blocks = right.clone();
                    blocks[usize::from(first)][one] ^= 0x11;
                    blocks[usize::from(second)][other] ^= 0x2e;
                    let verdict = judged(&geometry, AT[2], &blocks, 0);
                    assert!(!verdict.agrees());
                    // Whoever is blamed, the stripe agrees without him.
                    let blamed = verdict.wrong;
                    assert!(blamed == 0 || one == other && agree(&geometry, AT[2], &blocks, blamed));
                }
            }
        }
    }
}

#[test]
fn mirrors_are_outvoted_by_more_than_half() {
    let geometry = geometry(Level::Raid1, 5);
    let at = AT[0];
    let right = stripe(&geometry, at);
    let wrong = |slots: &[(usize, u8)], gone| {
        let mut blocks = right.clone();
        slots.iter().for_each(|&(slot, byte)| blocks[slot].fill(byte));
        judged(&geometry, at, &blocks, gone)
    };
    assert_eq!(wrong(&[(1, 3), (4, 3)], 0).wrong, 0b10010);
    assert_eq!(wrong(&[(1, 3), (4, 5)], 0).wrong, 0b10010);
    assert_eq!(wrong(&[(1, 3), (4, 5)], 0b00001).doubtful, 0b11110, "two of four are no majority");
    assert_eq!(wrong(&[(0, 3), (1, 3), (4, 5)], 0).doubtful, 0b11111);
    assert_eq!(wrong(&[(0, 3), (1, 3), (4, 3)], 0).wrong, 0b01100, "the majority is believed");
    assert!(!wrong(&[(0, 3)], 0b11110).compared);
}

#[test]
fn each_pair_of_mirrors_is_judged_by_itself() {
    let geometry = geometry(Level::Raid10, 6);
    let at = AT[0];
    let mut blocks = stripe(&geometry, at);
    blocks[3][17] ^= 1;
    let verdict = judged(&geometry, at, &blocks, 0b000001);
    assert_eq!((verdict.wrong, verdict.doubtful, verdict.compared), (0, 0b001100, true));
    // A hole in another pair is filled all the same, one in this pair is not.
    assert_eq!(rewritten(&geometry, at, &verdict, 0b000001, 0b100000, Repair::Located), 0b100000);
    assert_eq!(rewritten(&geometry, at, &verdict, 0b000001, 0b000010, Repair::Located), 0, "it has no partner");
    assert_eq!(rewritten(&geometry, at, &verdict, 0b000001, 0, Repair::Parity), 0b001000, "the first copy counts");
}

#[test]
fn data_is_trusted_where_nobody_can_tell_and_all_of_it_is_there() {
    for (level, members) in [(Level::Raid4, 4), (Level::Raid5, 5), (Level::Raid6, 6)] {
        let geometry = geometry(level, members);
        let at = AT[1];
        let mut blocks = stripe(&geometry, at);
        let column = |column| geometry.member_of(at, column).index();
        let parities = (0..geometry.parities()).map(|index| 1u32 << geometry.parity_member(at, index).0).sum::<u32>();
        blocks[column(0)][8] ^= 4;
        blocks[column(1)][9] ^= 4;
        let verdict = judged(&geometry, at, &blocks, 0);
        assert_eq!(rewritten(&geometry, at, &verdict, 0, 0, Repair::Located), 0);
        let mask = rewritten(&geometry, at, &verdict, 0, 0, Repair::Parity);
        assert_eq!(mask, parities);
        let data = blocks.clone();
        repair(&geometry, at, &mut blocks, 0, mask);
        assert!(judged(&geometry, at, &blocks, 0).agrees());
        assert!(blocks[column(0)] == data[column(0)] && blocks[column(1)] == data[column(1)]);
        if level == Level::Raid6 {
            // Without a column there is nothing to compute parities from.
            let gone = 1 << column(2);
            let verdict = judged(&geometry, at, &data, gone);
            assert!(verdict.doubtful != 0);
            assert_eq!(rewritten(&geometry, at, &verdict, gone, 0, Repair::Parity), 0);
            assert_eq!(rewritten(&geometry, at, &verdict, 0, gone, Repair::Parity), 0);
        }
    }
}

#[test]
fn holes_are_filled_as_long_as_the_others_suffice_and_agree() {
    for geometry in geometries(6) {
        let at = AT[1];
        let right = stripe(&geometry, at);
        for missing in (0..=geometry.all_members()).filter(|&missing| geometry.bears(missing)) {
            for holes in (1..=geometry.all_members()).filter(|holes| holes & missing == 0 && holes.count_ones() <= 2) {
                let verdict = judged(&geometry, at, &right, missing | holes);
                let mask = rewritten(&geometry, at, &verdict, missing, holes, Repair::Located);
                if geometry.bears(missing | holes) {
                    assert_eq!(mask, holes, "{geometry:?} {missing:#b}");
                }
                let mut blocks = right.clone();
                slots(holes).for_each(|slot| blocks[slot.index()].fill(0));
                repair(&geometry, at, &mut blocks, missing | holes, mask);
                assert!(slots(mask).all(|slot| blocks[slot.index()] == right[slot.index()]));
            }
        }
    }
    let geometry = geometry(Level::Raid6, 5);
    let mut blocks = stripe(&geometry, AT[0]);
    blocks[2][2] ^= 2;
    let verdict = judged(&geometry, AT[0], &blocks, 0b1);
    assert!(verdict.doubtful != 0);
    assert_eq!(rewritten(&geometry, AT[0], &verdict, 0, 0b1, Repair::Located), 0, "one of the others is wrong");
}
