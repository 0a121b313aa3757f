//! What a disk costs when it does nothing, and what it leaves behind: measured for the whole process, so this file has
//! one test.

mod disk;
mod rig;

use std::time::Duration;

use disk::*;
use nix::sys::resource::{UsageWho, getrusage};

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time =
        |t: nix::sys::time::TimeVal| Duration::new(t.tv_sec() as u64, t.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

fn entries(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

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
        // Time to come to rest, also on a busy machine.
        std::thread::sleep(Duration::from_millis(200));
        let before = cpu_time();
        std::thread::sleep(Duration::from_secs(1));
        let spent = cpu_time() - before;
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
        let before = (entries("/proc/self/fd"), entries("/proc/self/task"));
        (0..20).for_each(cycle);
        let after = (entries("/proc/self/fd"), entries("/proc/self/task"));
        assert_eq!(after, before, "file descriptors and threads: {spec}");
    }
}
