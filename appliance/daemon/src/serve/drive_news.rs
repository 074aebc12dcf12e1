//! What the engine finds out about drives, as events of the history.

use base::ids::{DeviceId, Slot};
use engine::array::MemberErrors;
use engine::command::{Event, SuccessionEnd};

use super::news::Names;
use crate::events::{Severity, Told};

/// The event that such a piece of news is; none for news of another kind.
pub(super) fn told(arrays: &[String], event: &Event) -> Option<Told> {
    let (array, slot, told) = match *event {
        Event::ReadErrors { array, slot, errors, in_the_hour } => (array, slot, read_errors(slot, errors, in_the_hour)),
        Event::TooManyErrors { array, slot, excluded } => (array, slot, too_many(slot, excluded)),
        Event::Slow { array, slot, slow, mean, peers, excluded } => {
            let (mean, peers) = (mean.0 / 1000, peers.0 / 1000);
            let told = if slow { grew_slow(slot, mean, peers, excluded) } else { slow_no_longer(slot) };
            (array, slot, told.with("mean_us", mean).with("peers_us", peers))
        }
        Event::Hanging { array, slot, hangs, excluded } => {
            (array, slot, if hangs { hanging(slot, excluded) } else { answers_again(slot) })
        }
        _ => return None,
    };
    Some(told.of_array(&arrays[array.index()]).with("member", slot.0))
}

/// The event that such a piece of news is; none for news of another kind.
pub(super) fn of_succession(names: &Names, event: &Event) -> Option<Told> {
    let drive = |device: &DeviceId| names.drives[device].as_str();
    let (array, slot, told) = match event {
        Event::SuccessionBegan { array, slot, device } => {
            let text = format!(
                "drive {} becomes the like of member {} and takes its place then; the member stays in use meanwhile",
                drive(device),
                slot.0
            );
            (array, slot, Told::new("succession.began", Severity::Notice, text).with("drive", drive(device)))
        }
        Event::Succeeded { array, slot, device, before } => {
            let text = format!(
                "drive {} has the place of member {}; drive {}, which had it, is used no longer and may be taken out",
                drive(device),
                slot.0,
                drive(before)
            );
            let told = Told::new("succession.ended", Severity::Notice, text);
            (array, slot, told.with("drive", drive(device)).with("before", drive(before)))
        }
        Event::SuccessionEnded { array, slot, device, why } => {
            let (severity, because) = match why {
                SuccessionEnd::Failed => (Severity::Error, "it failed, and is not used; the member stays".to_owned()),
                SuccessionEnd::MemberGone => (
                    Severity::Warning,
                    "the member went out before: the drive gets its place now, and is rebuilt from the others"
                        .to_owned(),
                ),
                SuccessionEnd::Alone => (
                    Severity::Warning,
                    "no other member is whole any more: it gets the place of one that is out".to_owned(),
                ),
                SuccessionEnd::Blocked { stripe } => (
                    Severity::Error,
                    format!(
                        "neither the member nor the others can read all of what is behind stripe {stripe}; the member stays. A scrub \
                         says which blocks: have hosts write them again, then replace it"
                    ),
                ),
                SuccessionEnd::Cancelled => (Severity::Notice, "an operator let it go; the member stays".to_owned()),
                SuccessionEnd::Down => (Severity::Warning, "the array takes no writes any more".to_owned()),
            };
            let text = format!("drive {} does not succeed member {}: {because}", drive(device), slot.0);
            let why = match why {
                SuccessionEnd::Failed => "failed",
                SuccessionEnd::MemberGone => "member-gone",
                SuccessionEnd::Alone => "alone",
                SuccessionEnd::Blocked { .. } => "blocked",
                SuccessionEnd::Cancelled => "cancelled",
                SuccessionEnd::Down => "down",
            };
            let told = Told::new("succession.given_up", severity, text).with("drive", drive(device));
            (array, slot, told.with("why", why))
        }
        _ => return None,
    };
    Some(told.of_array(&names.arrays[array.index()]).with("member", slot.0))
}

fn read_errors(slot: Slot, errors: MemberErrors, in_the_hour: u32) -> Told {
    let MemberErrors { unreadable, wrong, corrected, uncorrected } = errors;
    let what = match (unreadable, wrong) {
        (_, 0) => format!("could not read {unreadable} blocks"),
        (0, _) => format!("gave back {wrong} blocks that are not what was written there, as their checksums say"),
        _ => format!("could not read {unreadable} blocks, and gave back {wrong} that are not what was written there"),
    };
    let text = format!(
        "member {} {what}; {corrected} were put together from the others and written to it again, {uncorrected} it did not take \
         back",
        slot.0
    );
    let name = if wrong > 0 { "member.wrong" } else { "member.unreadable" };
    let told = Told::new(name, Severity::Warning, text).rationed();
    let told = told
        .with("unreadable", unreadable)
        .with("wrong", wrong)
        .with("corrected", corrected)
        .with("uncorrected", uncorrected);
    told.with("in_the_hour", in_the_hour)
}

fn too_many(slot: Slot, excluded: bool) -> Told {
    let what = if excluded {
        "it is used no longer. Replace the drive"
    } else {
        "the array cannot do without it. Replace what is missing first, then this drive; meanwhile, back up what matters"
    };
    let text = format!("member {} could not read too many blocks within an hour: {what}", slot.0);
    Told::new("member.too_many_errors", Severity::Error, text).with("excluded", excluded)
}

fn grew_slow(slot: Slot, mean_us: u64, peers_us: u64, excluded: bool) -> Told {
    let what = if excluded { "it is used no longer, as the configuration has it" } else { "look at the drive" };
    let text = format!(
        "member {} takes {mean_us} us for a request where the others take {peers_us}, and makes the array slow: {what}",
        slot.0
    );
    let severity = if excluded { Severity::Error } else { Severity::Warning };
    Told::new("member.slow", severity, text).with("excluded", excluded)
}

fn slow_no_longer(slot: Slot) -> Told {
    Told::new("member.slow_no_longer", Severity::Notice, format!("member {} is as fast as the others again", slot.0))
}

fn hanging(slot: Slot, excluded: bool) -> Told {
    let what = if excluded {
        "it is used no longer. Look at the drive and its cable, or replace it"
    } else {
        "the array cannot do without it, and requests that need it wait. Look at the drive and its cable"
    };
    let text = format!("member {} does not answer within the timeout of drives: {what}", slot.0);
    Told::new("member.hangs", Severity::Error, text).with("excluded", excluded)
}

fn answers_again(slot: Slot) -> Told {
    Told::new("member.answers_again", Severity::Notice, format!("member {} answers again", slot.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ids::ArrayId;
    use base::time::Span;

    #[test]
    fn what_is_found_out_names_the_member_and_says_what_comes_of_it() {
        let arrays = ["a0".to_owned()];
        let (array, slot) = (ArrayId(0), Slot(2));
        let errors = MemberErrors { unreadable: 3, wrong: 0, corrected: 2, uncorrected: 1 };
        let wrong = MemberErrors { wrong: 3, ..MemberErrors::default() };
        let slow = |slow, excluded| Event::Slow {
            array,
            slot,
            slow,
            mean: Span::from_millis(80),
            peers: Span::from_micros(900),
            excluded,
        };
        let hangs = |hangs, excluded| Event::Hanging { array, slot, hangs, excluded };
        let all = [
            (Event::ReadErrors { array, slot, errors, in_the_hour: 7 }, "member.unreadable", Severity::Warning),
            (Event::ReadErrors { array, slot, errors: wrong, in_the_hour: 3 }, "member.wrong", Severity::Warning),
            (Event::TooManyErrors { array, slot, excluded: true }, "member.too_many_errors", Severity::Error),
            (Event::TooManyErrors { array, slot, excluded: false }, "member.too_many_errors", Severity::Error),
            (slow(true, false), "member.slow", Severity::Warning),
            (slow(true, true), "member.slow", Severity::Error),
            (slow(false, false), "member.slow_no_longer", Severity::Notice),
            (hangs(true, true), "member.hangs", Severity::Error),
            (hangs(true, false), "member.hangs", Severity::Error),
            (hangs(false, false), "member.answers_again", Severity::Notice),
        ];
        for (event, name, severity) in all {
            let told = told(&arrays, &event).expect("it is about a drive");
            assert_eq!((told.name, told.severity, told.array.as_deref()), (name, severity, Some("a0")));
            assert!(told.fields["member"] == 2 && told.text.contains("member 2 "), "{}", told.text);
        }
        assert_eq!(told(&arrays, &Event::Lost { count: 1 }), None);
    }
}
