//! The script's steps for real: the serving process, and the torture of the load generator as its host.

use std::thread;
use std::time::{Duration, Instant};

use base::BLOCK;
use base::uuid::Uuid;
use loadgen::error::HostError;
use loadgen::host::{Host, HostIdentity, HostOptions};
use loadgen::io_queue::Operation;
use loadgen::limits::ANSWER_TIMEOUT;
use loadgen::request::Wait;
use loadgen::stamp::Content;
use loadgen::torture::{End, Progress, Torture, TortureOptions};
use loadgen::workload::first_namespace;

use super::interrupt::Interrupt;
use super::plan::Plan;
use super::rounds::{Scene, Served, Verified, Written};
use super::screen::Screen;
use super::server::Server;
use super::{DemoError, ENDING_POLLS_MAX, POLL, WRITE_TIME};

/// Blocks of one request when the volume is looked through: 64 KiB.
const LOOK_BLOCKS: u32 = 16;

/// The serving process and the host that writes to it.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    server: &'a mut Server,
    torture: Torture,
    /// What had happened when it was last told.
    told: Progress,
    screen: Screen,
    interrupt: &'a Interrupt,
}

impl<'a> Stage<'a> {
    /// Starts serving and connects the host.
    pub(super) fn open(
        plan: &Plan,
        server: &'a mut Server,
        screen: Screen,
        interrupt: &'a Interrupt,
    ) -> Result<Self, DemoError> {
        server.start()?;
        let (after, status) = server.await_serving(|| interrupt.heard())?;
        let Plan { address, nqn, volume, .. } = plan;
        screen.say(&format!(
            "process {} serves volume {volume} at {address} after {:.2} s",
            status.process,
            after.as_secs_f64()
        ));
        let seed = u64::from(std::process::id());
        let options = TortureOptions::default();
        let torture = look_through(plan, seed, options.region_blocks, screen)
            .and_then(|()| Ok(Torture::new(*address, nqn, seed, options)?));
        let torture = torture.map_err(|error| explained(server, error))?;
        let (depth, mib) = (options.queue_depth, (torture.region_blocks() * BLOCK as u64) >> 20);
        screen.say(&format!("the built-in host is connected: it writes at depth {depth} to {mib} MiB of the volume"));
        let told = *torture.progress();
        Ok(Self { server, torture, told, screen, interrupt })
    }

    /// Ends the host's association in good order.
    pub(super) fn close(self) -> Result<(), DemoError> {
        self.torture.disconnect().map_err(|error| explained(self.server, error.into()))
    }
}

impl Scene for Stage<'_> {
    fn write_and_kill(&mut self) -> Result<Written, DemoError> {
        let Self { server, torture, screen, interrupt, .. } = self;
        let bar = screen.bar("writing", WRITE_TIME.as_millis() as u64);
        let started = Instant::now();
        let mut killed = None;
        let end = torture.run_until(|progress| {
            let elapsed = started.elapsed();
            bar.at(elapsed.as_millis().min(WRITE_TIME.as_millis()) as u64);
            // In mid-write: some requests have been sent and not answered.
            if killed.is_none() && elapsed >= WRITE_TIME && progress.in_flight > 0 {
                killed = Some(server.kill());
            }
            match &killed {
                None => interrupt.heard(),
                // It is dead: the host goes on until it notices.
                Some(Ok(())) => false,
                Some(Err(_)) => true,
            }
        });
        drop(bar);
        match (killed, end) {
            (Some(killed), end) => {
                killed?;
                end?;
            }
            (None, Ok(End::Stopped)) => return Err(DemoError::Interrupted),
            (None, Ok(End::Died(error)) | Err(error)) => return Err(explained(server, error.into())),
        }
        let since = self.since();
        Ok(Written { acknowledged: since.writes_acknowledged, in_flight: since.lost_in_flight, refused: since.refused })
    }

    fn serve_again(&mut self) -> Result<Served, DemoError> {
        self.server.start()?;
        let (after, status) = self.server.await_serving(|| self.interrupt.heard())?;
        Ok(Served { after, status })
    }

    fn verify(&mut self) -> Result<Verified, DemoError> {
        let bar = self.screen.bar("verifying", self.torture.region_blocks());
        let report = self.torture.verify(|done, _| bar.at(done));
        drop(bar);
        let report = report.map_err(|error| explained(self.server, error.into()))?;
        let since = self.since();
        Ok(Verified {
            blocks: report.blocks,
            settled: report.settled,
            refused: since.refused,
            // Reads among the writes are judged too.
            violations: since.violations,
            kept: report.kept.iter().map(ToString::to_string).collect(),
        })
    }
}

impl Stage<'_> {
    /// What has happened since the last time, but for violations: those count for ever.
    fn since(&mut self) -> Progress {
        let (now, told) = (*self.torture.progress(), self.told);
        self.told = now;
        Progress {
            writes_acknowledged: now.writes_acknowledged - told.writes_acknowledged,
            reads_checked: now.reads_checked - told.reads_checked,
            refused: now.refused - told.refused,
            lost_in_flight: now.lost_in_flight - told.lost_in_flight,
            deaths: now.deaths - told.deaths,
            ..now
        }
    }
}

/// That the serving process has ended explains more than that its connection is gone.
fn explained(server: &mut Server, error: DemoError) -> DemoError {
    let lost = matches!(&error, DemoError::Host(error) if error.is_loss());
    // Connections go some time before their process does.
    for _ in 0..if lost { ENDING_POLLS_MAX } else { 0 } {
        if let Err(ended) = server.check() {
            return ended;
        }
        thread::sleep(POLL);
    }
    error
}

/// Reads what the demo will write over. Only zeros and what demos have written may be there: somebody may have made a file
/// system on the volume since the last one.
fn look_through(plan: &Plan, seed: u64, region_blocks: u64, screen: Screen) -> Result<(), DemoError> {
    let identity = HostIdentity::from_id(Uuid::from_random([seed, !seed]));
    let mut host = Host::connect(&HostOptions::new(plan.address, &plan.nqn, identity))?;
    let namespace = first_namespace(&mut host)?;
    if namespace.block_bytes as usize != BLOCK {
        return Err(HostError::Unusable { field: "bytes of a block", value: namespace.block_bytes.into() }.into());
    }
    let region_blocks = region_blocks.min(namespace.blocks);
    let mut queue = host.open_queue(1, 1, LOOK_BLOCKS * BLOCK as u32, &namespace)?;
    let bar = screen.bar("looking", region_blocks);
    let mut lba = 0;
    while lba < region_blocks {
        let blocks = (region_blocks - lba).min(LOOK_BLOCKS.into()) as u32;
        let slot = queue.hold().expect("the only request is free");
        queue.submit(slot, Operation::Read { lba, blocks })?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let completion = loop {
            if let Some(completion) = queue.completed() {
                break completion;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(HostError::Timeout { to: "Read", seconds: ANSWER_TIMEOUT.as_secs() }.into());
            }
            queue.poll(Wait::Sleep(left))?;
        };
        if !completion.status.is_success() {
            return Err(HostError::Refused { command: "Read", status: completion.status }.into());
        }
        let read = queue.buffer(completion.slot)[..blocks as usize * BLOCK].chunks_exact(BLOCK);
        if let Some((block, _)) = (lba..).zip(read).find(|(_, block)| matches!(Content::of(block), Content::Foreign(_)))
        {
            return Err(DemoError::SomebodysData { volume: plan.volume.clone(), block });
        }
        queue.release(completion.slot);
        lba += u64::from(blocks);
        bar.at(lba);
    }
    drop(queue);
    host.disconnect()?;
    Ok(())
}
