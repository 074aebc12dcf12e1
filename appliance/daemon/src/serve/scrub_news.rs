//! What scrubs find, as events of the history.

use engine::array::{Found, FoundKind, FoundPlace};
use engine::command::Event;
use raid::{Repair, ScrubCounts, ScrubState, slots};
use serde_json::json;

use crate::events::{Severity, Told};

/// The event that such a piece of news is; none for news of another kind.
pub(super) fn told(arrays: &[String], event: &Event) -> Option<Told> {
    let (array, told) = match event {
        Event::ScrubBegan { array, repair, position } => {
            let from = if position.0 == 0 { String::new() } else { format!(", from stripe {position}") };
            let text = format!("all that the members hold is read and compared{from}: {}", intends(*repair));
            let told = Told::new("scrub.began", Severity::Info, text);
            (array, told.with("repair", repair.name()).with("stripe", position.0))
        }
        Event::ScrubFound { array, found, last } => (array, found_in_zone(found, *last)),
        Event::ScrubEnded { array, record } => {
            let clean = record.counts.is_clean();
            let how = match (record.state, clean) {
                (ScrubState::Ended, true) => "all that the members hold was read and agrees".to_owned(),
                (ScrubState::Ended, false) => {
                    format!("all that the members hold was read: {}", in_words(&record.counts))
                }
                (_, true) => format!("the scrub was stopped at stripe {}; up to there all agrees", record.position),
                (_, false) => {
                    format!("the scrub was stopped at stripe {}: {}", record.position, in_words(&record.counts))
                }
            };
            let severity = if clean { Severity::Info } else { severity(&record.counts) };
            let told = Told::new("scrub.ended", severity, how).with("complete", record.state == ScrubState::Ended);
            (array, with_counts(told, &record.counts))
        }
        _ => return None,
    };
    Some(told.of_array(&arrays[array.index()]))
}

const fn intends(repair: Repair) -> &'static str {
    match repair {
        Repair::None => "nothing is written",
        Repair::Located => "blocks that are known to be wrong are put right",
        Repair::Parity => "blocks that are known to be wrong are put right, and where nobody can tell, data is trusted",
    }
}

fn found_in_zone(found: &Found, last: bool) -> Told {
    let mut text = in_words(&found.counts);
    for place in found.places.iter().take(2) {
        text += &format!("; {}", at(place));
    }
    if last {
        text += ". There are too many such places: of the others only the sums will be told";
    }
    let places = found.places.iter().map(|place| {
        json!({
            "stripe": place.start.0,
            "stripes": place.stripes,
            "members": slots(place.slots).map(|slot| slot.0).collect::<Vec<_>>(),
            "what": what(place.kind),
            "repaired": place.repaired,
        })
    });
    let places = places.collect::<Vec<_>>();
    let told = Told::new("scrub.mismatch", severity(&found.counts), text).rationed();
    with_counts(told, &found.counts).with("places", places).with("more_places", found.more)
}

const fn what(kind: FoundKind) -> &'static str {
    match kind {
        FoundKind::Wrong => "wrong",
        FoundKind::Unlocated => "unlocated",
        FoundKind::Unreadable => "unreadable",
    }
}

/// What is left wrong is an error; what was put right, or could not be looked at, a warning.
const fn severity(counts: &ScrubCounts) -> Severity {
    let wrong = counts.located_blocks + counts.unreadable_blocks;
    if counts.unlocated_stripes > 0 || counts.unrepaired_blocks > 0 || wrong > counts.repaired_blocks {
        Severity::Error
    } else {
        Severity::Warning
    }
}

fn at(place: &FoundPlace) -> String {
    let members: Vec<_> = slots(place.slots).map(|slot| slot.0.to_string()).collect();
    let members = members.join(", ");
    let what = match place.kind {
        FoundKind::Wrong => format!("wrong is what member {members} holds"),
        FoundKind::Unlocated => format!("members {members} do not agree, and nobody can tell which is wrong"),
        FoundKind::Unreadable => format!("member {members} could not read"),
    };
    let repaired = if place.repaired { "; it is put right" } else { "" };
    format!("{} stripes from {} on: {what}{repaired}", place.stripes, place.start)
}

fn in_words(counts: &ScrubCounts) -> String {
    let said = [
        (counts.mismatched_stripes, "stripes do not agree"),
        (counts.located_blocks, "of their blocks are known to be wrong"),
        (counts.unlocated_stripes, "of them cannot be told what is wrong"),
        (counts.unreadable_blocks, "blocks could not be read"),
        (counts.repaired_blocks, "blocks were put right"),
        (counts.unrepaired_blocks, "blocks were not right after they had been written"),
        (counts.skipped_stripes, "stripes could not be looked at"),
    ];
    let said: Vec<_> = said.iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")).collect();
    said.join(", ")
}

fn with_counts(told: Told, counts: &ScrubCounts) -> Told {
    told.with("mismatched_stripes", counts.mismatched_stripes)
        .with("located_blocks", counts.located_blocks)
        .with("unlocated_stripes", counts.unlocated_stripes)
        .with("unreadable_blocks", counts.unreadable_blocks)
        .with("repaired_blocks", counts.repaired_blocks)
        .with("unrepaired_blocks", counts.unrepaired_blocks)
        .with("skipped_stripes", counts.skipped_stripes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ids::{ArrayId, StripeId};
    use raid::ScrubRecord;

    #[test]
    fn what_is_left_wrong_is_an_error_and_what_was_put_right_a_warning() {
        let arrays = ["a0".to_owned()];
        let array = ArrayId(0);
        let place = |kind, repaired| FoundPlace { start: StripeId(7), stripes: 2, kind, slots: 0b101, repaired };
        let found = |counts, kind, repaired| {
            let found = Found { counts, places: vec![place(kind, repaired)], more: 0 };
            told(&arrays, &Event::ScrubFound { array, found: Box::new(found), last: false }).expect("of a scrub")
        };
        let mut counts =
            ScrubCounts { mismatched_stripes: 2, located_blocks: 2, repaired_blocks: 2, ..Default::default() };
        let put_right = found(counts, FoundKind::Wrong, true);
        assert_eq!((put_right.name, put_right.severity), ("scrub.mismatch", Severity::Warning));
        assert!(put_right.text.contains("2 stripes from 7 on: wrong is what member 0, 2 holds; it is put right"));
        assert!(put_right.rationed && put_right.fields["places"][0]["members"] == json!([0, 2]));
        counts.repaired_blocks = 0;
        assert_eq!(found(counts, FoundKind::Wrong, false).severity, Severity::Error);
        counts = ScrubCounts { mismatched_stripes: 2, unlocated_stripes: 2, ..Default::default() };
        let left = found(counts, FoundKind::Unlocated, false);
        assert!(left.severity == Severity::Error && left.text.contains("nobody can tell"), "{}", left.text);

        let ended = |state, counts| {
            let record = ScrubRecord { state, repair: Repair::Located, position: 9, began: 0, rate: None, counts };
            told(&arrays, &Event::ScrubEnded { array, record }).expect("of a scrub")
        };
        assert_eq!(ended(ScrubState::Ended, ScrubCounts::default()).severity, Severity::Info);
        assert_eq!(ended(ScrubState::Ended, counts).severity, Severity::Error);
        assert!(ended(ScrubState::Stopped, counts).text.contains("stopped at stripe 9: 2 stripes do not agree"));
        assert_eq!(told(&arrays, &Event::Lost { count: 1 }), None);
    }
}
