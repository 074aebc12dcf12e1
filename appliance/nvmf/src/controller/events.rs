//! Asynchronous events (Base, section 5.2): requests that wait, events that wait, and what was told but not yet read. It
//! knows nothing of slots but their numbers.

use nvme::feature::{
    AsyncEvent, EVENT_DISCOVERY_CHANGED, EVENT_NAMESPACE_CHANGED, EVENT_TYPE_NOTICE, NOTICE_DISCOVERY_CHANGED,
    NOTICE_NAMESPACE_CHANGED,
};
use nvme::log_page;
use nvme::status::Status;

use crate::limits::{MAX_ASYNC_EVENT_REQUESTS, MAX_CHANGED_NAMESPACES};
use crate::queue::SlotId;

/// One kind of event.
#[derive(Clone, Copy, Debug, Default)]
struct Notice {
    /// Happened and not told yet.
    pending: bool,
    /// Told, and its log page not read since: not told again (Base, section 5.2: masked until cleared).
    masked: bool,
}

impl Notice {
    fn happened(&mut self) {
        self.pending = true;
    }

    fn take(&mut self) -> bool {
        let due = self.pending && !self.masked;
        if due {
            self.pending = false;
            self.masked = true;
        }
        due
    }
}

/// The events of a controller.
#[derive(Debug, Default)]
pub(super) struct Events {
    requests: [Option<SlotId>; MAX_ASYNC_EVENT_REQUESTS],
    namespace: Notice,
    discovery: Notice,
    /// Changed since the log was read, in rising order; `None` once there were too many to keep.
    changed: ChangedNamespaces,
}

/// Namespaces that changed since the log was read.
#[derive(Debug, Default)]
struct ChangedNamespaces {
    nsids: Vec<u32>,
    too_many: bool,
}

impl Events {
    /// Holds a request, or refuses one too many (AERL).
    pub(super) fn request(&mut self, slot: SlotId) -> Result<(), Status> {
        let place = self.requests.iter_mut().find(|place| place.is_none()).ok_or(Status::ASYNC_EVENT_LIMIT_EXCEEDED)?;
        *place = Some(slot);
        Ok(())
    }

    /// Forgets a held request; says whether it was held.
    pub(super) fn abort(&mut self, slot: SlotId) -> bool {
        let place = self.requests.iter_mut().find(|place| **place == Some(slot));
        place.and_then(Option::take).is_some()
    }

    /// Takes all held requests.
    pub(super) fn take_requests(&mut self) -> impl Iterator<Item = SlotId> + use<> {
        core::mem::take(&mut self.requests).into_iter().flatten()
    }

    /// Forgets events, as a controller reset does; requests stay, for their owner to complete.
    pub(super) fn reset(&mut self) {
        let requests = self.requests;
        *self = Self { requests, ..Self::default() };
    }

    pub(super) fn namespaces_changed(&mut self, nsids: impl Iterator<Item = u32>) {
        for nsid in nsids {
            self.namespace.happened();
            if let Err(place) = self.changed.nsids.binary_search(&nsid) {
                if self.changed.nsids.len() == MAX_CHANGED_NAMESPACES {
                    self.changed.too_many = true;
                } else {
                    self.changed.nsids.insert(place, nsid);
                }
            }
        }
    }

    pub(super) fn discovery_changed(&mut self) {
        self.discovery.happened();
    }

    /// The Changed Namespace List page. Reading it clears it, and its event unless that is to be retained (RAE).
    pub(super) fn read_changed(&mut self, retain: bool) -> Vec<u8> {
        let mut page = vec![0; log_page::CHANGED_NAMESPACES_BYTES];
        let changed = core::mem::take(&mut self.changed);
        if changed.too_many {
            // Base, section 5.16.1.5: FFFFFFFFh alone says that there are more than fit.
            page[..4].fill(0xff);
        } else {
            for (place, nsid) in page.chunks_exact_mut(4).zip(&changed.nsids) {
                place.copy_from_slice(&nsid.to_le_bytes());
            }
        }
        if !retain {
            self.namespace.masked = false;
        }
        page
    }

    /// The discovery log was read.
    pub(super) fn read_discovery(&mut self, retain: bool) {
        if !retain {
            self.discovery.masked = false;
        }
    }

    /// The next held request that completes with an event that is wanted, and its result.
    pub(super) fn poll(&mut self, wanted: u32) -> Option<(SlotId, u64)> {
        let place = self.requests.iter_mut().find(|place| place.is_some())?;
        let (information, log_page) = if wanted & EVENT_NAMESPACE_CHANGED != 0 && self.namespace.take() {
            (NOTICE_NAMESPACE_CHANGED, log_page::CHANGED_NAMESPACES)
        } else if wanted & EVENT_DISCOVERY_CHANGED != 0 && self.discovery.take() {
            (NOTICE_DISCOVERY_CHANGED, log_page::DISCOVERY)
        } else {
            return None;
        };
        let event = AsyncEvent { kind: EVENT_TYPE_NOTICE, information, log_page };
        place.take().map(|slot| (slot, u64::from(event.to_dword())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_until_its_log_is_read() {
        let mut events = Events::default();
        let wanted = EVENT_NAMESPACE_CHANGED;
        events.namespaces_changed([3, 1, 3].into_iter());
        assert_eq!(events.poll(wanted), None, "nobody asks");
        events.request(SlotId(4)).expect("room");
        events.request(SlotId(5)).expect("room");
        assert_eq!(events.poll(0), None, "not wanted");
        assert_eq!(events.poll(wanted), Some((SlotId(4), 0x0004_0002)));
        events.namespaces_changed([7].into_iter());
        assert_eq!(events.poll(wanted), None, "masked until the log is read");
        let page = events.read_changed(true);
        assert_eq!(page[..16], [1, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(events.poll(wanted), None, "retained");
        assert_eq!(events.read_changed(false)[..4], [0; 4]);
        assert_eq!(events.poll(wanted), Some((SlotId(5), 0x0004_0002)));
    }

    #[test]
    fn too_many_changes_are_told_as_such() {
        let mut events = Events::default();
        events.namespaces_changed(1..=MAX_CHANGED_NAMESPACES as u32 + 1);
        assert_eq!(events.read_changed(false)[..8], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn exactly_as_many_requests_as_promised_are_held() {
        let mut events = Events::default();
        for slot in 0..MAX_ASYNC_EVENT_REQUESTS as u16 {
            events.request(SlotId(slot)).expect("room");
        }
        assert_eq!(events.request(SlotId(99)), Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED));
        assert!(events.abort(SlotId(1)) && !events.abort(SlotId(1)));
        events.request(SlotId(99)).expect("room again");
        events.discovery_changed();
        events.reset();
        assert_eq!(events.poll(u32::MAX), None, "a reset forgets events");
        assert_eq!(events.take_requests().count(), MAX_ASYNC_EVENT_REQUESTS);
        assert_eq!(events.take_requests().count(), 0);
    }
}
