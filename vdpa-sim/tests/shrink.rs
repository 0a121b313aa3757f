//! A driver's memory whose file is cut under traffic.

mod rig;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rig::{BASE, Lab, Tx, frame, plain, soon, until};
use vdpa_core::{Event, Status};
use vdpa_mem::{Access, Deadline, DmaMemory, Iova, IovaRange, Mapping, Region};

#[test]
fn a_device_whose_memory_is_cut_needs_a_reset_and_its_sibling_goes_on() {
    vdpa_mem::survive_shrinking().unwrap();
    let lab = Lab::new();
    let open = || {
        let rig = lab.open("sim:net,port=null,crew=one");
        rig.negotiate(plain(&rig));
        let tx = Tx::new(&rig, rig.queue(1, 16), 2048);
        rig.run();
        (rig, tx)
    };
    let ((rig, mut tx), (_sibling, mut other)) = (open(), open());
    let events = rig.device.events().unwrap();

    // A buffer in somebody's file.
    let file = tempfile::tempfile().unwrap();
    file.set_len(16384).unwrap();
    let region = Region::shared(file.try_clone().unwrap().into(), 0, 16384).unwrap();
    let memory: Arc<dyn DmaMemory> = Arc::new(region);
    let at = 0x9000_0000;
    rig.dma
        .map(vec![Mapping {
            iova: IovaRange::new(Iova::new(at), 16384).unwrap(),
            memory: Arc::clone(&memory),
            offset: 0,
            access: Access::Both,
            dirty: None,
        }])
        .unwrap();
    let mut send = || {
        tx.q.add(&[(at - BASE, 100)], &[]).unwrap();
        tx.q.publish();
        tx.q.wait_used(1);
    };
    send();
    assert_eq!(events.try_next(), None);
    nix::unistd::ftruncate(file.as_fd(), 0).unwrap();
    send();
    match events.wait(soon()).unwrap() {
        Some(Event::NeedsReset { queue: None, why }) => {
            assert!(why.contains("0x90000000"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(memory.is_lost());
    let lost = |rig: &rig::Rig| {
        let status = rig.device.status().unwrap();
        status.contains(Status::DEVICE_NEEDS_RESET)
    };
    assert!(lost(&rig));
    // Whoever shares its thread is none the wiser.
    until("the sibling's traffic", || {
        other.send(&[frame(1, 100)]);
        other.reap() > 0
    });
    // Reset, and without that memory, it is as good as before.
    rig.device.reset(soon()).unwrap();
    rig.dma
        .unmap(IovaRange::new(Iova::new(at), 16384).unwrap(), soon())
        .unwrap();
    assert!(!lost(&rig));
    rig.negotiate(plain(&rig));
    let mut tx = Tx::new(&rig, rig.queue(1, 16), 2048);
    rig.run();
    tx.send(&[frame(2, 100)]);
    until("traffic after the reset", || tx.reap() > 0);
    assert!(!lost(&rig));
    let by = Deadline::after(Duration::from_secs(5));
    rig.device.close(by).map_err(|(_, e)| e).unwrap();
}
