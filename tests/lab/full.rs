//! Guests for `tests/run --full`.

use crate::card_is_well;
use crate::machine::{Kernel, Machine};
use crate::verdict;

/// No hardware at all, on a machine that is a hundred times slower than the one that the judge's patience was made for.
#[test]
fn simulated_devices_keep_every_statement_on_a_slow_machine() {
    if !Kernel::Stock.is_there("full::simulated_devices_keep_every_statement_on_a_slow_machine") {
        return;
    }
    let devices = ["sim:net", "sim:blk", "sim:rng"];
    let script = devices
        .map(|device| format!("step {device} ./vdpactl check {device} --effort quick --json\n"));
    let transcript = Machine::new(Kernel::Stock, &[]).run(&script.concat());
    for device in devices {
        verdict::is_well(transcript.step(device), 90);
    }
}

macro_rules! cards {
    ($($name:ident: $kernel:ident, [$($part:literal),*];)*) => {$(
        #[test]
        fn $name() {
            if Kernel::$kernel.is_there(concat!("full::", stringify!($name))) {
                card_is_well(Kernel::$kernel, &[$($part),*]);
            }
        }
    )*};
}

cards! {
    a_card_with_one_vector: Stock, ["intel-iommu", "net-alone,vectors=1"];
    a_card_with_ten_vectors: Stock, ["intel-iommu", "net-alone,vectors=10"];
    a_card_without_packed_rings: Stock, ["intel-iommu", "net-alone,packed=off"];
    a_card_behind_a_paravirtual_iommu: Stock, ["virtio-iommu", "net-alone"];
    second_kernel_behind_a_paravirtual_iommu: Second, ["virtio-iommu", "net-alone"];
}
