//! Reactors together: messages both ways, sleeping and being woken by each source, stopping, counters, refusals.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base::ids::{DeviceBlock, DeviceId, ShardId};
use base::time::{Span, Time};
use common::{AnyAct, Folder, Message, TestPorts, act, cores, counter, file, turn, wait_for};
use ports::{Buffers, DeviceOp, DeviceRequest, Devices, Mesh, Piece, Ports, StreamEvent, Streams, Turn};
use runtime::{
    Allocation, Backend, CoreError, DeviceSet, Listener, OpenDevice, Polling, Pool, Runtime, RuntimeError,
    RuntimeOptions, create_file,
};

fn start(options: &RuntimeOptions, set: &Arc<DeviceSet>, programs: Vec<AnyAct>) -> Runtime<Message, AnyAct> {
    let pool = Pool::new(256, false).expect("memory");
    Runtime::start(options, &pool, set, programs).expect("started")
}

fn no_devices() -> Arc<DeviceSet> {
    DeviceSet::new(Vec::new())
}

/// Each reactor sends every message on to the next; the last one sends it to the control side.
#[test]
fn messages_travel_between_reactors_and_to_the_control_side_and_none_is_lost() {
    for polling in [Polling::Busy, Polling::Adaptive { spin: Span::ZERO }] {
        let cores = cores(2);
        let shards = cores.len() as u16;
        let programs = (0..shards)
            .map(|_| {
                let mut kept: Option<Message> = None;
                act(move |ports: &mut TestPorts| {
                    let next = ShardId(ports.shard().0 + 1);
                    assert!(next <= ports.control());
                    let mut worked = false;
                    let mut ended = false;
                    while let Some(message) = kept.take().or_else(|| ports.message().map(|(_, message)| message)) {
                        worked = true;
                        ended |= message == u64::MAX;
                        if let Err(back) = ports.post(next, message) {
                            kept = Some(back);
                            break;
                        }
                    }
                    turn(worked, ended && kept.is_none())
                })
            })
            .collect();
        let options = RuntimeOptions { polling, mesh_capacity: 16, ..RuntimeOptions::on_cores(cores) };
        let mut runtime = start(&options, &no_devices(), programs);
        let mut control = runtime.take_control().expect("taken once");
        assert!(runtime.take_control().is_none());
        let (mut sent, mut received) = (0, 0);
        while received < 5_000 {
            while sent < 5_000 && control.post(ShardId(0), sent).is_ok() {
                sent += 1;
            }
            let (from, message) = control.receive(Duration::from_secs(30)).expect("it arrives");
            assert_eq!((from, message), (ShardId(shards - 1), received));
            received += 1;
        }
        control.post(ShardId(0), u64::MAX).expect("the queue is empty");
        assert_eq!(control.receive(Duration::from_secs(30)), Some((ShardId(shards - 1), u64::MAX)));
        assert_eq!(runtime.join().len(), usize::from(shards));
    }
}

fn adaptive() -> RuntimeOptions {
    let polling = Polling::Adaptive { spin: Span::from_micros(10) };
    RuntimeOptions { polling, ..RuntimeOptions::on_cores(cores(1)) }
}

/// Waits until the reactor has not turned for a while, so that what follows has to wake it.
fn wait_for_sleep(runtime: &Runtime<Message, AnyAct>) {
    let turns = || runtime.stats().reactors().map(|reactor| reactor.turns).sum::<u64>();
    let until = Instant::now() + Duration::from_secs(30);
    let (mut last, mut same) = (turns(), 0);
    while same < 2_000 {
        assert!(Instant::now() < until, "an idle reactor sleeps");
        std::thread::yield_now();
        let now = turns();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
}

/// Far less than the longest sleep of a reactor, so that only a wake-up explains it.
const AT_ONCE: Duration = Duration::from_millis(700);

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_message_wakes_a_sleeper() {
    let programs = vec![act(|ports| {
        let message = ports.message();
        if let Some((_, number)) = message {
            ports.post(ports.control(), number).expect("room");
        }
        turn(message.is_some(), false)
    })];
    let mut runtime = start(&adaptive(), &no_devices(), programs);
    let mut control = runtime.take_control().expect("taken once");
    let times = (0..5)
        .map(|number| {
            wait_for_sleep(&runtime);
            let sent = Instant::now();
            control.post(ShardId(0), number).expect("room");
            assert_eq!(control.receive(Duration::from_secs(30)), Some((ShardId(0), number)));
            sent.elapsed()
        })
        .collect();
    assert!(median(times) < AT_ONCE);
    let stats = runtime.stats().reactors().next().expect("one reactor");
    assert!(stats.sleeps > 0 && stats.idle_ns > stats.busy_ns && stats.busy_ns > 0);
    assert!(stats.turns > stats.idle_turns);
}

#[test]
fn a_socket_wakes_a_sleeper() {
    let programs = vec![act(|ports| {
        let mut worked = false;
        while let Some(event) = ports.stream_event() {
            worked = true;
            if let StreamEvent::Readable(stream) = event {
                let mut bytes = [0; 16];
                match ports.receive(stream, &[], &mut bytes) {
                    Ok(count) => drop(ports.send(stream, &[Piece::Bytes(&bytes[..count])])),
                    Err(_) => ports.close(stream, true),
                }
            }
        }
        turn(worked, false)
    })];
    let mut runtime = start(&adaptive(), &no_devices(), programs);
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = listener.address();
    runtime.accept(vec![listener]).expect("accepting");
    wait_for_sleep(&runtime);
    let mut client = std::net::TcpStream::connect(address).expect("connected");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let times = (0..5)
        .map(|_| {
            wait_for_sleep(&runtime);
            let sent = Instant::now();
            client.write_all(b"hello").expect("sent");
            client.read_exact(&mut [0; 5]).expect("received");
            sent.elapsed()
        })
        .collect();
    assert!(median(times) < AT_ONCE);
}

/// Writes durably again and again, says that it has nothing to do until each has ended, and measures how long that takes.
#[test]
fn a_device_wakes_a_sleeper() {
    for (backend, emulated) in [(Backend::Automatic, false), (Backend::Threads, false), (Backend::Automatic, true)] {
        let folder = Folder::new();
        create_file(&folder.path("a"), 16, Allocation::Reserved).expect("created");
        let set = DeviceSet::new(vec![OpenDevice::open(&file(folder.path("a"), emulated)).expect("opened")]);
        let (mut buffer, mut since, mut count) = (None, None::<Instant>, 0);
        let times = Arc::new(std::sync::Mutex::new(Vec::new()));
        let taken = Arc::clone(&times);
        let programs = vec![act(move |ports: &mut TestPorts| {
            let id = buffer.get_or_insert_with(|| ports.alloc().expect("a buffer")).id();
            if let Some(completion) = ports.completion() {
                assert_eq!(completion.result, Ok(()));
                let took = since.take().expect("submitted").elapsed();
                taken.lock().expect("no panic").push(took);
            }
            if since.is_none() && count < 20 {
                let (device, start) = (DeviceId(0), DeviceBlock(count % 16));
                let op = DeviceOp::WriteDurable;
                ports.submit(DeviceRequest { tag: count, device, op, start, buffers: &[id] }).expect("room");
                since = Some(Instant::now());
                count += 1;
                return turn(true, false);
            }
            let ended = since.is_none();
            if ended {
                ports.free(buffer.take().expect("held"));
            }
            turn(false, ended)
        })];
        let polling = Polling::Adaptive { spin: Span::ZERO };
        let options = RuntimeOptions { backend, polling, ..RuntimeOptions::on_cores(cores(1)) };
        drop(start(&options, &set, programs).join());
        let times = times.lock().expect("no panic").clone();
        assert_eq!(times.len(), 20);
        assert!(median(times) < AT_ONCE);
    }
}

#[test]
fn a_deadline_wakes_a_sleeper_neither_early_nor_late() {
    let (mut due, mut rounds) = (None::<Time>, 0);
    let late = counter();
    let measured = Arc::clone(&late);
    let programs = vec![act(move |ports: &mut TestPorts| {
        let now = ports.now();
        match due {
            Some(at) if now < at => return Turn { worked: false, deadline: at, ended: false },
            Some(at) => {
                measured.fetch_add(now.since(at).0, Ordering::Relaxed);
                rounds += 1;
            }
            None => {}
        }
        due = Some(now + Span::from_micros(1500));
        Turn { worked: true, deadline: now + Span::from_micros(1500), ended: rounds == 100 }
    })];
    let runtime = start(&adaptive(), &no_devices(), programs);
    let stats = runtime.stats();
    let began = Instant::now();
    drop(runtime.join());
    assert!(began.elapsed() >= Duration::from_millis(140), "a hundred waits of 1.5 ms");
    assert!(late.load(Ordering::Relaxed) / 100 < AT_ONCE.as_nanos() as u64);
    let turns = stats.reactors().next().expect("one reactor").turns;
    assert!(turns < 100 * 100, "it slept and did not spin: {turns} turns");
}

#[test]
fn a_runtime_can_be_stopped_by_force_and_by_being_dropped() {
    for drop_it in [false, true] {
        let programs = cores(2).iter().map(|_| act(|_| turn(false, false))).collect();
        let options = RuntimeOptions { cores: cores(2), ..adaptive() };
        let runtime = start(&options, &no_devices(), programs);
        assert!(runtime.is_running());
        if drop_it {
            drop(runtime);
        } else {
            runtime.stop();
            let stats = runtime.stats();
            assert_eq!(runtime.join().len(), cores(2).len());
            assert_eq!(stats.buffers().0, 0);
        }
    }
}

#[test]
fn cores_that_do_not_exist_are_named() {
    let options = RuntimeOptions::on_cores(vec![100_000]);
    let pool = Pool::new(64, false).expect("memory");
    let refused = Runtime::<Message, AnyAct>::start(&options, &pool, &no_devices(), vec![act(|_| turn(false, true))]);
    let error = refused.err().expect("there is no such core");
    assert!(matches!(error, RuntimeError::Cores(CoreError::Missing { asked: 100_000, .. })));
    assert!(error.to_string().contains("core 100000"));
    wait_for("nothing is left running", || Arc::strong_count(&pool) == 1);
}
