//! Sealed memory as a process has it, so each case is a process: this program runs itself with the name of a part to play. A
//! stray write is made on purpose, through an address that no type guards; what must follow is what the policy says.
#![allow(unsafe_code, reason = "a stray write is what no safe code can make")]

mod parts;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use parts::{Case, access_at, played};
use runtime::SignalStack;
use runtime::sealed::{
    InitToken, MemoryReport, Policy, Protection, RegionKind, SealError, Sealed, SealingAllocator, report, seal_or_share,
};

#[global_allocator]
static ALLOCATOR: SealingAllocator = SealingAllocator;

runtime::sealed_static! {
    /// Begins with one value and is sealed with another.
    static SHELF: [u64; 4] = [1, 2, 3, 4];
    /// Larger than a page.
    static TABLE: [u8; 5000] = [0; 5000];
}

/// A table of addresses, which the loader fills in: dispatch tables and lists of names are such.
static DISPATCH: [fn(u64) -> u64; 3] = [|one| one + 1, |one| one * 2, u64::count_ones_of];

/// A table of numbers.
static OPCODES: [u64; 4] = [0x11, 0x22, 0x33, 0x44];

trait CountOnes {
    fn count_ones_of(self) -> u64;
}

impl CountOnes for u64 {
    fn count_ones_of(self) -> u64 {
        u64::from(self.count_ones())
    }
}

/// A neighbour that must stay writable.
static NEIGHBOUR: AtomicU64 = AtomicU64::new(0);

/// What is looked at from outside.
const CASES: &[Case] = &[
    ("kill_tells_and_aborts", kill_tells_and_aborts),
    ("kill_names_the_static", kill_names_the_static),
    ("kill_names_the_programs_tables", kill_names_the_programs_tables),
    ("kill_on_a_guard_page", kill_on_a_guard_page),
    ("kill_on_what_is_gone", kill_on_what_is_gone),
    ("kill_tells_machines_in_json", kill_tells_machines_in_json),
    ("warn_tells_counts_and_goes_on", warn_tells_counts_and_goes_on),
    ("warn_tells_so_much_and_no_more", warn_tells_so_much_and_no_more),
    ("off_does_nothing", off_does_nothing),
    ("other_faults_go_where_they_went", other_faults_go_where_they_went),
    ("what_holds_in_one_process", what_holds_in_one_process),
];

/// The parts that are played in processes of their own.
const PARTS: &[Case] = &[
    ("kill-heap", || stray(Policy::Kill, |place| place.exports)),
    ("kill-static", || stray(Policy::Kill, |_| SHELF.get().as_ptr() as usize)),
    ("kill-table", || stray(Policy::Kill, |_| DISPATCH.as_ptr() as usize)),
    ("warn-table", || stray(Policy::Warn, |_| DISPATCH.as_ptr() as usize)),
    ("kill-constant", || stray(Policy::Kill, |_| OPCODES.as_ptr() as usize)),
    ("kill-guard", || stray(Policy::Kill, |place| place.page - 8)),
    ("kill-gone", || stray(Policy::Kill, |place| place.gone)),
    ("kill-json", || stray_as(Policy::Kill, true, |place| place.exports)),
    ("warn-heap", || stray(Policy::Warn, |place| place.exports)),
    ("off-heap", || stray(Policy::Off, |place| place.exports)),
    ("warn-many", warn_many),
    ("other-fault", other_fault),
    ("stack-overflow", stack_overflow),
    ("holds", holds),
];

fn main() -> ExitCode {
    parts::run(CASES, PARTS)
}

fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
}

/// Addresses that nothing should write to.
struct Places {
    /// In the heap of a sealed value.
    exports: usize,
    /// The first page of its arena.
    page: usize,
    /// Where a value was that is gone.
    gone: usize,
}

fn stray(policy: Policy, at: fn(&Places) -> usize) {
    stray_as(policy, false, at);
}

/// Seals, writes once where nothing may write, and says how that was.
fn stray_as(policy: Policy, as_json: bool, at: fn(&Places) -> usize) {
    let mut token = InitToken::take(policy).expect("the first");
    if as_json {
        token.tell_as_json();
    }
    let exports = token.keep("exports", &vec![String::from("nqn.2026-01.io.brindle:demo")]).expect("sealed");
    let gone = Sealed::snapshot("old", &7u64).expect("sealed");
    let places = Places {
        exports: exports[0].as_ptr() as usize,
        page: &raw const *exports as usize,
        gone: &raw const *gone as usize,
    };
    drop(gone);
    token.seal().expect("sealed");
    let thread = std::thread::Builder::new().name("culprit".to_owned());
    let culprit = thread.spawn(move || {
        let _stack = SignalStack::new();
        write_where_nothing_may(at(&places));
    });
    culprit.expect("a thread").join().expect("no panic");
    let MemoryReport { violations, regions, .. } = report();
    let opened: usize = regions.iter().map(|region| region.opened_pages).sum();
    println!("went on: {} violations {violations} opened {opened}", exports[0]);
}

#[inline(never)]
fn write_where_nothing_may(address: usize) {
    // SAFETY: it is not: that is the point. The address is a byte of a value of this process, or beside one.
    unsafe { (address as *mut u8).write_volatile(b'N') };
}

fn kill_tells_and_aborts() {
    let (output, said) = played("kill-heap");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    says(&said, &["a write to sealed memory: address 0x", "in region exports at offset 0x", "by thread culprit ("]);
    says(&said, &["addr2line: 0x", "the process ends"]);
    // The instruction, and who called: both lie in this program.
    let frames = said.split("addr2line:").nth(1).and_then(|rest| rest.split(';').next()).expect("frames");
    assert!(frames.split_whitespace().count() >= 2, "{said}");
    assert_eq!(output.stdout, b"", "it did not go on");
}

fn kill_names_the_static() {
    let (output, said) = played("kill-static");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    says(&said, &["in static SHELF at offset 0x"]);
}

fn kill_names_the_programs_tables() {
    for (part, name) in [("kill-table", "region program tables"), ("kill-constant", "region program constants")] {
        let (output, said) = played(part);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
        says(&said, &["a write to sealed memory", name]);
    }
    // Under `warn` they are not entered: no violation may make code writable. The loader's protection holds.
    let (output, said) = played("warn-table");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{said}");
}

fn kill_on_a_guard_page() {
    let (output, said) = played("kill-guard");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    says(&said, &["an access beside sealed memory", "in region exports at offset -0x8,"]);
}

fn kill_on_what_is_gone() {
    let (output, said) = played("kill-gone");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    says(&said, &["an access to a sealed value that is gone: address 0x"]);
}

fn kill_tells_machines_in_json() {
    let (_, said) = played("kill-json");
    assert!(
        said.starts_with("{\"level\":\"ERROR\",\"message\":\"a write to sealed memory: ") && said.ends_with("\"}\n")
    );
}

fn warn_tells_counts_and_goes_on() {
    let (output, said) = played("warn-heap");
    assert!(output.status.success(), "{said}");
    says(&said, &["WARN a write to sealed memory", "in region exports", "the page is writable from now on"]);
    let shown = String::from_utf8(output.stdout).expect("text");
    assert_eq!(shown, "went on: Nqn.2026-01.io.brindle:demo violations 1 opened 1\n");
}

fn off_does_nothing() {
    let (output, said) = played("off-heap");
    assert!(output.status.success() && said.is_empty(), "{said}");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert_eq!(shown, "went on: Nqn.2026-01.io.brindle:demo violations 0 opened 0\n");
}

/// Many pages, one violation in each.
fn warn_many() {
    let mut token = InitToken::take(Policy::Warn).expect("the first");
    let table = token.keep("table", &vec![0u8; 64 * 4096]).expect("sealed");
    token.seal().expect("sealed");
    for page in 0..64 {
        write_where_nothing_may(&raw const table[page * 4096] as usize);
    }
    println!("{}", report().violations);
}

fn warn_tells_so_much_and_no_more() {
    let (output, said) = played("warn-many");
    assert_eq!(output.stdout, b"64\n", "all are counted: {said}");
    // Eight in a second; the writes may lie on both sides of a second's end.
    assert!((8..=16).contains(&said.lines().count()), "{said}");
}

/// A fault that has nothing to do with sealed memory.
fn other_fault() {
    InitToken::take(Policy::Kill).expect("the first").seal().expect("sealed");
    write_where_nothing_may(8);
}

/// The runtime's own handler of overflown stacks must still be asked.
fn stack_overflow() {
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        let here = std::hint::black_box([depth; 512]);
        if here[0] == u64::MAX { 0 } else { deeper(depth + 1) + here[0] }
    }
    InitToken::take(Policy::Kill).expect("the first").seal().expect("sealed");
    std::thread::spawn(|| deeper(0)).join().expect("it does not come back");
}

fn other_faults_go_where_they_went() {
    let (output, said) = played("other-fault");
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{said}");
    assert_eq!(said, "");
    let (output, said) = played("stack-overflow");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    says(&said, &["has overflowed its stack"]);
}

fn what_holds_in_one_process() {
    let (output, said) = played("holds");
    assert!(output.status.success(), "{said}");
}

/// A value with heap data of several kinds.
type Volumes = (Vec<String>, BTreeMap<u32, Option<Box<str>>>, [u8; 100]);

/// Everything that can be seen from inside a process under `kill`.
fn holds() {
    assert!(matches!(Sealed::snapshot("early", &1u32), Err(SealError::NotBegun)));
    assert!(!seal_or_share("early", 1u32).is_kept(), "nothing is begun, so it lies in ordinary memory");
    let mut token = InitToken::take(Policy::Kill).expect("the first");
    assert!(matches!(InitToken::take(Policy::Off), Err(SealError::Begun)));
    SHELF.set(&mut token, [5, 6, 7, 8]);
    let changed = TABLE.change(&mut token, |table| {
        table.fill(9);
        table.len()
    });
    assert_eq!(changed, 5000);
    assert!(std::panic::catch_unwind(|| SHELF.get()).is_err(), "nobody reads before it is sealed");
    // Far more than a page.
    let names: Vec<String> = (0..1000).map(|number| format!("volume {number}")).collect();
    let tree = (0..100).map(|key| (key, (key % 2 == 0).then(|| Box::from("even")))).collect();
    let value: Volumes = (names, tree, [3; 100]);
    let kept = token.keep("volumes", &value).expect("sealed");
    token.seal().expect("sealed");
    assert!(*kept == value && *SHELF.get() == [5, 6, 7, 8] && TABLE.get().iter().all(|&byte| byte == 9));
    // All of it lies in pages that are read-only, and the list says so, too.
    let inside = [&raw const *kept as usize, kept.0[999].as_ptr() as usize, SHELF.get().as_ptr() as usize];
    for address in inside {
        assert_eq!(access_at(address), "r--p");
    }
    let listed = report();
    assert_eq!((listed.policy, listed.unsealed, listed.violations), (Policy::Kill, 0, 0));
    let of_program = listed.regions.iter().filter(|region| region.kind == RegionKind::Program);
    assert_eq!(listed.seals, 2 + of_program.clone().count() as u64);
    let lies_in = |address: usize, name: &str| {
        let of_name = of_program.clone().filter(|region| region.name == name);
        of_name.clone().any(|region| (region.start..region.start + region.bytes).contains(&address))
    };
    assert!(lies_in(DISPATCH.as_ptr() as usize, "program tables"), "{listed:?}");
    assert!(lies_in(OPCODES.as_ptr() as usize, "program constants"), "{listed:?}");
    assert!(lies_in(holds as *const () as usize, "program code"), "{listed:?}");
    for region in &listed.regions {
        let expected = if region.name == "program code" { "r-xp" } else { "r--p" };
        for page in (region.start..region.start + region.bytes).step_by(4096) {
            assert_eq!(access_at(page), expected, "{region:?}");
        }
        if !matches!(region.kind, RegionKind::Statics | RegionKind::Program) {
            assert_eq!(access_at(region.start - 1), "---p");
            assert_eq!(access_at(region.start + region.bytes), "---p");
        }
    }
    for (address, kind) in [
        (SHELF.get().as_ptr() as usize, RegionKind::Statics),
        (DISPATCH.as_ptr() as usize, RegionKind::Program),
        (OPCODES.as_ptr() as usize, RegionKind::Program),
    ] {
        let region = listed.regions.iter().find(|region| region.kind == kind).expect("it is listed");
        sealed_for_good(address, region.protection);
    }
    // What lies beside the section is as before.
    NEIGHBOUR.fetch_add(1, Ordering::Relaxed);
    assert_eq!(access_at(NEIGHBOUR.as_ptr() as usize), "rw-p");
    swaps();
    clones_live_on(&kept);
}

/// Where the kernel knows mseal(2), the protection cannot be taken back; elsewhere that is said.
fn sealed_for_good(address: usize, protection: Protection) {
    let page = address & !4095;
    // SAFETY: the page is a sealed one of ours; if the call works, nothing writes to it all the same.
    let outcome = unsafe { libc::mprotect(page as *mut libc::c_void, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    match protection {
        Protection::Final => assert_eq!(outcome, -1, "what is sealed for good stays so"),
        other => {
            assert_eq!((other, outcome), (Protection::ReadOnly, 0));
            eprintln!("this kernel has no mseal(2): protection can be taken back by a call");
        }
    }
}

/// Values are replaced while others read: each reader sees one whole value, and old ones go with their last reader.
fn swaps() {
    const ROUNDS: u64 = 400;
    let current = Arc::new(RwLock::new(seal_or_share("table", vec![0u64; 600])));
    let first = current.read().expect("nobody panics while holding it").clone();
    assert!(first.is_kept() && access_at(first.as_ptr() as usize) == "r--p");
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let current = Arc::clone(&current);
            std::thread::spawn(move || {
                let mut last = 0;
                while last < ROUNDS {
                    let table = current.read().expect("nobody panics while holding it").clone();
                    assert!(table.iter().all(|&entry| entry == table[0]) && table[0] >= last);
                    last = table[0];
                }
            })
        })
        .collect();
    for round in 1..=ROUNDS {
        let next = seal_or_share("table", vec![round; 600]);
        let before = std::mem::replace(&mut *current.write().expect("nobody panics while holding it"), next);
        assert_eq!(before[0], round - 1);
    }
    for reader in readers {
        reader.join().expect("no reader saw half a change");
    }
    let address = first.as_ptr() as usize;
    assert!(first.iter().all(|&entry| entry == 0) && access_at(address) == "r--p", "held, so it is there");
    drop(first);
    assert_eq!(access_at(address), "---p", "the last holder is gone, and so are its pages");
    let tables = report().regions.iter().filter(|region| region.name == "table").count();
    assert_eq!(tables, 1, "only the newest is left");
}

/// What is cloned out of sealed memory is ordinary again.
fn clones_live_on(kept: &Sealed<Volumes>) {
    let mut names = kept.0.clone();
    names.push("one more".to_owned());
    names[0].push('!');
    assert_eq!((names.len(), names[0].as_str()), (1001, "volume 0!"));
    drop(names);
    assert_eq!(kept.0[0], "volume 0");
}
