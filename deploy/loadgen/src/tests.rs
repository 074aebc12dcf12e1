//! The host against a scripted target: every way data can travel, every way a target can be wrong, and a torture that
//! must notice a target which forgets.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use base::BLOCK;
use nvme::identify::IdentifyController;
use nvme::status::Status;
use nvmf::pdu::{self, Digests, Direction, Fatal, kind};

use crate::discovery::discover;
use crate::error::{HostError, Violation};
use crate::fake::{BLOCKS, Fake, FakeOptions, NQN, Tamper};
use crate::host::{Host, HostIdentity, HostOptions};
use crate::io_queue::{IoQueue, Operation};
use crate::model::Value;
use crate::random::Random;
use crate::request::{Completion, Wait};
use crate::stamp::Content;
use crate::torture::{End, Torture, TortureOptions};
use crate::workload::{self, Limit, Pattern, WorkloadOptions, first_namespace};

const BOTH: Digests = Digests { header: true, data: true };

fn options(fake: &Fake, digests: Digests) -> HostOptions {
    let identity = HostIdentity::from_id(base::uuid::Uuid::from_random([1, 2]));
    HostOptions { digests, ..HostOptions::new(fake.address, NQN, identity) }
}

fn open(fake: &Fake, digests: Digests, blocks: u32) -> Result<(Host, IoQueue), HostError> {
    let mut host = Host::connect(&options(fake, digests))?;
    let namespace = first_namespace(&mut host)?;
    let queue = host.open_queue(1, 8, blocks * BLOCK as u32, &namespace)?;
    Ok((host, queue))
}

fn one(queue: &mut IoQueue, operation: Operation, fill: Option<u8>) -> Result<(Completion, Vec<u8>), HostError> {
    let slot = queue.hold().expect("a free request");
    queue.buffer_mut(slot).fill(fill.unwrap_or(0xaa));
    queue.submit(slot, operation)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        queue.poll(Wait::Sleep(Duration::from_secs(1)))?;
        if let Some(completion) = queue.completed() {
            let data = queue.buffer(slot).to_vec();
            queue.release(slot);
            return Ok((completion, data));
        }
        assert!(Instant::now() < deadline, "the scripted target answers");
    }
}

#[test]
fn data_travels_both_ways_in_every_form() {
    for digests in [Digests::default(), BOTH] {
        for (in_capsule_bytes, max_h2c_data_bytes, piece_bytes, success_flag) in [
            (8192, 1 << 20, 1 << 20, true),
            (0, 4096, 10_000, false),
            (1 << 20, 8192, 512, true),
            (4096, 65_536, 40_000, false),
        ] {
            let fake = FakeOptions {
                in_capsule_bytes,
                max_h2c_data_bytes,
                piece_bytes,
                success_flag,
                ..FakeOptions::default()
            };
            let fake = Fake::start(fake);
            let (host, mut queue) = open(&fake, digests, 32).expect("a good target");
            for blocks in [1, 2, 32] {
                let fill = blocks as u8;
                let (written, _) = one(&mut queue, Operation::Write { lba: 7, blocks }, Some(fill)).expect("written");
                assert_eq!(written.status, Status::SUCCESS);
                let (read, data) = one(&mut queue, Operation::Read { lba: 7, blocks }, None).expect("read");
                assert_eq!(read.status, Status::SUCCESS);
                let (read, rest) = data.split_at(blocks as usize * BLOCK);
                assert!(read.iter().all(|&byte| byte == fill), "{blocks} blocks in pieces of {piece_bytes}");
                assert!(rest.iter().all(|&byte| byte == 0xaa), "nothing beyond what was asked for");
            }
            one(&mut queue, Operation::WriteZeroes { lba: 8, blocks: 1 }, None).expect("zeroed");
            one(&mut queue, Operation::Flush, None).expect("flushed");
            let (_, data) = one(&mut queue, Operation::Read { lba: 7, blocks: 3 }, None).expect("read");
            assert_eq!((data[BLOCK - 1], data[BLOCK], data[2 * BLOCK]), (32, 0, 32));
            let (refused, _) = one(&mut queue, Operation::Read { lba: BLOCKS, blocks: 1 }, None).expect("answered");
            assert_eq!(refused.status, Status::LBA_OUT_OF_RANGE.do_not_retry());
            drop(queue);
            host.disconnect().expect("a good end");
        }
    }
}

#[test]
fn the_controller_is_read_and_limits_are_kept() {
    let fake = Fake::start(FakeOptions::default());
    let mut host = Host::connect(&options(&fake, Digests::default())).expect("a good target");
    let controller = host.controller().clone();
    assert_eq!((controller.serial.as_str(), controller.model.as_str(), controller.id), ("F1", "Fake", 1));
    assert_eq!((controller.transfer_bytes_max, controller.in_capsule_bytes_max), (1 << 20, 8192));
    assert_eq!((controller.queue_entries_max, controller.queues), (128, 1));
    let namespace = first_namespace(&mut host).expect("one namespace");
    assert_eq!((namespace.nsid, namespace.blocks, namespace.block_bytes), (1, BLOCKS, 4096));
    assert_eq!(namespace.identity.uuid, base::uuid::Uuid([3; 16]));
    for (queue_id, depth, buffer_bytes) in [(2, 8, 4096), (1, 129, 4096), (1, 8, 2 << 20)] {
        let refused = host.open_queue(queue_id, depth, buffer_bytes, &namespace);
        assert!(matches!(refused, Err(HostError::Excessive { .. })), "{queue_id} {depth} {buffer_bytes}");
    }
    assert!(matches!(host.open_queue(0, 8, 4096, &namespace), Err(HostError::Senseless(_))));
}

#[test]
fn refusals_say_what_the_target_answered() {
    let fake = Fake::start(FakeOptions::default());
    let mut wrong = options(&fake, Digests::default());
    wrong.subsystem_nqn = "nqn.2014-08.org.example:other".to_owned();
    match Host::connect(&wrong) {
        Err(HostError::Refused { command: "Connect", status }) => {
            assert_eq!(status, Status::CONNECT_INVALID_PARAMETERS.do_not_retry());
        }
        other => panic!("{other:?}"),
    }
    fake.kill();
    let gone = Host::connect(&options(&fake, Digests::default())).expect_err("the target is dead");
    assert!(gone.is_loss(), "{gone}");
}

#[test]
fn a_controller_that_a_linux_host_refuses_is_refused() {
    type Change = fn(&mut IdentifyController);
    let changes: [(&str, Change); 6] = [
        ("KAS", |identify| identify.keep_alive_100ms = 0),
        ("IOCCSZ", |identify| identify.command_capsule_16b = 3),
        ("IORCSZ", |identify| identify.response_capsule_16b = 0),
        ("ICDOFF", |identify| identify.in_capsule_offset_16b = 1),
        ("SGLS", |identify| identify.sgl_support = 0),
        ("MAXCMD", |identify| identify.max_commands = 0),
    ];
    for (expected, identify) in changes {
        let fake = Fake::start(FakeOptions { identify, ..FakeOptions::default() });
        let refused = Host::connect(&options(&fake, Digests::default()));
        assert!(matches!(refused, Err(HostError::Unusable { field, .. }) if field == expected), "{expected}");
    }
    let fake = Fake::start(FakeOptions { identify: |identify| identify.controller_id = 9, ..FakeOptions::default() });
    let refused = Host::connect(&options(&fake, Digests::default()));
    assert!(matches!(refused, Err(HostError::Protocol(Violation::Contradiction { first: 1, then: 9, .. }))));
}

#[test]
fn every_wrong_reply_is_a_typed_error() {
    type Change = fn(u8, usize, &mut Vec<u8>);
    type Judge = fn(&Violation) -> bool;
    // The second C2HData, R2T or response of the I/O queue is changed; the admin queue is sound by then or fails alike.
    let cases: [(&str, Change, Judge); 9] = [
        (
            "type",
            |kind, nth, bytes| {
                if kind == kind::C2H_DATA && nth == 1 {
                    bytes[0] = 0x42
                }
            },
            |violation| matches!(violation, Violation::Header { kind: 0x42, .. }),
        ),
        (
            "length",
            |kind, nth, bytes| {
                if kind == kind::RESPONSE && nth == 1 {
                    bytes[4] += 4
                }
            },
            |violation| matches!(violation, Violation::Header { kind: kind::RESPONSE, .. }),
        ),
        (
            "command",
            |kind, nth, bytes| {
                if kind == kind::RESPONSE && nth == 1 {
                    bytes[20] = 99
                }
            },
            |violation| matches!(violation, Violation::UnknownCommand(99)),
        ),
        (
            "data offset",
            |kind, nth, bytes| {
                if kind == kind::C2H_DATA && nth == 1 {
                    bytes[13] ^= 1
                }
            },
            |violation| matches!(violation, Violation::DataRange { .. }),
        ),
        (
            "data command",
            |kind, nth, bytes| {
                if kind == kind::C2H_DATA && nth == 1 {
                    bytes[9] = 1
                }
            },
            |violation| matches!(violation, Violation::UnknownCommand(_)),
        ),
        (
            "success flag",
            |kind, nth, bytes| {
                if kind == kind::C2H_DATA && nth == 0 {
                    bytes[1] |= 8
                }
            },
            |violation| matches!(violation, Violation::SuccessBeforeLast(_)),
        ),
        (
            "R2T range",
            |kind, _, bytes| {
                if kind == kind::R2T {
                    bytes[18] = 0xff
                }
            },
            |violation| matches!(violation, Violation::ReadyRange { .. }),
        ),
        (
            "R2T of nothing",
            |kind, _, bytes| {
                if kind == kind::R2T {
                    bytes[16..20].fill(0)
                }
            },
            |violation| matches!(violation, Violation::ReadyRange { .. }),
        ),
        (
            "early response",
            |kind, _, bytes| {
                if kind == kind::C2H_DATA && bytes[1] & 4 != 0 {
                    bytes.clear()
                }
            },
            |violation| matches!(violation, Violation::ShortTransfer { .. }),
        ),
    ];
    for (what, tamper, judge) in cases {
        let options =
            FakeOptions { tamper: Arc::new(tamper), piece_bytes: 2048, success_flag: false, ..FakeOptions::default() };
        let fake = Fake::start(options);
        let outcome = open(&fake, Digests::default(), 4).and_then(|(_host, mut queue)| {
            one(&mut queue, Operation::Write { lba: 0, blocks: 4 }, Some(1))?;
            one(&mut queue, Operation::Read { lba: 0, blocks: 4 }, None)
        });
        match outcome {
            Err(HostError::Protocol(violation)) if judge(&violation) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn every_byte_of_a_data_header_may_be_wrong_without_a_panic() {
    for at in (0..10).chain(12..20) {
        let tamper: Tamper = Arc::new(move |kind, _, bytes| {
            if kind == kind::C2H_DATA && bytes.len() == 24 + 4 * BLOCK {
                bytes[at] ^= 0x81;
            }
        });
        let fake = Fake::start(FakeOptions { tamper, ..FakeOptions::default() });
        let (_host, mut queue) = open(&fake, Digests::default(), 4).expect("the rest is sound");
        let wrong = one(&mut queue, Operation::Read { lba: 0, blocks: 4 }, None);
        assert!(matches!(wrong, Err(HostError::Protocol(_))), "byte {at}: {wrong:?}");
    }
}

#[test]
fn whatever_one_bit_of_a_reply_becomes_the_load_ends_in_order() {
    let mut outcomes = [0; 2];
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let (of, bit) =
            (if random.percent(50) { kind::RESPONSE } else { kind::C2H_DATA }, random.below(24 * 8) as usize);
        // The admin queue sends fewer replies than this of either kind.
        let nth = 10 + random.below(15) as usize;
        let tamper: Tamper = Arc::new(move |kind, before, bytes| {
            if (kind, before) == (of, nth) {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        });
        let fake = Fake::start(FakeOptions { tamper, ..FakeOptions::default() });
        let load = WorkloadOptions {
            pattern: Pattern::RandomMix { read_percent: 50 },
            request_bytes: 8192,
            depth: 8,
            limit: Limit::Requests(80),
            warm_up: Duration::ZERO,
            region_blocks: None,
            interval: Duration::ZERO,
            seed,
            wait: Wait::Sleep(Duration::from_millis(100)),
        };
        match workload::bench(&options(&fake, Digests::default()), &load) {
            Ok(report) => {
                assert_eq!(report.operations(), 80, "seed {seed}");
                outcomes[0] += 1;
            }
            Err(HostError::Protocol(_) | HostError::Refused { .. } | HostError::Terminated { .. }) => outcomes[1] += 1,
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    // Bits that say nothing are passed over, those that say something are noticed.
    assert!(outcomes[0] > 20 && outcomes[1] > 60, "{outcomes:?}");
}

#[test]
fn a_target_that_ends_the_connection_is_quoted() {
    let tamper: Tamper = Arc::new(|kind, nth, bytes| {
        if kind == kind::RESPONSE && nth == 2 {
            let mut out = [0; 256];
            let length = pdu::term_req(&mut out, Direction::ToController, Fatal::field(4), &[1, 2, 3]);
            *bytes = out[..length].to_vec();
        }
    });
    let fake = Fake::start(FakeOptions { tamper, ..FakeOptions::default() });
    let ended = open(&fake, Digests::default(), 1).expect_err("ended by the target");
    assert!(matches!(ended, HostError::Terminated { status: 1, information: 4 }), "{ended}");
}

#[test]
fn digests_that_do_not_match_are_noticed() {
    type Change = fn(u8, usize, &mut Vec<u8>);
    let header: Change = |kind, nth, bytes| {
        if kind == kind::C2H_DATA && nth == 1 {
            bytes[24] ^= 1
        }
    };
    let data: Change = |kind, nth, bytes| {
        if kind == kind::C2H_DATA && nth == 1 {
            *bytes.last_mut().expect("data") ^= 1
        }
    };
    let content: Change = |kind, nth, bytes| {
        if kind == kind::C2H_DATA && nth == 1 {
            bytes[100] ^= 1
        }
    };
    for (tamper, of_header) in [(header, true), (data, false), (content, false)] {
        let fake = Fake::start(FakeOptions { tamper: Arc::new(tamper), ..FakeOptions::default() });
        match open(&fake, BOTH, 1).map(|_| ()) {
            Err(HostError::Protocol(Violation::HeaderDigest { .. })) if of_header => {}
            Err(HostError::Protocol(Violation::DataDigest { .. })) if !of_header => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_connection_that_ends_within_a_reply_is_lost() {
    for digests in [Digests::default(), BOTH] {
        let head = 24 + digests.header_bytes();
        for cut in (1..=head + 1).chain([1000, head + BLOCK - 1]) {
            let tamper: Tamper = Arc::new(move |kind, _, bytes| {
                if kind == kind::C2H_DATA {
                    bytes.truncate(cut);
                }
            });
            let fake = Fake::start(FakeOptions { tamper, ..FakeOptions::default() });
            let lost = open(&fake, digests, 1).expect_err("Identify is cut off");
            assert!(matches!(lost, HostError::Lost(_)), "cut at {cut}: {lost}");
        }
    }
}

#[test]
fn keep_alives_are_sent_when_due() {
    let fake = Fake::start(FakeOptions::default());
    let mut options = options(&fake, Digests::default());
    options.keep_alive = Duration::from_millis(2);
    let mut host = Host::connect(&options).expect("a good target");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fake.keep_alives() < 3 {
        host.keep_alive().expect("answered");
        assert!(Instant::now() < deadline, "Keep Alives come");
    }
    host.disconnect().expect("a good end, whatever is in flight");
}

#[test]
fn a_discovery_log_is_read_in_pieces() {
    let fake = Fake::start(FakeOptions::default());
    let identity = HostIdentity::from_id(base::uuid::Uuid::from_random([5, 6]));
    let entries = discover(fake.address, &identity, Digests::default()).expect("a good target");
    assert_eq!(entries.iter().map(|entry| entry.port_id).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(nvme::layout::text(&entries[19].subsystem_nqn), Some(NQN));
}

#[test]
fn a_load_counts_what_it_did() {
    let fake = Fake::start(FakeOptions::default());
    for pattern in ["randread", "randwrite", "read", "write", "randrw:50"] {
        let load = WorkloadOptions {
            pattern: pattern.parse().expect("a pattern"),
            request_bytes: 8192,
            depth: 16,
            limit: Limit::Requests(500),
            warm_up: Duration::ZERO,
            region_blocks: None,
            interval: Duration::ZERO,
            seed: 3,
            wait: Wait::Sleep(Duration::from_millis(100)),
        };
        let report = workload::bench(&options(&fake, Digests::default()), &load).expect("a good target");
        assert_eq!(report.operations(), 500, "{pattern}");
        match load.pattern {
            Pattern::RandomRead | Pattern::SequentialRead => assert_eq!(report.writes, 0),
            Pattern::RandomWrite | Pattern::SequentialWrite => assert_eq!(report.reads, 0),
            Pattern::RandomMix { .. } => assert!(report.reads > 150 && report.writes > 150),
        }
        assert!(report.latency(0.5) <= report.latency(0.99) && report.latency(0.99) <= report.longest_latency());
        assert!(report.iops() > 0.0 && report.bytes_per_second() > report.iops());
    }
    let timed = WorkloadOptions {
        pattern: Pattern::RandomRead,
        request_bytes: 4096,
        depth: 4,
        limit: Limit::Time(Duration::from_millis(50)),
        warm_up: Duration::from_millis(10),
        region_blocks: None,
        interval: Duration::ZERO,
        seed: 3,
        wait: Wait::Spin,
    };
    let report = workload::bench(&options(&fake, Digests::default()), &timed).expect("a good target");
    assert_eq!(report.elapsed, Duration::from_millis(50));
    assert!(report.operations() > 0);
    let (interval, limit) = (Duration::from_millis(1), Limit::Requests(20));
    let paced = WorkloadOptions { region_blocks: Some(16), interval, limit, warm_up: Duration::ZERO, ..timed };
    let report = workload::bench(&options(&fake, Digests::default()), &paced).expect("a good target");
    assert!(report.operations() == 20 && report.elapsed >= 19 * interval, "{:?}", report.elapsed);
    let odd = WorkloadOptions { request_bytes: 5000, ..timed };
    assert!(matches!(workload::bench(&options(&fake, BOTH), &odd), Err(HostError::Senseless(_))));
}

fn small_torture(queues: u16) -> TortureOptions {
    TortureOptions { queues, queue_depth: 16, max_blocks_per_io: 8, region_blocks: 200, ..TortureOptions::default() }
}

#[test]
fn a_target_that_keeps_its_word_passes_the_torture() {
    for queues in [1, 3] {
        let fake = Fake::start(FakeOptions::default());
        let mut torture = Torture::new(fake.address, NQN, 11, small_torture(queues)).expect("a good target");
        for round in 1..=4u64 {
            let mut killed = false;
            let end = torture.run_until(|progress| {
                if progress.writes_acknowledged >= round * 400 && !killed {
                    killed = true;
                    fake.kill();
                }
                false
            });
            assert!(matches!(end, Ok(End::Died(_))), "{end:?}");
            fake.revive();
            let report = torture.verify(|done, of| assert!(done <= of)).expect("it is back");
            assert_eq!((report.blocks, report.violations), (200, 0), "{:?}", report.kept);
        }
        let end = torture.run_until(|progress| progress.writes_acknowledged >= 2000).expect("alive");
        assert!(matches!(end, End::Stopped));
        // Writes that overlapped in flight may have landed in either order; a verification settles that.
        torture.verify(|_, _| {}).expect("alive");
        assert_eq!(torture.verify(|_, _| {}).expect("alive").settled, 0);
        let progress = *torture.progress();
        assert_eq!((progress.deaths, progress.violations, progress.in_flight), (4, 0, 0));
        assert!(progress.lost_in_flight > 0 && progress.reads_checked > 0);
        torture.disconnect().expect("a good end");
    }
}

#[test]
fn a_target_that_forgets_an_acknowledged_write_is_caught() {
    let fake = Fake::start(FakeOptions { forgetful: true, ..FakeOptions::default() });
    let mut torture = Torture::new(fake.address, NQN, 12, small_torture(1)).expect("a good target");
    let end = torture.run_until(|progress| {
        if progress.writes_acknowledged >= 300 {
            fake.kill();
        }
        false
    });
    assert!(matches!(end, Ok(End::Died(_))), "{end:?}");
    fake.revive();
    let report = torture.verify(|_, _| {}).expect("it is back");
    assert!(report.violations > 0);
    let caught = report.kept.first().expect("the first violations are kept");
    assert!(caught.expected.iter().all(|value| matches!(value, Value::Written(_) | Value::Zero)), "{caught}");
    assert!(matches!(caught.found, Some(Content::Stamped(_) | Content::Zero)), "{caught}");
}

#[test]
fn senseless_tortures_are_refused() {
    let fake = Fake::start(FakeOptions::default());
    for options in [
        TortureOptions { queue_depth: 0, ..small_torture(1) },
        TortureOptions { max_blocks_per_io: 257, region_blocks: 2000, ..small_torture(1) },
        TortureOptions { max_blocks_per_io: 8, region_blocks: 4, ..small_torture(1) },
        TortureOptions { read_percent: 99, zeroes_percent: 2, ..small_torture(1) },
    ] {
        let refused = Torture::new(fake.address, NQN, 1, options);
        assert!(matches!(refused, Err(HostError::Excessive { .. } | HostError::Senseless(_))), "{options:?}");
    }
}
