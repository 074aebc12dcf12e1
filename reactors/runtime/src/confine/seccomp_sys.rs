//! The filter of system calls (seccomp(2)): a short program that the kernel runs before each call. A call that is not in the
//! list fails with EPERM, is counted, and told in the log; one that only an intruder makes ends the process. Why not end it
//! each time: a library that begins to use another call after an update must not take the appliance down.
//!
//! JUSTIFICATION for unsafe: the C library has no function for seccomp(2), and the handler of refused calls reads what the
//! kernel tells behind a raw pointer.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::calls::{self, DEADLY, NEWEST};
use crate::line::Line;
use crate::signal_sys;

/// Most refusals that are told; all are counted.
const MAX_REPORTS: u64 = 16;

/// The architecture in what a filter sees (linux/audit.h).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where number and architecture lie in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;

/// System calls of the x32 interface bear this bit on x86-64.
#[cfg(target_arch = "x86_64")]
const OTHER_INTERFACE: u32 = 0x4000_0000;

// What a filter may answer (linux/seccomp.h).
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;

/// si_code of a SIGSYS that a filter caused (SYS_SECCOMP).
const BY_FILTER: libc::c_int = 1;

/// Where the call's number lies in siginfo_t of such a signal: behind three numbers, a gap, and an address.
const CALL_AT: usize = 24;

static REFUSED: AtomicU64 = AtomicU64::new(0);
static AS_JSON: AtomicBool = AtomicBool::new(false);
static EARLIER: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// Calls that were refused.
pub(super) fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Filters the calls of this thread and all that it starts; says whether the kernel can.
pub(super) fn filter(as_json: bool) -> io::Result<bool> {
    AS_JSON.store(as_json, Ordering::Relaxed);
    let (earlier, flags) = signal_sys::install(libc::SIGSYS, handle)?;
    EARLIER[0].store(earlier, Ordering::Relaxed);
    EARLIER[1].store(flags, Ordering::Relaxed);
    let mut program = program();
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is our own, and read during the call.
    let outcome = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    is_filtered(if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) })
}

/// What the kernel's answer to the filter comes to: whether calls are filtered.
fn is_filtered(answer: io::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        // No such call, or no such operation: the kernel was built without.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn instruction(code: u32, operand: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: if_true, jf: if_false, k: operand }
}

fn load(at: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0)
}

fn answer(what: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, what, 0, 0)
}

/// The filter. After the comparisons stand the answers; each comparison jumps forward to its own.
fn program() -> Vec<libc::sock_filter> {
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let kill = answer(KILL_PROCESS);
    let mut program = vec![load(ARCHITECTURE_AT), instruction(EQUAL, ARCHITECTURE, 1, 0), kill, load(NUMBER)];
    #[cfg(target_arch = "x86_64")]
    program.extend([instruction(GREATER, OTHER_INTERFACE - 1, 0, 1), kill]);
    let comparisons = calls::allowed().map(|call| (call, true)).chain(DEADLY.iter().map(|&call| (call, false)));
    let comparisons: Vec<_> = comparisons.collect();
    for (at, &(call, is_allowed)) in comparisons.iter().enumerate() {
        // Behind the last comparison: the one for newer calls, then TRAP, ERRNO, ALLOW, KILL.
        let to_allow = comparisons.len() - at - 1 + 3;
        let distance = if is_allowed { to_allow } else { to_allow + 1 };
        let distance = u8::try_from(distance).expect("the list is short enough for the jumps of the filter");
        program.push(instruction(EQUAL, call as u32, distance, 0));
    }
    program.push(instruction(GREATER, NEWEST as u32, 1, 0));
    program.extend([answer(TRAP), answer(ERRNO | libc::ENOSYS as u32), answer(ALLOW), kill]);
    program
}

/// A refused call: it is told, and fails with EPERM. Only what is allowed in a signal handler is used.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system gives handlers with SA_SIGINFO the details there.
    if unsafe { (*info).si_code } != BY_FILTER {
        let earlier = (EARLIER[0].load(Ordering::Relaxed), EARLIER[1].load(Ordering::Relaxed));
        return signal_sys::hand_on(signal, info, context, earlier);
    }
    // SAFETY: with this code the details hold the call's number, at this place on all 64-bit architectures.
    let call = unsafe { info.byte_add(CALL_AT).cast::<u32>().read() };
    if REFUSED.fetch_add(1, Ordering::Relaxed) < MAX_REPORTS {
        let mut line = Line::new(AS_JSON.load(Ordering::Relaxed), "WARN");
        line.text("the sandbox refuses system call ").decimal(u64::from(call));
        line.text(" (see ausyscall), which is not in its list; `sandbox: off` allows it");
        let bytes = line.end();
        // SAFETY: the bytes are our own. That nobody reads them changes nothing here.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    }
    signal_sys::set_result(context, -i64::from(libc::EPERM));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers: the kernel's machine in small.
    fn answered(architecture: u32, number: u32) -> u32 {
        let program = program();
        let (mut at, mut value) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                0x20 => value = if k == NUMBER { number } else { architecture },
                0x15 => at += usize::from(if value == k { jt } else { jf }),
                0x25 => at += usize::from(if value > k { jt } else { jf }),
                0x06 => return k,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    #[test]
    fn a_kernel_without_filters_is_no_error_and_anything_else_it_says_is() {
        let answer = |number| Err(io::Error::from_raw_os_error(number));
        assert!(is_filtered(Ok(())).expect("it has them"));
        for without in [libc::ENOSYS, libc::EINVAL] {
            assert!(!is_filtered(answer(without)).expect("no error"));
        }
        assert_eq!(is_filtered(answer(libc::EACCES)).expect_err("refused").raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn each_call_is_answered_as_its_list_says() {
        for call in calls::allowed() {
            assert_eq!(answered(ARCHITECTURE, call as u32), ALLOW, "{call}");
        }
        for &call in DEADLY {
            assert_eq!(answered(ARCHITECTURE, call as u32), KILL_PROCESS, "{call}");
        }
        assert_eq!(answered(ARCHITECTURE, libc::SYS_acct as u32), TRAP);
        assert_eq!(answered(ARCHITECTURE, NEWEST as u32), TRAP);
        assert_eq!(answered(ARCHITECTURE, NEWEST as u32 + 1), ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn other_interfaces_of_the_kernel_end_the_process() {
        assert_eq!(answered(0x4000_0003, libc::SYS_read as u32), KILL_PROCESS, "calls of 32-bit programs");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(answered(ARCHITECTURE, OTHER_INTERFACE | libc::SYS_read as u32), KILL_PROCESS);
    }
}
