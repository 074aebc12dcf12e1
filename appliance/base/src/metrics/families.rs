//! The table of metric families, by the conventions of Prometheus: one prefix, base units (seconds, bytes), `_total` for
//! counters, `_info` for metadata. Names here are a public interface: dashboards and alerts of operators depend on them.

/// What the number of a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Moves both ways.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

/// The unit of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count, or a state of 0 or 1.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A declared metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The whole name.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// What the number is.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Names of the labels, in the order in which samples give their values.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($constant:ident, $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help]
        pub static $constant: Family = Family {
            name: concat!("brindle_", $name),
            help: $help,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
        };)*

        /// Every family, in the order in which samples come.
        pub static FAMILIES: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD_INFO, "build_info", Gauge, None, ["version"], "Always 1; the release that runs.";
    VOLUME_REQUESTS, "volume_requests_total", Counter, None, ["array", "volume", "op"],
        "Requests of hosts that ended, well or badly.";
    VOLUME_BYTES, "volume_bytes_total", Counter, Bytes, ["array", "volume", "op"],
        "Bytes of host requests that ended well.";
    VOLUME_ERRORS, "volume_errors_total", Counter, None, ["array", "volume", "op"],
        "Requests of hosts that ended badly.";
    VOLUME_LATENCY, "volume_request_duration_seconds", Histogram, Seconds, ["array", "volume", "op"],
        "Time from the arrival of a host request to the submission of its answer.";
    DEVICE_REQUESTS, "device_requests_total", Counter, None, ["device", "op"],
        "Requests to devices that ended, well or badly.";
    DEVICE_BYTES, "device_bytes_total", Counter, Bytes, ["device", "op"],
        "Bytes of device requests that ended well.";
    DEVICE_ERRORS, "device_errors_total", Counter, None, ["device", "op"],
        "Requests to devices that ended badly.";
    DEVICE_LATENCY, "device_request_duration_seconds", Histogram, Seconds, ["device", "op"],
        "Time from the start of a device request to its end, with all that it waited and was tried again.";
    DEVICE_SLOW, "device_slow", Gauge, None, ["device"],
        "1 while a device is much slower than the other members of its array, else 0.";
    DEVICE_RETRIES, "device_retries_total", Counter, None, ["device"],
        "Requests to devices that were tried again after an error that might pass.";
    DEVICE_LATE_READS, "device_late_reads_total", Counter, None, ["device"],
        "Reads that a device did not answer in time, so that they were answered from others.";
    DEVICE_UNREADABLE, "device_unreadable_blocks_total", Counter, None, ["device"],
        "Blocks of 4 KiB that a device could not read.";
    DEVICE_WRONG, "device_checksum_errors_total", Counter, None, ["device"],
        "Blocks of 4 KiB that a device gave back otherwise than they were written, as their checksums say.";
    DEVICE_CORRECTED, "device_corrected_blocks_total", Counter, None, ["device"],
        "Unreadable or wrong blocks that were put together from other devices, written again and read back.";
    DEVICE_UNCORRECTED, "device_uncorrected_blocks_total", Counter, None, ["device"],
        "Unreadable blocks that a device did not take back.";
    ARRAY_STRIPE_WRITES, "array_stripe_writes_total", Counter, None, ["array", "kind"],
        "Stripe rows destaged to the members, by how their parity was made.";
    ARRAY_DESTAGES, "array_destages_total", Counter, None, ["array"],
        "Stripe destages completed, with the members flushed and the log record durable.";
    ARRAY_DESTAGED, "array_destaged_bytes_total", Counter, Bytes, ["array"],
        "Data that destages wrote to the members, parities and further mirrors not counted; what hosts wrote beyond that was overwritten in the log.";
    ARRAY_OLD, "array_old_bytes_total", Counter, Bytes, ["array"],
        "Old content that destages read, because the parity of a stripe that changes in part takes it.";
    ARRAY_LOG_COMMITS, "array_log_commits_total", Counter, None, ["array"],
        "Transactions made durable in the write log.";
    ARRAY_LOG_COMMIT_SIZE, "array_log_commit_size_bytes", Histogram, Bytes, ["array"],
        "Size of the transactions made durable in the write log, descriptors and pads included.";
    ARRAY_LOG_USED, "array_log_used_bytes", Gauge, Bytes, ["array"],
        "Log space between the durable tails and the heads of all lanes.";
    ARRAY_LOG_CAPACITY, "array_log_capacity_bytes", Gauge, Bytes, ["array"],
        "Log space of all lanes.";
    ARRAY_DIRTY, "array_dirty_bytes", Gauge, Bytes, ["array"],
        "Data acknowledged to hosts and not yet destaged to the members.";
    ARRAY_LOGGED, "array_dirty_in_log_alone_bytes", Gauge, Bytes, ["array"],
        "Such data that has left memory and is in the copies of the log alone (residency: log).";
    ARRAY_LOG_READ, "array_log_read_bytes_total", Counter, Bytes, ["array"],
        "Data that was read back from copies of the log.";
    ARRAY_LOG_READ_ERRORS, "array_log_read_errors_total", Counter, None, ["array"],
        "Blocks of 4 KiB that a copy of the log could not read, or gave back otherwise than they were written.";
    ARRAY_BLOCKED_STRIPES, "array_blocked_stripes", Gauge, None, ["array"],
        "Stripes that cannot be destaged, because old content that their parity needs cannot be had.";
    ARRAY_BLOCKED, "array_blocked_bytes", Gauge, Bytes, ["array"],
        "Data of such stripes that stays in the log.";
    ARRAY_DIRTY_ZONES, "array_dirty_zones", Gauge, None, ["array"],
        "Zones of an array without a log that a crash now would leave to be resynced; 0 with a log.";
    ARRAY_UNSYNCED_ZONES, "array_unsynced_zones", Gauge, None, ["array"],
        "Zones of an array without a log that a crash left dirty and no resync has matched yet; 0 with a log.";
    ARRAY_ADMISSION_WAITS, "array_admission_waits_total", Counter, None, ["array"],
        "Writes that had to wait for log space, buffers or dirty capacity.";
    ARRAY_DEGRADED, "array_degraded", Gauge, None, ["array"],
        "1 while the array lacks redundancy, else 0.";
    ARRAY_MEMBERS_MISSING, "array_members_missing", Gauge, None, ["array"],
        "Members that take no part in the array.";
    REBUILD_ACTIVE, "rebuild_active", Gauge, None, ["array"],
        "1 while a member of the array is being rebuilt, else 0.";
    REBUILD_WRITTEN, "rebuild_written_bytes_total", Counter, Bytes, ["array"],
        "Bytes written to members that are being rebuilt, what hosts wrote not counted.";
    REBUILD_LEFT, "rebuild_left_bytes", Gauge, Bytes, ["array"],
        "Bytes of the member that is being rebuilt which are not current yet.";
    GROWTH_ACTIVE, "growth_active", Gauge, None, ["array"],
        "1 while data of the array moves to where it lies with a further member, else 0.";
    GROWTH_LEFT, "growth_left_bytes", Gauge, Bytes, ["array"],
        "Bytes of each member that do not lie yet as they are to lie with it.";
    RESYNC_ACTIVE, "resync_active", Gauge, None, ["array"],
        "1 while a resync of the array is due or goes on, else 0.";
    RESYNC_LEFT, "resync_left_bytes", Gauge, Bytes, ["array"],
        "Bytes of each member that the resync of the array has yet to match.";
    SCRUB_ACTIVE, "scrub_active", Gauge, None, ["array"],
        "1 while a scrub of the array goes on, else 0.";
    SCRUB_LEFT, "scrub_left_bytes", Gauge, Bytes, ["array"],
        "Bytes of each member that the scrub of the array has yet to see.";
    SCRUB_READ, "scrub_read_bytes_total", Counter, Bytes, ["array"],
        "Bytes read of all members by scrubs.";
    SCRUB_MISMATCHED, "scrub_mismatched_stripes_total", Counter, None, ["array"],
        "Stripes (one block of each member) whose blocks did not agree.";
    SCRUB_LOCATED, "scrub_located_blocks_total", Counter, None, ["array"],
        "Blocks of 4 KiB of such stripes that were found to be wrong.";
    SCRUB_UNLOCATED, "scrub_unlocated_stripes_total", Counter, None, ["array"],
        "Such stripes of which nobody can tell what is wrong.";
    SCRUB_UNREADABLE, "scrub_unreadable_blocks_total", Counter, None, ["array"],
        "Blocks of 4 KiB that members could not read when they were scrubbed.";
    SCRUB_REPAIRED, "scrub_repaired_blocks_total", Counter, None, ["array"],
        "Blocks of 4 KiB that scrubs wrote anew and found right afterwards.";
    SCRUB_UNREPAIRED, "scrub_unrepaired_blocks_total", Counter, None, ["array"],
        "Blocks of 4 KiB that scrubs wrote anew and did not find right afterwards.";
    ARRAY_LOG_COPIES_MISSING, "array_log_copies_missing", Gauge, None, ["array"],
        "Log copies that take no part in the array.";
    ARRAY_READ_ONLY, "array_read_only", Gauge, None, ["array"],
        "1 while the array refuses writes, else 0.";
    ARRAY_EXPOSED, "array_exposed", Gauge, None, ["array"],
        "1 while the array, whose log is lost, is written without one, else 0.";
    CONNECTIONS, "connections", Gauge, None, ["reactor"],
        "Host connections open now.";
    CONNECTIONS_ACCEPTED, "connections_accepted_total", Counter, None, ["reactor"],
        "Host connections accepted.";
    CONNECTIONS_CLOSED, "connections_closed_total", Counter, None, ["reactor"],
        "Host connections ended, by either side.";
    CONNECTIONS_REFUSED, "connections_refused_total", Counter, None, ["reactor"],
        "Host connections turned away because a bound was reached or the host is not admitted.";
    PROTOCOL_ERRORS, "protocol_errors_total", Counter, None, ["reactor"],
        "Host connections ended because the host broke the protocol.";
    REQUESTS_FORWARDED, "requests_forwarded_total", Counter, None, ["reactor"],
        "Requests handed to the reactor that owns their zone.";
    BUFFERS, "buffer_pool_bytes", Gauge, Bytes, ["reactor"],
        "Memory of the buffer pool.";
    BUFFERS_FREE, "buffer_pool_free_bytes", Gauge, Bytes, ["reactor"],
        "Memory of the buffer pool that nobody holds.";
    CONNECTIONS_KILLED, "connections_killed_total", Counter, None, ["reactor", "cause"],
        "Host connections killed, by who or what wanted it.";
    REACTOR_SECONDS, "reactor_seconds_total", Counter, Seconds, ["reactor", "mode"],
        "Time of a reactor in turns that did something (busy) and in the others or asleep (idle).";
    REACTOR_TURNS, "reactor_turns_total", Counter, None, ["reactor"],
        "Turns of a reactor's loop.";
    REACTOR_SLEEPS, "reactor_sleeps_total", Counter, None, ["reactor"],
        "How often a reactor went to sleep in the kernel.";
    EVENTS, "events_total", Counter, None, ["severity"],
        "What happened and what operators asked for since the start, as brindle events tells it.";
    SEALED_MEMORY, "sealed_memory_bytes", Gauge, Bytes, [],
        "Memory that is read-only while serving.";
    SEALED_REGIONS, "sealed_regions", Gauge, None, [],
        "Regions of memory that are read-only while serving.";
    SEALED_SEALS, "sealed_seals_total", Counter, None, [],
        "Regions of memory that were made read-only, those that are gone included.";
    SEALED_VIOLATIONS, "sealed_violations_total", Counter, None, [],
        "Writes to memory that is read-only while serving.";
    SANDBOX_REFUSALS, "sandbox_refusals_total", Counter, None, [],
        "System calls that the sandbox refused.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for family in FAMILIES {
            assert!(names.insert(family.name), "{} is declared twice", family.name);
            assert!(family.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", family.name);
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            let unit = match family.unit {
                Unit::None => "",
                Unit::Seconds => "seconds",
                Unit::Bytes => "bytes",
            };
            assert!(family.name.trim_end_matches("_total").ends_with(unit), "{}", family.name);
            assert!(family.help.ends_with('.') && family.help.len() > 10, "{}", family.name);
            assert!(!family.labels.contains(&"le"), "{}: le belongs to histograms", family.name);
        }
    }

    /// What an operator copies from there into an alert would never fire otherwise.
    #[test]
    fn the_readme_names_no_family_that_is_not_there() {
        let readme = include_str!("../../../../README.md");
        let is_of_a_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let words = readme.split(|c: char| !is_of_a_name(c)).filter(|word| word.starts_with("brindle_"));
        let named: Vec<&str> = words.collect();
        assert!(named.len() > 10, "they are found: {named:?}");
        for word in named {
            assert!(FAMILIES.iter().any(|family| family.name == word), "{word} is no metric");
        }
    }
}
