//! Sealed memory of the appliance: how it begins, what lies in it at the start, and what is told of it. What changes later is
//! sealed where it is made.

use base::metrics::Metrics;
use config::Config;
use config::schema::SealedMemory;
use engine::boot::BootedArray;
use runtime::sealed::{self, InitToken, Policy, Protection, RegionKind, seal_or_share};

use super::ServeError;
use crate::cli::{LogFormat, SealedPolicy, ServeOptions};
use crate::memory_status::{MemoryStatus, RegionStatus};

/// Takes the right to seal; the command line has the last word on the policy.
pub(super) fn begin(config: &Config, options: &ServeOptions) -> Result<InitToken, ServeError> {
    let mut token = InitToken::take(policy(config.sealed, options.sealed))?;
    if options.log_format == LogFormat::Json {
        token.tell_as_json();
    }
    Ok(token)
}

fn policy(configured: SealedMemory, asked: Option<SealedPolicy>) -> Policy {
    match (asked, configured) {
        (Some(SealedPolicy::Kill), _) | (None, SealedMemory::Kill) => Policy::Kill,
        (Some(SealedPolicy::Warn), _) | (None, SealedMemory::Warn) => Policy::Warn,
        (Some(SealedPolicy::Off), _) | (None, SealedMemory::Off) => Policy::Off,
    }
}

/// Says what the operator should know of the policy, if anything.
pub(super) fn note() {
    let report = sealed::report();
    match report.policy {
        Policy::Kill => {
            let is_final = report.regions.iter().any(|region| region.protection == Protection::Final);
            if !is_final {
                tracing::info!(
                    "this kernel has no mseal(2): sealed memory is read-only, but a system call could undo it"
                );
            }
        }
        Policy::Warn => tracing::warn!(
            "sealed memory: stray writes are only told, and what they hit becomes writable; mseal(2) is left out for that"
        ),
        Policy::Off => tracing::warn!("sealed memory is off: stray writes are not noticed"),
    }
    if report.unsealed > 0 {
        tracing::warn!(values = report.unsealed, "not everything could be sealed: it lies in ordinary memory");
    }
}

/// Has all shards and the coordinator hold sealed maps of the arrays.
pub(super) fn maps(booted: &mut [BootedArray]) {
    for array in booted {
        let map = seal_or_share(MAP, (*array.map).clone());
        array.set_map(&map);
    }
}

/// What maps of arrays are called, here and where the coordinator makes newer ones.
const MAP: &str = "array map";

/// What is told of sealed memory.
pub(super) fn status() -> MemoryStatus {
    let report = sealed::report();
    let is_sealed = |region: &&sealed::Region| region.protection != Protection::None;
    MemoryStatus {
        policy: match report.policy {
            Policy::Kill => "kill",
            Policy::Warn => "warn",
            Policy::Off => "off",
        }
        .to_owned(),
        sealed_bytes: report.regions.iter().filter(is_sealed).map(|region| region.bytes as u64).sum(),
        regions: report.regions.iter().map(region).collect(),
        seals: report.seals,
        unsealed: report.unsealed,
        violations: report.violations,
    }
}

fn region(region: &sealed::Region) -> RegionStatus {
    RegionStatus {
        name: region.name.clone(),
        kind: match region.kind {
            RegionKind::Statics => "statics",
            RegionKind::Permanent => "permanent",
            RegionKind::Snapshot => "snapshot",
            RegionKind::Program => "program",
        }
        .to_owned(),
        start: region.start as u64,
        bytes: region.bytes as u64,
        protection: match region.protection {
            Protection::None => "none",
            Protection::ReadOnly => "read-only",
            Protection::Final => "final",
        }
        .to_owned(),
        opened_pages: region.opened_pages as u64,
    }
}

/// Puts it into the metrics.
pub(super) fn count(metrics: &Metrics) {
    let status = status();
    let process = metrics.process();
    process.sealed_bytes.set(status.sealed_bytes);
    process.sealed_regions.set(status.regions.len() as u64);
    process.seals.set(status.seals);
    process.sealed_violations.set(status.violations);
    process.sandbox_refusals.set(runtime::confine::refused_calls());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_the_last_word() {
        assert_eq!(policy(SealedMemory::Kill, None), Policy::Kill);
        assert_eq!(policy(SealedMemory::Off, Some(SealedPolicy::Warn)), Policy::Warn);
        assert_eq!(policy(SealedMemory::Warn, Some(SealedPolicy::Off)), Policy::Off);
        assert_eq!(policy(SealedMemory::Off, Some(SealedPolicy::Kill)), Policy::Kill);
    }
}
