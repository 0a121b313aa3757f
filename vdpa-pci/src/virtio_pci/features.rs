//! Feature words, 32 bits at a time.

use vdpa_core::{DeviceType, FeatureBit, Features, Result, bits, graph};

use crate::error::PciError;
use crate::registers::{Registers, common};

/// Reads what is offered, all 128 bits. What this driver could not use is left out.
///
/// # Spec
/// virtio 1.4 §4.1.4.3: a device shows 0 in windows where it offers nothing.
pub(super) fn read(registers: &Registers) -> Result<Features> {
    let mut words = [0; 4];
    for (select, word) in (0..).zip(&mut words) {
        registers.set_common(common::DEVICE_FEATURE_SELECT, select)?;
        *word = registers.common(common::DEVICE_FEATURE)?;
    }
    // A device that looks at one bit of the selector shows the low windows again.
    let [first, second, third, fourth] = words;
    if [first, second] == [third, fourth] {
        words = [first, second, 0, 0];
    }
    let all = Features::from_words(words);
    let device_type = registers.layout.device_type;
    if !all.contains(bits::VERSION_1) {
        return Err(PciError::NotModern {
            function: registers.name().to_owned(),
            features: all.display(device_type).to_string(),
        }
        .into());
    }
    let unusable = unusable(registers.layout.common.len);
    match all.intersects(unusable) {
        // What depends on what is left out goes with it.
        true => Ok(graph::close_down(device_type, all - unusable)),
        false => Ok(all),
    }
}

/// A suspended device tells nobody where its queues stand, so the status bit is of no use here.
const NEVER: Features = bits::SUSPEND.mask();

/// The features of a device type that this driver can use.
pub(super) fn usable(device_type: DeviceType) -> Features {
    let named = (0..FeatureBit::COUNT)
        .filter_map(FeatureBit::new)
        .filter(|bit| bit.name(device_type).is_some());
    named.fold(Features::NONE, Features::with) - NEVER
}

/// The features that this driver cannot use.
fn unusable(len: u64) -> Features {
    let mut out = NEVER;
    // A structure that ends before a feature's registers.
    for (feature, register) in [
        (bits::NOTIF_CONFIG_DATA, common::QUEUE_NOTIF_CONFIG_DATA),
        (bits::RING_RESET, common::QUEUE_RESET),
        (bits::ADMIN_VQ, common::ADMIN_QUEUE_NUM),
    ] {
        if len < u64::from(register.at) + u64::from(register.width.bytes()) {
            out.insert(feature);
        }
    }
    out
}

/// Tells the device what is accepted, and reads back that it took it.
pub(super) fn write(registers: &Registers, offered: Features, accepted: Features) -> Result<()> {
    let mut lost = Features::NONE;
    for select in 0..4 {
        // Windows 2 and 3 only where the device has them: one that does not tell them apart would take the zeros for 0 and 1.
        if select > 1 && offered.word(select) == 0 {
            continue;
        }
        let word = accepted.word(select);
        registers.set_common(common::DRIVER_FEATURE_SELECT, select)?;
        registers.set_common(common::DRIVER_FEATURE, word)?;
        let taken = registers.common(common::DRIVER_FEATURE)?;
        lost = lost.with_word(select, word & !taken);
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(PciError::FeaturesLost {
        function: registers.name().to_owned(),
        lost: lost.display(registers.layout.device_type).to_string(),
    }
    .into())
}
