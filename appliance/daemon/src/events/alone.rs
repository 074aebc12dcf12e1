//! Events of a command that changes something while no appliance serves: they go behind those of the last one that did, so that
//! nobody has to guess later why an array is as it is.

use std::path::Path;
use std::time::SystemTime;

use config::schema::Config;

use super::{Record, Store, Told, clock};

/// The history of a configuration, for as long as a command works.
#[derive(Debug)]
pub struct Alone(Store);

impl Alone {
    /// Opens it, if one is kept and anything was ever written there.
    ///
    /// # Errors
    /// In words, if it cannot be used.
    pub fn open(config: &Config) -> Result<Option<Self>, String> {
        let socket = config.control.as_ref().map(|control| control.socket.as_path());
        let Some(folder) = config.events_folder(socket).filter(|folder| Path::exists(folder)) else { return Ok(None) };
        let (store, _) = Store::open(&folder, config.events.max_size.bytes()).map_err(|error| error.to_string())?;
        Ok(Some(Self(store)))
    }

    /// Adds an event, durably.
    ///
    /// # Errors
    /// In words, if it is not kept.
    pub fn tell(&mut self, told: Told) -> Result<(), String> {
        let record = Record::of(told, self.0.next_sequence(), clock::text(SystemTime::now()));
        let kept = self.0.append(&record).and_then(|()| self.0.sync());
        kept.map_err(|error| format!("the event {} is not in the history: {error}", record.event))
    }
}
