//! `brindle connections ...`

use std::error::Error;
use std::path::Path;

use config::TimeSpan;
use runtime::sock_diag::{SockDiag, SockDiagError, TcpSocket};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{consent, screen, socket_of};
use crate::cli::{ConnectionsAction, ConnectionsOptions, KillOptions};
use crate::connections::{ConnectionStatus, Filter, show, sort};
use crate::control_client::call;
use crate::status::{row, table};

/// What the server says of connections.
#[derive(Deserialize)]
struct Connections {
    connections: Vec<ConnectionStatus>,
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
            let done = destroy(kill)?;
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
    consent::ask(&plan(&all.connections, &filter, options.block), options.consent)?;
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
struct Killed {
    connections: u32,
    complete: bool,
    seconds: f64,
}

/// What a kill will do: what is chosen, and what ends with it.
fn plan(all: &[ConnectionStatus], filter: &Filter, block: Option<TimeSpan>) -> String {
    let mut associations: Vec<u16> =
        all.iter().filter(|one| filter.fits(one)).map(|one| one.controller).filter(|&id| id != 0).collect();
    associations.sort_unstable();
    associations.dedup();
    let goes = |one: &&ConnectionStatus| filter.fits(one) || associations.contains(&one.controller);
    let going: Vec<_> = all.iter().filter(goes).cloned().collect();
    let what = show("These connections, of whole associations, will be reset", &going);
    let hosts = match block {
        Some(block) => format!("Their hosts are refused for {block}, in a way that lets them try again."),
        None => "Their hosts may come back at once.".to_owned(),
    };
    format!("{what}\nCommands that are not in the log are dropped; what was acknowledged stays. {hosts}")
}

/// Destroys sockets through the kernel, of whatever process.
fn destroy(options: &KillOptions) -> Result<String, Box<dyn Error>> {
    let mut diag = match options.pid {
        Some(pid) => SockDiag::of_process(pid)?,
        None => SockDiag::open()?,
    };
    let mut sockets = diag.connections()?;
    sockets.retain(|socket| options.port.is_none_or(|port| socket.local.port() == port));
    if sockets.is_empty() {
        return Ok(if options.server.json {
            "{\"destroyed\":0}\n".to_owned()
        } else {
            "there is no such connection\n".to_owned()
        });
    }
    let rows = sockets.iter().map(|TcpSocket { local, peer, user, .. }| row([local, peer, user]));
    let plan = table("These TCP connections will be destroyed by the kernel", &["local", "peer", "user"], rows);
    consent::ask(&format!("{plan}\nTheir peers get a reset, their processes ECONNABORTED."), options.consent)?;
    let mut destroyed = 0;
    for socket in &sockets {
        match diag.destroy(socket) {
            Ok(()) => destroyed += 1,
            Err(SockDiagError::Gone) => {}
            Err(error) => return Err(format!("after {destroyed} of {} connections: {error}", sockets.len()).into()),
        }
    }
    Ok(if options.server.json {
        format!("{}\n", json!({ "destroyed": destroyed }))
    } else {
        format!("destroyed {destroyed} connections\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_the_whole_association() {
        let of =
            |id, controller, host: &str| ConnectionStatus { id, controller, host: host.into(), ..Default::default() };
        let all = [of(16, 1, "nqn.a"), of(32, 1, "nqn.a"), of(48, 2, "nqn.b"), of(64, 0, "")];
        let plan = |id| plan(&all, &Filter { id: Some(id), ..Default::default() }, None);
        assert!(plan(32).contains("  16 ") && plan(32).contains("  32 ") && !plan(32).contains("  48 "));
        assert!(plan(64).contains("  64 ") && !plan(64).contains("  16 "), "it has no association yet");
    }
}
