//! What every scenario keeps to: the promise, the volume, the order of its faults.

use super::*;

#[test]
fn every_seed_stays_within_the_promise_and_its_windows_within_the_volume() {
    let (mut lost_in_crash, mut most_lost) = (0, 0);
    let levels = [None; 500].into_iter().chain(Level::ALL.into_iter().flat_map(|level| [Some(level); 100]));
    for (seed, level) in (0..).zip(levels) {
        let scenario = Scenario::draw_at(seed, level);
        let lost = |devices: Vec<DeviceId>| {
            let is_lost = |fault: &&PlannedFault| matches!(fault.fault, Fault::Lost { device, .. } | Fault::Hang { device, .. } if devices.contains(&device));
            scenario.faults.iter().filter(is_lost).count()
        };
        assert_eq!(
            lost(scenario.member_devices().collect()) + scenario.degraded.len(),
            scenario.lost_members().count_ones() as usize
        );
        assert!(scenario.geometry().bears(scenario.lost_members()));
        most_lost = most_lost.max(scenario.lost_members().count_ones());
        assert!(scenario.is_bare() || lost(scenario.log_devices().collect()) < usize::from(scenario.log_copies));
        let cuts = scenario.faults.iter().any(|planned| planned.fault == Fault::PowerCut) || scenario.cut_when_idle;
        assert!(!scenario.is_bare() || !cuts || scenario.lost_members() == 0, "without a log not both");
        assert!(scenario.faults.is_sorted_by_key(|planned| planned.effect));
        assert!(scenario.lanes >= scenario.shards);
        let mut end = 0;
        for window in &scenario.workload.windows {
            assert!(window.start.0 >= end, "windows overlap");
            end = window.start.0 + u64::from(window.blocks);
        }
        assert!(end <= scenario.volume_blocks() && end > 0);
        lost_in_crash += u32::from(
            scenario
                .faults
                .windows(2)
                .any(|pair| pair[0].effect == pair[1].effect && matches!(pair[0].fault, Fault::Lost { .. })),
        );
    }
    assert!(lost_in_crash > 20 && most_lost == 3, "{lost_in_crash} in the crash, up to {most_lost}");
}
