//! The flag between one sleeper and many wakers: set the flag, fence, look again, sleep; a waker signals only if the flag
//! is set. It holds no queue and no file descriptor, so that a model checker can walk all its interleavings.
//!
//! Why no wake-up is lost: the sleeper writes the flag and then reads the queues, a waker writes a queue and then reads
//! the flag, and each has a sequentially consistent fence in between. Of two such fences one comes first, so either the
//! waker sees the flag or the sleeper sees the message.

macro_rules! gate {
    ($($atomic:ident)::+) => {
        use $($atomic)::+::{AtomicBool, Ordering, fence};

        /// Whether its one sleeper is asleep or about to be.
        #[derive(Debug)]
        pub(crate) struct Gate {
            sleeping: AtomicBool,
        }

        impl Gate {
            /// A gate whose sleeper is awake.
            pub(crate) fn new() -> Self {
                Self { sleeping: AtomicBool::new(false) }
            }

            /// The sleeper's first step. It then looks at all its queues once more and sleeps only if they are empty.
            pub(crate) fn close(&self) {
                // An exchange and not a store: exchanges of one flag are ordered by what they read, whoever makes them.
                self.sleeping.swap(true, Ordering::AcqRel);
                fence(Ordering::SeqCst);
            }

            /// The sleeper is awake: no signals are needed.
            pub(crate) fn open(&self) {
                self.sleeping.swap(false, Ordering::AcqRel);
            }

            /// The waker's fence, between filling a queue and [`Gate::must_signal`]; one is enough for many gates.
            pub(crate) fn filled() {
                fence(Ordering::SeqCst);
            }

            /// Whether the caller has to signal. At most one waker per sleep is told so.
            pub(crate) fn must_signal(&self) -> bool {
                self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel)
            }
        }
    };
}

gate!(std::sync::atomic);

#[cfg(test)]
mod tests {
    mod model {
        gate!(loom::sync::atomic);
    }

    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Condvar, Mutex};
    use model::Gate;

    /// An eventfd: a counter that stays until it is read.
    struct Signal {
        count: Mutex<u64>,
        rung: Condvar,
    }

    impl Signal {
        fn ring(&self) {
            *self.count.lock().expect("no panic") += 1;
            self.rung.notify_one();
        }

        fn sleep(&self) {
            let mut count = self.count.lock().expect("no panic");
            while *count == 0 {
                count = self.rung.wait(count).expect("no panic");
            }
            *count = 0;
        }
    }

    /// One queue per waker, as in the mesh: only its length is modelled. A lost wake-up would be a deadlock, which loom
    /// reports.
    fn every_message_arrives(wakers: usize, messages: usize) {
        // Three preemptions per run are where lost wake-ups show; without a bound the walk takes minutes.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let gate = Arc::new(Gate::new());
            let signal = Arc::new(Signal { count: Mutex::new(0), rung: Condvar::new() });
            let queues: Vec<_> = (0..wakers).map(|_| Arc::new(AtomicUsize::new(0))).collect();
            let threads: Vec<_> = queues
                .iter()
                .map(|queue| {
                    let (gate, signal, queue) = (Arc::clone(&gate), Arc::clone(&signal), Arc::clone(queue));
                    loom::thread::spawn(move || {
                        for sent in 1..=messages {
                            queue.store(sent, Ordering::Release);
                            Gate::filled();
                            if gate.must_signal() {
                                signal.ring();
                            }
                        }
                    })
                })
                .collect();
            let arrived = || queues.iter().map(|queue| queue.load(Ordering::Acquire)).sum::<usize>();
            let mut seen = 0;
            while seen < wakers * messages {
                gate.close();
                if arrived() == seen {
                    signal.sleep();
                }
                gate.open();
                seen = arrived();
            }
            for thread in threads {
                thread.join().expect("no panic");
            }
        });
    }

    #[test]
    fn no_wake_up_is_lost_with_one_waker() {
        every_message_arrives(1, 2);
    }

    #[test]
    fn no_wake_up_is_lost_with_two_wakers() {
        every_message_arrives(2, 1);
    }
}
