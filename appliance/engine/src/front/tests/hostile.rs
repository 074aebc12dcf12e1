//! Hosts that break the protocol, fall silent, take nothing, owe data or die: each gets the right error or end, others are
//! served on, and everything comes home.

use nvmf::pdu::FatalStatus;

use super::fake::io_entry;
use super::*;

#[test]
fn a_data_digest_error_ends_the_command_alone() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, BOTH);
    let mut host = Host::queue(&mut rig, 2, 1, controller, BOTH);
    let data = pattern(1, BLOCK);
    host.command(&mut rig, io_entry(opcode::WRITE, 3, 0, 1, true), &data);
    *rig.stream(2).inbound.back_mut().expect("a digest") ^= 1;
    rig.settle();
    assert_eq!(status(&host.received(&mut rig)[0]), Status::TRANSIENT_TRANSPORT_ERROR);
    assert!(rig.io.content.is_empty());
    assert!(host.ask(&mut rig, io_entry(opcode::WRITE, 3, 0, 1, true), &data).status.status.is_success());
    rig.end();
}

/// Expects a termination request with this status and information, and the end of the connection after it.
fn terminated(rig: &mut Rig, host: &mut Host, status: FatalStatus, information: u32) {
    rig.settle();
    let got = host.received(rig);
    assert_eq!(got.last(), Some(&Got::Terminated(status as u16, information)), "{got:?}");
    assert!(!rig.is_closed(host.id), "the request may not be lost in a reset");
    host.push(rig, &[0xff; 1000]);
    rig.settle();
    rig.pass(Span::from_secs(6));
    rig.turn();
    assert!(rig.is_closed(host.id));
}

#[test]
fn a_broken_protocol_is_told_and_the_connection_ends_alone() {
    type Break = fn(&mut [u8; 128]);
    let cases: [(Break, FatalStatus, u32); 6] = [
        (|head| head[0] = 0x55, FatalStatus::InvalidHeaderField, 0),
        (|head| head[1] = 1, FatalStatus::InvalidHeaderField, 1),
        (|head| head[2] = 73, FatalStatus::InvalidHeaderField, 2),
        (|head| head[3] = 7, FatalStatus::InvalidHeaderField, 3),
        (|head| head[6] = 0x10, FatalStatus::InvalidHeaderField, 4),
        (|head| head[0] = 0, FatalStatus::InvalidHeaderField, 2),
    ];
    for (index, (change, status, information)) in cases.into_iter().enumerate() {
        let mut rig = Rig::new(1024);
        let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
        let mut bystander = Host::queue(&mut rig, 2, 1, controller, NONE);
        let mut host = Host::queue(&mut rig, 3, 2, controller, NONE);
        let mut head = [0; 128];
        pdu::command(&mut head, io_entry(opcode::WRITE, 3, 0, 1, true), BLOCK, NONE);
        change(&mut head);
        host.push(&mut rig, &head[..72]);
        terminated(&mut rig, &mut host, status, information);
        assert!(rig.front.hub.metrics().protocol_errors.get() == 1, "case {index}");
        assert_eq!(read(&mut rig, &mut bystander, 0, 1).len(), BLOCK, "others are served");
        rig.end();
    }
    // A second ICReq, data nobody asked for, a header digest that does not match, more commands than entries.
    type Send = fn(&mut Rig, &Host);
    let cases: [(Send, FatalStatus, u32); 4] = [
        (|rig, host| host.push(rig, &pdu::ic_req(BOTH, 0)), FatalStatus::SequenceError, 0),
        (
            |rig, host| {
                let mut out = [0; 128];
                let transfer = pdu::Transfer { cid: 1, tag: 0, offset: 0, length: 4 };
                let length = pdu::host_data(&mut out, transfer, true, BOTH);
                host.push(rig, &out[..length]);
            },
            FatalStatus::InvalidHeaderField,
            10,
        ),
        (
            |rig, host| {
                let mut out = [0; 128];
                let length = pdu::command(&mut out, io_entry(opcode::READ, 1, 0, 1, false), 0, BOTH);
                out[72..76].copy_from_slice(&0x1234_5678u32.to_le_bytes());
                host.push(rig, &out[..length]);
            },
            FatalStatus::HeaderDigest,
            0x1234_5678,
        ),
        (
            |rig, host| {
                for cid in 0..33 {
                    host.command(rig, io_entry(opcode::READ, cid, 0, 1, false), &[]);
                }
            },
            FatalStatus::LimitExceeded,
            0,
        ),
    ];
    for (send, status, information) in cases {
        let mut rig = Rig::new(1024);
        let (_admin, controller) = Host::admin(&mut rig, 1, BOTH);
        let mut host = Host::queue(&mut rig, 3, 1, controller, BOTH);
        send(&mut rig, &host);
        terminated(&mut rig, &mut host, status, information);
        rig.end();
    }
}

#[test]
fn an_r2t_that_has_not_left_cannot_be_answered() {
    // Command and data in one receive: the tag is guessed, right or wrong.
    for tag in (0..=0x2ffu16).filter(|tag| tag & 0xff < 40) {
        let mut rig = Rig::new(256);
        let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
        let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
        host.command(&mut rig, io_entry(opcode::WRITE, 1, 0, 1, false), &[]);
        let mut out = [0; 128];
        let transfer = pdu::Transfer { cid: 1, tag, offset: 0, length: BLOCK as u32 };
        let length = pdu::host_data(&mut out, transfer, true, NONE);
        host.push(&mut rig, &out[..length]);
        host.push(&mut rig, &[0; BLOCK]);
        rig.settle();
        assert_eq!(host.received(&mut rig).last(), Some(&Got::Terminated(1, 10)), "tag {tag:#x}");
        rig.end();
    }
}

#[test]
fn idle_connections_end_and_more_than_the_cap_are_refused() {
    let mut rig = Rig::new(1024);
    for id in 1..=10 {
        rig.ports.open(id);
    }
    rig.turn();
    assert!(!rig.is_closed(8) && rig.is_closed(9) && rig.is_closed(10));
    assert_eq!(rig.front.hub.metrics().connections.get(), 8);
    rig.pass(Span::from_secs(9));
    assert!(!rig.is_closed(1));
    rig.pass(Span::from_secs(2));
    rig.turn();
    assert!((1..=8).all(|id| rig.is_closed(id)));
    rig.pass(Span::from_secs(1));
    assert_eq!(rig.front.deadline(), Time::NEVER);
    rig.end();
}

#[test]
fn a_silent_host_loses_its_controller_and_all_its_queues() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let mut host = Host::queue(&mut rig, 2, 1, controller, NONE);
    for _ in 0..10 {
        // Traffic on the I/O queue keeps both.
        rig.pass(Span::from_secs(3));
        assert_eq!(read(&mut rig, &mut host, 0, 1).len(), BLOCK);
        rig.pass(Span::from_millis(300));
    }
    assert!(!rig.is_closed(1));
    rig.pass(Span::from_secs(7));
    rig.turn();
    assert!(rig.is_closed(1) && rig.is_closed(2));
    rig.end();
}

#[test]
fn a_host_without_a_keep_alive_timeout_may_say_nothing_for_as_long_as_its_stream_lives() {
    let mut rig = Rig::new(1024);
    let mut admin = Host::open(&mut rig, 1, NONE);
    // KATO (Base, figure 545).
    let connected = admin.connect_as(&mut rig, 0, 0xffff, HOST, |entry| entry.cdw12 = 0);
    assert!(connected.status.status.is_success());
    for _ in 0..48 {
        rig.pass(Span::from_secs(3600));
    }
    assert!(!rig.is_closed(1), "silence is TCP's to notice, and its system answers");
    rig.end();
}

#[test]
fn a_dead_connection_keeps_its_commands_until_they_end() {
    let mut rig = Rig::new(1024);
    let (_admin, controller) = Host::admin(&mut rig, 1, NONE);
    let host = Host::queue(&mut rig, 2, 1, controller, NONE);
    host.command(&mut rig, io_entry(opcode::READ, 1, 0, 8, false), &[]);
    host.command(&mut rig, io_entry(opcode::WRITE, 2, 0, 2, true), &pattern(1, 2 * BLOCK));
    host.command(&mut rig, io_entry(opcode::WRITE, 3, 0, 8, false), &[]);
    rig.turn();
    rig.turn();
    assert_eq!(rig.io.requests.len(), 2);
    rig.stream(2).ended = true;
    rig.stream(2).inbound.clear();
    rig.turn();
    assert!(rig.is_closed(2));
    assert!(rig.is_closed(1), "nobody else could tell the host when its commands have ended");
    assert_eq!(rig.front.connections.len(), 1, "the dead one waits for the volumes");
    assert_eq!(rig.front.connections(rig.ports.now).len(), 0);
    assert_eq!(rig.front.ended(rig.ports.now).len(), 2);
    rig.end_requests();
    assert_eq!(rig.front.connections.len(), 0);
    rig.end();
}

#[test]
fn a_host_that_takes_nothing_or_owes_data_is_given_up() {
    let mut rig = Rig::new(1024);
    let (mut admin, controller) = Host::admin(&mut rig, 1, NONE);
    let stalled = Host::queue(&mut rig, 2, 1, controller, NONE);
    let owing = Host::queue(&mut rig, 3, 2, controller, NONE);
    owing.command(&mut rig, io_entry(opcode::WRITE, 1, 0, 8, false), &[]);
    rig.stream(2).stalled = true;
    stalled.command(&mut rig, io_entry(opcode::READ, 1, 0, 8, false), &[]);
    rig.settle();
    for second in 0..62 {
        let alive = SubmissionEntry { opcode: opcode::KEEP_ALIVE, cid: 9, ..Default::default() };
        assert!(admin.ask(&mut rig, alive, &[]).status.status.is_success());
        assert_eq!(rig.is_closed(2), second > 30, "second {second}");
        assert_eq!(rig.is_closed(3), second > 60, "second {second}");
        rig.pass(Span::from_secs(1));
        rig.turn();
    }
    rig.end();
}

#[test]
fn hostile_bytes_never_panic_and_everything_comes_home() {
    for seed in 1..400u64 {
        let mut rig = Rig::new(1024);
        let digests = if seed % 2 == 0 { NONE } else { BOTH };
        let (admin, controller) = Host::admin(&mut rig, 1, digests);
        let host = Host::queue(&mut rig, 2, 1, controller, digests);
        let random = pattern(seed, 256);
        for (index, &byte) in random.iter().enumerate() {
            let target = if byte & 0x80 == 0 { &host } else { &admin };
            let mut entry = io_entry(
                byte & 0x1f,
                index as u16,
                u64::from(random[255 - index]),
                1 + u32::from(byte) % 9,
                byte % 3 == 0,
            );
            entry.cdw10 ^= u32::from(random[(index + 7) % 256]) << (byte % 24);
            let data = vec![byte; if byte % 3 == 0 { entry.data.length.min(8192) as usize } else { 0 }];
            target.command(&mut rig, entry, &data);
            if byte.is_multiple_of(61) {
                let inbound = &mut rig.stream(target.id).inbound;
                let place = usize::from(random[(index + 3) % 256]) % inbound.len();
                inbound[place] ^= 1 << (byte % 8);
            }
            if byte.is_multiple_of(5) {
                rig.settle();
            }
            if rig.is_closed(1) || rig.is_closed(2) {
                break;
            }
        }
        rig.end();
    }
}
