//! What a disk costs when it does nothing, and what it leaves behind: measured for the whole process, so this file has
//! one test.

#[path = "rig/cost.rs"]
mod cost;
mod disk;
mod rig;

use std::time::Duration;

use cost::*;
use disk::*;

#[test]
fn an_idle_disk_costs_nothing_and_opening_and_closing_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("image");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let file = format!("sim:blk,file={},queues=4", path.display());
    for spec in [
        "sim:blk,size=1G,queues=4".to_owned(),
        format!("{file},io=uring"),
        format!("{file},io=threads"),
    ] {
        let mut disk = Disk::open(&spec);
        disk.write(0, &[1; 65536]);
        disk.read(0, 65536);
        let spent = spent_at_rest(Duration::from_secs(1));
        assert!(
            spent < Duration::from_millis(5),
            "{spent:?} of CPU time in 1 s: {spec}"
        );
        // And it wakes up.
        disk.read(0, 512);
        disk.rig.close();

        let cycle = |i: usize| {
            let mut disk = Disk::packed(&format!("{spec},workers=2"), i.is_multiple_of(2));
            disk.write(0, &[i as u8; 4096]);
            let end = disk.rig.device.info().queues;
            assert_eq!(end, 4);
            if i.is_multiple_of(3) {
                disk.rig.close();
            }
        };
        (0..5).for_each(cycle);
        let before = held();
        (0..20).for_each(cycle);
        assert_let_go(before, &spec);
    }
}
