//! Devices as a program sees them, over real files: by io_uring and by helper threads, direct and buffered, with and
//! without an emulated volatile cache; and opening, locking and refusing them.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::ids::{DeviceBlock, DeviceId};
use base::{BLOCK, Block};
use common::{Folder, TestPorts, act, cores, file, ram, turn};
use ports::{Buffer, BufferId, Buffers, Completion, DeviceOp, DeviceRequest, Devices, QueueFull, SyncDevice};
use runtime::{
    Allocation, Backend, DeviceKind, DeviceOpenError, DeviceSet, DeviceSpec, OpenDevice, Pool, Runtime, RuntimeError,
    RuntimeOptions, SyncHandle, create_file,
};

const BLOCKS: u64 = 4096;

/// Runs a function of the ports again and again, on a reactor, until it says that it has ended.
fn run(
    set: &Arc<DeviceSet>,
    backend: Backend,
    mut program: impl FnMut(&mut TestPorts) -> bool + Send + 'static,
) -> Vec<String> {
    let pool = Pool::new(2048, false).expect("memory");
    let options = RuntimeOptions { backend, ..RuntimeOptions::on_cores(cores(1)) };
    let programs = vec![act(move |ports| turn(false, program(ports)))];
    let runtime = Runtime::start(&options, &pool, set, programs).expect("started");
    let notes = runtime.notes().to_vec();
    drop(runtime.join());
    assert_eq!(pool.outstanding(), 0, "every buffer came home");
    notes
}

fn open(specs: &[DeviceSpec]) -> Arc<DeviceSet> {
    DeviceSet::new(specs.iter().map(|spec| OpenDevice::open(spec).expect("opened")).collect())
}

fn pattern(at: u64, version: u8) -> Block {
    let mut block = [version; BLOCK];
    block[..8].copy_from_slice(&at.to_le_bytes());
    block
}

/// Writes runs of blocks through scattered and adjacent buffers, reads them back, zeros some, flushes; one step a turn.
struct Story {
    device: DeviceId,
    step: usize,
    held: Vec<Buffer>,
    waiting: usize,
}

const RUNS: [(u64, usize); 6] = [(0, 1), (1, 7), (100, 64), (200, 256), (1000, 255), (BLOCKS - 1, 1)];

impl Story {
    fn new(device: DeviceId) -> Self {
        Self { device, step: 0, held: Vec::new(), waiting: 0 }
    }

    fn take(&mut self, ports: &mut TestPorts, count: usize) {
        self.held = (0..count).map(|_| ports.alloc().expect("a buffer")).collect();
        // Partly adjacent, partly not.
        let middle = count / 2;
        self.held[middle..].reverse();
    }

    fn submit(&mut self, ports: &mut TestPorts, op: DeviceOp, start: u64, buffers: &[BufferId]) {
        let request = DeviceRequest { tag: start, device: self.device, op, start: DeviceBlock(start), buffers };
        ports.submit(request).expect("an empty queue has room");
        self.waiting += 1;
    }

    fn turn(&mut self, ports: &mut TestPorts) -> bool {
        while let Some(Completion { result, .. }) = ports.completion() {
            assert_eq!(result, Ok(()), "in step {}", self.step);
            self.waiting -= 1;
        }
        if self.waiting > 0 {
            return false;
        }
        let (round, phase) = (self.step / 4, self.step % 4);
        let Some(&(start, count)) = RUNS.get(round) else { return true };
        let version = round as u8 + 1;
        match phase {
            0 => {
                self.take(ports, count);
                let ids: Vec<BufferId> = self.held.iter().map(Buffer::id).collect();
                for (at, &id) in (start..).zip(&ids) {
                    ports.bytes_mut(id).copy_from_slice(&pattern(at, version));
                }
                let op = if round % 2 == 0 { DeviceOp::Write } else { DeviceOp::WriteDurable };
                self.submit(ports, op, start, &ids);
            }
            1 => {
                self.submit(ports, DeviceOp::Flush, 0, &[]);
                let ids: Vec<BufferId> = self.held.iter().map(Buffer::id).collect();
                for &id in &ids {
                    ports.bytes_mut(id).fill(0xee);
                }
                self.submit(ports, DeviceOp::Read, start, &ids);
            }
            2 => {
                for (at, buffer) in (start..).zip(&self.held) {
                    assert!(*ports.bytes(buffer.id()) == pattern(at, version), "block {at}");
                }
                self.submit(ports, DeviceOp::WriteZeroes(count.div_ceil(2) as u32), start, &[]);
            }
            _ => {
                for buffer in self.held.drain(..) {
                    ports.free(buffer);
                }
            }
        }
        self.step += 1;
        false
    }
}

fn check_afterwards(set: &Arc<DeviceSet>) {
    let mut device = SyncHandle::new(set, DeviceId(0));
    assert_eq!(device.blocks(), BLOCKS);
    for (round, (start, count)) in RUNS.into_iter().enumerate() {
        let mut blocks = vec![[0xff; BLOCK]; count];
        device.read(DeviceBlock(start), &mut blocks).expect("read");
        for (at, block) in blocks.iter().enumerate() {
            let zeroed = at < count.div_ceil(2);
            let expected = if zeroed { [0; BLOCK] } else { pattern(start + at as u64, round as u8 + 1) };
            assert!(*block == expected, "block {at} of the run at {start}");
        }
    }
}

#[test]
fn what_is_written_is_read_back_on_every_kind_of_device() {
    for backend in [Backend::Automatic, Backend::Threads] {
        for emulated in [false, true] {
            let folder = Folder::new();
            create_file(&folder.path("a"), BLOCKS, Allocation::Sparse).expect("created");
            let set = open(&[file(folder.path("a"), emulated)]);
            let mut story = Story::new(DeviceId(0));
            run(&set, backend, move |ports| story.turn(ports));
            check_afterwards(&set);
            // The lock goes with the set, at once, also where a ring had the file.
            drop(set);
            let set = open(&[file(folder.path("a"), emulated)]);
            if !emulated {
                check_afterwards(&set);
            }
        }
    }
    let set = open(&[ram(BLOCKS)]);
    let mut story = Story::new(DeviceId(0));
    run(&set, Backend::Automatic, move |ports| story.turn(ports));
    check_afterwards(&set);
}

#[test]
fn a_file_system_without_direct_io_or_zero_range_is_served_too() {
    let shared = std::path::Path::new("/dev/shm").join(format!("runtime-test-{}", std::process::id()));
    create_file(&shared, BLOCKS, Allocation::Reserved).expect("created");
    let set = open(&[file(shared.clone(), false)]);
    std::fs::remove_file(&shared).expect("removed");
    let mut story = Story::new(DeviceId(0));
    run(&set, Backend::Automatic, move |ports| story.turn(ports));
    check_afterwards(&set);
    let device = set.device(DeviceId(0));
    assert_eq!(device.is_direct(), device.notes().is_empty(), "buffered access is not silent");
}

/// What `Automatic` says must agree with whether io_uring can be had, and its absence is not silent.
#[test]
fn the_ring_is_used_where_it_can_be() {
    let folder = Folder::new();
    create_file(&folder.path("a"), 16, Allocation::Sparse).expect("created");
    let set = open(&[file(folder.path("a"), false)]);
    let notes = run(&set, Backend::Automatic, |_| true);
    let fell_back = notes.iter().any(|note| note.contains("io_uring is not available"));
    let pool = Pool::new(64, false).expect("memory");
    let options = RuntimeOptions { backend: Backend::Uring, ..RuntimeOptions::on_cores(cores(1)) };
    let started = Runtime::<common::Message, _>::start(&options, &pool, &set, vec![act(|_| turn(false, true))]);
    match started {
        Ok(runtime) => assert!(!fell_back && runtime.join().len() == 1),
        Err(error) => assert!(fell_back && matches!(error, RuntimeError::Uring(_))),
    }
}

#[test]
fn a_full_queue_gives_requests_back_and_loses_none() {
    for (backend, emulated) in [(Backend::Automatic, false), (Backend::Threads, false), (Backend::Automatic, true)] {
        let folder = Folder::new();
        create_file(&folder.path("a"), BLOCKS, Allocation::Sparse).expect("created");
        let set = open(&[file(folder.path("a"), emulated)]);
        let (mut buffer, mut sent, mut ended, mut refused) = (None, 0u64, 0, false);
        run(&set, backend, move |ports| {
            let id = buffer.get_or_insert_with(|| ports.alloc().expect("a buffer")).id();
            while let Some(completion) = ports.completion() {
                assert_eq!(completion.result, Ok(()));
                ended += 1;
            }
            // One buffer for all: every write says the same.
            while sent < 2000 {
                let request = DeviceRequest {
                    tag: sent,
                    device: DeviceId(0),
                    op: DeviceOp::WriteDurable,
                    start: DeviceBlock(sent),
                    buffers: &[id],
                };
                if ports.submit(request) == Err(QueueFull) {
                    refused = true;
                    break;
                }
                sent += 1;
            }
            if ended < 2000 {
                return false;
            }
            assert!(refused, "2000 requests at once are more than any queue takes");
            ports.free(buffer.take().expect("still held"));
            true
        });
    }
}

#[test]
fn a_file_that_was_cut_is_an_error_and_not_a_panic() {
    for backend in [Backend::Automatic, Backend::Threads] {
        let folder = Folder::new();
        create_file(&folder.path("a"), 64, Allocation::Sparse).expect("created");
        let set = open(&[file(folder.path("a"), false)]);
        std::fs::OpenOptions::new().write(true).open(folder.path("a")).and_then(|cut| cut.set_len(4096)).expect("cut");
        let mut held = Vec::new();
        run(&set, backend, move |ports| {
            if held.is_empty() {
                held = (0..4).map(|_| ports.alloc().expect("a buffer")).collect();
                let buffers: Vec<BufferId> = held.iter().map(Buffer::id).collect();
                let (device, start) = (DeviceId(0), DeviceBlock(0));
                let request = DeviceRequest { tag: 9, device, op: DeviceOp::Read, start, buffers: &buffers };
                ports.submit(request).expect("room");
            }
            let Some(completion) = ports.completion() else { return false };
            assert_eq!(completion, Completion { tag: 9, result: Err(ports::DeviceError::Unreadable) });
            held.drain(..).for_each(|buffer| ports.free(buffer));
            true
        });
    }
}

/// A lock whose holder is dead but still has requests in the kernel passes by itself; here the holder is a child that is
/// killed, and may still be dying when the file is opened.
#[test]
fn the_lock_of_a_killed_process_is_waited_for() {
    let folder = Folder::new();
    create_file(&folder.path("a"), 16, Allocation::Sparse).expect("created");
    let path = folder.path("a");
    let mut child = std::process::Command::new("flock")
        .args(["--no-fork", "--exclusive"])
        .arg(&path)
        .args(["sleep", "1000"])
        .spawn()
        .expect("flock of util-linux");
    common::wait_for("the child has the lock", || {
        matches!(OpenDevice::open(&file(path.clone(), false)), Err(DeviceOpenError::Locked { holder, .. })
            if holder.contains(&child.id().to_string()))
    });
    child.kill().expect("killed");
    OpenDevice::open(&file(path, false)).expect("the lock passes with its holder");
    child.wait().expect("reaped");
}

/// Writes three blocks (plain, flushed, durable) in an order that shows which of them survive a kill.
#[test]
fn an_emulated_cache_loses_what_was_not_flushed() {
    for backend in [Backend::Automatic, Backend::Threads] {
        let folder = Folder::new();
        create_file(&folder.path("a"), BLOCKS, Allocation::Sparse).expect("created");
        let set = open(&[file(folder.path("a"), true)]);
        let mut device = SyncHandle::new(&set, DeviceId(0));
        device.write(DeviceBlock(5), &[pattern(5, 9)]).expect("written");
        let (mut step, mut held) = (0, None);
        run(&set, backend, move |ports| {
            let id = held.get_or_insert_with(|| ports.alloc().expect("a buffer")).id();
            if step > 0 {
                let Some(completion) = ports.completion() else { return false };
                assert_eq!(completion.result, Ok(()));
            }
            let (op, at) = match step {
                0 => (DeviceOp::Write, 1),
                1 => (DeviceOp::Flush, 0),
                2 => (DeviceOp::Write, 2),
                3 => (DeviceOp::WriteDurable, 3),
                // Plain, over what is durable already.
                4 => (DeviceOp::Write, 1),
                5 => (DeviceOp::Read, 5),
                _ => {
                    assert!(*ports.bytes(id) == pattern(5, 9), "start-up code's write is seen by reactors");
                    ports.free(held.take().expect("still held"));
                    return true;
                }
            };
            ports.bytes_mut(id).copy_from_slice(&pattern(at, step + 1));
            let ids = [id];
            let buffers: &[BufferId] = if op == DeviceOp::Flush { &[] } else { &ids };
            let request = DeviceRequest { tag: 0, device: DeviceId(0), op, start: DeviceBlock(at), buffers };
            ports.submit(request).expect("room");
            step += 1;
            false
        });
        let mut seen = [[0; BLOCK]; 6];
        device.read(DeviceBlock(0), &mut seen).expect("read");
        assert!(seen[1] == pattern(1, 5) && seen[2] == pattern(2, 3), "while it runs, the newest is seen");
        // The kill: the cache goes with the process, or here with the set.
        drop((device, set));
        let set = open(&[file(folder.path("a"), false)]);
        SyncHandle::new(&set, DeviceId(0)).read(DeviceBlock(0), &mut seen).expect("read");
        assert!(seen[1] == pattern(1, 1), "flushed");
        assert!(seen[2] == [0; BLOCK], "never flushed");
        assert!(seen[3] == pattern(3, 4), "written durably");
        assert!(seen[5] == pattern(5, 9), "flushed by the reactor");
    }
}

#[test]
fn start_up_code_reads_writes_zeros_and_finds_signatures() {
    let folder = Folder::new();
    create_file(&folder.path("a"), 600, Allocation::Reserved).expect("created");
    let set = open(&[file(folder.path("a"), false)]);
    let mut device = SyncHandle::new(&set, DeviceId(0));
    let blocks: Vec<Block> = (0..600).map(|at| pattern(at, 3)).collect();
    device.write(DeviceBlock(0), &blocks).expect("written");
    device.write_zeroes(DeviceBlock(10), 500).expect("zeroed");
    device.flush().expect("flushed");
    let mut read = vec![[1; BLOCK]; 600];
    device.read(DeviceBlock(0), &mut read).expect("read");
    for (at, block) in read.iter().enumerate() {
        let expected = if (10..510).contains(&at) { [0; BLOCK] } else { blocks[at] };
        assert!(*block == expected, "block {at}");
    }
    let areas = device.signature_areas().expect("read");
    // As far as signatures of other software reach: 256 KiB from the front, 512 KiB from the end.
    assert_eq!((areas.head.len(), areas.tail.len()), (64 * BLOCK, 128 * BLOCK));
    assert!(areas.head[..BLOCK] == pattern(0, 3) && areas.tail[127 * BLOCK..] == pattern(599, 3));
}

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = Folder::new();
    let path = folder.path("a");
    assert!(matches!(OpenDevice::open(&file(path.clone(), false)), Err(DeviceOpenError::Missing { .. })));
    create_file(&path, 16, Allocation::Sparse).expect("created");
    assert!(matches!(create_file(&path, 16, Allocation::Sparse), Err(DeviceOpenError::Exists { .. })));
    let held = OpenDevice::open(&file(path.clone(), false)).expect("opened");
    assert_eq!(held.blocks(), 16);
    let locked = OpenDevice::open(&file(path.clone(), false)).err().expect("locked").to_string();
    assert!(locked.contains(&format!("process {}", std::process::id())), "{locked}");
    drop(held);
    drop(OpenDevice::open(&file(path.clone(), false)).expect("the lock goes with the device"));
    let block = DeviceSpec { kind: DeviceKind::Block(path), ..file(folder.path("a"), false) };
    assert!(matches!(OpenDevice::open(&block), Err(DeviceOpenError::WrongKind { found: "a file", .. })));
    let emulated = DeviceSpec { emulate_volatile_cache: true, ..block };
    assert!(matches!(OpenDevice::open(&emulated), Err(DeviceOpenError::CacheNotEmulated { .. })));
    let folder_as_file = OpenDevice::open(&file(folder.path(""), false));
    assert!(matches!(folder_as_file, Err(DeviceOpenError::WrongKind { found: "a folder", .. })));
    std::fs::write(folder.path("small"), [0; 100]).expect("written");
    let small = OpenDevice::open(&file(folder.path("small"), false));
    assert!(matches!(small, Err(DeviceOpenError::TooSmall { bytes: 100, .. })));
    assert!(matches!(OpenDevice::open(&ram(0)), Err(DeviceOpenError::TooSmall { .. })));
    let beyond = create_file(&folder.path("large"), u64::MAX, Allocation::Sparse);
    assert!(beyond.is_err() && !folder.path("large").exists(), "nothing half made stays");
}

/// Reactors find a device that appears while they run, and let go of one that is taken away; then another has its place.
#[test]
fn devices_come_and_go_while_reactors_run() {
    for (backend, emulated) in [(Backend::Automatic, false), (Backend::Threads, false), (Backend::Automatic, true)] {
        let folder = Folder::new();
        for name in ["a", "b"] {
            create_file(&folder.path(name), BLOCKS, Allocation::Sparse).expect("created");
        }
        let open = |name| OpenDevice::open(&file(folder.path(name), emulated)).expect("opened");
        let set = DeviceSet::with_places(vec![("here".to_owned(), Some(open("a"))), ("later".to_owned(), None)]);
        let place = DeviceId(1);
        assert!(set.is_vacant(place) && set.get(place).is_none() && set.name(place) == "later");
        let (asked, answered) = (common::counter(), common::counter());
        let (asked_too, answered_too) = (Arc::clone(&asked), Arc::clone(&answered));
        let (mut held, mut done) = (None, 0);
        let program = move |ports: &mut TestPorts| {
            let id = held.get_or_insert_with(|| ports.alloc().expect("a buffer")).id();
            if let Some(completion) = ports.completion() {
                // Odd requests go to a device that is there.
                assert_eq!(completion.result.is_ok(), completion.tag % 2 == 1, "{completion:?}");
                answered_too.store(completion.tag, Ordering::Release);
            }
            let wanted = asked_too.load(Ordering::Acquire);
            if wanted == u64::MAX {
                ports.free(held.take().expect("still held"));
                return true;
            }
            if wanted > done {
                done = wanted;
                ports.bytes_mut(id).fill(wanted as u8);
                let (op, start) = (DeviceOp::WriteDurable, DeviceBlock(wanted));
                let request = DeviceRequest { tag: wanted, device: place, op, start, buffers: &[id] };
                ports.submit(request).expect("room");
            }
            false
        };
        let run = |tag: u64| {
            asked.store(tag, Ordering::Release);
            common::wait_for("an answer", || answered.load(Ordering::Acquire) == tag);
        };
        std::thread::scope(|scope| {
            let reactor = scope.spawn(|| self::run(&set, backend, program));
            set.put(place, open("b"));
            run(1);
            set.take_away(place);
            common::wait_for("the reactor lets go", || set.is_vacant(place));
            run(2);
            // Its lock has gone with it, and what comes next is another.
            std::fs::rename(folder.path("b"), folder.path("gone")).expect("renamed");
            create_file(&folder.path("b"), 2 * BLOCKS, Allocation::Sparse).expect("created");
            set.put(place, open("b"));
            run(3);
            asked.store(u64::MAX, Ordering::Release);
            reactor.join().expect("no panic");
        });
        let holds = |name: &str| -> Vec<u8> {
            let bytes = std::fs::read(folder.path(name)).expect("read");
            (1..4).map(|at| bytes[at * BLOCK]).collect()
        };
        drop(open("gone"));
        assert_eq!((holds("gone"), holds("b"), holds("a")), (vec![1, 0, 0], vec![0, 0, 3], vec![0, 0, 0]));
        assert_eq!(set.device(place).blocks(), 2 * BLOCKS);
    }
}
