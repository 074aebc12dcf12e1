//! What operators read of a status, and that it survives the way through the socket.

use super::*;

/// An appliance with one of everything.
pub(crate) fn example() -> Status {
    Status {
        name: "demo".into(),
        version: "1.2.3".into(),
        process: 42,
        uptime_seconds: 3725.5,
        ready: true,
        reactors: vec![ReactorStatus { core: 3, busy_ratio: 0.25, turns: 1000, ..Default::default() }],
        devices: vec![crate::device_status::tests::example()],
        arrays: vec![ArrayStatus {
            name: "a0".into(),
            level: "raid5".into(),
            state: "degraded".into(),
            capacity_bytes: 504 << 20,
            chunk_bytes: 64 << 10,
            missing_members: vec![2],
            log: Some(LogStatus {
                mode: "write-back".into(),
                copies: 2,
                lanes: 16,
                used_bytes: 16 << 20,
                capacity_bytes: 64 << 20,
                dirty_bytes: 1536 << 10,
                logged_bytes: 1 << 20,
                ..Default::default()
            }),
            ..Default::default()
        }],
        volumes: vec![VolumeStatus { array: "a0".into(), name: "v0".into(), bytes: 128 << 20, ..Default::default() }],
        listeners: vec![],
        connections: vec![ConnectionStatus {
            host: "nqn.evil\u{1b}[2J".into(),
            age_seconds: 61.0,
            ..Default::default()
        }],
        memory: crate::memory_status::tests::example(),
        sandbox: crate::memory_status::tests::sandbox(),
        ended_connections: vec![],
    }
}

#[test]
fn people_get_aligned_tables() {
    let text = example().to_string();
    for line in [
        "demo: serving, brindle 1.2.3, process 42, up 1 h 2 min",
        "  name  kind  size     role         state         errors                     path",
        "  d0    file  256 MiB  a0 member 0  active, slow  3 unreadable, 2 corrected  brindle-demo/d0.img",
        "  a0     write-back  2       -               16     16 MiB of 64 MiB (25%)  1.5 MiB  1 MiB",
        "  a0/v0  128 MiB  -      -     -          -",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is missing:\n{text}");
    }
    assert!(text.contains("Listeners\n  none\n"));
    assert!(text.contains("1 min 1 s") && text.contains("nqn.evil?[2J"), "{text}");
}

#[test]
fn json_comes_back_as_it_was() {
    let json = serde_json::to_string(&example()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), example());
}

#[test]
fn numbers_from_elsewhere_do_no_harm() {
    for seconds in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        assert!(!duration(seconds).is_empty());
    }
    assert_eq!(
        (size(0), size(1023), size(1024), size(u64::MAX)),
        ("0 B".into(), "1023 B".into(), "1 KiB".into(), "16777216 TiB".into())
    );
}
