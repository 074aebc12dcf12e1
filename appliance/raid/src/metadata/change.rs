//! Changes of a table that is served from: volumes grow, get other names, go, and are found elsewhere. Each change is whole or
//! an error that leaves the table as it was; it counts once it is durable, and that is others' business.

use super::{
    DELETIONS_BYTES, ExportRecord, ExtentRecord, MAX_CONTENT_BYTES, MAX_EXPORTS, MAX_EXTENTS, Metadata, MetadataError,
    VolumeRecord, VolumeState, allocate, is_name,
};
use crate::Geometry;

impl Metadata {
    /// Space for a volume that no extent covers.
    pub(super) fn allocate(
        &self,
        geometry: &Geometry,
        name: &str,
        blocks: u64,
    ) -> Result<Vec<ExtentRecord>, MetadataError> {
        let (gaps, want) = self.room(geometry, name, blocks)?;
        bounded(allocate::first_fit(&gaps, want, allocate::row_blocks(geometry)), name)
    }

    /// The gaps, if they hold so many blocks together, and how much is to be taken of them: whole chunk rows, or all there is.
    fn room(&self, geometry: &Geometry, name: &str, blocks: u64) -> Result<(Vec<ExtentRecord>, u64), MetadataError> {
        let gaps = allocate::gaps(self.extents(), geometry);
        let free = gaps.iter().map(|gap| gap.blocks).sum();
        let want = blocks.checked_next_multiple_of(geometry.chunk_blocks().into()).unwrap_or(u64::MAX);
        if want > free {
            return Err(MetadataError::NoSpace { name: name.into(), want, free, cleaning: self.cleaning_blocks() });
        }
        Ok((gaps, blocks.next_multiple_of(allocate::row_blocks(geometry)).min(free)))
    }

    /// Makes a volume larger: what comes behind its end reads as zeros. Where it lies until now it stays.
    pub fn grow_volume(&mut self, geometry: &Geometry, id: u32, blocks: u64) -> Result<(), MetadataError> {
        let mut next = self.clone();
        let volume = self.ready(id)?;
        if blocks <= volume.blocks {
            return Err(MetadataError::NotLarger { name: volume.name.clone(), has: volume.blocks });
        }
        let held: u64 = volume.extents.iter().map(|extent| extent.blocks).sum();
        let mut extents = volume.extents.clone();
        if blocks > held {
            let (mut gaps, mut want) = self.room(geometry, &volume.name, blocks - held)?;
            // What lies right behind it comes first: then it stays in one piece.
            let last = extents.last_mut().expect("a volume has extents");
            let behind = last.start + last.blocks;
            if let Some(gap) = gaps.iter_mut().find(|gap| gap.start == behind) {
                let taken = gap.blocks.min(want);
                last.blocks += taken;
                (gap.start, gap.blocks) = (gap.start + taken, gap.blocks - taken);
                // No other piece only to fill a row.
                want = if taken >= blocks - held { 0 } else { want - taken };
            }
            gaps.retain(|gap| gap.blocks > 0);
            if want > 0 {
                extents.extend(allocate::first_fit(&gaps, want, allocate::row_blocks(geometry)));
            }
        }
        let extents = bounded(extents, &volume.name)?;
        let grown = next.record(id)?;
        (grown.extents, grown.blocks) = (extents, blocks);
        self.become_next(next, MAX_CONTENT_BYTES - DELETIONS_BYTES)
    }

    /// Gives a volume another name. Its identities stay.
    pub fn rename_volume(&mut self, id: u32, name: &str) -> Result<(), MetadataError> {
        self.ready(id)?;
        if !is_name(name) {
            return Err(MetadataError::Name(name.into()));
        }
        if self.volumes.iter().any(|volume| volume.name == name && volume.id != id) {
            return Err(MetadataError::NameTaken(name.into()));
        }
        let mut next = self.clone();
        next.record(id)?.name = name.into();
        self.become_next(next, MAX_CONTENT_BYTES - DELETIONS_BYTES)
    }

    /// Deletes a volume. Its space stays taken until [`Metadata::cleaned`].
    pub fn delete_volume(&mut self, id: u32) -> Result<(), MetadataError> {
        let mut next = self.clone();
        // Whoever does not know of deleted volumes takes it for one under a name of its own, and does no harm.
        let taken = |name: &String| self.volumes.iter().any(|volume| volume.name == *name);
        let mut names =
            (0u32..).map(|again| if again == 0 { format!("deleted-{id}") } else { format!("deleted-{id}-{again}") });
        let name = names.find(|name| !taken(name)).expect("there are fewer volumes than names");
        let volume = next.record(id)?;
        if volume.state == VolumeState::Cleaning {
            return Err(MetadataError::NoVolume);
        }
        (volume.name, volume.state, volume.key_slot) = (name, VolumeState::Cleaning, None);
        volume.exports.clear();
        self.become_next(next, MAX_CONTENT_BYTES)
    }

    /// The space of a deleted volume is zeros, durably: it is free.
    pub fn cleaned(&mut self, id: u32) -> Result<(), MetadataError> {
        let at = self.volumes.iter().position(|volume| volume.id == id && volume.state == VolumeState::Cleaning);
        self.volumes.remove(at.ok_or(MetadataError::NoVolume)?);
        // Numbers are never given again, also when the highest is gone.
        self.next_volume_id = self.next_volume_id.max(id.saturating_add(1));
        Ok(())
    }

    /// Has another volume copied into it, or no longer.
    pub fn set_copying(&mut self, id: u32, copying: bool) -> Result<(), MetadataError> {
        let volume = self.record(id)?;
        let (from, to) = if copying {
            (VolumeState::Ready, VolumeState::Copying)
        } else {
            (VolumeState::Copying, VolumeState::Ready)
        };
        if volume.state != from {
            return Err(MetadataError::NotReady(volume.name.clone()));
        }
        volume.state = to;
        Ok(())
    }

    /// Has hosts find a volume at a further place.
    pub fn export_volume(&mut self, id: u32, export: ExportRecord) -> Result<(), MetadataError> {
        let volume = self.by_id(id).ok_or(MetadataError::NoVolume)?;
        if volume.exports.len() >= MAX_EXPORTS {
            return Err(MetadataError::TooManyExports(volume.name.clone()));
        }
        let mut next = self.clone();
        next.record(id)?.exports.push(export);
        self.become_next(next, MAX_CONTENT_BYTES - DELETIONS_BYTES)
    }

    /// A volume that hosts may use.
    pub fn ready(&self, id: u32) -> Result<&VolumeRecord, MetadataError> {
        let volume = self.by_id(id).ok_or(MetadataError::NoVolume)?;
        match volume.state {
            VolumeState::Ready => Ok(volume),
            VolumeState::Copying => Err(MetadataError::NotReady(volume.name.clone())),
            VolumeState::Cleaning => Err(MetadataError::NoVolume),
        }
    }

    fn record(&mut self, id: u32) -> Result<&mut VolumeRecord, MetadataError> {
        self.volumes.iter_mut().find(|volume| volume.id == id).ok_or(MetadataError::NoVolume)
    }

    fn become_next(&mut self, next: Self, room: usize) -> Result<(), MetadataError> {
        let bytes = next.content().len();
        if bytes > room {
            return Err(MetadataError::TooLarge { bytes });
        }
        *self = next;
        Ok(())
    }
}

fn bounded(extents: Vec<ExtentRecord>, name: &str) -> Result<Vec<ExtentRecord>, MetadataError> {
    if extents.len() > MAX_EXTENTS { Err(MetadataError::Scattered(name.into())) } else { Ok(extents) }
}

#[cfg(test)]
mod tests {
    use super::super::{Origin, VolumeSpec};
    use super::*;
    use crate::Level;

    /// Four members, chunks of 16 blocks: 192 rows of 48 blocks.
    fn geometry() -> Geometry {
        Geometry::new(Level::Raid5, 4, 16, 3 * 1024).expect("a geometry")
    }

    fn with(sizes: &[u64]) -> Metadata {
        let mut metadata = Metadata::default();
        for (at, &blocks) in (1..).zip(sizes) {
            let made = metadata.create_volume(
                &geometry(),
                VolumeSpec::new(&format!("v{at}"), blocks),
                [at, at << 32],
                Origin::Runtime,
            );
            assert_eq!(made.map(|volume| u64::from(volume.id)), Ok(at));
        }
        metadata
    }

    fn extents(metadata: &Metadata, id: u32) -> Vec<(u64, u64)> {
        let volume = metadata.by_id(id).expect("it is there");
        volume.extents.iter().map(|extent| (extent.start / 48, extent.blocks / 48)).collect()
    }

    #[test]
    fn a_volume_grows_in_place_then_behind_itself_then_elsewhere() {
        let mut metadata = with(&[50, 48, 48]);
        assert_eq!(metadata.grow_volume(&geometry(), 1, 96), Ok(()));
        assert_eq!((extents(&metadata, 1), metadata.volumes[0].blocks), (vec![(0, 2)], 96), "its last row had room");
        assert_eq!(metadata.grow_volume(&geometry(), 3, 100), Ok(()));
        assert_eq!(extents(&metadata, 3), [(3, 3)], "still in one piece");
        assert_eq!(metadata.grow_volume(&geometry(), 1, 97), Ok(()));
        assert_eq!(extents(&metadata, 1), [(0, 2), (6, 1)]);
        let has = MetadataError::NotLarger { name: "v1".into(), has: 97 };
        assert_eq!(metadata.grow_volume(&geometry(), 1, 97), Err(has));
        let before = metadata.clone();
        let error = metadata.grow_volume(&geometry(), 2, 186 * 48 + 1).expect_err("one block too many");
        assert!(
            error.to_string().contains("needs 34.7 MiB more in whole chunks, but the array has 34.6 MiB free"),
            "{error}"
        );
        assert_eq!((metadata.check(&geometry()), &metadata), (Ok(()), &before));
        assert_eq!(metadata.grow_volume(&geometry(), 2, 186 * 48), Ok(()));
        assert_eq!(metadata.free_blocks(&geometry()), 0);
    }

    #[test]
    fn an_array_that_got_a_further_member_keeps_its_volumes_and_hands_out_all_it_has() {
        let mut metadata = with(&[48, 96]);
        let grown = Geometry::new(Level::Raid5, 5, 16, 3 * 1024).expect("a geometry");
        assert_eq!((metadata.check(&grown), metadata.free_blocks(&grown)), (Ok(()), 192 * 64 - 144));
        let places = |metadata: &Metadata, id: u32| {
            let volume = metadata.by_id(id).expect("it is there");
            volume.extents.iter().map(|extent| (extent.start, extent.blocks)).collect::<Vec<_>>()
        };
        // 144 lies within the third row of 64: what is new begins with the fourth, and takes whole rows.
        let spec = |name, blocks| VolumeSpec::new(name, blocks);
        metadata.create_volume(&grown, spec("v3", 65), [3, 3 << 32], Origin::Runtime).expect("room");
        assert_eq!(places(&metadata, 3), [(192, 128)]);
        // What grows goes on right behind itself.
        assert_eq!(metadata.grow_volume(&grown, 2, 97), Ok(()));
        assert_eq!(places(&metadata, 2), [(48, 96 + 48)]);
        // And the last chunk can be had.
        let free = metadata.free_blocks(&grown);
        metadata.create_volume(&grown, spec("v4", free), [4, 4 << 32], Origin::Runtime).expect("all of it");
        assert_eq!((metadata.free_blocks(&grown), metadata.check(&grown)), (0, Ok(())));
        assert!(matches!(metadata.check(&geometry()), Err(MetadataError::Malformed(_))), "it needs the larger array");
    }

    #[test]
    fn a_deleted_volume_keeps_its_space_until_it_is_clean() {
        let mut metadata = with(&[96 * 48, 96 * 48]);
        metadata.export_volume(1, ExportRecord { subsystem: "s".into(), nsid: 3 }).expect("a place");
        assert_eq!(metadata.delete_volume(1), Ok(()));
        assert_eq!(metadata.delete_volume(1), Err(MetadataError::NoVolume));
        assert_eq!(
            (metadata.find("v1"), metadata.free_blocks(&geometry()), metadata.cleaning_blocks()),
            (None, 0, 96 * 48)
        );
        let refused = metadata
            .create_volume(&geometry(), VolumeSpec::new("v1", 48), [9, 9], Origin::Runtime)
            .map(|volume| volume.id);
        let text = refused.expect_err("no space yet").to_string();
        assert!(text.ends_with("has 0 KiB free; 18 MiB of deleted volumes are being zeroed and will be"), "{text}");
        for change in [Metadata::cleaned(&mut metadata.clone(), 2), metadata.clone().rename_volume(1, "x")] {
            assert_eq!(change, Err(MetadataError::NoVolume));
        }
        let blocks = metadata.encode(base::uuid::Uuid([1; 16]), 4).expect("small");
        let read = Metadata::decode(base::uuid::Uuid([1; 16]), &blocks).expect("whole").1;
        assert_eq!(
            (read.volumes[0].state, read.volumes[0].exports.len(), &read),
            (VolumeState::Cleaning, 0, &metadata)
        );
        assert_eq!(metadata.cleaned(1), Ok(()));
        let again = metadata.create_volume(&geometry(), VolumeSpec::new("v1", 96 * 48), [9, 9], Origin::Runtime);
        assert_eq!(again.map(|volume| volume.id), Ok(3));
        // The number of the last volume is not given again either.
        assert_eq!((metadata.delete_volume(3), metadata.cleaned(3)), (Ok(()), Ok(())));
        let last = metadata.create_volume(&geometry(), VolumeSpec::new("v4", 1), [8, 9], Origin::Runtime);
        assert_eq!(last.map(|volume| volume.id), Ok(4));
    }

    #[test]
    fn names_and_states_are_kept_apart() {
        let mut metadata = with(&[1, 1]);
        let identities = (metadata.volumes[0].uuid, metadata.volumes[0].nguid, metadata.volumes[0].eui64);
        assert_eq!(metadata.rename_volume(1, "v2"), Err(MetadataError::NameTaken("v2".into())));
        assert_eq!(metadata.rename_volume(1, "-"), Err(MetadataError::Name("-".into())));
        assert_eq!((metadata.rename_volume(1, "v1"), metadata.rename_volume(1, "deleted-2")), (Ok(()), Ok(())));
        let now = &metadata.volumes[0];
        assert_eq!((now.name.as_str(), (now.uuid, now.nguid, now.eui64)), ("deleted-2", identities));
        assert_eq!(metadata.set_copying(2, true), Ok(()));
        let not_ready = Err(MetadataError::NotReady("v2".into()));
        assert_eq!(
            (metadata.grow_volume(&geometry(), 2, 9), metadata.rename_volume(2, "w")),
            (not_ready.clone(), not_ready)
        );
        assert_eq!((metadata.set_copying(2, false), metadata.delete_volume(2)), (Ok(()), Ok(())));
        assert_eq!(metadata.volumes[1].name, "deleted-2-1", "a name of its own");
        let place = |nsid| ExportRecord { subsystem: "s".into(), nsid };
        let mut exported = (0..).map(|nsid| metadata.export_volume(1, place(nsid)));
        assert_eq!(exported.by_ref().take(MAX_EXPORTS).filter(Result::is_ok).count(), MAX_EXPORTS);
        assert_eq!(exported.next(), Some(Err(MetadataError::TooManyExports("deleted-2".into()))));
    }

    #[test]
    fn no_block_is_anybody_elses_however_volumes_come_grow_and_go() {
        let (mut metadata, mut owners, mut geometry) = (Metadata::default(), vec![None; 192 * 3], geometry());
        let mut seed = 3u64;
        for step in 0..1200u64 {
            if step == 600 || step == 900 {
                // The array gets a further member: rows of 64 blocks, and of 80.
                geometry = Geometry::new(Level::Raid5, geometry.members() + 1, 16, 3 * 1024).expect("a geometry");
                owners.resize((geometry.blocks() / 16) as usize, None);
                assert_eq!(metadata.check(&geometry), Ok(()), "what it had is still right");
            }
            let free = owners.iter().filter(|owner| owner.is_none()).count() as u64 * 16;
            assert_eq!(metadata.free_blocks(&geometry), free, "step {step}");
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (dice, size) = (seed >> 60, (seed >> 40) % 900 + 1);
            let ids: Vec<u32> = metadata.volumes.iter().map(|volume| volume.id).collect();
            let id = ids.get((seed >> 33) as usize % ids.len().max(1)).copied().unwrap_or(0);
            match dice {
                0..4 => {
                    let name = format!("v{step}");
                    let spec = VolumeSpec::new(&name, size);
                    match metadata.create_volume(&geometry, spec, [seed, step], Origin::Runtime).cloned() {
                        Ok(volume) => {
                            let [first, ..] = volume.extents[..] else { panic!("a volume has extents") };
                            let in_one = first.blocks >= volume.blocks && first.blocks < free;
                            assert!(!in_one || step >= 600 || first.start % 48 == 0, "step {step}");
                        }
                        Err(MetadataError::Scattered(_)) => {}
                        Err(error) => assert!(size.next_multiple_of(16) > free, "step {step}: {error}"),
                    }
                }
                4..9 => drop(metadata.grow_volume(&geometry, id, size)),
                9..12 => drop(metadata.delete_volume(id)),
                _ => drop(metadata.cleaned(id)),
            }
            let mut now = vec![None; owners.len()];
            for volume in &metadata.volumes {
                let chunks =
                    volume.extents.iter().flat_map(|extent| extent.start / 16..(extent.start + extent.blocks) / 16);
                for chunk in chunks {
                    assert_eq!(now[chunk as usize].replace(volume.id), None, "chunk {chunk} at step {step}");
                }
            }
            for (chunk, (before, after)) in owners.iter().zip(&now).enumerate() {
                // From one to another only through nobody.
                assert!(before.is_none() || after.is_none() || before == after, "chunk {chunk} at step {step}");
            }
            owners = now;
            assert_eq!((metadata.check(&geometry), metadata.check_records()), (Ok(()), Ok(())));
        }
    }
}
