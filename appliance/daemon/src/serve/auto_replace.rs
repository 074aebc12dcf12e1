//! What drives become by themselves when they appear: spares that the configuration names, and, where it allows that, members
//! in the stead of those that are out. Only what bears nothing is taken, and what was a member of the same array before: one that
//! lacks no more than what was written since it went out comes back with what it holds, any other is worth nothing since the others
//! went on without it. That a drive is to be overwritten is an event before anything is written.

use std::time::{Duration, Instant};

use base::ids::{ArrayId, DeviceId, Slot};
use config::schema::{AutoReplace, Config, Device};
use engine::boot::Found;
use engine::command::Verb;

use super::drives::{spare, uses};
use super::fixed::Place;
use super::report::Reporter;
use crate::events::{Severity, Told};

/// A drive that comes and goes is taken at most so often: each time its array is rebuilt as a whole.
const NOT_AGAIN_FOR: Duration = Duration::from_secs(3600);

/// What the configuration has a drive for, and what has become of it.
#[derive(Debug, Default)]
pub(super) struct Role {
    /// The array that names it as a member and lets it take a place by itself, and its place in that list.
    member: Option<(usize, u8)>,
    /// The array that names it as a spare.
    spare: Option<usize>,
    /// When it took a place by itself.
    taken: Option<Instant>,
}

/// A drive, and what it bears.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) id: DeviceId,
    pub(super) name: &'a str,
    pub(super) found: &'a Found,
    /// In words, if it is anything.
    pub(super) bears: Option<&'a str>,
}

impl Role {
    pub(super) fn of(device: &Device, config: &Config) -> Self {
        let name = device.name();
        let mut role = Self::default();
        for (at, array) in config.arrays.iter().enumerate() {
            if let Some(slot) = array.members.iter().position(|member| member == name)
                && array.drives.auto_replace == AutoReplace::SameSlot
            {
                role.member = Some((at, slot as u8));
            }
            if array.spares.contains(name) {
                role.spare = Some(at);
            }
        }
        role
    }

    /// Whether it may become anything by itself.
    pub(super) fn is_any(&self) -> bool {
        self.member.is_some() || self.spare.is_some()
    }

    /// A drive has appeared. The caller sees to it that nobody else gives drives to arrays.
    pub(super) fn offer(&mut self, reporter: &Reporter, offer: Offer<'_>) {
        if let Some(array) = self.spare.filter(|_| offer.bears.is_none()) {
            keep(reporter, array, &offer);
        }
        if let Some((array, declared)) = self.member {
            self.take_place(reporter, array, declared, &offer);
        }
    }

    /// A drive that was there at the start and takes no part: one that bears nothing came while nobody was looking. One that was
    /// a member may have been failed on purpose.
    pub(super) fn offer_at_start(&mut self, reporter: &Reporter, offer: Offer<'_>) {
        let is_used = uses(&reporter.fixed, &reporter.shards.statuses()).contains_key(&offer.id);
        if let Some((array, declared)) = self.member.filter(|_| offer.bears.is_none() && !is_used) {
            self.take_place(reporter, array, declared, &offer);
        }
    }

    fn take_place(&mut self, reporter: &Reporter, array: usize, declared: u8, offer: &Offer<'_>) {
        let map = &reporter.fixed.maps[array];
        let shards = reporter.shards.statuses();
        let newest = shards.iter().filter_map(|said| said.arrays.get(array)).max_by_key(|part| part.epoch);
        let empty = newest.map_or(&[][..], |part| &part.missing_members);
        let Some(&first) = empty.first() else { return };
        let old = match offer.found {
            Found::Member(said) if said.array == map.uuid => Some(said.slot),
            _ => None,
        };
        let told = |name, severity, text: String| {
            reporter.events.tell(Told::new(name, severity, text).of_array(&map.name).with("drive", offer.name));
        };
        let name = offer.name;
        if let Some(what) = offer.bears.filter(|_| old.is_none()) {
            let text = format!(
                "drive {name} bears {what} and is left alone, though array {} lacks a member: brindle drive replace {name} {name} \
                 --force has it overwritten",
                map.name
            );
            return told("drive.left_alone", Severity::Warning, text);
        }
        if self.taken.is_some_and(|taken| taken.elapsed() < NOT_AGAIN_FOR) {
            let text = format!("drive {name} took a place by itself within the hour, and does not do so again");
            return told("drive.left_alone", Severity::Warning, text);
        }
        if comes_back(reporter, array, offer) {
            self.taken = Some(Instant::now());
            let text =
                format!("drive {name} comes back to its place by itself, as arrays[].drives.auto_replace has it");
            return told("drive.comes_back", Severity::Notice, text);
        }
        let at_start =
            reporter.fixed.devices.iter().find(|placed| placed.id == offer.id).and_then(|placed| placed.place);
        let at_start = if let Some(Place::Member(slot)) = at_start { Some(slot) } else { None };
        let wanted = [at_start, old, Some(declared)];
        let slot = wanted.into_iter().flatten().find(|slot| empty.contains(slot)).unwrap_or(first);
        let bears = offer.bears.unwrap_or("nothing");
        let text = format!(
            "drive {name} bears {bears} and takes the place of member {slot} by itself, as arrays[].drives.auto_replace has it: it \
             is overwritten"
        );
        told("drive.takes_place", Severity::Notice, text);
        reporter.events.settle();
        self.taken = Some(Instant::now());
        let spare = spare(offer.id, reporter.devices.device(offer.id).blocks());
        let verb = Verb::Replace { array: ArrayId(array as u16), slot: Slot(slot), spare };
        if let Err(error) = reporter.shards.command(verb) {
            told("drive.takes_no_place", Severity::Error, format!("drive {name} cannot take the place: {error}"));
        }
    }
}

/// Gives its place back to a drive that was a member of the array and lacks no more than what was written since it went out.
fn comes_back(reporter: &Reporter, array: usize, offer: &Offer<'_>) -> bool {
    let map = &reporter.fixed.maps[array];
    let Found::Member(said) = offer.found else { return false };
    if said.array != map.uuid {
        return false;
    }
    let spare = spare(offer.id, reporter.devices.device(offer.id).blocks());
    let verb = Verb::Return { array: ArrayId(array as u16), spare, said: said.clone() };
    reporter.shards.command(verb).is_ok()
}

/// Keeps a drive as a spare.
fn keep(reporter: &Reporter, array: usize, offer: &Offer<'_>) {
    let (map, name) = (&reporter.fixed.maps[array], offer.name);
    let verb = Verb::AddSpare {
        array: ArrayId(array as u16),
        spare: spare(offer.id, reporter.devices.device(offer.id).blocks()),
    };
    let (name, severity, text) = match reporter.shards.command(verb) {
        Ok(()) => ("drive.kept", Severity::Notice, format!("drive {name} bears nothing and is kept as a spare")),
        Err(error) => ("drive.not_kept", Severity::Warning, format!("drive {name} cannot be kept as a spare: {error}")),
    };
    reporter.events.tell(Told::new(name, severity, text).of_array(&map.name).with("drive", offer.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_it_is_allowed_does_a_member_come_by_itself() {
        let role = |text: &str, at: usize| {
            let config = config::parse(text, "test.yaml").unwrap().config;
            Role::of(&config.devices[at], &config)
        };
        assert!(!role(config::DEMO, 1).is_any(), "nothing is done unasked");
        let allowed =
            config::DEMO.replace("    level: raid5", "    drives: {auto_replace: same-slot}\n    level: raid5");
        assert_eq!((role(&allowed, 1).member, role(&allowed, 1).spare), (Some((0, 1)), None));
        assert!(
            config::parse(
                &config::DEMO.replace("    level: raid5", "    drives: {auto_replace: any}\n    level: raid5"),
                "t"
            )
            .is_err()
        );
    }
}
