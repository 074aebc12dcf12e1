//! What happens in the engine as events of the history: here each gets its name, its severity, its words and its fields.

use std::collections::BTreeMap;

use base::ids::DeviceId;
use engine::command::{Event, HostNews, VolumeWhat};
use engine::map::Service;
use ports::DeviceError;
use serde_json::Value;

use super::report::Fixed;
use super::{drive_news, scrub_news};
use crate::events::{Events, Severity, Told};

/// Tells the engine's news to the history, and so to the log.
pub(super) fn to_history(fixed: &Fixed, events: Events) -> impl Fn(Event) + Send + 'static {
    let arrays = fixed.maps.iter().map(|map| map.name.clone()).collect();
    let drives = fixed.devices.iter().map(|placed| (placed.id, placed.described.name.clone()));
    let names = Names { arrays, drives: drives.collect() };
    move |event| told(&names, event).into_iter().for_each(|told| events.tell(told))
}

/// What the configuration calls things.
pub(super) struct Names {
    pub(super) arrays: Vec<String>,
    pub(super) drives: BTreeMap<DeviceId, String>,
}

/// The events that a piece of news is. Names are a public interface.
fn told(names: &Names, event: Event) -> Vec<Told> {
    let Names { arrays, drives } = names;
    match event {
        Event::Excluded { array, members, copies, epoch } => {
            let excluded = |name, what: &str, field, at: u32| {
                let text = format!("{what} {at} is used no longer: it failed, or an operator wanted it so");
                Told::new(name, Severity::Error, text)
                    .of_array(&arrays[array.index()])
                    .with(field, at)
                    .with("epoch", epoch)
            };
            let members = bits(members).map(|slot| excluded("member.excluded", "member", "member", slot));
            let copies = bits(copies).map(|copy| excluded("log.excluded", "log copy", "copy", copy));
            members.chain(copies).collect()
        }
        Event::Volume { array, volume, what } => {
            let path = format!("{}/{volume}", arrays[array.index()]);
            let (name, text, field) = match what {
                VolumeWhat::Created { blocks, copied: false } => {
                    ("volume.created", "was made", Some(("blocks", blocks.into())))
                }
                VolumeWhat::Created { blocks, copied: true } => {
                    ("volume.created", "was made, and is copied into", Some(("blocks", blocks.into())))
                }
                VolumeWhat::Grown { blocks } => ("volume.grown", "has grown", Some(("blocks", blocks.into()))),
                VolumeWhat::Renamed { from } => ("volume.renamed", "has its new name", Some(("from", from.into()))),
                VolumeWhat::Exported => ("volume.exported", "is exported", None),
                VolumeWhat::Copied => ("volume.copied", "is a whole copy", None),
                VolumeWhat::Deleted => ("volume.deleted", "is deleted", None),
                VolumeWhat::Cleaned => ("volume.cleaned", "is zeroed, and its space free", None),
            };
            let told = Told::new(name, Severity::Notice, format!("volume {path} {text}"));
            let told = told.of_array(&arrays[array.index()]).with("volume", volume);
            vec![match field {
                Some((field, value)) => told.with(field, Value::clone(&value)),
                None => told,
            }]
        }
        Event::HostConnected(who) => vec![host("host.connected", Severity::Info, "connected", &who)],
        Event::HostDisconnected(who) => vec![host("host.disconnected", Severity::Info, "disconnected", &who)],
        Event::HostRefused { who, why } => {
            vec![host("host.refused", Severity::Warning, &format!("was refused: {why}"), &who).with("why", why)]
        }
        Event::DestageBlocked { array, stripe, members } => {
            let members: Vec<u32> = bits(members).collect();
            let text = format!(
                "stripe {stripe} cannot be destaged: what it needs of members {members:?} can be had neither from them nor from the log. \
                 What was written stays in the log, if there is one, and takes its space; it goes on when hosts have written all blocks \
                 of the stripe that they cannot read"
            );
            let told = Told::new("destage.blocked", Severity::Error, text).of_array(&arrays[array.index()]);
            vec![told.with("stripe", stripe.0).with("members", members)]
        }
        Event::LogPinned { array } => {
            let text = "so much cannot be destaged that a part of the log is full, and writes to it wait. They go on when hosts have \
                        written the blocks that they cannot read";
            vec![Told::new("log.pinned", Severity::Error, text).of_array(&arrays[array.index()])]
        }
        Event::DestageUnblocked { array } => {
            let text = "every stripe can be destaged again";
            vec![Told::new("destage.unblocked", Severity::Notice, text).of_array(&arrays[array.index()])]
        }
        Event::ReadErrors { .. } | Event::TooManyErrors { .. } | Event::Slow { .. } | Event::Hanging { .. } => {
            drive_news::told(arrays, &event).into_iter().collect()
        }
        Event::ZonesAtStake { array, zones } => {
            let text = format!(
                "a member was lost before a resync was done: in {zones} zones what it held comes from parities that may not match, \
                 and may be wrong"
            );
            vec![Told::new("resync.lost", Severity::Error, text).of_array(&arrays[array.index()]).with("zones", zones)]
        }
        Event::ResyncBegan { array, zones } => {
            let text = format!("the last stop was none: {zones} zones are resynced");
            vec![
                Told::new("resync.began", Severity::Notice, text).of_array(&arrays[array.index()]).with("zones", zones),
            ]
        }
        Event::ResyncBlocked { array, stripe } => {
            let text = format!(
                "the zone from stripe {stripe} on cannot be resynced: a member cannot read a block of it. It is tried again at the \
                 next start"
            );
            let told = Told::new("resync.blocked", Severity::Error, text).of_array(&arrays[array.index()]);
            vec![told.with("stripe", stripe.0)]
        }
        Event::Resynced { array, zones, blocked } => {
            let text = format!("{zones} zones were resynced, {blocked} could not be");
            let severity = if blocked == 0 { Severity::Info } else { Severity::Error };
            let told = Told::new("resync.ended", severity, text).of_array(&arrays[array.index()]);
            vec![told.with("zones", zones).with("blocked", blocked)]
        }
        Event::LogLost { array, service } => {
            let text = match service {
                Service::Stopped => "the last copy of the log is lost: nothing is served any more (on_log_loss: stop)",
                Service::Draining => {
                    "the last copy of the log is lost: what only memory holds goes to the members, then writes go on without a log \
                     (on_log_loss: write-through-exposed)"
                }
                _ => "the last copy of the log is lost: reads go on, writes are refused",
            };
            let told = Told::new("log.lost", Severity::Error, text).of_array(&arrays[array.index()]);
            vec![told.with("service", service.name())]
        }
        Event::Exposed { array } => {
            let text = "writes go on without a log: a crash while a member is missing may cost data, and former copies of the log \
                        are read no more";
            vec![Told::new("array.exposed", Severity::Error, text).of_array(&arrays[array.index()])]
        }
        Event::ScrubBegan { .. } | Event::ScrubFound { .. } | Event::ScrubEnded { .. } => {
            scrub_news::told(arrays, &event).into_iter().collect()
        }
        Event::Lost { count } => {
            let text = format!("{count} pieces of news came faster than they could be told");
            vec![Told::new("events.lost", Severity::Warning, text).with("count", count)]
        }
        Event::CopyFailed { array, copy, error } => {
            let text = match error {
                DeviceError::Late => format!("log copy {copy} has not answered in time and will be excluded"),
                error => format!("log copy {copy} failed ({error:?}) and will be excluded"),
            };
            let told = Told::new("log.failed", Severity::Error, text).of_array(&arrays[array.index()]);
            vec![told.with("copy", copy).with("late", error == DeviceError::Late)]
        }
        Event::Joined { array, slot, device, missed } => {
            let (drive, array) = (&drives[&device], &arrays[array.index()]);
            let text = match missed {
                None => format!("drive {drive} has the place of member {}", slot.0),
                Some(zones) => format!(
                    "drive {drive} has its place of member {} again, with what it held: it missed something in {zones} zones",
                    slot.0
                ),
            };
            let told = Told::new("member.joined", Severity::Info, text).of_array(array);
            let told = told.with("member", slot.0).with("drive", drive.as_str());
            vec![missed.into_iter().fold(told, |told, zones| told.with("missed_zones", zones))]
        }
        Event::Attached { array, copy, device } => {
            let text = format!("drive {} is log copy {copy} and has all that the others have", drives[&device]);
            let told = Told::new("log.attached", Severity::Notice, text).of_array(&arrays[array.index()]);
            vec![told.with("copy", copy).with("drive", drives[&device].as_str())]
        }
        Event::Detached { array, copies, epoch } => bits(copies)
            .map(|copy| {
                let text = format!("log copy {copy} was taken away, as an operator wanted");
                let told = Told::new("log.detached", Severity::Notice, text).of_array(&arrays[array.index()]);
                told.with("copy", copy).with("epoch", epoch)
            })
            .collect(),
        Event::Mode { array, mode } => {
            let mode = mode.name();
            let told =
                Told::new("log.mode", Severity::Notice, format!("writes are acknowledged in {mode} from now on"));
            vec![told.of_array(&arrays[array.index()]).with("mode", mode)]
        }
        Event::DriveRefused { array, device } => {
            let text = format!("drive {} failed while it was prepared, and is not used", drives[&device]);
            let told = Told::new("drive.refused", Severity::Error, text).of_array(&arrays[array.index()]);
            vec![told.with("drive", drives[&device].as_str())]
        }
        Event::SuccessionBegan { .. } | Event::Succeeded { .. } | Event::SuccessionEnded { .. } => {
            drive_news::of_succession(names, &event).into_iter().collect()
        }
        Event::GrowthBegan { array, slot, device } => {
            let text =
                format!("drive {} is member {}, and data moves to where it lies with it", drives[&device], slot.0);
            let told = Told::new("growth.began", Severity::Notice, text).of_array(&arrays[array.index()]);
            vec![told.with("member", slot.0).with("drive", drives[&device].as_str())]
        }
        Event::GrowthBlocked { array, stripe } => {
            let text = format!(
                "data does not move on from stripe {stripe}: requests that use it do not end, or some of it cannot be read or destaged. It is \
                 tried again"
            );
            let told = Told::new("growth.blocked", Severity::Warning, text).of_array(&arrays[array.index()]);
            vec![told.with("stripe", stripe.0)]
        }
        Event::Grown { array, blocks } => {
            let bytes = blocks * base::BLOCK as u64;
            let text = format!("all data has moved: there are {bytes} bytes for volumes now");
            vec![
                Told::new("growth.ended", Severity::Notice, text).of_array(&arrays[array.index()]).with("bytes", bytes),
            ]
        }
        Event::RebuildBegan { array, slot, position } => {
            let text = format!("member {} is being rebuilt, from stripe {position}", slot.0);
            let told = Told::new("rebuild.began", Severity::Info, text).of_array(&arrays[array.index()]);
            vec![told.with("member", slot.0).with("stripe", position.0)]
        }
        Event::RebuildBlocked { array, slot, stripe } => {
            let text = format!(
                "member {} cannot be rebuilt around stripe {stripe}: other members cannot read what it takes. It is tried again \
                 at the next start",
                slot.0
            );
            let told = Told::new("rebuild.blocked", Severity::Error, text).of_array(&arrays[array.index()]);
            vec![told.with("member", slot.0).with("stripe", stripe.0)]
        }
        Event::Rebuilt { array, slot } => {
            let text = format!("member {} is whole again", slot.0);
            let told = Told::new("rebuild.ended", Severity::Info, text).of_array(&arrays[array.index()]);
            vec![told.with("member", slot.0)]
        }
    }
}

fn host(name: &'static str, severity: Severity, what: &str, who: &HostNews) -> Told {
    let HostNews { host, subsystem, peer } = who;
    let told = Told::new(name, severity, format!("host {host} at {peer} {what} (subsystem {subsystem})"));
    told.with("host", host.as_str()).with("subsystem", subsystem.as_str()).with("peer", peer.as_str()).rationed()
}

fn bits(mask: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).filter(move |at| mask & 1 << at != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ids::ArrayId;

    #[test]
    fn each_member_and_copy_that_is_excluded_is_an_event_of_its_array() {
        let names = Names { arrays: vec!["a0".to_owned(), "a1".to_owned()], drives: BTreeMap::new() };
        let all = told(&names, Event::Excluded { array: ArrayId(1), members: 0b100, copies: 0b11, epoch: 7 });
        let said: Vec<_> = all.iter().map(|told| (told.name, told.array.as_deref(), told.rationed)).collect();
        assert_eq!(
            said,
            [
                ("member.excluded", Some("a1"), false),
                ("log.excluded", Some("a1"), false),
                ("log.excluded", Some("a1"), false)
            ]
        );
        assert_eq!(
            (&all[0].fields["member"], &all[2].fields["copy"], &all[2].fields["epoch"]),
            (&2.into(), &1.into(), &7.into())
        );
    }

    #[test]
    fn a_blocked_destage_names_its_stripe_and_the_members_that_lack_it() {
        let names = Names { arrays: vec!["a0".to_owned()], drives: BTreeMap::new() };
        let array = ArrayId(0);
        let all = told(&names, Event::DestageBlocked { array, stripe: base::ids::StripeId(7), members: 0b101 });
        assert_eq!((all.len(), all[0].name, all[0].severity), (1, "destage.blocked", Severity::Error));
        assert!(all[0].text.contains("stripe 7") && all[0].text.contains("[0, 2]"), "{}", all[0].text);
        let all = told(&names, Event::LogPinned { array });
        assert_eq!((all.len(), all[0].name, all[0].severity), (1, "log.pinned", Severity::Error));
        let all = told(&names, Event::DestageUnblocked { array });
        assert_eq!((all.len(), all[0].name, all[0].array.as_deref()), (1, "destage.unblocked", Some("a0")));
    }

    #[test]
    fn what_hosts_do_is_rationed() {
        let names = Names { arrays: Vec::new(), drives: BTreeMap::new() };
        let who = HostNews { host: "h".into(), subsystem: "s".into(), peer: "p".into() };
        for event in [
            Event::HostConnected(who.clone()),
            Event::HostDisconnected(who.clone()),
            Event::HostRefused { who, why: "no" },
        ] {
            let all = told(&names, event);
            assert!(all[0].rationed && all[0].name.starts_with("host.") && all[0].fields["host"] == "h");
        }
    }
}
