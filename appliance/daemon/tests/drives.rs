//! What an operator does with drives while hosts go on.

mod appliance;

use appliance::{CONFIG, Client, Place};

#[test]
fn a_drive_is_failed_by_its_name_if_the_array_can_do_without_it() {
    let place = Place::new("drives-fail");
    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    client.write(0, 16, 0x11);
    let fail = |name: &str| place.brindle(&["drive", "fail", name, "--config", "test.yaml", "--yes"]);
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let unasked = place.brindle(&["drive", "fail", "d1", "--config", "test.yaml"]);
    assert!(!unasked.status.success() && said(&unasked).contains("--yes"), "{}", said(&unasked));
    assert_eq!(place.status().arrays[0].state, "optimal");
    let unknown = fail("d9");
    assert!(!unknown.status.success() && said(&unknown).contains("there are d0, d1, d2, l0, l1"), "{}", said(&unknown));

    for name in ["d1", "l0"] {
        let output = fail(name);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("drive {name} is used no longer\n"));
    }
    let array = &place.status().arrays[0];
    assert_eq!((array.state.as_str(), &array.missing_members[..]), ("degraded", &[1][..]));
    assert_eq!(array.log.as_ref().unwrap().missing_copies, [0]);
    client.write(8, 16, 0x22);
    assert!(client.holds(7, 0x11) && client.holds(8, 0x22));

    for (name, why) in [("d2", "cannot do without it"), ("l1", "cannot do without it"), ("d1", "not in use")] {
        let output = fail(name);
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
    }
    server.stop();

    let server = place.serve(CONFIG, &[]);
    let mut client = Client::connect(&server);
    assert!(client.holds(7, 0x11) && client.holds(8, 0x22) && client.holds(23, 0x22));
    assert_eq!(place.status().arrays[0].missing_members, [1]);
    server.stop();
}
