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
