//! Hosts killed at any moment, again and again, from the same address and port: an oracle of bytes. What each connection
//! receives is its own and whole, what the volumes hold stays as it was given to them, and whatever has gone home is poisoned:
//! a byte of a killed connection that reached a later one, or a buffer that was used too early, would show.

use std::collections::BTreeMap;

use super::fake::{Got, HOST, Host, Rig, io_entry};
use super::*;

/// Blocks that are written and read.
const BLOCKS: u64 = 48;
/// Blocks of a command at most.
const MOST: u64 = 6;

/// What a connection writes to a block: every byte follows from both.
fn stamp(lba: u64, connection: u64) -> Vec<u8> {
    let first = (lba * 64 + connection + 1).to_le_bytes();
    (0..BLOCK).map(|at| first[at % 8] ^ (at / 8) as u8).collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }
}

/// What was asked on a connection, by CID.
#[derive(Clone, Copy, Debug)]
struct Asked {
    is_read: bool,
    lba: u64,
    blocks: u64,
}

struct Session {
    number: u64,
    host: Host,
    asked: BTreeMap<u16, Asked>,
    next_cid: u16,
    reading: Option<(u16, Vec<u8>)>,
}

impl Session {
    /// Connects on two streams from the one address that all of them have, while older commands may still be under way.
    fn open(rig: &mut Rig, number: u64, random: &mut Random) -> Self {
        let digests = if random.below(2) == 0 { NONE } else { BOTH };
        let (_admin, controller) = Host::admin(rig, 2 * number + 1, digests);
        let host = Host::queue(rig, 2 * number + 2, 1, controller, digests);
        Self { number, host, asked: BTreeMap::new(), next_cid: 0, reading: None }
    }

    fn ask(&mut self, rig: &mut Rig, random: &mut Random) {
        let blocks = 1 + random.below(MOST);
        let lba = random.below(BLOCKS - blocks);
        let cid = self.next_cid;
        self.next_cid += 1;
        let is_read = random.below(2) == 0;
        let inside = !is_read && blocks <= 2;
        self.asked.insert(cid, Asked { is_read, lba, blocks });
        let data: Vec<u8> = (lba..lba + blocks).flat_map(|lba| stamp(lba, self.number)).collect();
        let opcode = if is_read { opcode::READ } else { opcode::WRITE };
        let entry = io_entry(opcode, cid, lba, blocks as u32, inside);
        self.host.command(rig, entry, if inside { &data } else { &[] });
    }

    /// Takes what has come: nothing that was not asked for here, and no byte that no connection wrote there.
    fn take(&mut self, rig: &mut Rig, random: &mut Random) {
        for got in self.host.received(rig) {
            match got {
                Got::Ask(ask) => {
                    let Asked { is_read, lba, blocks } = self.asked[&ask.cid];
                    assert!(!is_read, "data is asked for what is written");
                    let data: Vec<u8> = (lba..lba + blocks).flat_map(|lba| stamp(lba, self.number)).collect();
                    let portion = 1 + random.below(2 * BLOCK as u64) as usize;
                    self.host.host_data(rig, &ask, &data, portion);
                }
                Got::Data(data, bytes) => self.reading = Some((data.cid, bytes)),
                Got::Response(response) => {
                    let asked = self.asked.remove(&response.cid).expect("a command of this connection, answered once");
                    assert_eq!(response.status.status, Status::SUCCESS);
                    if asked.is_read {
                        let (cid, bytes) = self.reading.take().expect("data first");
                        assert_eq!((cid, bytes.len() as u64), (response.cid, asked.blocks * BLOCK as u64));
                        for (lba, block) in (asked.lba..).zip(bytes.chunks_exact(BLOCK)) {
                            let is_known = (0..=self.number).any(|writer| block == stamp(lba, writer));
                            assert!(is_known || block.iter().all(|&byte| byte == 0), "block {lba} holds other bytes");
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn killed_at_any_moment_no_byte_reaches_a_later_connection_and_no_buffer_is_used_early() {
    let mut killed_with_work = 0;
    for seed in 1..60u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut rig = Rig::new(1024);
        rig.ports.poisons = true;
        for number in 0..6 {
            rig.ports.portion = usize::MAX;
            let mut session = Session::open(&mut rig, number, &mut random);
            rig.ports.portion = [64, 1000, 5000, usize::MAX][random.below(4) as usize];
            for _ in 0..random.below(30) {
                if session.asked.len() < 16 {
                    session.ask(&mut rig, &mut random);
                }
                for _ in 0..random.below(6) {
                    rig.turn();
                }
                rig.io.shuffle(random.below(64) as usize);
                for _ in 0..random.below(4) {
                    if let Some(done) = rig.io.end_one(&mut rig.ports) {
                        rig.front.io_done(&mut rig.ports, done);
                    }
                }
                session.take(&mut rig, &mut random);
            }
            killed_with_work += u32::from(!session.asked.is_empty());
            let kill = Kill { ticket: 1, selector: Selector::Host(HOST.into()), block: None, cause: Cause::Operator };
            rig.front.message(&mut rig.ports, ShardId(1), FrontMessage::Kill(Box::new(kill)));
            rig.turn();
            assert!(rig.is_closed(2 * number + 1) && rig.is_closed(2 * number + 2));
            let sent = rig.stream(2 * number + 2).outbound.len();
            for _ in 0..random.below(20) {
                rig.turn();
            }
            assert_eq!(rig.stream(2 * number + 2).outbound.len(), sent, "nothing is sent on what is killed");
        }
        rig.ports.portion = usize::MAX;
        rig.end();
    }
    assert!(killed_with_work > 100, "{killed_with_work}");
}
