//! SIGTERM and SIGINT reach whoever serves, as calls of its closure. Alone in its process, since signals reach all of one.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use base::metrics::{Metrics, Names};
use brindle::control::{ControlPlane, ControlSetup};
use brindle::status::Status;
use rustix::process::{Signal, getpid, kill_process};

#[test]
fn each_signal_to_stop_is_passed_on() {
    let (heard, signals) = sync_channel(8);
    let plane = ControlPlane::start(ControlSetup {
        metrics: Arc::new(Metrics::new(Names::default(), 1)),
        reactor_times: Box::new(Vec::new),
        status: Box::new(Status::default),
        call: Box::new(|_, _, _| None),
        ready: Box::new(|| true),
        stop: Box::new(move || heard.send(()).unwrap()),
        metrics_address: None,
        socket: None,
    })
    .unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        kill_process(getpid(), signal).unwrap();
        signals.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    assert_eq!(plane.metrics_address(), None);
    drop(plane);
    assert!(signals.recv().is_err(), "the closure goes with the control side");
}
