//! Helper threads that do device calls which wait: for an emulated volatile cache, and for all files where io_uring is
//! forbidden (many containers). Slower than io_uring by a thread switch for each request, with the same meaning.

use std::sync::Arc;
use std::thread::JoinHandle;

use base::ids::{DeviceBlock, DeviceId};
use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;
use ports::{BufferId, Completion, DeviceError, DeviceOp, DeviceRequest, MAX_DEVICE_BLOCKS, QueueFull};

use crate::device_set::DeviceSet;
use crate::map_sys::BlockPointer;
use crate::mesh::Doorbell;
use crate::pool::Pool;
use crate::signal_sys::SignalStack;

/// Helper threads of a process.
pub(crate) const HELPER_THREADS: usize = 4;

/// Most requests of one reactor that helpers have at once.
pub(crate) const HELPER_DEPTH: usize = 128;

struct Job {
    queue: Arc<Ended>,
    tag: u64,
    device: DeviceId,
    op: DeviceOp,
    start: DeviceBlock,
    count: usize,
    buffers: [BufferId; MAX_DEVICE_BLOCKS],
}

/// What has ended for one reactor, and how to wake it.
struct Ended {
    list: ArrayQueue<(DeviceId, Completion)>,
    doorbell: Arc<Doorbell>,
}

/// The threads. They end when it is dropped, after what they have been given.
pub(crate) struct Helpers {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Starts them; they serve `reactors` queues.
    pub(crate) fn start(set: &Arc<DeviceSet>, pool: &Arc<Pool>, reactors: usize) -> std::io::Result<Self> {
        let (jobs, work) = bounded(reactors * HELPER_DEPTH);
        let mut threads = Vec::new();
        for number in 0..HELPER_THREADS {
            let (work, set, pool) = (Receiver::clone(&work), Arc::clone(set), Arc::clone(pool));
            let builder = std::thread::Builder::new().name(format!("device-{number}"));
            threads.push(builder.spawn(move || serve(&work, &set, &pool))?);
        }
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// A reactor's own queue.
    pub(crate) fn queue(&self, doorbell: Arc<Doorbell>) -> HelperQueue {
        let ended = Ended { list: ArrayQueue::new(HELPER_DEPTH), doorbell };
        let jobs = self.jobs.clone().expect("the helpers run until they are dropped");
        HelperQueue { jobs, ended: Arc::new(ended), in_flight: 0 }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A helper that panicked has shown its message already.
            let _ = thread.join();
        }
    }
}

/// A reactor's queue to the helpers.
pub(crate) struct HelperQueue {
    jobs: Sender<Job>,
    ended: Arc<Ended>,
    in_flight: usize,
}

impl HelperQueue {
    /// Hands a request over.
    pub(crate) fn submit(&mut self, request: &DeviceRequest<'_>) -> Result<(), QueueFull> {
        if self.in_flight == HELPER_DEPTH {
            return Err(QueueFull);
        }
        let mut buffers = [BufferId(0); MAX_DEVICE_BLOCKS];
        buffers[..request.buffers.len()].copy_from_slice(request.buffers);
        let job = Job {
            queue: Arc::clone(&self.ended),
            tag: request.tag,
            device: request.device,
            op: request.op,
            start: request.start,
            count: request.buffers.len(),
            buffers,
        };
        // The channel has room for all that all reactors may have in flight; it fails only if the helpers are gone.
        self.jobs.try_send(job).map_err(|_| QueueFull)?;
        self.in_flight += 1;
        Ok(())
    }

    /// Takes one that has ended.
    pub(crate) fn ended(&mut self) -> Option<(DeviceId, Completion)> {
        if self.in_flight == 0 || self.ended.list.is_empty() {
            return None;
        }
        let found = self.ended.list.pop()?;
        self.in_flight -= 1;
        Some(found)
    }

    /// Whether nothing has ended that was not taken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ended.list.is_empty()
    }
}

fn serve(work: &Receiver<Job>, set: &DeviceSet, pool: &Pool) {
    let _signals = SignalStack::new();
    let mut blocks: Vec<BlockPointer> = Vec::with_capacity(MAX_DEVICE_BLOCKS);
    while let Ok(job) = work.recv() {
        blocks.clear();
        blocks.extend(job.buffers[..job.count].iter().map(|&buffer| pool.pointer(buffer)));
        // A place is emptied when nobody uses its device; it gets no other before this has ended.
        let device = set.get(job.device).ok_or(DeviceError::Gone);
        let result = device.and_then(|device| device.perform(job.op, job.start.0, &blocks));
        let pushed = job.queue.list.push((job.device, Completion { tag: job.tag, result }));
        assert!(pushed.is_ok(), "a reactor has no more in flight than its list has places");
        job.queue.doorbell.ring();
    }
}
