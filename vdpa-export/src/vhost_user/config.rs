//! Configuration space, and the MTU.

use vdpa_core::{Device, bits};
use vdpa_vhost_user::Reply;
use vdpa_vhost_user::payload::{Config, ConfigSpan};

use crate::serve::Served;

/// Reads. Behind the end there are zeroes: VMMs read the structure of all features, of which the device has some.
pub(super) fn read(device: &Device, span: &ConfigSpan) -> Reply {
    let size = device.info().config_size;
    let mut bytes = vec![0; usize::try_from(span.size).unwrap_or(0)];
    let there = size.saturating_sub(span.offset).min(span.size);
    let there = usize::try_from(there).unwrap_or(0);
    let read = match bytes.get_mut(..there) {
        Some(to) if !to.is_empty() => device.read_config(span.offset, to),
        _ => Ok(()),
    };
    match read {
        Ok(()) => Reply::Config(Config {
            offset: span.offset,
            flags: span.flags,
            bytes,
        }),
        Err(error) => {
            tracing::warn!(%error, "configuration space cannot be read");
            Reply::Failed
        }
    }
}

/// Writes. What cannot be written is the guest's fault, for which the front end is not cut off.
pub(super) fn write(device: &Device, config: &Config) -> Reply {
    match device.write_config(config.offset, &config.bytes) {
        Ok(()) => Reply::Done,
        Err(error) => {
            tracing::warn!(%error, offset = config.offset, "configuration space is not written");
            Reply::Failed
        }
    }
}

/// The largest MTU that virtio 1.4 §5.1.4.1 has, and the smallest.
const MTU: std::ops::RangeInclusive<u64> = 68..=65535;
/// Where the field is, `virtio_net_config`.
const MTU_OFFSET: u32 = 10;

/// The front end says which MTU its guest was told. The device has one of its own or none, and frames of up to 65 535
/// bytes go through it anyhow: what it says is checked.
pub(super) fn check_mtu(served: &Served, mtu: u64) -> Reply {
    let mut own = [0; 2];
    let has = served.device().offered().contains(bits::net::MTU);
    let most = match served.device().read_config(MTU_OFFSET, &mut own) {
        Ok(()) if has => u64::from(u16::from_le_bytes(own)),
        _ => *MTU.end(),
    };
    match MTU.contains(&mtu) && mtu <= most {
        true => Reply::Done,
        false => {
            tracing::warn!(mtu, most, "an MTU that the device does not have");
            Reply::Failed
        }
    }
}
