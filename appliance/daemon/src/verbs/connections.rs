//! `brindle connections ...`

use std::error::Error;
use std::path::Path;

use config::TimeSpan;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{consent, screen, socket_of, sockets};
use crate::cli::{ConnectionsAction, ConnectionsOptions, KillOptions};
use crate::connections::{ConnectionStatus, Filter, show, sort};
use crate::control_client::call;

/// What the server says of connections.
#[derive(Deserialize)]
pub(super) struct Connections {
    pub(super) connections: Vec<ConnectionStatus>,
    ended: Vec<ConnectionStatus>,
}

/// Does what is asked.
pub fn run(options: &ConnectionsOptions) -> Result<(), Box<dyn Error>> {
    match &options.action {
        None => {
            let (every, count) = match options.watch {
                Some(every) => (every, None),
                None => (TimeSpan(base::time::Span::ZERO), Some(1)),
            };
            let socket = socket_of(&options.server)?;
            screen::repeat(every, count, || list(options, &socket))
        }
        Some(ActionOf::Kill(kill)) if kill.pid.is_some() || kill.port.is_some() => {
            let done = sockets::destroy(kill)?;
            screen::repeat(TimeSpan(base::time::Span::ZERO), Some(1), || Ok(done.clone()))
        }
        Some(ActionOf::Kill(kill)) => {
            let done = self::kill(kill)?;
            screen::repeat(TimeSpan(base::time::Span::ZERO), Some(1), || Ok(done.clone()))
        }
    }
}

use ConnectionsAction as ActionOf;

fn list(options: &ConnectionsOptions, socket: &Path) -> Result<String, Box<dyn Error>> {
    let filter = Filter {
        host: options.host.clone(),
        peer: options.peer,
        local: options.local,
        target: options.target.clone(),
        ..Filter::default()
    };
    let all: Connections = call(socket, "connections.list", &Value::Null)?;
    let (title, all) =
        if options.ended { ("Connections that have ended", all.ended) } else { ("Connections", all.connections) };
    let mut chosen: Vec<_> = all.into_iter().filter(|one| filter.fits(one)).collect();
    sort(&mut chosen, options.sort);
    Ok(if options.server.json { serde_json::to_string_pretty(&chosen)? + "\n" } else { show(title, &chosen) })
}

fn kill(options: &KillOptions) -> Result<String, Box<dyn Error>> {
    let seconds = |time: TimeSpan| time.0.0 as f64 / 1e9;
    let filter = Filter {
        id: options.id,
        host: options.host.clone(),
        peer: options.peer,
        local: options.local,
        target: options.target.clone(),
        idle_seconds: options.idle.map(seconds),
    };
    let socket = socket_of(&options.server)?;
    let all: Connections = call(&socket, "connections.list", &Value::Null)?;
    // A host that is to be refused need not be there.
    if options.block.is_none() && !all.connections.iter().any(|one| filter.fits(one)) {
        let nothing = Killed { connections: 0, complete: true, seconds: 0.0 };
        return Ok(if options.server.json {
            serde_json::to_string(&nothing)? + "\n"
        } else {
            "there is no such connection: nothing was done\n".to_owned()
        });
    }
    consent::ask(&plan(&all.connections, |one| filter.fits(one), options.block), options.consent)?;
    let end = |end: crate::connections::End| match end.port {
        Some(port) => std::net::SocketAddr::new(end.ip, port).to_string(),
        None => end.ip.to_string(),
    };
    let params = json!({
        "id": options.id,
        "host": options.host,
        "peer": options.peer.map(end),
        "local": options.local.map(end),
        "target": options.target,
        "idle_seconds": options.idle.map(seconds),
        "all": options.all,
        "block_seconds": options.block.map(seconds),
    });
    let result: Killed = call(&socket, "connections.kill", &params)?;
    if options.server.json {
        return Ok(serde_json::to_string(&result)? + "\n");
    }
    let Killed { connections, complete, seconds } = result;
    let milliseconds = seconds * 1000.0;
    Ok(if complete {
        format!("killed {connections} connections with their associations: gone after {milliseconds:.1} ms\n")
    } else {
        format!(
            "killed {connections} connections with their associations. Something of theirs is still at the log or at a \
             drive: until that has ended their hosts are told to try again\n"
        )
    })
}

/// What a kill came to.
#[derive(Deserialize, serde::Serialize)]
pub(super) struct Killed {
    pub(super) connections: u32,
    complete: bool,
    seconds: f64,
}

/// What a kill will do: what is chosen, and what ends with it.
pub(super) fn plan(
    all: &[ConnectionStatus],
    is_chosen: impl Fn(&ConnectionStatus) -> bool,
    block: Option<TimeSpan>,
) -> String {
    let mut associations: Vec<u16> =
        all.iter().filter(|one| is_chosen(one)).map(|one| one.controller).filter(|&id| id != 0).collect();
    associations.sort_unstable();
    associations.dedup();
    let goes = |one: &&ConnectionStatus| is_chosen(one) || associations.contains(&one.controller);
    let going: Vec<_> = all.iter().filter(goes).cloned().collect();
    let what = show("These connections, of whole associations, will be reset", &going);
    let hosts = match block {
        Some(block) => format!("Their hosts are refused for {block}, in a way that lets them try again."),
        None => "Their hosts may come back at once.".to_owned(),
    };
    format!("{what}\nCommands that are not in the log are dropped; what was acknowledged stays. {hosts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_the_whole_association() {
        let of =
            |id, controller, host: &str| ConnectionStatus { id, controller, host: host.into(), ..Default::default() };
        let all = [of(16, 1, "nqn.a"), of(32, 1, "nqn.a"), of(48, 2, "nqn.b"), of(64, 0, "")];
        let plan = |id| plan(&all, |one| one.id == id, None);
        assert!(plan(32).contains("  16 ") && plan(32).contains("  32 ") && !plan(32).contains("  48 "));
        assert!(plan(64).contains("  64 ") && !plan(64).contains("  16 "), "it has no association yet");
    }
}
