//! A scripted target for this crate's tests: an association with one namespace in memory, served by a thread a
//! connection, plainly and slowly. A test may change any PDU on its way out, or kill the target with or without what it
//! acknowledged last.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base::BLOCK;
use base::uuid::Uuid;
use nvme::discovery::{DiscoveryEntry, page};
use nvme::entry::{CompletionEntry, SubmissionEntry};
use nvme::identify::{IdentifyController, IdentifyNamespace, NamespaceIdentity, namespace_list};
use nvme::layout::{null_padded, padded};
use nvme::register::{self, Capabilities, Configuration, ControllerStatus};
use nvme::status::Status;
use nvme::{log_page, opcode, sgl};
use nvmf::pdu::{
    self, COMMAND_BYTES, COMMON_BYTES, Command, Common, DATA_BYTES, Data, Digests, IC_BYTES, IcReq, Transfer, kind,
};

/// Changes a PDU: its type, how many of that type were sent before on this connection, its bytes.
pub(crate) type Tamper = Arc<dyn Fn(u8, usize, &mut Vec<u8>) + Send + Sync>;

/// How the target behaves.
#[derive(Clone)]
pub(crate) struct FakeOptions {
    pub(crate) in_capsule_bytes: u32,
    pub(crate) max_h2c_data_bytes: u32,
    /// Bytes of one R2T, and of one C2HData.
    pub(crate) piece_bytes: u32,
    /// Whether the last C2HData spares the response.
    pub(crate) success_flag: bool,
    /// Whether a kill takes back what was acknowledged last.
    pub(crate) forgetful: bool,
    /// Changes Identify Controller.
    pub(crate) identify: fn(&mut IdentifyController),
    /// Changes PDUs on their way out. One that is made shorter, but not empty, is the last: the connection is closed.
    pub(crate) tamper: Tamper,
}

impl Default for FakeOptions {
    fn default() -> Self {
        Self {
            in_capsule_bytes: 8192,
            max_h2c_data_bytes: 1 << 20,
            piece_bytes: 1 << 20,
            success_flag: true,
            forgetful: false,
            identify: |_| {},
            tamper: Arc::new(|_, _, _| {}),
        }
    }
}

pub(crate) const BLOCKS: u64 = 2048;
pub(crate) const NQN: &str = "nqn.2014-08.org.example:fake";
const UNDO_WRITES: usize = 64;

#[derive(Default)]
struct Store {
    blocks: BTreeMap<u64, Vec<u8>>,
    undo: VecDeque<(u64, Option<Vec<u8>>)>,
}

struct Shared {
    options: FakeOptions,
    store: Mutex<Store>,
    connections: Mutex<Vec<TcpStream>>,
    dead: AtomicBool,
    /// How often it was killed: a connection from before the last time reaches the store no more.
    deaths: AtomicU32,
    ends: AtomicBool,
    configuration: AtomicU32,
    keep_alives: AtomicU32,
}

/// A running target; it ends when dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Fake {
    pub(crate) fn start(options: FakeOptions) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            options,
            store: Mutex::default(),
            connections: Mutex::default(),
            dead: AtomicBool::new(false),
            deaths: AtomicU32::new(0),
            ends: AtomicBool::new(false),
            configuration: AtomicU32::new(0),
            keep_alives: AtomicU32::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.ends.load(Ordering::SeqCst) {
                    return;
                }
                let born = accepting.deaths.load(Ordering::SeqCst);
                if accepting.dead.load(Ordering::SeqCst) {
                    continue;
                }
                let kept = stream.try_clone().expect("a second handle");
                accepting.connections.lock().expect("unpoisoned").push(kept);
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || Connection::new(stream, &shared, born).serve());
            }
        });
        Self { address, shared }
    }

    /// Closes all connections and refuses new ones until [`Fake::revive`].
    pub(crate) fn kill(&self) {
        self.shared.dead.store(true, Ordering::SeqCst);
        {
            // Whoever is storing now has stored before the kill; nobody does after it.
            let _store = self.shared.store.lock().expect("unpoisoned");
            self.shared.deaths.fetch_add(1, Ordering::SeqCst);
        }
        for stream in self.shared.connections.lock().expect("unpoisoned").drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if self.shared.options.forgetful {
            let mut store = self.shared.store.lock().expect("unpoisoned");
            while let Some((lba, before)) = store.undo.pop_back() {
                match before {
                    Some(block) => store.blocks.insert(lba, block),
                    None => store.blocks.remove(&lba),
                };
            }
        }
    }

    pub(crate) fn revive(&self) {
        self.shared.dead.store(false, Ordering::SeqCst);
    }

    pub(crate) fn keep_alives(&self) -> u32 {
        self.shared.keep_alives.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

struct Writing {
    entry: SubmissionEntry,
    data: Vec<u8>,
    asked: usize,
}

struct Connection<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    /// Deaths of the target before it came.
    born: u32,
    digests: Digests,
    sent: [usize; 16],
    writing: BTreeMap<u16, Writing>,
    queue_id: u16,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, shared: &'a Shared, born: u32) -> Self {
        let digests = Digests::default();
        Self { stream, shared, born, digests, sent: [0; 16], writing: BTreeMap::new(), queue_id: 0 }
    }

    fn serve(mut self) {
        // The host closes when it has had enough; that ends the thread.
        let _ = self.run();
    }

    fn run(&mut self) -> io::Result<()> {
        let request = IcReq::decode(&self.take(IC_BYTES)?).expect("whole");
        let digests = Digests::from_bits(request.digests);
        self.send(pdu::ic_resp(digests, self.shared.options.max_h2c_data_bytes).to_vec())?;
        self.digests = digests;
        loop {
            let mut bytes = self.take(COMMON_BYTES)?;
            let common = Common::decode(&bytes).expect("whole");
            bytes.extend(self.take(common.head_bytes(self.digests) - COMMON_BYTES)?);
            let payload_bytes = common.body_bytes(self.digests).payload;
            let payload = self.take(payload_bytes)?;
            if payload_bytes > 0 && self.digests.data {
                let found = self.take(4)?;
                assert_eq!(found, pdu::digest(&payload).to_le_bytes(), "the host's data digest");
            }
            if self.digests.header {
                let (head, found) = bytes.split_at(bytes.len() - 4);
                assert_eq!(found, pdu::digest(head).to_le_bytes(), "the host's header digest");
            }
            match common.kind {
                kind::COMMAND => {
                    let command = Command::decode(&bytes[..COMMAND_BYTES]).expect("whole");
                    self.command(&command.entry, &payload)?;
                }
                kind::H2C_DATA => {
                    let data = Data::decode(&bytes[..DATA_BYTES]).expect("whole");
                    assert!(payload.len() <= self.shared.options.max_h2c_data_bytes as usize, "MAXH2CDATA");
                    self.data(&data, &payload, common.flags & pdu::FLAG_LAST != 0)?;
                }
                other => panic!("a host sent PDU type {other}"),
            }
        }
    }

    fn take(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut taken = vec![0; bytes];
        self.stream.read_exact(&mut taken)?;
        Ok(taken)
    }

    fn send(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        let kind = bytes[0];
        let before = self.sent[usize::from(kind)];
        self.sent[usize::from(kind)] += 1;
        let whole = bytes.len();
        (self.shared.options.tamper)(kind, before, &mut bytes);
        self.stream.write_all(&bytes)?;
        if !bytes.is_empty() && bytes.len() < whole {
            self.stream.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }

    fn respond(&mut self, cid: u16, status: Status, result: u64) -> io::Result<()> {
        let mut out = vec![0; 64];
        let length = pdu::response(&mut out, CompletionEntry::fabrics(cid, 0, status, result), self.digests);
        out.truncate(length);
        self.send(out)
    }

    /// Sends data in pieces, then the response unless the flag spares it.
    fn reply(&mut self, cid: u16, data: &[u8]) -> io::Result<()> {
        let &FakeOptions { piece_bytes, success_flag, .. } = &self.shared.options;
        let mut offset = 0;
        for piece in data.chunks(piece_bytes as usize) {
            let last = offset as usize + piece.len() == data.len();
            let mut out = vec![0; 64];
            let transfer = Transfer { cid, tag: 0, offset, length: piece.len() as u32 };
            let length = pdu::controller_data(&mut out, transfer, last, last && success_flag, self.digests);
            out.truncate(length);
            out.extend(piece);
            if self.digests.data {
                out.extend(pdu::digest(piece).to_le_bytes());
            }
            offset += piece.len() as u32;
            self.send(out)?;
        }
        if success_flag { Ok(()) } else { self.respond(cid, Status::SUCCESS, 0) }
    }

    fn command(&mut self, entry: &SubmissionEntry, payload: &[u8]) -> io::Result<()> {
        let cid = entry.cid;
        assert_eq!(entry.psdt(), nvme::entry::PSDT_SGL, "Fabrics commands use SGLs");
        if entry.opcode == opcode::FABRICS {
            return self.fabrics(entry, payload);
        }
        if self.queue_id == 0 {
            return self.admin(entry);
        }
        match entry.opcode {
            opcode::READ | opcode::WRITE | opcode::WRITE_ZEROES
                if entry.lba() + u64::from(entry.block_count()) > BLOCKS =>
            {
                self.respond(cid, Status::LBA_OUT_OF_RANGE.do_not_retry(), 0)
            }
            opcode::READ => {
                let store = self.shared.store.lock().expect("unpoisoned");
                let blocks = entry.lba()..entry.lba() + u64::from(entry.block_count());
                let data: Vec<u8> =
                    blocks.flat_map(|lba| store.blocks.get(&lba).cloned().unwrap_or_else(|| vec![0; BLOCK])).collect();
                drop(store);
                assert_eq!(entry.data.length as usize, data.len(), "the SGL's length");
                self.reply(cid, &data)
            }
            opcode::WRITE if entry.data.identifier == sgl::DATA_BLOCK_OFFSET => {
                assert!(payload.len() <= self.shared.options.in_capsule_bytes as usize, "IOCCSZ");
                self.store(entry.lba(), payload)?;
                self.respond(cid, Status::SUCCESS, 0)
            }
            opcode::WRITE => {
                let data = vec![0; entry.data.length as usize];
                assert_eq!(data.len(), entry.block_count() as usize * BLOCK, "the SGL's length");
                self.writing.insert(cid, Writing { entry: *entry, data, asked: 0 });
                self.ask(cid)
            }
            opcode::WRITE_ZEROES => {
                self.store(entry.lba(), &vec![0; entry.block_count() as usize * BLOCK])?;
                self.respond(cid, Status::SUCCESS, 0)
            }
            opcode::FLUSH => self.respond(cid, Status::SUCCESS, 0),
            _ => self.respond(cid, Status::INVALID_OPCODE.do_not_retry(), 0),
        }
    }

    fn ask(&mut self, cid: u16) -> io::Result<()> {
        let writing = self.writing.get_mut(&cid).expect("a write in progress");
        let length = (writing.data.len() - writing.asked).min(self.shared.options.piece_bytes as usize);
        let transfer = Transfer { cid, tag: cid ^ 0x55, offset: writing.asked as u32, length: length as u32 };
        writing.asked += length;
        let mut out = vec![0; 64];
        let length = pdu::ready_to_transfer(&mut out, transfer, self.digests);
        out.truncate(length);
        self.send(out)
    }

    fn data(&mut self, data: &Data, payload: &[u8], last: bool) -> io::Result<()> {
        let writing = self.writing.get_mut(&data.cid).expect("a write in progress");
        assert_eq!(data.tag, data.cid ^ 0x55, "the R2T's tag");
        let end = data.offset as usize + payload.len();
        writing.data[data.offset as usize..end].copy_from_slice(payload);
        assert_eq!(last, end == writing.asked, "LAST at the end of what the R2T asked for");
        if end < writing.asked {
            return Ok(());
        }
        if end < writing.data.len() {
            return self.ask(data.cid);
        }
        let Writing { entry, data, .. } = self.writing.remove(&data.cid).expect("it is there");
        self.store(entry.lba(), &data)?;
        self.respond(entry.cid, Status::SUCCESS, 0)
    }

    fn store(&self, lba: u64, data: &[u8]) -> io::Result<()> {
        let mut store = self.shared.store.lock().expect("unpoisoned");
        // Dead is dead: nothing reaches the store of a killed target, and nothing is acknowledged by it.
        if self.shared.deaths.load(Ordering::SeqCst) != self.born {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        for (lba, block) in (lba..).zip(data.chunks_exact(BLOCK)) {
            let before = store.blocks.insert(lba, block.to_vec());
            store.undo.push_back((lba, before));
            if store.undo.len() > UNDO_WRITES {
                store.undo.pop_front();
            }
        }
        Ok(())
    }

    fn fabrics(&mut self, entry: &SubmissionEntry, payload: &[u8]) -> io::Result<()> {
        let cid = entry.cid;
        match entry.fabrics_type() {
            opcode::FABRICS_CONNECT => {
                assert_eq!((payload.len(), entry.data.identifier), (1024, sgl::DATA_BLOCK_OFFSET));
                self.queue_id = (entry.cdw10 >> 16) as u16;
                let known = payload[256..].starts_with(NQN.as_bytes())
                    || payload[256..].starts_with(nvme::discovery::DISCOVERY_NQN.as_bytes());
                if known {
                    self.respond(cid, Status::SUCCESS, 1)
                } else {
                    self.respond(cid, Status::CONNECT_INVALID_PARAMETERS.do_not_retry(), 0)
                }
            }
            opcode::FABRICS_PROPERTY_SET => {
                self.shared.configuration.store(entry.cdw12, Ordering::SeqCst);
                self.respond(cid, Status::SUCCESS, 0)
            }
            opcode::FABRICS_PROPERTY_GET => {
                let configuration = Configuration(self.shared.configuration.load(Ordering::SeqCst));
                let value = match entry.cdw11 {
                    register::CAP => Capabilities::fabrics(128, 20).0,
                    register::VS => register::VERSION_2_0.into(),
                    register::CSTS if configuration.shutdown() != 0 => ControllerStatus::SHUTDOWN_DONE.into(),
                    register::CSTS => u64::from(configuration.is_enabled()),
                    other => panic!("property {other:#x}"),
                };
                self.respond(cid, Status::SUCCESS, value)
            }
            other => panic!("Fabrics type {other}"),
        }
    }

    fn admin(&mut self, entry: &SubmissionEntry) -> io::Result<()> {
        match entry.opcode {
            opcode::KEEP_ALIVE => {
                self.shared.keep_alives.fetch_add(1, Ordering::SeqCst);
                self.respond(entry.cid, Status::SUCCESS, 0)
            }
            opcode::SET_FEATURES => self.respond(entry.cid, Status::SUCCESS, 0x0003_0003),
            opcode::IDENTIFY => self.identify(entry),
            opcode::GET_LOG_PAGE if entry.cdw10 as u8 == log_page::DISCOVERY => {
                let entries: Vec<_> = (0..20)
                    .map(|port_id| DiscoveryEntry {
                        port_id,
                        subsystem_nqn: null_padded(NQN),
                        ..DiscoveryEntry::default()
                    })
                    .collect();
                let length = (entry.cdw10 >> 16 | entry.cdw11 << 16) as usize * 4 + 4;
                let page = page(1, &entries);
                self.reply(entry.cid, &page[entry.cdw12 as usize..][..length])
            }
            _ => self.respond(entry.cid, Status::INVALID_OPCODE.do_not_retry(), 0),
        }
    }

    fn identify(&mut self, entry: &SubmissionEntry) -> io::Result<()> {
        let identity = NamespaceIdentity { uuid: Uuid([3; 16]), ..NamespaceIdentity::default() };
        let data = match entry.cdw10 as u8 {
            opcode::CNS_CONTROLLER => {
                let mut identify = IdentifyController {
                    serial: padded("F1"),
                    model: padded("Fake"),
                    controller_id: 1,
                    max_data_transfer: 8,
                    keep_alive_100ms: 10,
                    max_commands: 128,
                    optional_commands: nvme::identify::OPTIONAL_WRITE_ZEROES,
                    sgl_support: nvme::identify::SGL_ANY_ALIGNMENT,
                    command_capsule_16b: (self.shared.options.in_capsule_bytes + 64) / 16,
                    response_capsule_16b: 1,
                    ..IdentifyController::default()
                };
                (self.shared.options.identify)(&mut identify);
                identify.encode()
            }
            opcode::CNS_ACTIVE_NAMESPACES => namespace_list([1].into_iter(), entry.nsid),
            opcode::CNS_NAMESPACE => {
                IdentifyNamespace { size_blocks: BLOCKS, format_0: 12 << 16, ..IdentifyNamespace::default() }.encode()
            }
            opcode::CNS_NAMESPACE_DESCRIPTORS => identity.descriptors(),
            _ => return self.respond(entry.cid, Status::INVALID_FIELD.do_not_retry(), 0),
        };
        self.reply(entry.cid, &data)
    }
}
