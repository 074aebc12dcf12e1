//! Why a command is refused, in words for whoever asked.

use raid::{MetadataError, NoReturn};
use thiserror::Error;

/// Why a command was not carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is out already.
    #[error("it is not in use: it was excluded or is missing")]
    NotInUse,
    /// It cannot come back with what it holds.
    #[error("it cannot take up its place with what it holds, and would have to be rebuilt as a whole: {0}")]
    NoReturn(NoReturn),
    /// The array would lose data by it.
    #[error("the array cannot do without it: more members or log copies would be missing than it bears")]
    Needed,
    /// The table of volumes cannot be changed so.
    #[error(transparent)]
    Table(Box<MetadataError>),
    /// No subsystem has this name.
    #[error("there is no such subsystem: subsystems are what the configuration names")]
    NoSubsystem,
    /// The identifier is another volume's.
    #[error("this namespace identifier is taken in the subsystem")]
    NsidTaken,
    /// There is no identifier left, or this is none.
    #[error(
        "there is no such namespace identifier, or none is free: they go from 1 to {}",
        nvmf::limits::MAX_NAMESPACES
    )]
    NoNsid,
    /// Too many volumes were made since the start.
    #[error("{} volumes were made since the start: more need a restart", crate::limits::MAX_VOLUMES)]
    TooManyVolumes,
    /// The array takes no writes.
    #[error("the array takes no writes: too many members or all log copies are lost")]
    Down,
    /// There is a member in the place.
    #[error("the place has a member, or one that is being rebuilt: fail that drive first")]
    Taken,
    /// One at a time.
    #[error("another drive of the array is being replaced: wait for its end, or fail the drive that comes")]
    SuccessionUnderWay,
    /// Nobody else could tell what became of the place.
    #[error("no other member of the array is whole: give the places of those that are out to drives first")]
    Alone,
    /// It would leave no member to lose.
    #[error("a member of the array is missing or being rebuilt: it can get a further one when it is whole")]
    NotWhole,
    /// The level has no such array.
    #[error("an array of its level and size cannot get one further member")]
    NoGrowth,
    /// One at a time.
    #[error("the array is getting a further member: wait for the end of that")]
    GrowthUnderWay,
    /// It has got one.
    #[error(
        "the array has got a further member since it was last stopped in good order: stop and start the appliance before it gets \
         another"
    )]
    GrownAlready,
    /// What moves at a time has to be in the log as a whole, and in memory.
    #[error(
        "what moves at a time would not fit: a lane of the log would need {} KiB, and each reactor's cache of the array {} KiB. Give \
         it a larger log or cache, or fewer lanes",
        lane * base::BLOCK as u64 / 1024,
        cache * base::BLOCK as u64 / 1024
    )]
    GrowthTooLarge {
        /// Blocks that a lane has to have.
        lane: u64,
        /// Blocks that a cache has to have.
        cache: u64,
    },
    /// There is none.
    #[error("no drive is to succeed a member")]
    NoSuccession,
    /// No number is left for it.
    #[error(
        "an array of {} members has no place for a drive beside them: fail the old drive first",
        raid::level::MAX_MEMBERS
    )]
    NoPlaceBeside,
    /// The drive is too small.
    #[error("it is smaller than the array's members")]
    TooSmall,
    /// The device is too small.
    #[error("it is too small for a copy of the log: at least {} bytes are needed", need * base::BLOCK as u64)]
    LogTooSmall {
        /// Blocks needed.
        need: u64,
    },
    /// The devices are too small.
    #[error(
        "the log would not become larger: each device needs at least {} bytes. brindle log replace gives it others of the same size",
        need * base::BLOCK as u64
    )]
    LogNotLarger {
        /// Blocks needed.
        need: u64,
    },
    /// Without it there would be no log.
    #[error(
        "it is the only copy of the log: attach another one first. An array that lacks no member can be left without a log if its \
         on_log_loss is write-through-exposed"
    )]
    LastCopy,
    /// There is none to add to.
    #[error("the array has no log")]
    NoLog,
    /// What a crash left is not compared yet.
    #[error("a resync after a crash is under way: a log can come when that has ended")]
    Unsynced,
    /// Writes could not wait for it.
    #[error(
        "what is under way on the array does not end: a drive hangs, or stripes cannot be destaged, as brindle status shows. Try \
         again when that is over"
    )]
    Unsettled,
    /// There is no place for a further copy.
    #[error("the log has {} copies, and cannot have more: detach one first", journal::MAX_COPIES)]
    TooManyCopies,
    /// The drive takes part, or is kept, already.
    #[error("it is in use, or a spare, already")]
    InUse,
    /// The drive does not do what it should.
    #[error("it failed while it was being prepared, and is not used")]
    DriveFailed,
    /// There is no redundancy.
    #[error("its level has no redundancy: there is nothing to compare with")]
    NothingToCompare,
    /// One at a time.
    #[error("a scrub is under way: stop it first")]
    ScrubUnderWay,
    /// There is none.
    #[error("no scrub is under way")]
    NoScrub,
    /// The appliance is stopping.
    #[error("the appliance is stopping")]
    Stopping,
    /// Too many commands at once.
    #[error("too many commands are under way: try again")]
    Busy,
}
