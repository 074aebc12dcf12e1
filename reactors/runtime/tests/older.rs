//! Kernels that lack something: a filter of the test's own answers for them. What is not there is left out and told, what
//! is there holds all the same, and whatever else the kernel says is an error.
#![allow(unsafe_code, reason = "a filter that imitates an older kernel has no safe form")]

mod parts;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

use parts::{Case, access_at, played};
use runtime::confine::{Access, Rule, confine};
use runtime::sealed::{InitToken, Policy, Protection, RegionKind, Sealed, SealingAllocator, report};

#[global_allocator]
static ALLOCATOR: SealingAllocator = SealingAllocator;

runtime::sealed_static! {
    static SHELF: u32 = 24;
}

const CASES: &[Case] = &[
    ("without_mseal_memory_is_read_only_and_a_stray_write_ends_the_process", without_mseal),
    ("without_landlock_files_are_not_restricted_and_calls_are", without_landlock),
    ("without_seccomp_calls_are_not_restricted_and_files_are", without_seccomp),
    ("what_else_the_kernel_says_is_an_error", refusals),
];

const PARTS: &[Case] = &[
    ("mseal-missing", || sealed(libc::ENOSYS)),
    ("mseal-refused", || sealed(libc::EPERM)),
    ("landlock-missing", || confined(libc::SYS_landlock_create_ruleset, libc::ENOSYS)),
    ("landlock-off", || confined(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP)),
    ("landlock-refused", || confined(libc::SYS_landlock_restrict_self, libc::EPERM)),
    ("seccomp-missing", || confined(libc::SYS_seccomp, libc::ENOSYS)),
    ("seccomp-without-filters", || confined(libc::SYS_seccomp, libc::EINVAL)),
    ("seccomp-refused", || confined(libc::SYS_seccomp, libc::EACCES)),
];

fn main() -> ExitCode {
    parts::run(CASES, PARTS)
}

/// From here on the kernel answers one call with an error.
fn lacking(call: libc::c_long, errno: libc::c_int) {
    let step = |code: u32, operand: u32, if_false: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: if_false,
        k: operand,
    };
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the first call takes numbers only; the program of the second is our own, and read during the call.
    let outcome = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if outcome != 0 {
        println!("this kernel cannot imitate another");
        std::process::exit(0);
    }
}

/// Seals, says how that is protected, and writes where nothing may.
fn sealed(errno: libc::c_int) {
    lacking(libc::SYS_mseal, errno);
    let mut token = InitToken::take(Policy::Kill).expect("the first");
    let kept = token.keep("names", &vec![String::from("v0")]).expect("sealed");
    token.seal().expect("sealed");
    let later = Sealed::snapshot("later", &7u64).expect("sealed");
    let regions = report().regions;
    assert!(
        regions.len() >= 3 && regions.iter().all(|region| region.protection == Protection::ReadOnly),
        "{regions:?}"
    );
    assert!(regions.iter().any(|region| region.kind == RegionKind::Program), "{regions:?}");
    let address = kept[0].as_ptr() as usize;
    for place in [address, SHELF.get() as *const u32 as usize, &raw const *later as usize] {
        assert_eq!(access_at(place), "r--p");
    }
    println!("read-only");
    // SAFETY: it is not: that is the point. The address is a byte of a value of this process.
    unsafe { (address as *mut u8).write_volatile(b'N') };
    println!("went on");
}

fn without_mseal() {
    for part in ["mseal-missing", "mseal-refused"] {
        let (output, said) = played(part);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if shown.contains("cannot imitate") {
            return eprintln!("SKIPPED: {shown}");
        }
        assert_eq!((output.status.signal(), shown.as_str()), (Some(libc::SIGABRT), "read-only\n"), "{part}: {said}");
        assert!(said.contains("a write to sealed memory") && said.contains("in region names"), "{part}: {said}");
    }
}

/// Confines itself and says what holds: by what it is told, and by trying.
fn confined(call: libc::c_long, errno: libc::c_int) {
    lacking(call, errno);
    let folder = parts::folder();
    let rules = [
        Rule { path: folder.join("inside"), access: Access::Files },
        Rule { path: "/proc".into(), access: Access::Read },
    ];
    match confine(&rules, false) {
        Err(error) => println!("error: {error}"),
        Ok(confinement) => {
            let opened = fs::read(folder.join("outside/secret")).is_ok();
            // SAFETY: accounting to no file is what there is already; the call fails, or changes nothing.
            unsafe { libc::syscall(libc::SYS_acct, std::ptr::null::<libc::c_char>()) };
            let filtered = runtime::confine::refused_calls() > 0;
            assert_eq!((confinement.file_rules.is_none(), confinement.call_filter), (opened, filtered));
            println!("files {} calls {}: {}", !opened, filtered, confinement.notes.join("; "));
        }
    }
}

/// Whether parts say these words; what the real kernel lacks as well is not looked at.
fn say(parts: &[&str], words: &[&str]) {
    for part in parts {
        let (output, said) = played(part);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        if shown.contains("cannot imitate") {
            return eprintln!("SKIPPED: {shown}");
        }
        assert!(output.status.success() && words.iter().all(|word| shown.contains(word)), "{part}: {shown} {said}");
    }
}

fn without_landlock() {
    say(&["landlock-missing", "landlock-off"], &["files false calls true", "this kernel has no Landlock"]);
}

fn without_seccomp() {
    // The imitation itself is a filter, so this kernel has them; only ours is not there.
    say(&["seccomp-missing", "seccomp-without-filters"], &["calls false", "this kernel has no seccomp filters"]);
}

fn refusals() {
    say(&["landlock-refused"], &["error: restricting files (landlock) failed", "Operation not permitted"]);
    say(&["seccomp-refused"], &["error: filtering system calls (seccomp) failed", "Permission denied"]);
}
