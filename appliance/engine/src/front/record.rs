//! What people are told of a connection, while it lives and for a while after its end.

use base::time::Time;
use nvme::status::Status;

use super::cause::Cause;
use super::connection::Connection;
use crate::status::ConnectionStatus;

/// A connection as it is, or was at its end.
#[derive(Clone, Debug)]
pub(super) struct Record {
    status: ConnectionStatus,
    opened: Time,
    last_work: Time,
    ended: Option<Time>,
}

impl Record {
    /// Of a connection now; with a cause if this is its end.
    pub(super) fn of(connection: &Connection, cause: Option<Cause>, now: Time) -> Self {
        let error = |status: Status| status.name().map_or_else(|| format!("status {:#06x}", status.0), str::to_owned);
        let status = ConnectionStatus {
            id: connection.number,
            protocol: "nvme-tcp",
            host: connection.host_nqn.clone(),
            subsystem: connection.subsystem_nqn.clone(),
            peer: connection.peer,
            local: connection.local,
            listener: connection.listener,
            controller: connection.association.id,
            queue: connection.queue.id(),
            tls: "off",
            in_flight: connection.queue.in_flight() as u32,
            received_bytes: connection.received,
            sent_bytes: connection.sent,
            age_ms: 0,
            idle_ms: 0,
            last_error: cause.map(|cause| cause.text().to_owned()).or(connection.last_error.map(error)),
            ended_ms: None,
        };
        let (opened, last_work) = (connection.opened, connection.last_work);
        Self { status, opened, last_work, ended: cause.map(|_| now) }
    }

    /// What is told of it now: of one that has ended, how old it became.
    pub(super) fn status(&self, now: Time) -> ConnectionStatus {
        let until = self.ended.unwrap_or(now);
        let ms = |from: Time, to: Time| to.since(from).0 / 1_000_000;
        ConnectionStatus {
            age_ms: ms(self.opened, until),
            idle_ms: ms(self.last_work, until),
            ended_ms: self.ended.map(|ended| ms(ended, now)),
            ..self.status.clone()
        }
    }
}
