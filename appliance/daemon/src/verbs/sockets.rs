//! `brindle connections kill --pid PROCESS --port PORT`: TCP connections of any process, destroyed by the kernel. Where it
//! cannot, or we may not, connections of the appliance that is asked are ended by the appliance itself, as any kill ends
//! them; for those of others there is no other way, and that is told.

use std::error::Error;
use std::net::SocketAddr;

use runtime::sock_diag::{SockDiag, SockDiagError, TcpSocket};
use serde_json::{Value, json};

use super::connections::{Connections, Killed, plan};
use super::{consent, socket_of};
use crate::cli::KillOptions;
use crate::connections::ConnectionStatus;
use crate::control_client::call;
use crate::status::{Status, row, table};

/// Destroys them, one way or the other.
pub(super) fn destroy(options: &KillOptions) -> Result<String, Box<dyn Error>> {
    match by_kernel(options) {
        Ok(done) => Ok(done),
        Err(error) if error.downcast_ref::<SockDiagError>().is_some_and(SockDiagError::is_inability) => {
            by_appliance(options, &*error)?.ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn by_kernel(options: &KillOptions) -> Result<String, Box<dyn Error>> {
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
            Err(error) if destroyed == 0 => return Err(error.into()),
            Err(error) => return Err(format!("after {destroyed} of {} connections: {error}", sockets.len()).into()),
        }
    }
    Ok(if options.server.json {
        format!("{}\n", json!({ "destroyed": destroyed }))
    } else {
        format!("destroyed {destroyed} connections\n")
    })
}

/// Has the appliance end those of its connections that are meant; none if none is its own.
fn by_appliance(options: &KillOptions, why: &dyn Error) -> Result<Option<String>, Box<dyn Error>> {
    let Ok(socket) = socket_of(&options.server) else { return Ok(None) };
    let Ok(status) = call::<Status>(&socket, "status", &Value::Null) else { return Ok(None) };
    if options.pid.is_some_and(|pid| pid != status.process) {
        return Ok(None);
    }
    let all: Connections = call(&socket, "connections.list", &Value::Null)?;
    let port = |one: &ConnectionStatus| one.local.parse::<SocketAddr>().map(|local| local.port()).ok();
    let is_meant = |one: &ConnectionStatus| options.port.is_none_or(|wanted| port(one) == Some(wanted));
    let ids: Vec<u64> = all.connections.iter().filter(|one| is_meant(one)).map(|one| one.id).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let what = plan(&all.connections, is_meant, None);
    consent::ask(&format!("{what}\nThe appliance does it itself: {why}."), options.consent)?;
    let Killed { connections, .. } = call(&socket, "connections.kill", &json!({ "ids": ids }))?;
    Ok(Some(if options.server.json {
        format!("{}\n", json!({ "destroyed": connections, "by": "appliance" }))
    } else {
        format!("{} has ended {connections} connections itself: {why}\n", status.name)
    }))
}
