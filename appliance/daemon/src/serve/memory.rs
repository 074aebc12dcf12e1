//! Whether the machine has the memory that a configuration asks for. It is looked at before any is taken: what is taken is
//! touched at once, and a machine without memory ends other processes.

use base::BLOCK;
use config::schema::{Config, Device, Hugepages};

use super::ServeError;
use crate::budget::index_bytes;

/// What the system says of its memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    available: u64,
    huge_pages_free: u64,
}

/// Refuses buffers and memory devices that the machine cannot hold, and huge pages that it does not have.
pub(super) fn check(config: &Config, pool_blocks: usize) -> Result<(), ServeError> {
    // A system that does not say is not asked again: taking the memory will show.
    let Some(memory) = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse(&text)) else {
        return Ok(());
    };
    let ram = config.devices.iter().filter(|device| matches!(device, Device::Ram { .. }));
    let ram = ram.filter_map(Device::size).map(|size| size.bytes());
    let ram = ram.chain(config.arrays.iter().map(index_bytes)).fold(0u64, u64::saturating_add);
    judge(memory, config.reactors.hugepages, pool_blocks as u64 * BLOCK as u64, ram)
}

fn judge(memory: Memory, hugepages: Hugepages, pool: u64, ram: u64) -> Result<(), ServeError> {
    let is_huge = hugepages != Hugepages::Off && memory.huge_pages_free >= pool;
    if hugepages == Hugepages::Require && !is_huge {
        let [pool, free] = [pool, memory.huge_pages_free].map(|bytes| bytes >> 20);
        return Err(ServeError::HugePages(format!(
            "the {pool} MiB of the buffer pool do not fit the {free} MiB of free huge pages. Raise vm.nr_hugepages"
        )));
    }
    let asked = ram.saturating_add(if is_huge { 0 } else { pool });
    if asked > memory.available {
        return Err(ServeError::TooMuchMemory { asked: asked >> 20, available: memory.available >> 20 });
    }
    Ok(())
}

/// Reads `/proc/meminfo` (proc_meminfo(5)): sizes in kibibytes, huge pages by number.
fn parse(text: &str) -> Option<Memory> {
    let number = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let page = number("Hugepagesize").unwrap_or(0);
    let huge_pages_free = number("HugePages_Free").unwrap_or(0).checked_mul(page)?.checked_mul(1024)?;
    Some(Memory { available: number("MemAvailable")?.checked_mul(1024)?, huge_pages_free })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_the_system_says_is_read_and_what_is_odd_is_passed_over() {
        let text =
            "MemTotal: 9 kB\nMemAvailable:    1048576 kB\nHugePages_Free:      512\nHugepagesize:       2048 kB\n";
        assert_eq!(parse(text), Some(Memory { available: GIB, huge_pages_free: GIB }));
        assert_eq!(parse("MemAvailable: 4 kB"), Some(Memory { available: 4096, huge_pages_free: 0 }));
        for odd in ["", "MemAvailable:", "MemAvailable: x", "MemAvailable: 18446744073709551615 kB"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        assert!(parse(&std::fs::read_to_string("/proc/meminfo").unwrap()).is_some());
    }

    #[test]
    fn ordinary_and_huge_pages_are_told_apart() {
        let memory = Memory { available: 4 * GIB, huge_pages_free: 2 * GIB };
        let refusal = |hugepages, pool, ram| judge(memory, hugepages, pool, ram).err().map(|error| error.to_string());
        assert_eq!(refusal(Hugepages::Off, 2 * GIB, 2 * GIB), None);
        assert!(refusal(Hugepages::Off, 2 * GIB, 3 * GIB).unwrap().contains("5120 MiB"));
        assert_eq!(refusal(Hugepages::Try, 2 * GIB, 4 * GIB), None, "huge pages are not of the rest");
        assert!(refusal(Hugepages::Try, 3 * GIB, 2 * GIB).is_some(), "not huge after all");
        assert_eq!(refusal(Hugepages::Require, 2 * GIB, 0), None);
        assert!(refusal(Hugepages::Require, 3 * GIB, 0).unwrap().contains("Raise vm.nr_hugepages"));
        assert!(refusal(Hugepages::Off, u64::MAX, u64::MAX).is_some());
    }
}
