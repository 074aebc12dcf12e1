//! `brindle top`: what the appliance does now, as rates between two looks.

use std::error::Error;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;

use super::{screen, socket_of};
use crate::cli::TopOptions;
use crate::connections::{show, sort};
use crate::control_client::{call, status};
use crate::status::{Status, row, size, table};

/// Connections that are shown.
const SHOWN: usize = 20;

#[derive(Clone, Deserialize)]
struct Counters {
    volumes: Vec<Volume>,
}

#[derive(Clone, Deserialize)]
struct Volume {
    array: String,
    name: String,
    reads: u64,
    writes: u64,
    read_bytes: u64,
    written_bytes: u64,
    errors: u64,
}

/// One look.
struct Look {
    at: Instant,
    status: Status,
    counters: Counters,
}

/// Shows it until it has been shown often enough.
pub fn run(options: &TopOptions) -> Result<(), Box<dyn Error>> {
    let socket = socket_of(&options.server)?;
    let look = || -> Result<Look, Box<dyn Error>> {
        let (status, counters) = (status(&socket)?, call(&socket, "counters.show", &Value::Null)?);
        Ok(Look { at: Instant::now(), status, counters })
    };
    let mut before = look()?;
    screen::repeat(options.every, options.count, || {
        let mut now = look()?;
        let text = page(&before, &mut now, options);
        before = now;
        Ok(text)
    })
}

fn page(before: &Look, now: &mut Look, options: &TopOptions) -> String {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let all = now.status.connections.len();
    let mut out = format!(
        "{}: {} connections, {} requests under way\n",
        now.status.name,
        all,
        now.status.reactors.iter().map(|reactor| reactor.requests).sum::<u64>()
    );
    let rows = now.status.reactors.iter().map(|reactor| {
        let earlier = before.status.reactors.iter().find(|earlier| earlier.reactor == reactor.reactor);
        let turns = earlier.map_or(0.0, |earlier| rate(earlier.turns, reactor.turns));
        let sleeps = earlier.map_or(0.0, |earlier| rate(earlier.sleeps, reactor.sleeps));
        let busy = format!("{:.0}%", reactor.busy_ratio * 100.0);
        let (turns, sleeps) = (format!("{turns:.0}"), format!("{sleeps:.0}"));
        row([&reactor.reactor, &reactor.core, &busy, &turns, &sleeps, &reactor.connections, &reactor.requests])
    });
    let heads = ["#", "core", "busy since start", "turns/s", "sleeps/s", "connections", "requests"];
    out += &table("Reactors", &heads, rows);
    let rows = now.counters.volumes.iter().map(|volume| {
        let same = |other: &&Volume| (&other.array, &other.name) == (&volume.array, &volume.name);
        let earlier = before.counters.volumes.iter().find(same).unwrap_or(volume);
        let number = |before, now| format!("{:.0}", rate(before, now));
        let bytes = |before, now| format!("{}/s", size(rate(before, now) as u64));
        row([
            &format!("{}/{}", volume.array, volume.name),
            &number(earlier.reads, volume.reads),
            &number(earlier.writes, volume.writes),
            &bytes(earlier.read_bytes, volume.read_bytes),
            &bytes(earlier.written_bytes, volume.written_bytes),
            &volume.errors,
        ])
    });
    out += &table("Volumes", &["name", "reads/s", "writes/s", "read", "written", "errors since start"], rows);
    sort(&mut now.status.connections, options.sort);
    let shown = &now.status.connections[..all.min(SHOWN)];
    out += &show("Connections", shown);
    if all > SHOWN {
        out += &format!("  and {} more: brindle connections lists them\n", all - SHOWN);
    }
    out
}
