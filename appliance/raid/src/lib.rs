//! RAID as decisions: where blocks lie, what a stripe write needs, who is a member. It emits *plans* and never touches a
//! byte of data; the engine carries them out.
//!
//! | module | holds |
//! |---|---|
//! | [`level`] | how redundancy is arranged, and what it bears |
//! | [`geometry`] | members, chunks, stripes, zones: where blocks lie |
//! | [`reshape`] | how an array gets further members: which window moves, from where to where |
//! | [`growth`] | what superblocks say of that |
//! | [`arrangement`] | where blocks lie at a moment, by one geometry or by two |
//! | [`recipe`](mod@recipe) | how a block is had from those members that are there |
//! | [`plan`] | what to read, to compute and to write for a stripe |
//! | [`scrub`] | what an array remembers of its last scrub |
//! | [`superblock`] | what each member says of itself and of the array |
//! | [`away`] | which member may come back to its place, and what it lacks |
//! | [`layout`] | the regions of a member |
//! | [`assemble`](mod@assemble) | from superblocks found anywhere to an array, or to a clear refusal |
//! | [`metadata`] | the table of volumes, kept on every member |
//! | [`zone_bits`] | which zones were ever written, which may be inconsistent without a log, and which somebody missed |
//! | [`dirty`] | what a start does with those that may be inconsistent |
//! | [`signature`] | what else may live on a device that is about to be overwritten |
//!
//! The formats are described in `FORMAT.md`.
//!
//! ```
//! use base::ids::ArrayBlock;
//! use raid::{Geometry, Level};
//! let geometry = Geometry::new(Level::Raid5, 3, 16, 4096).expect("three members of 16 MiB");
//! let place = geometry.locate(ArrayBlock(17));
//! assert_eq!((place.stripe.0, place.column), (1, 1));
//! ```
#![forbid(unsafe_code)]

pub mod arrangement;
pub mod assemble;
pub mod away;
pub mod checksum;
pub mod dirty;
pub mod geometry;
pub mod growth;
pub mod layout;
pub mod level;
pub mod metadata;
pub mod plan;
pub mod recipe;
pub mod reshape;
pub mod scrub;
pub mod signature;
pub mod superblock;
pub mod zone_bits;

pub use arrangement::Arrangement;
pub use assemble::{AssembleError, Assembly, Candidate, LogCandidate, Wanted, assemble};
pub use away::{Away, NoReturn, may_return};
pub use checksum::Checksummed;
pub use dirty::{DirtyStart, start_of_dirty};
pub use geometry::{Geometry, GeometryError, Part, Place, slots};
pub use growth::Growth;
pub use layout::MemberLayout;
pub use level::Level;
pub use metadata::{
    ExportRecord, ExtentRecord, Metadata, MetadataError, Origin, VolumeRecord, VolumeSpec, VolumeState,
};
pub use plan::{DestageKind, DestagePlan, ReadPlan, plan_destage, plan_destage_anew, plan_destage_around, plan_read};
pub use recipe::{Lost, Recipe, Term, recipe, weight};
pub use reshape::{Reshape, ReshapeError};
pub use scrub::{Repair, ScrubCounts, ScrubRecord, ScrubState};
pub use signature::{Signature, foreign_signature};
pub use superblock::{
    CopyEntry, LogFate, MemberEntry, State, Superblock, SuperblockError, Tables, member_uuids, superblock_block,
};
pub use zone_bits::ZoneBits;
