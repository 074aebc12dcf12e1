//! What no schema can say: names are unique, references lead somewhere, each device has one use, things fit. It works on the
//! tree, which may have faults of form as well, and passes over what it cannot understand: that has been reported already.

mod arrays;
mod exports;

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{MAX_SOCKET_PATH_BYTES, MIN_EVENTS_BYTES, MIN_MEMORY_BYTES};
use crate::problem::Problems;
use crate::schema::default_memory;
use crate::tree::{Node, Value};
use crate::values::Size;

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
    checker.events();
}

struct Checker<'a, 'p, 't> {
    root: &'a Node,
    problems: &'p mut Problems<'t>,
    /// By device: what uses it.
    uses: BTreeMap<&'a str, String>,
}

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
                self.warning(
                    name,
                    &path,
                    "nothing uses this device",
                    "a member or a spare of an array, or a copy of a log",
                );
            }
        }
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

    fn events(&mut self) {
        if let Some(events) = self.root.get("events")
            && let (Some(node), Some(size)) = (events.get("max_size"), events.meaning_of::<Size>("max_size"))
            && size.bytes() < MIN_EVENTS_BYTES
        {
            self.error(node, "events.max_size", "this is too little", format!("at least {}", Size(MIN_EVENTS_BYTES)));
        }
    }
}

/// Names of the items of a list, for people.
fn names(items: &[Node]) -> String {
    let all: Vec<_> = items.iter().filter_map(|item| item.text_of("name")).collect();
    if all.is_empty() { "the names in the list".to_owned() } else { all.join(", ") }
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
            (
                "lanes: 16",
                "lanes: 16, index: 64MiB",
                "arrays[0].log.index",
                "all that waits for the members is in memory",
            ),
            ("lanes: 16", "lanes: 16, residency: log, index: 1KiB", "arrays[0].log.index", "no usable size"),
            ("level: raid5", "level: raid6", "arrays[0].members", "raid6 takes 4 to 32 members, and these are 3"),
            ("level: raid5", "level: raid10", "arrays[0].members", "raid10 takes 4 to 32 members, and these are 3"),
            ("members: [d0, d1, d2]", "members: [d0, d1]", "arrays[0].members", "raid5 takes 3 to 32"),
            ("level: raid5", "level: raid7", "arrays[0].level", ""),
            ("high_watermark: 75%", "high_watermark: 95%", "arrays[0].destage.high_watermark", "watermark"),
            ("high_watermark: 75%", "memory_watermark: 5%", "arrays[0].destage.memory_watermark", "watermark"),
            ("high_watermark: 75%", "full_stripe_delay: 6s", "arrays[0].destage.full_stripe_delay", "5s old"),
            ("mode: write-back", "timeout: 50ms", "arrays[0].log.timeout", "time limit"),
            ("level: raid5", "level: raid5\n    drives: {timeout: 50ms}", "arrays[0].drives.timeout", "time limit"),
            (
                "level: raid5",
                "level: raid5\n    drives: {read_timeout: 2min}",
                "arrays[0].drives.read_timeout",
                "time limit",
            ),
            ("level: raid5", "level: raid5\n    drives: {timeout: 1s}", "arrays[0].drives", "reads would wait"),
            ("size: 128MiB", "size: 1GiB", "arrays[0].volumes[0].size", "take 1GiB"),
            ("size: 128MiB", "size: 4097B", "arrays[0].volumes[0].size", "no size of a volume"),
            ("size: 256MiB", "size: 8MiB", "arrays[0].members[0]", "only 8MiB"),
            ("address: 127.0.0.1:9420", "address: 127.0.0.1:4420", "metrics.address", "taken in line"),
            ("address: 127.0.0.1:4420", "address: 127.0.0.1:4420, silence: 2s", "listeners[0].silence", "silence"),
            (
                "address: 127.0.0.1:4420",
                "address: 127.0.0.1:4420, address_grace: 61s",
                "listeners[0].address_grace",
                "hosts would wait",
            ),
            ("[main]", "[other]", "subsystems[0].listeners[0]", "no such listener"),
            ("[main]", "[main, main]", "subsystems[0].listeners[1]", "named twice"),
            ("a0/v0", "a0/v9", "subsystems[0].namespaces[0].volume", "no such volume"),
            ("nqn.2026-01.io.brindle:demo", super::exports::DISCOVERY_NQN, "subsystems[0].nqn", "name of discovery"),
            ("socket: brindle-demo/control.sock", &long_path, "control.socket", "so long a path"),
            ("version: 1\n", "version: 1\nevents: {max_size: 63KiB}\n", "events.max_size", "too little"),
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
    fn each_level_takes_its_members_and_holds_what_it_can() {
        let array = |level: &str, members: usize, size: &str| {
            let names: Vec<_> = (0..members).map(|at| format!("e{at}")).collect();
            let devices: String =
                names.iter().map(|name| format!("  - {{name: {name}, kind: ram, size: 33MiB}}\n")).collect();
            let devices = format!("devices:\n{devices}");
            let members = format!("[{}]", names.join(", "));
            let level = format!("level: {level}");
            said(&[
                ("devices:\n", &devices),
                ("level: raid5", &level),
                ("[d0, d1, d2]", &members),
                ("size: 128MiB", size),
            ])
        };
        let errors = |found: &[Problem]| found.iter().filter(|p| p.severity == Severity::Error).count();
        // Each member has room for 32 MiB.
        for (level, members, columns) in [
            ("raid0", 1, 1),
            ("raid0", 3, 3),
            ("raid1", 3, 1),
            ("raid4", 4, 3),
            ("raid5", 4, 3),
            ("raid6", 5, 3),
            ("raid10", 6, 3),
        ] {
            let most = array(level, members, &format!("size: {}MiB", 32 * columns));
            assert_eq!(errors(&most), 0, "{level}: {most:#?}");
            let more = array(level, members, &format!("size: {}MiB", 32 * columns + 1));
            assert!(more.iter().any(|p| p.message.contains("take")), "{level}: {more:#?}");
            let warned = most.iter().any(|p| p.message.contains("has no redundancy"));
            assert_eq!(warned, level == "raid0");
        }
        let odd = array("raid10", 5, "size: 1MiB");
        assert!(odd.iter().any(|p| p.severity == Severity::Error && p.message.contains("in pairs")), "{odd:#?}");
    }

    #[test]
    fn an_array_with_checksums_is_never_written_without_its_log() {
        let log = DEMO.find("    log:").unwrap();
        for (more, is_refused) in [("    checksums: on\n", true), ("", false)] {
            let text = format!("{}{more}    on_log_loss: write-through-exposed\n{}", &DEMO[..log], &DEMO[log..]);
            let problems = match parse(&text, "demo.yaml") {
                Ok(loaded) => loaded.warnings,
                Err(problems) => problems,
            };
            let hit = |p: &Problem| p.path == "arrays[0].on_log_loss" && p.message.contains("checksums need a log");
            assert_eq!(problems.iter().any(hit), is_refused, "{problems:#?}");
        }
    }

    #[test]
    fn an_array_without_a_log_is_warned_of_and_has_none_to_lose() {
        let start = DEMO.find("    log:").unwrap();
        let end = start + DEMO[start..].find('\n').unwrap();
        for (log, severity, path, words) in [
            ("", Severity::Warning, "arrays[0]", "no write log"),
            ("    log: ~", Severity::Warning, "arrays[0]", "no write log"),
            ("    checksums: on", Severity::Error, "arrays[0].checksums", "checksums need a log"),
            ("    on_log_loss: stop", Severity::Error, "arrays[0].on_log_loss", "no log that could be lost"),
        ] {
            let text = format!("{}{log}{}", &DEMO[..start], &DEMO[end..]);
            let problems = match parse(&text, "demo.yaml") {
                Ok(loaded) => loaded.warnings,
                Err(problems) => problems,
            };
            let hit = |p: &Problem| p.severity == severity && p.path == path && p.message.contains(words);
            assert!(problems.iter().any(hit), "{problems:#?}");
        }
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
