//! What is given up, what is held meanwhile, what is tried again.

use super::*;
use ports::QueueFull;

const LOG: DeviceId = DeviceId(3);
const MEMBER: DeviceId = DeviceId(0);

/// Devices that take so many requests of each kind.
struct Taking(usize);

impl Devices for Taking {
    fn submit(&mut self, _: DeviceRequest<'_>) -> Result<(), QueueFull> {
        self.0 = self.0.checked_sub(1).ok_or(QueueFull)?;
        Ok(())
    }

    fn completion(&mut self) -> Option<Completion> {
        None
    }
}

fn write(operations: &mut Operations<&'static str>, devices: &mut Taking, device: DeviceId, name: &'static str) {
    let buffer = BufferId(name.len() as u32);
    operations.start(devices, (device, DeviceBlock(1)), DeviceOp::WriteDurable, [buffer], name);
}

fn answer(operations: &mut Operations<&'static str>, tag: u64) -> Option<&'static str> {
    operations.complete(Completion { tag, result: Ok(()) }).expect("it was not tried again").purpose
}

#[test]
fn what_a_watched_device_does_not_answer_in_time_is_given_up_and_its_buffers_held_until_it_does() {
    let (mut operations, mut devices) = (Operations::new(4), Taking(4));
    operations.watch(LOG, Span::from_secs(1));
    operations.set_time(Time(5));
    write(&mut operations, &mut devices, LOG, "1");
    write(&mut operations, &mut devices, MEMBER, "22");
    assert_eq!((operations.overdue(), operations.deadline()), (None, Time(5) + Span::from_secs(1)));
    operations.set_time(Time(6));
    write(&mut operations, &mut devices, LOG, "333");
    operations.set_time(Time(5) + Span::from_secs(1));
    assert_eq!(operations.overdue(), Some(LOG));
    assert_eq!(answer(&mut operations, 0), Some("1"), "it did in the last moment");
    assert_eq!(operations.overdue(), None);
    operations.set_time(Time(6) + Span::from_secs(1));
    assert_eq!(operations.overdue(), Some(LOG));
    assert_eq!((operations.give_up(LOG), operations.give_up(LOG)), (Some("333"), None));
    assert_eq!(operations.overdue(), Some(LOG), "it still owes an answer");
    operations.overdue_is_told(LOG);
    assert_eq!((operations.overdue(), operations.deadline()), (None, Time::NEVER));
    assert!(operations.is_held(BufferId(3)) && !operations.is_held(BufferId(2)));
    assert!(!operations.is_idle());
    assert_eq!(answer(&mut operations, 1), Some("22"));
    assert!(operations.is_idle(), "what was given up does not count");
    let before = operations.let_go();
    assert_eq!(answer(&mut operations, 2), None);
    assert!(operations.let_go() > before && !operations.is_held(BufferId(3)));
    assert_eq!(operations.available(), 4);
}

#[test]
fn an_error_that_may_pass_is_tried_again_so_often_and_no_other_is() {
    let ends_after = |op, error| {
        let (mut operations, mut devices) = (Operations::new(1), Taking(10));
        operations.start(&mut devices, (LOG, DeviceBlock(1)), op, None, "it");
        let mut tries = 1;
        while let Err(device) = operations.complete(Completion { tag: 0, result: Err(error) }) {
            assert_eq!((device, operations.available()), (LOG, 0));
            operations.retry(&mut devices);
            tries += 1;
        }
        assert_eq!((operations.available(), devices.0), (1, 10 - tries));
        tries
    };
    for (op, tries) in [(DeviceOp::Read, 3), (DeviceOp::Write, 2), (DeviceOp::WriteDurable, 2), (DeviceOp::Flush, 1)] {
        assert_eq!(ends_after(op, DeviceError::Other(4)), tries, "{op:?}");
        for error in [DeviceError::Gone, DeviceError::Unreadable, DeviceError::NoSpace] {
            assert_eq!(ends_after(op, error), 1, "{op:?} {error:?}");
        }
    }
}

#[test]
fn what_waits_for_a_full_queue_was_never_seen_by_the_device_and_holds_nothing() {
    let (mut operations, mut devices) = (Operations::new(4), Taking(1));
    operations.watch(LOG, Span::from_secs(1));
    write(&mut operations, &mut devices, LOG, "1");
    write(&mut operations, &mut devices, LOG, "22");
    write(&mut operations, &mut devices, MEMBER, "333");
    assert_eq!(operations.give_up(LOG), Some("22"));
    assert!(!operations.is_held(BufferId(2)));
    assert_eq!((operations.give_up(LOG), operations.give_up(LOG)), (Some("1"), None));
    assert_eq!(operations.available(), 2);
    devices.0 = 1;
    operations.retry(&mut devices);
    assert_eq!(answer(&mut operations, 2), Some("333"));
}

#[test]
fn an_urgent_read_is_late_before_its_device_is_overdue_and_counts_until_it_is_answered() {
    let (mut operations, mut devices) = (Operations::new(4), Taking(4));
    let (read, all) = (Span::from_millis(10), Span::from_millis(100));
    operations.watch_closely(MEMBER, all, Some(read));
    operations.start(&mut devices, (MEMBER, DeviceBlock(1)), DeviceOp::Read, [BufferId(7)], "patient");
    operations.set_time(Time(1));
    operations.start_urgent(&mut devices, (MEMBER, DeviceBlock(1)), [BufferId(8)], "urgent");
    operations.start_urgent(&mut devices, (MEMBER, DeviceBlock(2)), [BufferId(9)], "alone");
    assert_eq!((operations.late(), operations.deadline()), (None, Time(1) + read));
    operations.set_time(Time(1) + read);
    assert_eq!(operations.late(), Some((1, MEMBER, &"urgent")));
    assert_eq!(operations.give_up_one(1), "urgent");
    assert!(operations.is_held(BufferId(8)) && operations.owes(MEMBER));
    assert!(!operations.is_writing(MEMBER), "what is read changes nothing there");
    assert_eq!(operations.late(), Some((2, MEMBER, &"alone")));
    operations.let_wait(2);
    assert_eq!((operations.late(), operations.deadline()), (None, Time(0) + all));
    // The patient one is answered; the other two still make it overdue.
    assert_eq!(answer(&mut operations, 0), Some("patient"));
    assert_eq!((operations.overdue(), operations.deadline()), (None, Time(1) + all));
    operations.set_time(Time(1) + all);
    assert_eq!(operations.overdue(), Some(MEMBER));
    operations.overdue_is_told(MEMBER);
    assert_eq!((operations.overdue(), operations.deadline(), operations.answers_again()), (None, Time::NEVER, None));
    assert_eq!(answer(&mut operations, 1), None);
    assert!(!operations.owes(MEMBER) && !operations.is_held(BufferId(8)));
    assert_eq!(operations.answers_again(), None, "it has had another for as long");
    assert_eq!(answer(&mut operations, 2), Some("alone"));
    assert_eq!((operations.answers_again(), operations.answers_again()), (Some(MEMBER), None));
    assert!(operations.is_idle());
}

#[test]
fn what_devices_owe_is_told_by_device_until_it_is_answered() {
    let (mut operations, mut devices) = (Operations::new(4), Taking(10));
    let owed = |operations: &Operations<&str>, now| -> Vec<_> {
        let owed = operations.owed(Time(now));
        owed.map(|(device, owed)| (device, owed.operations, owed.given_up, owed.oldest.0, owed.is_overdue)).collect()
    };
    operations.watch(MEMBER, Span(100));
    operations.set_time(Time(10));
    write(&mut operations, &mut devices, MEMBER, "1");
    write(&mut operations, &mut devices, LOG, "22");
    operations.set_time(Time(30));
    write(&mut operations, &mut devices, MEMBER, "333");
    assert_eq!(owed(&operations, 40), [(MEMBER, 2, 0, 30, false)], "nobody watches the other");
    operations.set_time(Time(110));
    operations.overdue_is_told(MEMBER);
    assert_eq!(operations.give_up(MEMBER), Some("1"));
    operations.unwatch(MEMBER);
    assert_eq!(owed(&operations, 120), [(MEMBER, 2, 1, 110, false)], "also when it is out");
    for tag in 0..3 {
        answer(&mut operations, tag);
    }
    assert_eq!(owed(&operations, 130), []);
}

#[test]
fn a_device_whose_queue_is_full_does_not_hold_up_the_others() {
    /// Takes nothing of one device.
    struct Full(DeviceId, Vec<DeviceId>);

    impl Devices for Full {
        fn submit(&mut self, request: DeviceRequest<'_>) -> Result<(), QueueFull> {
            if request.device == self.0 {
                return Err(QueueFull);
            }
            self.1.push(request.device);
            Ok(())
        }

        fn completion(&mut self) -> Option<Completion> {
            None
        }
    }
    let (mut operations, mut devices) = (Operations::new(4), Full(MEMBER, Vec::new()));
    for device in [MEMBER, LOG, MEMBER, LOG] {
        operations.start(&mut devices, (device, DeviceBlock(1)), DeviceOp::Flush, None, "it");
    }
    operations.retry(&mut devices);
    assert_eq!(devices.1, [LOG, LOG]);
    devices.0 = DeviceId(9);
    operations.retry(&mut devices);
    assert_eq!(devices.1, [LOG, LOG, MEMBER, MEMBER]);
}
