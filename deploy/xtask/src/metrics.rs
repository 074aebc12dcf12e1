//! The metrics endpoint seen from outside: a server is started, its `/metrics` is read as Prometheus would read it, and
//! `promtool check metrics` must have nothing to say.

use crate::process::{self, Failure};
use crate::server::{Server, Setup};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest wait for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// `cargo xtask metrics`. The release binary is built if it is not.
pub(crate) fn run() -> Result<String, Failure> {
    process::cargo(&["build", "--release", "--quiet", "-p", "brindle"])?;
    let promtool = find_promtool()?;
    let folder = process::root().join("target/lab/metrics");
    process::fresh_folder(&folder)?;
    let mut server = Server::create(&folder, Setup::small("write-back"))?;
    let text = process::wait_for(ANSWER_LIMIT, || fetch(server.metrics(), "/metrics").ok())
        .ok_or_else(|| Failure::found(format!("no answer from http://{}/metrics", server.metrics())))?;
    server.stop()?;
    check(&promtool, &text)?;
    let families = text.lines().filter(|line| line.starts_with("# TYPE brindle_")).count();
    if families == 0 {
        return Err(Failure::found("the endpoint exposes no family of ours"));
    }
    Ok(format!("{families} families, promtool has nothing to say"))
}

/// The writes that the server has answered since it started, over all volumes.
pub(crate) fn writes_answered(address: SocketAddr) -> std::io::Result<f64> {
    Ok(sum(&fetch(address, "/metrics")?, "brindle_volume_requests_total", "op=\"write\""))
}

/// The bytes that the server has read back from log copies since it started.
pub(crate) fn read_from_log(address: SocketAddr) -> Result<f64, Failure> {
    let text = fetch(address, "/metrics").map_err(|error| Failure::Start("a scrape".to_owned(), error))?;
    Ok(sum(&text, "brindle_array_log_read_bytes_total", "array=\"a0\""))
}

/// The sum of a family's samples that carry a label.
pub(crate) fn sum(text: &str, family: &str, label: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(family)?.strip_prefix('{')?.split_once("} "))
        .filter(|(labels, _)| labels.split(',').any(|one| one == label))
        .filter_map(|(_, value)| value.trim().parse::<f64>().ok())
        .sum()
}

fn check(promtool: &PathBuf, text: &str) -> Result<(), Failure> {
    let start = |error| Failure::Start("promtool".to_owned(), error);
    let mut child = Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).spawn().map_err(start)?;
    let mut input = child.stdin.take().expect("the input is piped");
    input.write_all(text.as_bytes()).map_err(start)?;
    drop(input);
    let status = child.wait().map_err(start)?;
    if status.success() { Ok(()) } else { Err(Failure::Ended("promtool check metrics".to_owned(), status)) }
}

/// One GET over a bare socket: a scrape needs no more.
pub(crate) fn fetch(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    // HTTP/1.0 keeps the answer whole: no chunks to put together (RFC 9112, section 6.1).
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("the answer is {}", head.lines().next().unwrap_or_default()))),
    }
}

/// Whether [`find_promtool`] will find one: it is there, or apt knows the package.
pub(crate) fn can_find_promtool() -> bool {
    process::find_program("promtool").is_some()
        || unpacked_promtool().exists()
        || Command::new("apt-cache")
            .args(["show", "--no-all-versions", "prometheus"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn promtool_folder() -> PathBuf {
    process::root().join("target/lab/promtool")
}

fn unpacked_promtool() -> PathBuf {
    promtool_folder().join("usr/bin/promtool")
}

/// promtool of the machine, or one unpacked below `target` from Debian's package: installing the package would start a
/// Prometheus on the developer's machine.
fn find_promtool() -> Result<PathBuf, Failure> {
    if let Some(found) = process::find_program("promtool") {
        return Ok(found);
    }
    let (folder, unpacked) = (promtool_folder(), unpacked_promtool());
    if unpacked.exists() {
        return Ok(unpacked);
    }
    process::fresh_folder(&folder)?;
    let fetch = process::run(
        Command::new("sh")
            .arg("-c")
            .arg("apt-get -q download prometheus && dpkg-deb -x prometheus_*.deb .")
            .current_dir(&folder),
        "apt-get download prometheus",
    );
    match fetch {
        Ok(()) if unpacked.exists() => Ok(unpacked),
        _ => Err(Failure::Missing(
            "promtool is missing, and Debian's package cannot be fetched. Type, as root:\n  apt-get update".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one request with the given bytes.
    fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn the_body_of_a_good_answer_is_returned() {
        let address = answering("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\na 1\n");
        assert_eq!(fetch(address, "/metrics").unwrap(), "a 1\n");
    }

    #[test]
    fn samples_are_summed_by_label() {
        let text = "# TYPE a counter\na{op=\"read\",v=\"x\"} 5\na{op=\"write\",v=\"x\"} 2\na{op=\"write\",v=\"y\"} 3\naa{op=\"write\"} 9\n";
        assert_eq!(sum(text, "a", "op=\"write\""), 5.0);
        assert_eq!(sum(text, "b", "op=\"write\""), 0.0);
    }

    #[test]
    fn a_refusal_is_an_error() {
        let address = answering("HTTP/1.0 404 Not Found\r\n\r\n");
        assert!(fetch(address, "/metrics").unwrap_err().to_string().contains("404"));
    }
}
