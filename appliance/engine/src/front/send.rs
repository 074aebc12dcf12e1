//! Sending: everything that a connection has queued goes out in as few gathered sends as possible, heads and tails from
//! the commands, data from its blocks. A command ends here: when its reply has left, its blocks and its slot are free.

use nvmf::queue::SlotId;
use ports::{Buffers, MAX_STREAM_PIECES, Piece, Ports, Segment, StreamError};

use super::connection::{Command, Connection, Life, Out, Stage};
use super::hub::Hub;
use super::limits::{LINGER, SEND_BYTES, SENDS_A_TURN, SHORT_PIECES};

/// The pieces of a send under construction.
struct Pieces<'a, const N: usize> {
    pieces: [Piece<'a>; N],
    count: usize,
    /// Bytes at the start that have gone with an earlier send.
    skip: usize,
    offered: usize,
}

impl<'a, const N: usize> Pieces<'a, N> {
    fn put(&mut self, piece: Piece<'a>, length: usize) {
        if length > 0 {
            self.pieces[self.count] = piece;
            self.count += 1;
            self.offered += length;
        }
    }

    fn bytes(&mut self, bytes: &'a [u8]) {
        let gone = self.skip.min(bytes.len());
        self.skip -= gone;
        self.put(Piece::Bytes(&bytes[gone..]), bytes.len() - gone);
    }

    fn blocks(&mut self, pool: &impl Buffers, command: &Command) {
        let count = command.buffers.len();
        for (at, buffer) in command.buffers.ids(pool).enumerate() {
            let meant = command.io.margins.within(at, count);
            let gone = self.skip.min(meant.len());
            self.skip -= gone;
            let (offset, length) = (meant.start + gone, meant.len() - gone);
            self.put(Piece::Segment(Segment { buffer, offset: offset as u16, length: length as u16 }), length);
        }
    }
}

/// Bytes of something queued.
fn length_of(connection: &Connection, out: Out) -> usize {
    match out {
        Out::InitialResponse => connection.initial.len(),
        Out::Terminate => connection.notice.len(),
        Out::Ask(slot) => connection.commands[slot.index()].head_bytes,
        Out::Reply(slot) => {
            let command = &connection.commands[slot.index()];
            command.head_bytes + command.data_bytes + command.tail_bytes
        }
    }
}

/// Pieces of something queued, at most.
fn pieces_of(connection: &Connection, out: Out) -> usize {
    match out {
        Out::Reply(slot) if connection.commands[slot.index()].data_bytes > 0 => {
            2 + connection.commands[slot.index()].buffers.len().max(1)
        }
        _ => 1,
    }
}

/// One send; says how many bytes were offered and how many were taken.
fn send_once<const N: usize>(ports: &mut impl Ports, connection: &Connection) -> Result<(usize, usize), StreamError> {
    let mut gather = Pieces::<N> { pieces: [Piece::Bytes(&[]); N], count: 0, skip: connection.out_sent, offered: 0 };
    for &out in &connection.out {
        if gather.count + pieces_of(connection, out) > N || gather.offered >= SEND_BYTES {
            break;
        }
        match out {
            Out::InitialResponse => gather.bytes(&connection.initial),
            Out::Terminate => gather.bytes(&connection.notice),
            Out::Ask(slot) => {
                let command = &connection.commands[slot.index()];
                gather.bytes(&command.head[..command.head_bytes]);
            }
            Out::Reply(slot) => {
                let command = &connection.commands[slot.index()];
                gather.bytes(&command.head[..command.head_bytes]);
                if command.data_bytes > 0 {
                    if command.page.is_empty() {
                        gather.blocks(ports, command);
                    } else {
                        gather.bytes(&command.page);
                    }
                }
                gather.bytes(&command.tail[..command.tail_bytes]);
            }
        }
    }
    let taken = ports.send(connection.stream, &gather.pieces[..gather.count])?;
    assert!(taken <= gather.offered, "a stream takes no more than it was offered");
    Ok((gather.offered, taken))
}

impl Hub {
    /// Sends what a connection has queued, until it is all gone, the stream is full or the turn's share is used up.
    pub(super) fn send(&mut self, ports: &mut impl Ports, connection: &mut Connection) -> Result<(), StreamError> {
        for _ in 0..SENDS_A_TURN {
            if connection.out.is_empty() || connection.blocked_since.is_some() {
                break;
            }
            let (offered, taken) = if connection.out_pieces <= SHORT_PIECES {
                send_once::<SHORT_PIECES>(ports, connection)?
            } else {
                send_once::<MAX_STREAM_PIECES>(ports, connection)?
            };
            self.sent(ports, connection, taken);
            if taken < offered {
                connection.blocked_since = Some(self.now);
            }
        }
        Ok(())
    }

    fn sent(&mut self, ports: &mut impl Ports, connection: &mut Connection, taken: usize) {
        connection.out_sent += taken;
        connection.sent += taken as u64;
        while let Some(&out) = connection.out.front() {
            let length = length_of(connection, out);
            if connection.out_sent < length {
                break;
            }
            connection.out_sent -= length;
            connection.out_pieces -= pieces_of(connection, out);
            connection.out.pop_front();
            match out {
                Out::InitialResponse => {}
                Out::Ask(slot) => connection.command(slot).asked = true,
                Out::Reply(slot) => self.release(ports, connection, slot),
                Out::Terminate => {
                    // Closing at once would reset the stream and take the request from the host (TCP, section 3.5.1).
                    connection.life = Life::Lingering;
                    connection.deadline = self.now + LINGER;
                    ports.want_readable(connection.stream, true);
                }
            }
        }
    }

    /// Frees a command's blocks and its slot.
    pub(super) fn release(&mut self, ports: &mut impl Ports, connection: &mut Connection, slot: SlotId) {
        self.free_blocks(ports, connection, slot);
        connection.abort_ended(slot, false);
        let command = &mut connection.commands[slot.index()];
        assert!(!matches!(command.stage, Stage::Free | Stage::Executing), "a command under way keeps its slot");
        command.stage = Stage::Free;
        if !command.page.is_empty() {
            command.page = Vec::new();
        }
        connection.queue.release(slot);
    }

    /// Frees a command's blocks. What is set aside for capsules must be home before the next capsule can come.
    pub(super) fn free_blocks(&mut self, ports: &mut impl Ports, connection: &mut Connection, slot: SlotId) {
        let command = &mut connection.commands[slot.index()];
        let of_reserve = core::mem::take(&mut command.of_reserve);
        let buffers = core::mem::take(&mut command.buffers);
        self.space.give_back(ports, buffers, of_reserve);
        self.leave_budget(connection, slot);
    }

    /// A command's blocks no longer count in the budget for data: they are freed, or given away.
    pub(super) fn leave_budget(&mut self, connection: &mut Connection, slot: SlotId) {
        let blocks = core::mem::take(&mut connection.command(slot).of_data);
        self.space.data_done(blocks);
        connection.data_blocks -= blocks;
    }
}
