//! The program's own pages that are never written to: code, constants, and the tables of addresses that the linker made
//! read-only once they were filled in (RELRO): dispatch tables, names of metrics, lists of text. The loader protects them;
//! here they are entered among the regions, and sealed for good where the kernel can, so that no call of this process makes
//! them writable either.

use super::SealError;
use super::arena_sys::seal_for_good;
use super::regions::{self, RegionKind};
use super::section_sys::bounds;

/// A mapping of the program's file that nobody may write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    name: &'static str,
    start: usize,
    bytes: usize,
}

/// Enters the parts of this program, sealed for good if that is wanted. A system that does not show them has none entered:
/// they are as protected as before.
pub(super) fn seal() -> Result<(), SealError> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for Part { name, start, bytes } in parts(&maps, bounds().0) {
        let granted = seal_for_good(start, bytes);
        regions::enter(name, RegionKind::Program, start, bytes, granted).ok_or(SealError::TooMany)?;
    }
    Ok(())
}

/// Reads the kernel's table of mappings (proc_pid_maps(5)): what nobody may write to of the file that `inside` lies in, as the
/// loader put it there, piece behind piece. The same file may be mapped elsewhere once more, by whoever reads it.
fn parts(maps: &str, inside: usize) -> Vec<Part> {
    let lines: Vec<Line<'_>> = maps.lines().filter_map(Line::parse).collect();
    let Some(at) = lines.iter().position(|line| (line.start..line.end).contains(&inside)) else { return Vec::new() };
    let file = lines[at].file;
    if file.is_empty() {
        return Vec::new();
    }
    let follows = |pair: &[Line<'_>]| pair[0].end == pair[1].start && pair[0].file == file && pair[1].file == file;
    let before = lines[..=at].windows(2).rev().take_while(|pair| follows(pair)).count();
    let behind = lines[at..].windows(2).take_while(|pair| follows(pair)).count();
    let mut after_code = false;
    let mut parts = Vec::new();
    for line in lines[at - before..=at + behind].iter().filter(|line| !line.access.contains('w')) {
        let is_code = line.access.contains('x');
        after_code |= is_code;
        let name = match (is_code, after_code) {
            (true, _) => "program code",
            (false, false) => "program constants",
            (false, true) => "program tables",
        };
        parts.push(Part { name, start: line.start, bytes: line.end - line.start });
    }
    parts
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    start: usize,
    end: usize,
    access: &'a str,
    /// Device, inode and path; empty for memory of no file.
    file: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (access, rest) = rest.split_once(' ')?;
        let (_offset, file) = rest.split_once(' ')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let is_file = !file.starts_with("00:00 0");
        Some(Self { start: number(start)?, end: number(end)?, access, file: if is_file { file } else { "" } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_program_alone_are_found_and_named() {
        let maps = "\
1000-3000 r--p 00000000 fe:00 77                         /opt/brindle
3000-9000 r-xp 00002000 fe:00 77                         /opt/brindle
9000-a000 r--p 00008000 fe:00 77                         /opt/brindle
a000-c000 rw-p 00009000 fe:00 77                         /opt/brindle
c000-d000 rw-p 00000000 00:00 0
20000-21000 r-xp 00000000 fe:00 78                       /lib/libc.so.6
30000-31000 r-xp 00000000 00:00 0                        [vdso]
40000-42000 r--p 00000000 fe:00 77                         /opt/brindle
nonsense
";
        let part = |name, start, bytes| Part { name, start, bytes };
        let expected = [
            part("program constants", 0x1000, 0x2000),
            part("program code", 0x3000, 0x6000),
            part("program tables", 0x9000, 0x1000),
        ];
        assert_eq!(parts(maps, 0xa800), expected);
        assert_eq!(parts(maps, 0xc800), [], "memory of no file");
        assert_eq!(parts("", 0xa800), []);
    }
}
