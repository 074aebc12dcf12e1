//! Nothing is allocated on a reactor's thread once it is warm: a counting allocator watches device I/O of every kind,
//! messages between reactors and an echo over a socket, for thousands of rounds.
#![allow(unsafe_code, reason = "a global allocator is an unsafe trait")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::BLOCK;
use base::ids::{DeviceBlock, DeviceId, ShardId};
use base::time::Span;
use common::{Folder, TestPorts, act, cores, counter, file, ram, turn, wait_for};
use ports::{BufferId, BufferList, DeviceOp, DeviceRequest, Devices, Mesh, Piece, Segment, StreamEvent, Streams};
use runtime::{
    Allocation, Backend, DeviceSet, Listener, OpenDevice, Polling, Pool, Runtime, RuntimeOptions, create_file,
};

/// Allocations of watched threads.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

impl Counting {
    fn count() {
        if WATCHED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RUN: usize = 8;
const OPS: [DeviceOp; 5] =
    [DeviceOp::Write, DeviceOp::Read, DeviceOp::WriteDurable, DeviceOp::Flush, DeviceOp::WriteZeroes(4)];

/// Keeps one request at each device, one message on its way round, and echoes what comes in.
struct Steady {
    waiting: [Option<BufferList>; 2],
    step: usize,
    echo: Option<BufferList>,
    message_sent: bool,
    rounds: Arc<AtomicU64>,
}

impl Steady {
    fn turn(&mut self, ports: &mut TestPorts) -> bool {
        let mut worked = self.devices(ports);
        worked |= self.mesh(ports);
        worked | self.streams(ports)
    }

    fn devices(&mut self, ports: &mut TestPorts) -> bool {
        let mut worked = false;
        while let Some(completion) = ports.completion() {
            assert_eq!(completion.result, Ok(()));
            self.waiting[completion.tag as usize].take().expect("in flight").free(ports);
            self.rounds.fetch_add(1, Ordering::Relaxed);
            worked = true;
        }
        for device in 0..2 {
            if self.waiting[device].is_some() {
                continue;
            }
            let op = OPS[self.step % OPS.len()];
            self.step += 1;
            let count = if matches!(op, DeviceOp::Flush | DeviceOp::WriteZeroes(_)) { 0 } else { RUN };
            let list = BufferList::alloc(ports, count).expect("buffers");
            let mut ids = [BufferId(0); RUN];
            for (id, buffer) in ids.iter_mut().zip(list.ids(ports)) {
                *id = buffer;
            }
            // Each reactor has its own half of each device.
            let start = DeviceBlock(u64::from(ports.shard().0) * 128 + (self.step % 100) as u64);
            let (tag, device_id) = (device as u64, DeviceId(device as u16));
            let request = DeviceRequest { tag, device: device_id, op, start, buffers: &ids[..count] };
            ports.submit(request).expect("one in flight");
            self.waiting[device] = Some(list);
            worked = true;
        }
        worked
    }

    fn mesh(&mut self, ports: &mut TestPorts) -> bool {
        if ports.shards() < 2 {
            return false;
        }
        let mut worked = false;
        while let Some((from, message)) = ports.message() {
            ports.post(from, message + 1).expect("one message for each direction");
            worked = true;
        }
        if !self.message_sent && ports.shard() == ShardId(0) {
            ports.post(ShardId(1), 0).expect("room");
            self.message_sent = true;
        }
        worked
    }

    fn streams(&mut self, ports: &mut TestPorts) -> bool {
        let mut worked = false;
        while let Some(event) = ports.stream_event() {
            worked = true;
            let StreamEvent::Readable(stream) = event else { continue };
            let list = self.echo.get_or_insert_with(|| BufferList::alloc(ports, 1).expect("a buffer"));
            let segment = Segment { buffer: list.first().expect("one"), offset: 0, length: BLOCK as u16 };
            let mut rest = [0; 64];
            match ports.receive(stream, &[segment], &mut rest) {
                Ok(count) => {
                    let length = count.min(BLOCK) as u16;
                    let pieces = [
                        Piece::Segment(Segment { length, ..segment }),
                        Piece::Bytes(&rest[..count - usize::from(length)]),
                    ];
                    assert_eq!(ports.send(stream, &pieces), Ok(count));
                }
                Err(_) => ports.close(stream, true),
            }
        }
        worked
    }
}

fn steady(backend: Backend, polling: Polling) {
    let folder = Folder::new();
    create_file(&folder.path("a"), 512, Allocation::Reserved).expect("created");
    let specs = [file(folder.path("a"), false), ram(512)];
    let set = DeviceSet::new(specs.iter().map(|spec| OpenDevice::open(spec).expect("opened")).collect());
    let pool = Pool::new(1024, false).expect("memory");
    let warm = Arc::new(AtomicBool::new(false));
    let rounds = counter();
    let programs = cores(2)
        .iter()
        .map(|_| {
            let rounds = Arc::clone(&rounds);
            let warm = Arc::clone(&warm);
            let mut program = Steady { waiting: [None, None], step: 0, echo: None, message_sent: false, rounds };
            act(move |ports: &mut TestPorts| {
                let worked = program.turn(ports);
                // From here on also the loop around the program is watched.
                WATCHED.set(warm.load(Ordering::Relaxed));
                turn(worked, false)
            })
        })
        .collect();
    let options = RuntimeOptions { backend, polling, ..RuntimeOptions::on_cores(cores(2)) };
    let mut runtime = Runtime::start(&options, &pool, &set, programs).expect("started");
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = listener.address();
    runtime.accept(vec![listener]).expect("accepting");
    let mut clients: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(address).expect("connected")).collect();
    let mut echo = |times: usize| {
        for round in 0..times {
            for client in &mut clients {
                let sent = [round as u8; 100];
                client.write_all(&sent).expect("sent");
                let mut back = [0xff; 100];
                client.read_exact(&mut back).expect("received");
                assert_eq!(back, sent);
            }
        }
    };
    echo(100);
    wait_for("the reactors are warm", || rounds.load(Ordering::Relaxed) > 200);
    warm.store(true, Ordering::Relaxed);
    let before = rounds.load(Ordering::Relaxed);
    echo(2000);
    wait_for("thousands of device rounds", || rounds.load(Ordering::Relaxed) > before + 2000);
    warm.store(false, Ordering::Relaxed);
    runtime.stop();
    drop(runtime.join());
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0, "{backend:?} {polling:?} allocate while running");
}

#[test]
fn nothing_is_allocated_on_a_warm_reactor() {
    let adaptive = Polling::Adaptive { spin: Span::from_micros(20) };
    steady(Backend::Automatic, Polling::Busy);
    steady(Backend::Automatic, adaptive);
    steady(Backend::Threads, adaptive);
    // The watcher itself works.
    WATCHED.set(true);
    drop(std::hint::black_box(vec![1u8; 100]));
    WATCHED.set(false);
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0);
}
