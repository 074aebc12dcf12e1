//! Which memory of the process is read-only while it serves, and how it is confined: what `brindle status --memory` shows.
//! Plain values, as in [`crate::status`]; the JSON is a public interface as well.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::status::{row, size, table};

/// Sealed memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// What a write to it leads to: `kill`, `warn` or `off`.
    pub policy: String,
    /// All of it.
    pub sealed_bytes: u64,
    /// Its regions, by address.
    pub regions: Vec<RegionStatus>,
    /// Regions that were sealed since the start, those that are gone included.
    pub seals: u64,
    /// Values that lie in ordinary memory because they could not be sealed.
    pub unsealed: u64,
    /// Writes to it since the start.
    pub violations: u64,
}

/// A sealed region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// What lies there.
    pub name: String,
    /// `statics`, `permanent`, `snapshot` (it goes when a newer one has replaced it) or `program` (code, constants and tables of
    /// the program's file).
    pub kind: String,
    /// Its first address.
    pub start: u64,
    /// How long it is, in whole pages.
    pub bytes: u64,
    /// `none`, `read-only`, or `final`: no call can make it writable.
    pub protection: String,
    /// Pages that a write made writable again.
    pub opened_pages: u64,
}

/// How the process is confined.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// Whether it is.
    pub on: bool,
    /// Capabilities that are left.
    pub capabilities: Vec<String>,
    /// The version of Landlock that keeps the rules for files; 0 if the kernel has none.
    pub file_rules: u32,
    /// Whether system calls are filtered.
    pub call_filter: bool,
    /// System calls that were refused.
    pub refused_calls: u64,
}

impl fmt::Display for SandboxStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.on {
            return writeln!(f, "\nSandbox: off");
        }
        let has = |there: bool| if there { "restricted" } else { "not restricted: the kernel cannot" };
        writeln!(f, "\nSandbox: on")?;
        let capabilities = if self.capabilities.is_empty() { "none".to_owned() } else { self.capabilities.join(", ") };
        writeln!(f, "  capabilities: {capabilities}; none can be gained")?;
        writeln!(f, "  files: {}", has(self.file_rules > 0))?;
        writeln!(f, "  system calls: {}, {} refused", has(self.call_filter), self.refused_calls)
    }
}

impl fmt::Display for MemoryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.policy.as_str() {
            "kill" => "a stray write ends the process",
            "warn" => "a stray write is told and counted",
            _ => "nothing is read-only",
        };
        writeln!(f, "Sealed memory: {} ({meaning})", self.policy)?;
        let (bytes, regions) = (size(self.sealed_bytes), self.regions.len());
        writeln!(f, "  {bytes} in {regions} regions, {} sealed since the start", self.seals)?;
        writeln!(f, "  {} stray writes, {} values that could not be sealed", self.violations, self.unsealed)?;
        let rows = self.regions.iter().map(|region| {
            let start = format!("{:#x}", region.start);
            row([&region.name, &region.kind, &start, &size(region.bytes), &region.protection, &region.opened_pages])
        });
        f.write_str(&table("Regions", &["name", "kind", "address", "size", "protection", "writable pages"], rows))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> MemoryStatus {
        MemoryStatus {
            policy: "kill".into(),
            sealed_bytes: 12 << 10,
            regions: vec![RegionStatus {
                name: "exports".into(),
                kind: "snapshot".into(),
                start: 0x7f00_0000_1000,
                bytes: 12 << 10,
                protection: "read-only".into(),
                opened_pages: 0,
            }],
            seals: 3,
            unsealed: 0,
            violations: 0,
        }
    }

    pub(crate) fn sandbox() -> SandboxStatus {
        SandboxStatus { on: true, capabilities: vec![], file_rules: 7, call_filter: false, refused_calls: 2 }
    }

    #[test]
    fn the_sandbox_is_told_piece_by_piece() {
        let text = sandbox().to_string();
        let lines = [
            "Sandbox: on",
            "  capabilities: none; none can be gained",
            "  files: restricted",
            "  system calls: not restricted: the kernel cannot, 2 refused",
        ];
        assert_eq!(text.trim().lines().collect::<Vec<_>>(), lines);
        assert_eq!(SandboxStatus::default().to_string(), "\nSandbox: off\n");
    }

    #[test]
    fn people_get_a_summary_and_the_regions() {
        let text = example().to_string();
        for line in [
            "Sealed memory: kill (a stray write ends the process)",
            "  12 KiB in 1 regions, 3 sealed since the start",
            "  exports  snapshot  0x7f0000001000  12 KiB  read-only   0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing:\n{text}");
        }
    }
}
