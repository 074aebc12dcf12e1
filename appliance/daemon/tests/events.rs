//! The history as an operator sees it: who did what, what came of it, and that a death in between loses nothing of it.

mod appliance;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use appliance::{CONFIG, Client, NQN, Place, with};
use base::uuid::Uuid;
use brindle::events::{Record, Severity};
use loadgen::host::{Host, HostIdentity, HostOptions};

fn history(place: &Place, options: &[&str]) -> Vec<Record> {
    let output = place.brindle(&[&["events", "--json", "--config", "test.yaml"], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.event.as_str()).collect()
}

#[test]
fn the_history_is_whole_after_a_death_and_tells_who_did_what() {
    let place = Place::new("events-whole");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    let failed = place.brindle(&["drive", "fail", "d1", "--config", "test.yaml", "--yes"]);
    assert!(failed.status.success());
    assert!(!place.brindle(&["drive", "fail", "d2", "--config", "test.yaml", "--yes"]).status.success());
    server.kill();

    let server = place.serve(CONFIG, &[]);
    let all = history(&place, &[]);
    assert_eq!(
        names(&all),
        [
            "array.created",
            "array.started",
            "appliance.started",
            "host.connected",
            "command.given",
            "member.excluded",
            "command.done",
            "command.given",
            "command.failed",
            "appliance.died",
            "array.recovered",
            "array.noted",
            "member.missing",
            "appliance.started",
        ]
    );
    assert!(all.iter().zip(1..).all(|(record, number)| record.sequence == number));
    assert!(all.windows(2).all(|pair| pair[0].time <= pair[1].time), "{all:?}");
    let given = &all[4];
    assert_eq!((&given.fields["method"], &given.fields["params"]["name"]), (&"drive.fail".into(), &"d1".into()));
    assert_eq!(given.fields["uid"], rustix::process::getuid().as_raw());
    assert!(given.fields["pid"].is_i64() && given.severity == Severity::Notice);
    assert!(all[8].text.contains("cannot do without it"), "{}", all[8].text);
    assert_eq!(all[5].array.as_deref(), Some("a0"));
    assert_eq!(all[10].fields["dirty_blocks"], 16);

    assert_eq!(names(&history(&place, &["--severity", "error"])), ["member.excluded", "member.missing"]);
    assert_eq!(history(&place, &["--array", "a0", "--since", "1h", "--limit", "3"]), all[10..13]);
    assert!(history(&place, &["--since", "2999-01-01"]).is_empty());
    let shown = place.brindle(&["events", "--config", "test.yaml", "--limit", "2"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("error   member.missing         a0: member 1 takes no part\n"), "{shown}");
    server.stop();
}

#[test]
fn a_follower_sees_hosts_come_and_be_refused_as_it_happens() {
    let place = Place::new("events-follow");
    let server = place.serve(&with(&[("hosts: any", "hosts: [nqn.2026-01.io.brindle:somebody]")]), &[]);
    let mut follower = Command::new(env!("CARGO_BIN_EXE_brindle"))
        .args(["events", "--follow", "--json", "--config", "test.yaml", "--severity", "notice"])
        .current_dir(&place.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Record>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!([next().event, next().event], ["array.created", "appliance.started"]);
    let identity = HostIdentity::from_id(Uuid::from_random([7, 7]));
    assert!(Host::connect(&HostOptions::new(server.address(), NQN, identity)).is_err());
    let refused = next();
    assert_eq!((refused.event.as_str(), refused.severity), ("host.refused", Severity::Warning));
    assert!(refused.text.contains("does not admit it"), "{}", refused.text);
    let metrics = {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(server.metrics()).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(metrics.contains("brindle_events_total{severity=\"warning\"} 1\n"), "{metrics}");
    server.stop();
    assert!(["appliance.stopping", "appliance.stopped"].contains(&next().event.as_str()));
    follower.wait().unwrap();
}
