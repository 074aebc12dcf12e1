//! Finds PDUs in a stream of bytes, at any segmentation, without allocating: says what each run of bytes is and where it
//! belongs. Small PDUs are decoded where they lie in the receiver's buffer; payload is never copied here, so that it can
//! be received straight into its blocks. It knows no command: whether a PDU may come now is the queue's affair.
//!
//! The caller loops: [`Deframer::step`] over what it received; at [`Step::Payload`] it puts the bytes where they belong
//! and tells [`Deframer::payload`], or asks [`Deframer::expected_payload`] before it receives and lets them come there
//! directly.

use crate::limits::MAX_PDU_HEADER_BYTES;
use crate::pdu::{self, COMMON_BYTES, Common, DIGEST_BYTES, Digests, Direction, Fatal, FatalStatus, Header};

/// What the bytes at hand are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "lives for one call; a box would allocate on the data path")]
pub enum Step {
    /// All bytes were taken, and more are needed.
    More,
    /// A header. If [`Deframer::expected_payload`] is now more than 0, payload follows and then [`Step::End`].
    Head(Header),
    /// The next bytes, as many as this at most, are payload of the last header.
    Payload(usize),
    /// The payload of the last header is complete.
    End {
        /// Whether its digest, if it has one, matches.
        intact: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Pad,
    Payload,
    Digest,
}

/// The state between receives.
#[derive(Debug)]
pub struct Deframer {
    direction: Direction,
    digests: Digests,
    stage: Stage,
    /// Start of a header that came in parts; after an error, of the header in error.
    partial: [u8; MAX_PDU_HEADER_BYTES],
    have: usize,
    pad: usize,
    payload: usize,
    data_digest: bool,
    sum: u32,
}

impl Deframer {
    /// A deframer at the start of a connection, where no digest is in use.
    pub const fn new(direction: Direction) -> Self {
        Self {
            direction,
            digests: Digests { header: false, data: false },
            stage: Stage::Head,
            partial: [0; MAX_PDU_HEADER_BYTES],
            have: 0,
            pad: 0,
            payload: 0,
            data_digest: false,
            sum: 0,
        }
    }

    /// Sets the digests agreed by the initial exchange, for all later PDUs.
    pub const fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// The digests in use.
    pub const fn digests(&self) -> Digests {
        self.digests
    }

    /// Payload of the current PDU that has not come yet; 0 while a header is awaited.
    #[inline]
    pub const fn expected_payload(&self) -> usize {
        self.payload
    }

    /// Payload that the very next bytes of the stream are: what may be received directly to its place.
    #[inline]
    pub fn direct_payload(&self) -> usize {
        if self.stage == Stage::Payload { self.payload } else { 0 }
    }

    /// What came of the header in error, for a termination request.
    pub fn offending(&self) -> &[u8] {
        &self.partial[..self.have]
    }

    /// Keeps a header that was decoded and then refused, for [`Deframer::offending`]. `taken` is what its last step took.
    pub fn refuse(&mut self, header: &Header, taken: &[u8]) {
        let length = usize::from(header.common().header_bytes);
        self.have = 0;
        if taken.len() < header.common().head_bytes(self.digests) {
            // It came in parts, so that it lies here already.
            self.have = length;
        } else {
            self.keep(&taken[..length]);
        }
    }

    /// Looks at the next bytes of the stream; says how many it took and what they are. Payload is not taken: that is told
    /// by [`Deframer::payload`]. After an error the deframer is not to be used again, but for [`Deframer::offending`].
    #[inline]
    pub fn step(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fatal> {
        match self.stage {
            Stage::Head if self.have == 0 => self.whole_head(bytes),
            Stage::Head => self.partial_head(bytes),
            Stage::Pad => {
                let taken = self.pad.min(bytes.len());
                self.pad -= taken;
                if self.pad > 0 {
                    return Ok((taken, Step::More));
                }
                self.stage = Stage::Payload;
                Ok((taken, self.payload_step(bytes.len() - taken)))
            }
            Stage::Payload if self.payload > 0 => Ok((0, self.payload_step(bytes.len()))),
            Stage::Payload if !self.data_digest => {
                self.stage = Stage::Head;
                Ok((0, Step::End { intact: true }))
            }
            Stage::Payload | Stage::Digest => {
                self.stage = Stage::Digest;
                let taken = (DIGEST_BYTES - self.have).min(bytes.len());
                self.keep(&bytes[..taken]);
                if self.have < DIGEST_BYTES {
                    return Ok((taken, Step::More));
                }
                let intact = self.partial[..DIGEST_BYTES] == self.sum.to_le_bytes();
                self.have = 0;
                self.stage = Stage::Head;
                Ok((taken, Step::End { intact }))
            }
        }
    }

    /// Tells of payload that came, in order; its digest is computed here.
    ///
    /// # Panics
    /// If there is more than was expected.
    #[inline]
    pub fn payload(&mut self, bytes: &[u8]) {
        assert!(self.stage == Stage::Payload && bytes.len() <= self.payload, "payload beyond what was expected");
        self.payload -= bytes.len();
        if self.data_digest {
            self.sum = pdu::digest_append(self.sum, bytes);
        }
    }

    fn payload_step(&self, at_hand: usize) -> Step {
        if at_hand == 0 { Step::More } else { Step::Payload(self.payload.min(at_hand)) }
    }

    #[inline]
    fn whole_head(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fatal> {
        if let Ok(common) = Common::decode(bytes) {
            let result = common.check(self.direction, self.digests).and_then(|()| {
                let head = common.head_bytes(self.digests);
                if bytes.len() < head { Ok(None) } else { self.head(common, &bytes[..head]).map(Some) }
            });
            match result {
                Ok(Some(header)) => return Ok((common.head_bytes(self.digests), Step::Head(header))),
                Ok(None) => {}
                Err(fatal) => {
                    self.keep(&bytes[..bytes.len().min(usize::from(common.header_bytes).max(COMMON_BYTES))]);
                    return Err(fatal);
                }
            }
        }
        self.keep(bytes);
        Ok((bytes.len(), Step::More))
    }

    fn partial_head(&mut self, bytes: &[u8]) -> Result<(usize, Step), Fatal> {
        let mut taken = 0;
        if self.have < COMMON_BYTES {
            taken = (COMMON_BYTES - self.have).min(bytes.len());
            self.keep(&bytes[..taken]);
        }
        let Ok(common) = Common::decode(&self.partial[..self.have]) else { return Ok((taken, Step::More)) };
        common.check(self.direction, self.digests)?;
        let head = common.head_bytes(self.digests);
        let more = (head - self.have).min(bytes.len() - taken);
        self.keep(&bytes[taken..taken + more]);
        taken += more;
        if self.have < head {
            return Ok((taken, Step::More));
        }
        let partial = self.partial;
        let header = self.head(common, &partial[..head])?;
        self.have = 0;
        Ok((taken, Step::Head(header)))
    }

    /// Checks and decodes a complete head, and prepares for what follows it.
    #[inline]
    fn head(&mut self, common: Common, bytes: &[u8]) -> Result<Header, Fatal> {
        let digests = common.digests_in_use(self.digests);
        let (header, sum) = bytes.split_at(usize::from(common.header_bytes));
        if digests.header && pdu::digest(header).to_le_bytes() != *sum {
            let received = u32::from_le_bytes(sum.try_into().expect("a digest has four bytes"));
            return Err(Fatal { status: FatalStatus::HeaderDigest, information: received });
        }
        let decoded = Header::decode(common, header, self.digests)?;
        let body = common.body_bytes(self.digests);
        if body.payload > 0 {
            self.pad = body.pad;
            self.payload = body.payload;
            self.data_digest = digests.data;
            self.sum = 0;
            self.stage = if body.pad > 0 { Stage::Pad } else { Stage::Payload };
        }
        Ok(decoded)
    }

    /// Keeps bytes of a header or digest that came in parts. What does not fit is not kept: only an error asks for more.
    fn keep(&mut self, bytes: &[u8]) {
        let room = &mut self.partial[self.have..];
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.have += length;
    }
}

#[cfg(test)]
mod tests {
    use nvme::entry::SubmissionEntry;

    use super::*;
    use crate::pdu::Transfer;

    /// What a receiver sees: headers, payload bytes and ends.
    #[derive(Debug, PartialEq, Default)]
    struct Seen {
        heads: Vec<Header>,
        payload: Vec<u8>,
        ends: Vec<bool>,
    }

    fn feed(deframer: &mut Deframer, mut bytes: &[u8], seen: &mut Seen) -> Result<(), Fatal> {
        loop {
            let (taken, step) = deframer.step(bytes)?;
            bytes = &bytes[taken..];
            match step {
                Step::More => {
                    assert!(bytes.is_empty(), "more is asked for when all was taken");
                    return Ok(());
                }
                Step::Head(header) => seen.heads.push(header),
                Step::Payload(length) => {
                    deframer.payload(&bytes[..length]);
                    seen.payload.extend_from_slice(&bytes[..length]);
                    bytes = &bytes[length..];
                }
                Step::End { intact } => seen.ends.push(intact),
            }
        }
    }

    fn push_data(stream: &mut Vec<u8>, data: &[u8], digests: Digests) {
        stream.extend_from_slice(data);
        if digests.data {
            stream.extend_from_slice(&pdu::digest(data).to_le_bytes());
        }
    }

    fn sample(digests: Digests) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut out = [0; 256];
        let entry = SubmissionEntry { opcode: 2, cid: 1, ..SubmissionEntry::default() };
        let head = pdu::command(&mut out, entry, 0, digests);
        stream.extend_from_slice(&out[..head]);
        let entry = SubmissionEntry { opcode: 1, cid: 2, ..SubmissionEntry::default() };
        let head = pdu::command(&mut out, entry, 40, digests);
        stream.extend_from_slice(&out[..head]);
        push_data(&mut stream, &[0x5a; 40], digests);
        let transfer = Transfer { cid: 3, tag: 4, offset: 0, length: 9 };
        let head = pdu::host_data(&mut out, transfer, true, digests);
        stream.extend_from_slice(&out[..head]);
        push_data(&mut stream, b"123456789", digests);
        let length = pdu::term_req(&mut out, Direction::ToHost, Fatal::field(3), &[1; 24]);
        stream.extend_from_slice(&out[..length]);
        stream
    }

    const ALL: [Digests; 4] = [
        Digests { header: false, data: false },
        Digests { header: true, data: false },
        Digests { header: false, data: true },
        Digests { header: true, data: true },
    ];

    fn receiver(digests: Digests) -> Deframer {
        let mut deframer = Deframer::new(Direction::ToController);
        deframer.set_digests(digests);
        deframer
    }

    #[test]
    fn any_segmentation_gives_the_same_pdus() {
        for digests in ALL {
            let stream = sample(digests);
            let mut whole = Seen::default();
            feed(&mut receiver(digests), &stream, &mut whole).expect("well formed");
            assert_eq!((whole.heads.len(), whole.payload.len(), &whole.ends[..]), (4, 40 + 9 + 24, &[true; 3][..]));
            for cut in 0..=stream.len() {
                for second in cut..=stream.len() {
                    let mut seen = Seen::default();
                    let mut deframer = receiver(digests);
                    for part in [&stream[..cut], &stream[cut..second], &stream[second..]] {
                        feed(&mut deframer, part, &mut seen).expect("well formed");
                    }
                    assert_eq!(seen, whole, "cut at {cut} and {second}");
                }
            }
            let mut seen = Seen::default();
            let mut deframer = receiver(digests);
            for byte in stream.chunks(1) {
                feed(&mut deframer, byte, &mut seen).expect("well formed");
            }
            assert_eq!(seen, whole, "byte by byte");
        }
    }

    #[test]
    fn truncation_at_every_byte_asks_for_more_and_never_ends() {
        let digests = ALL[3];
        let stream = sample(digests);
        let last = stream.len() - 1;
        for length in 0..=last {
            let mut seen = Seen::default();
            feed(&mut receiver(digests), &stream[..length], &mut seen).expect("well formed");
            assert!(seen.ends.len() < 3);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_fatal_and_in_data_is_told() {
        let digests = ALL[3];
        let stream = sample(digests);
        for at in 8..76 {
            let mut bad = stream.clone();
            bad[at] ^= 0x10;
            let mut deframer = receiver(digests);
            let fatal = feed(&mut deframer, &bad, &mut Seen::default()).unwrap_err();
            assert_eq!(fatal.status, FatalStatus::HeaderDigest);
            assert_eq!(deframer.offending(), &bad[..72]);
            let received = u32::from_le_bytes(bad[72..76].try_into().expect("four"));
            assert_eq!(fatal.information, received);
            // The same when the header comes in parts.
            let mut deframer = receiver(digests);
            feed(&mut deframer, &bad[..50], &mut Seen::default()).expect("not complete yet");
            assert_eq!(feed(&mut deframer, &bad[50..], &mut Seen::default()), Err(fatal));
            assert_eq!(deframer.offending()[..72], bad[..72]);
        }
        let payload_at = 76 + 76;
        for at in payload_at..payload_at + 44 {
            let mut bad = stream.clone();
            bad[at] ^= 1;
            let mut seen = Seen::default();
            feed(&mut receiver(digests), &bad, &mut seen).expect("data errors are not fatal");
            assert_eq!(seen.ends, [false, true, true]);
        }
    }

    #[test]
    fn a_header_refused_later_is_quoted_however_it_came() {
        let mut out = [0; 128];
        let head = pdu::command(&mut out, SubmissionEntry { cid: 7, ..Default::default() }, 0, ALL[1]);
        for cut in 0..head {
            let mut deframer = receiver(ALL[1]);
            let mut from = &out[..head];
            if cut > 0 {
                assert_eq!(deframer.step(&out[..cut]), Ok((cut, Step::More)));
                from = &out[cut..head];
            }
            let Ok((taken, Step::Head(header))) = deframer.step(from) else { panic!("whole by now") };
            deframer.refuse(&header, &from[..taken]);
            assert_eq!(deframer.offending(), &out[..72]);
        }
    }

    #[test]
    fn direct_payload_is_announced_only_when_it_is_next() {
        let mut out = [0; 128];
        let head = pdu::command(&mut out, SubmissionEntry::default(), 100, ALL[0]);
        out[3] = 76;
        let mut deframer = receiver(ALL[0]);
        assert!(matches!(deframer.step(&out[..head]), Ok((72, Step::Head(_)))));
        assert_eq!((deframer.expected_payload(), deframer.direct_payload()), (96, 0));
        assert_eq!(deframer.step(&[0; 4]), Ok((4, Step::More)));
        assert_eq!(deframer.direct_payload(), 96);
        deframer.payload(&[0; 96]);
        assert_eq!(deframer.step(&[]), Ok((0, Step::End { intact: true })));
        assert_eq!(deframer.step(&[]), Ok((0, Step::More)));
    }
}
