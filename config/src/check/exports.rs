//! What hosts find: addresses and namespaces are unique, what is referred to exists, and nobody is let in by oversight.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, names};
use crate::limits::{MAX_ADDRESS_GRACE, SILENCE};
use crate::tree::Node;
use crate::values::{SocketAddress, TimeSpan, VolumePath};

/// The NQN of discovery subsystems (NVM Express Base Specification, "NVMe Qualified Names").
pub(super) const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

impl<'a> Checker<'a, '_, '_> {
    pub(super) fn listeners(&mut self) {
        let listeners = self.root.list("listeners");
        self.unique_names(listeners, "listeners", "name");
        for (i, listener) in listeners.iter().enumerate() {
            self.patience(listener, &format!("listeners[{i}]"));
        }
        let mut taken = BTreeMap::new();
        let places = listeners.iter().enumerate().map(|(i, node)| (node, format!("listeners[{i}].address")));
        let metrics = self.root.get("metrics").map(|node| (node, "metrics.address".to_owned()));
        for (node, path) in places.chain(metrics) {
            let Some(address) = node.meaning_of::<SocketAddress>("address") else { continue };
            let Some(node) = node.get("address") else { continue };
            // Port 0 lets the system choose: two of them do not meet.
            if address.0.port() != 0
                && let Some(first) = taken.insert(address.0, node.place.line)
            {
                let message = format!("this address is taken in line {first}");
                self.error(node, &path, message, "an address and port of its own");
            }
        }
    }

    fn patience(&mut self, listener: &Node, path: &str) {
        if let (Some(node), Some(silence)) = (listener.get("silence"), listener.meaning_of::<TimeSpan>("silence"))
            && !SILENCE.contains(&silence.0)
        {
            let (least, most) = SILENCE.into_inner();
            let expected = format!("from {} to {}", TimeSpan(least), TimeSpan(most));
            self.error(node, &format!("{path}.silence"), "so long a silence cannot be told from life", expected);
        }
        let grace = listener.meaning_of::<TimeSpan>("address_grace");
        if let (Some(node), Some(grace)) = (listener.get("address_grace"), grace)
            && grace.0 > MAX_ADDRESS_GRACE
        {
            let expected = format!("at most {}", TimeSpan(MAX_ADDRESS_GRACE));
            self.error(node, &format!("{path}.address_grace"), "hosts would wait for so long", expected);
        }
    }

    pub(super) fn subsystems(&mut self) {
        let subsystems = self.root.list("subsystems");
        self.unique_names(subsystems, "subsystems", "nqn");
        let mut exported = BTreeMap::new();
        let mut reached = BTreeSet::new();
        for (i, subsystem) in subsystems.iter().enumerate() {
            let path = format!("subsystems[{i}]");
            if let Some(nqn) = subsystem.get("nqn")
                && nqn.text() == Some(DISCOVERY_NQN)
            {
                let message = "this is the name of discovery, which every listener serves by itself";
                self.error(
                    nqn,
                    &format!("{path}.nqn"),
                    message,
                    "a name of your own, such as nqn.2026-01.com.example:storage",
                );
            }
            self.reached_by(subsystem, &path, &mut reached);
            self.namespaces(subsystem, &path, &mut exported);
        }
        for (i, listener) in self.root.list("listeners").iter().enumerate() {
            if let Some(name) = listener.get("name")
                && name.text().is_some_and(|name| !reached.contains(name))
            {
                let path = format!("listeners[{i}].name");
                self.warning(name, &path, "no subsystem is reached by this listener", "a subsystem that names it");
            }
        }
    }

    fn reached_by(&mut self, subsystem: &'a Node, path: &str, reached: &mut BTreeSet<&'a str>) {
        let any_host = subsystem.text_of("hosts") == Some("any");
        let mut here = BTreeSet::new();
        for (i, reference) in subsystem.list("listeners").iter().enumerate() {
            let Some(name) = reference.text() else { continue };
            let path_here = format!("{path}.listeners[{i}]");
            let listeners = self.root.list("listeners");
            let Some(listener) = listeners.iter().find(|listener| listener.text_of("name") == Some(name)) else {
                let expected = format!("one of {}", names(listeners));
                self.error(reference, &path_here, "there is no such listener", expected);
                continue;
            };
            if !here.insert(name) {
                self.error(reference, &path_here, "this listener is named twice", "each listener once");
            }
            reached.insert(name);
            let address = listener.meaning_of::<SocketAddress>("address");
            if any_host
                && let Some(address) = address
                && !address.0.ip().is_loopback()
                && let Some(hosts) = subsystem.get("hosts")
            {
                let message = format!("whoever reaches {address} may read and write");
                self.warning(hosts, &format!("{path}.hosts"), message, "a list of host NQNs, or a loopback address");
            }
        }
        for (i, host) in subsystem.list("hosts").iter().enumerate() {
            let earlier = &subsystem.list("hosts")[..i];
            if host.text().is_some() && earlier.iter().any(|other| other.text() == host.text()) {
                self.error(host, &format!("{path}.hosts[{i}]"), "this host is named twice", "each host once");
            }
        }
    }

    fn namespaces(&mut self, subsystem: &'a Node, path: &str, exported: &mut BTreeMap<&'a str, u32>) {
        let mut identifiers = BTreeSet::new();
        for (i, namespace) in subsystem.list("namespaces").iter().enumerate() {
            let path = format!("{path}.namespaces[{i}]");
            if let (Some(node), Some(nsid)) = (namespace.get("nsid"), namespace.number_of::<u32>("nsid"))
                && !identifiers.insert(nsid)
            {
                self.error(
                    node,
                    &format!("{path}.nsid"),
                    "this identifier is taken",
                    "one of its own in the subsystem",
                );
            }
            let Some(node) = namespace.get("volume") else { continue };
            let Some(volume) = namespace.meaning_of::<VolumePath>("volume") else { continue };
            let path = format!("{path}.volume");
            if !self.volume_exists(&volume) {
                self.error(node, &path, "there is no such volume", format!("one of {}", self.volume_names()));
            } else if let Some(first) = exported.insert(node.text().unwrap_or(""), node.place.line) {
                let message = format!("this volume is a namespace already, in line {first}");
                self.error(node, &path, message, "each volume in one place");
            }
        }
    }

    fn volume_exists(&self, path: &VolumePath) -> bool {
        let arrays = self.root.list("arrays").iter();
        arrays.filter(|array| array.text_of("name") == Some(path.array.as_str())).any(|array| {
            array.list("volumes").iter().any(|volume| volume.text_of("name") == Some(path.volume.as_str()))
        })
    }

    fn volume_names(&self) -> String {
        let mut all = Vec::new();
        for array in self.root.list("arrays") {
            for volume in array.list("volumes") {
                if let (Some(array), Some(volume)) = (array.text_of("name"), volume.text_of("name")) {
                    all.push(format!("{array}/{volume}"));
                }
            }
        }
        if all.is_empty() { "the volumes of arrays".to_owned() } else { all.join(", ") }
    }
}
