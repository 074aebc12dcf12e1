//! The table of families filled with values: shards are summed, every family comes from the start even at zero. This runs
//! on the control side, where allocating is allowed.

use super::families::*;
use super::{
    ArrayMetrics, Counter, DeviceMetrics, DeviceOp, Gauge, Histogram, KillCause, Metrics, OpMetrics, ReactorTimes,
    Severity, ShardMetrics, StripeWrite, VolumeOp,
};
use crate::BLOCK;

/// The value of a sample, in the unit of its family.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(HistogramValue),
}

/// A histogram's value.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramValue {
    /// Upper bounds, inclusive and ascending, each with how many observations it holds *in all* (cumulative).
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all observations.
    pub sum: f64,
    /// How many observations there were.
    pub count: u64,
}

/// Where the value of a family is found.
type OfOp = fn(&OpMetrics) -> &Counter;
/// Where the value of a family is found.
type OfDevice = fn(&DeviceMetrics) -> &Counter;
/// Where the value of a family is found.
type OfShard = fn(&ShardMetrics) -> u64;

/// A number of blocks in bytes.
fn bytes(blocks: u64) -> f64 {
    blocks as f64 * BLOCK as f64
}

/// Nanoseconds in seconds. Divided, not multiplied: 64 µs is then the number nearest to 0.000064 and is written so.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A count as it is.
fn count(n: u64) -> f64 {
    n as f64
}

/// From the cell's unit to the family's.
type Scale = fn(u64) -> f64;

impl Metrics {
    /// Calls `visit` for each sample: its family, the label values in the order of [`Family::labels`], and the value.
    /// Families come in the order of [`FAMILIES`], the samples of one family together. `reactors` are the loops' own
    /// times, in the order of shards.
    pub fn samples(&self, reactors: &[ReactorTimes], mut visit: impl FnMut(&'static Family, &[&str], Value)) {
        visit(&BUILD_INFO, &[&self.names().version], Value::Number(1.0));
        self.volume_samples(&mut visit);
        self.device_samples(&mut visit);
        self.array_samples(&mut visit);
        self.shard_samples(&mut visit);
        self.reactor_samples(reactors, &mut visit);
        for (severity, counter) in Severity::ALL.iter().zip(self.events()) {
            visit(&EVENTS, &[severity.label()], Value::Number(count(counter.get())));
        }
        self.process_samples(&mut visit);
    }

    fn volume_samples(&self, visit: &mut impl FnMut(&'static Family, &[&str], Value)) {
        let counters: [(&'static Family, OfOp); 3] =
            [(&VOLUME_REQUESTS, |op| &op.requests), (&VOLUME_BYTES, |op| &op.bytes), (&VOLUME_ERRORS, |op| &op.errors)];
        let volumes = || self.volumes();
        for (family, counter) in counters {
            for (i, name) in volumes() {
                for op in VolumeOp::ALL {
                    let total = self.sum(|shard| counter(&shard.volumes[i].ops[op as usize]).get());
                    visit(family, &[&name.array, &name.volume, op.label()], Value::Number(count(total)));
                }
            }
        }
        for (i, name) in volumes() {
            for op in VolumeOp::ALL {
                let shards = self.shards().iter().map(|shard| &shard.volumes[i].latency[op as usize]);
                let value = Value::Histogram(sum_histograms(shards, seconds));
                visit(&VOLUME_LATENCY, &[&name.array, &name.volume, op.label()], value);
            }
        }
    }

    fn device_samples(&self, visit: &mut impl FnMut(&'static Family, &[&str], Value)) {
        let counters: [(&'static Family, OfOp); 3] =
            [(&DEVICE_REQUESTS, |op| &op.requests), (&DEVICE_BYTES, |op| &op.bytes), (&DEVICE_ERRORS, |op| &op.errors)];
        for (family, counter) in counters {
            for (i, name) in self.names().devices.iter().enumerate() {
                for op in DeviceOp::ALL {
                    let total = self.sum(|shard| counter(&shard.devices[i].ops[op as usize]).get());
                    visit(family, &[name, op.label()], Value::Number(count(total)));
                }
            }
        }
        for (i, name) in self.names().devices.iter().enumerate() {
            for op in DeviceOp::ALL {
                let shards = self.shards().iter().map(|shard| &shard.devices[i].latency[op as usize]);
                visit(&DEVICE_LATENCY, &[name, op.label()], Value::Histogram(sum_histograms(shards, seconds)));
            }
        }
        for (i, name) in self.names().devices.iter().enumerate() {
            let highest = self.shards().iter().map(|shard| shard.devices[i].slow.get()).max();
            visit(&DEVICE_SLOW, &[name], Value::Number(count(highest.unwrap_or(0))));
        }
        let counters: [(&'static Family, OfDevice); 6] = [
            (&DEVICE_RETRIES, |device| &device.retries),
            (&DEVICE_LATE_READS, |device| &device.late_reads),
            (&DEVICE_UNREADABLE, |device| &device.unreadable_blocks),
            (&DEVICE_WRONG, |device| &device.wrong_blocks),
            (&DEVICE_CORRECTED, |device| &device.corrected_blocks),
            (&DEVICE_UNCORRECTED, |device| &device.uncorrected_blocks),
        ];
        for (family, counter) in counters {
            for (i, name) in self.names().devices.iter().enumerate() {
                let total = self.sum(|shard| counter(&shard.devices[i]).get());
                visit(family, &[name], Value::Number(count(total)));
            }
        }
    }

    fn array_samples(&self, visit: &mut impl FnMut(&'static Family, &[&str], Value)) {
        for (i, name) in self.names().arrays.iter().enumerate() {
            for kind in StripeWrite::ALL {
                let total = self.sum(|shard| shard.arrays[i].stripe_writes[kind as usize].get());
                visit(&ARRAY_STRIPE_WRITES, &[name, kind.label()], Value::Number(count(total)));
            }
        }
        let mut each = |family: &'static Family, value: &dyn Fn(usize) -> Value| {
            for (i, name) in self.names().arrays.iter().enumerate() {
                visit(family, &[name], value(i));
            }
        };
        let sum = |cell: fn(&ArrayMetrics) -> u64, scale: Scale| {
            move |i: usize| Value::Number(scale(self.sum(|shard| cell(&shard.arrays[i]))))
        };
        // States that every shard may know: a sum would count them once per shard.
        let highest = |cell: fn(&ArrayMetrics) -> &Gauge| {
            move |i: usize| {
                let highest = self.shards().iter().map(|shard| cell(&shard.arrays[i]).get()).max();
                Value::Number(highest.unwrap_or(0) as f64)
            }
        };
        each(&ARRAY_DESTAGES, &sum(|a| a.destages.get(), count));
        each(&ARRAY_DESTAGED, &sum(|a| a.destaged_blocks.get(), bytes));
        each(&ARRAY_OLD, &sum(|a| a.old_blocks.get(), bytes));
        each(&ARRAY_LOG_COMMITS, &sum(|a| a.log_commits.get(), count));
        each(&ARRAY_LOG_COMMIT_SIZE, &|i| {
            let sizes = self.shards().iter().map(|shard| &shard.arrays[i].log_commit_blocks);
            Value::Histogram(sum_histograms(sizes, bytes))
        });
        each(&ARRAY_LOG_USED, &sum(|a| a.log_used_blocks.get(), bytes));
        each(&ARRAY_LOG_CAPACITY, &sum(|a| a.log_capacity_blocks.get(), bytes));
        each(&ARRAY_DIRTY, &sum(|a| a.dirty_blocks.get(), bytes));
        each(&ARRAY_LOGGED, &sum(|a| a.logged_blocks.get(), bytes));
        each(&ARRAY_LOG_READ, &sum(|a| a.log_reads.get(), bytes));
        each(&ARRAY_LOG_READ_ERRORS, &sum(|a| a.log_read_errors.get(), count));
        each(&ARRAY_BLOCKED_STRIPES, &sum(|a| a.blocked_stripes.get(), count));
        each(&ARRAY_BLOCKED, &sum(|a| a.blocked_blocks.get(), bytes));
        each(&ARRAY_DIRTY_ZONES, &sum(|a| a.dirty_zones.get(), count));
        each(&ARRAY_UNSYNCED_ZONES, &sum(|a| a.unsynced_zones.get(), count));
        each(&ARRAY_ADMISSION_WAITS, &sum(|a| a.admission_waits.get(), count));
        each(&ARRAY_DEGRADED, &highest(|a| &a.degraded));
        each(&ARRAY_MEMBERS_MISSING, &highest(|a| &a.members_missing));
        each(&REBUILD_ACTIVE, &highest(|a| &a.rebuilding));
        each(&REBUILD_WRITTEN, &sum(|a| a.rebuilt_blocks.get(), bytes));
        each(&REBUILD_LEFT, &sum(|a| a.rebuild_left_blocks.get(), bytes));
        each(&GROWTH_ACTIVE, &highest(|a| &a.growing));
        each(&GROWTH_LEFT, &sum(|a| a.growth_left_blocks.get(), bytes));
        each(&RESYNC_ACTIVE, &highest(|a| &a.resyncing));
        each(&RESYNC_LEFT, &sum(|a| a.resync_left_blocks.get(), bytes));
        each(&SCRUB_ACTIVE, &highest(|a| &a.scrubbing));
        each(&SCRUB_LEFT, &sum(|a| a.scrub_left_blocks.get(), bytes));
        each(&SCRUB_READ, &sum(|a| a.scrub.read_blocks.get(), bytes));
        each(&SCRUB_MISMATCHED, &sum(|a| a.scrub.mismatched_stripes.get(), count));
        each(&SCRUB_LOCATED, &sum(|a| a.scrub.located_blocks.get(), count));
        each(&SCRUB_UNLOCATED, &sum(|a| a.scrub.unlocated_stripes.get(), count));
        each(&SCRUB_UNREADABLE, &sum(|a| a.scrub.unreadable_blocks.get(), count));
        each(&SCRUB_REPAIRED, &sum(|a| a.scrub.repaired_blocks.get(), count));
        each(&SCRUB_UNREPAIRED, &sum(|a| a.scrub.unrepaired_blocks.get(), count));
        each(&ARRAY_LOG_COPIES_MISSING, &highest(|a| &a.log_copies_missing));
        each(&ARRAY_READ_ONLY, &highest(|a| &a.read_only));
        each(&ARRAY_EXPOSED, &highest(|a| &a.exposed));
    }

    fn shard_samples(&self, visit: &mut impl FnMut(&'static Family, &[&str], Value)) {
        let cells: [(&'static Family, OfShard, Scale); 8] = [
            (&CONNECTIONS, |s| s.connections.get(), count),
            (&CONNECTIONS_ACCEPTED, |s| s.connections_accepted.get(), count),
            (&CONNECTIONS_CLOSED, |s| s.connections_closed.get(), count),
            (&CONNECTIONS_REFUSED, |s| s.connections_refused.get(), count),
            (&PROTOCOL_ERRORS, |s| s.protocol_errors.get(), count),
            (&REQUESTS_FORWARDED, |s| s.requests_forwarded.get(), count),
            (&BUFFERS, |s| s.buffers.get(), bytes),
            (&BUFFERS_FREE, |s| s.buffers_free.get(), bytes),
        ];
        for (family, cell, scale) in cells {
            for (i, shard) in self.shards().iter().enumerate() {
                visit(family, &[&i.to_string()], Value::Number(scale(cell(shard))));
            }
        }
        for (i, shard) in self.shards().iter().enumerate() {
            for cause in KillCause::ALL {
                let killed = shard.connections_killed[cause as usize].get();
                visit(&CONNECTIONS_KILLED, &[&i.to_string(), cause.label()], Value::Number(count(killed)));
            }
        }
    }

    fn reactor_samples(&self, reactors: &[ReactorTimes], visit: &mut impl FnMut(&'static Family, &[&str], Value)) {
        // A reactor that has not reported yet stands at zero, so that the family is there from the start.
        let times = |i: usize| reactors.get(i).copied().unwrap_or_default();
        for i in 0..self.shards().len() {
            visit(&REACTOR_SECONDS, &[&i.to_string(), "busy"], Value::Number(seconds(times(i).busy.0)));
            visit(&REACTOR_SECONDS, &[&i.to_string(), "idle"], Value::Number(seconds(times(i).idle.0)));
        }
        for i in 0..self.shards().len() {
            visit(&REACTOR_TURNS, &[&i.to_string()], Value::Number(times(i).turns as f64));
        }
        for i in 0..self.shards().len() {
            visit(&REACTOR_SLEEPS, &[&i.to_string()], Value::Number(times(i).sleeps as f64));
        }
    }

    fn process_samples(&self, visit: &mut impl FnMut(&'static Family, &[&str], Value)) {
        let process = self.process();
        let cells: [(&'static Family, &Gauge); 5] = [
            (&SEALED_MEMORY, &process.sealed_bytes),
            (&SEALED_REGIONS, &process.sealed_regions),
            (&SEALED_SEALS, &process.seals),
            (&SEALED_VIOLATIONS, &process.sealed_violations),
            (&SANDBOX_REFUSALS, &process.sandbox_refusals),
        ];
        for (family, cell) in cells {
            visit(family, &[], Value::Number(cell.get() as f64));
        }
    }

    fn sum(&self, cell: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.shards().iter().map(cell).fold(0, u64::wrapping_add)
    }
}

/// One histogram of several, with bounds and sum in the family's unit.
fn sum_histograms<'a, const STEP: u64, const BOUNDS: usize>(
    parts: impl Iterator<Item = &'a Histogram<STEP, BOUNDS>>,
    scale: Scale,
) -> HistogramValue {
    let mut counts = vec![0; BOUNDS + 1];
    let sum = parts.map(|part| part.add_to(&mut counts)).fold(0, u64::wrapping_add);
    let mut total = 0;
    let buckets = Histogram::<STEP, BOUNDS>::bounds()
        .zip(&counts)
        .map(|(bound, in_bucket)| {
            total += in_bucket;
            (scale(bound), total)
        })
        .collect();
    HistogramValue { buckets, sum: scale(sum), count: total + counts[BOUNDS] }
}

#[cfg(test)]
mod tests {
    use super::super::{LATER_VOLUMES, Names, VolumeName};
    use super::*;
    use crate::ids::ShardId;
    use crate::time::Span;

    fn metrics() -> Metrics {
        let names = Names {
            version: "1.2.3".into(),
            volumes: vec![VolumeName { array: "a0".into(), volume: "v0".into() }],
            devices: vec!["d0".into(), "d1".into()],
            arrays: vec!["a0".into()],
        };
        Metrics::new(names, 2)
    }

    fn value(metrics: &Metrics, family: &Family, labels: &[&str]) -> Value {
        let mut found = None;
        metrics.samples(&[], |f, l, v| {
            if f == family && l == labels {
                assert!(found.replace(v).is_none(), "{} {labels:?} came twice", f.name);
            }
        });
        found.unwrap()
    }

    #[test]
    fn every_family_comes_from_the_start_in_order_and_with_all_its_labels() {
        let mut seen: Vec<&str> = Vec::new();
        metrics().samples(&[], |family, labels, value| {
            assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
            assert_eq!(family.kind == Kind::Histogram, matches!(value, Value::Histogram(_)), "{}", family.name);
            if seen.last() != Some(&family.name) {
                seen.push(family.name);
            }
        });
        assert_eq!(seen, FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>());
    }

    #[test]
    fn shards_are_summed_and_states_are_not() {
        let metrics = metrics();
        for shard in 0..2 {
            let shard = metrics.shard(ShardId(shard));
            shard.volumes[0].record(VolumeOp::Write, 4096, Span::from_micros(3), true);
            shard.devices[1].record(DeviceOp::Flush, 0, Span::from_micros(5), false);
            shard.arrays[0].log_commit(2);
            shard.arrays[0].stripe_write(StripeWrite::Reconstruct, 1, 2);
            shard.arrays[0].degraded.set(1);
            shard.arrays[0].log_used_blocks.set(10);
        }
        let number = |family, labels: &[&str]| match value(&metrics, family, labels) {
            Value::Number(number) => number,
            Value::Histogram(_) => unreachable!(),
        };
        assert_eq!(number(&VOLUME_REQUESTS, &["a0", "v0", "write"]), 2.0);
        assert_eq!(number(&VOLUME_BYTES, &["a0", "v0", "write"]), 8192.0);
        assert_eq!(number(&VOLUME_REQUESTS, &["a0", "v0", "read"]), 0.0);
        assert_eq!(number(&DEVICE_ERRORS, &["d1", "flush"]), 2.0);
        assert_eq!(number(&ARRAY_STRIPE_WRITES, &["a0", "reconstruct"]), 2.0);
        assert_eq!((number(&ARRAY_DESTAGED, &["a0"]), number(&ARRAY_OLD, &["a0"])), (8192.0, 16384.0));
        assert_eq!(number(&ARRAY_DEGRADED, &["a0"]), 1.0);
        assert_eq!(number(&ARRAY_LOG_USED, &["a0"]), 81920.0);
        let Value::Histogram(latency) = value(&metrics, &VOLUME_LATENCY, &["a0", "v0", "write"]) else {
            unreachable!()
        };
        assert_eq!(latency.count, 2);
        assert!((latency.sum - 6e-6).abs() < 1e-12);
        assert_eq!(latency.buckets.iter().map(|(_, n)| *n).take(3).collect::<Vec<_>>(), [0, 0, 2]);
        let Value::Histogram(sizes) = value(&metrics, &ARRAY_LOG_COMMIT_SIZE, &["a0"]) else { unreachable!() };
        assert_eq!((sizes.buckets[0], sizes.buckets[1], sizes.sum), ((4096.0, 0), (8192.0, 2), 16384.0));
    }

    #[test]
    fn a_volume_that_is_made_later_is_counted_until_it_is_gone() {
        let metrics = metrics();
        let (place, name) = (crate::ids::VolumeId(1), VolumeName { array: "a0".into(), volume: "later".into() });
        let told = || {
            let mut told = Vec::new();
            metrics.samples(&[], |family, labels, value| {
                if family == &VOLUME_REQUESTS && labels[2] == "read" {
                    told.push((labels[1].to_owned(), value));
                }
            });
            told
        };
        assert_eq!(told().len(), 1);
        metrics.name_volume(crate::ids::VolumeId(0), name.clone());
        metrics.name_volume(place, name);
        metrics.shard(ShardId(1)).volumes[place.index()].record(VolumeOp::Read, 1, Span::ZERO, true);
        assert_eq!(told()[1], ("later".to_owned(), Value::Number(1.0)));
        metrics.name_volume(place, VolumeName { array: "a0".into(), volume: "other".into() });
        assert_eq!(told()[1].0, "later", "counters keep their name");
        metrics.forget_volume(place);
        metrics.name_volume(
            crate::ids::VolumeId(1 + LATER_VOLUMES as u32),
            VolumeName { array: "a0".into(), volume: "beyond".into() },
        );
        assert_eq!(told().len(), 1);
    }

    #[test]
    fn a_loops_own_times_are_given_in_seconds() {
        let busy = ReactorTimes { busy: Span::from_millis(1500), idle: Span::ZERO, turns: 3, sleeps: 1 };
        let mut seconds = Vec::new();
        metrics().samples(&[busy], |family, labels, value| {
            if family == &REACTOR_SECONDS
                && let Value::Number(number) = value
            {
                seconds.push((labels.join(","), number));
            }
        });
        let expected = [("0,busy", 1.5), ("0,idle", 0.0), ("1,busy", 0.0), ("1,idle", 0.0)];
        assert_eq!(seconds, expected.map(|(labels, number)| (labels.to_string(), number)));
    }
}
