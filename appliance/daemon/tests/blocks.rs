//! What hosts may ask of blocks beside reads and writes, of the built binary over a socket, and what is left of it after a
//! death.

mod appliance;

use appliance::{CONFIG, Client, Place};
use nvme::status::Status;

#[test]
fn what_was_discarded_reads_as_zeros_also_after_a_death() {
    let place = Place::new("blocks-discard");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    let blocks = client.namespace.blocks;
    for lba in (0..blocks).step_by(32) {
        client.write(lba, 32, 0x77);
    }
    assert_eq!(client.discard(&[(3, 2), (64, 0), (100, 200)]), Status::SUCCESS);
    let is_discarded = |lba: u64| (3..5).contains(&lba) || (100..300).contains(&lba);
    let check = |client: &mut Client| {
        for lba in [0, 2, 3, 4, 5, 64, 99, 100, 101, 163, 164, 298, 299, 300, blocks - 1] {
            assert!(client.holds(lba, if is_discarded(lba) { 0 } else { 0x77 }), "block {lba}");
        }
    };
    check(&mut client);
    server.kill();

    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    check(&mut client);
    server.stop();

    // From the members alone.
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    check(&mut client);
    assert_eq!(client.discard(&[(0, 1), (blocks, 1)]), Status::LBA_OUT_OF_RANGE.do_not_retry());
    assert_eq!(client.discard(&[(0, 1), (0, u32::MAX)]), Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
    check(&mut client);
    assert_eq!(client.discard(&[(0, blocks as u32)]), Status::SUCCESS);
    client.write(7, 1, 0x11);
    assert!(client.holds(7, 0x11) && client.holds(0, 0) && client.holds(8, 0) && client.holds(blocks - 1, 0));
    server.stop();
}

#[test]
fn of_hosts_that_compare_and_write_one_wins_each_time() {
    const FAILED: (Status, Status) = (Status::COMPARE_FAILURE.do_not_retry(), Status::ABORTED_FAILED_FUSED);
    const DONE: (Status, Status) = (Status::SUCCESS, Status::SUCCESS);
    let place = Place::new("blocks-compare");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(16, 16, 1);
    assert_eq!(client.compare_and_write(16, 16, 1, 2), DONE, "a whole chunk, whose data is asked for");
    assert_eq!(client.compare_and_write(16, 16, 1, 3), FAILED);
    assert_eq!(client.compare_and_write(20, 2, 2, 3), DONE, "in the capsules");
    assert!(client.holds(19, 2) && client.holds(20, 3) && client.holds(21, 3) && client.holds(22, 2));
    let exceeded = Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry();
    assert_eq!(client.compare_and_write(31, 2, 2, 3), (exceeded, exceeded), "across a boundary");
    server.kill();

    // Each of several hosts counts up a block by compare and write, many at a time: every number is reached once.
    let server = place.serve(CONFIG, &[]);
    let mut hosts: Vec<Client> = (0..4).map(|_| Client::connect(&server)).collect();
    assert!(hosts[0].holds(20, 3) && hosts[0].holds(16, 2));
    hosts[0].write(0, 1, 0);
    let wins: usize = std::thread::scope(|scope| {
        let count = |client: &mut Client| {
            (0..100u8).filter(|&from| client.compare_and_write(0, 1, from, from + 1) == DONE).count()
        };
        let counting: Vec<_> = hosts.iter_mut().map(|client| scope.spawn(move || count(client))).collect();
        counting.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let reached = (0..=100u8).find(|&byte| hosts[0].holds(0, byte)).unwrap();
    assert_eq!(wins, usize::from(reached));
    server.stop();
}
