//! What happens when something writes to sealed memory: a handler of SIGSEGV says what was hit, by whom and from where, and
//! then ends the process or, where the policy is to warn, makes that one page writable and goes on. Faults of any other kind
//! go to the handler that was there before.
//!
//! It uses only what is allowed in a signal handler (signal-safety(7)): its own stack, atomics, write(2), mprotect(2),
//! prctl(2) and abort(3). The backtrace is a guess and said to be one: return addresses are not followed by unwind tables,
//! which would take locks and memory; instead the thread's stack is looked through for words that lead into this program
//! right behind a call. Some may be left from earlier calls; frames of shared libraries are not shown; on a thread that has
//! no [`SignalStack`](crate::signal_sys::SignalStack) there is only the instruction itself.
//!
//! JUSTIFICATION for unsafe: raw system calls, and words of a stack that no type describes.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::regions::{self, Hit, RegionKind};
use super::section_sys::{self, settings};
use super::{Policy, page_bytes};
use crate::line::Line;
use crate::signal_sys::{self, Registers};

/// Most frames of a backtrace.
const MAX_FRAMES: usize = 24;

/// Most of a stack that is looked through.
const MAX_STACK_BYTES: usize = 256 << 10;

/// Most violations that are told in one second under [`Policy::Warn`]; all are counted.
const MAX_REPORTS_PER_SECOND: u64 = 8;

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// The second of the last report, and how many there were in it.
static REPORT_SECOND: AtomicU64 = AtomicU64::new(0);
static REPORTS: AtomicU64 = AtomicU64::new(0);

/// Writes to sealed memory since the start. Under [`Policy::Kill`] there is no second one.
pub(super) fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Installs the handler.
pub(super) fn install() -> io::Result<()> {
    let (earlier, flags) = signal_sys::install(libc::SIGSEGV, handle)?;
    settings().earlier_flags.store(flags, Ordering::Relaxed);
    settings().earlier.store(earlier, Ordering::Release);
    Ok(())
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: errno is the thread's own; what was interrupted must find it unchanged.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the system gives handlers with SA_SIGINFO the details there, which for SIGSEGV have an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Only what the processor found: a signal that somebody sent has no address that means anything.
    let hit = if code > 0 { regions::find(address, page_bytes()) } else { None };
    // Constants that are taken for code are not written to.
    let is_jump = || signal_sys::registers(context).instruction == address;
    let hit = hit.filter(|hit| hit.kind != RegionKind::Program || !is_jump());
    match hit {
        Some(hit) => violated(address, hit, signal_sys::registers(context)),
        None if code > 0 && was_sealed(address) => {
            told("an access to a sealed value that is gone", address, None, signal_sys::registers(context), true);
            abort();
        }
        None => {
            let earlier =
                (settings().earlier.load(Ordering::Acquire), settings().earlier_flags.load(Ordering::Relaxed));
            signal_sys::hand_on(signal, info, context, earlier);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Whether an address lies where arenas do.
fn was_sealed(address: usize) -> bool {
    let (start, bytes) = section_sys::window();
    address.wrapping_sub(start) < bytes
}

fn violated(address: usize, hit: Hit, registers: Registers) {
    VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    let may_go_on = !hit.is_guard && Policy::current() == Policy::Warn;
    if !may_go_on || may_report() {
        let what = if hit.is_guard { "an access beside sealed memory" } else { "a write to sealed memory" };
        told(what, address, Some(hit), registers, !may_go_on);
    }
    if !may_go_on {
        abort();
    }
    let page = address - address % page_bytes();
    // SAFETY: the page is one of a sealed region; that writing to it is allowed again is what this policy is.
    let outcome =
        unsafe { libc::mprotect(page as *mut libc::c_void, page_bytes(), libc::PROT_READ | libc::PROT_WRITE) };
    if outcome != 0 {
        // Going on would only come back here, for ever.
        abort();
    }
    regions::opened(hit);
}

/// Whether one more report may be made in this second.
fn may_report() -> bool {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is our own; the call is allowed in a handler.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let second = now.tv_sec.cast_unsigned();
    // Two threads that begin a second at once may tell one report more: no harm.
    if REPORT_SECOND.swap(second, Ordering::Relaxed) != second {
        REPORTS.store(0, Ordering::Relaxed);
    }
    REPORTS.fetch_add(1, Ordering::Relaxed) < MAX_REPORTS_PER_SECOND
}

fn abort() -> ! {
    // SAFETY: the call takes nothing, returns never and is allowed in a handler.
    unsafe { libc::abort() }
}

/// Tells what happened, in one write.
fn told(what: &str, address: usize, hit: Option<Hit>, registers: Registers, is_end: bool) {
    let level = if is_end { "ERROR" } else { "WARN" };
    let mut line = Line::new(settings().as_json.load(Ordering::Relaxed), level);
    line.text(what).text(": address ").hex(address);
    if let Some(hit) = hit {
        place(&mut line, address, hit);
    }
    let mut name = [0u8; 16];
    // SAFETY: the name of a thread is at most 16 bytes long, its end included; the call is allowed in a handler.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    // SAFETY: the call takes nothing and is allowed in a handler.
    let thread = unsafe { libc::gettid() };
    line.text(", by thread ").bytes_of(&name[..end]).text(" (").decimal(u64::from(thread.unsigned_abs())).text(")");
    backtrace(&mut line, registers);
    line.text(if is_end { "; the process ends" } else { "; the page is writable from now on" });
    let bytes = line.end();
    // SAFETY: the bytes are our own; the call is allowed in a handler. That nobody reads them changes nothing here.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

/// Adds the region or static, and how far into it.
fn place(line: &mut Line, address: usize, hit: Hit) {
    if hit.kind == RegionKind::Statics
        && let Some((name, start)) = section_sys::static_at(address)
    {
        line.text(" in static ").text(name).text(" at offset ").hex(address - start);
        return;
    }
    line.text(" in region ").bytes_of(regions::name(hit, &mut [0; 32])).text(" at offset ");
    if address < hit.start {
        line.text("-").hex(hit.start - address);
    } else {
        line.hex(address - hit.start);
    }
}

unsafe extern "C" {
    /// Where this program lies in memory.
    #[link_name = "__ehdr_start"]
    static IMAGE: u8;
    /// Where its code ends.
    #[link_name = "etext"]
    static CODE_END: u8;
}

/// Adds the instruction and what seem to be its callers, as addresses that `addr2line -e brindle` takes.
fn backtrace(line: &mut Line, registers: Registers) {
    let (image, code_end) = (&raw const IMAGE as usize, &raw const CODE_END as usize);
    let is_code = |address: usize| (image + 16..code_end).contains(&address);
    line.text("; addr2line:");
    if is_code(registers.instruction) {
        line.text(" ").hex(registers.instruction - image);
    } else {
        line.text(" (outside the program: ").hex(registers.instruction).text(")");
    }
    let Some(stack_end) = signal_sys::stack_end() else { return };
    let word = size_of::<usize>();
    let start = registers.stack.next_multiple_of(word);
    if start >= stack_end || stack_end - start > isize::MAX as usize {
        return;
    }
    let end = stack_end.min(start + MAX_STACK_BYTES);
    let mut frames = 0;
    for at in (start..end - word + 1).step_by(word) {
        // SAFETY: the word lies between the top of the interrupted stack and its end: memory of this thread, which waits.
        let candidate = unsafe { (at as *const usize).read_volatile() };
        if is_code(candidate) && follows_call(candidate) {
            line.text(" ").hex(candidate - image);
            frames += 1;
            if frames == MAX_FRAMES {
                return;
            }
        }
    }
}

/// Whether the instruction before an address of our code looks like a call.
#[cfg(target_arch = "x86_64")]
fn follows_call(address: usize) -> bool {
    let byte = |back: usize| {
        // SAFETY: the address lies in our code, more than 16 bytes behind its beginning, and code can be read.
        unsafe { ((address - back) as *const u8).read() }
    };
    // E8 and a distance; or FF /2, whose length depends on what it names (Intel SDM, volume 2, CALL).
    byte(5) == 0xe8 || (2..=7).any(|back| byte(back) == 0xff && (byte(back - 1) >> 3) & 7 == 2)
}

#[cfg(target_arch = "aarch64")]
fn follows_call(address: usize) -> bool {
    if !address.is_multiple_of(4) {
        return false;
    }
    // SAFETY: the address lies in our code, more than 16 bytes behind its beginning, and code can be read.
    let instruction = unsafe { ((address - 4) as *const u32).read() };
    // BL and BLR (Arm ARM, C6.2).
    instruction >> 26 == 0b10_0101 || instruction & 0xffff_fc1f == 0xd63f_0000
}
