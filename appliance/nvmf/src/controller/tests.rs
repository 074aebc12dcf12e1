//! A controller's life, exchange by exchange, as hosts lead it.

use nvme::entry::PSDT_SGL;
use nvme::feature;
use nvme::identify::{IdentifyController, IdentifyNamespace, NamespaceIdentity, controllers_of, namespaces_of};
use nvme::log_page;
use nvme::sgl::SglDescriptor;

use super::*;
use crate::fabrics;
use crate::subsystem::tests::exports;

const OPEN: &str = "nqn.2024-01.example:open";
const SECOND: Span = Span::from_secs(1);

struct Rig {
    exports: Exports,
    smart: SmartLog,
    now: Time,
    controller: Controller,
}

impl Rig {
    fn new(kind: Kind) -> Self {
        let connect = Connect { format: 0, queue_id: 0, last_entry: 31, attributes: 0, keep_alive_ms: 5000 };
        let host = Host { nqn: "nqn.host:a".into(), id: [7; 16] };
        let nqn = if kind == Kind::Io { OPEN } else { nvme::discovery::DISCOVERY_NQN };
        let controller = Controller::new(1, kind, nqn.into(), host, &connect, Time(0));
        Self {
            exports: exports(),
            smart: SmartLog { temperature_k: 300, ..Default::default() },
            now: Time(0),
            controller,
        }
    }

    fn ready(kind: Kind) -> Self {
        let mut rig = Self::new(kind);
        assert_eq!(rig.complete(&fabrics::property_set(0, register::CC, Configuration::ENABLE.0)), Ok(0));
        rig
    }

    fn answer(&mut self, entry: &SubmissionEntry, data: &[u8]) -> Answer {
        let world = World {
            now: self.now,
            exports: &self.exports,
            local: "127.0.0.1:4420".parse().expect("an address"),
            smart: &self.smart,
            controllers: &[1, 4097],
            firmware: "0.1",
        };
        self.controller.command(&world, SlotId(entry.cid), entry, data)
    }

    fn complete(&mut self, entry: &SubmissionEntry) -> Result<u64, Status> {
        match self.answer(entry, &[]).outcome {
            Outcome::Complete(Status::SUCCESS, result) => Ok(result),
            Outcome::Complete(status, _) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    fn data(&mut self, entry: &SubmissionEntry) -> Result<Vec<u8>, Status> {
        match self.answer(entry, &[]).outcome {
            Outcome::Data(data) => Ok(data),
            Outcome::Complete(status, _) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, offset: u32) -> Result<u64, Status> {
        self.complete(&fabrics::property_get(0, offset, offset == register::CAP))
    }
}

fn admin(opcode: u8, nsid: u32, cdw10: u32, length: u32) -> SubmissionEntry {
    SubmissionEntry {
        opcode,
        flags: PSDT_SGL << 6,
        nsid,
        cdw10,
        data: SglDescriptor::transport(length),
        ..SubmissionEntry::default()
    }
}

fn identify(cns: u8, nsid: u32) -> SubmissionEntry {
    admin(opcode::IDENTIFY, nsid, u32::from(cns), 4096)
}

fn log(id: u8, offset: u64, length: u32) -> SubmissionEntry {
    let last_dword = length / 4 - 1;
    let entry = admin(opcode::GET_LOG_PAGE, u32::MAX, u32::from(id) | last_dword << 16, length);
    SubmissionEntry { cdw11: last_dword >> 16, cdw12: offset as u32, cdw13: (offset >> 32) as u32, ..entry }
}

fn final_error(status: Status) -> Status {
    status.do_not_retry()
}

#[test]
fn a_controller_is_enabled_reset_and_shut_down() {
    let mut rig = Rig::new(Kind::Io);
    assert_eq!(rig.get(register::CAP), Ok(0x0800_0020_1401_007f));
    assert_eq!(rig.get(register::VS), Ok(0x2_0000));
    assert_eq!(rig.get(register::CSTS), Ok(0));
    assert_eq!(rig.get(register::NSSR), Ok(0));
    assert_eq!(rig.get(register::CRTO), Ok(20));
    assert_eq!(rig.complete(&identify(1, 0)), Err(Status::SEQUENCE_ERROR), "not enabled yet");
    let enable = Configuration::ENABLE;
    assert_eq!(rig.complete(&fabrics::property_set(0, register::CC, enable.0)), Ok(0));
    assert_eq!(rig.get(register::CSTS), Ok(1));
    assert_eq!(rig.get(register::CC), Ok(u64::from(enable.0)));
    let shutdown = rig.answer(&fabrics::property_set(0, register::CC, enable.with_shutdown(1).0), &[]);
    assert_eq!(shutdown.effect, Effect::Reset);
    assert_eq!(rig.get(register::CSTS), Ok(0b0101), "it goes on until the queues are drained");
    rig.controller.drained();
    assert_eq!(rig.get(register::CSTS), Ok(0b1001));
    assert!(!rig.controller.is_ready());
    let reset = rig.answer(&fabrics::property_set(0, register::CC, 0), &[]);
    assert_eq!((reset.effect, rig.get(register::CSTS)), (Effect::Reset, Ok(1)));
    rig.controller.drained();
    assert_eq!(rig.get(register::CSTS), Ok(0));
}

#[test]
fn properties_that_are_not_there_are_refused_and_the_tool_can_go_on() {
    let mut rig = Rig::ready(Kind::Io);
    let there = [register::CAP, register::VS, register::CC, register::CSTS, register::NSSR, register::CRTO];
    for offset in (0..0x1000).filter(|offset| !there.contains(offset)) {
        assert_eq!(rig.get(offset), Err(final_error(Status::INVALID_FIELD)), "{offset:#x}");
    }
    for offset in there {
        let wrong = fabrics::property_get(0, offset, offset != register::CAP);
        assert_eq!(rig.complete(&wrong), Err(final_error(Status::INVALID_FIELD)));
        if offset != register::CC {
            let set = fabrics::property_set(0, offset, 0);
            assert_eq!(rig.complete(&set), Err(final_error(Status::INVALID_FIELD)));
        }
    }
    assert!(rig.controller.is_ready());
}

#[test]
fn what_cap_does_not_offer_cannot_be_enabled() {
    for bits in [1 << 4, 1 << 7, 1 << 11, 1 << 16, 1 << 20] {
        let mut rig = Rig::new(Kind::Io);
        let set = fabrics::property_set(0, register::CC, Configuration::ENABLE.0 ^ bits);
        assert_eq!(rig.complete(&set), Err(final_error(Status::INVALID_FIELD)), "{bits:#x}");
        assert!(!rig.controller.is_ready());
    }
}

#[test]
fn identify_controller_says_what_linux_insists_on() {
    let mut rig = Rig::ready(Kind::Io);
    let page = IdentifyController::decode(&rig.data(&identify(1, 0)).expect("a page")).expect("whole");
    assert_eq!(page.controller_id, 1);
    assert_ne!(page.keep_alive_100ms, 0);
    assert!(page.command_capsule_16b >= 4 && page.response_capsule_16b >= 1 && page.in_capsule_offset_16b == 0);
    assert_eq!((page.sgl_support & 1, page.max_commands, page.max_data_transfer), (1, 128, 8));
    assert_eq!((page.volatile_write_cache & 1, page.atomic_write_power_fail, page.controller_type), (0, 0, 1));
    assert_eq!((page.fused_operations, page.optional_commands), (1, 0b100_1101));
    assert_eq!(page.async_events, feature::EVENT_NAMESPACE_CHANGED);
    let mut rig = Rig::ready(Kind::Discovery);
    let page = IdentifyController::decode(&rig.data(&identify(1, 0)).expect("a page")).expect("whole");
    assert_eq!((page.controller_type, page.namespaces, page.async_events), (2, 0, feature::EVENT_DISCOVERY_CHANGED));
    assert_eq!(rig.data(&identify(2, 0)), Err(final_error(Status::INVALID_FIELD)));
}

#[test]
fn identify_namespace_in_every_form() {
    let mut rig = Rig::ready(Kind::Io);
    let page = IdentifyNamespace::decode(&rig.data(&identify(0, 5)).expect("a page")).expect("whole");
    assert_eq!(
        (page.size_blocks, page.format_0, page.optimal_boundary_blocks, page.optimal_write),
        (1000, 12 << 16, 16, 47)
    );
    assert_eq!(page.deallocate_features, 0b1001, "zeros, also by Write Zeroes with DEAC");
    assert_eq!((page.features & 2, page.atomic_write, page.atomic_write_power_fail), (2, 15, 15));
    assert_eq!(page.atomic_compare_and_write, 15);
    assert_eq!((page.atomic_boundary, page.atomic_boundary_offset, page.atomic_boundary_power_fail), (15, 0, 15));
    let unit = u32::from(page.atomic_boundary_power_fail) + 1;
    assert_eq!(u32::from(page.optimal_boundary_blocks) % unit, 0, "Linux takes no other boundary");
    assert_eq!(rig.data(&identify(0, 3)), Ok(vec![0; 4096]), "valid but not active");
    for nsid in [0, 257, u32::MAX] {
        assert_eq!(rig.data(&identify(0, nsid)), Err(final_error(Status::INVALID_NAMESPACE)));
        assert_eq!(rig.data(&identify(8, nsid)), Err(final_error(Status::INVALID_NAMESPACE)));
    }
    for cns in [0x02, 0x07, 0x10] {
        let list: [u8; 4096] = rig.data(&identify(cns, 1)).expect("a page").try_into().expect("a page");
        assert_eq!(namespaces_of(&list).collect::<Vec<_>>(), [2, 5]);
        assert_eq!(rig.data(&identify(cns, u32::MAX)), Err(final_error(Status::INVALID_NAMESPACE)));
    }
    let identity = NamespaceIdentity::from_descriptors(&rig.data(&identify(3, 2)).expect("a page")).expect("sound");
    assert_eq!(identity.nguid, [2; 16]);
    assert_eq!(rig.data(&identify(3, 3)), Err(final_error(Status::INVALID_NAMESPACE)));
    assert_eq!(rig.data(&identify(5, 1)), Ok(vec![0; 4096]));
    let limits = rig.data(&identify(6, 0)).expect("a page");
    assert_eq!(limits[..16], [0, 16, 0, 32, 0, 0, 4, 0, 0, 0, 0x80, 0, 0, 0, 0, 0], "WZSL, DMRL, DMRSL, DMSL");
    assert_eq!(rig.data(&identify(8, 1)).map(|page| (page[1], page[14])), Ok((1, 1)));
    assert_eq!(rig.data(&identify(0x11, 1)).map(|page| page[0]), Ok(0xe8));
    for cns in [0x12, 0x13] {
        let list: [u8; 4096] = rig.data(&identify(cns, 1)).expect("a page").try_into().expect("a page");
        assert_eq!(controllers_of(&list).collect::<Vec<_>>(), [1, 4097]);
    }
    let sets = SubmissionEntry { cdw10: 0xffff_001c, ..identify(0x1c, 0) };
    assert_eq!(rig.data(&sets).map(|page| page[0]), Ok(1));
    for cns in [5, 6, 7] {
        let zoned = SubmissionEntry { cdw11: 2 << 24, ..identify(cns, 1) };
        assert_eq!(rig.data(&zoned), Err(final_error(Status::INVALID_FIELD)));
    }
    for cns in [0x04, 0x09, 0x14, 0x20, 0xff] {
        assert_eq!(rig.data(&identify(cns, 1)), Err(final_error(Status::INVALID_FIELD)));
    }
}

#[test]
fn a_data_pointer_that_does_not_fit_is_refused() {
    let mut rig = Rig::ready(Kind::Io);
    let short = SubmissionEntry { data: SglDescriptor::transport(512), ..identify(1, 0) };
    assert_eq!(rig.data(&short), Err(final_error(Status::DATA_SGL_LENGTH_INVALID)));
    let inside = SubmissionEntry { data: SglDescriptor::in_capsule(0, 4096), ..identify(1, 0) };
    assert_eq!(rig.data(&inside), Err(final_error(Status::SGL_TYPE_INVALID)));
    let prp = SubmissionEntry { flags: 0, ..identify(1, 0) };
    assert_eq!(rig.data(&prp), Err(final_error(Status::INVALID_FIELD)));
    let fused = SubmissionEntry { flags: PSDT_SGL << 6 | 3, ..identify(1, 0) };
    assert_eq!(rig.data(&fused), Err(final_error(Status::INVALID_FIELD)));
}

#[test]
fn log_pages_are_read_whole_and_in_parts() {
    let mut rig = Rig::ready(Kind::Io);
    assert_eq!(rig.data(&log(log_page::SMART, 0, 512)).map(|page| page[1]), Ok(0x2c));
    assert_eq!(rig.data(&log(log_page::FIRMWARE_SLOT, 0, 512)).map(|page| page[8..11].to_vec()), Ok(b"0.1".to_vec()));
    assert_eq!(rig.data(&log(log_page::EFFECTS, 1028, 8)), Ok(vec![3, 0, 0, 0, 1, 0, 0, 0]));
    assert_eq!(
        rig.data(&log(log_page::SUPPORTED_PAGES, 0, 1024)).map(|page| page.iter().filter(|&&b| b == 1).count()),
        Ok(6)
    );
    assert_eq!(rig.data(&log(log_page::ANA, 0, 16)), Err(final_error(Status::INVALID_LOG_PAGE)));
    let errors = rig.data(&log(log_page::ERROR_INFORMATION, 0, 1024)).expect("a page");
    assert_eq!((errors[0], errors[29], errors[64]), (1, 3, 0), "the refused page is in the error log");
    assert_eq!(rig.data(&log(log_page::SMART, 176, 4)), Ok(vec![1, 0, 0, 0]));
    assert_eq!(rig.data(&log(log_page::SMART, 508, 8)), Ok(vec![0; 8]), "beyond the page there are zeros");
    assert_eq!(rig.data(&log(log_page::SMART, 516, 4)), Err(final_error(Status::INVALID_FIELD)));
    assert_eq!(rig.data(&log(log_page::SMART, 2, 4)), Err(final_error(Status::INVALID_FIELD)));
    assert_eq!(rig.data(&log(log_page::SMART, 0, (1 << 20) + 4)), Err(final_error(Status::INVALID_FIELD)));
    let mut rig = Rig::ready(Kind::Discovery);
    let page = rig.data(&log(log_page::DISCOVERY, 0, 1024)).expect("a page");
    assert_eq!((page[0], page[8]), (4, 6));
    assert_eq!(rig.data(&log(log_page::SMART, 0, 512)), Err(final_error(Status::INVALID_LOG_PAGE)));
}

#[test]
fn features_are_set_and_read_back() {
    let mut rig = Rig::ready(Kind::Io);
    let get = |id: u8, select: u32| admin(opcode::GET_FEATURES, 0, u32::from(id) | select << 8, 0);
    let set = |id: u8, value: u32| SubmissionEntry { cdw11: value, ..admin(opcode::SET_FEATURES, 0, u32::from(id), 0) };
    assert_eq!(rig.complete(&set(feature::NUMBER_OF_QUEUES, 0x0003_0001)), Ok(0x0001_0001));
    assert_eq!(rig.complete(&get(feature::NUMBER_OF_QUEUES, 0)), Ok(0x0001_0001));
    assert_eq!(rig.complete(&get(feature::NUMBER_OF_QUEUES, 1)), Ok(0x003f_003f));
    assert_eq!(rig.complete(&set(feature::NUMBER_OF_QUEUES, 0xffff)), Err(final_error(Status::INVALID_FIELD)));
    assert_eq!(rig.complete(&set(feature::NUMBER_OF_QUEUES, 0xfffe_fffe)), Ok(0x003f_003f));
    assert_eq!(rig.complete(&set(feature::KEEP_ALIVE_TIMER, 1500)), Ok(0));
    assert_eq!(rig.complete(&get(feature::KEEP_ALIVE_TIMER, 0)), Ok(2000));
    assert_eq!(rig.complete(&set(feature::ASYNC_EVENT_CONFIGURATION, u32::MAX)), Ok(0));
    assert_eq!(rig.complete(&get(feature::ASYNC_EVENT_CONFIGURATION, 0)), Ok(0x1ff));
    assert_eq!(rig.complete(&get(feature::TEMPERATURE_THRESHOLD, 0)), Ok(0xffff));
    assert_eq!(rig.complete(&set(feature::TEMPERATURE_THRESHOLD, 0x15e)), Ok(0));
    assert_eq!(rig.complete(&get(feature::TEMPERATURE_THRESHOLD, 0)), Ok(0x15e));
    for id in [feature::ARBITRATION, feature::ERROR_RECOVERY, feature::WRITE_ATOMICITY] {
        assert_eq!(rig.complete(&set(id, 1)), Ok(0));
        assert_eq!(rig.complete(&get(id, 0)), Ok(1));
        assert_eq!(rig.complete(&get(id, 1)), Ok(0));
        assert_eq!(rig.complete(&get(id, 3)), Ok(4));
        let saved = SubmissionEntry { cdw10: u32::from(id) | 1 << 31, ..set(id, 1) };
        assert_eq!(rig.complete(&saved), Err(final_error(Status::FEATURE_NOT_SAVEABLE)));
    }
    assert_eq!(rig.complete(&get(feature::VOLATILE_WRITE_CACHE, 0)), Err(final_error(Status::INVALID_FIELD)));
    assert_eq!(rig.complete(&set(feature::POWER_MANAGEMENT, 1)), Err(final_error(Status::INVALID_FIELD)));
    // A controller reset brings the defaults back.
    rig.answer(&fabrics::property_set(0, register::CC, 0), &[]);
    rig.answer(&fabrics::property_set(0, register::CC, Configuration::ENABLE.0), &[]);
    assert_eq!(rig.complete(&get(feature::ARBITRATION, 0)), Ok(0));
}

#[test]
fn features_with_data_check_its_length() {
    let mut rig = Rig::ready(Kind::Io);
    let set = |id: u8| admin(opcode::SET_FEATURES, 0, u32::from(id), 0);
    let get = |id: u8, length: u32| admin(opcode::GET_FEATURES, 0, u32::from(id), length);
    let done = Outcome::Complete(Status::SUCCESS, 0);
    assert_eq!(rig.answer(&set(feature::TIMESTAMP), &1000u64.to_le_bytes()).outcome, done);
    rig.now = Time(0) + SECOND;
    assert_eq!(rig.data(&get(feature::TIMESTAMP, 8)), Ok((2000u64 | 1 << 49).to_le_bytes().to_vec()));
    let mut behavior = vec![0; 512];
    behavior[0] = 1;
    assert_eq!(rig.answer(&set(feature::HOST_BEHAVIOR), &behavior).outcome, done);
    assert_eq!(rig.data(&get(feature::HOST_BEHAVIOR, 512)), Ok(behavior.clone()));
    behavior[1] = 2;
    let refused = Outcome::Complete(final_error(Status::INVALID_FIELD), 0);
    assert_eq!(rig.answer(&set(feature::HOST_BEHAVIOR), &behavior).outcome, refused);
    let short = Outcome::Complete(final_error(Status::DATA_SGL_LENGTH_INVALID), 0);
    assert_eq!(rig.answer(&set(feature::HOST_BEHAVIOR), &behavior[..511]).outcome, short);
    assert_eq!(rig.answer(&set(feature::TIMESTAMP), &[0; 7]).outcome, short);
    let host = SubmissionEntry { cdw11: 1, ..get(feature::HOST_IDENTIFIER, 16) };
    assert_eq!(rig.data(&host), Ok(vec![7; 16]));
    assert_eq!(rig.complete(&set(feature::HOST_IDENTIFIER)), Err(final_error(Status::SEQUENCE_ERROR)));
}

#[test]
fn io_queues_attach_for_their_own_host_once() {
    let claim = Claim { queue_id: 1, subsystem_nqn: OPEN, host_nqn: "nqn.host:a", host_id: [7; 16] };
    let mut rig = Rig::new(Kind::Io);
    let sequence = Err(Refusal::of(Status::SEQUENCE_ERROR));
    assert_eq!(rig.controller.attach(&claim), sequence, "not enabled");
    let mut rig = Rig::ready(Kind::Io);
    let parameter = |field| Err(Refusal::parameter(field));
    let bad = Claim { host_nqn: "nqn.host:b", ..claim };
    assert_eq!(rig.controller.attach(&bad), parameter(ConnectField::HOST_NQN));
    assert_eq!(rig.controller.attach(&Claim { host_id: [8; 16], ..claim }), parameter(ConnectField::HOST_ID));
    let bad = Claim { subsystem_nqn: "nqn.x", ..claim };
    assert_eq!(rig.controller.attach(&bad), parameter(ConnectField::SUBSYSTEM_NQN));
    for queue_id in [0, 65, u16::MAX] {
        assert_eq!(rig.controller.attach(&Claim { queue_id, ..claim }), parameter(ConnectField::QID));
    }
    assert_eq!(rig.controller.attach(&claim), Ok(()));
    assert_eq!(rig.controller.attach(&claim), sequence, "the queue exists");
    assert_eq!(rig.controller.attach(&Claim { queue_id: 64, ..claim }), Ok(()));
    assert_eq!(rig.controller.queues(), 2);
    rig.controller.detach(1);
    assert_eq!(rig.controller.attach(&claim), Ok(()));
}

#[test]
fn events_wait_for_requests_and_requests_for_events() {
    let mut rig = Rig::ready(Kind::Io);
    let request = |cid| SubmissionEntry { cid, ..admin(opcode::ASYNC_EVENT_REQUEST, 0, 0, 0) };
    for cid in 1..=4 {
        assert_eq!(rig.answer(&request(cid), &[]).outcome, Outcome::Held);
    }
    assert_eq!(rig.complete(&request(5)), Err(final_error(Status::ASYNC_EVENT_LIMIT_EXCEEDED)));
    rig.controller.namespaces_changed([5].into_iter());
    assert_eq!(rig.controller.poll_event(), None, "not configured");
    let configure = SubmissionEntry {
        cdw11: feature::EVENT_NAMESPACE_CHANGED,
        ..admin(opcode::SET_FEATURES, 0, u32::from(feature::ASYNC_EVENT_CONFIGURATION), 0)
    };
    assert_eq!(rig.complete(&configure), Ok(0));
    assert_eq!(rig.controller.poll_event(), Some((SlotId(1), 0x0004_0002)));
    assert_eq!(rig.controller.poll_event(), None);
    assert_eq!(rig.data(&log(log_page::CHANGED_NAMESPACES, 0, 4096)).map(|page| page[0]), Ok(5));
    assert!(rig.controller.abort(SlotId(3)));
    assert!(!rig.controller.abort(SlotId(3)));
    rig.controller.discovery_changed();
    assert_eq!(rig.controller.poll_event(), None, "an I/O controller does not tell of discovery");
    assert_eq!(rig.controller.take_requests().collect::<Vec<_>>(), [SlotId(2), SlotId(4)]);
    let abort = admin(opcode::ABORT, 0, 1 | 0x22 << 16, 0);
    assert_eq!(rig.answer(&abort, &[]).outcome, Outcome::Abort { queue_id: 1, cid: 0x22 });
}

#[test]
fn a_silent_host_expires_and_traffic_keeps_it() {
    let mut rig = Rig::ready(Kind::Io);
    assert_eq!(rig.controller.expires(), Time(0) + Span::from_secs(6));
    rig.now = Time(0) + SECOND;
    assert_eq!(rig.complete(&admin(opcode::KEEP_ALIVE, 0, 0, 0)), Ok(0));
    assert_eq!(rig.controller.expires(), Time(0) + Span::from_secs(7));
    rig.controller.seen(Time(0) + Span::from_secs(3));
    assert_eq!(rig.controller.expires(), Time(0) + Span::from_secs(9));
    let off = admin(opcode::SET_FEATURES, 0, u32::from(feature::KEEP_ALIVE_TIMER), 0);
    assert_eq!(rig.complete(&off), Ok(0));
    assert_eq!(rig.controller.expires(), Time::NEVER);
    assert_eq!(rig.complete(&admin(opcode::KEEP_ALIVE, 0, 0, 0)), Err(final_error(Status::KEEP_ALIVE_INVALID)));
}

#[test]
fn unknown_commands_are_told_as_such() {
    let mut rig = Rig::ready(Kind::Io);
    let known = [2, 6, 8, 9, 0x0a, 0x0c, 0x18, 0x7f];
    for opcode in (0..=255).filter(|opcode| !known.contains(opcode)) {
        assert_eq!(rig.complete(&admin(opcode, 1, 0, 0)), Err(final_error(Status::INVALID_OPCODE)), "{opcode:#x}");
    }
    for (fabrics_type, status) in
        [(1, Status::SEQUENCE_ERROR), (5, Status::INVALID_OPCODE), (8, Status::INVALID_QUEUE_TYPE)]
    {
        assert_eq!(rig.complete(&admin(opcode::FABRICS, fabrics_type, 0, 0)), Err(final_error(status)));
    }
}

#[test]
fn data_of_admin_commands_is_judged_before_it_comes() {
    let set = |id: u8, data| SubmissionEntry { data, ..admin(opcode::SET_FEATURES, 0, u32::from(id), 0) };
    let inside = SglDescriptor::in_capsule(0, 8);
    assert_eq!(admin_data(&set(feature::TIMESTAMP, inside), 8), Ok(DataPath::InCapsule));
    assert_eq!(admin_data(&set(feature::TIMESTAMP, SglDescriptor::transport(8)), 0), Ok(DataPath::Asked));
    assert_eq!(admin_data(&set(feature::ARBITRATION, SglDescriptor::transport(0)), 0), Ok(DataPath::None));
    let bad = Err(final_error(Status::DATA_SGL_LENGTH_INVALID));
    assert_eq!(admin_data(&set(feature::ARBITRATION, inside), 8), bad);
    assert_eq!(admin_data(&set(feature::TIMESTAMP, SglDescriptor::transport(8193)), 0), bad);
    assert_eq!(admin_data(&identify(1, 0), 0), Ok(DataPath::None));
    assert_eq!(admin_data(&identify(1, 0), 8), bad);
}

#[test]
fn connect_is_judged_parameter_by_parameter() {
    let connect = Connect { format: 0, queue_id: 0, last_entry: 31, attributes: 0, keep_alive_ms: 0 };
    assert_eq!(judge_connect(&connect, 128), Ok(32));
    let refused = judge_connect(&Connect { format: 1, ..connect }, 128);
    assert_eq!(refused, Err(Refusal::of(final_error(Status::CONNECT_INCOMPATIBLE_FORMAT))));
    for last_entry in [0, 128, u16::MAX] {
        let refused = judge_connect(&Connect { last_entry, ..connect }, 128);
        assert_eq!(refused, Err(Refusal::parameter(ConnectField::SQSIZE)));
    }
    let exports = exports();
    let judge = |subsystem: &str, host: &str, id| judge_admin(&exports, 0, subsystem, host, id);
    assert_eq!(judge(OPEN, "nqn.h", 0xffff), Ok(Kind::Io));
    assert_eq!(judge(nvme::discovery::DISCOVERY_NQN, "nqn.h", 0xffff), Ok(Kind::Discovery));
    assert_eq!(judge(OPEN, "nqn.h", 1), Err(Refusal::parameter(ConnectField::CONTROLLER_ID)));
    assert_eq!(judge("nqn.none", "nqn.h", 0xffff), Err(Refusal::parameter(ConnectField::SUBSYSTEM_NQN)));
    let refused = Err(Refusal::of(final_error(Status::CONNECT_INVALID_HOST)));
    assert_eq!(judge("nqn.2024-01.example:shut", "nqn.h", 0xffff), refused);
    assert_eq!(judge("nqn.2024-01.example:shut", "nqn.host:a", 0xffff), Ok(Kind::Io));
}
