//! Streams as a program sees them, over loopback sockets: readiness, short sends, segments, the two ways to close.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::BLOCK;
use common::{AnyAct, Message, TestPorts, act, cores, counter, turn, wait_for};
use ports::{Buffer, Buffers, Piece, Segment, StreamError, StreamEvent, StreamId, Streams};
use runtime::{DeviceSet, Listener, Pool, Runtime, RuntimeOptions, StreamOptions};

fn serve(program: impl FnMut(&mut TestPorts) + Send + 'static) -> (Runtime<Message, AnyAct>, std::net::SocketAddr) {
    serve_with(StreamOptions::default(), program)
}

fn serve_with(
    streams: StreamOptions,
    mut program: impl FnMut(&mut TestPorts) + Send + 'static,
) -> (Runtime<Message, AnyAct>, std::net::SocketAddr) {
    let options = RuntimeOptions { streams, ..RuntimeOptions::on_cores(cores(1)) };
    let pool = Pool::new(512, false).expect("memory");
    let programs = vec![act(move |ports| {
        program(ports);
        turn(false, false)
    })];
    let mut runtime = Runtime::start(&options, &pool, &DeviceSet::new(Vec::new()), programs).expect("started");
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let address = listener.address();
    runtime.accept(vec![listener]).expect("accepting");
    (runtime, address)
}

fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    stream
}

#[test]
fn bytes_go_through_segments_of_buffers_in_order_and_adjacent_pieces_too() {
    let mut buffers: Vec<Buffer> = Vec::new();
    let (_runtime, address) = serve(move |ports| {
        if buffers.is_empty() {
            buffers = (0..3).map(|_| ports.alloc().expect("a buffer")).collect();
        }
        while let Some(event) = ports.stream_event() {
            let StreamEvent::Readable(stream) = event else { continue };
            // Three pieces of buffers, then a rest of bytes: 10 + 4096 + 20 + 5.
            let segments = [
                Segment { buffer: buffers[0].id(), offset: 100, length: 10 },
                Segment { buffer: buffers[1].id(), offset: 0, length: BLOCK as u16 },
                Segment { buffer: buffers[2].id(), offset: 4076, length: 20 },
            ];
            let mut rest = [0; 5];
            match ports.receive(stream, &segments, &mut rest) {
                Ok(0) => {}
                Ok(count) => {
                    assert_eq!(count, 4131, "sent in one call, over loopback");
                    let pieces = [
                        Piece::Bytes(&rest),
                        Piece::Segment(segments[2]),
                        Piece::Segment(segments[1]),
                        Piece::Segment(segments[0]),
                    ];
                    assert_eq!(ports.send(stream, &pieces), Ok(4131));
                }
                Err(_) => ports.close(stream, true),
            }
        }
    });
    let mut client = connect(address);
    let sent: Vec<u8> = (0..4131u32).map(|n| (n % 251) as u8).collect();
    for _ in 0..100 {
        client.write_all(&sent).expect("sent");
        let mut back = vec![0; sent.len()];
        client.read_exact(&mut back).expect("received");
        let expected = [&sent[4126..], &sent[4106..4126], &sent[10..4106], &sent[..10]].concat();
        assert!(back == expected);
    }
}

#[test]
fn readable_repeats_until_a_short_receive_and_every_split_arrives() {
    let got = counter();
    let seen = Arc::clone(&got);
    let (_runtime, address) = serve(move |ports| {
        while let Some(event) = ports.stream_event() {
            let StreamEvent::Readable(stream) = event else { continue };
            // Three bytes a turn: all the rest must be announced again and again.
            let mut three = [0; 3];
            if let Ok(count) = ports.receive(stream, &[], &mut three) {
                let sum: u64 = three[..count].iter().map(|&byte| u64::from(byte)).sum();
                seen.fetch_add(sum, Ordering::Relaxed);
            }
        }
    });
    let mut client = connect(address);
    client.set_nodelay(true).expect("set");
    let mut expected = 0;
    for size in 1..200usize {
        client.write_all(&vec![7; size]).expect("sent");
        expected += 7 * size as u64;
        // Alternate between bursts and single arrivals.
        if size % 3 == 0 {
            wait_for("everything sent arrives", || got.load(Ordering::Relaxed) == expected);
        }
    }
    wait_for("everything sent arrives", || got.load(Ordering::Relaxed) == expected);
}

/// Sends more than any socket takes, going on at each `Writable`.
#[test]
fn a_short_send_is_followed_by_one_writable_event() {
    const TOTAL: usize = 64 << 20;
    let (mut left, mut stream, mut short) = (TOTAL, None::<StreamId>, false);
    let chunk = vec![0x5a; 1 << 20];
    let shorts = counter();
    let counted = Arc::clone(&shorts);
    let (_runtime, address) = serve(move |ports| {
        let mut go = false;
        while let Some(event) = ports.stream_event() {
            match event {
                StreamEvent::Opened { stream: opened, .. } => (stream, go) = (Some(opened), true),
                StreamEvent::Writable(_) => {
                    assert!(std::mem::replace(&mut short, false), "only after a short send, and once");
                    go = true;
                }
                StreamEvent::Readable(_) => {}
            }
        }
        let Some(id) = stream.filter(|_| go) else { return };
        while left > 0 {
            let offered = left.min(chunk.len());
            let taken = ports.send(id, &[Piece::Bytes(&chunk[..offered])]).expect("the client reads");
            left -= taken;
            if taken < offered {
                short = true;
                counted.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        ports.close(id, true);
        assert_eq!(ports.send(id, &[Piece::Bytes(b"late")]), Err(StreamError::Unknown));
        stream = None;
    });
    let mut client = connect(address);
    wait_for("the socket is full", || shorts.load(Ordering::Relaxed) > 0);
    let mut received = Vec::with_capacity(TOTAL);
    client.read_to_end(&mut received).expect("the end comes in good order");
    assert!(received.len() == TOTAL && received.iter().all(|&byte| byte == 0x5a));
}

/// The client's first byte says how to close.
#[test]
fn closing_in_good_order_delivers_what_was_sent_and_closing_at_once_resets() {
    let (runtime, address) = serve(|ports| {
        while let Some(event) = ports.stream_event() {
            let StreamEvent::Readable(stream) = event else { continue };
            let mut byte = [0];
            if ports.receive(stream, &[], &mut byte) == Ok(1) {
                ports.send(stream, &[Piece::Bytes(b"farewell")]).expect("sent");
                ports.close(stream, byte[0] == b'g');
                assert_eq!(ports.receive(stream, &[], &mut byte), Err(StreamError::Unknown));
                ports.want_readable(stream, true);
                ports.close(stream, false);
            }
        }
    });
    // Bytes that nobody reads must not turn the good order into a reset.
    let mut client = connect(address);
    client.write_all(b"g, and more that the server never receives").expect("sent");
    let mut text = String::new();
    client.read_to_string(&mut text).expect("no reset");
    assert_eq!(text, "farewell");
    drop(client);
    let mut client = connect(address);
    client.write_all(b"r").expect("sent");
    let reset = client.read_to_end(&mut Vec::new());
    assert!(reset.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    let stats = runtime.stats();
    wait_for("both streams are gone", || stats.reactors().all(|reactor| reactor.streams == 0));
    assert_eq!(stats.accepts().accepted, 2);
}

#[test]
fn the_ends_of_a_peer_are_told_apart_and_a_paused_stream_is_silent() {
    let (ended, reset, events) = (counter(), counter(), counter());
    let counts = (Arc::clone(&ended), Arc::clone(&reset), Arc::clone(&events));
    let go = counter();
    let wanted = Arc::clone(&go);
    let mut paused: Option<StreamId> = None;
    let (_runtime, address) = serve(move |ports| {
        if wanted.load(Ordering::Relaxed) == 1
            && let Some(stream) = paused.take()
        {
            ports.want_readable(stream, true);
        }
        while let Some(event) = ports.stream_event() {
            match event {
                StreamEvent::Opened { stream, listener, .. } => {
                    assert_eq!(listener, 0);
                    if wanted.load(Ordering::Relaxed) == 0 {
                        ports.want_readable(stream, false);
                        paused = Some(stream);
                    }
                    counts.2.fetch_add(1, Ordering::Relaxed);
                }
                StreamEvent::Readable(stream) => {
                    assert_eq!(wanted.load(Ordering::Relaxed), 1, "nothing is announced while paused");
                    match ports.receive(stream, &[], &mut [0; 64]) {
                        Ok(_) => {}
                        Err(StreamError::EndOfStream) => {
                            counts.0.fetch_add(1, Ordering::Relaxed);
                            ports.close(stream, true);
                        }
                        Err(error) => {
                            assert_eq!(error, StreamError::Reset);
                            counts.1.fetch_add(1, Ordering::Relaxed);
                            ports.close(stream, false);
                        }
                    }
                }
                StreamEvent::Writable(_) => {}
            }
        }
    });
    let mut first = connect(address);
    first.write_all(b"early").expect("sent");
    first.shutdown(Shutdown::Write).expect("shut");
    wait_for("the stream is opened", || events.load(Ordering::Relaxed) == 1);
    go.store(1, Ordering::Relaxed);
    wait_for("the end arrives", || ended.load(Ordering::Relaxed) == 1);
    let second = connect(address);
    wait_for("the stream is opened", || events.load(Ordering::Relaxed) == 2);
    socket2::SockRef::from(&second).set_linger(Some(Duration::ZERO)).expect("set");
    drop(second);
    wait_for("the reset arrives", || reset.load(Ordering::Relaxed) == 1);
    assert_eq!(ended.load(Ordering::Relaxed), 1);
}

#[test]
fn many_streams_are_all_served_and_places_are_used_again() {
    let total: Arc<AtomicU64> = counter();
    let counted = Arc::clone(&total);
    let streams = StreamOptions { max_streams: 64, ..StreamOptions::default() };
    let (runtime, address) = serve_with(streams, move |ports| {
        while let Some(event) = ports.stream_event() {
            let StreamEvent::Readable(stream) = event else { continue };
            let mut bytes = [0; 256];
            match ports.receive(stream, &[], &mut bytes) {
                Ok(0) => {}
                Ok(count) => {
                    counted.fetch_add(count as u64, Ordering::Relaxed);
                    assert_eq!(ports.send(stream, &[Piece::Bytes(&bytes[..count])]), Ok(count));
                }
                Err(_) => ports.close(stream, true),
            }
        }
    });
    let stats = runtime.stats();
    for _ in 0..5 {
        let mut clients: Vec<TcpStream> = (0..60).map(|_| connect(address)).collect();
        for round in 0..10u8 {
            for client in &mut clients {
                client.write_all(&[round; 100]).expect("sent");
            }
            for client in &mut clients {
                let mut back = [0xff; 100];
                client.read_exact(&mut back).expect("received");
                assert_eq!(back, [round; 100]);
            }
        }
        drop(clients);
        wait_for("all places are free", || stats.reactors().all(|reactor| reactor.streams == 0));
    }
    assert_eq!(total.load(Ordering::Relaxed), 5 * 60 * 10 * 100);
    assert_eq!(stats.accepts().refused, 0);
}
