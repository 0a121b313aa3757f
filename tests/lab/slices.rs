//! Slices of a virtual function: four of a card behind VFIO, and one held to what is said of network devices.

use crate::machine::{Kernel, Machine};
use crate::verdict;

/// The card's wire gives back what is sent; the suite sends from one address.
const SLICES: &str = r#"
load
card=$(behind 06)
step bind ./vdpactl vfio bind "$card" --json
step types ./vdpactl mdev types --of "vfio:$card" --json
step exchange ./guest slices "vfio:$card" 300
step check ./vdpactl check "mdev:slice,of=vfio:$card,vlan=any,mac=52:54:00:12:34:56" --effort quick --only 146-185 --json
step restore ./vdpactl vfio restore --json
step after driver_of "$card"
"#;

#[test]
fn four_slices_of_a_card_behind_vfio_exchange_frames() {
    let name = "four_slices_of_a_card_behind_vfio_exchange_frames";
    if !Kernel::Stock.is_there(name) {
        return;
    }
    let transcript = Machine::new(Kernel::Stock, &["intel-iommu", "net-loop"]).run(SLICES);
    transcript.step("bind").well();
    let types = transcript.step("types").well().json();
    assert_eq!(types["types"][0]["available_instances"], 64, "{types}");
    let said = transcript.step("exchange").well().json();
    assert_eq!(said["between"], 4 * 300, "{said}");
    assert_eq!(said["back"], 4 * 300, "{said}");
    assert_eq!(said["all"], 4 * 4 * 300, "{said}");
    verdict::is_well(transcript.step("check"), 30);
    transcript.step("restore").well();
    assert_eq!(transcript.said("after"), "virtio-pci");
}
