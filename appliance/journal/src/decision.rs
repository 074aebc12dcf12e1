//! Whether a record that does not verify ends the log or damages it: a pure function of four facts. It looks at nothing.
//!
//! | case | facts | verdict | why |
//! |---|---|---|---|
//! | good | it verifies on some copy | continue | one good copy is what copies are for |
//! | bad tail | it does not; the anchor names it | damaged | an anchor names only durable records |
//! | contradicted | it does not; a record says that it was acknowledged | damaged | what was acknowledged was durable on every copy |
//! | blind | it does not; more of the ring cannot be read than a tear could explain | cannot tell | the proof of an acknowledgement may lie there |
//! | torn | it does not, and none of the above | the log ends before it | it was in flight, nobody was told that it is durable |
//!
//! What decides in the last case: at most [`crate::MAX_IN_FLIGHT`] records are in flight and acknowledged in order, so
//! the record that follows an acknowledged one by that many says so in its `durable_upto`. With a single copy, damage to
//! the very last acknowledged records, behind which nothing was written, cannot be told from a tear.

/// What is known about the record that is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Descriptor and each payload verify on some copy, and it continues the chain.
    pub verified: bool,
    /// The anchor names it.
    pub at_tail: bool,
    /// A record of this log and lane carries a `durable_upto` that reaches it.
    pub contradicted: bool,
    /// Too many of the blocks behind it cannot be read on any copy.
    pub blind: bool,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take the record and go on.
    Continue,
    /// The log ends before it.
    EndsHere,
    /// Acknowledged records are lost: stop and ask the operator.
    Damaged,
    /// The end of the log cannot be found: stop and ask the operator.
    CannotTell,
}

/// Walks the table from top to bottom.
pub const fn decide(evidence: Evidence) -> Verdict {
    match evidence {
        Evidence { verified: true, .. } => Verdict::Continue,
        Evidence { at_tail: true, .. } | Evidence { contradicted: true, .. } => Verdict::Damaged,
        Evidence { blind: true, .. } => Verdict::CannotTell,
        Evidence { .. } => Verdict::EndsHere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_the_verdict_that_the_table_gives() {
        use Verdict::*;
        // Index bits: verified 8, at_tail 4, contradicted 2, blind 1.
        let table = [
            EndsHere, CannotTell, Damaged, Damaged, Damaged, Damaged, Damaged, Damaged, //
            Continue, Continue, Continue, Continue, Continue, Continue, Continue, Continue,
        ];
        for (bits, expected) in table.into_iter().enumerate() {
            let evidence = Evidence {
                verified: bits & 8 != 0,
                at_tail: bits & 4 != 0,
                contradicted: bits & 2 != 0,
                blind: bits & 1 != 0,
            };
            assert_eq!(decide(evidence), expected, "{evidence:?}");
        }
    }

    #[test]
    fn the_log_ends_only_where_nothing_speaks_against_it() {
        let ends = (0..16u8)
            .filter(|bits| {
                let evidence = Evidence {
                    verified: bits & 8 != 0,
                    at_tail: bits & 4 != 0,
                    contradicted: bits & 2 != 0,
                    blind: bits & 1 != 0,
                };
                decide(evidence) == Verdict::EndsHere
            })
            .collect::<Vec<_>>();
        assert_eq!(ends, [0]);
    }
}
