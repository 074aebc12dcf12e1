//! One io_uring and everything the kernel may touch on its behalf: the pool's mapping, the open files, a table of vectors
//! for each slot, a source of zeros. It keeps all of these alive until the kernel has let go of them.
//!
//! JUSTIFICATION for unsafe: submission entries carry raw addresses. They name (1) blocks of the pool, which their owner
//! leaves alone until completion by the rule of `ports`, (2) vectors of a slot, which change only while the slot has
//! nothing in the kernel, (3) the zeros, which nobody ever writes.
#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use base::BLOCK;
use io_uring::{IoUring, opcode, squeue, types};
use ports::{BufferId, MAX_DEVICE_BLOCKS};

use crate::blocking_sys::ZeroMode;
use crate::device::{Medium, OpenDevice};
use crate::device_set::DeviceSet;
use crate::map_sys::Mapping;
use crate::pool::Pool;

/// Bytes of one registered buffer: the kernel takes at most 1 GiB each (io_uring_register(2)).
const REGISTERED_BYTES: usize = 1 << 30;

/// Most registered buffers (io_uring_register(2)).
const MAX_REGISTERED: usize = 16_384;

/// Places of the submission queue; more wait until these are handed over.
const SUBMISSION_PLACES: u32 = 256;

/// Bytes of zeros that are written at once.
pub(crate) const ZERO_BYTES: usize = 1 << 20;

/// Seconds that the end waits for the kernel to let go.
const LAST_WAIT_S: u64 = 10;

/// What one entry does.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Reads into, or writes from, these vectors of the slot.
    Transfer {
        /// Which way.
        write: bool,
        /// Durable at completion.
        durable: bool,
        /// The vectors.
        vectors: Range<usize>,
        /// Bytes from the start of the device.
        offset: u64,
    },
    /// Makes ended writes durable.
    Sync,
    /// Makes bytes zero by `fallocate(2)`.
    Zero {
        /// How.
        mode: ZeroMode,
        /// Bytes from the start of the device.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Writes zeros, at most [`ZERO_BYTES`].
    WriteZeros {
        /// Bytes from the start of the device.
        offset: u64,
        /// Bytes.
        length: usize,
    },
}

/// What the kernel may touch.
struct Lent {
    pool: Arc<Pool>,
    /// Keeps the files open.
    _devices: Arc<DeviceSet>,
    vectors: Box<[libc::iovec]>,
    zeros: Mapping,
}

/// The ring.
pub(crate) struct Ring {
    ring: ManuallyDrop<IoUring>,
    lent: ManuallyDrop<Lent>,
    slots: usize,
    registered: bool,
    unsubmitted: usize,
    in_kernel: usize,
}

// SAFETY: a ring is used by one thread at a time; the addresses in its vectors name memory that outlives it.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring with `slots` places, and a note if the pool could not be registered.
    pub(crate) fn new(pool: &Arc<Pool>, devices: &Arc<DeviceSet>, slots: usize) -> io::Result<(Self, Option<String>)> {
        let completions = u32::try_from(slots.max(SUBMISSION_PLACES as usize)).expect("slots are few");
        let ring = IoUring::builder()
            .setup_cqsize(completions)
            .setup_clamp()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSION_PLACES)
            // Kernels before 6.0 do not know the flags, which only save interrupts.
            .or_else(|_| IoUring::builder().setup_cqsize(completions).build(SUBMISSION_PLACES))?;
        ring.submitter()
            .register_files(&devices.ids().map(|id| descriptor(devices.get(id).as_deref())).collect::<Vec<_>>())?;
        let note = register(&ring, pool.mapping())
            .err()
            .map(|error| format!("the buffer pool is not registered with io_uring ({error}): raise RLIMIT_MEMLOCK"));
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let lent = Lent {
            pool: Arc::clone(pool),
            _devices: Arc::clone(devices),
            vectors: vec![empty; slots * MAX_DEVICE_BLOCKS].into_boxed_slice(),
            zeros: Mapping::anonymous(ZERO_BYTES, false)?,
        };
        let ring = Self {
            ring: ManuallyDrop::new(ring),
            lent: ManuallyDrop::new(lent),
            slots,
            registered: note.is_none(),
            unsubmitted: 0,
            in_kernel: 0,
        };
        Ok((ring, note))
    }

    /// Readable while completions wait.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor stays open for as long as the ring is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// Names the file of a place, which has nothing in the kernel, anew. The kernel keeps it open for as long as it is named.
    pub(crate) fn change_file(&mut self, place: u32, device: Option<&OpenDevice>) -> io::Result<()> {
        self.ring.submitter().register_files_update(place, &[descriptor(device)]).map(|_| ())
    }

    /// Names the buffers of a slot that has nothing in the kernel, adjacent ones as one vector; says how many vectors.
    pub(crate) fn load(&mut self, slot: usize, buffers: &[BufferId]) -> usize {
        assert!(slot < self.slots && buffers.len() <= MAX_DEVICE_BLOCKS, "a slot has {MAX_DEVICE_BLOCKS} vectors");
        let lent = &mut *self.lent;
        let table = &mut lent.vectors[slot * MAX_DEVICE_BLOCKS..][..MAX_DEVICE_BLOCKS];
        let mut count = 0;
        let mut end = std::ptr::null_mut();
        for &buffer in buffers {
            let address = lent.pool.pointer(buffer).address();
            if address == end {
                table[count - 1].iov_len += BLOCK;
            } else {
                table[count] = libc::iovec { iov_base: address.cast(), iov_len: BLOCK };
                count += 1;
            }
            end = address.wrapping_add(BLOCK);
        }
        count
    }

    /// Steps over bytes that are done; says which vectors are left.
    pub(crate) fn advance(&mut self, slot: usize, vectors: Range<usize>, mut bytes: usize) -> Range<usize> {
        let table = &mut self.lent.vectors[slot * MAX_DEVICE_BLOCKS..][..MAX_DEVICE_BLOCKS];
        let mut first = vectors.start;
        while bytes > 0 {
            assert!(first < vectors.end, "no more is done than was asked for");
            let vector = &mut table[first];
            let step = bytes.min(vector.iov_len);
            vector.iov_base = vector.iov_base.wrapping_byte_add(step);
            vector.iov_len -= step;
            bytes -= step;
            if vector.iov_len == 0 {
                first += 1;
            }
        }
        first..vectors.end
    }

    /// Queues an entry for a slot that has nothing in the kernel, or says that there is no place now.
    pub(crate) fn push(&mut self, slot: usize, file: u32, work: &Work, user_data: u64) -> bool {
        let entry = self.entry(slot, types::Fixed(file), work).user_data(user_data);
        // SAFETY: the entry names only what `lent` keeps; see the JUSTIFICATION.
        let mut pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            self.submit();
            // SAFETY: as above.
            pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        }
        if pushed {
            self.unsubmitted += 1;
            self.in_kernel += 1;
        }
        pushed
    }

    /// Hands over what is queued, and lets the kernel post what it has ready.
    pub(crate) fn submit(&mut self) {
        if self.unsubmitted == 0 && !self.ring.submission().taskrun() {
            return;
        }
        // An error (EAGAIN, EBUSY, EINTR) leaves the entries queued; the next turn tries again.
        if self.ring.submit().is_ok() {
            self.unsubmitted = self.ring.submission().len();
        }
    }

    /// Whether completions wait, as far as can be seen without a system call.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.unsubmitted == 0 && !self.ring.submission().taskrun() && self.ring.completion().is_empty()
    }

    /// Takes one completion: the entry's number and its result.
    pub(crate) fn reap(&mut self) -> Option<(u64, i32)> {
        if self.in_kernel == 0 {
            return None;
        }
        let entry = self.ring.completion().next()?;
        self.in_kernel -= 1;
        Some((entry.user_data(), entry.result()))
    }

    /// Lets the kernel post completions that wait for this thread to enter it.
    pub(crate) fn poke(&mut self) {
        if self.in_kernel > 0 && self.ring.submission().taskrun() {
            self.submit();
        }
    }

    fn entry(&self, slot: usize, file: types::Fixed, work: &Work) -> squeue::Entry {
        match *work {
            Work::Sync => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            Work::Zero { mode, offset, length } => {
                opcode::Fallocate::new(file, length).offset(offset).mode(mode.flags()).build()
            }
            Work::WriteZeros { offset, length } => {
                assert!(length <= ZERO_BYTES, "there are {ZERO_BYTES} bytes of zeros");
                let zeros = self.lent.zeros.base().as_ptr();
                opcode::Write::new(file, zeros, length as u32).offset(offset).build()
            }
            Work::Transfer { write, durable, ref vectors, offset } => {
                let vectors = &self.lent.vectors[slot * MAX_DEVICE_BLOCKS..][vectors.clone()];
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                match (vectors, self.registered_index(vectors)) {
                    ([run], Some(index)) if write => {
                        opcode::WriteFixed::new(file, run.iov_base.cast(), run.iov_len as u32, index)
                            .offset(offset)
                            .rw_flags(flags)
                            .build()
                    }
                    ([run], Some(index)) => {
                        opcode::ReadFixed::new(file, run.iov_base.cast(), run.iov_len as u32, index)
                            .offset(offset)
                            .build()
                    }
                    _ if write => opcode::Writev::new(file, vectors.as_ptr(), vectors.len() as u32)
                        .offset(offset)
                        .rw_flags(flags)
                        .build(),
                    _ => opcode::Readv::new(file, vectors.as_ptr(), vectors.len() as u32).offset(offset).build(),
                }
            }
        }
    }

    /// The registered buffer in which a single run lies as a whole.
    fn registered_index(&self, vectors: &[libc::iovec]) -> Option<u16> {
        let [run] = vectors else { return None };
        if !self.registered {
            return None;
        }
        let first = run.iov_base as usize - self.lent.pool.mapping().base().as_ptr() as usize;
        let index = first / REGISTERED_BYTES;
        if index == (first + run.iov_len - 1) / REGISTERED_BYTES { u16::try_from(index).ok() } else { None }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let wait = types::Timespec::new().sec(LAST_WAIT_S);
        // The bound: each round takes at least one completion, or is the last.
        while self.in_kernel > 0 {
            while self.reap().is_some() {}
            if self.in_kernel == 0 {
                break;
            }
            let arguments = types::SubmitArgs::new().timespec(&wait);
            let waited = self.ring.submitter().submit_with_args(1, &arguments);
            if waited.is_err() && self.ring.completion().is_empty() {
                break;
            }
        }
        // The kernel takes a ring apart some time after it is closed. Files let go of now can be locked anew at once; if
        // this fails, a little later.
        let _ = self.ring.submitter().unregister_files();
        // SAFETY: this is the end of the ring; it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if self.in_kernel == 0 {
            // SAFETY: the kernel holds none of it any more; it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.lent) };
        }
        // Otherwise a device hangs and the kernel may still write to the memory: it stays mapped until the process ends.
    }
}

/// The descriptor of a device; -1 where there is none.
fn descriptor(device: Option<&OpenDevice>) -> RawFd {
    match device.map(OpenDevice::medium) {
        Some(Medium::File(file, _)) => file.as_raw_fd(),
        Some(Medium::Ram(_)) | None => -1,
    }
}

fn register(ring: &IoUring, mapping: &Mapping) -> io::Result<()> {
    let base = mapping.base().as_ptr();
    let vectors: Vec<libc::iovec> = (0..mapping.length())
        .step_by(REGISTERED_BYTES)
        .map(|at| libc::iovec {
            iov_base: base.wrapping_add(at).cast(),
            iov_len: REGISTERED_BYTES.min(mapping.length() - at),
        })
        .collect();
    if vectors.len() > MAX_REGISTERED {
        return Err(io::Error::from(io::ErrorKind::OutOfMemory));
    }
    // SAFETY: the vectors name the pool's mapping, which the ring's `lent` keeps alive.
    unsafe { ring.submitter().register_buffers(&vectors) }
}
