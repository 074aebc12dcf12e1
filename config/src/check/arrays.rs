//! What arrays are made of: each device has one use and is large enough, chunk and lanes can be, the volumes fit.

use base::BLOCK;

use super::Checker;
use crate::limits::{
    self, CHUNK_BYTES, DRIVE_READ_TIMEOUT, DRIVE_TIMEOUT, INDEX_BYTES, LANES, LOG_TIMEOUT, MIN_MEMBER_BYTES,
    WATERMARK_PERCENT, ZONE_BYTES, member_overhead_bytes, min_log_bytes,
};
use crate::schema::{
    Level, default_age, default_chunk, default_drive_read_timeout, default_drive_timeout, default_lanes,
};
use crate::tree::Node;
use crate::values::{Percent, Size, TimeSpan};

impl<'a> Checker<'a, '_, '_> {
    pub(super) fn arrays(&mut self) {
        self.unique_names(self.root.list("arrays"), "arrays", "name");
        for (i, array) in self.root.list("arrays").iter().enumerate() {
            let path = format!("arrays[{i}]");
            let label = array.text_of("name").unwrap_or("this array");
            self.chunk(array, &path);
            self.level(array, &path);
            let smallest = self.members(array, label, &path);
            self.spares(array, label, smallest, &path);
            self.log(array, label, &path);
            self.drives(array, &path);
            self.destage(array, &path);
            self.volumes(array, smallest, &path);
        }
    }

    fn chunk(&mut self, array: &Node, path: &str) {
        let (Some(node), Some(chunk)) = (array.get("chunk"), array.meaning_of::<Size>("chunk")) else { return };
        if !CHUNK_BYTES.contains(&chunk.bytes()) || !chunk.bytes().is_power_of_two() {
            let expected =
                format!("a power of two from {} to {}", Size(*CHUNK_BYTES.start()), Size(*CHUNK_BYTES.end()));
            self.error(node, &format!("{path}.chunk"), "this is no size of a chunk", expected);
        }
    }

    /// Whether the level takes so many members, and what it means if it has no redundancy.
    fn level(&mut self, array: &Node, path: &str) {
        let (Some(name), Some(level)) = (array.text_of("level"), array.text_of("level").and_then(Level::from_text))
        else {
            return;
        };
        let Some(node) = array.get("members") else { return };
        let (range, path) = (limits::members(level), format!("{path}.members"));
        let count = array.list("members").len();
        let (least, most) = (range.start(), range.end());
        if !range.contains(&count) {
            let message = format!("{name} takes {least} to {most} members, and these are {count}");
            self.error(node, &path, message, format!("{least} to {most} devices"));
        } else if limits::in_pairs(level) && !count.is_multiple_of(2) {
            let message = format!("{name} takes members in pairs, and these are {count}");
            self.error(node, &path, message, "an even number of devices");
        } else if level == Level::Raid0 {
            let message = format!("{name} has no redundancy: if one of these fails, everything in the array is lost");
            self.warning(node, &path, message, "another level, unless that may be");
        }
    }

    /// The size of the smallest member, if any member's size is known.
    fn members(&mut self, array: &'a Node, label: &str, path: &str) -> Option<u64> {
        let mut sizes = Vec::new();
        for (i, member) in array.list("members").iter().enumerate() {
            let path = format!("{path}.members[{i}]");
            let Some(device) = self.used_by(member, &path, &format!("a member of {label}")) else { continue };
            let Some(size) = given_size(device) else { continue };
            if size.bytes() < MIN_MEMBER_BYTES {
                let expected = format!("a member of at least {}", Size(MIN_MEMBER_BYTES));
                self.error(member, &path, format!("this device has only {size}"), expected);
            }
            sizes.push((size, member, path));
        }
        let smallest = sizes.iter().map(|(size, ..)| *size).min()?;
        for (size, member, path) in &sizes {
            if *size > smallest {
                let message =
                    format!("this device has {size}, of which {smallest} are used: as much as the smallest has");
                self.warning(member, path, message, "members of one size");
            }
        }
        Some(smallest.bytes())
    }

    /// A spare is as large as the smallest member at least.
    fn spares(&mut self, array: &'a Node, label: &str, smallest: Option<u64>, path: &str) {
        for (i, spare) in array.list("spares").iter().enumerate() {
            let path = format!("{path}.spares[{i}]");
            let Some(device) = self.used_by(spare, &path, &format!("a spare of {label}")) else { continue };
            if let (Some(size), Some(smallest)) = (given_size(device), smallest)
                && size.bytes() < smallest
            {
                let expected = format!("a device of at least {}, as the members have", Size(smallest));
                self.error(spare, &path, format!("this device has only {size}"), expected);
            }
        }
    }

    fn log(&mut self, array: &'a Node, label: &str, path: &str) {
        let Some(log) = array.get("log") else {
            let node = array.get("level").unwrap_or(array);
            let message = "there is no write log: each write waits for a flush of all members, and after a crash with a member \
                           missing the array is not served without --force";
            self.warning(node, path, message, "log: {devices: [...]}, unless that may be");
            if let Some(policy) = array.get("on_log_loss") {
                let message = "there is no log that could be lost";
                self.error(policy, &format!("{path}.on_log_loss"), message, "no such key, or a log");
            }
            if let Some(on) = array.get("checksums").filter(|_| array.text_of("checksums") == Some("on")) {
                let message = "checksums need a log: without one a crash would leave blocks that differ from theirs";
                self.error(on, &format!("{path}.checksums"), message, "off, or a log");
            }
            return;
        };
        if let Some(policy) = array.get("on_log_loss").filter(|_| array.text_of("checksums") == Some("on"))
            && array.text_of("on_log_loss") == Some("write-through-exposed")
        {
            let message = "checksums need a log: the array cannot be written without one once it is lost";
            self.error(policy, &format!("{path}.on_log_loss"), message, "read-only or stop, or checksums: off");
        }
        let lanes = log.number_of::<u16>("lanes").unwrap_or(default_lanes()).clamp(*LANES.start(), *LANES.end());
        let reactors = self.reactor_count();
        if u64::from(lanes) < reactors {
            let node = log.get("lanes").unwrap_or(log);
            let message = format!("{lanes} lanes cannot be shared by {reactors} reactors");
            self.error(node, &format!("{path}.log.lanes"), message, "at least one lane for each reactor");
        }
        if let (Some(node), Some(timeout)) = (log.get("timeout"), log.meaning_of::<TimeSpan>("timeout"))
            && !LOG_TIMEOUT.contains(&timeout.0)
        {
            let expected = format!("from {} to {}", TimeSpan(*LOG_TIMEOUT.start()), TimeSpan(*LOG_TIMEOUT.end()));
            self.error(node, &format!("{path}.log.timeout"), "this is no usable time limit", expected);
        }
        self.residency(log, path);
        let least = Size(min_log_bytes(lanes));
        for (i, copy) in log.list("devices").iter().enumerate() {
            let path = format!("{path}.log.devices[{i}]");
            let Some(device) = self.used_by(copy, &path, &format!("a log copy of {label}")) else { continue };
            if let Some(size) = given_size(device)
                && size < least
            {
                let expected = format!("a log device of at least {least} for {lanes} lanes");
                self.error(copy, &path, format!("this device has only {size}"), expected);
            }
            if device.text_of("kind") == Some("ram") && self.any_member_is_lasting(array) {
                let message = "this log is in memory: what was acknowledged is lost when the process ends";
                self.warning(copy, &path, message, "a device that keeps what is written");
            }
        }
    }

    fn residency(&mut self, log: &Node, path: &str) {
        let leaves_memory = log.text_of("residency") == Some("log");
        if let Some(node) = log.get("index") {
            let path = format!("{path}.log.index");
            if !leaves_memory {
                let message = "all that waits for the members is in memory: there is nothing beyond that to be known";
                self.error(node, &path, message, "no such key, or residency: log");
            } else if log.meaning_of::<Size>("index").is_some_and(|index| !INDEX_BYTES.contains(&index.bytes())) {
                let expected = format!("from {} to {}", Size(*INDEX_BYTES.start()), Size(*INDEX_BYTES.end()));
                self.error(node, &path, "this is no usable size of an index", expected);
            }
        }
        if let Some(node) = log.get("residency").filter(|_| leaves_memory && log.list("devices").len() < 2) {
            let message = "with one copy of the log all that waits for the members stays in memory";
            self.warning(node, &format!("{path}.log.residency"), message, "two log devices or more");
        }
    }

    fn any_member_is_lasting(&self, array: &Node) -> bool {
        let kinds = array.list("members").iter().filter_map(|member| self.device(member.text()?)?.text_of("kind"));
        kinds.into_iter().any(|kind| kind != "ram")
    }

    fn drives(&mut self, array: &Node, path: &str) {
        let Some(drives) = array.get("drives") else { return };
        let times = [("read_timeout", DRIVE_READ_TIMEOUT), ("timeout", DRIVE_TIMEOUT)];
        let mut meant = [default_drive_read_timeout(), default_drive_timeout()];
        for ((key, range), meant) in times.into_iter().zip(&mut meant) {
            let (Some(node), Some(timeout)) = (drives.get(key), drives.meaning_of::<TimeSpan>(key)) else { continue };
            *meant = timeout;
            if !range.contains(&timeout.0) {
                let expected = format!("from {} to {}", TimeSpan(*range.start()), TimeSpan(*range.end()));
                self.error(node, &format!("{path}.drives.{key}"), "this is no usable time limit", expected);
                return;
            }
        }
        let [read, all] = meant;
        if read.0 > all.0 {
            let message = format!("reads would wait for a member for {read}, and it is used no longer after {all}");
            self.error(drives, &format!("{path}.drives"), message, "a read_timeout that is at most the timeout");
        }
    }

    fn destage(&mut self, array: &Node, path: &str) {
        let Some(destage) = array.get("destage") else { return };
        for key in ["high_watermark", "memory_watermark"] {
            if let (Some(node), Some(share)) = (destage.get(key), destage.meaning_of::<Percent>(key))
                && !WATERMARK_PERCENT.contains(&share.0)
            {
                let (least, most) = WATERMARK_PERCENT.into_inner();
                let expected = format!("from {} to {}", Percent(least), Percent(most));
                self.error(node, &format!("{path}.destage.{key}"), "this is no usable watermark", expected);
            }
        }
        let age = destage.meaning_of::<TimeSpan>("age").unwrap_or(default_age());
        if let (Some(node), Some(delay)) =
            (destage.get("full_stripe_delay"), destage.meaning_of::<TimeSpan>("full_stripe_delay"))
            && delay.0 > age.0
        {
            let message = format!("a stripe goes when its data is {age} old, whatever the delay");
            self.error(node, &format!("{path}.destage.full_stripe_delay"), message, "at most the age");
        }
    }

    fn volumes(&mut self, array: &'a Node, smallest_member: Option<u64>, path: &str) {
        let volumes = array.list("volumes");
        self.unique_names(volumes, &format!("{path}.volumes"), "name");
        let level = array.text_of("level").and_then(Level::from_text).unwrap_or(Level::Raid5);
        let range = limits::members(level);
        let members = array.list("members").len().clamp(*range.start(), *range.end());
        let data_members = limits::data_members(level, members) as u64;
        let chunk = array.meaning_of::<Size>("chunk").unwrap_or(default_chunk()).bytes();
        let row = chunk.clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end()) * data_members;
        // Volumes begin and end at chunk rows; members are used by whole zones.
        let checksums = array.text_of("checksums") == Some("on");
        let zones =
            smallest_member.map(|bytes| bytes.saturating_sub(member_overhead_bytes(bytes, checksums)) / ZONE_BYTES);
        let capacity = zones.map(|zones| zones * ZONE_BYTES * data_members);
        let mut used = 0_u64;
        for (i, volume) in volumes.iter().enumerate() {
            let path = format!("{path}.volumes[{i}].size");
            let (Some(node), Some(size)) = (volume.get("size"), volume.meaning_of::<Size>("size")) else { continue };
            if size.bytes() == 0 || !size.bytes().is_multiple_of(BLOCK as u64) {
                self.error(node, &path, "this is no size of a volume", "whole blocks of 4KiB, at least one");
            }
            used = used.saturating_add(size.bytes().div_ceil(row).saturating_mul(row));
            if let Some(capacity) = capacity
                && used > capacity
            {
                let message = format!("the volumes up to this one take {}", rounded(used));
                self.error(node, &path, message, format!("at most {} in this array", rounded(capacity)));
            }
        }
    }
}

/// The size that the configuration gives a device; a block device has its own.
fn given_size(device: &Node) -> Option<Size> {
    if device.text_of("kind") == Some("block") { None } else { device.meaning_of("size") }
}

/// A size in whole mebibytes, upwards.
fn rounded(bytes: u64) -> Size {
    Size::from_mib(bytes.div_ceil(1 << 20))
}
