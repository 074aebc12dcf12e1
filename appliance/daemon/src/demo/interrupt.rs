//! Ctrl-C, SIGTERM and a terminal that goes away, heard on a thread of their own. What is done about them is decided
//! where it is asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::DemoError;

/// Whether the user wants it to stop. Once wanted, always wanted.
#[derive(Debug)]
pub(super) struct Interrupt {
    heard: Arc<AtomicBool>,
    first: Receiver<()>,
}

impl Interrupt {
    /// From now on signals to stop no longer end the process: they are heard here.
    pub(super) fn listen() -> Result<Self, DemoError> {
        let failed = |source| DemoError::System { doing: "listen for signals", source };
        let (tell, first) = sync_channel(1);
        let heard = Arc::new(AtomicBool::new(false));
        let (runtime, signals) = register().map_err(failed)?;
        let flag = Arc::clone(&heard);
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(hear(signals, &flag, &tell))).map_err(failed)?;
        Ok(Self { heard, first })
    }

    /// Whether a signal has come.
    pub(super) fn heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    /// Waits for a signal, at most this long; whether one has come.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        // Without the thread nobody would ever hear anything: then it is better to stop.
        self.heard() || !matches!(self.first.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
    }
}

fn register() -> io::Result<(Runtime, [Signal; 3])> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    drop(inside);
    Ok((runtime, signals))
}

async fn hear([mut interrupt, mut terminate, mut hangup]: [Signal; 3], heard: &AtomicBool, tell: &SyncSender<()>) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        heard.store(true, Ordering::Release);
        // The first one is told; who presses again is heard already.
        let _ = tell.try_send(());
    }
}
