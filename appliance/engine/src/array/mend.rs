//! A block that its member cannot read, or that is not what its checksum says, is put together from the stripe's other blocks, written to its place again and read
//! back: most drives give such a place another sector when it is written. Who needs the block (a host's read, a destage)
//! waits for the end and gets the content, whether the drive took it or not.
//!
//! Why writing to a member here, past the log, opens no write hole. What is written is what the stripe's other blocks say the
//! block holds, so every equation of the stripe stays as it is: before the write, after it, and wherever a crash cuts it, the
//! block is unreadable or what it was, or by sectors one or the other. Nobody else changes the stripe meanwhile: a mend
//! begins only while no destage has begun that does not wait for whoever wants the block, and it counts as a read, whose end
//! every later destage awaits before it writes. It never touches a stripe whose members may disagree: what a cut destage left half
//! written is held by the cache until it is written again, or was replayed before anything was served.
//!
//! With checksums nothing is put together from blocks that do not pass their own. What comes of the others is compared as well:
//!
//! | the block's own checksum | and what the member holds | what is done |
//! |---|---|---|
//! | is that of what came | | it is written to its place, and the checksum is set: whoever lost the one may have lost the other |
//! | is another, or lost | is what came | the checksum is set |
//! | is lost | is something else | it is written to its place, and the checksum is set |
//! | is another | is something else, too | nobody can tell what is right: the block is lost |
//! | is lost | and nothing can come of the others | what the member holds is all there is |
//!
//! A checksum is set behind its block: a crash between them leaves the block right and its checksum lost or wrong.

use core::ops::Range;

use base::ids::{DeviceId, Slot, StripeId};
use base::slab::Key;
use ports::{Buffer, BufferId, DeviceError, DeviceOp, Ports};
use raid::{Part, Recipe, recipe, slots};

use super::checksums::{Check, Need, Waiter};
use super::destage::Destage;
use super::read::Read;
use super::sum::carry_out;
use super::{ArrayShard, Purpose, Work};
use crate::limits::RESERVED_OPERATIONS;

/// Who waits for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanting {
    /// A host's read.
    Read(Key<Read>),
    /// A destage that needs old content.
    Destage(Key<Destage>),
}

/// How a mend ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mended {
    /// The content is in this buffer until the call returns.
    Content(BufferId),
    /// Too many of the stripe's blocks cannot be had: beside it, those of `others`, slots as a bit mask.
    Lost { others: u32 },
    /// A member failed on the way: to be tried again with the next map.
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The stripe's other blocks are being read.
    Gathering,
    /// The block is being written to its place.
    Writing,
    /// It is being read back.
    Checking,
    /// What its member holds is being read, to be compared with what it should be.
    Comparing,
    /// It is all there is, and is being read.
    Alone,
    /// Its checksum is being written.
    Entering,
}

/// A block on its way.
#[derive(Debug)]
pub(crate) struct Mend {
    stripe: StripeId,
    slot: Slot,
    /// Whose block it is. The slot may have another member meanwhile.
    device: Option<DeviceId>,
    wanting: Wanting,
    step: Step,
    /// Slots whose blocks of this stripe were found unreadable, as a bit mask.
    unreadable: u32,
    /// How it is put together.
    recipe: Recipe,
    /// The recipe's blocks; once they are put together, the first of them is the content.
    blocks: Vec<Buffer>,
    /// What is read back.
    check: Option<Buffer>,
    unanswered: u32,
    failed: bool,
    /// Slots whose checksum block is kept at hand, as a bit mask.
    kept: u32,
    /// Whether its checksum is to be set behind it.
    enters: bool,
    /// A point in [`super::grace::Grace`].
    generation: u64,
}

impl ArrayShard {
    /// Starts to put a block together, or says that this must wait: for a destage or mend of the stripe, for a member that
    /// is failing, or for room. If it cannot be done at all, whoever wants it is told so at once.
    pub(crate) fn start_mend<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        stripe: StripeId,
        slot: Slot,
        wanting: Wanting,
    ) -> bool {
        let under_destage = self.stripes.find(stripe).and_then(|at| self.stripes.get(at).destage);
        // A destage writes neither while it waits for this block, nor while it waits for this read.
        let others_destage = under_destage.is_some_and(|key| match wanting {
            Wanting::Destage(own) => key != own,
            Wanting::Read(read) => {
                let destage = &self.destages[key];
                self.moment_of(read).is_none_or(|moment| destage.grace <= moment)
            }
        });
        if others_destage && self.halted {
            // That destage never ends.
            self.wanting_told(work, wanting, slot, Mended::Lost { others: 0 });
            return true;
        }
        let members = self.map.members.len();
        let available = work.operations.available().saturating_sub(match wanting {
            Wanting::Read(_) => RESERVED_OPERATIONS,
            Wanting::Destage(_) => 0,
        });
        if others_destage
            || self.walker.reviews(stripe)
            || self.failing_members != 0
            || self.mends.is_full()
            || self.is_mending(stripe)
            || self.scratch.len() < members
            || available < members
        {
            return false;
        }
        let kept =
            if self.map.checksums { self.map.arrangement.at(stripe).all_members() & !self.missing(stripe) } else { 0 };
        if !self.take_checksums(work, Need::Other, stripe, kept) {
            return false;
        }
        let mend = Mend {
            stripe,
            slot,
            device: self.map.member(slot).map(|member| member.device),
            wanting,
            step: Step::Gathering,
            unreadable: 0,
            recipe: Recipe::EMPTY,
            blocks: Vec::with_capacity(members),
            check: self.scratch.pop(),
            unanswered: 0,
            failed: false,
            kept,
            enters: false,
            generation: self.grace.begin(),
        };
        let Ok(key) = self.mends.insert(mend) else { unreachable!("room was looked for") };
        self.gather(work, key);
        true
    }

    /// Whether a block of any of these stripes is being put together.
    pub(crate) fn mends_any_of(&self, stripes: Range<u64>) -> bool {
        self.mends.iter().any(|(_, mend)| stripes.contains(&mend.stripe.0))
    }

    /// Whether a block of a stripe is being put together.
    pub(crate) fn is_mending(&self, stripe: StripeId) -> bool {
        self.mends.iter().any(|(_, mend)| mend.stripe == stripe)
    }

    /// Reads the other blocks of the stripe, if they suffice.
    fn gather<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        let mend = &self.mends[key];
        let (stripe, slot) = (mend.stripe, mend.slot);
        let geometry = self.map.arrangement.at(stripe);
        let is_data = matches!(geometry.part_of(stripe, slot), Part::Data(_));
        if is_data && geometry.parities() > 0 && !self.dirty.is_trusted(geometry.zone_of(stripe)) {
            // What came of parities that may not match could be anything.
            self.mend_ends(work, key, false);
            return;
        }
        let without = self.missing(stripe) | mend.unreadable | 1 << slot.0;
        let Ok(recipe) = recipe(geometry, stripe, geometry.part_of(stripe, slot), without) else {
            self.take_what_there_is(work, key);
            return;
        };
        self.mends[key].recipe = recipe;
        for other in recipe.terms().map(|term| term.slot) {
            let (device, at) = self.on_member(other, stripe).expect("a recipe names members that are there");
            let buffer = self.scratch.pop().expect("a buffer for each member was counted");
            let purpose = Purpose::Mend { array: self.map.id, mend: key, slot: other };
            work.operations.start(work.ports, (device, at), DeviceOp::Read, Some(buffer.id()), purpose);
            let mend = &mut self.mends[key];
            mend.blocks.push(buffer);
            mend.unanswered += 1;
        }
    }

    /// A member has answered.
    pub(crate) fn mend_answered<P: Ports>(
        &mut self,
        work: &mut Work<'_, P>,
        key: Key<Mend>,
        slot: Slot,
        result: Result<(), DeviceError>,
    ) {
        let step = self.mends.get(key).expect("a mend waits for its operations").step;
        match result {
            Ok(()) => {}
            Err(DeviceError::Unreadable) if step == Step::Gathering => {
                self.found_unreadable(work, slot);
                self.mends[key].unreadable |= 1 << slot.0;
            }
            // The drive does not take the block, or does not give it back: it is no worse than it was.
            Err(DeviceError::Unreadable | DeviceError::NoSpace | DeviceError::Other(_)) if step != Step::Gathering => {
                self.mends[key].failed = true;
            }
            Err(_) => {
                self.member_failed(slot);
                self.mends[key].failed = true;
            }
        }
        let mend = &mut self.mends[key];
        mend.unanswered -= 1;
        if mend.unanswered > 0 {
            return;
        }
        match mend.step {
            Step::Gathering => self.gathered(work, key),
            Step::Writing if mend.failed => self.rewritten(work, key, false),
            Step::Writing => {
                mend.step = Step::Checking;
                let check = mend.check.as_ref().expect("it is kept to the end").id();
                self.ask_mended(work, key, DeviceOp::Read, check);
            }
            Step::Checking => {
                let (content, check) = (mend.blocks[0].id(), mend.check.as_ref().expect("it is kept to the end").id());
                let is_right = !mend.failed && work.ports.bytes(content) == work.ports.bytes(check);
                self.rewritten(work, key, is_right);
            }
            Step::Comparing => self.compared(work, key),
            Step::Alone => {
                let has_content = !mend.failed;
                self.mend_ends(work, key, has_content);
            }
            Step::Entering => unreachable!("its checksum has a way of its own"),
        }
    }

    fn gathered<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        if self.mends[key].failed {
            self.mend_ends(work, key, false);
            return;
        }
        let before = self.mends[key].recipe.members() & self.mends[key].unreadable;
        let wrong = if before == 0 { self.wrong_blocks(work, key) } else { 0 };
        self.mends[key].unreadable |= wrong;
        if before | wrong != 0 {
            while let Some(buffer) = self.mends[key].blocks.pop() {
                self.keep(work, buffer);
            }
            self.gather(work, key);
            return;
        }
        let mend = &mut self.mends[key];
        let blocks: Vec<BufferId> = mend.blocks.iter().map(Buffer::id).collect();
        carry_out(work.ports, &mend.recipe, &blocks);
        for buffer in mend.blocks.split_off(1) {
            self.keep(work, buffer);
        }
        let (slot, stripe, kept) = (self.mends[key].slot, self.mends[key].stripe, self.mends[key].kept);
        if kept & 1 << slot.0 != 0 {
            let content = self.mends[key].blocks[0].id();
            self.mends[key].enters = true;
            if self.check(work.ports, slot, stripe, content) != Check::Right {
                self.mends[key].step = Step::Comparing;
                let check = self.mends[key].check.as_ref().expect("it is kept to the end").id();
                self.ask_mended(work, key, DeviceOp::Read, check);
                return;
            }
        }
        self.write_mended(work, key);
    }

    /// Of the recipe's blocks, those that are not what their checksums say: slots, as a bit mask. One whose checksum is lost is
    /// believed.
    fn wrong_blocks<P: Ports>(&mut self, work: &Work<'_, P>, key: Key<Mend>) -> u32 {
        let mend = &self.mends[key];
        let (stripe, kept) = (mend.stripe, mend.kept);
        let compared = mend.recipe.terms().zip(&mend.blocks).filter(|(term, _)| kept & 1 << term.slot.0 != 0);
        let is_wrong = |slot, block: &Buffer| self.check(work.ports, slot, stripe, block.id()) == Check::Wrong;
        let wrong = compared.filter(|(term, block)| is_wrong(term.slot, block));
        let wrong = wrong.fold(0, |mask: u32, (term, _)| mask | 1 << term.slot.0);
        slots(wrong).for_each(|slot| self.found_wrong(work, slot));
        wrong
    }

    /// What the block's member holds was read: neither it nor what came of the others is what the checksum says.
    fn compared<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        let mend = &self.mends[key];
        let (slot, stripe, content) = (mend.slot, mend.stripe, mend.blocks[0].id());
        let there = mend.check.as_ref().expect("it is kept to the end").id();
        let is_same = !mend.failed && work.ports.bytes(content) == work.ports.bytes(there);
        let is_lost = self.check(work.ports, slot, stripe, content) == Check::Unknown;
        self.mends[key].failed = false;
        if !is_same && !is_lost {
            self.mend_ends(work, key, false);
            return;
        }
        if is_same {
            self.enter_mended(work, key);
        } else {
            self.write_mended(work, key);
        }
    }

    /// Nothing can come of the other blocks. If the block's checksum is lost, nothing says that what its member holds is wrong.
    fn take_what_there_is<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        let mend = &self.mends[key];
        let (slot, stripe) = (mend.slot, mend.stripe);
        let check = mend.check.as_ref().expect("it is kept to the end").id();
        // Nothing has been read into it, and the answer does not depend on it.
        let is_lost = mend.kept & 1 << slot.0 != 0 && self.check(work.ports, slot, stripe, check) == Check::Unknown;
        if !is_lost || self.failing_members & 1 << slot.0 != 0 {
            self.mend_ends(work, key, false);
            return;
        }
        let mend = &mut self.mends[key];
        mend.step = Step::Alone;
        mend.blocks.extend(mend.check.take());
        let into = mend.blocks[0].id();
        self.ask_mended(work, key, DeviceOp::Read, into);
    }

    /// Writes the block to its place, if that may be.
    fn write_mended<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        let slot = self.mends[key].slot;
        if self.halted || self.map.members[slot.index()].is_none() || self.failing_members & 1 << slot.0 != 0 {
            self.mend_ends(work, key, true);
            return;
        }
        self.mends[key].step = Step::Writing;
        let content = self.mends[key].blocks[0].id();
        self.ask_mended(work, key, DeviceOp::WriteDurable, content);
    }

    /// Writes or reads the block in its place.
    fn ask_mended<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>, op: DeviceOp, buffer: BufferId) {
        let mend = &mut self.mends[key];
        let place = self.presence.on_member(&self.map, mend.slot, mend.stripe);
        let Some(place) = place.filter(|(device, _)| Some(*device) == mend.device) else {
            // Excluded meanwhile.
            self.mend_ends(work, key, true);
            return;
        };
        mend.unanswered = 1;
        let purpose = Purpose::Mend { array: self.map.id, mend: key, slot: mend.slot };
        work.operations.start(work.ports, place, op, Some(buffer), purpose);
    }

    fn rewritten<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>, succeeded: bool) {
        let slot = self.mends[key].slot;
        self.found_rewritten(work, slot, succeeded);
        if succeeded && self.mends[key].enters {
            self.enter_mended(work, key);
        } else {
            self.mend_ends(work, key, true);
        }
    }

    /// Sets the block's checksum, if that may be.
    fn enter_mended<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        let mend = &self.mends[key];
        let (slot, stripe, content) = (mend.slot, mend.stripe, mend.blocks[0].id());
        let is_there = self.on_member(slot, stripe).is_some_and(|(device, _)| Some(device) == mend.device);
        if self.halted || self.failing_members & 1 << slot.0 != 0 || !is_there {
            self.mend_ends(work, key, true);
            return;
        }
        self.mends[key].step = Step::Entering;
        self.set_checksum(work.ports, slot, stripe, Some(content), Some(Waiter::Mend(key)));
    }

    /// The member has the block's checksum, or is on its way out.
    pub(crate) fn mend_entered<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>) {
        self.mend_ends(work, key, true);
    }

    fn mend_ends<P: Ports>(&mut self, work: &mut Work<'_, P>, key: Key<Mend>, has_content: bool) {
        let mut mend = self.mends.remove(key).expect("a mend ends once");
        self.grace.end(mend.generation);
        self.leave_checksums(mend.stripe, mend.kept);
        let mended = match mend.blocks.first() {
            Some(content) if has_content => Mended::Content(content.id()),
            _ if mend.failed => Mended::Again,
            _ => Mended::Lost { others: mend.unreadable },
        };
        self.wanting_told(work, mend.wanting, mend.slot, mended);
        for buffer in mend.blocks.drain(..).chain(mend.check) {
            self.keep(work, buffer);
        }
    }

    fn wanting_told<P: Ports>(&mut self, work: &mut Work<'_, P>, wanting: Wanting, slot: Slot, mended: Mended) {
        match wanting {
            Wanting::Read(read) => self.read_mended(work, read, mended),
            Wanting::Destage(destage) => self.destage_mended(work, destage, slot, mended),
        }
    }
}
