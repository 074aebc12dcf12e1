//! Watches whether hosts' connections still have their way: when addresses, links or routes change, each connection's local
//! address, route and link are looked at, and those that have lost theirs are destroyed once the grace of their listener is
//! over. So hosts move to another path at once instead of waiting for silence. One thread, which asks only after news.
//!
//! What becomes of a way is decided by [`Ways`], in three steps: it is lost, it is back, or its grace is over. *Lost* comes
//! first and is the place where a path's state is to change as soon as paths have one (ANA): hosts have turned to another path
//! by the time their connections go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use config::schema::{Config, OnAddressLoss};
use engine::front::{Cause, Selector};
use runtime::routes::{RouteNews, Routes, Way};

use super::Late;
use super::report::Reporter;

/// How often the thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// Time from news to a look at the ways: news come in crowds.
const CROWD: Duration = Duration::from_millis(20);

/// What a connection relies on: our address and the host's.
type Pair = (IpAddr, IpAddr);

/// The watching thread. It ends when this is dropped.
pub(super) struct Watch {
    thread: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches addresses ended by a panic");
        }
    }
}

struct Watcher {
    news: RouteNews,
    routes: Routes,
    /// By listener: how long a way may be gone; none where connections are kept.
    grace: Vec<Option<Duration>>,
    ways: Ways,
    ended: Arc<AtomicBool>,
}

/// What has become of a connection's way since it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is there, as before.
    Open,
    /// It is lost: nothing ends yet, as it may come back until then.
    Lost(Instant),
    /// It has been lost before, and may still come back until then.
    Waiting(Instant),
    /// It is there again.
    Back,
    /// It did not come back in time: its connections end.
    Over,
}

/// The ways that are lost, and since when.
#[derive(Debug, Default)]
struct Ways {
    lost: BTreeMap<Pair, Instant>,
}

impl Ways {
    /// The next step of a way with this grace.
    fn step(&mut self, pair: Pair, is_open: bool, now: Instant, grace: Duration) -> Step {
        match (is_open, self.lost.get(&pair).copied()) {
            (true, None) => Step::Open,
            (true, Some(_)) => {
                self.lost.remove(&pair);
                Step::Back
            }
            (false, since) => {
                let over = since.unwrap_or(now) + grace;
                self.lost.entry(pair).or_insert(now);
                match since {
                    _ if now >= over => Step::Over,
                    None => Step::Lost(over),
                    Some(_) => Step::Waiting(over),
                }
            }
        }
    }

    /// Forgets the ways that nobody relies on any more.
    fn keep(&mut self, relied_on: impl Fn(&Pair) -> bool) {
        self.lost.retain(|pair, _| relied_on(pair));
    }
}

/// Starts watching, unless every listener keeps its connections. What the system refuses is told, and is no reason not to
/// serve: silence still ends connections, only later.
pub(super) fn watch(config: &Config, late: &Arc<Late>) -> Option<Watch> {
    let grace = config.listeners.iter().map(|listener| match listener.on_address_loss {
        OnAddressLoss::Destroy => Some(Duration::from_nanos(listener.address_grace.0.0)),
        OnAddressLoss::Keep => None,
    });
    let grace: Vec<_> = grace.collect();
    if grace.iter().all(Option::is_none) {
        return None;
    }
    let ended = Arc::new(AtomicBool::new(false));
    let (late, flag) = (Arc::clone(late), Arc::clone(&ended));
    let started = RouteNews::open().and_then(|news| {
        let watcher = Watcher { news, routes: Routes::open()?, grace, ways: Ways::default(), ended: flag };
        std::thread::Builder::new().name("ways".to_owned()).spawn(move || watcher.run(&late))
    });
    match started {
        Ok(thread) => Some(Watch { thread: Some(thread), ended }),
        Err(error) => {
            tracing::warn!(%error, "addresses and routes cannot be watched: connections that lose theirs end by silence");
            None
        }
    }
}

impl Watcher {
    fn run(mut self, late: &Late) {
        if let Err(error) = self.watch(late) {
            tracing::error!(%error, "addresses and routes are watched no longer");
        }
    }

    fn watch(&mut self, late: &Late) -> std::io::Result<()> {
        let mut due: Option<Instant> = None;
        while !self.ended.load(Ordering::Acquire) {
            let wait = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
            if self.news.wait(wait)? {
                due = Some(due.map_or(Instant::now() + CROWD, |due| due.min(Instant::now() + CROWD)));
            }
            let Some(running) = late.0.get() else { continue };
            if due.is_some_and(|due| Instant::now() >= due) {
                due = self.look(&running.reporter)?;
            }
        }
        Ok(())
    }

    /// Looks at every connection's way and destroys those that have been without one for too long; says when to look again.
    fn look(&mut self, reporter: &Reporter) -> std::io::Result<Option<Instant>> {
        let now = Instant::now();
        let shards = reporter.shards.statuses();
        let mut ways: BTreeMap<Pair, Way> = BTreeMap::new();
        let (mut lost, mut next) = (Vec::new(), None::<Instant>);
        for one in shards.iter().flat_map(|said| &said.connections) {
            let Some(Some(grace)) = self.grace.get(usize::from(one.listener)).copied() else { continue };
            let pair = pair(one.local, one.peer);
            let way = match ways.get(&pair) {
                Some(&way) => way,
                None => self.routes.way(pair.0, pair.1)?,
            };
            ways.insert(pair, way);
            let (connection, peer, local, host) = (one.id, one.peer, one.local, &one.host);
            match self.ways.step(pair, way == Way::Open, now, grace) {
                Step::Open => {}
                // The path's state changes here, before anything ends.
                Step::Lost(over) => {
                    tracing::warn!(%local, peer = %pair.1, grace = ?grace, "{}: its connections are destroyed unless it comes back", way.text());
                    next = Some(next.map_or(over, |next| next.min(over)));
                }
                Step::Waiting(over) => next = Some(next.map_or(over, |next| next.min(over))),
                Step::Back => tracing::info!(%local, peer = %pair.1, "the way is there again"),
                Step::Over => {
                    tracing::warn!(connection, %peer, %local, host, "{}: the connection is destroyed", way.text());
                    lost.push(one.id);
                }
            }
        }
        self.ways.keep(|pair| ways.get(pair).is_some_and(|&way| way != Way::Open));
        if !lost.is_empty() {
            reporter.shards.kill(&Selector::Connections(lost), None, Cause::AddressLoss);
        }
        Ok(next)
    }
}

fn pair(local: SocketAddr, peer: SocketAddr) -> Pair {
    (local.ip().to_canonical(), peer.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_lost_before_it_is_over_and_may_come_back_until_then() {
        let ([own, other], begun) =
            (["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap()), Instant::now());
        let (pair, grace, mut ways) = ((own, other), Duration::from_millis(500), Ways::default());
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        assert_eq!(ways.step(pair, true, at(0), grace), Step::Open);
        assert_eq!(ways.step(pair, false, at(10), grace), Step::Lost(at(510)));
        assert_eq!(ways.step(pair, false, at(509), grace), Step::Waiting(at(510)));
        assert_eq!(ways.step(pair, true, at(509), grace), Step::Back);
        assert_eq!(ways.step(pair, true, at(509), grace), Step::Open);
        assert_eq!(ways.step(pair, false, at(600), grace), Step::Lost(at(1100)));
        assert_eq!(ways.step(pair, false, at(1100), grace), Step::Over);
        ways.keep(|_| false);
        assert_eq!(ways.step(pair, false, at(1200), Duration::ZERO), Step::Over, "without grace at once");
    }
}
