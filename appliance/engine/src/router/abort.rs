//! Aborts of single requests. What was not sent is dropped at once, and each owner is asked to drop what waits with it; what
//! has begun there, in the log or at the members, comes to its end. So a request ends as aborted if any part of it was
//! dropped, and goes on as if nothing had been said if none was.
//!
//! An owner's word comes behind the answers to what it has dropped: once all have spoken, whoever asked can be told.

use base::ids::ShardId;
use base::slab::Key;
use ports::{BufferList, Ports};

use super::{Request, Router};
use crate::fence::Association;
use crate::io::IoError;
use crate::limits::MAX_ABORTS;
use crate::message::Message;

/// An abort under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abort {
    key: Key<Request>,
    token: u64,
    /// This shard's own arrays have not been asked yet.
    fresh: bool,
    /// Owners that have not spoken.
    unanswered: u16,
}

/// Whose waiting fragments are dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dropped {
    /// Those of older epochs.
    Before(Association),
    /// Those of one request of a shard.
    Of(ShardId, u64),
}

impl Dropped {
    /// Whether a fragment of `from` is among them.
    pub(crate) fn includes(self, from: ShardId, association: Association, request: u64) -> bool {
        match self {
            Self::Before(later) => association.is_before(later),
            Self::Of(asker, of) => asker == from && of == request,
        }
    }
}

impl Router {
    /// Begins the abort of the request with this token, which may have ended meanwhile. If it comes to nothing the token
    /// comes out of [`Router::goes_on`]; else the request ends.
    pub(crate) fn abort<P: Ports>(&mut self, ports: &mut P, token: u64) {
        let found = self.requests.iter().find(|(_, request)| !request.for_job && request.token == token);
        // If it is not there its end is on the way to whoever asks.
        let Some((key, _)) = found else { return };
        if self.aborts.iter().any(|abort| abort.key == key) {
            return;
        }
        if self.aborts.len() >= MAX_ABORTS {
            self.go_on.push_back(token);
            return;
        }
        if self.cut_short(ports, key, IoError::Aborted) {
            self.sending.retain(|&other| other != key);
            self.zeroing.retain(|&other| other != key);
            self.held.retain(|&other| other != key);
        }
        for _ in 0..self.local.len() {
            let fragment = self.local.pop_front().expect("as many as there were");
            if fragment.request == key.to_bits() {
                let aborted = fragment.aborted(ports);
                self.answered(ports, self.shard, aborted);
            } else {
                self.local.push_back(fragment);
            }
        }
        match self.requests.get(key) {
            Some(request) if request.unanswered == 0 => self.end(ports, key, BufferList::EMPTY),
            Some(_) => self.aborts.push(Abort { key, token, fresh: true, unanswered: 0 }),
            None => {}
        }
    }

    /// Drops what was not sent of a request; whether anything was. Its owner ends it if nothing of it is under way.
    pub(super) fn cut_short<P: Ports>(&mut self, ports: &mut P, key: Key<Request>, error: IoError) -> bool {
        let request = &mut self.requests[key];
        let rest = request.sent < request.blocks || request.range < request.ranges;
        if rest {
            request.result = Err(error);
            request.range = request.ranges;
            request.blocks = request.sent;
            core::mem::take(&mut request.buffers).free(ports);
        }
        rest
    }

    /// Has the owners of other shards asked for the next abort that they do not know of; the request, for this shard's own
    /// arrays.
    pub(crate) fn next_abort<P: Ports<Message = Message>>(&mut self, ports: &mut P) -> Option<u64> {
        let abort = self.aborts.iter_mut().find(|abort| abort.fresh)?;
        abort.fresh = false;
        let request = abort.key.to_bits();
        for owner in (0..ports.shards()).map(ShardId).filter(|&owner| owner != self.shard) {
            let posted = ports.post(owner, Message::Abort { request });
            assert!(posted.is_ok(), "the mesh keeps room for aborts");
            abort.unanswered += 1;
        }
        Some(request)
    }

    /// An owner has dropped what it could.
    pub(crate) fn abort_tried(&mut self, request: u64) {
        let abort = self.aborts.iter_mut().find(|abort| abort.key.to_bits() == request);
        abort.expect("an abort waits for every owner").unanswered -= 1;
    }

    /// The token of a request whose abort has come to nothing: it goes on. All answers of this turn have been taken.
    pub(crate) fn goes_on(&mut self) -> Option<u64> {
        while let Some(at) = self.aborts.iter().position(|abort| !abort.fresh && abort.unanswered == 0) {
            let Abort { key, token, .. } = self.aborts.swap_remove(at);
            // With a part of it dropped it ends as aborted once the rest has ended.
            if self.requests.get(key).is_some_and(|request| request.result != Err(IoError::Aborted)) {
                self.go_on.push_back(token);
            }
        }
        self.go_on.pop_front()
    }
}
