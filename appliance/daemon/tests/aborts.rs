//! Abort over real sockets: what was aborted says so and never appears, what was not is there.

mod appliance;

use std::time::Instant;

use appliance::{BLOCK, Client, Place, SOON, with};
use loadgen::io_queue::Operation;
use loadgen::request::Wait;
use nvme::status::Status;

#[test]
fn an_aborted_write_says_so_and_never_appears_and_another_is_there() {
    let place = Place::new("abort");
    // Two reactors: the admin queue and the I/O queue may live on different ones.
    let server = place.serve(&with(&[("count: 1,", "count: 2,"), ("lanes: 1}", "lanes: 2}")]), &[]);
    let mut client = Client::connect(&server);
    let (begun, mut aborted, mut old) = (Instant::now(), 0, 1);
    client.write(0, 16, old);
    for round in 0..100u8 {
        let new = 2 + round;
        let slot = client.queue.hold().unwrap();
        // Too long for a capsule: its data is asked for, and does not leave before the next poll.
        client.queue.buffer_mut(slot)[..16 * BLOCK].fill(new);
        client.queue.submit(slot, Operation::Write { lba: 0, blocks: 16 }).unwrap();
        client.queue.poll(Wait::Spin).unwrap();
        let abort = client.host.begin_abort(1, slot).unwrap();
        let status = client.ended();
        let was_aborted = client.host.end_abort(abort).unwrap();
        assert_eq!(was_aborted, status == Status::ABORT_REQUESTED, "{status:?}");
        assert!(was_aborted || status.is_success(), "{status:?}");
        aborted += u32::from(was_aborted);
        old = if was_aborted { old } else { new };
        assert!((0..16).all(|lba| client.holds(lba, old)), "round {round}: {status:?}");
        if aborted > 3 {
            break;
        }
        assert!(begun.elapsed() < SOON, "no write is ever aborted");
    }
    assert!(aborted > 0, "no write is ever aborted");
    let slot = client.queue.hold().unwrap();
    let abort = client.host.begin_abort(1, slot).unwrap();
    assert!(!client.host.end_abort(abort).unwrap(), "nothing of that name is under way");
    client.queue.release(slot);
    server.stop();
}
