//! Log pages (Base, section 5.16): which page, which part of it, and the error log behind page 01h.

use std::collections::VecDeque;

use nvme::entry::SubmissionEntry;
use nvme::layout::padded;
use nvme::log_page::{self, ErrorEntry, FirmwareSlotLog};
use nvme::opcode;
use nvme::status::Status;

use super::{Controller, Kind, World};
use crate::command::IO_OPCODES;
use crate::limits::{ERROR_LOG_ENTRIES, MAX_TRANSFER_BYTES};

/// Pages of an I/O controller.
const IO_PAGES: [u8; 6] = [
    log_page::SUPPORTED_PAGES,
    log_page::ERROR_INFORMATION,
    log_page::SMART,
    log_page::FIRMWARE_SLOT,
    log_page::CHANGED_NAMESPACES,
    log_page::EFFECTS,
];

/// Pages of a discovery controller.
const DISCOVERY_PAGES: [u8; 2] = [log_page::SUPPORTED_PAGES, log_page::DISCOVERY];

/// Admin commands as the effects page lists them.
const ADMIN_OPCODES: [u8; 7] = [
    opcode::GET_LOG_PAGE,
    opcode::IDENTIFY,
    opcode::ABORT,
    opcode::SET_FEATURES,
    opcode::GET_FEATURES,
    opcode::ASYNC_EVENT_REQUEST,
    opcode::KEEP_ALIVE,
];

/// NSID of the controller itself, for pages that are not a namespace's.
const ALL_NAMESPACES: u32 = u32::MAX;

/// No parameter of the command is in error (Base, figure 206).
const NO_LOCATION: u16 = 0xffff;

/// The newest errors.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    entries: VecDeque<ErrorEntry>,
    count: u64,
}

impl ErrorLog {
    /// Keeps an error of a command, and forgets the oldest beyond the bound.
    pub(super) fn record(&mut self, entry: &SubmissionEntry, status: Status) {
        self.count += 1;
        if self.entries.len() == ERROR_LOG_ENTRIES {
            self.entries.pop_back();
        }
        self.entries.push_front(ErrorEntry {
            count: self.count,
            sq_id: 0,
            cid: entry.cid,
            status: status.0 << 1,
            location: NO_LOCATION,
            lba: 0,
            nsid: if entry.opcode == opcode::FABRICS { 0 } else { entry.nsid },
            transport: nvme::discovery::TRANSPORT_TCP,
        });
    }

    fn page(&self) -> Vec<u8> {
        let mut page = vec![0; ERROR_LOG_ENTRIES * ErrorEntry::SIZE];
        for (place, entry) in page.chunks_exact_mut(ErrorEntry::SIZE).zip(&self.entries) {
            entry.encode_into(place);
        }
        page
    }
}

impl Controller {
    /// The part of a log page that a command asks for.
    pub(super) fn get_log_page(&mut self, world: &World<'_>, entry: &SubmissionEntry) -> Result<Vec<u8>, Status> {
        let id = entry.cdw10 as u8;
        let retain = entry.cdw10 >> 15 & 1 != 0;
        let dwords = u64::from(entry.cdw10 >> 16) | u64::from(entry.cdw11 & 0xffff) << 16;
        let length = (dwords + 1) * 4;
        let offset = u64::from(entry.cdw12) | u64::from(entry.cdw13) << 32;
        // Base, section 5.16: the offset counts dwords' bytes; bit 23 of dword 14 would make it an index, not offered.
        if length > u64::from(MAX_TRANSFER_BYTES) || !offset.is_multiple_of(4) || entry.cdw14 >> 23 & 1 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let pages: &[u8] = match self.kind {
            Kind::Io => &IO_PAGES,
            Kind::Discovery => &DISCOVERY_PAGES,
        };
        if !pages.contains(&id) {
            return Err(Status::INVALID_LOG_PAGE);
        }
        let page = match id {
            log_page::SUPPORTED_PAGES => log_page::supported_pages(pages).to_vec(),
            log_page::ERROR_INFORMATION => self.errors.page(),
            // LPA bit 0 is 0: health is the controller's, not a namespace's (Base, section 5.16.1.3).
            log_page::SMART if !matches!(entry.nsid, 0 | ALL_NAMESPACES) => return Err(Status::INVALID_FIELD),
            log_page::SMART => {
                let mut smart = *world.smart;
                smart.error_entries = u128::from(self.errors.count);
                smart.encode().to_vec()
            }
            log_page::FIRMWARE_SLOT => FirmwareSlotLog { active: 1, slot_1: padded(world.firmware) }.encode().to_vec(),
            log_page::CHANGED_NAMESPACES => self.events.read_changed(retain),
            log_page::EFFECTS => log_page::effects(&ADMIN_OPCODES, &IO_OPCODES).to_vec(),
            _ => {
                // A host that reads the log in parts clears the event with its last read (RAE is 0 there).
                self.events.read_discovery(retain);
                world.exports.discovery_page(&self.host.nqn, world.local)
            }
        };
        let rest = usize::try_from(offset).ok().and_then(|offset| page.get(offset..)).ok_or(Status::INVALID_FIELD)?;
        let mut part = vec![0; length as usize];
        let there = rest.len().min(part.len());
        part[..there].copy_from_slice(&rest[..there]);
        Ok(part)
    }
}
