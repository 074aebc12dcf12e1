//! Tests of the rack: queues, faults, power and the order of completions.

use super::*;
use base::time::Time;
use journal::anchor;

const OPTIONS: DeviceOptions = DeviceOptions {
    blocks: 16,
    volatile_cache: true,
    queue_depth: 2,
    slow_once_in: 40,
    used: false,
    hiccup_once_in: 0,
    rots_once_in: 0,
    whole_blocks: false,
    holds_log: false,
};
const ONES: &Block = &[1; base::BLOCK];

fn submit(rack: &mut Rack, tag: u64, op: DeviceOp, buffers: &[BufferId]) -> Result<(), QueueFull> {
    let request = DeviceRequest { tag, device: DeviceId(0), op, start: DeviceBlock(0), buffers };
    rack.submit(ShardId(0), &request, |_| ONES)
}

fn finish(rack: &mut Rack) -> Vec<(u64, Result<(), DeviceError>)> {
    let mut ended = Vec::new();
    while rack.in_flight() > 0 {
        rack.clock.advance(rack.clock.next_due().expect("what is in flight becomes due"));
        while let Some(finished) = rack.finish_due() {
            ended.push((finished.tag, finished.result));
        }
    }
    ended
}

#[test]
fn a_full_queue_refuses_and_takes_again_later() {
    let mut rack = Rack::new(1, &[OPTIONS], Trace::default());
    assert_eq!(submit(&mut rack, 1, DeviceOp::Write, &[BufferId(0)]), Ok(()));
    assert_eq!(submit(&mut rack, 2, DeviceOp::Read, &[BufferId(1)]), Ok(()));
    assert_eq!(submit(&mut rack, 3, DeviceOp::Flush, &[]), Err(QueueFull));
    assert_eq!(finish(&mut rack).len(), 2);
    assert_eq!(submit(&mut rack, 3, DeviceOp::Flush, &[]), Ok(()));
    assert_eq!(rack.effects(), 2, "a read is no effect, a refused request neither");
}

#[test]
fn a_lost_device_ends_every_request_with_an_error_and_returns_only_if_it_was_said() {
    for returns in [false, true] {
        let mut rack = Rack::new(1, &[OPTIONS], Trace::default());
        rack.plan(vec![PlannedFault { effect: 2, fault: Fault::Lost { device: DeviceId(0), returns } }]);
        submit(&mut rack, 1, DeviceOp::WriteDurable, &[BufferId(0)]).expect("room");
        assert_eq!(finish(&mut rack), [(1, Ok(()))]);
        submit(&mut rack, 2, DeviceOp::Write, &[BufferId(0)]).expect("room");
        submit(&mut rack, 3, DeviceOp::Read, &[BufferId(0)]).expect("room");
        let mut ended = finish(&mut rack);
        ended.sort_unstable_by_key(|&(tag, _)| tag);
        assert_eq!(ended, [(2, Err(DeviceError::Gone)), (3, Err(DeviceError::Gone))]);
        rack.cut_power();
        rack.restore_power();
        assert_eq!(rack.works(DeviceId(0)), returns);
        assert_eq!(rack.peek(DeviceId(0), DeviceBlock(0)), ONES, "what was durable is still on it");
    }
}

#[test]
fn a_power_cut_in_start_up_answers_gone_until_power_is_restored() {
    let mut rack = Rack::new(1, &[OPTIONS], Trace::default());
    rack.plan(vec![PlannedFault { effect: 2, fault: Fault::PowerCut }]);
    let run = || Run { start: DeviceBlock(3), blocks: vec![content_of(ONES)] };
    assert_eq!(rack.write_now(DeviceId(0), run()), Ok(()));
    assert_eq!(rack.flush_now(DeviceId(0)), Err(DeviceError::Gone));
    assert!(!rack.powered());
    let mut block = [[0; base::BLOCK]];
    assert_eq!(rack.read_now(DeviceId(0), DeviceBlock(3), &mut block), Err(DeviceError::Gone));
    rack.restore_power();
    assert_eq!(rack.write_now(DeviceId(0), run()), Ok(()));
    assert_eq!(rack.flush_now(DeviceId(0)), Ok(()));
    rack.cut_power();
    rack.restore_power();
    assert_eq!(rack.read_now(DeviceId(0), DeviceBlock(3), &mut block), Ok(()));
    assert_eq!(&block[0], ONES);
}

#[test]
fn the_power_fails_once_so_much_is_written_behind_an_anchor_in_flight() {
    for blocks in 1..4 {
        let mut rack = Rack::new(1, &[DeviceOptions { queue_depth: 8, ..OPTIONS }], Trace::default());
        let fault = Fault::PowerCutBehind { landmark: Landmark::Anchor, blocks };
        rack.plan(vec![PlannedFault { effect: 1, fault }]);
        let mut landmark = [0; base::BLOCK];
        landmark[..8].copy_from_slice(&anchor::MAGIC);
        let write = |rack: &mut Rack, content: &Block| {
            let (op, start) = (DeviceOp::WriteDurable, DeviceBlock(0));
            let request = DeviceRequest { tag: 1, device: DeviceId(0), op, start, buffers: &[BufferId(0)] };
            rack.submit(ShardId(0), &request, |_| content).expect("room");
            rack.powered()
        };
        assert!(write(&mut rack, ONES) && write(&mut rack, &landmark));
        finish(&mut rack);
        assert!(write(&mut rack, ONES) && write(&mut rack, ONES) && write(&mut rack, ONES), "no anchor in flight");
        assert!(write(&mut rack, &landmark));
        for behind in 1..=blocks {
            assert_eq!(write(&mut rack, ONES), behind < blocks);
        }
    }
}

#[test]
fn completions_come_in_any_order_and_only_in_their_time() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let mut rack = Rack::new(seed, &[OPTIONS], Trace::default());
        submit(&mut rack, 1, DeviceOp::Write, &[BufferId(0)]).expect("room");
        submit(&mut rack, 2, DeviceOp::Write, &[BufferId(0)]).expect("room");
        assert!(rack.finish_due().is_none(), "nothing ends before time moves");
        assert!(rack.clock.next_due() > Some(Time(0)));
        orders.insert(finish(&mut rack).iter().map(|&(tag, _)| tag).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 2);
}

#[test]
fn a_device_that_hangs_answers_late_or_not_until_the_power_was_off() {
    for (span, answers) in [(Span::from_millis(50), true), (Span(u64::MAX), false)] {
        let mut rack = Rack::new(1, &[OPTIONS], Trace::default());
        rack.plan(vec![PlannedFault { effect: 1, fault: Fault::Hang { device: DeviceId(0), span } }]);
        assert_eq!(submit(&mut rack, 7, DeviceOp::Write, &[BufferId(3), BufferId(3)]), Ok(()));
        rack.clock.advance(Time(0) + Span::from_millis(10));
        assert!(rack.finish_due().is_none());
        assert_eq!(rack.buffers_in_flight(ShardId(0)), 1);
        rack.clock.advance(Time(0) + Span::from_millis(60));
        assert_eq!(rack.finish_due().is_some_and(|finished| finished.result.is_ok()), answers);
        assert_eq!(rack.flush_now(DeviceId(0)), Ok(()), "start-up code finds it working");
        rack.forget_flights();
        assert_eq!((rack.in_flight(), rack.buffers_in_flight(ShardId(0))), (0, 0));
    }
}
