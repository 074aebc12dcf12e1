//! What of a configuration the demo uses: where its built-in host connects, and whom it asks. It opens nothing.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use config::{Config, Device, Hosts, Listener, Protocol, Subsystem};

/// The parts of a configuration that the demo needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where the host connects.
    pub(super) address: SocketAddr,
    /// The subsystem that it connects to.
    pub(super) nqn: String,
    /// The volume behind its first namespace.
    pub(super) volume: String,
    /// The socket that tells whether hosts are served.
    pub(super) control: PathBuf,
    /// Where metrics are told.
    metrics: Option<SocketAddr>,
}

impl Plan {
    /// Chooses; or says what is missing.
    pub(super) fn of(config: &Config) -> Result<Self, String> {
        let control = config.control.as_ref().ok_or("it has no control socket, by which the demo sees who serves")?;
        if let Some(device) = config.devices.iter().find(|device| matches!(device, Device::Ram { .. })) {
            return Err(format!("device {} is memory, which a killed process takes along", device.name()));
        }
        let chosen = config.subsystems.iter().find_map(|subsystem| {
            let namespace = subsystem.namespaces.iter().min_by_key(|namespace| namespace.nsid)?;
            Some((subsystem, listener_of(config, subsystem)?, namespace))
        });
        let (subsystem, listener, namespace) =
            chosen.ok_or("no subsystem has an nvme-tcp listener, a namespace and `hosts: any`")?;
        Ok(Self {
            address: reachable(listener.address.0),
            nqn: subsystem.nqn.to_string(),
            volume: namespace.volume.to_string(),
            control: control.socket.clone(),
            metrics: config.metrics.as_ref().map(|metrics| reachable(metrics.address.0)),
        })
    }

    /// What to do with the demo as it goes on serving.
    pub(super) fn invitation(&self, log: &Path) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        let mut out = String::from("\nGoing on serving. A real host connects with nvme-cli, as root:\n\n");
        let _ = writeln!(out, "    modprobe nvme-tcp");
        let _ = writeln!(out, "    nvme discover -t tcp -a {ip} -s {port}");
        let _ = writeln!(out, "    nvme connect -t tcp -a {ip} -s {port} -n {}", self.nqn);
        if let Some(metrics) = self.metrics {
            let _ = write!(out, "\nmetrics: http://{metrics}/metrics");
        }
        let _ = write!(out, "\nstatus:  brindle status --control {}", self.control.display());
        let _ = write!(out, "\nlog:     {}", log.display());
        let _ = write!(out, "\nCtrl-C stops.");
        out
    }
}

fn listener_of<'a>(config: &'a Config, subsystem: &Subsystem) -> Option<&'a Listener> {
    let admitting = matches!(subsystem.hosts, Hosts::Any(_));
    let mut named = subsystem.listeners.iter().filter_map(|name| config.listeners.iter().find(|l| l.name == *name));
    named.find(|listener| admitting && matches!(listener.protocol, Protocol::NvmeTcp))
}

/// An address to connect to: who listens everywhere is found on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        Plan::of(&config::parse(text, "demo.yaml").unwrap_or_else(|problems| panic!("{problems:#?}")).config)
    }

    #[test]
    fn the_embedded_configuration_can_be_played_and_says_how_to_connect() {
        let plan = plan(config::DEMO).unwrap();
        assert_eq!(plan.address, "127.0.0.1:4420".parse().unwrap());
        assert_eq!((plan.volume.as_str(), plan.control.to_str()), ("a0/v0", Some("brindle-demo/control.sock")));
        let text = plan.invitation(Path::new("brindle-demo/serve.log"));
        for expected in [
            "nvme discover -t tcp -a 127.0.0.1 -s 4420\n",
            "nvme connect -t tcp -a 127.0.0.1 -s 4420 -n nqn.2026-01.io.brindle:demo\n",
            "as root",
            "http://127.0.0.1:9420/metrics\n",
            "brindle-demo/serve.log\n",
            "Ctrl-C",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_reached_on_loopback() {
        let everywhere = config::DEMO.replace("127.0.0.1:4420", "0.0.0.0:4420");
        assert_eq!(plan(&everywhere).unwrap().address, "127.0.0.1:4420".parse().unwrap());
        let everywhere = config::DEMO.replace("127.0.0.1:4420", "'[::]:4420'");
        assert_eq!(plan(&everywhere).unwrap().address, "[::1]:4420".parse().unwrap());
        let narrow = config::DEMO.replace("127.0.0.1:4420", "127.0.0.2:4420");
        assert_eq!(plan(&narrow).unwrap().address, "127.0.0.2:4420".parse().unwrap());
    }

    #[test]
    fn what_is_missing_for_a_demo_is_said() {
        let without_control = config::DEMO.replace("control: {socket: brindle-demo/control.sock}", "");
        let listed = config::DEMO.replace("hosts: any", "hosts: [nqn.2026-01.com.example:host]");
        let memory = config::DEMO.replace(
            "{name: d1, kind: file, path: brindle-demo/d1.img, size: 256MiB}",
            "{name: d1, kind: ram, size: 256MiB}",
        );
        for (text, expected) in
            [(without_control, "control socket"), (listed, "hosts: any"), (memory, "device d1 is memory")]
        {
            let reason = plan(&text).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
