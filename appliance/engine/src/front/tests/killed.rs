//! Kills: whole associations end, at once for their hosts, and completely before a host may come back.

use super::fake::{HOST, Host, Rig, io_entry, pattern};
use super::*;
use crate::fence::Association;

const OTHER: &str = "nqn.2014-08.org.example:other";

fn kill(rig: &mut Rig, selector: Selector, block: Option<Span>) {
    let kill = Kill { ticket: 77, selector, block, cause: Cause::Operator };
    let control = ShardId(rig.ports.shards);
    rig.front.message(&mut rig.ports, control, FrontMessage::Kill(Box::new(kill)));
}

/// What the control side was told, if it was.
fn told(rig: &mut Rig) -> Option<Killed> {
    rig.turn();
    let at = rig.ports.posted.iter().position(|(to, _)| to.0 == rig.ports.shards)?;
    match rig.ports.posted.remove(at) {
        Some((_, Message::Front(FrontMessage::Killed(killed)))) => Some(*killed),
        other => panic!("{other:?}"),
    }
}

/// A host with a write at the volumes, which does not end by itself: admin on stream 1, I/O on stream 2.
fn working(rig: &mut Rig) -> Host {
    let (_admin, controller) = Host::admin(rig, 1, NONE);
    let host = Host::queue(rig, 2, 1, controller, NONE);
    host.command(rig, io_entry(opcode::WRITE, 1, 0, 2, true), &pattern(1, 2 * BLOCK));
    rig.turn();
    rig.turn();
    assert_eq!(rig.io.requests.len(), 1);
    host
}

/// Sends a Connect for an admin queue, ending nothing at the volumes; its status, if it was answered.
fn connect(rig: &mut Rig, host: &mut Host, name: &str) -> Option<Status> {
    send_connect(rig, host, name);
    answered(rig, host)
}

fn send_connect(rig: &mut Rig, host: &Host, name: &str) {
    let connect = fabrics::Connect { format: 0, queue_id: 0, last_entry: 31, attributes: 0, keep_alive_ms: 5000 };
    let data = fabrics::ConnectData {
        host_id: [7; 16],
        controller_id: 0xffff,
        subsystem_nqn: nvme::layout::null_padded(fake::NQN),
        host_nqn: nvme::layout::null_padded(name),
    };
    host.command(rig, connect.to_entry(1), &data.encode());
}

fn answered(rig: &mut Rig, host: &mut Host) -> Option<Status> {
    for _ in 0..8 {
        rig.turn();
    }
    host.received(rig).first().map(status)
}

/// Opens a stream without ending anything at the volumes.
fn open(rig: &mut Rig, id: u64) -> Host {
    let requests = core::mem::take(&mut rig.io.requests);
    let host = Host::open(rig, id, NONE);
    rig.io.requests = requests;
    host
}

#[test]
fn a_kill_resets_all_queues_at_once_and_its_host_comes_back_when_all_has_ended() {
    let mut rig = Rig::new(1024);
    let mut later = Host::open(&mut rig, 5, NONE);
    let mut other = Host::open(&mut rig, 6, NONE);
    working(&mut rig);
    let number = rig.front.connections(rig.ports.now).iter().find(|one| one.queue == 1).expect("the I/O queue").id;
    kill(&mut rig, Selector::Connections(vec![number]), None);
    assert_eq!(told(&mut rig), None, "a write is at the volumes");
    assert_eq!((rig.stream(1).closed, rig.stream(2).closed), (Some(false), Some(false)), "both are reset");
    assert_eq!(connect(&mut rig, &mut later, HOST), None, "it waits");
    assert_eq!(connect(&mut rig, &mut other, OTHER), Some(Status::SUCCESS), "nobody else does");
    rig.end_requests();
    assert_eq!(answered(&mut rig, &mut later), Some(Status::SUCCESS));
    assert_eq!(told(&mut rig), Some(Killed { ticket: 77, shard: ShardId(0), connections: 1 }));
    let ended = rig.front.ended(rig.ports.now);
    assert!(ended.len() == 2 && ended.iter().all(|one| one.last_error.as_deref() == Some(Cause::Operator.text())));
    assert_eq!(rig.front.hub.metrics().connections_killed[base::metrics::KillCause::Operator as usize].get(), 2);
    rig.end();
}

#[test]
fn a_connect_that_waits_too_long_is_refused_as_busy_and_may_try_again() {
    let mut rig = Rig::new(1024);
    let mut later = Host::open(&mut rig, 5, NONE);
    working(&mut rig);
    kill(&mut rig, Selector::Host(HOST.into()), None);
    assert_eq!(connect(&mut rig, &mut later, HOST), None);
    rig.pass(Span::from_millis(1900));
    assert_eq!(answered(&mut rig, &mut later), None);
    rig.pass(Span::from_millis(400));
    assert_eq!(answered(&mut rig, &mut later), Some(Status::CONNECT_CONTROLLER_BUSY), "without Do Not Retry");
    assert_eq!(connect(&mut rig, &mut later, HOST), None);
    rig.end_requests();
    assert_eq!(answered(&mut rig, &mut later), Some(Status::SUCCESS));
    rig.end();
}

#[test]
fn a_blocked_host_is_refused_for_its_time_and_other_selectors_choose_what_they_say() {
    let mut rig = Rig::new(1024);
    let (_admin, _) = Host::admin(&mut rig, 1, NONE);
    let peer = rig.front.connections(rig.ports.now)[0].peer;
    for nobody in [
        Selector::Host(OTHER.into()),
        Selector::Target("nqn.none".into()),
        Selector::Peer(peer.ip(), Some(peer.port().wrapping_add(1))),
        Selector::Local("203.0.113.9".parse().expect("an address"), None),
        Selector::Connections(vec![1]),
        Selector::Idle(Span::from_secs(1)),
    ] {
        kill(&mut rig, nobody, None);
        assert_eq!(told(&mut rig).expect("nothing to wait for").connections, 0);
    }
    assert!(!rig.is_closed(1));
    kill(&mut rig, Selector::Peer(peer.ip(), Some(peer.port())), Some(Span::from_secs(3)));
    assert_eq!(told(&mut rig).expect("nothing is under way").connections, 1);
    assert!(rig.is_closed(1));
    let mut later = Host::open(&mut rig, 2, NONE);
    assert_eq!(connect(&mut rig, &mut later, HOST), Some(Status::CONNECT_CONTROLLER_BUSY));
    rig.pass(Span::from_secs(3));
    assert_eq!(connect(&mut rig, &mut later, HOST), Some(Status::SUCCESS));
    rig.end();
}

#[test]
fn idle_is_who_asks_for_nothing_but_keep_alive() {
    let mut rig = Rig::new(1024);
    let (mut admin, _) = Host::admin(&mut rig, 1, NONE);
    for _ in 0..5 {
        rig.pass(Span::from_secs(2));
        let keep_alive = SubmissionEntry { opcode: opcode::KEEP_ALIVE, flags: 0x40, cid: 9, ..Default::default() };
        assert!(admin.ask(&mut rig, keep_alive, &[]).status.status.is_success());
    }
    kill(&mut rig, Selector::Idle(Span::from_secs(11)), None);
    assert_eq!(told(&mut rig).expect("at once").connections, 0);
    kill(&mut rig, Selector::Idle(Span::from_secs(9)), None);
    assert_eq!(told(&mut rig).expect("at once").connections, 1);
    assert!(rig.is_closed(1));
    rig.end();
}

#[test]
fn a_reset_is_complete_only_when_nothing_of_its_queues_is_under_way() {
    let mut rig = Rig::new(1024);
    let (mut admin, controller) = Host::admin(&mut rig, 1, NONE);
    let host = Host::queue(&mut rig, 2, 1, controller, NONE);
    host.command(&mut rig, io_entry(opcode::WRITE, 1, 0, 2, true), &pattern(1, 2 * BLOCK));
    rig.turn();
    rig.turn();
    let status = |rig: &mut Rig, admin: &mut Host| {
        admin.command(rig, fabrics::property_get(3, nvme::register::CSTS, false), &[]);
        for _ in 0..8 {
            rig.turn();
        }
        match admin.received(rig)[..] {
            [.., Got::Response(response)] => response.result,
            ref other => panic!("{other:?}"),
        }
    };
    admin.command(&mut rig, fabrics::property_set(2, nvme::register::CC, 0), &[]);
    assert_eq!(status(&mut rig, &mut admin), 1, "still ready: a write is at the volumes");
    assert!(rig.is_closed(2));
    rig.end_requests();
    rig.turn();
    assert_eq!(status(&mut rig, &mut admin), 0);
    rig.end();
}

#[test]
fn of_a_queue_on_another_shard_nothing_is_seen_before_its_home_has_raised_the_epoch() {
    let limits = FrontLimits { connections: 8, in_capsule_blocks: 512, data_blocks: 512 };
    let mut rigs = [Rig::with(0, 2, 1024, limits), Rig::with(1, 2, 1024, limits)];
    let (_admin, controller) = Host::admin(&mut rigs[1], 1, NONE);
    let host = open(&mut rigs[0], 3);
    let data = fabrics::ConnectData {
        host_id: [7; 16],
        controller_id: controller,
        subsystem_nqn: nvme::layout::null_padded(fake::NQN),
        host_nqn: nvme::layout::null_padded(HOST),
    };
    let connect = fabrics::Connect { format: 0, queue_id: 1, last_entry: 31, attributes: 0, keep_alive_ms: 0 };
    host.command(&mut rigs[0], connect.to_entry(1), &data.encode());
    exchange(&mut rigs);
    kill(&mut rigs[0], Selector::Host(HOST.into()), None);
    rigs[0].turn();
    assert!(!rigs[0].is_closed(3), "its home has not been told yet");
    let ends = |(to, message): &(ShardId, Message)| {
        let expected = Association { id: controller, epoch: 0 };
        *to == ShardId(1)
            && matches!(message, Message::Front(FrontMessage::End { association, .. }) if *association == expected)
    };
    assert!(rigs[0].ports.posted.iter().any(ends));
    exchange(&mut rigs);
    assert_eq!((rigs[0].stream(3).closed, rigs[1].stream(1).closed), (Some(false), Some(false)));
    // A queue that comes too late is told to try again, not that it was wrong.
    let mut late = open(&mut rigs[0], 4);
    late.command(&mut rigs[0], connect.to_entry(1), &data.encode());
    exchange(&mut rigs);
    assert_eq!(late.received(&mut rigs[0]).first().map(status), Some(Status::CONNECT_CONTROLLER_BUSY));
    for rig in rigs {
        rig.end();
    }
}
