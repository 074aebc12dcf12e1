//! What holds where a configuration says nothing: one place for every default, which the schema, the reference and the checks
//! take from here.

use base::time::Span;

use super::{AutoReplace, Destage, Drives, Events, Hugepages, Polling, Reactors, Rebuild, Repair, Scrub, SlowPolicy};
use crate::values::{Percent, Size, TimeSpan};

impl Default for Reactors {
    fn default() -> Self {
        Self {
            cores: None,
            count: None,
            polling: Polling::default(),
            spin: default_spin(),
            memory: default_memory(),
            hugepages: Hugepages::default(),
        }
    }
}

impl Default for Drives {
    fn default() -> Self {
        Self {
            max_read_errors: default_max_read_errors(),
            slow: SlowPolicy::default(),
            read_timeout: default_drive_read_timeout(),
            timeout: default_drive_timeout(),
            auto_replace: AutoReplace::default(),
        }
    }
}

impl Default for Rebuild {
    fn default() -> Self {
        Self { rate: None, latency: default_rebuild_latency() }
    }
}

impl Default for Scrub {
    fn default() -> Self {
        Self { schedule: None, rate: None, latency: default_scrub_latency(), repair: Repair::default() }
    }
}

impl Default for Destage {
    fn default() -> Self {
        Self {
            age: default_age(),
            full_stripe_delay: default_full_stripe_delay(),
            high_watermark: default_high_watermark(),
            memory_watermark: default_memory_watermark(),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { path: None, max_size: default_events_size() }
    }
}

pub(crate) const fn default_events_size() -> Size {
    Size::from_mib(16)
}

pub(crate) const fn default_spin() -> TimeSpan {
    TimeSpan(Span::from_micros(50))
}

pub(crate) const fn default_memory() -> Size {
    Size::from_mib(256)
}

pub(crate) const fn default_chunk() -> Size {
    Size(64 << 10)
}

pub(crate) const fn default_lanes() -> u16 {
    16
}

pub(crate) const fn default_log_timeout() -> TimeSpan {
    TimeSpan(Span::from_secs(10))
}

pub(crate) const fn default_silence() -> TimeSpan {
    TimeSpan(Span::from_secs(30))
}

pub(crate) const fn default_address_grace() -> TimeSpan {
    TimeSpan(Span::from_millis(500))
}

pub(crate) const fn default_rebuild_latency() -> TimeSpan {
    TimeSpan(Span::from_millis(20))
}

pub(crate) const fn default_scrub_latency() -> TimeSpan {
    TimeSpan(Span::from_millis(20))
}

pub(crate) const fn default_age() -> TimeSpan {
    TimeSpan(Span::from_secs(5))
}

pub(crate) const fn default_max_read_errors() -> u32 {
    20
}

pub(crate) const fn default_drive_read_timeout() -> TimeSpan {
    TimeSpan(Span::from_secs(3))
}

pub(crate) const fn default_drive_timeout() -> TimeSpan {
    TimeSpan(Span::from_secs(45))
}

pub(crate) const fn default_full_stripe_delay() -> TimeSpan {
    TimeSpan(Span::from_millis(200))
}

pub(crate) const fn default_high_watermark() -> Percent {
    Percent(75)
}

pub(crate) const fn default_memory_watermark() -> Percent {
    Percent(75)
}
