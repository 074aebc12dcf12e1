//! Connections whose local address, link or route goes away, in network namespaces of the test's own: a target and a host,
//! joined by pairs of virtual links. Needs root and iproute2; says so where they are missing.

mod appliance;

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use appliance::{NQN, Place, SOON, with};
use base::uuid::Uuid;
use brindle::connections::ConnectionStatus;
use loadgen::host::{Host, HostIdentity, HostOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Two network namespaces, which go when the test does.
struct Namespaces {
    target: String,
    host: String,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

impl Namespaces {
    /// Makes them, or says why that is impossible here.
    fn new(name: &str) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let name = format!("brindle-{name}-{}", std::process::id());
        let made = Self { target: format!("{name}-t"), host: format!("{name}-h") };
        ip(&format!("netns add {}", made.target))?;
        ip(&format!("netns add {}", made.host))?;
        ip(&format!("-n {} link set lo up", made.target))?;
        ip(&format!("-n {} link set lo up", made.host))?;
        Ok(made)
    }

    /// Joins them by a pair of links `number`, with the addresses 10.`number`.0.1 and 10.`number`.0.2.
    fn join(&self, number: u8) {
        let Self { target, host } = self;
        for command in [
            format!("-n {target} link add t{number} type veth peer name h{number} netns {host}"),
            format!("-n {target} addr add 10.{number}.0.1/24 dev t{number}"),
            format!("-n {host} addr add 10.{number}.0.2/24 dev h{number}"),
            format!("-n {target} link set t{number} up"),
            format!("-n {host} link set h{number} up"),
        ] {
            ip(&command).unwrap_or_else(|error| panic!("ip {command}: {error}"));
        }
    }

    fn on_target(&self, command: &str) {
        ip(&format!("-n {} {command}", self.target)).unwrap_or_else(|error| panic!("ip {command}: {error}"));
    }

    fn on_host(&self, command: &str) {
        ip(&format!("-n {} {command}", self.host)).unwrap_or_else(|error| panic!("ip {command}: {error}"));
    }

    /// Connects from the host's namespace.
    fn connect(&self, address: &str, source: Option<&str>) -> Host {
        let namespace = File::open(format!("/run/netns/{}", self.host)).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let source = source.map(|source| source.parse().unwrap());
        let there = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let identity = HostIdentity::from_id(Uuid::from_random([7, 7]));
            let options = HostOptions { source, ..HostOptions::new(address, NQN, identity) };
            Host::connect(&options).unwrap()
        });
        there.join().unwrap()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // With a namespace go its links.
        let _ = (ip(&format!("netns del {}", self.target)), ip(&format!("netns del {}", self.host)));
    }
}

fn listed(place: &Place, options: &[&str]) -> Vec<ConnectionStatus> {
    let output = place.brindle(&[&["connections", "--json", "--config", "test.yaml"], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The local addresses of living connections, in order.
fn locals(place: &Place) -> Vec<String> {
    let mut all: Vec<_> = listed(place, &[]).into_iter().map(|one| one.local).collect();
    all.sort();
    all
}

/// Waits until only these are left.
fn wait_for(place: &Place, left: &[&str]) -> Duration {
    let begun = Instant::now();
    while locals(place) != left {
        assert!(begun.elapsed() < SOON, "{:?} instead of {left:?}", locals(place));
        std::thread::yield_now();
    }
    begun.elapsed()
}

#[test]
fn connections_that_lose_address_link_or_route_are_destroyed_unless_their_listener_keeps_them() {
    let namespaces = match Namespaces::new("ways") {
        Ok(namespaces) => namespaces,
        Err(error) => return eprintln!("SKIPPED: network namespaces cannot be made here: {error}"),
    };
    (1..=3).for_each(|number| namespaces.join(number));
    // An address of the host that only a route leads to.
    namespaces.on_host("addr add 10.9.0.9/32 dev lo");
    namespaces.on_target("route add 10.9.0.9/32 via 10.3.0.2");
    let place = Place::new("ways");
    let listeners = "address: 0.0.0.0:4420, address_grace: 100ms}\n  - \
                     {name: keeping, protocol: nvme-tcp, address: 0.0.0.0:4421, on_address_loss: keep}";
    let config = with(&[("address: 127.0.0.1:0}\nsubsystems", "LISTENERS\nsubsystems"), ("[main]", "[main, keeping]")]);
    let server = place.serve_in(&namespaces.target, &config.replace("LISTENERS", listeners));
    let _hosts = [
        namespaces.connect("10.1.0.1:4420", None),
        namespaces.connect("10.1.0.1:4421", None),
        namespaces.connect("10.2.0.1:4420", None),
        namespaces.connect("10.3.0.1:4420", Some("10.9.0.9:7000")),
        namespaces.connect("10.3.0.1:4420", None),
    ];
    let all = ["10.1.0.1:4420", "10.1.0.1:4421", "10.2.0.1:4420", "10.3.0.1:4420", "10.3.0.1:4420"];
    assert_eq!(locals(&place), all);
    // Gone for less than the grace: nothing happens.
    namespaces.on_target("addr add 10.1.0.7/24 dev t1");
    namespaces.on_target("addr del 10.1.0.7/24 dev t1");
    let address = {
        namespaces.on_target("addr del 10.1.0.1/24 dev t1");
        wait_for(&place, &all[1..])
    };
    let link = {
        namespaces.on_target("link set t2 down");
        wait_for(&place, &["10.1.0.1:4421", "10.3.0.1:4420", "10.3.0.1:4420"])
    };
    let route = {
        namespaces.on_target("route del 10.9.0.9/32 via 10.3.0.2");
        wait_for(&place, &["10.1.0.1:4421", "10.3.0.1:4420"])
    };
    println!("gone after: address {address:?}, link {link:?}, route {route:?}, with a grace of 100 ms");
    let left = listed(&place, &[]);
    assert!(left.iter().any(|one| one.peer.starts_with("10.3.0.2:")), "the other way is still there: {left:?}");
    let ended = listed(&place, &["--ended"]);
    let lost = ended.iter().filter(|one| one.last_error == "ECONNABORTED: its address or route is gone");
    assert_eq!(lost.count(), 3, "{ended:?}");
    server.kill();
}

#[test]
fn a_host_whose_machine_falls_silent_is_given_up_by_silence_long_before_its_keep_alive_timeout() {
    let namespaces = match Namespaces::new("mute") {
        Ok(namespaces) => namespaces,
        Err(error) => return eprintln!("SKIPPED: network namespaces cannot be made here: {error}"),
    };
    namespaces.join(4);
    let place = Place::new("mute");
    let listener = "address: 0.0.0.0:4420, silence: 3s, on_address_loss: keep}\nsubsystems";
    let server = place.serve_in(&namespaces.target, &with(&[("address: 127.0.0.1:0}\nsubsystems", listener)]));
    // It has asked for a Keep Alive Timeout of 15 s.
    let _host = namespaces.connect("10.4.0.1:4420", None);
    assert_eq!(locals(&place), ["10.4.0.1:4420"]);
    // Its link stays up and its address stays known: only nothing comes from it any more.
    namespaces.on_host("route add blackhole 10.4.0.1/32");
    let after = wait_for(&place, &[]);
    println!("a silence of 3 s ended it after {after:?}");
    let ended = listed(&place, &["--ended"]);
    assert_eq!(ended[0].last_error, "ETIMEDOUT: no sign of life from the host's system", "{ended:?}");
    server.kill();
}
