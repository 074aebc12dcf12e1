//! Handlers of the signals that a thread causes by what it does: SIGSEGV and SIGSYS. Installing them beside those that are
//! there, stacks of their own to run on, and the registers of the thread that was interrupted. What a handler does with
//! them is its own file's affair.
//!
//! JUSTIFICATION for unsafe: handlers and their stacks are raw system calls, registers lie behind a raw pointer.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Bytes of a handler's stack: registers of the widest vectors take 12 KiB, a handler of ours a few.
const STACK_BYTES: usize = 64 << 10;

/// A handler that takes the details.
pub(crate) type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// Installs a handler for a signal and says what was there: its address, and its flags.
pub(crate) fn install(signal: libc::c_int, handler: Handler) -> io::Result<(usize, usize)> {
    // SAFETY: an action of zeros is a valid one.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut earlier: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: both actions are our own, and the handler is a function of the kind that its flags say.
    let outcome = unsafe { libc::sigaction(signal, &raw const action, &raw mut earlier) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((earlier.sa_sigaction, earlier.sa_flags as usize))
}

/// Hands a signal on to the handler that was there before. Where there was none, the system's own reaction is restored: it
/// follows when the instruction is tried again. For use in a handler.
pub(crate) fn hand_on(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    (address, flags): (usize, usize),
) {
    if address == libc::SIG_DFL || address == libc::SIG_IGN {
        // SAFETY: an action of zeros is the system's own reaction.
        let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: the action is our own; the call is allowed in a handler.
        let _ = unsafe { libc::sigaction(signal, &raw const default, null_mut()) };
    } else if flags & libc::SA_SIGINFO as usize != 0 {
        // SAFETY: the system gave this address as a handler of this kind.
        let handler: Handler = unsafe { std::mem::transmute(address) };
        handler(signal, info, context);
    } else {
        // SAFETY: the system gave this address as a handler without SA_SIGINFO, which takes the signal alone.
        let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(address) };
        handler(signal);
    }
}

/// The registers of the interrupted thread that handlers need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The address of the instruction.
    pub(crate) instruction: usize,
    /// The top of its stack.
    pub(crate) stack: usize,
}

/// The registers of the thread that a handler has interrupted. `context` is the handler's third argument.
pub(crate) fn registers(context: *mut libc::c_void) -> Registers {
    // SAFETY: the system gives handlers with SA_SIGINFO the context there.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    let (instruction, stack) = (
        context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize,
        context.uc_mcontext.gregs[libc::REG_RSP as usize] as usize,
    );
    #[cfg(target_arch = "aarch64")]
    let (instruction, stack) = (context.uc_mcontext.pc as usize, context.uc_mcontext.sp as usize);
    Registers { instruction, stack }
}

/// Sets what the interrupted system call is to return.
pub(crate) fn set_result(context: *mut libc::c_void, result: i64) {
    // SAFETY: as above; a handler may change the registers that its thread goes on with.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    {
        context.uc_mcontext.gregs[libc::REG_RAX as usize] = result;
    }
    #[cfg(target_arch = "aarch64")]
    {
        context.uc_mcontext.regs[0] = result.cast_unsigned();
    }
}

thread_local! {
    /// Where this thread's stack ends; 0 where it is not known.
    static STACK_END: Cell<usize> = const { Cell::new(0) };
}

/// Where this thread's stack ends, if the thread said so by [`SignalStack::new`]. For use in a handler.
pub(crate) fn stack_end() -> Option<usize> {
    Some(STACK_END.get()).filter(|&end| end != 0)
}

/// A stack on which this thread's handlers run, so that they also run when its own is used up or damaged. It goes when it is
/// dropped, by the same thread.
#[derive(Debug)]
pub struct SignalStack {
    /// The lowest address, of a page that nobody may touch.
    base: *mut libc::c_void,
    bytes: usize,
}

impl SignalStack {
    /// A stack for this thread's handlers. Where the system gives none, handlers run on what stack there is.
    pub fn new() -> Option<Self> {
        STACK_END.set(end_of_stack().unwrap_or(0));
        let guard = crate::sealed::page_bytes();
        let bytes = STACK_BYTES + guard;
        let (flags, access) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(null_mut(), bytes, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let stack = Self { base, bytes };
        // SAFETY: the page is the first of the mapping just made.
        let _ = unsafe { libc::mprotect(base, guard, libc::PROT_NONE) };
        let top = base.wrapping_byte_add(guard);
        let alternate = libc::stack_t { ss_sp: top, ss_flags: 0, ss_size: STACK_BYTES };
        // SAFETY: the memory is the mapping's, and stays until this thread has said that it uses it no more.
        let outcome = unsafe { libc::sigaltstack(&raw const alternate, null_mut()) };
        (outcome == 0).then_some(stack)
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        STACK_END.set(0);
        let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: the thread is in no handler, as this is ordinary code.
        let _ = unsafe { libc::sigaltstack(&raw const none, null_mut()) };
        // SAFETY: the mapping is our own, and nothing uses it any more.
        let _ = unsafe { libc::munmap(self.base, self.bytes) };
    }
}

/// The highest address of this thread's stack.
fn end_of_stack() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the thread is the calling one; the attributes are filled in.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut base, mut bytes) = (null_mut(), 0);
    // SAFETY: the attributes were filled in by the call above.
    let outcome = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut base, &raw mut bytes) };
    // SAFETY: as above; they are used no more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (outcome == 0).then_some(base as usize + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_where_its_stack_ends_while_it_has_a_signal_stack() {
        std::thread::spawn(|| {
            let local = 0u8;
            let here = &raw const local as usize;
            assert_eq!(stack_end(), None);
            let stack = SignalStack::new();
            let end = stack_end().unwrap();
            assert!(stack.is_some() && here < end && end - here < 64 << 20);
            drop(stack);
            assert_eq!(stack_end(), None);
        })
        .join()
        .unwrap();
    }
}
