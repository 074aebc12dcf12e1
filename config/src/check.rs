//! What no schema can say: names are unique, references lead somewhere, each device has one use, things fit. It works on the
//! tree, which may have faults of form as well, and passes over what it cannot understand: that has been reported already.

use std::collections::{BTreeMap, BTreeSet};

use base::BLOCK;

use crate::limits::{
    CHUNK_BYTES, HIGH_WATERMARK_PERCENT, LANES, MAX_SOCKET_PATH_BYTES, MEMBER_OVERHEAD_BYTES, MEMBERS,
    MIN_MEMBER_BYTES, MIN_MEMORY_BYTES, ZONE_BYTES, min_log_bytes,
};
use crate::problem::Problems;
use crate::schema::{default_chunk, default_lanes, default_memory};
use crate::tree::{Node, Value};
use crate::values::{Percent, Size, SocketAddress, VolumePath};

/// Reports what in the tree cannot be, or is perhaps not meant.
pub(crate) fn check(root: &Node, problems: &mut Problems<'_>) {
    let mut checker = Checker { root, problems, uses: BTreeMap::new() };
    checker.reactors();
    checker.devices();
    checker.arrays();
    checker.unused_devices();
    checker.listeners();
    checker.subsystems();
    checker.control();
}

struct Checker<'a, 'p, 't> {
    root: &'a Node,
    problems: &'p mut Problems<'t>,
    /// By device: what uses it.
    uses: BTreeMap<&'a str, String>,
}

/// The NQN of discovery subsystems (NVM Express Base Specification, "NVMe Qualified Names").
const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

impl<'a> Checker<'a, '_, '_> {
    fn error(&mut self, node: &Node, path: &str, message: impl Into<String>, expected: impl Into<String>) {
        self.problems.error(node, path, message, expected);
    }

    fn warning(&mut self, node: &Node, path: &str, message: impl Into<String>, expected: impl Into<String>) {
        self.problems.warning(node, path, message, expected);
    }

    fn reactors(&mut self) {
        let Some(reactors) = self.root.get("reactors") else { return };
        if let (Some(_), Some(count)) = (reactors.get("cores"), reactors.get("count")) {
            self.error(count, "reactors.count", "the cores are named already", "either cores or count");
        }
        let mut seen = BTreeSet::new();
        for (i, core) in reactors.list("cores").iter().enumerate() {
            if let Value::Integer(number) = core.value
                && !seen.insert(number)
            {
                self.error(core, &format!("reactors.cores[{i}]"), "this core is named twice", "each core once");
            }
        }
        let memory = reactors.meaning_of::<Size>("memory").unwrap_or(default_memory());
        if let Some(node) = reactors.get("memory")
            && memory.bytes() < MIN_MEMORY_BYTES
        {
            self.error(node, "reactors.memory", "this is too little", format!("at least {}", Size(MIN_MEMORY_BYTES)));
        }
    }

    fn reactor_count(&self) -> u64 {
        let Some(reactors) = self.root.get("reactors") else { return 1 };
        match reactors.list("cores").len() {
            0 => reactors.number_of("count").unwrap_or(1),
            cores => cores as u64,
        }
    }

    fn devices(&mut self) {
        self.unique_names(self.root.list("devices"), "devices", "name");
        let mut paths = BTreeSet::new();
        for (i, device) in self.root.list("devices").iter().enumerate() {
            if let Some(path) = device.get("path")
                && let Some(text) = path.text()
                && !paths.insert(text)
            {
                self.error(path, &format!("devices[{i}].path"), "another device has this path", "a path of its own");
            }
        }
    }

    /// Reports items of a list whose `key` says the same text as an earlier one's.
    fn unique_names(&mut self, items: &'a [Node], path: &str, key: &str) {
        let mut seen = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            let Some(node) = item.get(key) else { continue };
            let Some(name) = node.text() else { continue };
            if let Some(first) = seen.insert(name, node.place.line) {
                let path = format!("{path}[{i}].{key}");
                self.error(node, &path, format!("this name is taken in line {first}"), "a name of its own");
            }
        }
    }

    fn arrays(&mut self) {
        self.unique_names(self.root.list("arrays"), "arrays", "name");
        for (i, array) in self.root.list("arrays").iter().enumerate() {
            let path = format!("arrays[{i}]");
            let label = array.text_of("name").unwrap_or("this array");
            self.chunk(array, &path);
            let smallest = self.members(array, label, &path);
            self.log(array, label, &path);
            self.destage(array, &path);
            self.volumes(array, smallest, &path);
        }
    }

    fn chunk(&mut self, array: &Node, path: &str) {
        let (Some(node), Some(chunk)) = (array.get("chunk"), array.meaning_of::<Size>("chunk")) else { return };
        if !CHUNK_BYTES.contains(&chunk.bytes()) || !chunk.bytes().is_power_of_two() {
            let expected =
                format!("a power of two from {} to {}", Size(*CHUNK_BYTES.start()), Size(*CHUNK_BYTES.end()));
            self.error(node, &format!("{path}.chunk"), "this is no size of a chunk", expected);
        }
    }

    /// The size of the smallest member, if any member's size is known.
    fn members(&mut self, array: &'a Node, label: &str, path: &str) -> Option<u64> {
        let mut sizes = Vec::new();
        for (i, member) in array.list("members").iter().enumerate() {
            let path = format!("{path}.members[{i}]");
            let Some(device) = self.used_by(member, &path, &format!("a member of {label}")) else { continue };
            let Some(size) = given_size(device) else { continue };
            if size.bytes() < MIN_MEMBER_BYTES {
                let expected = format!("a member of at least {}", Size(MIN_MEMBER_BYTES));
                self.error(member, &path, format!("this device has only {size}"), expected);
            }
            sizes.push((size, member, path));
        }
        let smallest = sizes.iter().map(|(size, ..)| *size).min()?;
        for (size, member, path) in &sizes {
            if *size > smallest {
                let message =
                    format!("this device has {size}, of which {smallest} are used: as much as the smallest has");
                self.warning(member, path, message, "members of one size");
            }
        }
        Some(smallest.bytes())
    }

    fn log(&mut self, array: &'a Node, label: &str, path: &str) {
        let Some(log) = array.get("log") else {
            let node = array.get("level").unwrap_or(array);
            let message = "this version makes no array with parity without a write log: a crash could leave parity that \
                           does not match the data";
            return self.error(node, path, message, "log: {devices: [...]}");
        };
        let lanes = log.number_of::<u16>("lanes").unwrap_or(default_lanes()).clamp(*LANES.start(), *LANES.end());
        let reactors = self.reactor_count();
        if u64::from(lanes) < reactors {
            let node = log.get("lanes").unwrap_or(log);
            let message = format!("{lanes} lanes cannot be shared by {reactors} reactors");
            self.error(node, &format!("{path}.log.lanes"), message, "at least one lane for each reactor");
        }
        let least = Size(min_log_bytes(lanes));
        for (i, copy) in log.list("devices").iter().enumerate() {
            let path = format!("{path}.log.devices[{i}]");
            let Some(device) = self.used_by(copy, &path, &format!("a log copy of {label}")) else { continue };
            if let Some(size) = given_size(device)
                && size < least
            {
                let expected = format!("a log device of at least {least} for {lanes} lanes");
                self.error(copy, &path, format!("this device has only {size}"), expected);
            }
            if device.text_of("kind") == Some("ram") && self.any_member_is_lasting(array) {
                let message = "this log is in memory: what was acknowledged is lost when the process ends";
                self.warning(copy, &path, message, "a device that keeps what is written");
            }
        }
    }

    fn any_member_is_lasting(&self, array: &Node) -> bool {
        let kinds = array.list("members").iter().filter_map(|member| self.device(member.text()?)?.text_of("kind"));
        kinds.into_iter().any(|kind| kind != "ram")
    }

    fn destage(&mut self, array: &Node, path: &str) {
        let Some(destage) = array.get("destage") else { return };
        if let (Some(node), Some(share)) =
            (destage.get("high_watermark"), destage.meaning_of::<Percent>("high_watermark"))
            && !HIGH_WATERMARK_PERCENT.contains(&share.0)
        {
            let (least, most) = HIGH_WATERMARK_PERCENT.into_inner();
            let expected = format!("from {} to {}", Percent(least), Percent(most));
            self.error(node, &format!("{path}.destage.high_watermark"), "this is no usable watermark", expected);
        }
    }

    fn volumes(&mut self, array: &'a Node, smallest_member: Option<u64>, path: &str) {
        let volumes = array.list("volumes");
        self.unique_names(volumes, &format!("{path}.volumes"), "name");
        let data_members = array.list("members").len().clamp(*MEMBERS.start(), *MEMBERS.end()) as u64 - 1;
        let chunk = array.meaning_of::<Size>("chunk").unwrap_or(default_chunk()).bytes();
        let row = chunk.clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end()) * data_members;
        // Volumes begin and end at chunk rows; members are used by whole zones.
        let zones = smallest_member.map(|bytes| bytes.saturating_sub(MEMBER_OVERHEAD_BYTES) / ZONE_BYTES);
        let capacity = zones.map(|zones| zones * ZONE_BYTES * data_members);
        let mut used = 0_u64;
        for (i, volume) in volumes.iter().enumerate() {
            let path = format!("{path}.volumes[{i}].size");
            let (Some(node), Some(size)) = (volume.get("size"), volume.meaning_of::<Size>("size")) else { continue };
            if size.bytes() == 0 || !size.bytes().is_multiple_of(BLOCK as u64) {
                self.error(node, &path, "this is no size of a volume", "whole blocks of 4KiB, at least one");
            }
            used = used.saturating_add(size.bytes().div_ceil(row).saturating_mul(row));
            if let Some(capacity) = capacity
                && used > capacity
            {
                let message = format!("the volumes up to this one take {}", rounded(used));
                self.error(node, &path, message, format!("at most {} in this array", rounded(capacity)));
            }
        }
    }

    /// Notes that a device is used, and finds it.
    fn used_by(&mut self, reference: &'a Node, path: &str, user: &str) -> Option<&'a Node> {
        let name = reference.text()?;
        let Some(device) = self.device(name) else {
            let names = names(self.root.list("devices"));
            self.error(reference, path, "there is no such device", format!("one of {names}"));
            return None;
        };
        if let Some(other) = self.uses.get(name).cloned() {
            self.error(reference, path, format!("this device is {other} already"), "a device for each use");
            return None;
        }
        self.uses.insert(name, user.to_owned());
        Some(device)
    }

    fn device(&self, name: &str) -> Option<&'a Node> {
        self.root.list("devices").iter().find(|device| device.text_of("name") == Some(name))
    }

    fn unused_devices(&mut self) {
        for (i, device) in self.root.list("devices").iter().enumerate() {
            if let Some(name) = device.get("name")
                && name.text().is_some_and(|name| !self.uses.contains_key(name))
            {
                let path = format!("devices[{i}].name");
                self.warning(name, &path, "nothing uses this device", "a member of an array or a copy of a log");
            }
        }
    }

    fn listeners(&mut self) {
        let listeners = self.root.list("listeners");
        self.unique_names(listeners, "listeners", "name");
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

    fn subsystems(&mut self) {
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

    fn control(&mut self) {
        if let Some(control) = self.root.get("control")
            && let Some(socket) = control.get("socket")
            && socket.text().is_some_and(|path| path.len() > MAX_SOCKET_PATH_BYTES)
        {
            let expected = format!("a path of at most {MAX_SOCKET_PATH_BYTES} bytes");
            self.error(socket, "control.socket", "the system takes no socket of so long a path", expected);
        }
    }
}

/// The size that the configuration gives a device; a block device has its own.
fn given_size(device: &Node) -> Option<Size> {
    if device.text_of("kind") == Some("block") { None } else { device.meaning_of("size") }
}

/// Names of the items of a list, for people.
fn names(items: &[Node]) -> String {
    let all: Vec<_> = items.iter().filter_map(|item| item.text_of("name")).collect();
    if all.is_empty() { "the names in the list".to_owned() } else { all.join(", ") }
}

/// A size in whole mebibytes, upwards.
fn rounded(bytes: u64) -> Size {
    Size::from_mib(bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use crate::{DEMO, Problem, Severity, parse};

    /// All that is said of the demo with texts replaced.
    fn said(replacements: &[(&str, &str)]) -> Vec<Problem> {
        let mut text = DEMO.to_owned();
        for (from, to) in replacements {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        match parse(&text, "demo.yaml") {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        }
    }

    #[test]
    fn each_fault_of_meaning_is_named() {
        let long_path = format!("socket: {}", "x".repeat(108));
        let cases: &[(&str, &str, &str, &str)] = &[
            ("count: 1", "count: 1, cores: [0]", "reactors.count", "named already"),
            ("count: 1", "cores: [0, 0]", "reactors.cores[1]", "named twice"),
            ("count: 1", "count: 17", "arrays[0].log.lanes", "16 lanes cannot be shared by 17"),
            ("memory: 256MiB", "memory: 1MiB", "reactors.memory", "too little"),
            ("name: d1", "name: d0", "devices[1].name", "taken in line"),
            ("d1.img", "d0.img", "devices[1].path", "another device has this path"),
            ("[d0, d1, d2]", "[d0, d1, d9]", "arrays[0].members[2]", "no such device"),
            ("[d0, d1, d2]", "[d0, d1, d1]", "arrays[0].members[2]", "a member of a0 already"),
            ("[l0, l1]", "[l0, d1]", "arrays[0].log.devices[1]", "a member of a0 already"),
            ("chunk: 64KiB", "chunk: 65KiB", "arrays[0].chunk", "no size of a chunk"),
            ("chunk: 64KiB", "chunk: 2MiB", "arrays[0].chunk", "no size of a chunk"),
            ("lanes: 16", "lanes: 256", "arrays[0].log.devices[0]", "only 64MiB"),
            ("high_watermark: 75%", "high_watermark: 95%", "arrays[0].destage.high_watermark", "watermark"),
            ("size: 128MiB", "size: 1GiB", "arrays[0].volumes[0].size", "take 1GiB"),
            ("size: 128MiB", "size: 4097B", "arrays[0].volumes[0].size", "no size of a volume"),
            ("size: 256MiB", "size: 8MiB", "arrays[0].members[0]", "only 8MiB"),
            ("address: 127.0.0.1:9420", "address: 127.0.0.1:4420", "metrics.address", "taken in line"),
            ("[main]", "[other]", "subsystems[0].listeners[0]", "no such listener"),
            ("[main]", "[main, main]", "subsystems[0].listeners[1]", "named twice"),
            ("a0/v0", "a0/v9", "subsystems[0].namespaces[0].volume", "no such volume"),
            ("nqn.2026-01.io.brindle:demo", super::DISCOVERY_NQN, "subsystems[0].nqn", "name of discovery"),
            ("socket: brindle-demo/control.sock", &long_path, "control.socket", "so long a path"),
            (
                "{nsid: 1, volume: a0/v0}",
                "{nsid: 1, volume: a0/v0}\n      - {nsid: 1, volume: a0/v0}",
                "subsystems[0].namespaces[1].nsid",
                "taken",
            ),
            (
                "{nsid: 1, volume: a0/v0}",
                "{nsid: 1, volume: a0/v0}\n      - {nsid: 2, volume: a0/v0}",
                "subsystems[0].namespaces[1].volume",
                "already",
            ),
        ];
        for (from, to, path, words) in cases {
            let found = said(&[(from, to)]);
            let hit =
                found.iter().any(|p| p.severity == Severity::Error && p.path == *path && p.message.contains(words));
            assert!(hit, "{from} -> {to} should give {path}: {words}; it gives {found:#?}");
        }
    }

    #[test]
    fn a_parity_array_without_a_log_is_refused_with_a_word_that_says_so() {
        let start = DEMO.find("    log:").unwrap();
        let end = start + DEMO[start..].find('\n').unwrap();
        let text = format!("{}{}", &DEMO[..start], &DEMO[end + 1..]);
        let problems = parse(&text, "demo.yaml").unwrap_err();
        assert!(
            problems.iter().any(|p| p.path == "arrays[0]" && p.message.contains("without a write log")),
            "{problems:#?}"
        );
    }

    #[test]
    fn what_is_allowed_but_perhaps_not_meant_is_a_warning() {
        let cases = [
            ("address: 127.0.0.1:4420", "address: 0.0.0.0:4420", "subsystems[0].hosts", "may read and write"),
            ("[d0, d1, d2]", "[d0, d1, l0, d2]", "arrays[0].log.devices[0]", "already"),
            ("size: 256MiB", "size: 512MiB", "arrays[0].members[0]", "of which 256MiB are used"),
            (
                "listeners:\n",
                "listeners:\n  - {name: x, protocol: nvme-tcp, address: 127.0.0.1:1}\n",
                "listeners[0].name",
                "no subsystem",
            ),
            ("[l0, l1]", "[l0]", "devices[4].name", "nothing uses"),
            (
                "{name: l0, kind: file, path: brindle-demo/l0.img, ",
                "{name: l0, kind: ram, ",
                "arrays[0].log.devices[0]",
                "in memory",
            ),
        ];
        for (i, (from, to, path, words)) in cases.into_iter().enumerate() {
            let found = said(&[(from, to)]);
            let severity = if i == 1 { Severity::Error } else { Severity::Warning };
            let hit = found.iter().any(|p| p.severity == severity && p.path == path && p.message.contains(words));
            assert!(hit, "{from} -> {to} should give {path}: {words}; it gives {found:#?}");
        }
    }

    #[test]
    fn faults_of_form_and_of_meaning_come_together() {
        let found = said(&[("memory: 256MiB", "memory: much"), ("a0/v0", "a0/v9"), ("[d0, d1, d2]", "[d0, d1, d9]")]);
        let paths: Vec<_> = found.iter().filter(|p| p.severity == Severity::Error).map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["reactors.memory", "arrays[0].members[2]", "subsystems[0].namespaces[0].volume"]);
    }
}
