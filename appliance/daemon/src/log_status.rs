//! A log in detail: its copies, its lanes, and what recovery did at the last start. What `brindle log status` shows.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::status::{row, size, table};

/// A log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogDetails {
    /// The array.
    pub array: String,
    /// `write-back` or `write-through`.
    pub mode: String,
    /// The array's epoch.
    pub epoch: u64,
    /// Drawn when the log was made: 32 hexadecimal digits.
    pub generation: String,
    /// Starts of the array, as the log counts them.
    pub incarnation: u64,
    /// Its copies by place; places that miss none are left out.
    pub copies: Vec<CopyDetails>,
    /// Its lanes.
    pub lanes: Vec<LaneDetails>,
    /// What was found and done at the last start.
    pub recovery: RecoveryDetails,
}

/// A copy of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyDetails {
    /// Its place.
    pub copy: u8,
    /// `active`, `joining` or `missing`.
    pub state: String,
    /// Its drive; empty if nobody knows.
    pub drive: String,
}

/// A lane. Positions count blocks of 4 KiB ever since the lane was formatted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneDetails {
    /// Which.
    pub lane: u16,
    /// The reactor that owns it.
    pub reactor: u16,
    /// Where the next record goes.
    pub head: u64,
    /// The oldest record that is needed.
    pub tail: u64,
    /// The same, as it is durable on all copies.
    pub durable_tail: u64,
    /// The sequence of the next record.
    pub next_sequence: u64,
    /// Records from the tail on.
    pub records: u64,
    /// Space from the durable tail to the head.
    pub used_bytes: u64,
    /// The ring's size.
    pub bytes: u64,
}

/// What was found and done at a start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecoveryDetails {
    /// Whether all lanes had been left in good order.
    pub clean: bool,
    /// By lane.
    pub lanes: Vec<LaneRecovery>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What was found and done in a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneRecovery {
    /// Which.
    pub lane: u16,
    /// Whether it had been left in good order.
    pub clean: bool,
    /// Whether something was being written when it stopped.
    pub torn: bool,
    /// Records from its tail to its end.
    pub records: u64,
    /// Records that some copy lacked and got from another.
    pub repaired_records: u64,
    /// Whether some copy lacked the anchor and got it from another.
    pub repaired_anchor: bool,
    /// Stripes whose logged parity was written to the members again.
    pub replayed_stripes: u64,
    /// Blocks that the members did not have yet.
    pub dirty_blocks: u64,
}

impl fmt::Display for LogDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { array, mode, epoch, generation, incarnation, .. } = self;
        writeln!(f, "{array}: {mode}, epoch {epoch}, generation {generation}, start {incarnation}")?;
        let copies = self.copies.iter().map(|copy| row([&copy.copy, &copy.state, &copy.drive]));
        write!(f, "{}", table("Copies", &["copy", "state", "drive"], copies))?;
        let lanes = self.lanes.iter().map(|lane| {
            let percent = 100 * u128::from(lane.used_bytes) / u128::from(lane.bytes.max(1));
            let used = format!("{} of {} ({percent}%)", size(lane.used_bytes), size(lane.bytes));
            let LaneDetails { lane, reactor, head, tail, durable_tail, next_sequence, records, .. } = lane;
            row([lane, reactor, head, tail, durable_tail, next_sequence, records, &used])
        });
        let heads = ["lane", "reactor", "head", "tail", "durable tail", "next record", "records", "used"];
        write!(f, "{}", table("Lanes", &heads, lanes))?;
        if self.recovery.clean {
            writeln!(f, "\nThe last start found the log in good order.")?;
        } else {
            let lanes = self.recovery.lanes.iter().filter(|lane| !lane.clean).map(|lane| {
                let anchor = u64::from(lane.repaired_anchor);
                let LaneRecovery { lane, torn, records, repaired_records, replayed_stripes, dirty_blocks, .. } = lane;
                let end = if *torn { "torn" } else { "whole" };
                row([lane, records, &end, repaired_records, &anchor, replayed_stripes, dirty_blocks])
            });
            let heads =
                ["lane", "records", "end", "records repaired", "anchors repaired", "stripes replayed", "dirty blocks"];
            write!(f, "{}", table("Recovered at the last start, without loss", &heads, lanes))?;
        }
        self.recovery.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_copies_lanes_and_what_recovery_did() {
        let mut details = LogDetails {
            array: "a0".into(),
            mode: "write-back".into(),
            copies: vec![CopyDetails { copy: 2, state: "joining".into(), drive: "l2".into() }],
            lanes: vec![LaneDetails {
                lane: 3,
                head: 90,
                tail: 70,
                used_bytes: 1 << 20,
                bytes: 4 << 20,
                ..Default::default()
            }],
            ..LogDetails::default()
        };
        details.recovery.lanes =
            vec![LaneRecovery { lane: 3, torn: true, records: 17, repaired_records: 2, ..Default::default() }];
        let text = details.to_string();
        for words in ["a0: write-back", "2     joining  l2", "1 MiB of 4 MiB (25%)", "3     17       torn  2"] {
            assert!(text.contains(words), "{words:?} is missing:\n{text}");
        }
        details.recovery.clean = true;
        assert!(details.to_string().contains("in good order"));
        let json = serde_json::to_string(&details).unwrap();
        assert_eq!(serde_json::from_str::<LogDetails>(&json).unwrap(), details);
    }
}
