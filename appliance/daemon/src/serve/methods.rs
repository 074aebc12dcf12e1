//! What can be asked for over the control socket beside the status: each method names things as the configuration does;
//! here they become commands of the engine.

use std::sync::PoisonError;
use std::time::Duration;

use base::metrics::{KillCause, OpMetrics, ShardMetrics, VolumeOp};
use base::time::Span;
use engine::front::{Cause, Selector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::report::Reporter;
use crate::connections::End;
use crate::events::{Filter, Record, book};

/// Events.
#[derive(Deserialize)]
struct OfEvents {
    #[serde(flatten)]
    filter: Filter,
    /// Whether to wait for one.
    #[serde(default)]
    wait: bool,
}

/// Events of the history.
#[derive(Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Oldest first.
    pub(crate) events: Vec<Record>,
    /// The number behind which there may be more.
    pub(crate) last: u64,
}

/// Whether a method changes nothing. Such ones end alike; the others are events of the history.
pub(super) fn only_asks(method: &str) -> bool {
    [".list", ".show", ".status"].iter().any(|end| method.ends_with(end))
}

/// Carries out a method; none if there is none of this name.
pub(super) fn call(reporter: &Reporter, method: &str, params: Value) -> Option<Result<Value, String>> {
    Some(match method {
        "events.list" => list_events(reporter, params),
        "connections.list" => Ok(connections(reporter)),
        "connections.kill" => kill(reporter, params),
        "counters.show" => Ok(counters(reporter)),
        _ if method.starts_with("volume.") => return super::volumes::call(reporter, method, params),
        _ if method.starts_with("log.") => return super::logs::call(reporter, method, params),
        _ => return super::drives::call(reporter, method, params),
    })
}

pub(super) fn take<T: DeserializeOwned>(params: Value) -> Result<T, String> {
    serde_json::from_value(params).map_err(|error| format!("these parameters do not fit: {error}"))
}

/// The history, as far as it is asked for.
fn list_events(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let OfEvents { filter, wait } = take(params)?;
    let wait = if wait { book::MAX_WAIT } else { Duration::ZERO };
    let (events, last) = reporter.events.list(&filter, wait)?;
    Ok(json!(Listed { events, last }))
}

/// Living connections, and those that have ended lately.
fn connections(reporter: &Reporter) -> Value {
    let status = reporter.status();
    json!({ "connections": status.connections, "ended": status.ended_connections })
}

/// Which connections to kill: one of these; and for how long their hosts are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillParams {
    id: Option<u64>,
    /// Several by their numbers.
    ids: Option<Vec<u64>>,
    host: Option<String>,
    peer: Option<String>,
    local: Option<String>,
    target: Option<String>,
    idle_seconds: Option<f64>,
    #[serde(default)]
    all: bool,
    block_seconds: Option<f64>,
}

fn kill(reporter: &Reporter, params: Value) -> Result<Value, String> {
    let params: KillParams = take(params)?;
    let block = params.block_seconds.map(span).transpose()?;
    let selector = selector(params)?;
    // One at a time, so that what is counted is this one's.
    let _one_at_a_time = reporter.killing.lock().unwrap_or_else(PoisonError::into_inner);
    let killed = || -> u64 {
        let of_operators = |shard: &ShardMetrics| shard.connections_killed[KillCause::Operator as usize].get();
        reporter.metrics.shards().iter().map(of_operators).sum()
    };
    let before = killed();
    let ended = reporter.shards.kill(&selector, block, Cause::Operator);
    let connections = killed() - before;
    tracing::info!(connections, complete = ended.is_complete, "connections were killed");
    let seconds = ended.took.as_secs_f64();
    Ok(json!({ "connections": connections, "complete": ended.is_complete, "seconds": seconds }))
}

fn selector(params: KillParams) -> Result<Selector, String> {
    let end = |text: String| text.parse::<End>();
    let mut chosen = Vec::new();
    chosen.extend(params.id.map(|id| Selector::Connections(vec![id])));
    chosen.extend(params.ids.map(Selector::Connections));
    chosen.extend(params.host.map(Selector::Host));
    chosen.extend(params.peer.map(end).transpose()?.map(|end| Selector::Peer(end.ip, end.port)));
    chosen.extend(params.local.map(end).transpose()?.map(|end| Selector::Local(end.ip, end.port)));
    chosen.extend(params.target.map(Selector::Target));
    chosen.extend(params.idle_seconds.map(span).transpose()?.map(Selector::Idle));
    chosen.extend(params.all.then_some(Selector::All));
    match (chosen.pop(), chosen.is_empty()) {
        (Some(selector), true) => Ok(selector),
        _ => Err("exactly one of id, ids, host, peer, local, target, idle_seconds and all says which".to_owned()),
    }
}

/// A time from elsewhere.
fn span(seconds: f64) -> Result<Span, String> {
    let in_bounds = (0.0..=86_400.0 * 365.0).contains(&seconds);
    in_bounds.then_some(Span((seconds * 1e9) as u64)).ok_or_else(|| format!("{seconds} is no usable number of seconds"))
}

/// What was counted for volumes since the start.
fn counters(reporter: &Reporter) -> Value {
    let metrics = &reporter.metrics;
    let volumes = metrics.names().volumes.iter().enumerate().map(|(at, name)| {
        let sum = |op: VolumeOp, cell: fn(&OpMetrics) -> u64| -> u64 {
            metrics.shards().iter().map(|shard| cell(&shard.volumes[at].ops[op as usize])).sum()
        };
        let [read, write] = [VolumeOp::Read, VolumeOp::Write];
        json!({
            "array": name.array,
            "name": name.volume,
            "reads": sum(read, |op| op.requests.get()),
            "writes": sum(write, |op| op.requests.get()),
            "read_bytes": sum(read, |op| op.bytes.get()),
            "written_bytes": sum(write, |op| op.bytes.get()),
            "errors": VolumeOp::ALL.into_iter().map(|op| sum(op, |op| op.errors.get())).sum::<u64>(),
        })
    });
    json!({ "volumes": volumes.collect::<Vec<_>>() })
}
