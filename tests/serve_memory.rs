//! What becomes of a front end whose memory the device behind `vdpactl serve` cannot have.
#![cfg(feature = "cli")]

mod serving;
mod vdpactl;

use std::os::fd::AsRawFd as _;

use serving::{Served, Shared};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};

/// A device that is told of each mapping, as one behind an IOMMU is: here that of another `vdpactl serve`. Its first mapping
/// is refused, as where no entry is left.
#[test]
fn memory_that_the_device_cannot_map_costs_its_front_end_the_connection_and_nobody_else() {
    let home = tempfile::tempdir().unwrap();
    let [inner_path, outer_path] = ["inner.sock", "outer.sock"].map(|name| home.path().join(name));
    let inner = Served::start([
        "sim:blk,size=1M",
        "--vhost-user",
        inner_path.to_str().unwrap(),
    ]);
    inner.expect("listening");
    let spec = format!(
        "vhost-user:{},type=blk,fault=map.refused:@1",
        inner_path.display()
    );
    let outer = Served::start([&spec, "--vhost-user", outer_path.to_str().unwrap()]);
    outer.expect("listening");

    let memory = Shared::new(1 << 20);
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: 0x4000_0000,
        memory_size: 1 << 20,
        userspace_addr: memory.address(),
        mmap_offset: 0,
        mmap_handle: memory.file.as_raw_fd(),
    };
    let hello = || {
        let mut front_end = Frontend::connect(&outer_path, 1).unwrap();
        front_end.set_owner().unwrap();
        front_end.get_features().unwrap();
        let protocol = front_end.get_protocol_features().unwrap();
        front_end
            .set_protocol_features(protocol & VhostUserProtocolFeatures::REPLY_ACK)
            .unwrap();
        front_end.set_features(1 << 32 | 1 << 30).unwrap();
        outer.expect("connected");
        front_end
    };
    let front_end = hello();
    let _refused = front_end.set_mem_table(&[region]);
    let why = outer.expect("cut_off")["why"].as_str().unwrap().to_owned();
    assert!(
        why.contains("SET_MEM_TABLE") && why.contains("0x40000000"),
        "{why}"
    );
    assert!(!why.contains('\n'), "{why}");

    // The next one is served: its table is taken, and what it is asked for after that is answered.
    let front_end = hello();
    front_end.set_mem_table(&[region]).unwrap();
    front_end.get_features().unwrap();
    drop(front_end);
    outer.expect("disconnected");
    outer.stop(1);
}
